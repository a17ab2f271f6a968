//! Cutting, naming and compressing chunks ahead of storing them, on other threads.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use model::Digest;

use crate::Encoding;
use crate::codec::{Compressor, Packed, names};
use crate::crew::{Crew, threads};
use crate::store::Inner;

use super::cutting::{AHEAD, Block, Cutting};

/// The form in which a chunk that was not in the store is to be kept.
#[derive(Debug)]
enum Form {
    /// It was there.
    Known,
    /// Where it is packed, if it is.
    New(Option<Range<usize>>),
}

/// The names of a block's chunks, and stored forms of those that were new when it was looked at.
#[derive(Debug, Default)]
pub(super) struct Named {
    chunks: Vec<(Digest, Form)>,
    packed: Packed,
}

/// What is known of one chunk.
pub(super) struct Ready<'a> {
    pub(super) digest: Digest,
    /// `None`: it was in the store.
    pub(super) stored: Option<(Encoding, &'a [u8])>,
}

impl Named {
    fn of(block: &[Bytes], inner: &Inner, compressor: &mut Compressor) -> Self {
        let mut named = Self::default();
        let chunks: Vec<&[u8]> = block.iter().map(|raw| &raw[..]).collect();
        for (raw, digest) in chunks.iter().zip(names(&chunks)) {
            let form = match inner.containers.known(&digest) {
                Ok(Some((known, _))) if known as usize == raw.len() => Form::Known,
                // What is wrong is told to whoever stores it.
                _ => Form::New(named.packed.add(compressor, raw)),
            };
            named.chunks.push((digest, form));
        }
        named
    }

    /// The chunk of this number, whose bytes are `raw`.
    pub(super) fn ready<'a>(&'a self, number: usize, raw: &'a [u8]) -> Option<Ready<'a>> {
        let (digest, form) = self.chunks.get(number)?;
        let stored = match form {
            Form::Known => None,
            Form::New(at) => Some(self.packed.form(at, raw)),
        };
        Some(Ready { digest: *digest, stored })
    }
}

/// A block that is not stored yet.
struct Waiting {
    block: Block,
    by: By,
}

/// Who names a block.
enum By {
    /// One of the threads.
    Crew,
    /// Whoever writes has, since the threads had enough to do.
    Writer(Named),
    /// Nobody would; whoever stores it does.
    Nobody,
}

/// How far the first block is stored.
struct First {
    named: Named,
    number: usize,
}

/// What is under way, oldest first, and the threads that cut and name it.
pub(super) struct Naming {
    inner: Arc<Inner>,
    cutting: Cutting,
    crew: Option<Crew<Block, Named>>,
    compressor: Compressor,
    blocks: VecDeque<Waiting>,
    first: Option<First>,
}

impl Naming {
    pub(super) fn new(inner: &Arc<Inner>) -> Self {
        let compressor = Compressor::new(inner.options.zstd_level);
        let cutting = Cutting::new(inner.params());
        let (inner, blocks) = (inner.clone(), VecDeque::new());
        Self { inner, cutting, crew: None, compressor, blocks, first: None }
    }

    /// Whether the oldest block has to be stored before another slab is given.
    pub(super) fn is_full(&self) -> bool {
        self.crew.as_ref().is_some_and(|crew| self.blocks.len() > AHEAD * crew.size() + 1)
    }

    /// Has a slab of the stream cut and named; it must not be full.
    pub(super) fn give(&mut self, slab: Bytes) {
        self.name_next(self.cutting.is_full());
        if let Some(block) = self.cutting.give(slab) {
            self.name(block);
        }
    }

    /// The stream begins anew behind what was stored, which is all of the chunks that there are.
    pub(super) fn restart(&mut self) {
        self.cutting.restart();
    }

    /// Has the next block named that is cut; with `wait`, if there is one at all.
    fn name_next(&mut self, wait: bool) {
        if let Some(block) = self.cutting.take(wait) {
            self.name(block);
        }
    }

    fn name(&mut self, block: Block) {
        if block.is_empty() {
            return;
        }
        let (inner, level) = (&self.inner, self.inner.options.zstd_level);
        let crew = self.crew.get_or_insert_with(|| {
            // One processor is the writer's own, which helps when it would have to wait.
            let threads = threads().saturating_sub(1).max(1);
            Crew::start("naming", (threads, AHEAD), || {
                let (inner, mut compressor) = (inner.clone(), Compressor::new(level));
                move |block: Block| Named::of(&block, &inner, &mut compressor)
            })
        });
        let by = match crew.is_full() {
            true => By::Writer(Named::of(&block, &self.inner, &mut self.compressor)),
            false => crew.give(block.clone()).map_or(By::Nobody, |()| By::Crew),
        };
        self.blocks.push_back(Waiting { block, by });
    }

    /// Whether a chunk can be stored now; with `wait`, whether there is one at all.
    pub(super) fn is_ready(&mut self, wait: bool) -> bool {
        self.name_next(false);
        while wait && self.blocks.is_empty() && self.cutting.is_under_way() {
            self.name_next(true);
        }
        let Some(Waiting { block, by }) = self.blocks.front_mut() else { return false };
        if self.first.is_some() {
            return true;
        }
        let named = match (std::mem::replace(by, By::Nobody), &mut self.crew) {
            (By::Writer(named), _) => Some(named),
            (By::Crew, Some(crew)) => match crew.take(wait) {
                // If its thread died of it there is nothing.
                Some(named) => named,
                None => {
                    *by = By::Crew;
                    return false;
                }
            },
            _ => None,
        };
        let named = named.unwrap_or_else(|| Named::of(block, &self.inner, &mut self.compressor));
        self.first = Some(First { named, number: 0 });
        true
    }

    /// The chunk that comes next: its bytes, and what is known of it. Only when one is ready.
    pub(super) fn next(&self) -> Option<(&[u8], Ready<'_>)> {
        let (First { named, number }, Waiting { block, .. }) =
            (self.first.as_ref()?, self.blocks.front()?);
        let raw = &block.get(*number)?[..];
        Some((raw, named.ready(*number, raw)?))
    }

    /// That chunk is stored.
    pub(super) fn pass(&mut self) {
        let (Some(first), Some(Waiting { block, .. })) = (&mut self.first, self.blocks.front())
        else {
            return;
        };
        first.number += 1;
        if first.number == block.len() {
            self.first = None;
            self.blocks.pop_front();
        }
    }
}
