//! The embedded library as a physical one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Barcode, DeviceRole, Element, ElementType};

use super::{AnyChanger, AnyDrive, DriveLook, LibraryLook, PhysicalLibrary};
use crate::driver::{ScsiChanger, ScsiDrive, ScsiTransport};
use crate::file::{FileLibrary, FileMedium};
use crate::target::{TargetDrive, TargetLibrary};
use crate::{Control, TapeError};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn target(library: &FileLibrary) -> MutexGuard<'_, TargetLibrary<FileMedium>> {
    lock(library.library())
}

fn drive(library: &FileLibrary, index: u16) -> Option<Arc<Mutex<TargetDrive<FileMedium>>>> {
    target(library).drives().nth(index.into()).cloned()
}

impl PhysicalLibrary for FileLibrary {
    fn drive_count(&self) -> u16 {
        Self::drive_count(self)
    }

    fn open_drive(&self, index: u16, nexus: u64, control: &Control) -> Result<AnyDrive, TapeError> {
        let transport = self.drive_transport(index, nexus);
        let none = || TapeError::Unreachable(format!("there is no drive {index}"));
        let transport: Box<dyn ScsiTransport> = Box::new(transport.ok_or_else(none)?);
        let target = drive(self, index);
        let tape = move || lock(target.as_ref()?).cartridge().cloned();
        let drive = ScsiDrive::open(transport, control)?;
        Ok(drive.with_keys(Arc::clone(self.keys()), Box::new(tape)))
    }

    fn open_changer(&self, nexus: u64, control: &Control) -> Result<AnyChanger, TapeError> {
        let transport: Box<dyn ScsiTransport> = Box::new(self.changer_transport(nexus));
        ScsiChanger::open(transport, control)
    }

    fn forget(&self, nexus: u64) {
        self.forget_nexus(nexus);
    }

    fn reset(&self, role: DeviceRole) -> Result<(), TapeError> {
        match role {
            DeviceRole::Changer => target(self).reset(),
            DeviceRole::Drive(index) => {
                if let Some(drive) = drive(self, index) {
                    lock(&drive).reset();
                }
            }
        }
        Ok(())
    }

    fn glance(&self) -> Option<LibraryLook> {
        let (identity, inventory, targets) = {
            let target = target(self);
            let drives: Vec<_> = target.drives().cloned().collect();
            (target.identity().clone(), target.inventory(), drives)
        };
        let elements = inventory.elements.iter();
        let bays = elements.filter(|element| element.kind == ElementType::DataTransfer);
        let drives = bays.zip(&targets).map(|(element, target)| {
            let mut target = lock(target);
            let (identity, state) = (target.identity().clone(), Some(target.glance()));
            DriveLook { element: element.address, identity, state }
        });
        let drives = drives.collect();
        Some(LibraryLook { identity, inventory, drives, online: true })
    }

    fn look(&self) -> Option<LibraryLook> {
        self.glance()
    }

    fn medium(&self, index: u16) -> Option<(Barcode, bool)> {
        let barcode = lock(&*drive(self, index)?).cartridge()?.clone();
        let target = target(self);
        let bay = Element { kind: ElementType::DataTransfer, index };
        let listed = target.find(&barcode) == target.inventory().map.address(bay);
        Some((barcode, listed))
    }
}
