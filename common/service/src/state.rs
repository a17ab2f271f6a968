//! The state directory: made for its owner only, and used by one engine at a time.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A state directory that this process holds until the value is dropped (or the process dies).
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Locked; the lock goes with the last handle.
    _lock: File,
}

/// Why the directory can not be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another engine works in it; the operator stops that one.
    #[error("another engine works in {0:?}")]
    Taken(PathBuf),
    /// It can not be made or written.
    #[error("the state directory {path:?} can not be used: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl StateDir {
    /// Makes the directory if it is not there (mode 0700) and takes it for this process.
    ///
    /// # Errors
    /// [`StateError::Taken`] while another process has it.
    pub fn claim(path: &Path) -> Result<Self, StateError> {
        use std::os::unix::fs::DirBuilderExt;
        let fail = |source| StateError::Io { path: path.to_owned(), source };
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(fail)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(fail)?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::Taken(path.to_owned())),
            Err(errno) => Err(fail(errno.into())),
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_engine_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let held = StateDir::claim(&path).unwrap();
        assert!(matches!(StateDir::claim(&path), Err(StateError::Taken(_))));
        drop(held);
        assert_eq!(StateDir::claim(&path).unwrap().path(), path);
    }
}
