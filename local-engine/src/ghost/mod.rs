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

use link::{LibraryReport, RefusalWhy};
use model::{DeviceName, DeviceRole, LibraryName};
use ndmp::tape::{Failure, FailureKind};
use scsi::Sense;
use svs::LibraryRole;
use tape::{Control, Operation, TapeError};

use crate::device::{
    Conditions, DeviceLine, DriveCondition, EngineChanger, Library, LibraryView, Opener, failure,
};
use crate::link::{OpenError, RemoteSite};
use crate::mover::EngineDrive;

/// What it means for an operation that its device could not be taken.
fn way_lost(error: OpenError) -> TapeError {
    match error {
        OpenError::Down => TapeError::Check(Sense::new(0x02, 0x04, 0x00)),
        OpenError::Refused(refusal) => match refusal.why {
            RefusalWhy::Busy | RefusalWhy::TooMany => TapeError::Busy,
            RefusalWhy::NoSuchDevice | RefusalWhy::NotAllowed => {
                TapeError::Lost(refusal.to_string())
            }
            RefusalWhy::Device => TapeError::Unreachable(refusal.to_string()),
        },
        OpenError::Failed(error) => error,
    }
}

/// What it means for whoever opens a device that it could not be taken; `None` for one that can be
/// opened and is not ready, as a device without power would be.
fn not_opened(error: OpenError) -> Option<Failure> {
    match error {
        OpenError::Down => None,
        OpenError::Refused(refusal) => match refusal.why {
            RefusalWhy::Device => None,
            RefusalWhy::Busy | RefusalWhy::TooMany => {
                let text = format!("{refusal}; it must be closed at its site first");
                Some(Failure::new(FailureKind::Busy, text))
            }
            RefusalWhy::NoSuchDevice | RefusalWhy::NotAllowed => {
                let text = format!("{refusal}; look at [[peer]] of the remote engine");
                Some(Failure::new(FailureKind::NoDevice, text))
            }
        },
        OpenError::Failed(error) => Some(failure(&error)),
    }
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

    /// The link is down: who holds the drives from now on is not known.
    pub fn forget_holders(&self) {
        let mut report = self.report.write().unwrap_or_else(PoisonError::into_inner);
        report.drives.iter_mut().for_each(|drive| drive.in_use = false);
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

    fn has(&self, role: DeviceRole) -> bool {
        let report = self.report.read().unwrap_or_else(PoisonError::into_inner);
        match role {
            DeviceRole::Changer => true,
            DeviceRole::Drive(index) => usize::from(index) < report.drives.len(),
        }
    }

    fn view(&self) -> Option<LibraryView> {
        let report = self.report();
        let condition = |(index, drive): (u16, &link::DriveReport)| {
            let ours = || self.site.holds(&DeviceName::drive(report.name.clone(), index));
            DriveCondition {
                down: drive.down.clone(),
                in_use: drive.in_use && !ours(),
                readying: drive.readying,
            }
        };
        let drives = (0u16..).zip(&report.drives).map(condition).collect();
        let conditions = Conditions { drives, frozen: report.frozen };
        Some(LibraryView {
            role: LibraryRole::Ghost,
            online: report.online && self.site.is_up(),
            identity: report.identity,
            inventory: report.inventory,
            capacity: report.capacity,
            conditions,
        })
    }

    fn open_drive(
        &self,
        index: u16,
        _opener: &Opener,
        control: &Control,
    ) -> Result<Box<dyn EngineDrive>, Failure> {
        let found = {
            let report = self.report.read().unwrap_or_else(PoisonError::into_inner);
            let drive = report.drives.get(usize::from(index));
            drive.map(|drive| (report.name.clone(), drive.identity.clone()))
        };
        let missing = || Failure::new(FailureKind::NoDevice, "no such drive");
        let (library, identity) = found.ok_or_else(missing)?;
        let device = DeviceName::drive(library, index);
        let parts = (device, identity, Arc::clone(&self.report));
        let drive = drive::GhostDrive::open(self.name.clone(), &self.site, parts, control)?;
        Ok(Box::new(drive))
    }

    fn open_changer(
        &self,
        _opener: &Opener,
        _control: &Control,
    ) -> Result<Box<dyn EngineChanger>, Failure> {
        Ok(Box::new(changer::GhostChanger::new(Arc::clone(&self.site), Arc::clone(&self.report))))
    }
}
