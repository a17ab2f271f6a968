//! Where a stream is cut: as a store cuts by default, so that names meet.

use bytes::{Bytes, BytesMut};
use cut::{Cutter, Rules, Sizes};

/// Room in the buffer: moving a rest to a new one costs at most one chunk's copy in so many bytes.
const BUFFER: usize = 1 << 20;

/// Takes bytes in pieces of any size and cuts them; the cuts depend on the bytes alone.
#[derive(Debug)]
pub struct Chunker {
    buffer: BytesMut,
    cutter: Cutter,
}

impl Default for Chunker {
    fn default() -> Self {
        let cutter = Cutter::new(Sizes::default(), Rules::default());
        Self { buffer: BytesMut::new(), cutter }
    }
}

impl Chunker {
    /// Appends bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.buffer.capacity() - self.buffer.len() < bytes.len() {
            self.buffer.reserve(bytes.len().max(BUFFER));
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that wait for a cut.
    pub fn pending(&self) -> usize {
        self.buffer.len()
    }

    /// The next chunk whose end no byte to come can move; with `end` also the last one, however
    /// short. `None` when there is none.
    pub fn next(&mut self, end: bool) -> Option<Bytes> {
        let certain = self.buffer.len() >= self.cutter.certain();
        let enough = certain || (end && !self.buffer.is_empty());
        enough.then(|| self.buffer.split_to(self.cutter.next(&self.buffer)).freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastcdc::v2020::FastCDC;

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn pieces_do_not_move_cuts() {
        let data = noise(1 << 20);
        let whole: Vec<usize> = FastCDC::new(&data, 4096, 16384, 65536).map(|c| c.length).collect();
        for piece in [1, 777, 4096, 65_536, 1 << 20] {
            let mut chunker = Chunker::default();
            let mut cuts = Vec::new();
            for part in data.chunks(piece) {
                chunker.push(part);
                cuts.extend(std::iter::from_fn(|| chunker.next(false)).map(|c| c.len()));
            }
            cuts.extend(std::iter::from_fn(|| chunker.next(true)).map(|c| c.len()));
            assert_eq!(cuts, whole, "pieces of {piece}");
            assert_eq!(chunker.pending(), 0);
        }
    }
}
