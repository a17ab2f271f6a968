//! Chunks of a batch, put into packs: each gap as a difference to its old bytes, which were read
//! and compared when the batch was planned. Where little is left of a gap it is kept until then.

use std::borrow::Cow;
use std::io;
use std::ops::Range;

use link::{Difference, OLD_TAIL, PACK_MAX, Pack, PackForm};
use store::{ChunkRef, Encoding, Recipes, Result as StoreResult, Store, StoreError, side_by_side};

/// So many gaps of a pack are worth another thread.
const GAPS_WORTH: usize = 2;

/// A run of the base's chunks (first, count), and their bytes.
pub(super) type Old = (u64, u64, u64);

/// A chunk of a batch.
struct Planned {
    chunk: ChunkRef,
    /// The gap whose old bytes help with it.
    gap: Option<usize>,
}

/// A gap that is told by old bytes.
struct Gap {
    /// Indices among the batch's old ranges.
    ranges: Range<u32>,
    /// Of the old ranges, and of its chunks.
    old_bytes: usize,
    raw_bytes: usize,
    /// All of its chunks go at once, as this.
    kept: Option<Difference>,
}

/// What the packs of a batch are made of.
#[derive(Default)]
pub(super) struct Plan {
    chunks: Vec<Planned>,
    gaps: Vec<Gap>,
    /// Runs of the base's chunks.
    olds: Vec<(u64, u64)>,
}

impl Plan {
    /// Enters the chunks of a gap, which are the next of the batch; with the old bytes that tell
    /// them, if they do, and how, if all of them go at once.
    pub(super) fn add(&mut self, chunks: &[ChunkRef], told: Option<(Option<Difference>, &[Old])>) {
        let gap = told.map(|(kept, olds)| {
            let first = self.olds.len() as u32;
            self.olds.extend(olds.iter().map(|(first, count, _)| (*first, *count)));
            self.gaps.push(Gap {
                ranges: first..self.olds.len() as u32,
                old_bytes: olds.iter().map(|(_, _, bytes)| *bytes as usize).sum(),
                raw_bytes: length(chunks),
                kept,
            });
            self.gaps.len() - 1
        });
        self.chunks.extend(chunks.iter().map(|chunk| Planned { chunk: *chunk, gap }));
    }

    /// Gaps whose difference waits for its pack.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.gaps.iter().filter(|gap| gap.kept.is_some()).count()
    }

    fn gap(&self, gap: Option<usize>) -> Option<&Gap> {
        self.gaps.get(gap?)
    }

    /// The runs of the base that tell a gap.
    fn ranges(&self, gap: &Gap) -> impl DoubleEndedIterator<Item = (u64, u64)> {
        let ranges = gap.ranges.start as usize..gap.ranges.end as usize;
        self.olds.get(ranges).unwrap_or_default().iter().copied()
    }
}

pub(super) fn length(chunks: &[ChunkRef]) -> usize {
    chunks.iter().map(|chunk| chunk.len as usize).sum()
}

/// Why chunks could not be put into a pack.
#[derive(Debug, thiserror::Error)]
pub(super) enum PackingError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It can be sent without the base.
    #[error("the base can not be read: {0}")]
    Base(StoreError),
    #[error("a pack can not be compressed: {0}")]
    Compression(#[from] io::Error),
    #[error("a pack of a batch that was not made")]
    NoPlan,
}

/// How a gap is told by its old bytes.
pub(super) struct Told {
    /// About so many bytes are left.
    pub(super) left: usize,
    pub(super) difference: Difference,
}

/// Chunks of a pack that have the same old bytes, or none.
struct Group {
    gap: Option<usize>,
    chunks: Vec<ChunkRef>,
    /// Where its old bytes begin among those of the pack.
    start: usize,
}

/// A pack under way.
#[derive(Default)]
struct Filling {
    indices: Vec<u32>,
    groups: Vec<Group>,
    bytes: usize,
    old_bytes: usize,
    /// Whether it is left as it is; the first chunk decides.
    plain: Option<bool>,
}

impl Filling {
    /// Whether a chunk goes in; what is kept of a gap is not taken apart.
    fn has_room(&self, plan: &Plan, planned: &Planned) -> bool {
        let enters = self.groups.last().is_none_or(|group| group.gap != planned.gap);
        let gap = plan.gap(planned.gap).filter(|_| enters);
        let kept = gap.filter(|gap| gap.kept.is_some()).map_or(0, |gap| gap.raw_bytes);
        self.bytes + kept.max(planned.chunk.len as usize) <= PACK_MAX
            && self.old_bytes + gap.map_or(0, |gap| gap.old_bytes) <= PACK_MAX
    }

    fn add(&mut self, plan: &Plan, index: u32, planned: &Planned) {
        self.indices.push(index);
        self.bytes += planned.chunk.len as usize;
        match self.groups.last_mut().filter(|group| group.gap == planned.gap) {
            Some(group) => group.chunks.push(planned.chunk),
            None => {
                let start = self.old_bytes;
                self.old_bytes += plan.gap(planned.gap).map_or(0, |gap| gap.old_bytes);
                self.groups.push(Group { gap: planned.gap, chunks: vec![planned.chunk], start });
            }
        }
    }

    /// Indices of the old ranges.
    fn olds(&self, plan: &Plan) -> Vec<u32> {
        let gaps = self.groups.iter().filter_map(|group| plan.gap(group.gap));
        gaps.flat_map(|gap| gap.ranges.clone()).collect()
    }

    fn chunks(&self) -> Vec<ChunkRef> {
        self.groups.iter().flat_map(|group| &group.chunks).copied().collect()
    }
}

/// What gaps are compared and packs are made with.
#[derive(Clone, Copy)]
pub(super) struct Packing<'a> {
    pub(super) store: &'a Store,
    pub(super) base: Option<&'a Recipes>,
    /// Of zstd, for what is new.
    pub(super) level: i32,
}

impl Packing<'_> {
    /// The chunks as a difference to the old bytes, `None` if that does not pay.
    pub(super) fn told_by(&self, chunks: &[ChunkRef], olds: &[Old]) -> StoreResult<Option<Told>> {
        let old_bytes: u64 = olds.iter().map(|(_, _, bytes)| *bytes).sum();
        if chunks.is_empty() || old_bytes == 0 || old_bytes > PACK_MAX as u64 {
            return Ok(None);
        }
        let stored = self.stored(chunks)?;
        let ranges = olds.iter().map(|(first, count, _)| (*first, *count));
        let difference = match self.difference(chunks, ranges) {
            Ok(difference) => difference,
            Err(PackingError::Store(error)) => return Err(error),
            // Without old bytes that can be read it is told without them.
            Err(_) => return Ok(None),
        };
        let left = link::left(&difference).ok().filter(|left| *left < stored - stored / 8);
        Ok(left.map(|left| Told { left, difference }))
    }

    /// Bytes of the chunks as they are stored.
    pub(super) fn stored(&self, chunks: &[ChunkRef]) -> StoreResult<usize> {
        let stored = |chunk| Ok(self.store.form(chunk)?.1 as usize);
        chunks.iter().map(stored).sum()
    }

    /// The chunks told by these runs of the base.
    fn difference(
        &self,
        chunks: &[ChunkRef],
        olds: impl Iterator<Item = (u64, u64)>,
    ) -> Result<Difference, PackingError> {
        let (raw, mut old) = (self.raw(chunks)?, Vec::new());
        for range in olds {
            self.read_old(range, &mut old).map_err(PackingError::Base)?;
        }
        Ok(Difference::of(&old, &raw))
    }

    fn read_old(&self, (first, count): (u64, u64), out: &mut Vec<u8>) -> StoreResult<()> {
        let Some(base) = self.base else { return Ok(()) };
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let chunks = base.chunks(first).take(count).collect::<StoreResult<Vec<_>>>()?;
        self.store.chunks(&chunks, out)
    }

    /// A pack of some of these chunks of a batch, from the first on.
    pub(super) fn pack(&self, plan: &Plan, asked: &[u32]) -> Result<Pack, PackingError> {
        let mut filling = Filling::default();
        for index in asked {
            let planned = plan.chunks.get(*index as usize).ok_or(PackingError::NoPlan)?;
            if !filling.has_room(plan, planned) {
                break;
            }
            // What does not compress is not tried again.
            let raw = self.store.form(&planned.chunk)?.0 == Encoding::Raw;
            let plain = raw && planned.gap.is_none();
            if *filling.plain.get_or_insert(plain) == plain {
                filling.add(plan, *index, planned);
            }
        }
        let olds = filling.olds(plan);
        let told = match olds.is_empty() {
            false => Some(self.told(plan, &filling)?).filter(|it| it.len() < filling.bytes),
            true => None,
        };
        let (form, bytes) = match (told, olds.is_empty() && filling.plain != Some(true)) {
            (Some(bytes), _) => (PackForm::Delta, bytes),
            (None, true) => link::pack(&[], &self.raw(&filling.chunks())?, self.level)?,
            (None, false) => (PackForm::Plain, self.raw(&filling.chunks())?.into()),
        };
        let olds = if form == PackForm::Delta { olds } else { Vec::new() };
        let proof = link::proof(filling.chunks().iter().map(|chunk| &chunk.digest));
        Ok(Pack { chunks: filling.indices, olds, form, proof, bytes })
    }

    fn raw(&self, chunks: &[ChunkRef]) -> StoreResult<Vec<u8>> {
        let mut raw = Vec::with_capacity(length(chunks));
        self.store.chunks(chunks, &mut raw)?;
        Ok(raw)
    }

    /// The pack as a difference to its old bytes.
    fn told(&self, plan: &Plan, filling: &Filling) -> Result<bytes::Bytes, PackingError> {
        let parts = side_by_side(&filling.groups, GAPS_WORTH, |group| self.part(plan, group));
        let parts = parts.into_iter().collect::<Result<Vec<_>, _>>()?;
        let starts = filling.groups.iter().map(|group| group.start);
        let parts: Vec<_> = starts.zip(parts.iter().map(AsRef::as_ref)).collect();
        let tail = self.old_tail(plan, filling)?;
        Ok(link::pack_differences(&tail, &parts, self.level)?)
    }

    fn part<'a>(&self, plan: &'a Plan, group: &Group) -> Result<Cow<'a, Difference>, PackingError> {
        let gap = plan.gap(group.gap);
        if let Some(kept) = gap.and_then(|gap| gap.kept.as_ref()) {
            return Ok(Cow::Borrowed(kept));
        }
        match gap {
            Some(gap) => self.difference(&group.chunks, plan.ranges(gap)).map(Cow::Owned),
            None => Ok(Cow::Owned(Difference::whole(self.raw(&group.chunks)?))),
        }
    }

    /// The last old bytes of the pack, enough to say the literals with.
    fn old_tail(&self, plan: &Plan, filling: &Filling) -> Result<Vec<u8>, PackingError> {
        let mut tail = Vec::new();
        let gaps = filling.groups.iter().rev().filter_map(|group| plan.gap(group.gap));
        for range in gaps.flat_map(|gap| plan.ranges(gap).rev()) {
            if tail.len() >= OLD_TAIL {
                break;
            }
            let mut old = Vec::new();
            self.read_old(range, &mut old).map_err(PackingError::Base)?;
            old.append(&mut tail);
            tail = old;
        }
        Ok(tail)
    }
}
