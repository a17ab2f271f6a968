//! Bounds of the variable parts of messages. The standard gives none; these are far above what
//! any client was seen to send.

/// A name: user, device, host, model.
pub const NAME: usize = 4096;
/// A text: log entry, reason, value of a pair.
pub const TEXT: usize = 64 * 1024;
/// Pairs of name and value in one list.
pub const ENVIRONMENT: usize = 1024;
/// Alternatives of one TCP address.
pub const ADDRESSES: usize = 64;
/// Devices, or models, in one list.
pub const DEVICES: usize = 4096;
/// Entries of a list of types or versions.
pub const TYPES: usize = 256;
/// A CDB.
pub const CDB: usize = 64;
/// Data of one tape or SCSI transfer.
pub const DATA: usize = 2 * 1024 * 1024;
/// Sense data.
pub const SENSE: usize = 1024;
/// Any message with its header: the longest data and room around it.
pub const MESSAGE: usize = DATA + 256 * 1024;
