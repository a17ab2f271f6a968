//! How scattered generations lie, and writing together anew what lies too scattered.
//!
//! A backup shares most of its chunks with those before it, so it lies in the containers of all of
//! them. A sequential reading fetches a *window* of chunks at once, by where they lie; what counts
//! is in how many reads. [`Rewriting`] moves, in each window that takes more reads than it may, the
//! chunks of the smallest ones behind each other into new containers. What is read together
//! already stays where it is, so little is written for much.
//!
//! A chunk that was moved counts at its new place alone, and where a chunk is found in two
//! containers the later one counts: the same after a crash, and when the index is made anew. The
//! old copies are given back by a collection.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use model::{Digest, GenerationId};

use crate::container::{Moment, plan};
use crate::index::Location;
use crate::recipe::Recipe;
use crate::store::Inner;
use crate::{ChunkRef, Result, Store, StoreError};

const GIB: u64 = 1 << 30;
/// Containers are counted over stretches of so many windows, 64 MiB.
const STRETCH: u64 = 8;

/// How scattered one or several generations lie: what a sequential reading of them takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragmentation {
    /// Bytes of the generations, as far as they were looked at.
    pub bytes: u64,
    /// Bytes that are read for them.
    pub fetched: u64,
    /// In so many reads.
    pub reads: u64,
    /// Different containers in each stretch of 64 MiB, together.
    pub containers: u64,
    /// How often a chunk lies in another container than the one before it.
    pub changes: u64,
}

impl Fragmentation {
    fn per_gib(&self, count: u64) -> u64 {
        let all = u128::from(count) * u128::from(GIB) / u128::from(self.bytes.max(1));
        u64::try_from(all).unwrap_or(u64::MAX)
    }

    /// Reads for each GiB; in a generation that lies together, 128 to 256.
    pub fn reads_per_gib(&self) -> u64 {
        self.per_gib(self.reads)
    }

    /// Containers for each GiB.
    pub fn containers_per_gib(&self) -> u64 {
        self.per_gib(self.containers)
    }

    /// Container changes for each GiB.
    pub fn changes_per_gib(&self) -> u64 {
        self.per_gib(self.changes)
    }

    /// Bytes read for each byte given: less than 1 where chunks are compressed.
    pub fn read_over_given(&self) -> f64 {
        self.fetched as f64 / self.bytes.max(1) as f64
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            bytes: self.bytes + other.bytes,
            fetched: self.fetched + other.fetched,
            reads: self.reads + other.reads,
            containers: self.containers + other.containers,
            changes: self.changes + other.changes,
        }
    }
}

/// What a rewriting did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// Bytes of generations that were looked at.
    pub looked: u64,
    /// Chunks that were moved.
    pub chunks: u64,
    /// What they take, once more until a collection gives back their old places.
    pub moved: u64,
    /// More would have been moved, but there was no more room for it.
    pub full: bool,
}

/// Chunks that are read at once, where they lie, and the index of the chunk behind them.
struct Window {
    chunks: Vec<(Digest, Location)>,
    bytes: u64,
    next: u64,
}

impl Window {
    /// The window that begins with chunk `first`. Chunks that are not in the store are left out.
    fn at(inner: &Inner, recipe: &Recipe, first: u64) -> Result<Self> {
        let mut window = Self { chunks: Vec::new(), bytes: 0, next: first };
        let size = inner.params().window();
        while window.bytes < size && window.next < recipe.chunks.len() {
            let chunk: ChunkRef = recipe.chunks.get(window.next)?.chunk;
            match inner.containers.place_of(&chunk) {
                Ok(at) => window.chunks.push((chunk.digest, at)),
                Err(StoreError::MissingChunk(_)) => {}
                Err(error) => return Err(error),
            }
            window.bytes += u64::from(chunk.len);
            window.next += 1;
        }
        Ok(window)
    }

    fn places(&self) -> Vec<Location> {
        self.chunks.iter().map(|(_, at)| *at).collect()
    }

    /// The chunks that should be moved, in their order, if the window takes more than `most` reads:
    /// those of the smallest ones, so that three quarters of it are left, and it does not begin
    /// anew for one read more. What lies behind `since` is left.
    fn scattered(&self, most: usize, since: Moment, gap: u64) -> Vec<(Digest, Location)> {
        let mut reads = plan(&self.places(), gap);
        let most = most.max(2);
        if reads.len() <= most {
            return Vec::new();
        }
        // What is moved will be one read.
        let too_many = reads.len() + 1 - (most - most / 4);
        reads.retain(|read| (read.container, read.from) < since);
        reads.sort_by_key(|read| Reverse(read.wanted()));
        let small = reads.split_off(reads.len().saturating_sub(too_many));
        // One that is moved alone is one read still.
        if small.len() < 2 {
            return Vec::new();
        }
        let mut members: Vec<usize> = small.into_iter().flat_map(|read| read.members).collect();
        members.sort_unstable();
        let mut seen = HashSet::new();
        let chosen = members.into_iter().map(|i| self.chunks[i]);
        chosen.filter(|(_, at)| at.moment() < since && seen.insert(at.moment())).collect()
    }
}

impl Store {
    /// How scattered a generation lies. With `stretches` only so many parts of 64 MiB are looked
    /// at, evenly spread over it.
    ///
    /// # Errors
    /// There is no such generation, or its recipe or the index can not be read.
    pub fn fragmentation(&self, id: GenerationId, stretches: Option<u64>) -> Result<Fragmentation> {
        let (recipe, _pin) = self.0.recipe(id)?;
        let whole = recipe.info.bytes.div_ceil(STRETCH * self.0.params().window());
        let parts = stretches.filter(|parts| *parts < whole);
        let count = recipe.chunks.len();
        let Some(parts) = parts else { return stretch(&self.0, &recipe, 0, u64::MAX) };
        let begin = |part| (u128::from(count) * part / u128::from(parts.max(1))) as u64;
        (0..u128::from(parts)).map(begin).try_fold(Fragmentation::default(), |all, first| {
            Ok(all.and(stretch(&self.0, &recipe, first, STRETCH)?))
        })
    }

    /// Begins to write generations together anew: so that no window takes more than its part of
    /// `reads_per_gib`, and as long as old copies in containers are not more than `room_percent`
    /// of all.
    ///
    /// # Errors
    /// The disk does not answer, or the store writes no more.
    pub fn rewriting(&self, reads_per_gib: u32, room_percent: u8) -> Result<Rewriting> {
        let containers = &self.0.containers;
        containers.check_poison()?;
        let (mut all, mut counting) = (0, 0);
        for fill in containers.fills(0)? {
            all += fill.length;
            counting += (fill.live + fill.frame).min(fill.length);
        }
        let room = (all / 100 * u64::from(room_percent)).saturating_sub(all - counting);
        let most = (u64::from(reads_per_gib) * self.0.params().window() / GIB) as usize;
        let (inner, since) = (self.0.clone(), containers.moment());
        Ok(Rewriting { inner, since, most, room, done: Rewritten::default() })
    }
}

/// Looks at `windows` from chunk `first` on.
fn stretch(inner: &Inner, recipe: &Recipe, first: u64, windows: u64) -> Result<Fragmentation> {
    let mut found = Fragmentation::default();
    let (mut next, mut looked, mut last) = (first, 0, None);
    let mut containers = HashSet::new();
    while next < recipe.chunks.len() && looked < windows {
        let window = Window::at(inner, recipe, next)?;
        let places = window.places();
        let reads = plan(&places, inner.params().gap());
        found.bytes += window.bytes;
        found.reads += reads.len() as u64;
        found.fetched += reads.iter().map(|read| read.len()).sum::<u64>();
        for at in &places {
            found.changes +=
                u64::from(last.replace(at.container).is_some_and(|it| it != at.container));
        }
        containers.extend(reads.iter().map(|read| read.container));
        (next, looked) = (window.next, looked + 1);
        if looked.is_multiple_of(STRETCH) {
            found.containers += containers.drain().count() as u64;
        }
    }
    found.containers += containers.len() as u64;
    Ok(found)
}

/// One round of writing generations together. What was moved once stays for the rest of it, so the
/// generations that are most worth it come first.
pub struct Rewriting {
    inner: Arc<Inner>,
    /// What is moved lies behind this.
    since: Moment,
    /// Reads that a window may take.
    most: usize,
    /// Bytes that may still be moved.
    room: u64,
    done: Rewritten,
}

impl std::fmt::Debug for Rewriting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rewriting").field("done", &self.done).finish_non_exhaustive()
    }
}

impl Rewriting {
    /// What was done so far.
    pub fn done(&self) -> Rewritten {
        self.done
    }

    /// Looks at a generation and moves what lies too scattered. `pace` is called behind each
    /// window with the bytes moved; it may wait, and ends it when it says false. Goes on beside
    /// everything else, the deletion of this generation included. True: that was all of it.
    ///
    /// # Errors
    /// Its recipe or the index can not be read, or the disk takes no more. Every chunk counts at
    /// its old place or at its new one.
    pub fn generation(
        &mut self,
        id: GenerationId,
        pace: &mut dyn FnMut(u64) -> bool,
    ) -> Result<bool> {
        let mut next = 0;
        loop {
            let window = match self.inner.recipe(id) {
                Ok((recipe, _)) if next >= recipe.chunks.len() => return Ok(true),
                Ok((recipe, _pin)) => Window::at(&self.inner, &recipe, next)?,
                Err(StoreError::NoGeneration(_)) => return Ok(true),
                Err(error) => return Err(error),
            };
            let scattered = window.scattered(self.most, self.since, self.inner.params().gap());
            let size = scattered.iter().map(|(_, at)| at.size()).sum::<u64>();
            if size > self.room {
                self.done.full = true;
                return Ok(false);
            }
            let (chunks, moved) = match scattered.is_empty() {
                true => (0, 0),
                false => self.inner.containers.gather(&scattered)?,
            };
            self.room -= moved;
            self.done.looked += window.bytes;
            self.done.chunks += chunks;
            self.done.moved += moved;
            if !pace(moved) {
                return Ok(false);
            }
            next = window.next;
        }
    }
}
