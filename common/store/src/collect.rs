//! Giving back the space of generations that were deleted, and looking at everything that is kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{Digest, GenerationId};

use crate::layout::Layout;
use crate::recipe::{Recipe, layout_of};
use crate::store::Inner;
use crate::{Damage, Result, Store, StoreError, journal};

/// Emptied containers are removed in groups of so many.
const GROUP: usize = 16;
/// Chunks that are named as lost at once.
pub const LOST_MAX: usize = 1 << 16;

/// As long as it lives, no chunk that was asked for since it began is freed.
pub struct Hold {
    inner: Arc<Inner>,
    epoch: u32,
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Hold").field(&self.epoch).finish()
    }
}

impl Hold {
    pub(crate) fn new(inner: &Arc<Inner>) -> Self {
        Self { inner: inner.clone(), epoch: inner.containers.hold() }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.inner.containers.let_go(self.epoch);
    }
}

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Container files that were removed.
    pub containers: u64,
    /// Chunks that nobody needed any more in them.
    pub chunks: u64,
    /// Bytes that the file system got back, less those written anew.
    pub freed: u64,
    /// Bytes of chunks in these containers that are needed, written anew elsewhere.
    pub moved: u64,
    /// Bytes of chunks that nobody needs in containers that are full enough to stay.
    pub left: u64,
}

/// What looking at everything found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Container files.
    pub containers: u64,
    /// Chunks whose checksums are right, and their bytes as stored.
    pub chunks: u64,
    /// See `chunks`.
    pub bytes: u64,
    /// What is not as it was written.
    pub damage: Vec<Damage>,
    /// Generations that need a chunk that is not there.
    pub incomplete: Vec<GenerationId>,
    /// The chunks that they need: each once, and only the first [`LOST_MAX`].
    pub lost: Vec<Digest>,
}

impl Store {
    /// Keeps every chunk that is asked for from now on ([`Store::missing`],
    /// [`Store::put_stored_chunk`]) from being freed. Images, imports and readers have their own.
    pub fn hold(&self) -> Hold {
        Hold::new(&self.0)
    }

    /// Frees the chunks that no generation needs. Containers of which less than `live_percent` is
    /// needed are given up, and what is needed of them written anew. Goes on beside everything
    /// else; one at a time. Stops early, between two containers, when `stop` says so.
    ///
    /// # Errors
    /// [`StoreError::NotCollected`] if it is not known what is needed; nothing was freed then.
    pub fn collect(&self, live_percent: u8, stop: &dyn Fn() -> bool) -> Result<Collected> {
        let inner = &self.0;
        let _one = inner.collecting();
        inner.containers.check_poison()?;
        // What was deleted must not come back in a crash when its chunks are gone.
        inner.sync_lists()?;
        let needed = inner.containers.begin_epoch();
        // From here on: whatever is relied on anew is stamped by whoever does.
        inner.stamp_sealed()?;
        inner.stamp_open()?;
        // An image that was taken before it was looked at stamps what it goes on from.
        inner.wait_for_openers();
        let mut collected = Collected::default();
        let mut emptied = BTreeSet::new();
        let mut lengths = 0;
        let mut fills = inner.containers.fills(needed)?;
        // First what costs no room, so that it is there for what does.
        fills.sort_by_key(|fill| fill.live);
        for fill in fills {
            if emptied.len() == GROUP || fill.live > 0 && collected.moved == 0 {
                collected.containers += emptied.len() as u64;
                inner.containers.remove(&std::mem::take(&mut emptied))?;
            }
            let dead = fill.length.saturating_sub(fill.live);
            let sparse = fill.live * 100 < fill.length * u64::from(live_percent.min(100));
            let empty = match fill.live == 0 || sparse {
                true if !stop() => inner.containers.empty(fill.id, needed)?,
                _ => None,
            };
            let Some(done) = empty else {
                collected.left += dead;
                continue;
            };
            collected.chunks += done.freed;
            collected.moved += done.moved;
            lengths += fill.length;
            emptied.insert(fill.id);
        }
        collected.containers += emptied.len() as u64;
        inner.containers.remove(&emptied)?;
        collected.freed = lengths.saturating_sub(collected.moved);
        Ok(collected)
    }

    /// Reads every sealed container, compares the checksums of all chunks, and looks up every
    /// chunk of every generation. `pace` is called behind each container with the bytes read; it
    /// may wait, and ends the check when it says false.
    ///
    /// # Errors
    /// The disk does not answer. Damage is no error.
    pub fn check(&self, pace: &mut dyn FnMut(u64) -> bool) -> Result<Checked> {
        let inner = &self.0;
        let mut checked = Checked::default();
        for fill in inner.containers.fills(0)? {
            match inner.containers.scrub(fill, &mut checked.damage) {
                Ok((chunks, bytes)) => {
                    checked.chunks += chunks;
                    checked.bytes += bytes;
                }
                // It was collected meanwhile.
                Err(error) if error.is_gone() => continue,
                Err(error) => return Err(error),
            }
            checked.containers += 1;
            if !pace(fill.length) {
                break;
            }
        }
        (checked.incomplete, checked.lost) = self.lost()?;
        Ok(checked)
    }

    /// The generations that need a chunk that is not there, and these chunks: each once, and only
    /// the first [`LOST_MAX`].
    ///
    /// # Errors
    /// The disk does not answer. Damage is no error.
    pub fn lost(&self) -> Result<(Vec<GenerationId>, Vec<Digest>)> {
        let (mut incomplete, mut lost) = (Vec::new(), BTreeSet::new());
        for info in self.all_generations() {
            let Ok((recipe, _pin)) = self.0.recipe(info.id) else { continue };
            match self.0.lacks(&recipe, &mut lost) {
                Ok(false) => {}
                Ok(true) => incomplete.push(info.id),
                Err(error) if error.is_damage() => incomplete.push(info.id),
                Err(error) => return Err(error),
            }
        }
        Ok((incomplete, lost.into_iter().collect()))
    }
}

impl Inner {
    /// Stamps what sealed generations name.
    fn stamp_sealed(self: &Arc<Self>) -> Result<()> {
        let listed = self.sealed();
        if let Some(path) = self.damaged_recipes()?.into_iter().next() {
            return Err(StoreError::NotCollected(path));
        }
        for id in listed {
            let (recipe, _pin) = match self.recipe(id) {
                Ok(found) => found,
                // It was deleted meanwhile.
                Err(StoreError::NoGeneration(_)) => continue,
                Err(_) => {
                    let path = self.recipes().join(crate::recipe::file_name(id));
                    return Err(StoreError::NotCollected(path));
                }
            };
            let path = || self.recipes().join(crate::recipe::file_name(id));
            for i in 0..recipe.chunks.len() {
                let entry = recipe.chunks.get(i).map_err(|_| StoreError::NotCollected(path()))?;
                self.containers.have(&entry.chunk.digest)?;
            }
        }
        Ok(())
    }

    /// Stamps what open generations name whose image is not open; an open image has a hold.
    fn stamp_open(self: &Arc<Self>) -> Result<()> {
        for (id, path) in self.journals()? {
            match self.open_layout(id) {
                Ok(Some(layout)) => self.stamp(&layout)?,
                // Sealed, or taken by an image, meanwhile or before.
                Ok(None) => {}
                Err(error) if error.is_gone() || !self.is_idle(id) => {}
                Err(_) => return Err(StoreError::NotCollected(path)),
            }
        }
        Ok(())
    }

    /// Stamps the chunks that a layout has behind those of its base.
    pub(crate) fn stamp(&self, layout: &Layout) -> Result<()> {
        for i in layout.chunks.own_from()..layout.chunks.len() {
            self.containers.have(&layout.chunks.get(i)?.chunk.digest)?;
        }
        Ok(())
    }

    /// The layout of an open generation that no image has; `None` if one has it, or it is sealed.
    fn open_layout(self: &Arc<Self>, id: GenerationId) -> Result<Option<Layout>> {
        if !self.is_idle(id) {
            return Ok(None);
        }
        let path = self.journal_path(id);
        let file = self.vfs.open(&path)?;
        let unusable = || StoreError::Damaged { path: path.clone(), what: "it can not be used" };
        let journal::Found::Open(inspected) = journal::inspect(id, file.as_ref())? else {
            return Err(unusable());
        };
        let base = inspected.header.parent.map(|id| self.recipe(id)).transpose()?;
        let recipe = base.as_ref().map(|(recipe, _)| recipe);
        let mut layout = layout_of(recipe, self.params(), &self.scratch);
        match journal::replay(&inspected, file.as_ref(), &mut layout)? {
            Some(()) => Ok(Some(layout)),
            None => Err(unusable()),
        }
    }

    /// Whether a chunk of the generation is not here; which, as far as there is room in `lost`.
    fn lacks(&self, recipe: &Recipe, lost: &mut BTreeSet<Digest>) -> Result<bool> {
        let mut lacks = false;
        for i in 0..recipe.chunks.len() {
            let chunk = recipe.chunks.get(i)?.chunk;
            if self.containers.lookup(&chunk.digest)?.is_none_or(|at| at.raw_len != chunk.len) {
                lacks = true;
                if lost.len() < LOST_MAX {
                    lost.insert(chunk.digest);
                }
            }
        }
        Ok(lacks)
    }
}
