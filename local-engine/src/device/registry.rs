//! Which devices there are, by name, and who has them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use model::{Barcode, DeviceName, DeviceRole, LibraryName};
use ndmp::tape::{Failure, FailureKind};
use svs::LibraryRole;
use tape::{CdbRequest, Completion, Control, DeviceIdentity, Inventory, MediumChanger, TapeError};

use super::bell::{Bell, Told};
use super::watch::{Watch, WatchedChanger, WatchedDrive};
use crate::mounting::Mounts;
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

/// The state of a drive in the catalogue, for people: what is in it, its volume tag if that is
/// known, and why it is out of use if it is.
pub(crate) fn drive_state(medium: Option<Option<&Barcode>>, down: Option<&str>) -> String {
    let mut state = match medium {
        Some(Some(barcode)) => format!("loaded {barcode}"),
        Some(None) => "loaded".to_owned(),
        None => "empty".to_owned(),
    };
    if let Some(why) = down {
        state.push_str(", down: ");
        state.push_str(why);
    }
    state
}

/// What a library is known to hold, without a command to any device.
#[derive(Clone, Debug)]
pub struct LibraryView {
    /// What stands behind it.
    pub role: LibraryRole,
    /// Whether it answers.
    pub online: bool,
    /// Who the changer is.
    pub identity: DeviceIdentity,
    /// Every element; of a library that does not answer as it was last seen.
    pub inventory: Inventory,
    /// Bytes that fit on a cartridge, if that is known.
    pub capacity: Option<u64>,
    /// How its drives and cartridges are.
    pub conditions: Conditions,
}

impl LibraryView {
    /// How a drive is.
    pub fn condition(&self, drive: u16) -> DriveCondition {
        self.conditions.drives.get(usize::from(drive)).cloned().unwrap_or_default()
    }
}

/// How drives and cartridges are. What is not named is well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The drives, in order.
    pub drives: Vec<DriveCondition>,
    /// Cartridges that are not to be written on, and why.
    pub frozen: Vec<(Barcode, String)>,
}

/// How a drive is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriveCondition {
    /// Why it is not used, where it is out of use.
    pub down: Option<String>,
    /// Somebody else holds it at its own site.
    pub in_use: bool,
    /// A cartridge is made ready in it, and so much of that is done, in 65536ths.
    pub readying: Option<u16>,
}

/// Who opens a device.
#[derive(Clone, Debug)]
pub struct Opener {
    /// The nexus that reservations and unit attentions belong to; one for each session.
    pub nexus: u64,
    /// For people: the host of the application.
    pub who: String,
}

/// A library whose devices this server offers: virtual, ghost or physical.
pub trait Library: Send + Sync {
    /// What it is called here.
    fn name(&self) -> &LibraryName;
    /// Its devices, the changer first.
    fn devices(&self) -> Vec<DeviceLine>;
    /// Whether there is a device of this role.
    fn has(&self, role: DeviceRole) -> bool {
        self.devices().iter().any(|line| line.name.role == role)
    }
    /// What is in it, as far as that is known.
    fn view(&self) -> Option<LibraryView> {
        None
    }
    /// Opens drive `index`; blocks, at most as the control says.
    fn open_drive(
        &self,
        index: u16,
        opener: &Opener,
        control: &Control,
    ) -> Result<Box<dyn EngineDrive>, Failure>;
    /// Opens the changer; blocks, at most as the control says.
    fn open_changer(
        &self,
        opener: &Opener,
        control: &Control,
    ) -> Result<Box<dyn EngineChanger>, Failure>;
}

/// A changer as the engine holds it.
pub trait EngineChanger: MediumChanger {
    /// LOGICAL UNIT RESET (SAM-5 6.3.3): reservations and prevented removals end, every initiator
    /// finds 06/29/00.
    fn reset(&mut self, control: &Control) -> Result<(), TapeError>;
}

/// A device opened for CDBs.
pub enum Device {
    /// A changer.
    Changer(Box<dyn EngineChanger>),
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

    /// LOGICAL UNIT RESET.
    pub fn reset(&mut self, control: &Control) -> Result<(), TapeError> {
        match self {
            Self::Changer(changer) => changer.reset(control),
            Self::Drive(drive) => drive.reset(control),
        }
    }
}

/// The engine itself opens devices by this nexus and those above; sessions count up from 1.
pub(crate) const ENGINE_NEXUS: u64 = (1 << 48) - 1;

/// Devices that are open, and by whom.
pub(super) type Claimed = Mutex<BTreeMap<DeviceName, Held>>;

/// Who has a device open.
pub(super) struct Held {
    who: String,
    /// Its session waits for the engine, which may use the device meanwhile.
    pub(super) is_lent: bool,
}

/// All libraries of this server and the claims on their devices.
#[derive(Default)]
pub struct Registry {
    libraries: RwLock<BTreeMap<LibraryName, Arc<dyn Library>>>,
    claimed: Arc<Claimed>,
    watch: OnceLock<Arc<dyn Watch>>,
    bell: Bell,
    mounts: Arc<Mounts>,
}

/// The exclusive right to a device; given back when dropped.
pub struct Claim {
    /// `None` for a device that is lent.
    name: Option<DeviceName>,
    claimed: Arc<Claimed>,
    bell: Bell,
}

pub(super) fn locked(claimed: &Claimed) -> MutexGuard<'_, BTreeMap<DeviceName, Held>> {
    claimed.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            locked(&self.claimed).remove(name);
        }
        self.bell.ring();
    }
}

impl Registry {
    /// Rung by every change of what is here.
    pub fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Who waits for drives of these libraries.
    pub fn mounts(&self) -> &Arc<Mounts> {
        &self.mounts
    }

    /// Adds a library.
    ///
    /// # Errors
    /// There is one of that name; in words for the operator.
    pub fn add(&self, library: Arc<dyn Library>) -> Result<(), String> {
        let mut libraries = self.libraries.write().unwrap_or_else(PoisonError::into_inner);
        let name = library.name().clone();
        if libraries.contains_key(&name) {
            return Err(format!("there is a library {name} already; rename one of them"));
        }
        libraries.insert(name, library);
        self.bell.ring();
        Ok(())
    }

    /// Who is told of writes and dismounts from here on; the first one stays.
    pub fn watch(&self, watch: Arc<dyn Watch>) {
        if self.watch.set(watch).is_err() {
            tracing::error!("the devices are watched already");
        }
    }

    fn drive(
        &self,
        library: &Arc<dyn Library>,
        index: u16,
        opener: &Opener,
        control: &Control,
    ) -> Result<Box<dyn EngineDrive>, Failure> {
        let drive = library.open_drive(index, opener, control)?;
        Ok(match self.watch.get() {
            Some(watch) => Box::new(WatchedDrive::new(drive, Arc::clone(watch), opener.nexus)),
            None => drive,
        })
    }

    fn changer(
        &self,
        library: &Arc<dyn Library>,
        opener: &Opener,
        control: &Control,
    ) -> Result<Box<dyn EngineChanger>, Failure> {
        let changer = library.open_changer(opener, control)?;
        Ok(match self.watch.get() {
            Some(watch) => {
                let (library, watch) = (Arc::clone(library), Arc::clone(watch));
                let claimed = Arc::clone(&self.claimed);
                Box::new(WatchedChanger::new(changer, library, watch, claimed))
            }
            None => changer,
        })
    }

    /// Takes a library off the list; who has a device of it open keeps it.
    pub fn remove(&self, name: &LibraryName) {
        self.libraries.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.bell.ring();
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
        let library = {
            let libraries = self.libraries.read().unwrap_or_else(PoisonError::into_inner);
            libraries.get(&name.library).cloned().ok_or_else(unknown)?
        };
        match library.has(name.role) {
            true => Ok((name, library)),
            false => Err(unknown()),
        }
    }

    fn claim(&self, name: &DeviceName, opener: &Opener) -> Result<Claim, Failure> {
        let mut claimed = locked(&self.claimed);
        if let Some(held) = claimed.get(name) {
            if held.is_lent && opener.nexus >= ENGINE_NEXUS {
                let (claimed, bell) = (Arc::clone(&self.claimed), self.bell.clone());
                return Ok(Claim { name: None, claimed, bell });
            }
            let holder = &held.who;
            let text = format!("{name} is in use by {holder}; it must be closed there first");
            return Err(Failure::new(FailureKind::Busy, text));
        }
        claimed.insert(name.clone(), Held { who: opener.who.clone(), is_lent: false });
        self.bell.ring();
        let (claimed, bell) = (Arc::clone(&self.claimed), self.bell.clone());
        Ok(Claim { name: Some(name.clone()), claimed, bell })
    }

    /// Who has the device, if somebody has.
    pub fn holder(&self, name: &DeviceName) -> Option<String> {
        locked(&self.claimed).get(name).map(|held| held.who.clone())
    }

    /// Opens a tape drive for one session alone. Blocks, at most as the control says.
    pub fn open_tape(
        &self,
        name: &str,
        opener: &Opener,
        control: &Control,
    ) -> Result<(Claim, Box<dyn EngineDrive>), Failure> {
        let (name, library) = self.find(name)?;
        let DeviceRole::Drive(index) = name.role else {
            return Err(Failure::new(FailureKind::NoDevice, format!("{name} is no tape drive")));
        };
        let claim = self.claim(&name, opener)?;
        Ok((claim, self.drive(&library, index, opener, control)?))
    }

    /// Opens a device for CDBs, for one session alone. A drive that is open for tape operations is
    /// in use. Blocks, at most as the control says.
    pub fn open_scsi(
        &self,
        name: &str,
        opener: &Opener,
        control: &Control,
    ) -> Result<(Claim, Device), Failure> {
        let (name, library) = self.find(name)?;
        let claim = self.claim(&name, opener)?;
        let device = match name.role {
            DeviceRole::Changer => {
                let changer = self.changer(&library, opener, control)?;
                Device::Changer(Box::new(Told::new(changer, &self.bell)))
            }
            DeviceRole::Drive(index) => {
                Device::Drive(self.drive(&library, index, opener, control)?)
            }
        };
        Ok((claim, device))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A library of one changer and two drives that can not be opened.
    struct Shut(LibraryName);

    impl Library for Shut {
        fn name(&self) -> &LibraryName {
            &self.0
        }

        fn devices(&self) -> Vec<DeviceLine> {
            let roles = [DeviceRole::Changer, DeviceRole::Drive(0), DeviceRole::Drive(1)];
            let line = |role| DeviceLine {
                name: DeviceName { library: self.0.clone(), role },
                model: "TEST SHUT".into(),
                serial: "1".into(),
            };
            roles.into_iter().map(line).collect()
        }

        fn open_drive(
            &self,
            _: u16,
            _: &Opener,
            _: &Control,
        ) -> Result<Box<dyn EngineDrive>, Failure> {
            Err(Failure::new(FailureKind::Io, "shut"))
        }

        fn open_changer(&self, _: &Opener, _: &Control) -> Result<Box<dyn EngineChanger>, Failure> {
            Err(Failure::new(FailureKind::Io, "shut"))
        }
    }

    fn registry() -> Registry {
        let registry = Registry::default();
        registry.add(Arc::new(Shut(LibraryName::new("vtl0").unwrap()))).unwrap();
        registry
    }

    fn opener(nexus: u64) -> Opener {
        Opener { nexus, who: format!("host {nexus}") }
    }

    #[test]
    fn a_device_has_one_holder_who_is_named_to_others() {
        let registry = registry();
        let drive: DeviceName = "vtl0/drive0".parse().unwrap();
        let claim = registry.claim(&drive, &opener(1)).unwrap();
        let refused = registry.claim(&drive, &opener(2)).err().unwrap();
        assert_eq!(refused.kind, FailureKind::Busy);
        assert!(refused.text.contains("in use by host 1"), "{refused}");
        // The other drive and the changer are free; as a SCSI device the drive is not.
        registry.claim(&"vtl0/drive1".parse().unwrap(), &opener(2)).unwrap();
        let control = Control::within(Duration::from_secs(5));
        let scsi = registry.open_scsi("vtl0/drive0", &opener(2), &control).err().unwrap();
        assert_eq!(scsi.kind, FailureKind::Busy);
        drop(claim);
        assert_eq!(registry.holder(&drive), None);
    }

    #[test]
    fn what_can_not_be_opened_is_not_held() {
        let registry = registry();
        let control = Control::within(Duration::from_secs(5));
        for _ in 0..2 {
            let refused = registry.open_tape("vtl0/drive0", &opener(1), &control).err().unwrap();
            assert_eq!(refused.kind, FailureKind::Io);
        }
        for name in ["vtl0/changer", "vtl0/drive2", "vtl9/drive0", "nonsense", ""] {
            let refused = registry.open_tape(name, &opener(1), &control).err().unwrap();
            assert_eq!(refused.kind, FailureKind::NoDevice, "{name}");
        }
    }

    #[test]
    fn a_name_is_given_once() {
        let registry = registry();
        let again = registry.add(Arc::new(Shut(LibraryName::new("vtl0").unwrap())));
        assert!(again.unwrap_err().contains("rename"));
        registry.remove(&LibraryName::new("vtl0").unwrap());
        assert!(registry.devices(|_| true).is_empty());
    }
}
