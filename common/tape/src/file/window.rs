//! A piece of a file held in memory, so that neighbouring reads cost one call.

use vfs::{VfsError, VfsFile};

/// How far a sequential read looks ahead.
pub(super) const READ_AHEAD: usize = 1 << 20;
/// How much is read at once when only heads are looked at.
pub(super) const STEP_AHEAD: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Window {
    offset: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// Forgets what is held; needed whenever the file changes.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// What is held from an offset on; empty if nothing is.
    pub(super) fn from(&self, offset: u64) -> &[u8] {
        let start = offset.checked_sub(self.offset).and_then(|n| usize::try_from(n).ok());
        start.and_then(|start| self.bytes.get(start..)).unwrap_or_default()
    }

    /// At least `length` bytes at `offset` (fewer at the end of the file), reading `ahead` bytes
    /// if they are not held.
    pub(super) fn fetch(
        &mut self,
        file: &dyn VfsFile,
        offset: u64,
        length: usize,
        ahead: usize,
    ) -> Result<&[u8], VfsError> {
        if self.from(offset).len() < length {
            self.fill(file, offset, ahead.max(length))?;
        }
        Ok(self.from(offset))
    }

    /// The `length` bytes before `end`, reading some more in front of them if they are not held.
    pub(super) fn fetch_before(
        &mut self,
        file: &dyn VfsFile,
        end: u64,
        length: usize,
    ) -> Result<&[u8], VfsError> {
        let start = end.saturating_sub(length as u64);
        if self.from(start).len() < length {
            let from = end.saturating_sub(STEP_AHEAD.max(length) as u64);
            self.fill(file, from, (end - from) as usize)?;
        }
        let held = self.from(start);
        Ok(&held[..held.len().min(length)])
    }

    fn fill(&mut self, file: &dyn VfsFile, offset: u64, length: usize) -> Result<(), VfsError> {
        self.bytes.resize(length, 0);
        self.offset = offset;
        let mut done = 0;
        while done < length {
            match file.read_at(&mut self.bytes[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) => {
                    self.bytes.clear();
                    return Err(error);
                }
            }
        }
        self.bytes.truncate(done);
        Ok(())
    }
}
