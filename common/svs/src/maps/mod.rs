//! The three maps: which backend stands behind a frontend device, which medium is copied to which,
//! and which is migrated where.

use std::fmt;
use std::str::FromStr;

use model::Barcode;
use serde::{Deserialize, Serialize};

use crate::text::words;

mod copies;
mod frontend;
mod media;
mod migrations;
mod pools;
mod range;

pub use copies::{CopyEntry, CopyRule, CopyStart, Settled};
pub use frontend::FrontendBackend;
pub use media::{MediumFacts, Places};
pub use migrations::{MigrationEntry, MigrationRule};
pub use pools::Pooled;
pub use range::TapeRange;

/// A text that names no device or medium; the fault of whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {expected}")]
pub struct ReferenceError {
    /// What was given.
    pub text: String,
    /// The forms that are understood.
    pub expected: &'static str,
}

/// A logical unit of a disk system: `wwpn W lun N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DiskRef {
    /// World wide port name, written as 16 hexadecimal digits.
    pub wwpn: u64,
    /// Logical unit number, up to 16383 (SAM-5, flat space addressing).
    pub lun: u16,
}

/// A device: `lib SERIAL drive SERIAL` or `wwpn W lun N`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceRef {
    /// A tape drive, by the serial numbers of its library and its own.
    Drive {
        /// Serial number of the library.
        library: String,
        /// Serial number of the drive.
        drive: String,
    },
    /// A disk.
    Disk(DiskRef),
}

/// A medium: `lib SERIAL tape VOLSER` or `wwpn W lun N`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum MediumRef {
    /// A tape, by the serial number of its library and its volume tag.
    Tape {
        /// Serial number of the library.
        library: String,
        /// Volume tag.
        volser: Barcode,
    },
    /// A disk.
    Disk(DiskRef),
}

const DEVICE_FORMS: &str = "device: write `lib SERIAL drive SERIAL` or `wwpn W lun N`";
const MEDIUM_FORMS: &str = "medium: write `lib SERIAL tape VOLSER` or `wwpn W lun N`";

/// A serial number as INQUIRY page 80h can hold it, without blanks: 1 to 64 visible characters
/// other than the comma, which separates media in a list.
fn serial(text: &str) -> Option<String> {
    let legal = text.bytes().all(|b| b.is_ascii_graphic() && b != b',');
    (legal && (1..=64).contains(&text.len())).then(|| text.to_owned())
}

fn disk(wwpn: &str, lun: &str) -> Option<DiskRef> {
    let hex = wwpn.len() == 16 && wwpn.bytes().all(|b| b.is_ascii_hexdigit());
    let decimal = lun == "0" || !lun.starts_with(['0', '+']);
    let wwpn = u64::from_str_radix(wwpn, 16).ok().filter(|_| hex)?;
    let lun = lun.parse().ok().filter(|lun| decimal && *lun <= 16_383)?;
    Some(DiskRef { wwpn, lun })
}

impl FromStr for DeviceRef {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let words: Vec<_> = text.split(' ').take(5).collect();
        let device = match words[..] {
            ["lib", library, "drive", drive] => serial(library)
                .zip(serial(drive))
                .map(|(library, drive)| Self::Drive { library, drive }),
            ["wwpn", wwpn, "lun", lun] => disk(wwpn, lun).map(Self::Disk),
            _ => None,
        };
        device.ok_or_else(|| refuse(text, DEVICE_FORMS))
    }
}

impl FromStr for MediumRef {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let words: Vec<_> = text.split(' ').take(5).collect();
        let medium = match words[..] {
            ["lib", library, "tape", volser] => serial(library)
                .zip(Barcode::new(volser).ok())
                .map(|(library, volser)| Self::Tape { library, volser }),
            ["wwpn", wwpn, "lun", lun] => disk(wwpn, lun).map(Self::Disk),
            _ => None,
        };
        medium.ok_or_else(|| refuse(text, MEDIUM_FORMS))
    }
}

fn refuse(text: &str, expected: &'static str) -> ReferenceError {
    ReferenceError { text: text.chars().take(160).collect(), expected }
}

impl fmt::Display for DiskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wwpn {:016x} lun {}", self.wwpn, self.lun)
    }
}

impl fmt::Display for DeviceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drive { library, drive } => write!(f, "lib {library} drive {drive}"),
            Self::Disk(disk) => disk.fmt(f),
        }
    }
}

impl fmt::Display for MediumRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tape { library, volser } => write!(f, "lib {library} tape {volser}"),
            Self::Disk(disk) => disk.fmt(f),
        }
    }
}

macro_rules! text_form {
    ($($name:ident)*) => {$(
        impl TryFrom<String> for $name {
            type Error = ReferenceError;
            fn try_from(text: String) -> Result<Self, ReferenceError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(reference: $name) -> Self {
                reference.to_string()
            }
        }
    )*};
}

text_form! { DeviceRef MediumRef }

words! {
    /// When a copy or a migration happens.
    MapPolicy ("a policy") {
        /// With every write.
        Always = "always",
        /// When the source medium is full.
        WhenFull = "when full",
        /// What is new since the last time.
        Incremental = "incremental",
        /// When asked for, or at a set time.
        Deferred = "deferred",
        /// Some days after the last write; of a migration only.
        AfterDays = "after days",
    }
}

words! {
    /// How far an entry has come.
    MapStatus ("a status of a map") {
        /// Nothing done yet.
        Pending = "pending",
        /// Has a time or a place in a queue.
        Scheduled = "scheduled",
        /// Being done.
        InProgress = "in progress",
        /// Both media are what the entry wants.
        Done = "done",
        /// It was tried and is not tried again by itself.
        Failed = "failed",
    }
}
