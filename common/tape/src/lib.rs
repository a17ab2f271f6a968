//! Tape drives and medium changers: the vocabulary ([`Operation`]), the two traits that every
//! device of ours answers ([`TapeDrive`], [`MediumChanger`]), and both sides of SCSI under them.
//!
//! ```text
//!   TapeDrive / MediumChanger            what NDMP, copies and the link hold
//!     ├─ target::TargetDrive  ── Medium  a virtual drive: the state object itself, no CDB between
//!     ├─ driver::ScsiDrive    ── ScsiTransport::execute ── a device: local (target), sg, iscsi
//!     └─ (a ghost drive in the local engine sends `Operation`s over the link)
//! ```
//!
//! Everything here blocks, takes a [`Control`] (deadline and cancel token), and is owned by one
//! thread at a time. Early warning, filemarks, end of data and end of medium are values.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod control;
mod device;
pub mod driver;
mod error;
pub mod file;
mod keys;
mod operation;
pub mod physical;
pub mod target;

pub use control::{CancelToken, Control};
pub use device::{
    CdbRequest, Completion, DeviceIdentity, DriveState, ElementStatus, Inventory, MediumChanger,
    MediumState, Position, ReadEnd, SpaceKind, SpaceStop, Spaced, TapeDrive, WriteEnd,
};
pub use error::TapeError;
pub use keys::{KeyError, KeyId, KeyRing, TapeKey};
pub use operation::{Operation, Outcome, perform, perform_changer};
