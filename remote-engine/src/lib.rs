//! The engine at the tape site.
//!
//! ```text
//!   engine     putting it together: state, store, libraries, leases, listener
//!   peer       connections of local engines: TLS, greeting, pairs, keep-alive
//!   lease      the lease table with its devices: operations and copy ranges, each done once
//!   stream     bytes of foreign movers on their way here, bytes of tapes on their way back
//!   replica    generations that arrive: store first, then rows
//!   report     what peers and the catalogue are told of libraries and drives
//!   library    the physical libraries and the ways to their devices
//!   jobs       job rows, and what a peer has still to hear of them
//!   recovery   what a start does with what a crash left
//!   admin      answers to the command line
//!   status     what the status page tells
//! ```
//!
//! Invariants: an answer leaves behind its row; a copy reads only generations that are committed
//! here; a device is let go only after a flush; what a peer sees is only what its configuration
//! gives it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod admin;
pub mod engine;
mod heal;
pub mod jobs;
pub mod lease;
pub mod library;
pub mod peer;
pub mod recovery;
pub mod replica;
pub mod report;
pub mod status;
pub mod stream;

use std::ffi::OsString;

/// The whole program with its arguments, the first of which is not looked at; its exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    service::cli::run(arguments, engine::serve)
}
