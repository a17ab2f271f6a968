//! Device reports: what the remote site has, and what it knows of copies.

use model::{Barcode, ElementAddress, ElementType, JobId, LibraryName, ObjectNumber};
use serde::{Deserialize, Serialize};
use tape::{DeviceIdentity, DriveState, Inventory};

mod parts;

pub(crate) use parts::{DRIVES_MAX, ELEMENTS_MAX, LIBRARIES_MAX};
pub use parts::{ReportTooLong, ReportWatch};

/// Everything that the remote shows to this peer; sent whole after each greeting and after every
/// change. Serialisable, so that a ghost library is listed before the remote was reached again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteReport {
    /// Counts the reports of one run of the remote engine, from 1.
    pub sequence: u64,
    /// The physical libraries that this peer may use, at most 64.
    pub libraries: Vec<LibraryReport>,
    /// More of this report follows, see [`SiteReport::parts`].
    #[serde(default)]
    pub more: bool,
}

/// One physical library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LibraryReport {
    /// Its name at its own site.
    pub name: LibraryName,
    /// Who the changer is, with its serial number.
    pub identity: DeviceIdentity,
    /// Element map and every element.
    pub inventory: Inventory,
    /// The drives in the order of their elements: drive 0, drive 1, ...
    pub drives: Vec<DriveReport>,
    /// Bytes that fit on one cartridge, `None` if unknown.
    pub capacity: Option<u64>,
    /// Whether the library answers.
    pub online: bool,
    /// Cartridges that are not to be written on any more, and why; at most [`FROZEN_MAX`].
    #[serde(default)]
    pub frozen: Vec<(Barcode, String)>,
}

/// Cartridges of a library that are told to be frozen.
pub const FROZEN_MAX: usize = 1024;

impl LibraryReport {
    /// A cartridge was moved, and the report that says so has not come yet.
    pub fn moved(&mut self, from: ElementAddress, to: ElementAddress) {
        let elements = &mut self.inventory.elements;
        let find = |address| elements.iter().position(|element| element.address == address);
        let (Some(source), Some(target)) = (find(from), find(to)) else { return };
        if source == target || !elements[source].full || elements[target].full {
            return;
        }
        let barcode = elements[source].barcode.take();
        let home = match elements[source].kind {
            ElementType::Storage => Some(from),
            _ => elements[source].source,
        };
        (elements[source].full, elements[source].source) = (false, None);
        let target = &mut elements[target];
        (target.full, target.barcode, target.source) = (true, barcode, home);
    }
}

/// One physical drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveReport {
    /// Its element.
    pub element: ElementAddress,
    /// Who it is.
    pub identity: DeviceIdentity,
    /// What lies in it as of the report, `None` if the drive does not answer.
    pub state: Option<DriveState>,
    /// Whether someone holds it open.
    pub in_use: bool,
    /// Why it is not used, where it is out of use; at most 1024 bytes.
    #[serde(default)]
    pub down: Option<String>,
    /// A cartridge is made ready (threaded, or calibrated, which takes up to two hours), and this
    /// much of it is done, in 65536ths; 0 where that is not known.
    #[serde(default)]
    pub readying: Option<u16>,
}

/// What the remote knows of a copy whose session was gone when it ended. The remote is the
/// authority for what is on tape. Sent at each connection until it is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobReport {
    /// The job.
    pub job: JobId,
    /// All of what was asked is on tape and flushed.
    pub complete: bool,
    /// Bytes on tape as of the last flush.
    pub flushed_bytes: u64,
    /// The object number behind the last flushed one.
    pub flushed_object: Option<ObjectNumber>,
    /// For people, at most 1024 bytes.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use tape::ElementStatus;

    use super::*;

    fn element(address: ElementAddress, kind: ElementType, tag: Option<&str>) -> ElementStatus {
        ElementStatus {
            address,
            kind,
            full: tag.is_some(),
            barcode: tag.map(|tag| Barcode::new(tag).unwrap()),
            accessible: true,
            imported: false,
            source: None,
            exception: None,
            drive: None,
        }
    }

    #[test]
    fn a_move_is_noted_if_it_can_have_been() {
        let identity = DeviceIdentity {
            vendor: "V".into(),
            product: "P".into(),
            revision: "1".into(),
            serial: "S".into(),
        };
        let mut report = LibraryReport {
            name: LibraryName::new("ptl0").unwrap(),
            identity,
            inventory: Inventory {
                map: model::ElementMap::with_counts(1, 2, 0),
                elements: vec![
                    element(128, ElementType::DataTransfer, None),
                    element(1024, ElementType::Storage, Some("PTA001L8")),
                    element(1025, ElementType::Storage, None),
                ],
            },
            drives: Vec::new(),
            capacity: None,
            online: true,
            frozen: Vec::new(),
        };
        let seen = |report: &LibraryReport| {
            let elements = report.inventory.elements.iter();
            elements.map(|e| (e.full, e.barcode.is_some(), e.source)).collect::<Vec<_>>()
        };
        report.moved(1024, 128);
        let moved = [(true, true, Some(1024)), (false, false, None), (false, false, None)];
        assert_eq!(seen(&report), moved);
        // From an empty element, to itself, from nowhere.
        for (from, to) in [(1024, 1025), (128, 128), (7, 1025)] {
            report.moved(from, to);
            assert_eq!(seen(&report), moved);
        }
        report.moved(128, 1025);
        assert_eq!(seen(&report)[2], (true, true, Some(1024)));
    }
}
