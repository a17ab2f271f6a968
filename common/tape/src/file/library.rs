//! The library as a whole: a directory, the target over it, and the ways to its devices.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use vfs::Vfs;

use super::directory::{Directory, FileLibraryError, FileLibrarySpec};
use super::faults::FaultFile;
use super::medium::FileMedium;
use super::shelf::FileShelf;
use crate::driver::{LocalTransport, ScsiChanger, ScsiDrive};
use crate::target::{DriveSpec, LibrarySpec, TargetDrive, TargetLibrary};
use crate::{Control, DeviceIdentity, KeyRing, TapeError};

type Shared<T> = Arc<Mutex<T>>;

/// An open file library. Its directory is held exclusively until this, and every way to its
/// devices, is dropped.
pub struct FileLibrary {
    library: Shared<TargetLibrary<FileMedium>>,
    drives: Vec<Shared<TargetDrive<FileMedium>>>,
    shelf: FileShelf,
    faults: Arc<FaultFile>,
    keys: Arc<KeyRing>,
}

impl FileLibrary {
    /// Opens the library in `dir` and makes what is missing: the directory, and cartridges that
    /// its inventory does not know yet. What lies in drives is loaded, at BOT, and every device
    /// has 06/29/00 for each initiator, as after a power-on.
    ///
    /// # Errors
    /// See [`FileLibraryError`]. A cartridge file that can not be opened is none of them: its
    /// drive is not ready.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        spec: &FileLibrarySpec,
    ) -> Result<Self, FileLibraryError> {
        let directory = Directory::open(Arc::clone(&vfs), dir, spec)?;
        let shelf = FileShelf::new(Arc::clone(&vfs), dir.join("cartridges"));
        // A cartridge that the inventory knows and that has no file is lost, not new.
        let made = shelf.stock(&directory.new_cartridges()?, spec.capacity)?;
        tracing::info!(library = spec.name, dir = %dir.display(), made, "file library opened");
        let identity = |product: &str, unit: u16| DeviceIdentity {
            vendor: "TWINREEL".to_owned(),
            product: product.to_owned(),
            revision: "1".to_owned(),
            serial: format!("{}{unit:03X}", directory.serial()),
        };
        let drive = |index: u16| DriveSpec {
            index,
            identity: identity("EMBEDDED-DRIVE", index + 1),
            early_warning: spec.early_warning,
            power_on_attention: true,
        };
        let spec = LibrarySpec {
            identity: identity("EMBEDDED-LIBRARY", 0),
            map: spec.map(),
            drives: (0..spec.drives).map(drive).collect(),
            cartridges: spec.barcodes.clone(),
            power_on_attention: true,
        };
        let library = TargetLibrary::open(spec, Arc::new(shelf.clone()), Box::new(directory))?;
        let drives = library.drives().cloned().collect();
        let faults = Arc::new(FaultFile::new(vfs, dir.join("faults")));
        let (library, keys) = (Arc::new(Mutex::new(library)), Arc::default());
        Ok(Self { library, drives, shelf, faults, keys })
    }

    /// With the keys that its tapes are written with, where it is used as a physical library.
    pub fn with_keys(self, keys: Arc<KeyRing>) -> Self {
        Self { keys, ..self }
    }

    /// The keys of its tapes.
    pub(crate) fn keys(&self) -> &Arc<KeyRing> {
        &self.keys
    }

    /// The target itself, for inventories without a command and for an operator's import and
    /// export.
    pub fn library(&self) -> &Arc<Mutex<TargetLibrary<FileMedium>>> {
        &self.library
    }

    /// Where the cartridge files are.
    pub fn shelf(&self) -> &FileShelf {
        &self.shelf
    }

    /// How many drives there are.
    pub fn drive_count(&self) -> u16 {
        self.drives.len() as u16
    }

    /// Reads the fault file anew if it changed.
    fn look_for_faults(library: &Shared<TargetLibrary<FileMedium>>, faults: &FaultFile) {
        if let Some(plan) = faults.changed() {
            library.lock().unwrap_or_else(PoisonError::into_inner).set_faults(&plan);
        }
    }

    /// A way to the changer, as the initiator `nexus`.
    pub fn changer_transport(&self, nexus: u64) -> LocalTransport {
        let (library, faults) = (Arc::clone(&self.library), Arc::clone(&self.faults));
        LocalTransport::new(move |cdb, transfer, control| {
            Self::look_for_faults(&library, &faults);
            let mut library = library.lock().unwrap_or_else(PoisonError::into_inner);
            library.execute_cdb(nexus, cdb, transfer, control)
        })
    }

    /// A way to a drive, as the initiator `nexus`; `None` if there is no such drive.
    pub fn drive_transport(&self, index: u16, nexus: u64) -> Option<LocalTransport> {
        let drive = Arc::clone(self.drives.get(usize::from(index))?);
        let (library, faults) = (Arc::clone(&self.library), Arc::clone(&self.faults));
        Some(LocalTransport::new(move |cdb, transfer, control| {
            Self::look_for_faults(&library, &faults);
            let mut drive = drive.lock().unwrap_or_else(PoisonError::into_inner);
            drive.execute_cdb(nexus, cdb, transfer, control)
        }))
    }

    /// The changer behind its driver. It needs no ways to the drives: this library unloads a
    /// drive by itself before it takes the cartridge.
    pub fn changer(
        &self,
        nexus: u64,
        control: &Control,
    ) -> Result<ScsiChanger<LocalTransport>, TapeError> {
        ScsiChanger::open(self.changer_transport(nexus), control)
    }

    /// The drives behind their drivers, in the order of their elements.
    pub fn drives(
        &self,
        nexus: u64,
        control: &Control,
    ) -> Result<Vec<ScsiDrive<LocalTransport>>, TapeError> {
        let transports =
            (0..self.drive_count()).filter_map(|index| self.drive_transport(index, nexus));
        transports.map(|transport| ScsiDrive::open(transport, control)).collect()
    }

    /// An initiator is gone for good: its reservations, unit attentions and PREVENTs end.
    pub fn forget_nexus(&self, nexus: u64) {
        self.library.lock().unwrap_or_else(PoisonError::into_inner).forget_nexus(nexus);
    }
}

impl std::fmt::Debug for FileLibrary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileLibrary").field("shelf", &self.shelf).finish_non_exhaustive()
    }
}
