//! One control connection, as the tape server sees it.
//!
//! ```text
//!   client ──record──► on_message ─┐                    ┌─► Send, Close
//!   devices ─────────► on_device  ─┼─► Session ─► poll ─┼─► Device(DeviceRequest)
//!   data plane ──────► on_mover   ─┤                    ├─► Mover(MoverCommand)
//!   (gone) ──────────► on_disconnect                    └─► Log, Finished
//! ```
//!
//! A request that needs a device or the data plane makes the session busy until its answer is
//! there; messages wait that long outside. After a disconnect the session goes on by itself
//! until it holds nothing: it stops the mover, writes the filemark that is due, and gives back
//! what it opened.

mod config;
mod connect;
mod devices;
mod io;
mod movers;
mod session;

#[cfg(test)]
mod conformance_tests;
#[cfg(test)]
mod copy_tests;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod rubbish_tests;
#[cfg(test)]
mod tests;

pub use config::{Identity, Secret, SessionConfig, User, Users};
pub use io::{Cdb, CdbOutcome, DeviceEntry, DeviceReply, DeviceRequest, LogLevel, Output};
pub use session::{Login, Session};
