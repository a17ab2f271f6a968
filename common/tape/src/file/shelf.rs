//! Where the cartridge files lie, and which of them are mounted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use model::Barcode;
use vfs::Vfs;

use super::medium::{FileMedium, io};
use crate::target::{MediumError, Shelf};

/// The directory of the cartridge files of one library. Clones share which are mounted.
#[derive(Clone, Debug)]
pub struct FileShelf {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    mounted: Arc<Mutex<BTreeSet<Barcode>>>,
}

/// Holds a cartridge for one mount; let go when it is dropped.
#[derive(Debug)]
pub(super) struct Mount {
    barcode: Barcode,
    mounted: Arc<Mutex<BTreeSet<Barcode>>>,
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.mounted.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.barcode);
    }
}

impl FileShelf {
    pub(super) fn new(vfs: Arc<dyn Vfs>, dir: PathBuf) -> Self {
        Self { vfs, dir, mounted: Arc::default() }
    }

    /// The file of a cartridge.
    pub fn path(&self, barcode: &Barcode) -> PathBuf {
        self.dir.join(format!("{barcode}.tape"))
    }

    /// Makes the cartridges that are missing, empty and durable. Returns how many there were.
    pub(super) fn stock(&self, barcodes: &[Barcode], capacity: u64) -> Result<usize, MediumError> {
        self.vfs.create_dir_all(&self.dir).map_err(io)?;
        let mut made = 0;
        for barcode in barcodes {
            let path = self.path(barcode);
            if !self.vfs.exists(&path).map_err(io)? {
                FileMedium::create(&*self.vfs, &path, barcode.clone(), capacity)?;
                made += 1;
            }
        }
        self.vfs.sync_dir(&self.dir).map_err(io)?;
        Ok(made)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Shelf<FileMedium> for FileShelf {
    fn seals(&self) -> bool {
        true
    }

    fn open(&self, barcode: &Barcode) -> Result<FileMedium, MediumError> {
        let taken = || MediumError::InUse(format!("{barcode} is mounted"));
        let mut mounted = self.mounted.lock().unwrap_or_else(PoisonError::into_inner);
        if !mounted.insert(barcode.clone()) {
            return Err(taken());
        }
        drop(mounted);
        let mount = Mount { barcode: barcode.clone(), mounted: Arc::clone(&self.mounted) };
        FileMedium::open(&*self.vfs, &self.path(barcode), barcode, mount)
    }
}
