//! A file system whose files are encrypted; names are not.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use vfs::{DirLock, Vfs, VfsError, VfsFile};

use super::file::Node;
use super::key::Secret;

/// The files that are open, by the names that they have.
type Open = HashMap<PathBuf, Weak<Node>>;

/// Encrypts what is written to the file system below.
pub(crate) struct SealedVfs {
    inner: Arc<dyn Vfs>,
    secret: Arc<Secret>,
    open: Arc<Mutex<Open>>,
}

impl std::fmt::Debug for SealedVfs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedVfs").field("inner", &self.inner).finish_non_exhaustive()
    }
}

fn locked(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SealedVfs {
    pub(crate) fn new(inner: Arc<dyn Vfs>, secret: Secret) -> Self {
        Self { inner, secret: Arc::new(secret), open: Arc::default() }
    }

    /// A handle of the file at `path`, which `get` opens if nobody has it open.
    fn handle(
        &self,
        path: &Path,
        shared: bool,
        get: impl FnOnce() -> Result<Box<dyn VfsFile>, VfsError>,
    ) -> Result<Box<dyn VfsFile>, VfsError> {
        let mut open = locked(&self.open);
        let known = open.get(path).filter(|_| shared).and_then(Weak::upgrade);
        let node = match known {
            Some(node) => node,
            None => {
                let node = Arc::new(Node::load(get()?, &self.secret)?);
                open.insert(path.to_owned(), Arc::downgrade(&node));
                node
            }
        };
        node.handles.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(SealedFile { node, path: path.to_owned(), open: Arc::clone(&self.open) }))
    }
}

impl Vfs for SealedVfs {
    fn create(&self, path: &Path) -> Result<Box<dyn VfsFile>, VfsError> {
        self.handle(path, false, || self.inner.create(path))
    }

    fn open(&self, path: &Path) -> Result<Box<dyn VfsFile>, VfsError> {
        self.handle(path, true, || self.inner.open(path))
    }

    fn open_or_create(&self, path: &Path) -> Result<Box<dyn VfsFile>, VfsError> {
        self.handle(path, true, || self.inner.open_or_create(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), VfsError> {
        let mut open = locked(&self.open);
        self.inner.rename(from, to)?;
        match open.remove(from) {
            Some(node) => open.insert(to.to_owned(), node),
            None => open.remove(to),
        };
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<(), VfsError> {
        let mut open = locked(&self.open);
        self.inner.remove(path)?;
        open.remove(path);
        Ok(())
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, VfsError> {
        self.inner.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> Result<(), VfsError> {
        self.inner.create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), VfsError> {
        self.inner.sync_dir(dir)
    }

    fn exists(&self, path: &Path) -> Result<bool, VfsError> {
        self.inner.exists(path)
    }

    fn len(&self, path: &Path) -> Result<u64, VfsError> {
        self.open(path)?.len()
    }

    fn lock_exclusive(&self, dir: &Path) -> Result<DirLock, VfsError> {
        self.inner.lock_exclusive(dir)
    }
}

struct SealedFile {
    node: Arc<Node>,
    path: PathBuf,
    open: Arc<Mutex<Open>>,
}

impl std::fmt::Debug for SealedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl VfsFile for SealedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, VfsError> {
        self.node.read(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<usize, VfsError> {
        self.node.write(bytes, offset).map(|()| bytes.len())
    }

    fn len(&self) -> Result<u64, VfsError> {
        Ok(self.node.len())
    }

    fn set_len(&self, len: u64) -> Result<(), VfsError> {
        self.node.set_len(len)
    }

    fn sync_data(&self) -> Result<(), VfsError> {
        self.node.sync()
    }

    fn write_back(&self, bytes: Range<u64>) {
        self.node.write_back(bytes);
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SealedFile {
    fn drop(&mut self) {
        // Whoever opens the file now waits until it is closed.
        let mut open = locked(&self.open);
        if self.node.handles.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.node.close();
            open.retain(|_, node| !std::ptr::eq(node.as_ptr(), Arc::as_ptr(&self.node)));
        }
    }
}
