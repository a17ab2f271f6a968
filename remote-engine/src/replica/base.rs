//! The generation that another one is told by: its chunks, and their bytes, which packs are a
//! difference to. What offers name is read ahead of the packs, which take longer on their way.

use std::collections::VecDeque;

use link::{Offer, PACK_MAX};
use model::GenerationId;
use store::{ChunkRef, Recipes, Result as StoreResult, Store, StoreError, side_by_side};

/// So many chunks are read and verified by one thread.
const PART: usize = 64;
/// So many bytes are kept for packs to come.
const AHEAD_MAX: usize = 2 * PACK_MAX;
/// About so many chunks, of so many runs at most, are read before the next message is looked at.
const STEP: usize = 4 * PART;
/// Runs that wait to be read; those beyond are read when their pack comes.
const WAITING_MAX: usize = 16 << 10;

/// Chunks of the base: the first, and how many.
type Run = (u64, u64);

/// Why old bytes can not be had.
#[derive(Debug)]
pub(super) enum OldError {
    Store(StoreError),
    /// The peer is at fault.
    Wrong(&'static str),
}

impl From<StoreError> for OldError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What a generation is told by.
pub(super) struct Base {
    recipe: Recipes,
    store: Store,
    /// Offered and not read, in order.
    waiting: VecDeque<Run>,
    /// Read ahead, in the order in which they were offered.
    kept: VecDeque<(Run, Vec<u8>)>,
}

impl Base {
    pub(super) fn new(store: &Store, recipe: Recipes) -> Self {
        let store = store.clone();
        Self { recipe, store, waiting: VecDeque::new(), kept: VecDeque::new() }
    }

    pub(super) fn id(&self) -> GenerationId {
        self.recipe.info().id
    }

    /// Packs will come that are a difference to what this names.
    pub(super) fn offered(&mut self, offer: &Offer) {
        let room = WAITING_MAX.saturating_sub(self.waiting.len());
        self.waiting.extend(offer.olds().take(room));
    }

    /// Reads some of it; false if there is nothing to read or no room. What can not be read is
    /// told to the pack that wants it.
    pub(super) fn read_ahead(&mut self) -> bool {
        let kept: usize = self.kept.iter().map(|(_, bytes)| bytes.len()).sum();
        let (mut runs, mut chunks) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        for _ in 0..STEP {
            if kept + bytes >= AHEAD_MAX || chunks.len() >= STEP {
                break;
            }
            let Some(run) = self.waiting.pop_front() else { break };
            let mut some = Vec::new();
            if let Ok(length) = self.chunks(run, PACK_MAX, &mut some) {
                bytes += length;
                runs.push((run, length));
                chunks.append(&mut some);
            }
        }
        let Ok(read) = self.bytes(&chunks) else { return !self.waiting.is_empty() };
        let mut rest = &read[..];
        for (run, length) in runs {
            let (now, later) = rest.split_at(length.min(rest.len()));
            self.kept.push_back((run, now.to_vec()));
            rest = later;
        }
        bytes > 0
    }

    /// The bytes of these runs, at most 4 MiB.
    ///
    /// # Errors
    /// They are not there, too many, or damaged.
    pub(super) fn old(&mut self, runs: &[Run]) -> Result<Vec<u8>, OldError> {
        let (mut old, mut missing, mut left) = (Vec::new(), Vec::new(), PACK_MAX);
        for run in runs {
            match self.take(*run) {
                Some(kept) if kept.len() <= left => {
                    old.append(&mut self.bytes(&missing)?);
                    missing.clear();
                    left -= kept.len();
                    old.extend_from_slice(&kept);
                }
                _ => left -= self.chunks(*run, left, &mut missing)?,
            }
        }
        old.append(&mut self.bytes(&missing)?);
        Ok(old)
    }

    /// What was read of a run; what was offered before it is not waited for any more.
    fn take(&mut self, run: Run) -> Option<Vec<u8>> {
        if let Some(at) = self.kept.iter().position(|(kept, _)| *kept == run) {
            return self.kept.drain(..=at).next_back().map(|(_, bytes)| bytes);
        }
        if let Some(at) = self.waiting.iter().position(|waiting| *waiting == run) {
            self.waiting.drain(..=at);
        }
        None
    }

    /// Adds the chunks of a run, of so many bytes at most; how many bytes they have.
    fn chunks(
        &self,
        (first, count): Run,
        most: usize,
        out: &mut Vec<ChunkRef>,
    ) -> Result<usize, OldError> {
        let mut bytes = 0;
        for index in first..first.saturating_add(count) {
            let chunk = self.recipe.chunk(index)?;
            let chunk = chunk.ok_or(OldError::Wrong("old bytes beyond the end of the base"))?;
            bytes += chunk.len as usize;
            if bytes > most {
                return Err(OldError::Wrong("a pack is a difference to too much"));
            }
            out.push(chunk);
        }
        Ok(bytes)
    }

    fn bytes(&self, chunks: &[ChunkRef]) -> StoreResult<Vec<u8>> {
        let parts: Vec<_> = chunks.chunks(PART).collect();
        let read = |part: &&[ChunkRef]| {
            let mut bytes = Vec::new();
            self.store.chunks(part, &mut bytes).map(|()| bytes)
        };
        let mut all = Vec::new();
        for part in side_by_side(&parts, 1, read) {
            all.append(&mut part?);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use link::Entry;
    use model::{CartridgeId, Ulid};
    use store::Options;

    use super::*;

    /// A base of so many bytes, and all of them.
    fn base(len: usize) -> (Base, Vec<u8>) {
        let vfs = Arc::new(vfs::CrashVfs::new());
        let (store, _) = Store::open(vfs, Path::new("/s"), &Options::default()).unwrap();
        let word = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).to_le_bytes();
        let bytes: Vec<u8> = (1..=len as u64 / 8).flat_map(word).collect();
        let mut image = store.image(CartridgeId(Ulid(1))).unwrap();
        bytes.chunks(64 << 10).for_each(|record| image.write(record).unwrap());
        let id = image.seal().unwrap().unwrap();
        let recipe = store.recipe(id).unwrap();
        (Base::new(&store, recipe), bytes)
    }

    fn range(base: &Base, (first, count): Run) -> std::ops::Range<usize> {
        let length = |to: u64| {
            let chunks = base.recipe.chunks(0).take(to as usize);
            chunks.map(|chunk| chunk.unwrap().len as usize).sum()
        };
        length(first)..length(first + count)
    }

    fn offer(runs: &[Run]) -> Offer {
        let old = |(first, count): &Run| Entry::Old { first: *first, count: *count };
        Offer { segments: Vec::new(), entries: runs.iter().map(old).collect() }
    }

    #[test]
    fn old_bytes_are_the_same_whether_or_not_they_were_read_ahead() {
        let (mut base, bytes) = base(24 << 20);
        let all = base.recipe.info().chunks;
        let runs: Vec<Run> = (0..all / 20).map(|n| (n * 20, 7 + n % 9)).collect();
        base.offered(&offer(&runs));
        assert!(base.read_ahead());
        let mut wanted = runs.iter();
        let mut ahead = 0;
        // Some are passed over, as those of chunks that were not wanted.
        while let Some(pack) = wanted.next().and_then(|run| Some([*run, *wanted.nth(1)?])) {
            ahead += usize::from(base.kept.iter().any(|(kept, _)| *kept == pack[1]));
            let expected = pack.map(|run| &bytes[range(&base, run)]).concat();
            assert!(base.old(&pack).unwrap() == expected, "{pack:?}");
            if pack[0].0 % 3 == 0 {
                base.read_ahead();
            }
            let kept: usize = base.kept.iter().map(|(_, bytes)| bytes.len()).sum();
            assert!(kept < AHEAD_MAX + (STEP + 16) * (64 << 10));
        }
        assert!(ahead > 3, "{ahead} were read ahead");
        let backwards = [runs[9], runs[2]];
        let expected = backwards.map(|run| &bytes[range(&base, run)]).concat();
        assert!(base.old(&backwards).unwrap() == expected);
    }

    #[test]
    fn what_a_base_does_not_have_is_refused_and_not_read_ahead() {
        let (mut base, _) = base(6 << 20);
        let all = base.recipe.info().chunks;
        let hostile = [(all, 1), (0, u64::MAX), (u64::MAX - 1, 5), (0, all)];
        base.offered(&offer(&hostile));
        while base.read_ahead() {}
        assert!(base.kept.is_empty() && base.waiting.is_empty());
        // However many are told, no more than that are looked at, and not all at once.
        (0..9).for_each(|_| base.offered(&offer(&[(all, 1); 4096])));
        assert_eq!(base.waiting.len(), WAITING_MAX);
        assert!(!base.read_ahead());
        assert_eq!(base.waiting.len(), WAITING_MAX - STEP);
        for run in hostile {
            assert!(matches!(base.old(&[run]), Err(OldError::Wrong(_))), "{run:?}");
        }
        let half = (0, all / 2);
        assert!(base.old(&[half]).is_ok());
        assert!(matches!(base.old(&[half, half]), Err(OldError::Wrong(_))), "too much together");
    }
}
