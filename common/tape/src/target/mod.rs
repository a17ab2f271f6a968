//! The device side of SCSI: CDBs in, status, sense and data out, over a [`Medium`].
//!
//! * [`Medium`] is what a drive writes on (records and filemarks): a cartridge of the store, or a
//!   file. A [`Shelf`] opens one by its barcode. [`MemoryShelf`] is one for tests.
//! * [`TargetDrive`] is one state object: cartridge, medium and position, reservations, unit
//!   attentions, modes and counters. [`DriveHandle`] gives it the [`crate::TapeDrive`] face,
//!   [`TargetDrive::execute_cdb`] the SCSI face; both see one state and no record is copied
//!   between them.
//! * [`TargetLibrary`] is a changer with its elements and drives, its inventory kept by an
//!   [`InventoryStore`]; [`ChangerHandle`] gives it the [`crate::MediumChanger`] face.
//! * [`offline`] answers for a device that can not be reached, from what was last known of it.
//! * [`FaultPlan`] makes chosen commands fail, late or unanswered.
//!
//! Initiators are told apart by a number (a *nexus*) that their session carries and that is not
//! used again once [`TargetDrive::forget_nexus`] was called.
//!
//! It knows no socket and no thread, and it does not store: durability is the medium's.

mod answer;
mod common;
mod drive;
mod elements;
mod fault;
mod library;
mod medium;
mod memory;
mod nexus;
mod personality;
#[cfg(test)]
mod tests;

pub use answer::{Answer, Transfer};
pub use drive::{DriveHandle, DriveSpec, TargetDrive, WriteRun, default_early_warning};
pub(crate) use elements::element_status;
pub use elements::offline;
pub use fault::{FaultAction, FaultError, FaultOperation, FaultPlan, FaultRule};
pub use library::{
    ChangerHandle, InventoryStore, LibraryError, LibrarySpec, MemoryInventory, SavedCell,
    SavedInventory, Seen, TargetLibrary,
};
pub(crate) use medium::{AUTHENTICATED_MAX, MAC, UNAUTHENTICATED_MAX};
pub use medium::{Medium, MediumError, Seal, Shelf, Told};
pub use memory::{MemoryMedium, MemoryShelf, MemoryTape, TapeObject};

pub use personality::{Format, PERSONALITIES, Personality};

use answer::complete;

/// The longest record that a drive takes, in bytes (READ BLOCK LIMITS).
pub const MAX_BLOCK: u32 = 8 << 20;

/// The most filemarks that one command writes; more are 05/24/00.
pub const MAX_FILEMARKS: u32 = 1 << 16;
