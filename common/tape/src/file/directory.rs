//! The directory of a library: whose it is, and its inventory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{Barcode, ElementMap, ElementType};
use serde::{Deserialize, Serialize};
use vfs::{DirLock, Vfs, VfsError};

use super::medium::io;
use crate::target::{InventoryStore, LibraryError, MediumError, SavedInventory};

/// Version of `inventory.json`.
const FORMAT: u32 = 1;
/// The longest `inventory.json` that is read.
const INVENTORY_MAX: usize = 64 << 20;

/// What a configuration says of a file library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLibrarySpec {
    /// The library's name, by which the directory is told from that of another library.
    pub name: String,
    /// Drives.
    pub drives: u16,
    /// Storage elements.
    pub slots: u16,
    /// Import/export elements.
    pub import_export: u16,
    /// Bytes of records that fit on a cartridge that is made new.
    pub capacity: u64,
    /// Bytes between early warning and the end of a cartridge; `None` for the target's default.
    pub early_warning: Option<u64>,
    /// The cartridges that there must be; new ones are put into free slots in this order.
    pub barcodes: Vec<Barcode>,
}

/// A file library that can not be opened.
#[derive(Debug, thiserror::Error)]
pub enum FileLibraryError {
    /// The file system failed; the machine's fault.
    #[error(transparent)]
    Vfs(#[from] VfsError),
    /// A cartridge could not be made.
    #[error(transparent)]
    Medium(#[from] MediumError),
    /// Another process has the library open. Stop it, or give this one another `path`.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The directory is of another library, or of this one with other elements. Correct the
    /// configuration, or give the library a new directory.
    #[error("{} is the library {found}, the configuration has {wanted}", dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// What it says it is.
        found: String,
        /// What it should be.
        wanted: String,
    },
    /// `inventory.json` does not have its form. Put a copy back; without the file, the configured
    /// cartridges go to the slots, in order and with what is on them.
    #[error("{} can not be read: {problem}", path.display())]
    Inventory {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The cartridges do not fit, or the saved inventory does not.
    #[error(transparent)]
    Library(#[from] LibraryError),
}

impl FileLibrarySpec {
    /// The element addresses.
    pub(super) fn map(&self) -> ElementMap {
        ElementMap::with_counts(self.drives, self.slots, self.import_export)
    }

    fn shape(&self) -> String {
        shape(&self.name, self.drives, self.slots, self.import_export)
    }
}

fn shape(name: &str, drives: u16, slots: u16, import_export: u16) -> String {
    format!("{name} (drives {drives}, slots {slots}, import_export {import_export})")
}

/// The contents of `inventory.json` around what the changer keeps.
#[derive(Debug, Serialize, Deserialize)]
struct Envelope<I> {
    format: u32,
    library: String,
    drives: u16,
    slots: u16,
    import_export: u16,
    /// What the serial numbers of the changer and its drives begin with.
    serial: String,
    inventory: I,
}

/// The directory, held alone, as the place of the inventory.
#[derive(Debug)]
pub(super) struct Directory {
    vfs: Arc<dyn Vfs>,
    path: PathBuf,
    spec: FileLibrarySpec,
    serial: String,
    saved: Option<SavedInventory>,
    _lock: DirLock,
}

impl Directory {
    /// Makes the directory if it is not there, takes it, and reads its inventory.
    pub(super) fn open(
        vfs: Arc<dyn Vfs>,
        path: &Path,
        spec: &FileLibrarySpec,
    ) -> Result<Self, FileLibraryError> {
        vfs.create_dir_all(path)?;
        let lock = vfs.lock_exclusive(path).map_err(|error| match error.is_locked() {
            true => FileLibraryError::InUse(path.to_owned()),
            false => error.into(),
        })?;
        let (path, spec) = (path.to_owned(), spec.clone());
        let (serial, saved) = (new_serial(), None);
        let mut directory = Self { vfs, path, spec, serial, saved, _lock: lock };
        if let Some((serial, saved)) = directory.read()? {
            (directory.serial, directory.saved) = (serial, Some(saved));
        }
        Ok(directory)
    }

    /// What the serial numbers of this library begin with: seven characters.
    pub(super) fn serial(&self) -> &str {
        &self.serial
    }

    /// The configured cartridges that the inventory does not know. Refused here, before their
    /// files are made, if they do not fit.
    pub(super) fn new_cartridges(&self) -> Result<Vec<Barcode>, LibraryError> {
        let cells = || self.saved.iter().flat_map(|saved| &saved.cells);
        let is_known = |barcode: &Barcode| cells().any(|cell| cell.barcode == *barcode);
        let wanted = self.spec.barcodes.iter();
        let new: Vec<_> = wanted.filter(|barcode| !is_known(barcode)).cloned().collect();
        let (first, slots) = self.spec.map().range(ElementType::Storage);
        let is_slot = |address: u16| address.checked_sub(first).is_some_and(|i| i < slots);
        let free =
            usize::from(slots).saturating_sub(cells().filter(|cell| is_slot(cell.address)).count());
        match new.get(free) {
            Some(barcode) => Err(LibraryError::NoSlot(barcode.clone())),
            None => Ok(new),
        }
    }

    fn inventory_path(&self) -> PathBuf {
        self.path.join("inventory.json")
    }

    fn read(&self) -> Result<Option<(String, SavedInventory)>, FileLibraryError> {
        let path = self.inventory_path();
        if !self.vfs.exists(&path)? {
            return Ok(None);
        }
        let bytes = vfs::read_all(&*self.vfs, &path, INVENTORY_MAX)?;
        let refuse = |problem: String| FileLibraryError::Inventory { path: path.clone(), problem };
        // Whose it is comes first: what another version keeps inside may look different.
        let envelope: Envelope<serde_json::Value> =
            serde_json::from_slice(&bytes).map_err(|error| refuse(error.to_string()))?;
        if envelope.format != FORMAT {
            return Err(refuse(format!("format {}, not {FORMAT}", envelope.format)));
        }
        let Envelope { library, drives, slots, import_export, serial, inventory, .. } = envelope;
        let found = shape(&library, drives, slots, import_export);
        if found != self.spec.shape() {
            let (dir, wanted) = (self.path.clone(), self.spec.shape());
            return Err(FileLibraryError::Foreign { dir, found, wanted });
        }
        let inventory = serde_json::from_value(inventory);
        let inventory = inventory.map_err(|error| refuse(error.to_string()))?;
        Ok(Some((serial, inventory)))
    }
}

/// Seven characters that no other library has: serial numbers tell devices of two sites apart.
fn new_serial() -> String {
    let random = getrandom::u32().unwrap_or_else(|_| std::process::id());
    format!("F{:06X}", random & 0xff_ffff)
}

impl InventoryStore for Directory {
    fn load(&self) -> Result<Option<SavedInventory>, MediumError> {
        Ok(self.saved.clone())
    }

    fn save(&mut self, inventory: &SavedInventory) -> Result<(), MediumError> {
        let envelope = Envelope {
            format: FORMAT,
            library: self.spec.name.clone(),
            drives: self.spec.drives,
            slots: self.spec.slots,
            import_export: self.spec.import_export,
            serial: self.serial.clone(),
            inventory,
        };
        let bytes = serde_json::to_vec_pretty(&envelope);
        let bytes = bytes.map_err(|error| MediumError::Io(error.to_string()))?;
        vfs::write_atomic(&*self.vfs, &self.inventory_path(), &bytes).map_err(io)?;
        self.saved = Some(inventory.clone());
        Ok(())
    }
}
