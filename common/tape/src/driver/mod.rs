//! The host side of SCSI: what [`TapeDrive`](crate::TapeDrive) and
//! [`MediumChanger`](crate::MediumChanger) ask, as CDBs to a device.
//!
//! [`ScsiDrive`] and [`ScsiChanger`] work over any [`ScsiTransport`]: the embedded library in this
//! process, and later an iSCSI session or a device file.
//!
//! - Blocks are of variable length (FIXED 0) and reads ask for errors of length (SILI 0), so a
//!   longer record is never cut off in silence.
//! - Sense data decide by key, FM, EOM, ILI and INFORMATION, never by ASC alone: EOM with key 0 or
//!   1 is early warning, key 0Dh is overflow, key 08h is end of data.
//! - A deferred error (71h, 73h) fails the call that meets it, which was not executed.
//! - Unit attentions are the caller's business and come back as `Check`, except in
//!   [`ScsiDrive::ready`] and [`ScsiChanger`]'s inventory, for which looking again is the answer.
//! - *Becoming ready* and all else that [`scsi::advice`] says to wait for, BUSY and TASK SET FULL
//!   are waited out within the deadline: nothing was executed.
//! - When the way to the device breaks under a command that has an effect, or the device aborts it
//!   (key 0Bh), the position decides: as before, then it is sent once more; as after, then it was
//!   done; anything else is [`TapeError::PositionUnknown`](crate::TapeError::PositionUnknown).
//!   Nothing below ever sends a command twice.
//! - A drive with keys ([`ScsiDrive::with_keys`]) is told the one of its tape before the first
//!   write and after all that may have cost it: unit attentions, a broken way, a moved cartridge.
//!   Behind each flush it is asked whether it still has it.

#[cfg(test)]
mod advice_tests;
#[cfg(test)]
mod agree;
mod changer;
mod channel;
mod drive;
mod ends;
mod health;
mod iscsi;
mod keys;
mod local;
mod place;
mod reserve;
mod sg;
#[cfg(test)]
mod tests;
mod transport;

pub use changer::ScsiChanger;
pub use drive::ScsiDrive;
pub use health::DriveHealth;
pub use iscsi::{IscsiOptions, IscsiTransport, Portal, discover};
pub use keys::TapeInDrive;
pub use local::LocalTransport;
pub use place::Place;
pub use reserve::ReservationKey;
pub use sg::{SgNode, SgTransport, sg_nodes};
pub use transport::{Data, ScsiCompletion, ScsiTransport, TransportError};
