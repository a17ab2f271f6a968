//! The `faults` file of a library directory.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use vfs::{Vfs, VfsError};

use crate::target::FaultPlan;

/// The longest file that is read.
const LENGTH_MAX: usize = 1 << 20;

/// Looks whether the file changed.
#[derive(Debug)]
pub(super) struct FaultFile {
    vfs: Arc<dyn Vfs>,
    path: PathBuf,
    seen: Mutex<Option<Vec<u8>>>,
}

impl FaultFile {
    pub(super) fn new(vfs: Arc<dyn Vfs>, path: PathBuf) -> Self {
        Self { vfs, path, seen: Mutex::new(None) }
    }

    fn read(&self) -> Result<Option<Vec<u8>>, VfsError> {
        if !self.vfs.exists(&self.path)? {
            return Ok(None);
        }
        vfs::read_all(&*self.vfs, &self.path, LENGTH_MAX).map(Some)
    }

    /// The plan of the file if it is not the one seen last; an empty one when the file is gone. A
    /// file that can not be read or parsed is told in the log, once, and changes nothing.
    pub(super) fn changed(&self) -> Option<FaultPlan> {
        let found = match self.read() {
            Ok(found) => found,
            Err(error) if error.is_not_found() => None,
            Err(error) => {
                tracing::warn!(%error, "the fault file is not used");
                return None;
            }
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == found {
            return None;
        }
        let text = String::from_utf8_lossy(found.as_deref().unwrap_or_default()).into_owned();
        *seen = found;
        match FaultPlan::parse(&text) {
            Ok(plan) => {
                tracing::info!(path = %self.path.display(), rules = plan.rules.len(), "faults set");
                Some(plan)
            }
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "the fault file is not used");
                None
            }
        }
    }
}
