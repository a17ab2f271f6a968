//! The device side of SCSI: CDBs in, status, sense and data out, over a [`Medium`].
//!
//! A [`Medium`] is what a drive writes on (records and filemarks): a cartridge of the store, or a
//! file. A [`Shelf`] opens one by its barcode.

mod medium;
mod memory;

pub use medium::{Medium, MediumError, Shelf};
pub use memory::{MemoryMedium, MemoryShelf, MemoryTape, TapeObject};

/// The longest record that a drive takes, in bytes (READ BLOCK LIMITS).
pub const MAX_BLOCK: u32 = 8 << 20;
