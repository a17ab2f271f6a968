//! Moving chunks together that lie apart.

use bytes::Bytes;
use model::Digest;

use super::plan::plan;
use super::{Containers, locked};
use crate::Result;
use crate::index::Location;

/// A place in the sequence of all containers: the later it is, the later it was written.
pub(crate) type Moment = (u32, u32);

impl Location {
    pub(crate) fn moment(&self) -> Moment {
        (self.container, self.offset)
    }
}

impl Containers {
    /// What is appended from now on does not lie before this.
    pub(crate) fn moment(&self) -> Moment {
        let active = locked(&self.active);
        (active.id, (active.written + active.buffer.len() as u64) as u32)
    }

    /// Writes chunks once more, one behind the other, and from then on they count there. What was
    /// moved or collected meanwhile, or is damaged, is left. Returns how many there were and what
    /// they take.
    ///
    /// Nothing is synced: the old places stay in their files, and are found there after a crash,
    /// until a collection, which syncs first.
    pub(crate) fn gather(&self, chunks: &[(Digest, Location)]) -> Result<(u64, u64)> {
        self.check_poison()?;
        let stored = self.stored_forms(chunks)?;
        // Taken once, so that nobody else's chunks come between.
        let mut active = locked(&self.active);
        let (mut count, mut bytes) = (0, 0);
        for ((digest, from), stored) in chunks.iter().zip(stored) {
            let Some(stored) = stored else { continue };
            // Most that were moved in between are not even written.
            if self.index.counts(from) {
                self.relocate(&mut active, digest, *from, &stored)?;
                (count, bytes) = (count + 1, bytes + from.size());
            }
        }
        Ok((count, bytes))
    }

    /// The chunks as they are stored, `None` for those that can not be had at their places.
    fn stored_forms(&self, chunks: &[(Digest, Location)]) -> Result<Vec<Option<Bytes>>> {
        let places: Vec<Location> = chunks.iter().map(|(_, at)| *at).collect();
        let mut forms = vec![None; chunks.len()];
        for read in plan(&places, self.gap) {
            let bytes = match self.read_range(read.container, read.from, read.to) {
                Ok(bytes) => Bytes::from(bytes),
                Err(error) if error.is_gone() || error.is_damage() => continue,
                Err(error) => return Err(error),
            };
            for i in read.members {
                let (digest, at) = &chunks[i];
                let from = (at.offset - read.from) as usize;
                let part = bytes.slice(from..from + at.size() as usize);
                forms[i] = self.checked(digest, *at, part).ok().map(|chunk| chunk.bytes);
            }
        }
        Ok(forms)
    }
}
