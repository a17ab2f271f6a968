//! A file system in memory that knows what would survive a loss of power.

mod disk;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use disk::{Change, Disk, InodeId};

use crate::rng::Rng;
use crate::{DirLock, Vfs, VfsError, VfsFile, VfsOp};

/// The unit in which unsynced bytes survive or vanish.
pub const SECTOR: usize = 512;

/// What becomes of everything that was not synced when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashMode {
    /// All of it is gone.
    LoseUnsynced,
    /// All of it survives.
    KeepAll,
    /// Every sector of every write, every change of length and every change of a name survives or
    /// vanishes by itself, as the seed decides.
    Subset,
    /// Names survive. Of each file's unsynced changes a first part survives, the last of it cut
    /// off at any byte.
    TornTail,
}

impl CrashMode {
    /// All four, for tests that try each.
    pub const ALL: [Self; 4] = [Self::LoseUnsynced, Self::KeepAll, Self::Subset, Self::TornTail];
}

#[derive(Debug, Default)]
struct State {
    disk: Disk,
    operations: u64,
    stop_at: Option<u64>,
    locks: BTreeSet<PathBuf>,
}

/// A file system in memory. Clones are the same file system.
///
/// ```
/// # use std::path::Path;
/// # use vfs::{CrashMode, CrashVfs, Vfs};
/// let vfs = CrashVfs::new();
/// vfs.create_dir_all(Path::new("/d"))?;
/// vfs.create(Path::new("/d/a"))?.write_all_at(b"never synced", 0)?;
/// let after = vfs.crash(CrashMode::LoseUnsynced, 1);
/// assert!(!after.exists(Path::new("/d/a"))?);
/// # Ok::<(), vfs::VfsError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct CrashVfs(Arc<Mutex<State>>);

/// Whether the operation that was counted is the one at which the power goes, or after it.
#[derive(PartialEq, Eq)]
enum Power {
    On,
    FailsNow,
}

impl State {
    fn is_stopped(&self) -> bool {
        self.stop_at.is_some_and(|n| self.operations >= n)
    }

    /// Counts a mutating operation. The one at which the power goes is still begun, so that it can
    /// survive in part; those after it are not.
    fn count(&mut self) -> io::Result<Power> {
        if self.is_stopped() {
            return Err(off());
        }
        self.operations += 1;
        Ok(if self.is_stopped() { Power::FailsNow } else { Power::On })
    }

    fn alive(&self) -> io::Result<()> {
        if self.is_stopped() { Err(off()) } else { Ok(()) }
    }
}

fn off() -> io::Error {
    io::Error::other("the power is off")
}

fn finish(power: &Power) -> io::Result<()> {
    if *power == Power::On { Ok(()) } else { Err(off()) }
}

impl CrashVfs {
    /// Empty, with the root directory and the working directory (the empty path).
    pub fn new() -> Self {
        Self::default()
    }

    /// How many operations that change something (create, write, set length, sync, rename, remove,
    /// make or sync a directory) were begun.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Cuts the power at the `n`th mutating operation from now on (1 is the next one): it fails,
    /// though it may survive in part, and so does every call after it.
    pub fn stop_at(&self, n: u64) {
        let mut state = self.state();
        state.stop_at = Some(state.operations + n);
    }

    /// Whether the power was cut.
    pub fn is_stopped(&self) -> bool {
        self.state().is_stopped()
    }

    /// The file system as it is found after a loss of power now: a new one, everything in it
    /// durable, with its own count. This one is left as it is.
    pub fn crash(&self, mode: CrashMode, seed: u64) -> Self {
        let disk = self.state().disk.after_crash(mode, &mut Rng::new(seed));
        Self(Arc::new(Mutex::new(State { disk, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A mutating operation on the disk.
    fn change<T>(
        &self,
        op: VfsOp,
        path: &Path,
        change: impl FnOnce(&mut Disk) -> io::Result<T>,
    ) -> Result<T, VfsError> {
        let mut state = self.state();
        let result = state.count().and_then(|power| {
            let done = change(&mut state.disk)?;
            finish(&power).map(|()| done)
        });
        result.map_err(|source| VfsError::new(op, path, source))
    }

    /// A mutating operation that does nothing at all when the power fails under it.
    fn change_whole<T>(
        &self,
        op: VfsOp,
        path: &Path,
        change: impl FnOnce(&mut Disk) -> io::Result<T>,
    ) -> Result<T, VfsError> {
        let mut state = self.state();
        let result = state.count().and_then(|power| {
            finish(&power)?;
            change(&mut state.disk)
        });
        result.map_err(|source| VfsError::new(op, path, source))
    }

    /// An operation that only looks.
    fn look<T>(
        &self,
        op: VfsOp,
        path: &Path,
        look: impl FnOnce(&Disk) -> io::Result<T>,
    ) -> Result<T, VfsError> {
        let state = self.state();
        let result = state.alive().and_then(|()| look(&state.disk));
        result.map_err(|source| VfsError::new(op, path, source))
    }

    fn file(&self, inode: InodeId, path: &Path) -> Box<dyn VfsFile> {
        Box::new(CrashFile { vfs: self.clone(), inode, path: path.to_owned() })
    }
}

impl Vfs for CrashVfs {
    fn create(&self, path: &Path) -> Result<Box<dyn VfsFile>, VfsError> {
        let inode = self.change(VfsOp::Create, path, |disk| disk.create(path))?;
        Ok(self.file(inode, path))
    }

    fn open(&self, path: &Path) -> Result<Box<dyn VfsFile>, VfsError> {
        let inode = self.look(VfsOp::Open, path, |disk| disk.find(path))?;
        Ok(self.file(inode, path))
    }

    fn open_or_create(&self, path: &Path) -> Result<Box<dyn VfsFile>, VfsError> {
        match self.open(path) {
            Err(error) if error.is_not_found() => self.create(path),
            opened => opened,
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), VfsError> {
        self.change(VfsOp::Rename, from, |disk| disk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> Result<(), VfsError> {
        self.change(VfsOp::Remove, path, |disk| disk.remove(path))
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, VfsError> {
        self.look(VfsOp::List, dir, |disk| disk.list(dir))
    }

    fn create_dir_all(&self, dir: &Path) -> Result<(), VfsError> {
        self.change_whole(VfsOp::CreateDir, dir, |disk| disk.create_dir_all(dir))
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), VfsError> {
        self.change_whole(VfsOp::SyncDir, dir, |disk| disk.sync_dir(dir))
    }

    fn exists(&self, path: &Path) -> Result<bool, VfsError> {
        self.look(VfsOp::Stat, path, |disk| Ok(disk.is_dir(path) || disk.find(path).is_ok()))
    }

    fn len(&self, path: &Path) -> Result<u64, VfsError> {
        self.look(VfsOp::Stat, path, |disk| Ok(disk.bytes(disk.find(path)?).len() as u64))
    }

    fn lock_exclusive(&self, dir: &Path) -> Result<DirLock, VfsError> {
        let dir: PathBuf = dir.components().collect();
        self.look(VfsOp::Lock, &dir, |disk| disk.list(&dir))?;
        if !self.state().locks.insert(dir.clone()) {
            let cause = io::Error::new(io::ErrorKind::WouldBlock, "another owner holds it");
            return Err(VfsError::new(VfsOp::Lock, &dir, cause));
        }
        Ok(DirLock(Box::new(HeldLock { vfs: self.clone(), dir })))
    }
}

struct HeldLock {
    vfs: CrashVfs,
    dir: PathBuf,
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        self.vfs.state().locks.remove(&self.dir);
    }
}

#[derive(Debug)]
struct CrashFile {
    vfs: CrashVfs,
    inode: InodeId,
    path: PathBuf,
}

impl VfsFile for CrashFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, VfsError> {
        self.vfs.look(VfsOp::Read, &self.path, |disk| {
            let bytes = disk.bytes(self.inode);
            let start = usize::try_from(offset).map_or(bytes.len(), |o| o.min(bytes.len()));
            let n = buffer.len().min(bytes.len() - start);
            buffer[..n].copy_from_slice(&bytes[start..start + n]);
            Ok(n)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<usize, VfsError> {
        let change = Change::Write { offset: index(offset), bytes: bytes.to_vec() };
        self.vfs.change(VfsOp::Write, &self.path, |disk| {
            disk.change(self.inode, change);
            Ok(bytes.len())
        })
    }

    fn len(&self) -> Result<u64, VfsError> {
        self.vfs.look(VfsOp::Stat, &self.path, |disk| Ok(disk.bytes(self.inode).len() as u64))
    }

    fn set_len(&self, len: u64) -> Result<(), VfsError> {
        self.vfs.change(VfsOp::SetLen, &self.path, |disk| {
            disk.change(self.inode, Change::SetLen(index(len)));
            Ok(())
        })
    }

    fn sync_data(&self) -> Result<(), VfsError> {
        self.vfs.change_whole(VfsOp::Sync, &self.path, |disk| {
            disk.sync(self.inode);
            Ok(())
        })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

/// Lengths here are those of vectors in memory.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
