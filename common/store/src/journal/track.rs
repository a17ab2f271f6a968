//! Reading a journal behind its writer.

use std::path::Path;

use model::{CartridgeId, GenerationId};
use vfs::{Vfs, VfsFile};

use super::format::{Event, FRAME_HEADER, HEADER, JournalHeader};
use super::replay::{apply, fits, read_frame};
use crate::bytesio::Fields;
use crate::layout::Layout;
use crate::{Result, StoreError};

/// Where somebody stands who reads a journal that grows. Its file may be removed meanwhile.
pub(crate) struct Tracker {
    file: Box<dyn VfsFile>,
    header: JournalHeader,
    at: u64,
    sequence: u64,
}

impl Tracker {
    pub(crate) fn open(vfs: &dyn Vfs, path: &Path, id: GenerationId) -> Result<Self> {
        let file = vfs.open(path)?;
        let mut header = vec![0; HEADER];
        crate::paged::read_exact(file.as_ref(), &mut header, 0)?;
        let what = "its header is damaged";
        let header = JournalHeader::decode(id, &header)
            .ok_or_else(|| StoreError::Damaged { path: path.to_owned(), what })?;
        Ok(Self { file, header, at: HEADER as u64, sequence: 0 })
    }

    pub(crate) fn parent(&self) -> Option<GenerationId> {
        self.header.parent
    }

    /// Whose it is, on what, and since when.
    pub(crate) fn head(&self) -> (CartridgeId, Option<GenerationId>, u64) {
        (self.header.cartridge, self.header.parent, self.header.created_ms)
    }

    /// Applies the frames that were written meanwhile. `kept` is brought down to the fewest chunks
    /// and objects that there were. False if the journal makes no sense.
    pub(crate) fn advance(&mut self, layout: &mut Layout, kept: &mut (u64, u64)) -> Result<bool> {
        let len = self.file.len()?;
        // A frame that is being written has a wrong checksum and is read the next time.
        while let Some((frame, payload)) =
            read_frame(self.header.generation, self.file.as_ref(), self.at, len)?
        {
            if frame.sequence != self.sequence {
                return Ok(false);
            }
            self.at += (FRAME_HEADER + payload.len()) as u64;
            self.sequence += 1;
            let mut fields = Fields(&payload);
            while !fields.is_empty() {
                match Event::decode(&mut fields) {
                    Some(event) if fits(&event, layout) => apply(&event, layout)?,
                    _ => return Ok(false),
                }
                *kept = (kept.0.min(layout.chunks.len()), kept.1.min(layout.end.object));
            }
        }
        Ok(true)
    }
}
