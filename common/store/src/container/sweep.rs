//! Giving back the space of chunks that nobody needs.
//!
//! Every chunk is stamped with the *epoch* in which somebody last relied on it. A collection begins
//! a new epoch and stamps what recipes name. Whoever builds on chunks that no recipe names yet has
//! a [`Hold`](crate::collect::Hold), begun before the first look: what was relied on since the
//! oldest one that was there when the epoch began is kept too. All else is free.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::Digest;
use vfs::VfsFile;

use super::format::{FILE_HEADER, FOOTER_ENTRY, TRAILER};
use super::scan::Scanned;
use super::{Active, Containers, file_name, id_of, locked, scan};
use crate::index::{FIRST_EPOCH, Location};
use crate::{Damage, Result};

/// A container as a collection sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fill {
    pub(crate) id: u32,
    /// Of the file.
    pub(crate) length: u64,
    /// Of chunks that are needed, with their headers.
    pub(crate) live: u64,
    /// Of its header and its list of all chunks.
    pub(crate) frame: u64,
}

/// What emptying a container did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Emptied {
    /// Bytes of chunks that were needed and moved.
    pub(crate) moved: u64,
    /// Chunks that were not.
    pub(crate) freed: u64,
}

impl Containers {
    /// Somebody begins to build on chunks; gives what [`Containers::let_go`] takes.
    pub(crate) fn hold(&self) -> u32 {
        let mut holds = locked(&self.holds);
        let epoch = self.epoch.load(Ordering::Acquire);
        *holds.entry(epoch).or_default() += 1;
        epoch
    }

    /// It is over.
    pub(crate) fn let_go(&self, epoch: u32) {
        let mut holds = locked(&self.holds);
        if let Some(count) = holds.get_mut(&epoch) {
            *count -= 1;
            if *count == 0 {
                holds.remove(&epoch);
            }
        }
    }

    /// Begins a new epoch. What was stamped in the returned one or later is needed.
    pub(crate) fn begin_epoch(&self) -> u32 {
        let holds = locked(&self.holds);
        let epoch = self.epoch.fetch_add(1, Ordering::AcqRel).saturating_add(1);
        let oldest = holds.keys().next();
        let needed = oldest.map_or(epoch, |oldest| epoch.min(*oldest)).max(FIRST_EPOCH);
        self.index.begin_epoch(epoch, needed);
        needed
    }

    /// Every sealed container.
    pub(crate) fn fills(&self, needed: u32) -> Result<Vec<Fill>> {
        // Nothing is added any more to those before it, so that what is counted below is all.
        let active = self.active_id.load(Ordering::Acquire);
        let names = self.vfs.list(&self.dir)?;
        let ids = names.iter().filter_map(|name| id_of(name)).filter(|id| *id < active);
        let fill = |id: u32| {
            let length = self.vfs.open(&self.dir.join(file_name(id)))?.len()?;
            let (live, count) = (self.index.live(id, needed), self.index.listed(id));
            let frame = FILE_HEADER + TRAILER + count as usize * FOOTER_ENTRY;
            Ok(Fill { id, length, live, frame: frame as u64 })
        };
        ids.map(fill).collect()
    }

    /// Moves what is needed of a sealed container to the active one, durably, and forgets the
    /// rest: nothing refers to it afterwards. `None` if it can not be read wholly; it stays then.
    pub(crate) fn empty(&self, id: u32, needed: u32) -> Result<Option<Emptied>> {
        let file: Arc<dyn VfsFile> = self.vfs.open(&self.dir.join(file_name(id)))?.into();
        let Ok(scanned) = scan::scan(id, file.as_ref()) else { return Ok(None) };
        if !scanned.sealed {
            return Ok(None);
        }
        let mut emptied = Emptied::default();
        loop {
            for (digest, location) in &scanned.chunks {
                if self.index.is_live(location, needed) == Some(true) {
                    let Ok(stored) = self.stored_at(digest, *location) else { return Ok(None) };
                    self.relocate(&mut locked(&self.active), digest, *location, &stored.bytes)?;
                    emptied.moved += location.size();
                }
            }
            self.sync(self.mark())?;
            // Otherwise somebody has begun to rely on a chunk that nobody needed before.
            if let Some(freed) = self.index.abandon(id, needed) {
                emptied.freed = freed;
                return Ok(Some(emptied));
            }
        }
    }

    /// Moves a chunk, if it still counts at `from`, to the active container.
    pub(super) fn relocate(
        &self,
        active: &mut Active,
        digest: &Digest,
        from: Location,
        stored: &[u8],
    ) -> Result<()> {
        self.check_poison()?;
        let to = self.put(active, digest, (from.encoding, from.raw_len), stored)?;
        self.index.relocate(digest, from, to);
        Ok(())
    }

    /// Removes emptied containers.
    pub(crate) fn remove(&self, ids: &BTreeSet<u32>) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        locked(&self.files).retain(|(id, _)| !ids.contains(id));
        for id in ids {
            self.vfs.remove(&self.dir.join(file_name(*id)))?;
        }
        Ok(self.vfs.sync_dir(&self.dir)?)
    }

    /// Reads every chunk of a sealed container and compares its checksum. Bad ones are forgotten,
    /// so that whoever brings them again heals them. Chunks and bytes that are good.
    /// `known` is what the index said of all of its chunks some time before.
    pub(crate) fn scrub(
        &self,
        Fill { id, live: known, .. }: Fill,
        damage: &mut Vec<Damage>,
    ) -> Result<(u64, u64)> {
        let path = self.dir.join(file_name(id));
        let file: Arc<dyn VfsFile> = self.vfs.open(&path)?.into();
        let (mut good, mut bad) = ((0, 0), 0);
        let (listed, sealed) = match scan::scan(id, file.as_ref()) {
            Ok(Scanned { chunks, sealed, .. }) => (chunks, sealed),
            Err(error) if error.is_damage() => (Vec::new(), false),
            Err(error) => return Err(error),
        };
        for (digest, location) in &listed {
            if !self.lies_here(digest, location, sealed)? {
                continue;
            }
            match self.stored(digest) {
                Ok(_) => good = (good.0 + 1, good.1 + location.size()),
                Err(error) if error.is_damage() => bad += location.size(),
                Err(error) => return Err(error),
            }
        }
        // What the index knows of it and its own list does not; or what was moved meanwhile.
        if known > good.1 + bad {
            bad += self.index.live(id, FIRST_EPOCH).saturating_sub(good.1);
        }
        if bad > 0 {
            damage.push(Damage::Container { path, bytes: bad, torn: false });
        }
        Ok(good)
    }

    /// Whether a chunk that a container lists is read from there. Without a good list the numbers
    /// of its chunks may be others.
    fn lies_here(&self, digest: &Digest, at: &Location, sealed: bool) -> Result<bool> {
        if sealed {
            return Ok(self.index.is_live(at, FIRST_EPOCH).is_some());
        }
        let place = |at: &Location| (at.container, at.offset);
        Ok(self.lookup(digest)?.is_some_and(|found| place(&found) == place(at)))
    }
}
