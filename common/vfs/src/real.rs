//! The operating system's file system.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::Advice;

use crate::{DirLock, Vfs, VfsError, VfsFile, VfsOp};

/// The operating system. Paths are used as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealVfs;

#[derive(Debug)]
struct RealFile {
    file: File,
    path: PathBuf,
}

/// Attaches operation and path to a system error.
fn at<T>(op: VfsOp, path: &Path, result: io::Result<T>) -> Result<T, VfsError> {
    result.map_err(|source| VfsError::new(op, path, source))
}

/// An empty path names the working directory, as the parent of a bare file name does.
fn directory(dir: &Path) -> &Path {
    if dir.as_os_str().is_empty() { Path::new(".") } else { dir }
}

fn boxed(op: VfsOp, path: &Path, opened: io::Result<File>) -> Result<Box<dyn VfsFile>, VfsError> {
    let file = at(op, path, opened)?;
    Ok(Box::new(RealFile { file, path: path.to_owned() }))
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options
}

impl Vfs for RealVfs {
    fn create(&self, path: &Path) -> Result<Box<dyn VfsFile>, VfsError> {
        boxed(VfsOp::Create, path, options().create_new(true).open(path))
    }

    fn open(&self, path: &Path) -> Result<Box<dyn VfsFile>, VfsError> {
        boxed(VfsOp::Open, path, options().open(path))
    }

    fn open_or_create(&self, path: &Path) -> Result<Box<dyn VfsFile>, VfsError> {
        boxed(VfsOp::Open, path, options().create(true).truncate(false).open(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), VfsError> {
        at(VfsOp::Rename, from, std::fs::rename(from, to))
    }

    fn remove(&self, path: &Path) -> Result<(), VfsError> {
        at(VfsOp::Remove, path, std::fs::remove_file(path))
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, VfsError> {
        let entries = at(VfsOp::List, dir, std::fs::read_dir(directory(dir)))?;
        let mut names = Vec::new();
        for entry in entries {
            match at(VfsOp::List, dir, entry)?.file_name().into_string() {
                Ok(name) => names.push(name),
                Err(name) => tracing::warn!(?dir, ?name, "a foreign file name is passed over"),
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create_dir_all(&self, dir: &Path) -> Result<(), VfsError> {
        if directory(dir).is_dir() {
            return Ok(());
        }
        let parent = dir.parent().unwrap_or(Path::new(""));
        self.create_dir_all(parent)?;
        match std::fs::create_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
            made => at(VfsOp::CreateDir, dir, made)?,
        }
        self.sync_dir(parent)
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), VfsError> {
        at(VfsOp::SyncDir, dir, File::open(directory(dir)).and_then(|file| file.sync_all()))
    }

    fn exists(&self, path: &Path) -> Result<bool, VfsError> {
        at(VfsOp::Stat, path, path.try_exists())
    }

    fn len(&self, path: &Path) -> Result<u64, VfsError> {
        at(VfsOp::Stat, path, std::fs::metadata(path).map(|metadata| metadata.len()))
    }

    fn lock_exclusive(&self, dir: &Path) -> Result<DirLock, VfsError> {
        let file = at(VfsOp::Lock, dir, File::open(directory(dir)))?;
        match file.try_lock() {
            Ok(()) => Ok(DirLock(Box::new(file))),
            Err(TryLockError::WouldBlock) => {
                let cause = io::Error::new(io::ErrorKind::WouldBlock, "another owner holds it");
                Err(VfsError::new(VfsOp::Lock, dir, cause))
            }
            Err(TryLockError::Error(source)) => Err(VfsError::new(VfsOp::Lock, dir, source)),
        }
    }
}

/// Repeats a call that a signal interrupted.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

impl VfsFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, VfsError> {
        at(VfsOp::Read, &self.path, uninterrupted(|| self.file.read_at(buffer, offset)))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<usize, VfsError> {
        at(VfsOp::Write, &self.path, uninterrupted(|| self.file.write_at(bytes, offset)))
    }

    fn len(&self) -> Result<u64, VfsError> {
        at(VfsOp::Stat, &self.path, self.file.metadata().map(|metadata| metadata.len()))
    }

    fn set_len(&self, len: u64) -> Result<(), VfsError> {
        at(VfsOp::SetLen, &self.path, self.file.set_len(len))
    }

    fn sync_data(&self) -> Result<(), VfsError> {
        at(VfsOp::Sync, &self.path, self.file.sync_data())
    }

    fn write_back(&self, bytes: Range<u64>) {
        // Linux begins to write what is dirty in the range, does not wait for it, and keeps the
        // pages that are on their way.
        if let Some(len) = NonZeroU64::new(bytes.end.saturating_sub(bytes.start)) {
            let _ = rustix::fs::fadvise(&self.file, bytes.start, Some(len), Advice::DontNeed);
        }
    }

    fn path(&self) -> &Path {
        &self.path
    }
}
