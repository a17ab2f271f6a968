//! Writing by reference: what is in the store already is named, not read and cut again.

use std::sync::Arc;

use model::GenerationId;

use super::{Image, Writer};
use crate::codec::name;
use crate::container::Reading;
use crate::journal::Event;
use crate::layout::Layout;
use crate::recipe::layout_of;
use crate::store::{Inner, Pin};
use crate::{ChunkRef, MAX_RECORD, ObjectRun, Result, StoreError};

/// A stretch of a sealed generation's stream of record bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The generation.
    pub generation: GenerationId,
    /// Bytes of records before it.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// What an extent consists of.
#[derive(Default)]
struct Pieces {
    chunks: Vec<ChunkRef>,
    /// Bytes behind the last chunk, a part of one.
    rest: Vec<u8>,
}

impl Image {
    /// Writes the bytes of the extents, one behind the other, as records of `record_size` bytes
    /// here. Whole chunks are taken over as they are; only those that the ends of an extent cut
    /// apart are read. The lists grow in memory by what one call adds: 64 MiB are a good step.
    ///
    /// # Errors
    /// [`StoreError::RecordSize`] if the bytes are not one whole record at least, or not whole
    /// records; [`StoreError::BeyondEnd`] if a generation has no such bytes. Nothing was written
    /// then, and the place is where it was.
    pub fn write_extents(&mut self, extents: &[Extent], record_size: u32) -> Result<()> {
        let total = extents.iter().try_fold(0u64, |sum, extent| sum.checked_add(extent.length));
        let (size, total) = (u64::from(record_size), total.unwrap_or(u64::MAX));
        let legal = (1..=MAX_RECORD as u64).contains(&size) && total > 0 && total % size == 0;
        if !legal {
            return Err(StoreError::RecordSize(record_size as usize));
        }
        let inner = self.reel.inner.clone();
        let sources = extents.iter().map(|extent| Source::open(&inner, *extent));
        let sources: Vec<_> = sources.collect::<Result<_>>()?;
        let (writer, reel) = self.writer_here()?;
        // The new chunks begin where the tail ends.
        writer.make_room(reel, true)?;
        let mut pieces = Pieces::default();
        for source in &sources {
            writer.keep_rest(&inner, &mut pieces)?;
            writer.take(&inner, source, &mut pieces)?;
        }
        // From here on nothing can fail.
        let run = ObjectRun::Records { size: record_size, count: total / size };
        for chunk in pieces.chunks {
            writer.journal.add(Event::Chunk(chunk));
            reel.layout.push_chunk(chunk);
        }
        reel.layout.tail.push(&pieces.rest);
        writer.append(reel, run);
        Ok(())
    }
}

impl Writer {
    /// Adds the chunks of a source, and as rest the part of one that its end cuts off.
    fn take(&mut self, inner: &Inner, source: &Source, pieces: &mut Pieces) -> Result<()> {
        let Source { layout, extent, .. } = source;
        let (mut at, end) = (extent.offset, extent.offset + extent.length);
        let mut index = layout.chunk_of(at)?;
        while at < end {
            self.keep_rest(inner, pieces)?;
            let entry = layout.chunks.get(index)?;
            let behind = entry.end().min(end);
            if at < entry.start || at >= behind {
                return Err(layout.damaged("its chunk list has a gap"));
            }
            match inner.containers.have(&entry.chunk.digest)? {
                Some((len, mark))
                    if at == entry.start && behind == entry.end() && len == entry.chunk.len =>
                {
                    self.ledger.mark = self.ledger.mark.max(mark);
                    pieces.chunks.push(entry.chunk);
                }
                _ => {
                    let mut reading = Reading::alone();
                    let within = (at - entry.start) as usize..(behind - entry.start) as usize;
                    let rest = &mut pieces.rest;
                    let chunks = [entry.chunk];
                    inner.containers.read_chunks(&chunks, &mut reading, |raw| {
                        rest.extend_from_slice(raw.get(within.clone()).unwrap_or_default());
                    })?;
                }
            }
            at = behind;
            index += 1;
        }
        Ok(())
    }

    /// Makes a chunk of its own of a rest that something follows.
    fn keep_rest(&mut self, inner: &Inner, pieces: &mut Pieces) -> Result<()> {
        if pieces.rest.is_empty() {
            return Ok(());
        }
        let raw = std::mem::take(&mut pieces.rest);
        let chunk = ChunkRef { digest: name(&raw), len: raw.len() as u32 };
        self.ledger.store(inner, chunk, || self.compressor.encode(&raw))?;
        pieces.chunks.push(chunk);
        Ok(())
    }
}

/// An extent with the lists that it is found by.
struct Source {
    layout: Layout,
    extent: Extent,
    _pin: Pin,
}

impl Source {
    fn open(inner: &Arc<Inner>, extent: Extent) -> Result<Self> {
        let (recipe, pin) = inner.recipe(extent.generation)?;
        let layout = layout_of(Some(&recipe), inner.params(), &inner.scratch);
        let end = extent.offset.checked_add(extent.length);
        if end.is_none_or(|end| end > layout.end.byte) {
            let (object, end) = (layout.end.object + 1, layout.end.object);
            return Err(StoreError::BeyondEnd { object, end });
        }
        Ok(Self { layout, extent, _pin: pin })
    }
}
