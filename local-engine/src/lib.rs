//! The engine at the backup site.
//!
//! ```text
//!   engine     putting it together: state, store, libraries, listeners
//!   session    one NDMP control connection: socket, devices, data plane
//!   mover      runs of the data plane: TCP, splices, offloaded ranges
//!   copies     copies that no session holds
//!   policy     the maps at work: writes noted, copies and migrations begun when they are due
//!   mounting   a drive for a tape, the tape brought there and taken back
//!   drives     those that stand here: cleaned when they ask for it, kept in the catalogue
//!   device     owner threads, names and claims, NDMP steps as calls of a drive
//!   frontend   libraries of tapes that lie in others, and the way to them
//!   library    virtual libraries over the store, physical ones at this site
//!   ghost      libraries of remote sites, shown as if they were here
//!   link       remote engines: connection, leases, replication
//!   smis       the same libraries, copies and jobs for management applications
//!   status     what the status page tells
//!   recovery   what a start does with what a crash left
//!   admin      answers to the command line
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod admin;
pub mod copies;
pub mod device;
mod drives;
pub mod engine;
pub mod frontend;
pub mod ghost;
pub mod library;
pub mod link;
pub mod mounting;
pub mod mover;
pub mod policy;
pub mod recovery;
pub mod session;
pub mod smis;
pub mod status;
#[cfg(test)]
mod testing;

use std::ffi::OsString;

/// The whole program with its arguments, the first of which is not looked at; its exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    service::cli::run(arguments, engine::serve)
}
