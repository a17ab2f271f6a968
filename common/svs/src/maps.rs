//! The three maps: which backend stands behind a frontend device, which medium is copied to which,
//! and which is migrated where.

use std::fmt;
use std::str::FromStr;

use model::Barcode;
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};

use crate::cartridge::found;
use crate::catalogue::collect;
use crate::text::{parsed, parsed_opt, words};
use crate::{Catalogue, SvsError};

/// Media of one frontend device; more are refused.
const TAPES_MAX: usize = 10_000;

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
    }
}

/// A row of `frontend_backend_map`: which device stands behind a frontend device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontendBackend {
    /// The device that does the work.
    pub backend_device: DeviceRef,
    /// The device that the host sees; once in the map.
    pub frontend_device: DeviceRef,
    /// The device that takes over if the backend fails.
    pub alternative_backend_device: Option<DeviceRef>,
    /// The media that belong to it.
    pub backend_tapes: Vec<MediumRef>,
}

/// A row of `copy_map`: both media keep the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyEntry {
    /// What is copied.
    pub source_medium: MediumRef,
    /// Where to.
    pub target_medium: MediumRef,
    /// When.
    pub policy: MapPolicy,
    /// How far it has come.
    pub status: MapStatus,
}

/// A row of `migration_map`: the source is freed afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationEntry {
    /// What is migrated; once in the map.
    pub source_medium: MediumRef,
    /// Where to.
    pub migration_medium: MediumRef,
    /// When.
    pub policy: MapPolicy,
    /// How far it has come.
    pub status: MapStatus,
}

impl Catalogue {
    /// Writes the entry of a frontend device, or replaces it.
    ///
    /// # Errors
    /// [`SvsError::Conflict`] for more than ten thousand media.
    pub fn put_frontend_backend(&self, entry: &FrontendBackend) -> Result<(), SvsError> {
        if entry.backend_tapes.len() > TAPES_MAX {
            return Err(SvsError::Conflict(format!("more than {TAPES_MAX} media in one entry")));
        }
        let tapes: Vec<_> = entry.backend_tapes.iter().map(ToString::to_string).collect();
        self.write(|tx| {
            tx.execute(
                "INSERT OR REPLACE INTO frontend_backend_map (backend_device, frontend_device,
                     alternative_backend_device, backend_tapes) VALUES (?1, ?2, ?3, ?4)",
                params![
                    entry.backend_device.to_string(),
                    entry.frontend_device.to_string(),
                    entry.alternative_backend_device.as_ref().map(ToString::to_string),
                    tapes.join(", "),
                ],
            )?;
            Ok(())
        })
    }

    /// The whole map, by frontend device.
    pub fn frontend_backends(&self) -> Result<Vec<FrontendBackend>, SvsError> {
        let sql = "SELECT * FROM frontend_backend_map ORDER BY frontend_device";
        self.read(|c| collect(c, sql, [], frontend_backend_from_row))
    }

    /// Removes the entry of a frontend device.
    pub fn remove_frontend_backend(&self, frontend: &DeviceRef) -> Result<(), SvsError> {
        self.write(|tx| {
            let sql = "DELETE FROM frontend_backend_map WHERE frontend_device = ?1";
            found(tx.execute(sql, [frontend.to_string()])?, || format!("entry for {frontend}"))
        })
    }

    /// Writes the entry of a source and a target, or replaces it.
    pub fn put_copy_entry(&self, entry: &CopyEntry) -> Result<(), SvsError> {
        self.write(|tx| {
            tx.execute(
                "INSERT OR REPLACE INTO copy_map (source_medium, target_medium, policy, status)
                 VALUES (?1, ?2, ?3, ?4)",
                params![
                    entry.source_medium.to_string(),
                    entry.target_medium.to_string(),
                    entry.policy,
                    entry.status
                ],
            )?;
            Ok(())
        })
    }

    /// The whole map, by source and target.
    pub fn copy_entries(&self) -> Result<Vec<CopyEntry>, SvsError> {
        let sql = "SELECT * FROM copy_map ORDER BY source_medium, target_medium";
        self.read(|c| {
            collect(c, sql, [], |row| {
                Ok(CopyEntry {
                    source_medium: parsed(row, "source_medium")?,
                    target_medium: parsed(row, "target_medium")?,
                    policy: parsed(row, "policy")?,
                    status: parsed(row, "status")?,
                })
            })
        })
    }

    /// Removes the entry of a source and a target.
    pub fn remove_copy_entry(
        &self,
        source: &MediumRef,
        target: &MediumRef,
    ) -> Result<(), SvsError> {
        self.write(|tx| {
            let sql = "DELETE FROM copy_map WHERE source_medium = ?1 AND target_medium = ?2";
            let rows = tx.execute(sql, (source.to_string(), target.to_string()))?;
            found(rows, || format!("copy of {source} to {target}"))
        })
    }

    /// Writes the entry of a source, or replaces it.
    pub fn put_migration_entry(&self, entry: &MigrationEntry) -> Result<(), SvsError> {
        self.write(|tx| {
            tx.execute(
                "INSERT OR REPLACE INTO migration_map
                     (source_medium, migration_medium, policy, status) VALUES (?1, ?2, ?3, ?4)",
                params![
                    entry.source_medium.to_string(),
                    entry.migration_medium.to_string(),
                    entry.policy,
                    entry.status
                ],
            )?;
            Ok(())
        })
    }

    /// The whole map, by source.
    pub fn migration_entries(&self) -> Result<Vec<MigrationEntry>, SvsError> {
        let sql = "SELECT * FROM migration_map ORDER BY source_medium";
        self.read(|c| {
            collect(c, sql, [], |row| {
                Ok(MigrationEntry {
                    source_medium: parsed(row, "source_medium")?,
                    migration_medium: parsed(row, "migration_medium")?,
                    policy: parsed(row, "policy")?,
                    status: parsed(row, "status")?,
                })
            })
        })
    }

    /// Removes the entry of a source.
    pub fn remove_migration_entry(&self, source: &MediumRef) -> Result<(), SvsError> {
        self.write(|tx| {
            let sql = "DELETE FROM migration_map WHERE source_medium = ?1";
            found(tx.execute(sql, [source.to_string()])?, || format!("migration of {source}"))
        })
    }
}

fn frontend_backend_from_row(row: &Row<'_>) -> Result<FrontendBackend, SvsError> {
    let tapes: String = row.get("backend_tapes")?;
    let tapes = tapes.split(',').map(str::trim).filter(|text| !text.is_empty());
    let tapes: Result<Vec<MediumRef>, _> = tapes.map(str::parse).collect();
    Ok(FrontendBackend {
        backend_device: parsed(row, "backend_device")?,
        frontend_device: parsed(row, "frontend_device")?,
        alternative_backend_device: parsed_opt(row, "alternative_backend_device")?,
        backend_tapes: tapes
            .map_err(|e| SvsError::Corrupt { expected: "a list of media", value: e.text })?,
    })
}
