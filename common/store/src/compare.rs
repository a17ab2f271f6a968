//! A generation told in terms of another: runs of chunks that follow each other in both, and the
//! chunks in between. What replication sends instead of digests.
//!
//! The parent's digests are sampled into a table of bounded size. Where a chunk is not the one
//! that follows in the parent, the table is asked; a hit is extended backwards over the chunks
//! that were not found before it, so that sampling costs almost nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use model::{Digest, GenerationId};

use crate::recipe::Recipe;
use crate::store::{Inner, Pin};
use crate::{ChunkRef, Result};

/// Entries of the table at most, 16 bytes each.
const TABLE: u64 = 1 << 20;
/// So many chunks are held back for a hit behind them.
const HELD: usize = 4096;

/// A part of a generation's chunk list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// `count` chunks, which are those of the parent from `first` on.
    Run {
        /// Index in the parent's chunk list.
        first: u64,
        /// How many.
        count: u64,
    },
    /// One chunk that does not follow in the parent.
    Chunk(ChunkRef),
}

/// Iterates over the pieces of a generation, in order; see [`crate::Store::compare`].
pub struct Compare {
    generation: Recipe,
    parent: Recipe,
    _pins: (Pin, Pin),
    /// First eight bytes of sampled digests of the parent, and where they stand there.
    table: HashMap<u64, u64>,
    sample: u64,
    next: u64,
    held: VecDeque<ChunkRef>,
    /// A run that may go on.
    run: Option<(u64, u64)>,
    out: VecDeque<Piece>,
}

impl std::fmt::Debug for Compare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids = (self.generation.info.id, self.parent.info.id);
        f.debug_tuple("Compare").field(&ids).finish()
    }
}

fn key(digest: &Digest) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&digest.as_bytes()[..8]);
    u64::from_le_bytes(word)
}

impl Compare {
    pub(crate) fn open(
        inner: &Arc<Inner>,
        generation: GenerationId,
        parent: GenerationId,
    ) -> Result<Self> {
        let (generation, first_pin) = inner.recipe(generation)?;
        let (parent, second_pin) = inner.recipe(parent)?;
        let sample = parent.chunks.len().div_ceil(TABLE).max(1);
        let mut table = HashMap::new();
        for i in 0..parent.chunks.len() {
            let key = key(&parent.chunks.get(i)?.chunk.digest);
            if key.is_multiple_of(sample) && table.len() < 2 * TABLE as usize {
                table.entry(key).or_insert(i);
            }
        }
        Ok(Self {
            generation,
            parent,
            _pins: (first_pin, second_pin),
            table,
            sample,
            next: 0,
            held: VecDeque::new(),
            run: None,
            out: VecDeque::new(),
        })
    }

    fn parent_chunk(&self, index: u64) -> Result<Option<ChunkRef>> {
        match index < self.parent.chunks.len() {
            true => Ok(Some(self.parent.chunks.get(index)?.chunk)),
            false => Ok(None),
        }
    }

    fn end_run(&mut self) {
        self.out.extend(self.run.take().map(|(first, count)| Piece::Run { first, count }));
    }

    /// Takes the next chunk of the generation.
    fn step(&mut self) -> Result<()> {
        let chunk = self.generation.chunks.get(self.next)?.chunk;
        self.next += 1;
        if let Some((first, count)) = self.run {
            if self.parent_chunk(first + count)? == Some(chunk) {
                self.run = Some((first, count + 1));
                return Ok(());
            }
            self.end_run();
        }
        match self.in_parent(&chunk)? {
            Some(found) => self.begin_run(found)?,
            None => {
                self.held.push_back(chunk);
                if self.held.len() > HELD {
                    self.out.extend(self.held.pop_front().map(Piece::Chunk));
                }
            }
        }
        Ok(())
    }

    /// Where the parent has this chunk, as far as the table knows.
    fn in_parent(&self, chunk: &ChunkRef) -> Result<Option<u64>> {
        let key = key(&chunk.digest);
        match self.table.get(&key).filter(|_| key.is_multiple_of(self.sample)) {
            Some(index) if self.parent_chunk(*index)? == Some(*chunk) => Ok(Some(*index)),
            _ => Ok(None),
        }
    }

    /// Begins a run at `found`, extended over the held chunks that precede it in the parent too.
    fn begin_run(&mut self, found: u64) -> Result<()> {
        let (mut first, mut count) = (found, 1);
        while let (Some(last), Some(before)) = (self.held.back(), first.checked_sub(1)) {
            if self.parent_chunk(before)? != Some(*last) {
                break;
            }
            self.held.pop_back();
            (first, count) = (before, count + 1);
        }
        self.out.extend(self.held.drain(..).map(Piece::Chunk));
        self.run = Some((first, count));
        Ok(())
    }
}

impl Iterator for Compare {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.out.is_empty() && self.next < self.generation.chunks.len() {
            if let Err(error) = self.step() {
                self.next = u64::MAX;
                return Some(Err(error));
            }
        }
        if self.out.is_empty() {
            self.end_run();
            self.out.extend(self.held.drain(..).map(Piece::Chunk));
        }
        self.out.pop_front().map(Ok)
    }
}
