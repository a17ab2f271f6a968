//! What a generation consists of, told in batches.
//!
//! Between two runs of chunks that the base has too lies a *gap* of new ones, and between the same
//! two runs in the base lies what they were before: the old bytes. If little is left of the new
//! ones as a difference to the old, they go without being asked for; so do the first of those that
//! were new here as well.

use std::collections::BTreeMap;

use link::{Chunk, Difference, Entry, Offer, Pack, Segment};
use model::GenerationId;
use store::{ChunkRef, Compare, GenerationInfo, ObjectRun, Piece, Recipes, Standing, Store};
use store::{Result as StoreResult, StoreError, side_by_side};

use super::packing::{Packing, PackingError, Plan, length};

/// Chunks of one batch: about 16 MiB of data, so that wants come back while more is offered.
const BATCH_CHUNKS: usize = 1024;
/// Entries of a batch that are left for what is under way when it is full.
const ENTRIES_SPARE: usize = 2 * GAP_ITEMS;
/// A longer gap is looked at in parts: so many bytes, so many chunks and repetitions.
const GAP_BYTES: u64 = 1 << 20;
const GAP_ITEMS: usize = 256;
/// Old bytes taken beyond the length of the new ones, and before the run that follows them.
const OLD_MARGIN: u64 = 64 << 10;
/// A chunk of which so little is left goes without being asked for. To ask costs 32 bytes and
/// seldom helps, so it is worth it only for more.
const FRESH_MAX: usize = 256;

/// So much of a difference is kept for each chunk until its pack is made: a MiB for a batch.
const KEPT_MAX: usize = 1 << 10;

/// So many bytes of a generation, in the form in which they go, are sent without being asked for
/// where they were new here and so are likely to be new there: that spares a small generation the
/// round trip, in which the link would lie idle. What is not new there is sent in vain, once.
const UNASKED_MAX: u64 = 1 << 20;

/// When so many new bytes in a row had nothing in common with the old ones, as those of an alien
/// base, only one of some gaps without a run beside is compared.
const VAIN: u64 = 16 << 20;
const VAIN_STEP: usize = 8;

/// So many parts of a batch are worth another thread.
const PARTS_WORTH: usize = 8;

/// Of a generation that is being written a batch is made of so many bytes at least.
const STEP: u64 = 8 << 20;

/// What comes next of a recipe.
pub(super) enum Batch {
    /// A part of it.
    Offer(Offer),
    /// It is being written, and there is not enough yet.
    Later,
    /// That was all.
    End(GenerationInfo),
    /// What was offered is not how it ended.
    Lost,
}

/// Reads a recipe in batches.
pub(super) struct RecipeReader<'a> {
    store: &'a Store,
    generation: GenerationId,
    /// Of zstd, for what is new.
    level: i32,
    compare: Option<Compare>,
    base: Option<Recipes>,
    /// A piece that was read and belongs behind what is under way.
    next: Option<Piece>,
    /// Where in the base the old bytes of the gap under way begin.
    old_at: u64,
    /// Objects that were offered.
    objects: u64,
    /// New bytes since the last gap that was compared with success.
    vain: u64,
    /// New bytes of all batches, and how many of the generation's were new in this store.
    new: u64,
    new_here: u64,
    /// What may still be sent without being asked for because it was new here.
    unasked: u64,
    next_sequence: u32,
    plans: BTreeMap<u32, Plan>,
}

/// What comes before the next run, or a part of it.
#[derive(Default)]
struct Gap {
    /// Chunks, all of them named, and repetitions.
    items: Vec<Entry>,
    chunks: Vec<ChunkRef>,
    /// Runs of the base that may be what it was before, and their bytes.
    olds: Vec<(u64, u64, u64)>,
}

impl Gap {
    fn bytes(&self) -> u64 {
        length(&self.chunks) as u64
    }
}

/// A piece of a batch.
enum Part {
    Run(Entry),
    Gap(Gap),
}

/// A batch under way.
#[derive(Default)]
struct Making {
    parts: Vec<Part>,
    entries: usize,
    chunks: usize,
    ranges: u64,
}

impl Making {
    fn has_room(&self) -> bool {
        self.entries + ENTRIES_SPARE < link::OFFER_ENTRIES_MAX
            && self.chunks < BATCH_CHUNKS
            && self.ranges < link::OFFER_RANGES_MAX
    }

    fn add(&mut self, part: Part) {
        match &part {
            Part::Run(_) => self.entries += 1,
            Part::Gap(gap) => {
                self.entries += gap.items.len() + gap.olds.len();
                self.chunks += gap.chunks.len();
            }
        }
        self.parts.push(part);
    }

    /// Adds a run or a repetition as far as there is room for it; what is left of it.
    fn range(&mut self, first: u64, count: u64) -> (u64, Option<(u64, u64)>) {
        let now = count.min(link::OFFER_RANGES_MAX - self.ranges);
        self.ranges += now;
        (now, (now < count).then_some((first + now, count - now)))
    }
}

impl<'a> RecipeReader<'a> {
    pub(super) fn new(store: &'a Store, generation: GenerationId, level: i32) -> Self {
        Self {
            store,
            generation,
            level,
            compare: None,
            base: None,
            next: None,
            old_at: 0,
            objects: 0,
            vain: 0,
            new: 0,
            // Of one that is being written it is not known, and there is time to ask.
            new_here: store.generation(generation).map_or(0, |info| info.unique_bytes),
            unasked: UNASKED_MAX,
            next_sequence: 0,
            plans: BTreeMap::new(),
        }
    }

    /// The next batch. `base` is what it is told by, the same each time; of the batches before
    /// `oldest` no more packs are made.
    pub(super) fn batch(&mut self, base: Option<GenerationId>, oldest: u32) -> StoreResult<Batch> {
        let compare = match &mut self.compare {
            Some(compare) => compare,
            None => {
                self.base = base.map(|id| self.store.recipe(id)).transpose()?;
                match self.store.compare(self.generation, base) {
                    Err(StoreError::NoGeneration(_)) => return Ok(Batch::Lost),
                    compare => self.compare.insert(compare?),
                }
            }
        };
        let standing = compare.advance(self.objects)?;
        match standing {
            Standing::Lost => return Ok(Batch::Lost),
            Standing::Open if self.next.is_none() && compare.waiting()? < STEP => {
                return Ok(Batch::Later);
            }
            Standing::Open | Standing::Sealed(_) => {}
        }
        let segments = self.segments(standing == Standing::Open)?;
        let mut making = Making::default();
        while making.has_room() && self.piece(&mut making)? {}
        let (entries, plan) = self.planned(making.parts)?;
        if segments.is_empty() && entries.is_empty() {
            return Ok(match standing {
                Standing::Sealed(info) => Batch::End(info),
                _ => Batch::Later,
            });
        }
        self.plans = self.plans.split_off(&oldest);
        self.plans.insert(self.next_sequence, plan);
        self.next_sequence += 1;
        Ok(Batch::Offer(Offer { segments, entries }))
    }

    /// The next runs of objects. Of what is `open` not the last one, which may still grow or be
    /// written over, as the filemarks at the end of a backup are.
    fn segments(&mut self, open: bool) -> StoreResult<Vec<Segment>> {
        let Some(compare) = &self.compare else { return Ok(Vec::new()) };
        let runs = compare.runs(self.objects).take(link::OFFER_SEGMENTS_MAX + usize::from(open));
        let mut runs = runs.collect::<StoreResult<Vec<_>>>()?;
        if open {
            runs.pop();
        }
        self.objects += runs.iter().map(ObjectRun::count).sum::<u64>();
        let segment = |run| match run {
            ObjectRun::Records { size, count } => Segment::Records { size, count },
            ObjectRun::Filemarks { count } => Segment::Filemarks(count),
        };
        Ok(runs.into_iter().map(segment).collect())
    }

    fn read(&mut self) -> StoreResult<Option<Piece>> {
        match (self.next.take(), &mut self.compare) {
            (Some(piece), _) => Ok(Some(piece)),
            (None, Some(compare)) => compare.next().transpose(),
            (None, None) => Ok(None),
        }
    }

    /// Adds a run, or a gap or a part of one; false at the end.
    fn piece(&mut self, making: &mut Making) -> StoreResult<bool> {
        match self.read()? {
            None => return Ok(false),
            Some(Piece::Run { first, count }) => {
                let (now, rest) = making.range(first, count);
                making.add(Part::Run(Entry::Run { first, count: now }));
                self.old_at = first + now;
                self.next = rest.map(|(first, count)| Piece::Run { first, count });
            }
            Some(piece) => {
                self.next = Some(piece);
                let gap = self.gap(making)?;
                making.add(Part::Gap(gap));
            }
        }
        Ok(true)
    }

    /// What comes before the next run, or a part of it.
    fn gap(&mut self, making: &mut Making) -> StoreResult<Gap> {
        let (mut gap, mut bytes) = (Gap::default(), 0u64);
        let mut before = None;
        while bytes < GAP_BYTES && gap.items.len() < GAP_ITEMS {
            match self.read()? {
                None => break,
                Some(Piece::Chunk(chunk)) => {
                    bytes += u64::from(chunk.len);
                    gap.chunks.push(chunk);
                    gap.items.push(Entry::Chunk(named(chunk)));
                }
                Some(Piece::Again { first, count }) => {
                    let (now, rest) = making.range(first, count);
                    if now > 0 {
                        gap.items.push(Entry::Again { first, count: now });
                    }
                    self.next = rest.map(|(first, count)| Piece::Again { first, count });
                    if rest.is_some() {
                        break;
                    }
                }
                Some(Piece::Run { first, count }) => {
                    self.next = Some(Piece::Run { first, count });
                    before = Some(first);
                    break;
                }
            }
        }
        gap.olds = self.olds(bytes, before)?;
        let beside = before.is_some() || matches!(making.parts.last(), Some(Part::Run(_)));
        if self.vain >= VAIN && !beside && !making.parts.len().is_multiple_of(VAIN_STEP) {
            gap.olds.clear();
        }
        Ok(gap)
    }

    /// How these are told, and what packs are made of for them. What is left of the gaps is found
    /// out side by side.
    fn planned(&mut self, parts: Vec<Part>) -> StoreResult<(Vec<Entry>, Plan)> {
        let packing = self.packing();
        let told = side_by_side(&parts, PARTS_WORTH, |part| match part {
            Part::Gap(gap) => packing.told_by(&gap.chunks, &gap.olds),
            Part::Run(_) => Ok(None),
        });
        let unasked = self.likely_new(&parts);
        let (mut entries, mut plan) = (Vec::new(), Plan::default());
        for (part, told) in parts.into_iter().zip(told) {
            let (gap, told) = match part {
                Part::Run(run) => {
                    entries.push(run);
                    continue;
                }
                Part::Gap(gap) => (gap, told?),
            };
            let bytes = gap.bytes();
            self.vain = if told.is_some() { 0 } else { self.vain.saturating_add(bytes) };
            let left = told.as_ref().map(|told| told.left);
            if told.is_some() {
                let range = |(first, count, _): &(u64, u64, u64)| (*first, *count);
                entries.extend(
                    gap.olds.iter().map(range).map(|(first, count)| Entry::Old { first, count }),
                );
            }
            let little = left.is_some_and(|left| left <= FRESH_MAX * gap.chunks.len());
            let fresh = little || unasked && self.goes_unasked(&gap.chunks, left)?;
            let keeps = |it: &Difference| little && it.size() <= KEPT_MAX * gap.chunks.len();
            let told = told.map(|told| (Some(told.difference).filter(keeps), &gap.olds[..]));
            plan.add(&gap.chunks, told);
            entries.extend(gap.items.into_iter().map(|item| match item {
                Entry::Chunk(chunk) if fresh => Entry::Fresh(chunk.length),
                item => item,
            }));
        }
        Ok((entries, plan))
    }

    /// Whether what is new in a batch was so when it was written here, nearly all of it.
    fn likely_new(&mut self, parts: &[Part]) -> bool {
        let gaps = parts.iter().filter_map(|part| match part {
            Part::Gap(gap) => Some(gap.bytes()),
            Part::Run(_) => None,
        });
        self.new += gaps.sum::<u64>();
        // A first generation may be there already: it came with a seed, or over a link that broke.
        let at_most = self.base.is_some() || self.new_here <= UNASKED_MAX;
        at_most && self.unasked > 0 && self.new_here >= self.new - self.new / 4
    }

    /// Whether chunks that are likely to be new at the other side go without being asked for, of
    /// which so much is left as a difference.
    fn goes_unasked(&mut self, chunks: &[ChunkRef], left: Option<usize>) -> StoreResult<bool> {
        let cost = match left {
            Some(left) => left as u64,
            None => self.packing().stored(chunks)? as u64,
        };
        let fits = cost <= self.unasked;
        self.unasked -= if fits { cost } else { 0 };
        Ok(fits)
    }

    /// Runs of the base that may be what so many bytes were before, and their bytes: those behind
    /// the run before, and some before the run that follows.
    fn olds(&mut self, bytes: u64, before: Option<u64>) -> StoreResult<Vec<(u64, u64, u64)>> {
        let Some(base) = &self.base else { return Ok(Vec::new()) };
        let between = before.filter(|before| *before >= self.old_at);
        let (first, mut end, mut taken) = (self.old_at, self.old_at, 0);
        let mut advanced = self.old_at;
        while taken < bytes + OLD_MARGIN && between.is_none_or(|before| end < before) {
            let Some(chunk) = base.chunk(end)? else { break };
            end += 1;
            taken += u64::from(chunk.len);
            if taken <= bytes {
                advanced = end;
            }
        }
        let mut olds = vec![(first, end - first, taken)];
        if let Some(before) = before.filter(|before| *before > end || *before < first) {
            let (mut first, mut taken) = (before, 0);
            let lowest = if before > end { end } else { 0 };
            while taken < OLD_MARGIN && first > lowest {
                let Some(chunk) = base.chunk(first - 1)? else { break };
                first -= 1;
                taken += u64::from(chunk.len);
            }
            olds.push((first, before - first, taken));
        }
        self.old_at = advanced;
        olds.retain(|(_, count, _)| *count > 0);
        // What follows a run in the base comes before what precedes another: not always.
        olds.sort_unstable();
        Ok(olds)
    }

    fn packing(&self) -> Packing<'_> {
        Packing { store: self.store, base: self.base.as_ref(), level: self.level }
    }

    /// A pack of some of these chunks of a batch, from the first on.
    pub(super) fn pack(&self, sequence: u32, asked: &[u32]) -> Result<Pack, PackingError> {
        let plan = self.plans.get(&sequence).ok_or(PackingError::NoPlan)?;
        self.packing().pack(plan, asked)
    }
}

fn named(chunk: ChunkRef) -> Chunk {
    Chunk { digest: chunk.digest, length: chunk.len }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use model::{CartridgeId, Ulid};
    use store::Options;

    use super::*;

    /// Bytes that do not compress.
    fn random(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (mixed ^ mixed >> 27).to_le_bytes()[3]
        };
        std::iter::repeat_with(&mut next).take(len).collect()
    }

    fn store() -> Store {
        let vfs = Arc::new(vfs::CrashVfs::new());
        Store::open(vfs, Path::new("/s"), &Options::default()).unwrap().0
    }

    /// A new generation, in place of what is on the cartridge.
    fn write(store: &Store, cartridge: u128, bytes: &[u8]) -> GenerationId {
        let mut image = store.image(CartridgeId(Ulid(cartridge))).unwrap();
        bytes.chunks(64 << 10).for_each(|record| image.write(record).unwrap());
        image.seal().unwrap().unwrap()
    }

    /// Bytes of the chunks that go at once, and of those that are asked for.
    fn told(store: &Store, generation: GenerationId) -> (u64, u64) {
        let mut reader = RecipeReader::new(store, generation, 3);
        let (mut fresh, mut named, mut sequence) = (0, 0, 0);
        loop {
            match reader.batch(None, sequence).unwrap() {
                Batch::Offer(offer) => {
                    let chunks: Vec<_> = offer.chunks().collect();
                    let all: Vec<u32> = (0..).take(chunks.len()).collect();
                    let pack = reader.pack(sequence, &all[..all.len().min(8)]).unwrap();
                    assert!(!pack.chunks.is_empty(), "each can be packed");
                    for (length, name) in chunks {
                        *if name.is_none() { &mut fresh } else { &mut named } += u64::from(length);
                    }
                    sequence += 1;
                }
                Batch::End(info) => {
                    assert_eq!(info.bytes, fresh + named);
                    return (fresh, named);
                }
                Batch::Later | Batch::Lost => panic!("it is sealed"),
            }
        }
    }

    #[test]
    fn a_little_that_was_new_here_goes_without_being_asked_for() {
        let store = store();
        let little = random(1, 300 << 10);
        let new = write(&store, 1, &little);
        assert_eq!(told(&store, new), (300 << 10, 0));
        let again = write(&store, 2, &little);
        assert_eq!(told(&store, again), (0, 300 << 10), "it was here, so it may be there");
        let mostly_old = [&little[..], &random(2, 20 << 10)].concat();
        let mixed = write(&store, 3, &mostly_old);
        assert_eq!(told(&store, mixed).0, 0);
        let much = write(&store, 4, &random(3, 5 << 20));
        assert_eq!(told(&store, much), (0, 5 << 20), "it may have come with a seed");
    }

    /// The receiver's side of a transfer, which has the base: every pack undone.
    struct Undone<'a> {
        store: &'a Store,
        base: Recipes,
        chunks: Vec<Vec<u8>>,
        /// Packs that are a difference to old bytes.
        deltas: usize,
    }

    impl Undone<'_> {
        fn old(&self, (first, count): (u64, u64)) -> Vec<u8> {
            let chunks: Vec<_> = (first..first + count)
                .map(|index| self.base.chunk(index).unwrap().unwrap())
                .collect();
            let mut old = Vec::new();
            self.store.chunks(&chunks, &mut old).unwrap();
            old
        }

        /// Takes the packs of a batch; of the chunks that are asked for only every other is wanted.
        fn batch(&mut self, reader: &RecipeReader<'_>, sequence: u32, offer: &Offer) {
            let chunks: Vec<_> = offer.chunks().collect();
            let olds: Vec<_> = offer.olds().collect();
            let wants =
                |(n, it): &(u32, &(u32, Option<model::Digest>))| it.1.is_none() || n % 2 == 0;
            let wanted = (0..).zip(&chunks).filter(wants);
            let mut wanted: std::collections::BTreeSet<u32> = wanted.map(|(n, _)| n).collect();
            let mut unpacked = BTreeMap::new();
            while !wanted.is_empty() {
                let asked: Vec<u32> = wanted.iter().copied().collect();
                let pack = reader.pack(sequence, &asked).unwrap();
                assert!(pack.chunks.iter().all(|index| wanted.remove(index)));
                self.deltas += usize::from(pack.form == link::PackForm::Delta);
                let old = pack.olds.iter().map(|index| self.old(olds[*index as usize]));
                let old = old.collect::<Vec<_>>().concat();
                let told: Vec<_> = pack.chunks.iter().map(|n| chunks[*n as usize]).collect();
                let raw = link::unpack(&told, pack.form, (&old, &pack.bytes), &pack.proof).unwrap();
                unpacked.extend(pack.chunks.iter().copied().zip(raw));
            }
            let mut index = 0;
            for entry in &offer.entries {
                match entry {
                    Entry::Run { first, count } => {
                        let run = (*first..first + count).map(|index| self.old((index, 1)));
                        self.chunks.extend(run.collect::<Vec<_>>());
                    }
                    Entry::Again { first, count } => {
                        let all = *first as usize..(first + count) as usize;
                        all.for_each(|index| self.chunks.push(self.chunks[index].clone()));
                    }
                    Entry::Old { .. } => {}
                    Entry::Chunk(_) | Entry::Fresh(_) => {
                        let raw = match (unpacked.get(&index), entry) {
                            (Some((_, raw)), _) => raw.to_vec(),
                            (None, Entry::Chunk(chunk)) => {
                                self.store.chunk(&chunk.digest).unwrap().to_vec()
                            }
                            other => panic!("it did not come: {other:?}"),
                        };
                        self.chunks.push(raw);
                        index += 1;
                    }
                }
            }
        }
    }

    /// Little changes, as a night makes them, larger ones that are half new, and what is all new.
    fn changed(bytes: &[u8], seed: u64) -> Vec<u8> {
        let mut new = bytes.to_vec();
        (0..new.len()).step_by(60_007).for_each(|at| new[at] ^= 0x55);
        for (n, at) in (100_000..new.len() - 80_000).step_by(1_700_003).enumerate() {
            let fresh = random(seed + n as u64, 400);
            (0..80_000)
                .step_by(1000)
                .for_each(|i| new[at + i..at + i + 400].copy_from_slice(&fresh));
        }
        let middle = new.len() / 2;
        let inserted = [random(seed ^ 1, 500_000), vec![7; 300_000]].concat();
        new.splice(middle..middle, inserted);
        new
    }

    #[test]
    fn packs_of_differences_kept_and_made_anew_give_the_generation() {
        let store = store();
        let before = random(5, 24 << 20);
        let base = write(&store, 1, &before);
        let after = changed(&before, 77);
        let generation = write(&store, 1, &after);
        let recipe = store.recipe(base).unwrap();
        let mut undone = Undone { store: &store, base: recipe, chunks: Vec::new(), deltas: 0 };
        let mut reader = RecipeReader::new(&store, generation, 3);
        let mut kept = 0;
        for sequence in 0.. {
            match reader.batch(Some(base), sequence).unwrap() {
                Batch::Offer(offer) => {
                    kept += reader.plans[&sequence].kept();
                    undone.batch(&reader, sequence, &offer);
                }
                Batch::End(_) => break,
                Batch::Later | Batch::Lost => panic!("it is sealed"),
            }
        }
        assert!(kept > 20 && undone.deltas > 1, "{kept} kept, {} packs", undone.deltas);
        assert!(undone.chunks.concat() == after, "seeds 5, 77");
    }
}
