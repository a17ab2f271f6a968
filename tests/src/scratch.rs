//! Directories for one test.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A directory that goes when the test passes and stays, its path printed, when it fails.
#[derive(Debug)]
pub struct Scratch {
    directory: Option<TempDir>,
    path: PathBuf,
}

impl Scratch {
    /// A new empty directory; `TMPDIR` says where.
    pub fn new(test: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix(&format!("twinreel-{test}-"))
            .tempdir()
            .expect("a scratch directory");
        let path = directory.path().to_owned();
        Self { directory: Some(directory), path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(directory) = self.directory.take()
            && std::thread::panicking()
        {
            eprintln!("kept for a look: {}", directory.keep().display());
        }
    }
}
