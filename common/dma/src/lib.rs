//! A small backup application's side of NDMP (a DMA), over blocking sockets.
//!
//! * [`Client`]: one control connection. Methods for every message, grouped as the protocol
//!   groups them: tape blocks and filemarks, a changer through CDBs, the mover.
//! * [`copy`](copy::copy): the tape-to-tape copy between two movers, as real applications do it:
//!   labels and headers block by block, bulk data from mover to mover, a window for each part, a
//!   change of tape at the end of the medium.
//! * [`data`]: what a data agent does: a stream into a mover, or out of one.
//!
//! Filemarks, the end of the data and the end of the medium are values; errors say whose fault it
//! is. Every wait has an end. What this crate does not do: the DATA interface, and a catalogue:
//! who uses it remembers what is on which tape.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod changer;
mod client;
pub mod copy;
pub mod data;
mod error;
mod mover;
mod tape;

#[cfg(test)]
mod server;
#[cfg(test)]
mod tests;

pub use client::{Client, Login, ServerTime};
pub use error::DmaError;
pub use mover::{MoverNews, TO_THE_END};
pub use ndmp::wire::{TapeOpenMode, Version};
pub use tape::{BLOCK_MAX, TapeObject, Wrote};
