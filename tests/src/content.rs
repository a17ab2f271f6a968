//! Seeded data of any size that needs no memory, with edits.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use crate::Rng;

/// How data looks to a compressor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Texture {
    /// Random bytes: nothing to gain.
    Incompressible,
    /// Words of a small vocabulary: about three to one.
    Compressible,
    /// Zeroes.
    Zero,
}

/// A block of a seeded source; any block can be made without those before it.
const BLOCK: u64 = 4096;

/// A piece of an endless seeded source.
#[derive(Clone, Debug)]
struct Piece {
    texture: Texture,
    seed: u64,
    /// Where in the source it begins.
    offset: u64,
    length: u64,
}

/// Data described by seeds, so that a GiB is a few words long, and can be edited and read again.
///
/// ```
/// use tests::{Content, Texture};
/// let first = Content::new(Texture::Incompressible, 1, 1 << 20);
/// let second = first.clone().overwrite(4096, 65536, 2).insert(500_000, 1000, 3);
/// assert_eq!(second.length(), first.length() + 1000);
/// assert_ne!(first.sha256(), second.sha256());
/// ```
#[derive(Clone, Debug)]
pub struct Content {
    pieces: Vec<Piece>,
    texture: Texture,
}

impl Content {
    /// `length` bytes from a seed.
    pub fn new(texture: Texture, seed: u64, length: u64) -> Self {
        Self { pieces: vec![Piece { texture, seed, offset: 0, length }], texture }
    }

    /// How many bytes there are.
    pub fn length(&self) -> u64 {
        self.pieces.iter().map(|p| p.length).sum()
    }

    /// Replaces `length` bytes at `at` by new ones of the same texture.
    #[must_use]
    pub fn overwrite(mut self, at: u64, length: u64, seed: u64) -> Self {
        let from = self.split(at);
        let to = self.split(at + length);
        self.pieces.splice(from..to, [Piece { texture: self.texture, seed, offset: 0, length }]);
        self
    }

    /// Puts `length` new bytes before the one at `at`.
    #[must_use]
    pub fn insert(mut self, at: u64, length: u64, seed: u64) -> Self {
        let here = self.split(at);
        self.pieces.insert(here, Piece { texture: self.texture, seed, offset: 0, length });
        self
    }

    /// The usual second generation: `overwrites` of 64 KiB and `inserts` of up to 64 KiB at random
    /// places.
    #[must_use]
    pub fn edited(mut self, overwrites: usize, inserts: usize, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        for _ in 0..overwrites {
            let at = rng.below(self.length().saturating_sub(65_536));
            self = self.overwrite(at, 65_536, rng.next_u64());
        }
        for _ in 0..inserts {
            let at = rng.below(self.length());
            self = self.insert(at, rng.between(1, 65_536), rng.next_u64());
        }
        self
    }

    /// A reader from the first byte on.
    pub fn reader(&self) -> Reader {
        Reader { pieces: self.pieces.clone(), piece: 0, inside: 0 }
    }

    /// All of it in memory; for small ones.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.length() as usize);
        self.reader().read_to_end(&mut bytes).expect("the generator does not fail");
        bytes
    }

    /// The SHA-256 of all of it, in hexadecimal.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut reader = self.reader();
        loop {
            match reader.read(&mut buffer).expect("the generator does not fail") {
                0 => break,
                n => hash.update(&buffer[..n]),
            }
        }
        hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Makes `at` a boundary between two pieces and tells the index of the second.
    fn split(&mut self, at: u64) -> usize {
        let mut start = 0;
        for index in 0..self.pieces.len() {
            if at == start {
                return index;
            }
            let piece = &mut self.pieces[index];
            if at < start + piece.length {
                let head = at - start;
                let tail = Piece {
                    offset: piece.offset + head,
                    length: piece.length - head,
                    ..piece.clone()
                };
                piece.length = head;
                self.pieces.insert(index + 1, tail);
                return index + 1;
            }
            start += piece.length;
        }
        assert_eq!(at, start, "an edit beyond the end");
        self.pieces.len()
    }
}

/// Reads a [`Content`] in order.
#[derive(Clone, Debug)]
pub struct Reader {
    pieces: Vec<Piece>,
    piece: usize,
    inside: u64,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(piece) = self.pieces.get(self.piece)
            && filled < buffer.len()
        {
            let room = (buffer.len() - filled) as u64;
            let take = room.min(piece.length - self.inside) as usize;
            fill(piece, self.inside, &mut buffer[filled..filled + take]);
            filled += take;
            self.inside += take as u64;
            if self.inside == piece.length {
                self.piece += 1;
                self.inside = 0;
            }
        }
        Ok(filled)
    }
}

/// Fills `out` with the bytes of `piece` from `inside` on.
fn fill(piece: &Piece, inside: u64, out: &mut [u8]) {
    let mut block = [0; BLOCK as usize];
    let mut at = piece.offset + inside;
    let mut done = 0;
    while done < out.len() {
        make_block(piece.texture, piece.seed, at / BLOCK, &mut block);
        let from = (at % BLOCK) as usize;
        let take = (block.len() - from).min(out.len() - done);
        out[done..done + take].copy_from_slice(&block[from..from + take]);
        done += take;
        at += take as u64;
    }
}

fn make_block(texture: Texture, seed: u64, number: u64, block: &mut [u8; BLOCK as usize]) {
    let mut rng = Rng::new(seed ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
    match texture {
        Texture::Zero => block.fill(0),
        Texture::Incompressible => rng.fill(block),
        Texture::Compressible => {
            // A vocabulary of 64 words of 16 bytes, made of the seed alone.
            let mut words = Rng::new(seed).fork("words");
            let words = words.bytes(64 * 16);
            for place in block.chunks_mut(16) {
                let word = rng.below(64) as usize * 16;
                place.copy_from_slice(&words[word..word + 16]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_do_what_they_do_to_a_vector() {
        let mut rng = Rng::new(crate::seed("content"));
        for _ in 0..50 {
            let length = rng.between(1, 40_000);
            let mut content = Content::new(Texture::Compressible, rng.next_u64(), length);
            let mut model = content.to_vec();
            for _ in 0..rng.below(6) {
                let seed = rng.next_u64();
                let at = rng.below(model.len() as u64 + 1);
                let most = model.len() as u64 - at;
                let n = rng.between(0, most.min(9000));
                let new = Content::new(Texture::Compressible, seed, n).to_vec();
                if rng.chance(1, 2) {
                    model.splice(at as usize..(at + n) as usize, new);
                    content = content.overwrite(at, n, seed);
                } else {
                    model.splice(at as usize..at as usize, new);
                    content = content.insert(at, n, seed);
                }
            }
            assert!(content.to_vec() == model);
        }
    }

    #[test]
    fn pieces_of_any_size_read_the_same_and_the_digest_is_pinned() {
        let content = Content::new(Texture::Incompressible, 1, 100_000).edited(1, 3, 9);
        let whole = content.to_vec();
        let mut reader = content.reader();
        let mut rng = Rng::new(3);
        let mut got = Vec::new();
        loop {
            let mut piece = vec![0; rng.between(1, 7000) as usize];
            match reader.read(&mut piece).unwrap() {
                0 => break,
                n => got.extend_from_slice(&piece[..n]),
            }
        }
        assert!(got == whole);
        let pinned = [
            (
                Texture::Incompressible,
                "12aefdd91894ccff5699aebc3a65b2519c9ecfcd2416aab32030886c89d51cee",
            ),
            (
                Texture::Compressible,
                "af6ecbddd15a06db97d50a2d253b74758761e555a45a97f17a32948d1dc1a864",
            ),
        ];
        for (texture, pinned) in pinned {
            assert_eq!(Content::new(texture, 1, 10_000).sha256(), pinned);
        }
    }
}
