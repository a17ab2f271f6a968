//! Which digests a run certainly does not have: a Bloom filter in blocks of a cache line.

use crate::bytesio::Put;

/// Bits of a digest in the filter. With eight probes about one digest in a thousand that is not
/// there seems to be.
const BITS: u64 = 16;
const PROBES: u32 = 8;
/// 64-bit words of a block: 512 bits.
const WORDS: usize = 8;

/// A filter over digests.
pub(super) struct Filter(Box<[[u64; WORDS]]>);

impl Filter {
    /// For so many digests.
    pub(super) fn new(digests: u64) -> Self {
        let blocks = (digests * BITS).div_ceil(64 * WORDS as u64).max(1);
        Self(vec![[0; WORDS]; usize::try_from(blocks).unwrap_or(usize::MAX)].into())
    }

    /// Bytes that it takes on disk and in memory.
    pub(super) fn size(&self) -> u64 {
        (self.0.len() * WORDS * 8) as u64
    }

    /// The block of a digest, and where its bits are in there: parts of the digest that the order
    /// of runs and the tables in memory do not use.
    fn place(&self, digest: &[u8; 32]) -> (usize, u128) {
        let [first, second, ..] = digest.as_chunks::<8>().0 else { return (0, 0) };
        let word = u64::from_le_bytes(*second) ^ u64::from_le_bytes(*first).rotate_left(32);
        let block = (u128::from(word) * self.0.len() as u128) >> 64;
        let bits = digest.last_chunk::<16>().copied().unwrap_or_default();
        (block as usize, u128::from_le_bytes(bits))
    }

    fn probes(bits: u128) -> impl Iterator<Item = (usize, u64)> {
        (0..PROBES).map(move |probe| {
            let bit = (bits >> (probe * 9)) as usize % (64 * WORDS);
            (bit / 64, 1 << (bit % 64))
        })
    }

    pub(super) fn insert(&mut self, digest: &[u8; 32]) {
        let (block, bits) = self.place(digest);
        Self::probes(bits).for_each(|(word, mask)| self.0[block][word] |= mask);
    }

    /// False: it was never inserted.
    pub(super) fn may_have(&self, digest: &[u8; 32]) -> bool {
        let (block, bits) = self.place(digest);
        let block = &self.0[block];
        Self::probes(bits).all(|(word, mask)| block[word] & mask != 0)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        self.0.iter().flatten().for_each(|word| out.put_u64(*word));
    }

    /// `None` unless these are whole blocks.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (blocks, rest) = bytes.as_chunks::<{ WORDS * 8 }>();
        let block = |block: &[u8; WORDS * 8]| {
            let mut words = [0; WORDS];
            for (word, bytes) in words.iter_mut().zip(block.as_chunks::<8>().0) {
                *word = u64::from_le_bytes(*bytes);
            }
            words
        };
        let filter = Self(blocks.iter().map(block).collect());
        (rest.is_empty() && !filter.0.is_empty()).then_some(filter)
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn what_is_in_is_found_and_little_else() {
        let digest = |n: u32| -> [u8; 32] { Sha256::digest(n.to_le_bytes()).into() };
        let mut filter = Filter::new(20_000);
        (0..20_000).for_each(|n| filter.insert(&digest(n)));
        let mut bytes = Vec::new();
        filter.encode(&mut bytes);
        assert_eq!((bytes.len() as u64, filter.size()), (40_000, 40_000));
        let filter = Filter::decode(&bytes).unwrap();
        assert!((0..20_000).all(|n| filter.may_have(&digest(n))));
        let wrong = (20_000..120_000).filter(|n| filter.may_have(&digest(*n))).count();
        println!("{wrong} of 100000 seem to be there");
        assert!(wrong < 400);
        assert!(Filter::decode(&bytes[1..]).is_none() && Filter::decode(&[]).is_none());
    }
}
