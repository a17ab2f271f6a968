//! SHA-256 (FIPS 180-4) of many messages at once.
//!
//! A round of SHA-256 waits for the one before it, so a processor's SHA instructions are idle for
//! half of the time while one message is digested. Two messages whose rounds take turns fill the
//! gaps: the same digests in little more than half of the time. Where a processor has no such
//! instructions, or they are not known here, one message follows the other by the `sha2` crate.
#![cfg_attr(test, allow(clippy::unwrap_used))]

use sha2::block_api::compress256;

#[cfg(target_arch = "x86_64")]
mod x86;

/// Bytes of a block.
const BLOCK: usize = 64;

/// Bytes of a digest.
pub const LEN: usize = 32;

/// The first 32 bits of the fractional parts of the square roots of the first eight primes (FIPS
/// 180-4, 5.3.3).
const START: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// A message that is being digested.
struct Lane<'a> {
    /// Its place among the messages.
    place: usize,
    message: &'a [u8],
    /// Whole blocks that are still to come.
    blocks: &'a [[u8; BLOCK]],
    state: [u32; 8],
}

impl<'a> Lane<'a> {
    fn begin((place, message): (usize, &&'a [u8])) -> Self {
        Self { place, message, blocks: message.as_chunks().0, state: START }
    }

    /// Pads the rest (FIPS 180-4, 5.1.1), and says the digest.
    fn finish(mut self) -> [u8; LEN] {
        compress256(&mut self.state, self.blocks);
        let rest = self.message.as_chunks::<BLOCK>().1;
        let mut last = [[0; BLOCK]; 2];
        let ends = last.as_flattened_mut();
        ends[..rest.len()].copy_from_slice(rest);
        ends[rest.len()] = 0x80;
        let end = if rest.len() + 9 > BLOCK { 2 * BLOCK } else { BLOCK };
        let bits = (self.message.len() as u64).wrapping_mul(8);
        ends[end - 8..end].copy_from_slice(&bits.to_be_bytes());
        compress256(&mut self.state, &last[..end / BLOCK]);
        let mut digest = [0; LEN];
        for (bytes, word) in digest.as_chunks_mut().0.iter_mut().zip(self.state) {
            *bytes = word.to_be_bytes();
        }
        digest
    }
}

/// The SHA-256 of each message, in their order.
pub fn sha256(messages: &[&[u8]]) -> Vec<[u8; LEN]> {
    let mut digests = vec![[0; LEN]; messages.len()];
    let mut next = messages.iter().enumerate().map(Lane::begin);
    let (mut one, mut two) = (next.next(), next.next());
    while let (Some(a), Some(b)) = (&mut one, &mut two) {
        let both = a.blocks.len().min(b.blocks.len());
        let (now, later) = (a.blocks.split_at(both), b.blocks.split_at(both));
        compress_two([&mut a.state, &mut b.state], [now.0, later.0]);
        (a.blocks, b.blocks) = (now.1, later.1);
        for lane in [&mut one, &mut two] {
            if let Some(done) = lane.take_if(|lane| lane.blocks.is_empty()) {
                let place = done.place;
                digests[place] = done.finish();
                *lane = next.next();
            }
        }
    }
    for last in [one, two].into_iter().flatten() {
        let place = last.place;
        digests[place] = last.finish();
    }
    digests
}

/// Takes as many blocks of each into its state; there are as many of one as of the other.
fn compress_two(states: [&mut [u32; 8]; 2], blocks: [&[[u8; BLOCK]]; 2]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(compress) = x86::compress_two() {
        return compress(states, blocks);
    }
    for (state, blocks) in states.into_iter().zip(blocks) {
        compress256(state, blocks);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;

    fn hex(digest: &[u8]) -> String {
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The examples of FIPS 180-4 (its page of examples, SHA-256), and the empty message.
    #[test]
    fn digests_of_the_standard() {
        let long = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        let digests = sha256(&[b"abc", long, b"", &[b'a'; 1_000_000]]);
        let digests: Vec<_> = digests.iter().map(|digest| hex(digest)).collect();
        let known = [
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
        ];
        assert_eq!(digests, known);
    }

    #[test]
    fn every_length_of_a_rest_beside_every_other() {
        let bytes: Vec<u8> = (0..=255).cycle().take(400).collect();
        let parts: Vec<&[u8]> = (0..200).map(|len| &bytes[len..2 * len]).collect();
        for shift in 0..parts.len() {
            let two = [parts[0], parts[shift], parts[199 - shift]];
            let alone = two.map(|part| Sha256::digest(part).to_vec());
            assert_eq!(sha256(&two).concat(), alone.concat(), "{shift}");
        }
    }

    proptest! {
        #[test]
        fn many_are_digested_as_each_alone(
            lens in proptest::collection::vec(0..5000_usize, 0..40),
            seed in any::<u64>(),
        ) {
            let mut state = seed | 1;
            let mut byte = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                (state >> 56) as u8
            };
            let mut bytes = |len: &usize| (0..*len).map(|_| byte()).collect();
            let all: Vec<Vec<u8>> = lens.iter().map(&mut bytes).collect();
            let parts: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
            let alone = parts.iter().map(|part| Sha256::digest(part).into());
            prop_assert_eq!(sha256(&parts), alone.collect::<Vec<[u8; LEN]>>());
        }
    }
}
