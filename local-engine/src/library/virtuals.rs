//! Virtual libraries: the changer and drives of `tape::target` over cartridges of the store.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Barcode, CartridgeId, DeviceName, LibraryName, SiteName};
use ndmp::tape::{Failure, FailureKind};
use service::config::VirtualLibrary as Configured;
use store::Store;
use svs::{Catalogue, LibraryRole};
use tape::target::{
    ChangerHandle, DriveHandle, DriveSpec, InventoryStore, LibraryError, LibrarySpec, MediumError,
    SavedInventory, Seen, TargetDrive, TargetLibrary,
};
use tape::{Control, DeviceIdentity};

use super::cartridge::StoreShelf;
use super::drive::VirtualDrive;
use super::forgetting::{Forgetting, Home};
use super::moved::VirtualMedium;
use crate::device::{Conditions, DeviceLine, EngineChanger, Library, LibraryView, Opener};
use crate::mover::EngineDrive;

/// A library whose cartridges are in the store.
pub struct VirtualLibrary {
    name: LibraryName,
    store: Store,
    target: Arc<Mutex<TargetLibrary<VirtualMedium>>>,
    /// Its drives and its inventory, which are looked at while a tape is brought from elsewhere.
    drives: Vec<Arc<Mutex<TargetDrive<VirtualMedium>>>>,
    seen: Seen,
    identity: DeviceIdentity,
    lines: Vec<DeviceLine>,
    /// Bytes on each cartridge.
    capacity: u64,
}

/// Why a virtual library could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// Its inventory or its cartridges do not fit the configuration.
    #[error("library {0}: {1}")]
    Library(LibraryName, LibraryError),
    /// The catalogue could not be read or written.
    #[error(transparent)]
    Catalogue(#[from] svs::SvsError),
}

/// Where a virtual library keeps what lies where: its meta value is the truth, the elements in
/// the rows of the cartridges are for people.
pub(crate) struct SavedInCatalogue {
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) site: SiteName,
    pub(crate) library: LibraryName,
}

impl SavedInCatalogue {
    fn key(&self) -> String {
        format!("inventory/{}", self.library)
    }

    fn tell(&self, inventory: &SavedInventory) -> Result<(), svs::SvsError> {
        for row in self.catalogue.cartridges(&self.site, &self.library)? {
            let cell = inventory.cells.iter().find(|cell| cell.barcode == row.barcode);
            let (element, home) = (cell.map(|c| c.address), cell.and_then(|c| c.source));
            if (row.element, row.home) != (element, home) {
                self.catalogue.place_cartridge(row.id, element, home)?;
            }
        }
        Ok(())
    }
}

fn kept(error: impl std::fmt::Display) -> MediumError {
    MediumError::Io(error.to_string())
}

impl InventoryStore for SavedInCatalogue {
    fn load(&self) -> Result<Option<SavedInventory>, MediumError> {
        let text = self.catalogue.meta(&self.key()).map_err(kept)?;
        text.map(|text| serde_json::from_str(&text)).transpose().map_err(kept)
    }

    fn save(&mut self, inventory: &SavedInventory) -> Result<(), MediumError> {
        let text = serde_json::to_string(inventory).map_err(kept)?;
        self.catalogue.set_meta(&self.key(), &text).map_err(kept)?;
        self.tell(inventory).map_err(kept)
    }
}

/// A serial number that never changes: ten characters of the site, the library and the unit.
pub(super) fn serial(site: &SiteName, library: &LibraryName, unit: u16) -> String {
    format!("{}{unit:03X}", serial_base(site, library))
}

/// What the serial numbers of a library and its drives have in common.
pub(crate) fn serial_base(site: &SiteName, library: &LibraryName) -> String {
    let text = format!("{site}/{library}");
    // FNV-1a: any fixed function does, so that two libraries differ.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("TV{:05X}", hash & 0xf_ffff)
}

impl VirtualLibrary {
    /// Sets the library up: makes the rows of configured cartridges that are new, and puts every
    /// cartridge where it was.
    pub fn open(config: &Configured, shelf: &StoreShelf, now_ms: u64) -> Result<Self, SetUpError> {
        let (site, name) = (&shelf.site, &config.name);
        let cartridges = stock(config, shelf, now_ms)?;
        let claimed = config.personality.0;
        let drive = |index: u16| DriveSpec {
            index,
            identity: claimed.drive(serial(site, name, index + 1)),
            early_warning: Some(config.early_warning_bytes()),
            power_on_attention: false,
        };
        let spec = LibrarySpec {
            identity: claimed.changer(serial(site, name, 0)),
            map: config.element_map(),
            drives: (0..config.drives).map(drive).collect(),
            cartridges,
            power_on_attention: false,
        };
        let mut lines = vec![line(DeviceName::changer(name.clone()), &spec.identity)];
        lines.extend(
            spec.drives.iter().map(|d| line(DeviceName::drive(name.clone(), d.index), &d.identity)),
        );
        let saved = SavedInCatalogue {
            catalogue: Arc::clone(&shelf.catalogue),
            site: site.clone(),
            library: name.clone(),
        };
        let target = TargetLibrary::open(spec, Arc::new(shelf.clone()), Box::new(saved))
            .map_err(|error| SetUpError::Library(name.clone(), error))?;
        let store = shelf.store.clone();
        Ok(Self {
            name: name.clone(),
            store,
            drives: target.drives().cloned().collect(),
            seen: target.seen(),
            identity: target.identity().clone(),
            target: Arc::new(Mutex::new(target)),
            lines,
            capacity: config.capacity.0,
        })
    }

    /// The target itself, for inventories without a command.
    pub fn target(&self) -> &Arc<Mutex<TargetLibrary<VirtualMedium>>> {
        &self.target
    }
}

/// The barcodes of the library: those configured and those that are there already.
fn stock(
    config: &Configured,
    shelf: &StoreShelf,
    now_ms: u64,
) -> Result<Vec<Barcode>, svs::SvsError> {
    let there = shelf.catalogue.cartridges(&shelf.site, &config.name)?;
    let mut all = config.barcodes();
    for barcode in &all {
        if there.iter().any(|row| row.barcode == *barcode) {
            continue;
        }
        shelf.catalogue.put_cartridge(&svs::Cartridge {
            id: CartridgeId::generate(now_ms),
            site: shelf.site.clone(),
            library: config.name.clone(),
            barcode: barcode.clone(),
            capacity: config.capacity.0,
            write_protected: false,
            element: None,
            home: None,
        })?;
    }
    let more = there.into_iter().map(|row| row.barcode).filter(|barcode| !all.contains(barcode));
    let more: Vec<_> = more.collect();
    all.extend(more);
    Ok(all)
}

pub(crate) fn line(name: DeviceName, identity: &DeviceIdentity) -> DeviceLine {
    let model = format!("{} {}", identity.vendor, identity.product);
    DeviceLine { name, model, serial: identity.serial.clone() }
}

impl Library for VirtualLibrary {
    fn name(&self) -> &LibraryName {
        &self.name
    }

    fn devices(&self) -> Vec<DeviceLine> {
        self.lines.clone()
    }

    fn view(&self) -> Option<LibraryView> {
        Some(LibraryView {
            role: LibraryRole::Virtual,
            online: true,
            identity: self.identity.clone(),
            inventory: self.seen.inventory()?,
            capacity: Some(self.capacity),
            conditions: Conditions::default(),
        })
    }

    fn open_drive(
        &self,
        index: u16,
        opener: &Opener,
        _control: &Control,
    ) -> Result<Box<dyn EngineDrive>, Failure> {
        let drive = self.drives.get(usize::from(index));
        let drive = drive.ok_or_else(|| Failure::new(FailureKind::NoDevice, "no such drive"))?;
        let handle = DriveHandle::new(Arc::clone(drive), opener.nexus);
        Ok(Box::new(VirtualDrive::new(self.name.clone(), handle, self.store.clone())))
    }

    fn open_changer(
        &self,
        opener: &Opener,
        _control: &Control,
    ) -> Result<Box<dyn EngineChanger>, Failure> {
        let changer = ChangerHandle::new(Arc::clone(&self.target), opener.nexus);
        let home = ChangerHome { target: Arc::clone(&self.target), nexus: opener.nexus };
        Ok(Box::new(Forgetting::new(changer, home)))
    }
}

type Target = Mutex<TargetLibrary<VirtualMedium>>;

fn locked(target: &Target) -> MutexGuard<'_, TargetLibrary<VirtualMedium>> {
    target.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The changer's library, as one initiator uses it.
struct ChangerHome {
    target: Arc<Target>,
    nexus: u64,
}

impl Home for ChangerHome {
    fn forget(&self) {
        locked(&self.target).forget_nexus(self.nexus);
    }

    fn reset(&self) -> Result<(), tape::TapeError> {
        locked(&self.target).reset();
        Ok(())
    }
}
