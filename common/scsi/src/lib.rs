//! Both sides of the SCSI wire format for tape drives and medium changers. Pure bytes: no I/O, no
//! state, no clock. The clauses named are those of SPC-5, SSC-4 and SMC-3.
//!
//! * [`Cdb`]: every command as a value, with `encode` for a driver and `parse` for a target; the
//!   table behind it ([`commands`]) also answers REPORT SUPPORTED OPERATION CODES.
//! * [`Sense`]: sense data in fixed and descriptor format, with the codes used here by name;
//!   [`advice`]: what they ask for, as a table.
//! * [`StandardInquiry`], [`VitalPage`], [`Designator`]: who a device is.
//! * [`ElementReport`]: READ ELEMENT STATUS; [`TagTemplate`]: SEND VOLUME TAG.
//! * [`mode`], [`log`], [`mam`]: pages, parameters and attributes.
//! * [`crypt`]: the pages of data encryption in the drive.
//! * [`PositionReport`], [`BlockLimits`], [`Density`] and the other small answers.
//!
//! Invariants: whatever bytes come in, reading them ends without a panic, in time linear in their
//! length, and in a value no larger than they are; what was encoded reads back equal. Answers cut
//! by an allocation length are read as far as they go.
//!
//! It does not know what a tape is: semantics are `tape`'s.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod advice;
pub mod alert;
mod cdb;
pub mod crypt;
mod element;
mod inquiry;
pub mod log;
pub mod mam;
pub mod mode;
mod report;
mod sense;
mod wire;

pub use cdb::{
    CDB_MAX, Cdb, Command, Destination, DeviceType, ElementRange, ModeForm, OpcodeQuery,
    PositionForm, SpaceCode, commands, writes_medium,
};
pub use element::{ElementDescriptor, ElementReport, TagTemplate};
pub use inquiry::{Designator, StandardInquiry, VitalPage};
pub use report::{
    BlockLimits, Density, MediumType, PositionReport, SupportedOpcode, luns, parse_luns,
    parse_supported_opcodes, supported_opcodes,
};
pub use sense::{FieldPointer, SENSE_MAX, Sense};

/// Data from a device that is too short for what it says it is; the device's fault, and asking
/// again does not help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {what} has {found} bytes where {needed} are needed")]
pub struct Malformed {
    /// The structure.
    pub what: &'static str,
    /// How many bytes it needs.
    pub needed: usize,
    /// How many there were.
    pub found: usize,
}
