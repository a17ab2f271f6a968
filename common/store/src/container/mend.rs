//! The index made anew while the store is open.

use std::sync::Arc;

use vfs::VfsFile;

use super::scan::{self, Scanned};
use super::{Containers, file_name, locked};
use crate::Result;
use crate::index::Mending;

impl Containers {
    /// Makes the index anew from what the containers list, if it is damaged. Whoever stores
    /// something goes on meanwhile; whoever needs to know where something lies waits here. True if
    /// it was made anew; false if there was no need, or `stop` said so.
    pub(crate) fn mend(&self, stop: &dyn Fn() -> bool) -> Result<bool> {
        let _one = locked(&self.mending);
        let Some(mut mending) = self.index.begin_mending() else { return Ok(false) };
        for id in mending.containers() {
            if stop() {
                return Ok(false);
            }
            match self.read_list(id, &mut mending) {
                // It was collected meanwhile.
                Err(error) if error.is_gone() => {}
                done => done?,
            }
        }
        let entries = mending.finish()?;
        tracing::warn!(entries, "the index was made anew from the containers");
        Ok(true)
    }

    fn read_list(&self, id: u32, mending: &mut Mending<'_>) -> Result<()> {
        let file: Arc<dyn VfsFile> = self.vfs.open(&self.dir.join(file_name(id)))?.into();
        match scan::scan(id, file.as_ref()) {
            Ok(Scanned { chunks, sealed: true, .. }) => mending.take(&chunks),
            Ok(Scanned { chunks, .. }) => mending.take_found(&chunks),
            // Nothing in it can be read.
            Err(error) if error.is_damage() => Ok(()),
            Err(error) => Err(error),
        }
    }
}
