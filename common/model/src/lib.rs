//! The nouns of Twinreel: small value types that every other room uses. No I/O, no clock.
//!
//! What belongs here is a name with a shape (a barcode, an element address, a digest) and the
//! parsing that turns outside text into it. What a room *does* with a noun stays in that room.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod barcode;
mod digest;
mod id;
mod name;
mod network;
mod pattern;
mod place;
mod size;

pub use barcode::{BARCODE_MAX, Barcode, BarcodeError, CartridgeSet};
pub use digest::Digest;
pub use id::{CartridgeId, EngineId, GenerationId, IdError, JobId, LeaseId, Ulid};
pub use name::{DeviceName, DeviceRole, LibraryName, NameError, SiteName};
pub use network::{Network, NetworkError};
pub use pattern::DevicePattern;
pub use place::{Element, ElementAddress, ElementMap, ElementType};
pub use size::{ByteSize, SizeError};

/// Position on a tape as SSC-4 counts it: logical objects (records **and** filemarks) from BOT,
/// the first one being 0 (READ POSITION long form, "logical object number").
pub type ObjectNumber = u64;
