//! Decisions about copies and their execution, shared by both engines.
//!
//! - [`plan()`] says who moves the bytes of a copy. A pure function over what source and target are
//!   and what the engines can do now; tested as a table.
//! - [`access::order`] says which copy of a tape a host is given. A pure function as well.
//! - [`mounts`] decides who is given which drive, and when: the queue of those who need tapes.
//! - [`run::write_range`] moves the bytes of one range to a drive: prefetching from its source so
//!   that the drive never waits, counting only what the drive answered GOOD.
//! - [`policy`] decides which entries of the maps are due, and sees them through.
//! - [`proof`] reads back what was written and compares it.
//! - [`upkeep`] deletes generations that are superseded.
//! - [`match_catalogue`] brings the catalogue in line with the store at a start.
//!
//! What is *not* here: protocols (NDMP, link), job rows, and the question which range comes next.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod access;
pub mod mounts;
pub mod plan;
pub mod policy;
pub mod proof;
mod records;
pub mod run;
pub mod upkeep;

pub use plan::{Holder, Path, Plan, Reason, plan};
pub use records::{generation_row, match_catalogue};
