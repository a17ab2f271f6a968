//! A generation told in terms of another: runs of chunks that follow each other in both, and the
//! chunks in between. What replication sends instead of digests.
//!
//! The digests of the other, the *base*, are sampled into a table of bounded size. Where a chunk is
//! not the one that follows in the base, the next few there are looked at and then the table is
//! asked; a hit is extended backwards over the chunks that were not found before it, so that
//! sampling costs almost nothing. What the base does not have is looked for in the generation
//! itself, in the same way.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use model::{Digest, GenerationId};

use crate::follow::{Lists, Standing};
use crate::recipe::Recipe;
use crate::store::{Inner, Pin};
use crate::{ChunkRef, ObjectRun, Result};

/// Entries of each table at most, 16 bytes each.
const TABLE: u64 = 1 << 20;
/// So many chunks are held back for a hit behind them.
const HELD: usize = 4096;
/// So many chunks behind a run's end are looked at before the table is asked: what occurs often
/// is then found where it belongs and not where it came first.
const AHEAD: u64 = 16;

/// A part of a generation's chunk list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// `count` chunks, which are those of the base from `first` on.
    Run {
        /// Index in the base's chunk list.
        first: u64,
        /// How many.
        count: u64,
    },
    /// `count` chunks, which are those of the generation itself from `first` on. A repetition
    /// reaches into itself.
    Again {
        /// Index in the generation's chunk list.
        first: u64,
        /// How many.
        count: u64,
    },
    /// One chunk that is in neither.
    Chunk(ChunkRef),
}

/// First eight bytes of sampled digests of a list, and where they stand there.
struct Table {
    places: HashMap<u64, u64>,
    sample: u64,
}

impl Table {
    /// Of a list that will have so many entries.
    fn new(entries: u64) -> Self {
        Self { places: HashMap::new(), sample: entries.div_ceil(TABLE).max(1) }
    }

    fn enter(&mut self, digest: &Digest, index: u64) {
        let key = key(digest);
        if !key.is_multiple_of(self.sample) {
            return;
        }
        self.places.entry(key).or_insert(index);
        if self.places.len() >= 2 * TABLE as usize {
            self.sample *= 2;
            let sample = self.sample;
            self.places.retain(|key, _| key.is_multiple_of(sample));
        }
    }

    fn find(&self, digest: &Digest) -> Option<u64> {
        let key = key(digest);
        self.places.get(&key).copied().filter(|_| key.is_multiple_of(self.sample))
    }
}

/// Where the current run is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Base,
    Own,
}

/// Iterates over the pieces of a generation, in order; see [`crate::Store::compare`].
pub struct Compare {
    generation: Lists,
    base: Option<Recipe>,
    _pin: Option<Pin>,
    /// What is there of an open generation is told, and not held back for what may come.
    settle: bool,
    base_table: Table,
    own_table: Table,
    next: u64,
    held: VecDeque<ChunkRef>,
    /// A run that may go on.
    run: Option<(Source, u64, u64)>,
    /// Where the last run of the base ended.
    base_end: u64,
    out: VecDeque<Piece>,
}

impl std::fmt::Debug for Compare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids = (self.generation.id, self.base.as_ref().map(|base| base.info.id));
        f.debug_tuple("Compare").field(&ids).finish()
    }
}

/// The first eight bytes of a digest.
pub(crate) fn key(digest: &Digest) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&digest.as_bytes()[..8]);
    u64::from_le_bytes(word)
}

impl Compare {
    pub(crate) fn open(
        inner: &Arc<Inner>,
        generation: GenerationId,
        base: Option<GenerationId>,
    ) -> Result<Self> {
        let generation = Lists::open(inner, generation)?;
        let (base, _pin) = base.map(|id| inner.recipe(id)).transpose()?.unzip();
        let mut base_table = Table::new(base.as_ref().map_or(0, |base| base.chunks.len()));
        if let Some(base) = &base {
            for i in 0..base.chunks.len() {
                base_table.enter(&base.chunks.get(i)?.chunk.digest, i);
            }
        }
        Ok(Self {
            own_table: Table::new(generation.layout.chunks.len()),
            generation,
            base,
            _pin,
            settle: true,
            base_table,
            next: 0,
            held: VecDeque::new(),
            run: None,
            base_end: 0,
            out: VecDeque::new(),
        })
    }

    /// Takes in what was written to the generation meanwhile. Where that changed what this has
    /// told of chunks, or a `told` number of objects, it is lost.
    pub fn advance(&mut self, told: u64) -> Result<Standing> {
        let (standing, chunks, objects) = self.generation.advance()?;
        Ok(if chunks < self.next || objects < told { Standing::Lost } else { standing })
    }

    /// Bytes of chunks that were not told.
    pub fn waiting(&self) -> Result<u64> {
        let behind = self.held.len() as u64 + self.run.map_or(0, |(_, _, count)| count);
        let layout = &self.generation.layout;
        let ready = self.out.iter().map(|piece| match piece {
            Piece::Run { count, .. } | Piece::Again { count, .. } => *count,
            Piece::Chunk(_) => 1,
        });
        let first = self.next - behind - ready.sum::<u64>();
        Ok(match first < layout.chunks.len() {
            true => layout.chunked - layout.chunks.get(first)?.start,
            false => 0,
        })
    }

    /// Whether the end of what is there is told as if nothing came behind it; so it is at first.
    pub fn set_settle(&mut self, settle: bool) {
        self.settle = settle;
    }

    /// The runs of the generation's objects, as far as they are known, from `object` on.
    pub fn runs(&self, object: u64) -> impl Iterator<Item = Result<ObjectRun>> + '_ {
        self.generation.layout.runs(object)
    }

    /// Chunk `index` of a list, if it has so many; of the generation's own only what was seen.
    fn chunk_of(&self, source: Source, index: u64) -> Result<Option<ChunkRef>> {
        let own = &self.generation.layout.chunks;
        Ok(match (source, &self.base) {
            (Source::Base, Some(base)) if index < base.chunks.len() => {
                Some(base.chunks.get(index)?.chunk)
            }
            (Source::Own, _) if index < self.next => Some(own.get(index)?.chunk),
            _ => None,
        })
    }

    fn end_run(&mut self) {
        let Some((source, first, count)) = self.run.take() else { return };
        self.out.push_back(match source {
            Source::Base => {
                self.base_end = first + count;
                Piece::Run { first, count }
            }
            Source::Own => Piece::Again { first, count },
        });
    }

    /// Takes the next chunk of the generation.
    fn step(&mut self) -> Result<()> {
        let chunk = self.generation.layout.chunks.get(self.next)?.chunk;
        let goes_on = match self.run {
            Some((source, first, count)) => self.chunk_of(source, first + count)? == Some(chunk),
            None => false,
        };
        if let (true, Some((_, _, count))) = (goes_on, &mut self.run) {
            *count += 1;
        } else {
            self.end_run();
            match self.place_of(&chunk)? {
                Some((source, found)) => self.begin_run(source, found)?,
                None => {
                    self.own_table.enter(&chunk.digest, self.next);
                    self.held.push_back(chunk);
                    if self.held.len() > HELD {
                        self.out.extend(self.held.pop_front().map(Piece::Chunk));
                    }
                }
            }
        }
        self.next += 1;
        Ok(())
    }

    /// Where this chunk is, as far as it can be told cheaply.
    fn place_of(&self, chunk: &ChunkRef) -> Result<Option<(Source, u64)>> {
        for index in self.base_end..self.base_end + AHEAD {
            match self.chunk_of(Source::Base, index)? {
                Some(there) if there == *chunk => return Ok(Some((Source::Base, index))),
                Some(_) => {}
                None => break,
            }
        }
        for (source, table) in [(Source::Base, &self.base_table), (Source::Own, &self.own_table)] {
            if let Some(index) = table.find(&chunk.digest)
                && self.chunk_of(source, index)? == Some(*chunk)
            {
                return Ok(Some((source, index)));
            }
        }
        Ok(None)
    }

    /// Begins a run at `found`, extended over the held chunks that precede it there too.
    fn begin_run(&mut self, source: Source, found: u64) -> Result<()> {
        let (mut first, mut count) = (found, 1);
        while let (Some(last), Some(before)) = (self.held.back(), first.checked_sub(1)) {
            if self.chunk_of(source, before)? != Some(*last) {
                break;
            }
            self.held.pop_back();
            (first, count) = (before, count + 1);
        }
        self.out.extend(self.held.drain(..).map(Piece::Chunk));
        self.run = Some((source, first, count));
        Ok(())
    }
}

impl Iterator for Compare {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.out.is_empty() && self.next < self.generation.layout.chunks.len() {
            if let Err(error) = self.step() {
                self.next = u64::MAX;
                return Some(Err(error));
            }
        }
        if self.out.is_empty() && self.settle {
            self.end_run();
            self.out.extend(self.held.drain(..).map(Piece::Chunk));
        }
        self.out.pop_front().map(Ok)
    }
}
