//! Record bytes by position, read ahead by recipe: which chunks come next is known, so they are
//! fetched in batches that grow while reading is sequential.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::Result;
use crate::codec::Decompressor;
use crate::container::Containers;
use crate::layout::Layout;

/// Bytes fetched at a place that was jumped to.
const FIRST: u64 = 128 << 10;
/// Bytes fetched at once when reading has been sequential for a while.
const MOST: u64 = 4 << 20;

/// Decoded chunks ahead of the reader.
pub(crate) struct ReadAhead {
    decompressor: Option<Decompressor>,
    /// Neighbours in the byte stream, with their starts.
    pieces: VecDeque<(u64, Bytes)>,
    /// The byte behind the last piece.
    next: u64,
    depth: u64,
}

impl ReadAhead {
    pub(crate) fn new() -> Self {
        Self { decompressor: None, pieces: VecDeque::new(), next: 0, depth: FIRST }
    }

    /// Forgets what was read ahead: the content changed.
    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
    }

    /// Fills `buffer` with the bytes from `byte` on; they must be there.
    pub(crate) fn read(
        &mut self,
        containers: &Containers,
        layout: &Layout,
        mut byte: u64,
        mut buffer: &mut [u8],
    ) -> Result<()> {
        while !buffer.is_empty() {
            let (start, piece) = match byte.checked_sub(layout.chunked) {
                Some(_) => (layout.chunked, layout.tail.pending()),
                None => self.piece(containers, layout, byte)?,
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
    fn piece(
        &mut self,
        containers: &Containers,
        layout: &Layout,
        byte: u64,
    ) -> Result<(u64, &[u8])> {
        if self.pieces.front().is_some_and(|(start, _)| byte < *start) {
            self.pieces.clear();
        }
        while self.pieces.front().is_some_and(|(start, piece)| start + piece.len() as u64 <= byte) {
            self.pieces.pop_front();
        }
        if self.pieces.is_empty() {
            self.fetch(containers, layout, byte)?;
        }
        Ok(self.pieces.front().map_or((byte, &[][..]), |(start, piece)| (*start, piece)))
    }

    fn fetch(&mut self, containers: &Containers, layout: &Layout, byte: u64) -> Result<()> {
        let sequential = byte == self.next && byte > 0;
        self.depth = if sequential { (2 * self.depth).min(MOST) } else { FIRST };
        let first = layout.chunk_of(byte)?;
        let (mut chunks, mut starts) = (Vec::new(), VecDeque::new());
        for i in first..layout.chunks.len() {
            let entry = layout.chunks.get(i)?;
            if entry.start >= byte + self.depth {
                break;
            }
            starts.push_back(entry.start);
            chunks.push(entry.chunk);
            self.next = entry.end();
        }
        let pieces = &mut self.pieces;
        let decompressor = self.decompressor.get_or_insert_with(Decompressor::new);
        let fetched = containers.read_chunks(&chunks, decompressor, |piece| {
            pieces.extend(starts.pop_front().map(|start| (start, piece)));
        });
        // What was read before something bad is still good to have; the error comes when the
        // reader gets there.
        match fetched {
            Err(error) if self.pieces.is_empty() => Err(error),
            Err(_) => {
                self.next = self.pieces.back().map_or(0, |(start, p)| start + p.len() as u64);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}
