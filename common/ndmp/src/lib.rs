//! NDMP versions 2, 3 and 4: messages, and the tape server's side of a control connection.
//!
//! ```text
//!   bytes ──► wire      the messages of all versions, both ways
//!             server    Session: one control connection. message or event in, outputs out
//!               ├─ auth     passwords, MD5 challenge
//!               ├─ tape     NDMP's tape semantics turned into steps of a drive
//!               └─ mover    the mover's state machine turned into commands of a data plane
//! ```
//!
//! Sans-I/O: no socket, no clock, no thread. Whoever runs a [`server::Session`] gives it whole
//! records and events together with the time, and carries out its [`server::Output`]s. Drives are
//! asked in [`tape::DriveStep`]s, which any SCSI tape drive can do one to one; the bytes of a
//! mover never come through here.
//!
//! Invariants: a session answers every request exactly once and in order; a notification follows
//! the reply that caused it; every length is bounded before it is believed; no input panics; and
//! after a disconnect the session gives back every device it took.
//!
//! What this crate does not do: the DATA interface (answered as not supported), and any I/O.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod auth;
pub mod mover;
pub mod server;
pub mod tape;
pub mod wire;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
