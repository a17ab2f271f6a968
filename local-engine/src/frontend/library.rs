//! The changer and the drives that the host sees.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use model::{Barcode, DeviceName, ElementType, LibraryName, SiteName};
use ndmp::tape::{Failure, FailureKind};
use scsi::Sense;
use service::config::FrontendLibrary as Configured;
use service::messages;
use svs::{DeviceRef, FrontendBackend, LibraryRole, MediumRef, SvsError, TapeRange};
use tape::target::{
    ChangerHandle, DriveHandle, DriveSpec, InventoryStore, LibrarySpec, MediumError,
    SavedInventory, Seen, Shelf, TargetDrive, TargetLibrary,
};
use tape::{Control, DeviceIdentity, TapeError};

use super::access::{Access, Place};
use super::drive::FrontendDrive;
use super::medium::Switched;
use crate::device::{Conditions, DeviceLine, EngineChanger, Library, LibraryView, Opener};
use crate::library::SetUpError;
use crate::library::forgetting::{Forgetting, Home};
use crate::library::virtuals::{SavedInCatalogue, line, serial_base};
use crate::mounting;
use crate::mover::EngineDrive;

/// 02/04/03: not ready, manual intervention required: the map has no backend for the drive.
const NOT_MAPPED: Sense = Sense::new(0x02, 0x04, 0x03);

type Target = Mutex<TargetLibrary<Switched>>;

/// A library of tapes that lie in others.
pub struct FrontendLibrary {
    name: LibraryName,
    identity: DeviceIdentity,
    target: Arc<Target>,
    drives: Vec<Arc<Mutex<TargetDrive<Switched>>>>,
    seen: Seen,
    lines: Vec<DeviceLine>,
    shelf: Arc<FrontendShelf>,
    /// Tapes that found no slot when the operator was last told.
    told: AtomicUsize,
}

/// The rows of the map that concern this library.
type Rows = RwLock<Vec<FrontendBackend>>;

/// Where its drives take tapes from: the mount.
struct FrontendShelf {
    access: Arc<Access>,
    library: LibraryName,
    /// How the map names its drives.
    drives: Vec<DeviceRef>,
    rows: Rows,
}

impl FrontendShelf {
    fn rows(&self) -> Vec<FrontendBackend> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the map says of a tape in a drive: the row of the drive, and the medium, which may
    /// stand in the row of another drive.
    fn place(&self, barcode: &Barcode, drive: u16) -> Result<Place, String> {
        let rows = self.rows();
        let device = self.drives.get(usize::from(drive));
        let own = rows.iter().find(|row| row.frontend_device.as_ref() == device);
        let own = own.ok_or("no backend stands behind this drive; map one")?;
        let frontend = own.frontend_device.clone().ok_or("the drive has no name")?;
        let named = |row: &FrontendBackend| {
            row.backend_tapes.iter().find_map(|range| {
                let tape =
                    MediumRef::Tape { library: range.library.clone(), volser: barcode.clone() };
                range.contains(&tape).then_some(tape)
            })
        };
        let medium = named(own).or_else(|| rows.iter().find_map(named));
        let medium = medium.ok_or("the map does not show this tape any more")?;
        let name = format!("{}/{barcode}", self.library);
        Ok(Place { name, medium, row: Some((frontend, own.backend_device.clone())) })
    }
}

impl Shelf<Switched> for FrontendShelf {
    /// Which backend it is depends on the drive.
    fn open(&self, barcode: &Barcode) -> Result<Switched, MediumError> {
        self.open_in(barcode, 0)
    }

    fn open_in(&self, barcode: &Barcode, drive: u16) -> Result<Switched, MediumError> {
        let place = self.place(barcode, drive).map_err(|cause| {
            let tape = format!("{}/{barcode}", self.library);
            let cause = format!("{}: {cause}", DeviceName::drive(self.library.clone(), drive));
            let words: [(&str, &dyn Display); 2] = [("tape", &tape), ("cause", &cause)];
            self.access.tell(messages::FRONTEND_NO_COPY, &words, &tape);
            MediumError::Device(NOT_MAPPED)
        })?;
        Switched::open(&self.access, place, barcode.clone())
    }
}

/// The inventory of a frontend. After a restart its drives are empty: what was in them is in its
/// slot again, as the tape at the backend will be.
struct SlotsOnly {
    saved: SavedInCatalogue,
    drives: BTreeSet<u16>,
}

impl InventoryStore for SlotsOnly {
    fn load(&self) -> Result<Option<SavedInventory>, MediumError> {
        let Some(mut saved) = self.saved.load()? else { return Ok(None) };
        let (loaded, mut cells): (Vec<_>, Vec<_>) =
            saved.cells.into_iter().partition(|cell| self.drives.contains(&cell.address));
        for cell in loaded {
            // One without a home goes into a free slot when the map is looked at.
            let home = cell.source.filter(|home| cells.iter().all(|it| it.address != *home));
            cells.extend(home.map(|address| tape::target::SavedCell { address, ..cell }));
        }
        cells.sort_by_key(|cell| cell.address);
        saved.cells = cells;
        Ok(Some(saved))
    }

    fn save(&mut self, inventory: &SavedInventory) -> Result<(), MediumError> {
        self.saved.save(inventory)
    }
}

fn locked(target: &Target) -> MutexGuard<'_, TargetLibrary<Switched>> {
    target.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What it is made of: no cartridges, which come with the map.
fn spec(config: &Configured, site: &SiteName) -> LibrarySpec {
    let base = config.serial.clone().unwrap_or_else(|| serial_base(site, &config.name));
    let own = match &config.serial {
        Some(serial) => serial.clone(),
        None => format!("{base}000"),
    };
    let identity = |product: &str, serial: String| DeviceIdentity {
        vendor: "TWINREEL".into(),
        product: product.into(),
        revision: "1".into(),
        serial,
    };
    let drive = |index: u16| DriveSpec {
        index,
        identity: identity("FRONTEND-DRIVE", format!("{base}{:03X}", index + 1)),
        early_warning: None,
        power_on_attention: false,
    };
    LibrarySpec {
        identity: identity("FRONTEND", own),
        map: config.element_map(),
        drives: (0..config.drives).map(drive).collect(),
        cartridges: Vec::new(),
        power_on_attention: false,
    }
}

impl FrontendLibrary {
    /// Sets the library up, with empty drives.
    pub fn open(
        config: &Configured,
        site: &SiteName,
        access: &Arc<Access>,
    ) -> Result<Self, SetUpError> {
        let name = &config.name;
        let spec = spec(config, site);
        let mut lines = vec![line(DeviceName::changer(name.clone()), &spec.identity)];
        let named = |spec: &DriveSpec| DeviceName::drive(name.clone(), spec.index);
        lines.extend(spec.drives.iter().map(|drive| line(named(drive), &drive.identity)));
        let library = spec.identity.serial.clone();
        let device = |line: &DeviceLine| DeviceRef::Drive {
            library: library.clone(),
            drive: line.serial.clone(),
        };
        let shelf = Arc::new(FrontendShelf {
            access: Arc::clone(access),
            library: name.clone(),
            drives: lines.iter().skip(1).map(device).collect(),
            rows: Rows::default(),
        });
        let (first, count) = spec.map.range(ElementType::DataTransfer);
        let store = SlotsOnly {
            saved: SavedInCatalogue {
                catalogue: Arc::clone(&access.catalogue),
                site: site.clone(),
                library: name.clone(),
            },
            drives: (first..first.saturating_add(count)).collect(),
        };
        let identity = spec.identity.clone();
        let target = TargetLibrary::open(spec, shelf.clone(), Box::new(store))
            .map_err(|error| SetUpError::Library(name.clone(), error))?;
        let opened = Self {
            name: name.clone(),
            identity,
            drives: target.drives().cloned().collect(),
            seen: target.seen(),
            target: Arc::new(Mutex::new(target)),
            lines,
            shelf,
            told: AtomicUsize::new(0),
        };
        // A crash left what was used.
        for device in &opened.shelf.drives {
            match access.catalogue.set_alternative(device, None) {
                Ok(()) | Err(SvsError::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(opened)
    }

    /// Shows what the map and the backends say now. What can not be read or saved is told in the
    /// log, and everything stays as it was.
    pub fn refresh(&self) {
        let wanted = match self.wanted() {
            Ok(wanted) => wanted,
            Err(error) => {
                tracing::error!(library = %self.name, %error, "the map can not be read");
                return;
            }
        };
        let left = match locked(&self.target).restock(&wanted) {
            Ok(left) => left.len(),
            Err(error) => {
                tracing::error!(library = %self.name, %error, "the slots can not be saved");
                return;
            }
        };
        if self.told.swap(left, Ordering::AcqRel) != left && left > 0 {
            let words: [(&str, &dyn Display); 2] = [("library", &self.name), ("count", &left)];
            self.shelf.access.tell(messages::FRONTEND_TOO_FEW_SLOTS, &words, self.name.as_str());
        }
    }

    /// The tapes that the rows of this library show, in their order, and takes the rows over.
    fn wanted(&self) -> Result<Vec<Barcode>, SvsError> {
        let access = &self.shelf.access;
        let mut rows = access.catalogue.frontend_backends()?;
        rows.retain(|row| {
            row.frontend_device.as_ref().is_some_and(|device| self.shelf.drives.contains(device))
        });
        *self.shelf.rows.write().unwrap_or_else(PoisonError::into_inner) = rows.clone();
        let shown = self.seen.inventory();
        let shown = shown.iter().flat_map(|inventory| &inventory.elements);
        let shown: Vec<_> = shown.filter_map(|element| element.barcode.clone()).collect();
        let mut wanted = Vec::new();
        for range in rows.iter().flat_map(|row| &row.backend_tapes) {
            for barcode in self.tapes_of(range, &shown)? {
                if !wanted.contains(&barcode) {
                    wanted.push(barcode);
                }
            }
        }
        Ok(wanted)
    }

    /// The tapes of a range that there are: those that their library holds, those that were shown
    /// while it can not tell, and those whose content can be read elsewhere.
    fn tapes_of(&self, range: &TapeRange, shown: &[Barcode]) -> Result<Vec<Barcode>, SvsError> {
        let access = &self.shelf.access;
        let view = mounting::backend(&access.registry(), &range.library).map(|(_, view)| view);
        let medium = |barcode: &Barcode| MediumRef::Tape {
            library: range.library.clone(),
            volser: barcode.clone(),
        };
        let is_online = view.as_ref().is_some_and(|view| view.online);
        let elements = view.iter().flat_map(|view| &view.inventory.elements);
        let there = elements.filter_map(|element| element.barcode.as_ref());
        let mut tapes: BTreeSet<_> =
            there.filter(|barcode| range.contains(&medium(barcode))).cloned().collect();
        for barcode in shown {
            let medium = medium(barcode);
            if tapes.contains(barcode) || !range.contains(&medium) {
                continue;
            }
            let elsewhere = || -> Result<bool, SvsError> {
                let places = access.catalogue.places(&medium)?;
                Ok(!places.copies.is_empty() || places.primary != medium)
            };
            if !is_online || elsewhere()? {
                tapes.insert(barcode.clone());
            }
        }
        Ok(tapes.into_iter().collect())
    }

    /// The row of the catalogue, for people.
    pub fn row(&self, site: &SiteName) -> (svs::Library, Vec<svs::Device>) {
        let row = svs::Library {
            site: site.clone(),
            name: self.name.clone(),
            serial: self.identity.serial.clone(),
            role: LibraryRole::Frontend,
            backend: "map".into(),
            state: "ready".into(),
        };
        (row, self.lines.iter().map(DeviceLine::row).collect())
    }
}

impl Library for FrontendLibrary {
    fn name(&self) -> &LibraryName {
        &self.name
    }

    fn devices(&self) -> Vec<DeviceLine> {
        self.lines.clone()
    }

    fn view(&self) -> Option<LibraryView> {
        Some(LibraryView {
            role: LibraryRole::Frontend,
            online: true,
            identity: self.identity.clone(),
            inventory: self.seen.inventory()?,
            capacity: None,
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
        Ok(Box::new(FrontendDrive::new(self.name.clone(), handle)))
    }

    fn open_changer(
        &self,
        opener: &Opener,
        _control: &Control,
    ) -> Result<Box<dyn EngineChanger>, Failure> {
        // Tapes come and go at the backends without a word.
        self.refresh();
        let changer = ChangerHandle::new(Arc::clone(&self.target), opener.nexus);
        let home = ChangerHome { target: Arc::clone(&self.target), nexus: opener.nexus };
        Ok(Box::new(Forgetting::new(changer, home)))
    }
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

    fn reset(&self) -> Result<(), TapeError> {
        locked(&self.target).reset();
        Ok(())
    }
}
