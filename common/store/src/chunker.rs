//! The byte stream's end, cut as [`cut`] says over a buffer that takes bytes in pieces of any size.

use std::collections::VecDeque;

use bytes::Bytes;
use cut::Cutter;

use crate::ChunkParams;

/// What is as long as so many chunks of average size is cut on another thread: 1 MiB by default.
const SLAB_CHUNKS: usize = 64;

/// A byte stream's end that is not stored yet: slabs that were given away to be cut, and behind
/// them what is cut here or waits for its slab to fill.
#[derive(Debug)]
pub(crate) struct Chunker {
    params: ChunkParams,
    cutter: Cutter,
    /// Bytes of the slabs, as far as they are not consumed.
    slabs: VecDeque<Bytes>,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were consumed already.
    start: usize,
    /// Lengths of the chunks behind `start` whose ends are certain, and their sum.
    cuts: VecDeque<u32>,
    cut: usize,
}

impl Chunker {
    pub(crate) fn new(params: ChunkParams) -> Self {
        let (slabs, cuts) = (VecDeque::new(), VecDeque::new());
        let cutter = params.cutter();
        Self { params, cutter, slabs, buffer: Vec::new(), start: 0, cuts, cut: 0 }
    }

    fn slab(&self) -> usize {
        SLAB_CHUNKS * self.params.average as usize
    }

    /// A slab and a record.
    fn room(&self) -> usize {
        self.slab() + 2 * self.params.max as usize
    }

    /// Bytes that are not consumed.
    pub(crate) fn len(&self) -> usize {
        let slabs: usize = self.slabs.iter().map(Bytes::len).sum();
        slabs + self.buffer.len() - self.start
    }

    /// The bytes behind the slabs.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// What is there from `offset` on, or the first part of it.
    pub(crate) fn piece(&self, mut offset: usize) -> &[u8] {
        for slab in &self.slabs {
            match offset.checked_sub(slab.len()) {
                Some(behind) => offset = behind,
                None => return &slab[offset..],
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

    /// The next slab, once there is enough for one.
    pub(crate) fn take_slab(&mut self) -> Option<Bytes> {
        if self.pending().len() < self.slab() {
            return None;
        }
        self.forget_cuts();
        let room = Vec::with_capacity(self.room());
        let slab = Bytes::from(std::mem::replace(&mut self.buffer, room)).slice(self.start..);
        self.start = 0;
        self.slabs.push_back(slab.clone());
        Some(slab)
    }

    /// What is not consumed of the slabs is cut here after all: what was cut there is consumed.
    pub(crate) fn take_back(&mut self) {
        if self.slabs.is_empty() {
            return;
        }
        let mut buffer = Vec::with_capacity(self.room());
        self.slabs.drain(..).for_each(|slab| buffer.extend_from_slice(&slab));
        buffer.extend_from_slice(self.pending());
        (self.buffer, self.start) = (buffer, 0);
        self.forget_cuts();
    }

    /// The next chunk behind the slabs, if its end is certain already. With `end` (the stream
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
        while let Some(slab) = self.slabs.front_mut() {
            let part = len.min(slab.len());
            let _ = slab.split_to(part);
            len -= part;
            match slab.is_empty() {
                true => drop(self.slabs.pop_front()),
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

    /// Keeps only the first `len` bytes; there are no slabs.
    pub(crate) fn truncate(&mut self, len: usize) {
        debug_assert!(self.slabs.is_empty());
        self.buffer.truncate(self.start + len);
        self.forget_cuts();
    }

    /// Begins anew with these bytes pending.
    pub(crate) fn reset(&mut self, pending: &[u8]) {
        self.slabs.clear();
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
