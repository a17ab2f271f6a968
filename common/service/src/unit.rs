//! A device of a physical library, opened by one initiator.

use std::sync::Arc;

use model::DeviceRole;
use tape::physical::{AnyChanger, AnyDrive, PhysicalLibrary};
use tape::{Control, TapeError};

/// A device behind its driver.
pub enum Unit {
    /// A tape drive.
    Drive(Box<AnyDrive>),
    /// A medium changer.
    Changer(Box<AnyChanger>),
}

/// A device opened for one initiator. Dropped, it lets the device forget its initiator:
/// reservations, unit attentions and PREVENTs end.
pub struct OpenUnit {
    /// The device.
    pub unit: Unit,
    library: Arc<dyn PhysicalLibrary>,
    nexus: u64,
}

impl Drop for OpenUnit {
    fn drop(&mut self) {
        self.library.forget(self.nexus);
    }
}

impl OpenUnit {
    /// Opens a device as the initiator `nexus`, a number that is not used twice.
    ///
    /// # Errors
    /// There is no way to it now.
    pub fn open(
        library: Arc<dyn PhysicalLibrary>,
        role: DeviceRole,
        nexus: u64,
        control: &Control,
    ) -> Result<Self, TapeError> {
        let unit = match role {
            DeviceRole::Changer => Unit::Changer(Box::new(library.open_changer(nexus, control)?)),
            DeviceRole::Drive(index) => {
                Unit::Drive(Box::new(library.open_drive(index, nexus, control)?))
            }
        };
        Ok(Self { unit, library, nexus })
    }

    /// The library that it belongs to.
    pub fn library(&self) -> &Arc<dyn PhysicalLibrary> {
        &self.library
    }
}
