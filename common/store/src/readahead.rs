//! Record bytes by position, read ahead by recipe: which chunks come next is known, so they are
//! fetched in batches that grow while reading is sequential. Once it has been so for a while, the
//! batches behind the one that is read are fetched, unpacked and verified by other threads.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::container::{Parts, Reading};
use crate::crew::{Crew, threads};
use crate::layout::Layout;
use crate::store::Inner;
use crate::{ChunkRef, Result, StoreError};

/// At a place that was jumped to this part of a window is fetched: 128 KiB.
const FIRST: u64 = 64;

/// Neighbours in the byte stream that are fetched together.
struct Batch {
    /// The first byte.
    start: u64,
    chunks: Vec<ChunkRef>,
}

/// What came of a batch: what was read before something bad is still good to have.
struct Fetched {
    pieces: Vec<Bytes>,
    error: Option<StoreError>,
}

impl Batch {
    /// The chunks from the one that holds `byte` on, over about `depth` bytes.
    fn at(layout: &Layout, byte: u64, depth: u64) -> Result<Self> {
        let first = layout.chunk_of(byte)?;
        let mut batch = Self { start: byte, chunks: Vec::new() };
        for i in first..layout.chunks.len() {
            let entry = layout.chunks.get(i)?;
            if entry.start >= byte + depth {
                break;
            }
            if i == first {
                batch.start = entry.start;
            }
            batch.chunks.push(entry.chunk);
        }
        Ok(batch)
    }

    /// The byte behind it.
    fn end(&self) -> u64 {
        self.chunks.iter().fold(self.start, |end, chunk| end + u64::from(chunk.len))
    }

    fn fetch(&self, inner: &Inner, reading: &mut Reading) -> Fetched {
        let mut pieces = Vec::with_capacity(self.chunks.len());
        let read = inner.containers.read_chunks(&self.chunks, reading, |raw| pieces.push(raw));
        Fetched { pieces, error: read.err() }
    }
}

/// Decoded chunks ahead of the reader.
pub(crate) struct ReadAhead {
    inner: Arc<Inner>,
    reading: Option<Reading>,
    parts: Arc<Parts>,
    /// Neighbours in the byte stream, with their starts.
    pieces: VecDeque<(u64, Bytes)>,
    /// The byte behind the last piece.
    next: u64,
    /// Bytes fetched at once when reading has been sequential for a while, by where they lie.
    window: u64,
    depth: u64,
    crew: Option<Crew<Batch, Fetched>>,
    /// First byte and end of the batches that others fetch.
    under_way: VecDeque<(u64, u64)>,
}

impl ReadAhead {
    pub(crate) fn new(inner: &Arc<Inner>) -> Self {
        let window = inner.params().window();
        Self {
            inner: inner.clone(),
            reading: None,
            parts: Arc::default(),
            pieces: VecDeque::new(),
            next: 0,
            window,
            depth: window / FIRST,
            crew: None,
            under_way: VecDeque::new(),
        }
    }

    /// Forgets what was read ahead: the content changed.
    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
        self.leave();
    }

    /// Forgets what others fetch.
    fn leave(&mut self) {
        if !self.under_way.is_empty() {
            self.under_way.clear();
            self.crew = None;
        }
    }

    /// Fills `buffer` with the bytes from `byte` on; they must be there.
    pub(crate) fn read(
        &mut self,
        layout: &Layout,
        mut byte: u64,
        mut buffer: &mut [u8],
    ) -> Result<()> {
        while !buffer.is_empty() {
            let (start, piece) = match byte.checked_sub(layout.chunked) {
                Some(offset) => (byte, layout.tail.piece(offset as usize)),
                None => self.piece(layout, byte)?,
            };
            let skip = usize::try_from(byte.wrapping_sub(start)).unwrap_or(usize::MAX);
            let rest = piece.get(skip..).filter(|rest| !rest.is_empty());
            let rest = rest.ok_or_else(|| layout.damaged("its chunk list has a gap"))?;
            let len = rest.len().min(buffer.len());
            let (now, later) = buffer.split_at_mut(len);
            now.copy_from_slice(&rest[..len]);
            buffer = later;
            byte += len as u64;
        }
        Ok(())
    }

    /// The chunk that holds `byte`, and where it begins.
    fn piece(&mut self, layout: &Layout, byte: u64) -> Result<(u64, &[u8])> {
        if self.pieces.front().is_some_and(|(start, _)| byte < *start) {
            self.pieces.clear();
        }
        while self.pieces.front().is_some_and(|(start, piece)| start + piece.len() as u64 <= byte) {
            self.pieces.pop_front();
        }
        if self.pieces.is_empty() {
            self.fetch(layout, byte)?;
        }
        Ok(self.pieces.front().map_or((byte, &[][..]), |(start, piece)| (*start, piece)))
    }

    fn fetch(&mut self, layout: &Layout, byte: u64) -> Result<()> {
        let sequential = byte == self.next && byte > 0;
        self.depth =
            if sequential { (2 * self.depth).min(self.window) } else { self.window / FIRST };
        if self.under_way.front().is_some_and(|(start, _)| *start != byte) {
            self.leave();
        }
        let ahead = self.crew.as_mut().filter(|_| !self.under_way.is_empty());
        let (start, fetched) = match ahead.and_then(|crew| crew.take(true).flatten()) {
            Some(fetched) => {
                self.under_way.pop_front();
                self.send_ahead(layout)?;
                (byte, fetched)
            }
            None => {
                self.leave();
                let batch = Batch::at(layout, byte, self.depth)?;
                self.next = batch.end();
                self.send_ahead(layout)?;
                let reading = self.reading.get_or_insert_with(|| Reading::with(&self.parts));
                (batch.start, batch.fetch(&self.inner, reading))
            }
        };
        let mut end = start;
        self.pieces.extend(fetched.pieces.into_iter().map(|piece| {
            let start = end;
            end += piece.len() as u64;
            (start, piece)
        }));
        self.next = end;
        match fetched.error {
            None => Ok(()),
            // The error comes when the reader gets there.
            error => {
                self.leave();
                error.filter(|_| self.pieces.is_empty()).map_or(Ok(()), Err)
            }
        }
    }

    /// Has others fetch what comes behind, if reading has been sequential for so long that it is
    /// likely to go on.
    fn send_ahead(&mut self, layout: &Layout) -> Result<()> {
        if self.depth < self.window {
            return Ok(());
        }
        let inner = &self.inner;
        let crew = self.crew.get_or_insert_with(|| {
            // One more than there are processors for: some wait for the disk.
            Crew::start("reading", (threads() + 1, 2), || {
                let (inner, mut reading) = (inner.clone(), Reading::with(&self.parts));
                move |batch: Batch| batch.fetch(&inner, &mut reading)
            })
        });
        let mut from = self.under_way.back().map_or(self.next, |(_, end)| *end);
        while from < layout.chunked && self.under_way.len() <= crew.size() && !crew.is_full() {
            let batch = Batch::at(layout, from, self.window)?;
            let (start, end) = (batch.start, batch.end());
            if start != from || end <= from || crew.give(batch).is_err() {
                return Ok(());
            }
            self.under_way.push_back((start, end));
            from = end;
        }
        Ok(())
    }
}
