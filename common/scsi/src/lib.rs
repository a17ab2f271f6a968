//! Both sides of the SCSI wire format for tape: CDBs, sense data, element status, mode and log
//! pages, MAM. Pure bytes; see SPC-5, SSC-4 and SMC-3 for the clauses named.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod cdb;
mod sense;

pub use cdb::{
    CDB_MAX, Cdb, Command, Destination, DeviceType, ElementRange, ModeForm, OpcodeQuery,
    PositionForm, SpaceCode, commands,
};
pub use sense::{FieldPointer, SENSE_MAX, Sense};
