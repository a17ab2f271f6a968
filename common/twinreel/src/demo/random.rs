//! Bytes and choices from a seed.

use std::io::{self, Write};

/// SplitMix64 (Steele, Lea, Flood 2014): one 64-bit state, every seed is good.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// One of its own for each name.
    pub(super) fn named(seed: u64, name: &str) -> Self {
        // FNV-1a.
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(name.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, mix))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `bound` - 1; 0 for a bound of 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// True `some` times out of `all`.
    pub(super) fn chance(&mut self, some: u64, all: u64) -> bool {
        self.below(all) < some
    }

    /// Writes `length` bytes of the endless stream that begins here, from the byte `offset` on.
    pub(super) fn write(
        mut self,
        out: &mut impl Write,
        offset: u64,
        length: u64,
    ) -> io::Result<()> {
        self.0 = self.0.wrapping_add(STEP.wrapping_mul(offset / 8));
        let mut skip = (offset % 8) as usize;
        let mut left = length;
        let mut buffer = [0u8; 64 << 10];
        while left > 0 {
            for word in buffer.chunks_exact_mut(8) {
                word.copy_from_slice(&self.next().to_le_bytes());
            }
            let count = left.min((buffer.len() - skip) as u64) as usize;
            out.write_all(&buffer[skip..skip + count])?;
            left -= count as u64;
            skip = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_of_a_stream_is_the_same_as_within_the_whole() {
        let mut whole = Vec::new();
        Random::named(3, "x").write(&mut whole, 0, 200_000).unwrap();
        assert_eq!(whole.len(), 200_000);
        for (offset, length) in [(0, 1), (7, 9), (65_535, 70_000), (199_999, 1), (8, 0)] {
            let mut part = Vec::new();
            Random::named(3, "x").write(&mut part, offset, length).unwrap();
            let from = offset as usize;
            assert_eq!(part, whole[from..from + length as usize], "{offset} {length}");
        }
    }
}
