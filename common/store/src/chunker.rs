//! The byte stream's end, cut as [`cut`] says over a buffer that takes bytes in pieces of any size.

use std::collections::VecDeque;

use bytes::Bytes;
use cut::{Cutter, Sizes};

use crate::ChunkParams;

/// Chunks are named together once so many of average size are cut: 1 MiB by default.
const BLOCK_CHUNKS: usize = 64;

/// Neighbouring chunks that were cut off together.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) bytes: Bytes,
    /// The lengths of its chunks.
    pub(crate) lens: Vec<u32>,
}

/// A byte stream's end that is not stored yet: blocks that were cut off, and behind them what is
/// not cut or waits for its block to fill.
#[derive(Debug)]
pub(crate) struct Chunker {
    params: ChunkParams,
    cutter: Cutter,
    /// Bytes of the blocks, as far as they are not consumed.
    blocks: VecDeque<Bytes>,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were consumed already.
    start: usize,
    /// Lengths of the chunks behind `start` whose ends are certain, and their sum.
    cuts: VecDeque<u32>,
    cut: usize,
}

impl Chunker {
    pub(crate) fn new(params: ChunkParams) -> Self {
        let ChunkParams { min, average, max, rules } = params;
        let sizes = Sizes { min: min as usize, average: average as usize, max: max as usize };
        let cutter = Cutter::new(sizes, rules);
        let (blocks, cuts) = (VecDeque::new(), VecDeque::new());
        Self { params, cutter, blocks, buffer: Vec::new(), start: 0, cuts, cut: 0 }
    }

    fn block(&self) -> usize {
        BLOCK_CHUNKS * self.params.average as usize
    }

    /// A block, what may be behind it, and a record.
    fn room(&self) -> usize {
        self.block() + 2 * self.params.max as usize
    }

    /// Bytes that are not consumed.
    pub(crate) fn len(&self) -> usize {
        let blocks: usize = self.blocks.iter().map(Bytes::len).sum();
        blocks + self.buffer.len() - self.start
    }

    /// The bytes behind the blocks.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// What is there from `offset` on, or the first part of it.
    pub(crate) fn piece(&self, mut offset: usize) -> &[u8] {
        for block in &self.blocks {
            match offset.checked_sub(block.len()) {
                Some(behind) => offset = behind,
                None => return &block[offset..],
            }
        }
        self.pending().get(offset..).unwrap_or_default()
    }

    /// Appends bytes to the stream.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.buffer.capacity() == 0 {
            self.buffer.reserve(self.room());
        }
        // Moving the rest down costs at most one chunk's copy for each buffer full of chunks.
        if self.start > 0 && self.buffer.len() + bytes.len() > self.buffer.capacity() {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Cuts as far as it is certain: no byte to come can move a cut.
    fn cut_on(&mut self) {
        while self.pending().len() - self.cut >= self.cutter.certain() {
            let len = self.cutter.next(&self.pending()[self.cut..]);
            self.cuts.push_back(len as u32);
            self.cut += len;
        }
    }

    /// The next block, once there is enough for one.
    pub(crate) fn take_block(&mut self) -> Option<Block> {
        self.cut_on();
        if self.cut < self.block() {
            return None;
        }
        let mut rest = Vec::with_capacity(self.room());
        rest.extend_from_slice(&self.pending()[self.cut..]);
        let whole = Bytes::from(std::mem::replace(&mut self.buffer, rest));
        let bytes = whole.slice(self.start..self.start + self.cut);
        (self.start, self.cut) = (0, 0);
        self.blocks.push_back(bytes.clone());
        Some(Block { bytes, lens: self.cuts.drain(..).collect() })
    }

    /// The next chunk behind the blocks, if its end is certain already. With `end` (the stream
    /// ends here) the last one, whatever its length; `None` when nothing is left.
    pub(crate) fn peek(&mut self, end: bool) -> Option<&[u8]> {
        self.cut_on();
        if self.cuts.is_empty() && end && !self.pending().is_empty() {
            let len = self.cutter.next(self.pending());
            self.cuts.push_back(len as u32);
            self.cut = len;
        }
        let len = *self.cuts.front()? as usize;
        Some(&self.pending()[..len])
    }

    /// Removes the first `len` bytes.
    pub(crate) fn consume(&mut self, mut len: usize) {
        while let Some(block) = self.blocks.front_mut() {
            let part = len.min(block.len());
            let _ = block.split_to(part);
            len -= part;
            match block.is_empty() {
                true => drop(self.blocks.pop_front()),
                false => return,
            }
        }
        match self.cuts.front() {
            _ if len == 0 => {}
            Some(cut) if *cut as usize == len => {
                self.cut -= len;
                self.cuts.pop_front();
            }
            _ => self.forget_cuts(),
        }
        self.start = (self.start + len).min(self.buffer.len());
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
    }

    /// Keeps only the first `len` bytes; there are no blocks.
    pub(crate) fn truncate(&mut self, len: usize) {
        debug_assert!(self.blocks.is_empty());
        self.buffer.truncate(self.start + len);
        self.forget_cuts();
    }

    /// Begins anew with these bytes pending.
    pub(crate) fn reset(&mut self, pending: &[u8]) {
        self.blocks.clear();
        self.buffer.clear();
        self.start = 0;
        self.buffer.extend_from_slice(pending);
        self.forget_cuts();
    }

    fn forget_cuts(&mut self) {
        self.cuts.clear();
        self.cut = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, digest_of};

    fn cuts(pieces: &[&[u8]]) -> Vec<usize> {
        let mut chunker = Chunker::new(ChunkParams::default());
        let mut cuts = Vec::new();
        for piece in pieces {
            chunker.push(piece);
            while let Some(len) = chunker.peek(false).map(<[u8]>::len) {
                cuts.push(len);
                chunker.consume(len);
            }
        }
        while let Some(len) = chunker.peek(true).map(<[u8]>::len) {
            cuts.push(len);
            chunker.consume(len);
        }
        cuts
    }

    #[test]
    fn cuts_are_those_of_the_crate_whatever_the_pieces() {
        let mut random = Random::new(7);
        let data = random.bytes(1_000_003);
        let whole: Vec<_> = fastcdc::v2020::FastCDC::new(&data, 4096, 16384, 65536)
            .map(|chunk| chunk.length)
            .collect();
        assert_eq!(cuts(&[&data]), whole);
        for _ in 0..20 {
            let mut pieces = Vec::new();
            let mut rest = &data[..];
            while !rest.is_empty() {
                let most = 1 << random.below(18);
                let len = (random.below(most) as usize + 1).min(rest.len());
                let (piece, left) = rest.split_at(len);
                pieces.push(piece);
                rest = left;
            }
            assert_eq!(cuts(&pieces), whole, "seed 7");
        }
    }

    /// The cuts and names of a fixed stream. If this fails, every store and every peer loses its
    /// deduplication: the chunker must never change under parameters that exist.
    #[test]
    fn the_cuts_never_change() {
        let data = Random::new(1).bytes(200_000);
        let mut start = 0;
        let found: Vec<_> = cuts(&[&data])
            .into_iter()
            .map(|len| {
                start += len;
                (len, digest_of(&data[start - len..start]).to_string()[..16].to_owned())
            })
            .collect();
        let found: Vec<_> = found.iter().map(|(len, name)| (*len, name.as_str())).collect();
        let golden = [
            (16594, "f809377b22be3606"),
            (4854, "2ea9378e0eef1dab"),
            (6680, "2ac636e81713e942"),
            (16852, "0493a65b746140a8"),
            (17387, "27b478ccac902704"),
            (7368, "470a77f5bf30119a"),
            (18027, "de1765eea0eb2a86"),
            (21446, "348a9dadf00df4f2"),
            (6470, "62cd8b6384f39575"),
            (9809, "7f773ec5d334840a"),
            (26573, "42427b77622f0c03"),
            (20507, "f4f43d6b061be1ba"),
            (8036, "5b59d087b0a02f5d"),
            (12200, "c6a1fa923936205a"),
            (7197, "bdbcc870a167ad2d"),
        ];
        assert_eq!(found, golden);
    }

    #[test]
    fn bytes_of_one_value_are_cut_at_the_maximum() {
        assert_eq!(cuts(&[&[0; 200_000]]), [65536, 65536, 65536, 3392]);
    }
}
