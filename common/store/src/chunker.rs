//! Where the byte stream is cut: fastcdc v2020 over a buffer that takes bytes in pieces of any
//! size.
//!
//! A cut depends only on the bytes since the cut before it. So the same bytes give the same cuts
//! however they arrive, and cutting may begin anew at any earlier cut.

use fastcdc::v2020::{Normalization, cut, select_masks};

use crate::ChunkParams;

/// Room in the buffer, in chunks of the largest size.
const BUFFERED_CHUNKS: usize = 16;

/// A byte stream's end that is not cut yet.
#[derive(Debug)]
pub(crate) struct Chunker {
    params: ChunkParams,
    masks: (u64, u64),
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were cut off already.
    start: usize,
}

impl Chunker {
    pub(crate) fn new(params: ChunkParams) -> Self {
        let masks = select_masks(params.average as usize, Normalization::Level1);
        Self { params, masks, buffer: Vec::new(), start: 0 }
    }

    /// Bytes that wait for a cut.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Appends bytes to the stream.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.buffer.capacity() == 0 {
            self.buffer.reserve(BUFFERED_CHUNKS * self.params.max as usize);
        }
        // Moving the rest down costs at most one chunk's copy for each buffer full of chunks.
        if self.start > 0 && self.buffer.len() + bytes.len() > self.buffer.capacity() {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next chunk, if its end is certain already: no byte to come can move it. With `end`
    /// (the stream ends here) the last one, whatever its length; `None` when nothing is left.
    pub(crate) fn peek(&self, end: bool) -> Option<&[u8]> {
        let pending = self.pending();
        // Below the maximum a scan may end at the end of what is there and would be repeated.
        if pending.is_empty() || (!end && pending.len() < self.params.max as usize) {
            return None;
        }
        Some(&pending[..self.cut(pending)])
    }

    /// Removes the first `len` bytes of what is pending: the chunk that was peeked.
    pub(crate) fn consume(&mut self, len: usize) {
        self.start = (self.start + len).min(self.buffer.len());
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
    }

    /// Keeps only the first `len` pending bytes.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.buffer.truncate(self.start + len);
    }

    /// Begins anew with these bytes pending.
    pub(crate) fn reset(&mut self, pending: &[u8]) {
        self.buffer.clear();
        self.start = 0;
        self.buffer.extend_from_slice(pending);
    }

    fn cut(&self, bytes: &[u8]) -> usize {
        let ChunkParams { min, average, max } = self.params;
        let (short, long) = self.masks;
        let sizes = (min as usize, average as usize, max as usize);
        cut(bytes, sizes.0, sizes.1, sizes.2, short, long, short << 1, long << 1).1
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
