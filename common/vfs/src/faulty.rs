//! A file system whose nth call fails.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::rng::Rng;
use crate::{DirLock, Vfs, VfsError, VfsFile, VfsOp};

/// Which calls a fault counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultOp {
    /// [`VfsFile::read_at`].
    Read,
    /// [`VfsFile::write_at`].
    Write,
    /// [`VfsFile::sync_data`] and [`Vfs::sync_dir`].
    Sync,
    /// [`Vfs::rename`].
    Rename,
    /// [`Vfs::create`] and [`Vfs::open_or_create`].
    Create,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// EIO; nothing is done.
    Io,
    /// ENOSPC; nothing is done.
    Full,
    /// At most half of the bytes are moved, at least one; no error. Only reads and writes do that,
    /// any other call is done in full.
    Short,
}

impl FaultKind {
    fn error(self) -> Option<io::Error> {
        match self {
            Self::Io => Some(io::Error::from_raw_os_error(5)),
            Self::Full => Some(io::Error::from_raw_os_error(28)),
            Self::Short => None,
        }
    }
}

#[derive(Debug)]
struct Plan {
    counts: [u64; 5],
    faults: Vec<(FaultOp, u64, FaultKind)>,
    random: Option<(Rng, u64)>,
}

impl Plan {
    /// Counts a call and says how it is to fail.
    fn next(&mut self, op: FaultOp) -> Option<FaultKind> {
        self.counts[op as usize] += 1;
        let n = self.counts[op as usize];
        if let Some(i) = self.faults.iter().position(|(o, nth, _)| *o == op && *nth == n) {
            return Some(self.faults.swap_remove(i).2);
        }
        let (rng, one_in) = self.random.as_mut()?;
        if rng.below(*one_in) != 0 {
            return None;
        }
        Some([FaultKind::Io, FaultKind::Full, FaultKind::Short][rng.below(3) as usize])
    }
}

/// Decorates a file system with faults. Clones share the plan and the counts.
#[derive(Clone, Debug)]
pub struct FaultyVfs {
    inner: Arc<dyn Vfs>,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Debug)]
struct FaultyFile {
    inner: Box<dyn VfsFile>,
    plan: Arc<Mutex<Plan>>,
}

fn next(plan: &Mutex<Plan>, op: FaultOp) -> Option<FaultKind> {
    plan.lock().unwrap_or_else(PoisonError::into_inner).next(op)
}

/// Fails with the planned error, if any; says whether the count is to be short.
fn strike(plan: &Mutex<Plan>, op: FaultOp, call: VfsOp, path: &Path) -> Result<bool, VfsError> {
    match next(plan, op) {
        None => Ok(false),
        Some(kind) => match kind.error() {
            None => Ok(true),
            Some(error) => Err(VfsError::new(call, path, error)),
        },
    }
}

impl FaultyVfs {
    /// Without faults yet.
    pub fn new(inner: Arc<dyn Vfs>) -> Self {
        let plan = Plan { counts: [0; 5], faults: Vec::new(), random: None };
        Self { inner, plan: Arc::new(Mutex::new(plan)) }
    }

    /// The `nth` call from now on (1 is the next one) of this kind fails, once.
    pub fn fail(&self, op: FaultOp, nth: u64, kind: FaultKind) {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let nth = plan.counts[op as usize] + nth;
        plan.faults.push((op, nth, kind));
    }

    /// From now on about one in `one_in` calls fails, as the seed decides; 0 ends it.
    pub fn fail_randomly(&self, seed: u64, one_in: u64) {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        plan.random = (one_in > 0).then(|| (Rng::new(seed), one_in));
    }

    /// How many calls of this kind were made.
    pub fn count(&self, op: FaultOp) -> u64 {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).counts[op as usize]
    }

    fn wrap(&self, inner: Box<dyn VfsFile>) -> Box<dyn VfsFile> {
        Box::new(FaultyFile { inner, plan: Arc::clone(&self.plan) })
    }
}

impl Vfs for FaultyVfs {
    fn create(&self, path: &Path) -> Result<Box<dyn VfsFile>, VfsError> {
        strike(&self.plan, FaultOp::Create, VfsOp::Create, path)?;
        Ok(self.wrap(self.inner.create(path)?))
    }

    fn open(&self, path: &Path) -> Result<Box<dyn VfsFile>, VfsError> {
        Ok(self.wrap(self.inner.open(path)?))
    }

    fn open_or_create(&self, path: &Path) -> Result<Box<dyn VfsFile>, VfsError> {
        strike(&self.plan, FaultOp::Create, VfsOp::Open, path)?;
        Ok(self.wrap(self.inner.open_or_create(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), VfsError> {
        strike(&self.plan, FaultOp::Rename, VfsOp::Rename, from)?;
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<(), VfsError> {
        self.inner.remove(path)
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, VfsError> {
        self.inner.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> Result<(), VfsError> {
        self.inner.create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), VfsError> {
        strike(&self.plan, FaultOp::Sync, VfsOp::SyncDir, dir)?;
        self.inner.sync_dir(dir)
    }

    fn exists(&self, path: &Path) -> Result<bool, VfsError> {
        self.inner.exists(path)
    }

    fn len(&self, path: &Path) -> Result<u64, VfsError> {
        self.inner.len(path)
    }

    fn lock_exclusive(&self, dir: &Path) -> Result<DirLock, VfsError> {
        self.inner.lock_exclusive(dir)
    }
}

/// Half of a length, but never nothing of something.
fn half(len: usize) -> usize {
    len.div_ceil(2)
}

impl VfsFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, VfsError> {
        let short = strike(&self.plan, FaultOp::Read, VfsOp::Read, self.path())?;
        let max = if short { half(buffer.len()) } else { buffer.len() };
        self.inner.read_at(&mut buffer[..max], offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<usize, VfsError> {
        let short = strike(&self.plan, FaultOp::Write, VfsOp::Write, self.path())?;
        let max = if short { half(bytes.len()) } else { bytes.len() };
        self.inner.write_at(&bytes[..max], offset)
    }

    fn len(&self) -> Result<u64, VfsError> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> Result<(), VfsError> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> Result<(), VfsError> {
        strike(&self.plan, FaultOp::Sync, VfsOp::Sync, self.path())?;
        self.inner.sync_data()
    }

    fn write_back(&self, bytes: Range<u64>) {
        self.inner.write_back(bytes);
    }

    fn path(&self) -> &Path {
        self.inner.path()
    }
}
