//! FastCDC's cut, as the crate makes it, with less to check at each byte.

use std::borrow::Cow;

use fastcdc::v2020::{Normalization, cut, get_gear_with_seed, select_masks};

use crate::Sizes;

/// Bytes that are looked at between two checks of where the chunk ends.
const STEP: usize = 8;

/// Finds the cuts that content decides on.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    sizes: Sizes,
    /// For chunks that are shorter than the average, and the others.
    masks: (u64, u64),
    /// What a byte adds to the hash, and twice that.
    gear: (Cow<'static, [u64]>, Cow<'static, [u64]>),
}

impl Content {
    pub(crate) fn new(sizes: Sizes) -> Self {
        let masks = select_masks(sizes.average, Normalization::Level1);
        Self { sizes, masks, gear: get_gear_with_seed(0) }
    }

    /// The length of the chunk at the front of `bytes`.
    pub(crate) fn cut(&self, bytes: &[u8]) -> usize {
        let Sizes { min, average, max } = self.sizes;
        let bytes = &bytes[..bytes.len().min(max)];
        let ((short, long), end) = (self.masks, bytes.len());
        let (Some(once), Some(twice)) = (self.gear.0.first_chunk(), self.gear.1.first_chunk())
        else {
            return cut(bytes, min, average, max, short, long, short << 1, long << 1).1;
        };
        if end <= min {
            return end;
        }
        // Places are looked at in pairs; a last one alone is none.
        let last = end / 2 * 2;
        let center = average.min(last);
        let mut hash = Hash { once, twice, sum: 0 };
        if let Some(found) = hash.find(&bytes[min..center], short) {
            return min + found;
        }
        hash.find(&bytes[center..last], long).map_or(end, |found| center + found)
    }
}

/// The gear hash: `sum of gear[byte] << distance` over the bytes so far.
struct Hash<'a> {
    once: &'a [u64; 256],
    twice: &'a [u64; 256],
    sum: u64,
}

impl Hash<'_> {
    /// Goes over bytes, an even number, to the first with which the hash has no bit of `mask`.
    fn find(&mut self, bytes: &[u8], mask: u64) -> Option<usize> {
        let (steps, rest) = bytes.as_chunks::<STEP>();
        let mut at = 0;
        for step in steps {
            let (pairs, _) = step.as_chunks::<2>();
            for (pair, number) in pairs.iter().zip(0..) {
                if let Some(odd) = self.pair(*pair, mask) {
                    return Some(at + 2 * number + odd);
                }
            }
            at += STEP;
        }
        for pair in rest.as_chunks::<2>().0 {
            if let Some(odd) = self.pair(*pair, mask) {
                return Some(at + odd);
            }
            at += 2;
        }
        None
    }

    /// Takes two bytes in; which of them has no bit of `mask`. One shift does for both.
    #[inline(always)]
    fn pair(&mut self, [even, odd]: [u8; 2], mask: u64) -> Option<usize> {
        self.sum = (self.sum << 2).wrapping_add(self.twice[usize::from(even)]);
        if self.sum & (mask << 1) == 0 {
            return Some(0);
        }
        self.sum = self.sum.wrapping_add(self.once[usize::from(odd)]);
        (self.sum & mask == 0).then_some(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZES: [Sizes; 4] = [
        Sizes { min: 4 << 10, average: 16 << 10, max: 64 << 10 },
        Sizes { min: 64, average: 256, max: 1024 },
        Sizes { min: 64, average: 16 << 10, max: 256 << 10 },
        Sizes { min: 2048, average: 4096, max: 40_002 },
    ];

    fn by_the_crate(sizes: Sizes, bytes: &[u8]) -> usize {
        let Sizes { min, average, max } = sizes;
        let (short, long) = select_masks(average, Normalization::Level1);
        cut(bytes, min, average, max, short, long, short << 1, long << 1).1
    }

    /// Few values make hashes that come again; whether one is a cut is the seed's luck.
    fn bytes(length: usize, values: u8, seed: u64) -> Vec<u8> {
        let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((state >> 32) as u8) % values.max(1)
        };
        (0..length).map(|_| next()).collect()
    }

    proptest! {
        #[test]
        fn cuts_are_those_of_the_crate(
            length in 0usize..200_000,
            values in prop_oneof![Just(255u8), 1u8..4],
            seed: u64,
        ) {
            let data = bytes(length, values, seed);
            for sizes in SIZES {
                let content = Content::new(sizes);
                let mut rest = &data[..];
                for _ in 0..100 {
                    let found = content.cut(rest);
                    prop_assert_eq!(found, by_the_crate(sizes, rest), "{:?}", sizes);
                    rest = &rest[found..];
                    if rest.is_empty() {
                        break;
                    }
                }
            }
        }
    }

    #[test]
    fn every_length_is_cut_as_the_crate_does() {
        let data = bytes(70_000, 255, 1);
        for sizes in SIZES {
            let content = Content::new(sizes);
            for length in (0..data.len()).step_by(61).chain(0..5000) {
                let data = &data[..length];
                assert_eq!(content.cut(data), by_the_crate(sizes, data), "{sizes:?} {length}");
            }
        }
    }

    #[test]
    fn without_the_table_the_crate_cuts() {
        let data = bytes(70_000, 255, 2);
        let none = || Cow::Owned(Vec::new());
        let content = Content { gear: (none(), none()), ..Content::new(SIZES[0]) };
        assert_eq!(content.cut(&data), by_the_crate(SIZES[0], &data));
    }
}
