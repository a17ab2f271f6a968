//! Ghost libraries: libraries of a remote site, shown as if they were attached here.
//!
//! What needs the device is done by the remote engine and answered with the device's own sense
//! data. While the link is down, INQUIRY and inventory are answered from the last report and
//! everything else is 02/04/00.

mod changer;
mod drive;
mod reading;
mod writing;

pub use writing::ForeignStream;

use std::sync::{Arc, PoisonError, RwLock};

use link::LibraryReport;
use model::{DeviceName, DeviceRole, LibraryName};
use ndmp::tape::{Failure, FailureKind};
use scsi::Sense;
use tape::{Completion, MediumChanger, Operation};

use crate::device::{DeviceLine, Library, Opener};
use crate::link::RemoteSite;
use crate::mover::EngineDrive;

/// CHECK CONDITION with this sense data.
fn check_condition(sense: Sense) -> Completion {
    Completion { status: 0x02, sense: sense.to_fixed().to_vec(), ..Completion::default() }
}

/// Whether a unit attention that waits is told instead of doing this (SPC-5: all commands but
/// INQUIRY, REPORT LUNS and REQUEST SENSE).
fn meets_attention(operation: &Operation) -> bool {
    match operation {
        Operation::Cdb(request) => !matches!(request.cdb.first(), Some(0x12 | 0xa0 | 0x03)),
        _ => true,
    }
}

/// A library of a remote site.
pub struct GhostLibrary {
    name: LibraryName,
    site: Arc<RemoteSite>,
    report: Arc<RwLock<LibraryReport>>,
}

impl GhostLibrary {
    /// The library that `report` describes, under its name here.
    pub fn new(name: LibraryName, site: Arc<RemoteSite>, report: LibraryReport) -> Self {
        Self { name, site, report: Arc::new(RwLock::new(report)) }
    }

    /// A newer report came.
    pub fn renew(&self, report: LibraryReport) {
        *self.report.write().unwrap_or_else(PoisonError::into_inner) = report;
    }

    fn report(&self) -> LibraryReport {
        self.report.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Library for GhostLibrary {
    fn name(&self) -> &LibraryName {
        &self.name
    }

    fn devices(&self) -> Vec<DeviceLine> {
        let report = self.report();
        let line = |role, identity: &tape::DeviceIdentity| DeviceLine {
            name: DeviceName { library: self.name.clone(), role },
            model: format!("{} {}", identity.vendor, identity.product),
            serial: identity.serial.clone(),
        };
        let drives = (0u16..).zip(&report.drives);
        std::iter::once(line(DeviceRole::Changer, &report.identity))
            .chain(drives.map(|(index, drive)| line(DeviceRole::Drive(index), &drive.identity)))
            .collect()
    }

    fn open_drive(&self, index: u16, _opener: &Opener) -> Result<Box<dyn EngineDrive>, Failure> {
        let report = self.report();
        let identity = report.drives.get(usize::from(index)).map(|drive| drive.identity.clone());
        let identity =
            identity.ok_or_else(|| Failure::new(FailureKind::NoDevice, "no such drive"))?;
        let device = DeviceName::drive(report.name, index);
        let drive =
            drive::GhostDrive::open(self.name.clone(), &self.site, device, identity, &self.report)?;
        Ok(Box::new(drive))
    }

    fn open_changer(&self, _opener: &Opener) -> Result<Box<dyn MediumChanger>, Failure> {
        Ok(Box::new(changer::GhostChanger::new(Arc::clone(&self.site), Arc::clone(&self.report))))
    }
}
