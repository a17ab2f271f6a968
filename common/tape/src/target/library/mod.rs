//! A tape library: a changer, its elements and its drives.

mod cdb;
mod handle;
mod moves;
mod saved;
mod seen;
mod stock;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Barcode, Element, ElementAddress, ElementMap, ElementType};
use scsi::ElementDescriptor;

use super::fault::Faults;
use super::nexus::Nexuses;
use super::{DriveHandle, DriveSpec, FaultPlan, Medium, MediumError, Shelf, TargetDrive};
use crate::{DeviceIdentity, ElementStatus, Inventory};

pub use handle::ChangerHandle;
pub use saved::{InventoryStore, MemoryInventory, SavedCell, SavedInventory};
pub use seen::Seen;

/// What a library is made from.
#[derive(Clone, Debug)]
pub struct LibrarySpec {
    /// Who the changer says it is.
    pub identity: DeviceIdentity,
    /// Its elements.
    pub map: ElementMap,
    /// Its drives in the order of their elements; as many as `map` has.
    pub drives: Vec<DriveSpec>,
    /// The cartridges that belong to it. One that the saved inventory does not know goes into
    /// the first free slot, in this order.
    pub cartridges: Vec<Barcode>,
    /// Whether every initiator of the changer finds 06/29/00 first.
    pub power_on_attention: bool,
}

/// Why a library could not be set up; the operator's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LibraryError {
    /// The specification contradicts itself.
    #[error("the library has {elements} drive elements and {drives} drives")]
    Drives {
        /// Elements of the map.
        elements: u16,
        /// Drives of the specification.
        drives: usize,
    },
    /// The saved inventory does not fit the library: an address or a cartridge twice, or an
    /// element that is not there. The library was made smaller, or the inventory is another's.
    #[error("the saved inventory does not fit the library: {0}")]
    Inventory(String),
    /// More cartridges than slots.
    #[error("there is no free slot for cartridge {0}; add slots or take cartridges away")]
    NoSlot(Barcode),
    /// The inventory could not be loaded or saved.
    #[error("the inventory of the library could not be kept: {0}")]
    Store(#[from] MediumError),
}

/// A cartridge in an element.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cell {
    barcode: Barcode,
    source: Option<ElementAddress>,
    imported: bool,
}

/// A drive as the library holds it.
struct Bay<M> {
    address: ElementAddress,
    identity: DeviceIdentity,
    drive: Arc<Mutex<TargetDrive<M>>>,
    threaded: Arc<AtomicBool>,
}

/// What the last SEND VOLUME TAG found.
struct Search {
    nexus: u64,
    action: u8,
    found: Vec<ElementDescriptor>,
}

/// A changer with its drives, over cartridges of the kind `M`.
///
/// Which cartridge lies where is saved before a move is answered; after a restart a cartridge in
/// a drive is threaded again and stands at BOT. Locks are taken library first, then drive.
pub struct TargetLibrary<M> {
    identity: DeviceIdentity,
    map: ElementMap,
    bays: Vec<Bay<M>>,
    cells: BTreeMap<ElementAddress, Cell>,
    store: Box<dyn InventoryStore>,
    nexuses: Nexuses,
    faults: Faults,
    search: Option<Search>,
    seen: Seen,
}

impl<M: Medium> TargetLibrary<M> {
    /// Sets the library up as its inventory was saved, or with its cartridges in the slots in
    /// order, and threads what lies in drives. Drives take their cartridges from `shelf`.
    ///
    /// # Errors
    /// See [`LibraryError`]. A cartridge that can not be threaded is none of them: its drive is
    /// not ready and says why.
    pub fn open(
        spec: LibrarySpec,
        shelf: Arc<dyn Shelf<M>>,
        store: Box<dyn InventoryStore>,
    ) -> Result<Self, LibraryError> {
        let LibrarySpec { identity, map, drives, cartridges, power_on_attention } = spec;
        let elements = map.count(ElementType::DataTransfer);
        if usize::from(elements) != drives.len() {
            return Err(LibraryError::Drives { elements, drives: drives.len() });
        }
        let first = map.range(ElementType::DataTransfer).0;
        let bay = |(index, spec): (usize, DriveSpec)| {
            let identity = spec.identity.clone();
            let drive = TargetDrive::new(spec, Arc::clone(&shelf));
            let threaded = drive.threaded_flag();
            let address = first.saturating_add(index as u16);
            Bay { address, identity, drive: Arc::new(Mutex::new(drive)), threaded }
        };
        let mut library = Self {
            bays: drives.into_iter().enumerate().map(bay).collect(),
            cells: BTreeMap::new(),
            identity,
            map,
            store,
            nexuses: Nexuses::new(power_on_attention),
            faults: Faults::default(),
            search: None,
            seen: Seen::default(),
        };
        library.restore(&cartridges)?;
        library.load_drives();
        library.show();
        Ok(library)
    }

    fn restore(&mut self, cartridges: &[Barcode]) -> Result<(), LibraryError> {
        let saved = self.store.load()?;
        let mut changed = saved.is_none();
        let mut known = BTreeSet::new();
        let refuse = |text: String| Err(LibraryError::Inventory(text));
        for SavedCell { address, barcode, source, imported } in saved.unwrap_or_default().cells {
            if self.map.element(address).is_none() {
                return refuse(format!("{barcode} lies in element {address}, which is not there"));
            }
            if !known.insert(barcode.clone()) {
                return refuse(format!("{barcode} is there twice"));
            }
            let cell = Cell { barcode, source, imported };
            if let Some(other) = self.cells.insert(address, cell) {
                return refuse(format!("element {address} also holds {}", other.barcode));
            }
        }
        let (first, count) = self.map.range(ElementType::Storage);
        let mut slots = (0..count).map(|index| first.saturating_add(index));
        for barcode in cartridges {
            if known.insert(barcode.clone()) {
                let slot = slots.find(|slot| !self.cells.contains_key(slot));
                let slot = slot.ok_or_else(|| LibraryError::NoSlot(barcode.clone()))?;
                let cell = Cell { barcode: barcode.clone(), source: None, imported: false };
                self.cells.insert(slot, cell);
                changed = true;
            }
        }
        if changed { Ok(self.save()?) } else { Ok(()) }
    }

    fn load_drives(&mut self) {
        for bay in &self.bays {
            if let Some(cell) = self.cells.get(&bay.address)
                && let Err(sense) = lock(&bay.drive).insert(&cell.barcode)
            {
                tracing::error!(barcode = %cell.barcode, %sense, "a drive refused its cartridge");
            }
        }
    }

    fn save(&mut self) -> Result<(), MediumError> {
        let cells = self.cells.iter().map(|(address, cell)| SavedCell {
            address: *address,
            barcode: cell.barcode.clone(),
            source: cell.source,
            imported: cell.imported,
        });
        let saved = SavedInventory { cells: cells.collect() };
        self.store.save(&saved)?;
        self.show();
        Ok(())
    }

    /// Its inventory as it can be looked at while a drive threads a cartridge.
    pub fn seen(&self) -> Seen {
        self.seen.clone()
    }

    fn show(&self) {
        let flags = self.bays.iter().map(|bay| (bay.address, Arc::clone(&bay.threaded)));
        self.seen.show(self.inventory(), flags.collect());
    }

    /// Who the changer is.
    pub fn identity(&self) -> &DeviceIdentity {
        &self.identity
    }

    /// The drives in the order of their elements.
    pub fn drives(&self) -> impl Iterator<Item = &Arc<Mutex<TargetDrive<M>>>> {
        self.bays.iter().map(|bay| &bay.drive)
    }

    /// A drive as the initiator `nexus` uses it.
    pub fn drive(&self, index: u16, nexus: u64) -> Option<DriveHandle<M>> {
        let bay = self.bays.get(usize::from(index))?;
        Some(DriveHandle::new(Arc::clone(&bay.drive), nexus))
    }

    /// Where a cartridge is.
    pub fn find(&self, barcode: &Barcode) -> Option<ElementAddress> {
        let found = self.cells.iter().find(|(_, cell)| cell.barcode == *barcode);
        found.map(|(address, _)| *address)
    }

    /// Sets the faults to inject, in the changer and in every drive; counting begins anew.
    pub fn set_faults(&mut self, plan: &FaultPlan) {
        self.faults = Faults::new(plan, model::DeviceRole::Changer);
        self.bays.iter().for_each(|bay| lock(&bay.drive).set_faults(plan));
    }

    /// An initiator is gone for good, from the changer and every drive.
    pub fn forget_nexus(&mut self, nexus: u64) {
        self.nexuses.forget(nexus);
        self.bays.iter().for_each(|bay| lock(&bay.drive).forget_nexus(nexus));
    }

    /// NDMP's and SAM's reset of the changer; drives are reset by themselves.
    pub fn reset(&mut self) {
        self.nexuses.reset();
        self.search = None;
    }

    /// All elements, without a command: no unit attention, no reservation.
    pub fn inventory(&self) -> Inventory {
        let elements = self.map.elements();
        let elements = elements.iter().map(|(address, element)| self.status(*address, *element));
        Inventory { elements: elements.collect(), map: self.map.clone() }
    }

    fn status(&self, address: ElementAddress, element: Element) -> ElementStatus {
        let cell = self.cells.get(&address);
        let bay = match element.kind {
            ElementType::DataTransfer => self.bays.get(usize::from(element.index)),
            _ => None,
        };
        let threaded = bay.is_some_and(|bay| bay.threaded.load(Ordering::Acquire));
        ElementStatus {
            address,
            kind: element.kind,
            full: cell.is_some(),
            barcode: cell.map(|cell| cell.barcode.clone()),
            accessible: element.kind != ElementType::Transport && !threaded,
            imported: cell.is_some_and(|cell| cell.imported),
            source: cell.and_then(|cell| cell.source),
            exception: None,
            drive: bay.map(|bay| bay.identity.clone()),
        }
    }
}

/// A panic elsewhere must not take the library with it: its state is consistent between calls.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
