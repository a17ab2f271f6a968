//! Which devices there are, by name, and who has them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use model::{DeviceName, DeviceRole, LibraryName};
use ndmp::tape::{Failure, FailureKind};
use tape::{CdbRequest, Completion, Control, MediumChanger, TapeError};

use crate::mover::EngineDrive;

/// A line of the device lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceLine {
    /// The name to open it by.
    pub name: DeviceName,
    /// Vendor and product.
    pub model: String,
    /// Unit serial number.
    pub serial: String,
}

impl DeviceLine {
    /// The catalogue's row of the device.
    pub fn row(&self) -> svs::Device {
        let (vendor, product) = self.model.split_once(' ').unwrap_or((&self.model, ""));
        svs::Device {
            name: self.name.clone(),
            serial: self.serial.clone(),
            vendor: vendor.to_owned(),
            product: product.to_owned(),
            revision: "1".to_owned(),
            state: String::new(),
        }
    }
}

/// Who opens a device.
#[derive(Clone, Debug)]
pub struct Opener {
    /// The nexus that reservations and unit attentions belong to; one for each session.
    pub nexus: u64,
    /// For people: `ndmp user at 192.0.2.1:4711`.
    pub who: String,
}

/// A library whose devices this server offers: virtual, ghost or physical.
pub trait Library: Send + Sync {
    /// What it is called here.
    fn name(&self) -> &LibraryName;
    /// Its devices, the changer first.
    fn devices(&self) -> Vec<DeviceLine>;
    /// Opens drive `index`.
    fn open_drive(&self, index: u16, opener: &Opener) -> Result<Box<dyn EngineDrive>, Failure>;
    /// Opens the changer.
    fn open_changer(&self, opener: &Opener) -> Result<Box<dyn MediumChanger>, Failure>;
}

/// A device opened for CDBs.
pub enum Device {
    /// A changer.
    Changer(Box<dyn MediumChanger>),
    /// A drive.
    Drive(Box<dyn EngineDrive>),
}

impl Device {
    /// Passes a CDB through.
    pub fn execute(
        &mut self,
        request: &CdbRequest,
        control: &Control,
    ) -> Result<Completion, TapeError> {
        match self {
            Self::Changer(changer) => changer.execute(request, control),
            Self::Drive(drive) => drive.execute(request, control),
        }
    }
}

/// Why a device could not be opened.
pub type OpenError = Failure;

/// All libraries of this server and the claims on their devices.
#[derive(Default)]
pub struct Registry {
    libraries: RwLock<BTreeMap<LibraryName, Arc<dyn Library>>>,
    claimed: Arc<Mutex<BTreeSet<DeviceName>>>,
}

/// The exclusive right to a device; given back when dropped.
#[derive(Debug)]
pub struct Claim {
    name: DeviceName,
    claimed: Arc<Mutex<BTreeSet<DeviceName>>>,
}

fn locked(claimed: &Mutex<BTreeSet<DeviceName>>) -> MutexGuard<'_, BTreeSet<DeviceName>> {
    claimed.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Claim {
    fn drop(&mut self) {
        locked(&self.claimed).remove(&self.name);
    }
}

impl Registry {
    /// Adds a library, in place of one of the same name (a ghost that was reported anew).
    pub fn add(&self, library: Arc<dyn Library>) {
        let mut libraries = self.libraries.write().unwrap_or_else(PoisonError::into_inner);
        libraries.insert(library.name().clone(), library);
    }

    /// The libraries in the order of their names.
    pub fn libraries(&self) -> Vec<Arc<dyn Library>> {
        let libraries = self.libraries.read().unwrap_or_else(PoisonError::into_inner);
        libraries.values().cloned().collect()
    }

    /// All devices whose role passes the filter.
    pub fn devices(&self, filter: impl Fn(DeviceRole) -> bool) -> Vec<DeviceLine> {
        let all = self.libraries().into_iter().flat_map(|library| library.devices());
        all.filter(|line| filter(line.name.role)).collect()
    }

    fn find(&self, name: &str) -> Result<(DeviceName, Arc<dyn Library>), Failure> {
        let unknown = || Failure::new(FailureKind::NoDevice, format!("no device {name:?}"));
        let name: DeviceName = name.parse().map_err(|_| unknown())?;
        let libraries = self.libraries.read().unwrap_or_else(PoisonError::into_inner);
        let library = libraries.get(&name.library).cloned().ok_or_else(unknown)?;
        match library.devices().iter().any(|line| line.name == name) {
            true => Ok((name, library)),
            false => Err(unknown()),
        }
    }

    fn claim(&self, name: &DeviceName) -> Result<Claim, Failure> {
        match locked(&self.claimed).insert(name.clone()) {
            true => Ok(Claim { name: name.clone(), claimed: Arc::clone(&self.claimed) }),
            false => Err(Failure::new(FailureKind::Busy, format!("{name} is in use"))),
        }
    }

    /// Whether somebody has the device.
    pub fn is_claimed(&self, name: &DeviceName) -> bool {
        locked(&self.claimed).contains(name)
    }

    /// Opens a tape drive for one session alone.
    pub fn open_tape(
        &self,
        name: &str,
        opener: &Opener,
    ) -> Result<(Claim, Box<dyn EngineDrive>), OpenError> {
        let (name, library) = self.find(name)?;
        let DeviceRole::Drive(index) = name.role else {
            return Err(Failure::new(FailureKind::NoDevice, format!("{name} is no tape drive")));
        };
        let claim = self.claim(&name)?;
        Ok((claim, library.open_drive(index, opener)?))
    }

    /// Opens a device for CDBs, for one session alone.
    pub fn open_scsi(&self, name: &str, opener: &Opener) -> Result<(Claim, Device), OpenError> {
        let (name, library) = self.find(name)?;
        let claim = self.claim(&name)?;
        let device = match name.role {
            DeviceRole::Changer => Device::Changer(library.open_changer(opener)?),
            DeviceRole::Drive(index) => Device::Drive(library.open_drive(index, opener)?),
        };
        Ok((claim, device))
    }
}
