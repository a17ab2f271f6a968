//! Two messages by the SHA extensions of x86-64 (Intel 64 and IA-32 Architectures Software
//! Developer's Manual, volume 2: SHA256RNDS2, SHA256MSG1, SHA256MSG2).

use std::arch::x86_64::*;

use crate::BLOCK;

/// The first 32 bits of the fractional parts of the cube roots of the first 64 primes (FIPS 180-4,
/// 4.2.2), by fours.
const K: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
    [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
    [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
    [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
    [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
    [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
    [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
    [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
    [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

type States<'a> = [&'a mut [u32; 8]; 2];
type Blocks<'a> = [&'a [[u8; BLOCK]]; 2];

/// How two messages are digested together, if this processor can.
pub(crate) fn compress_two() -> Option<fn(States<'_>, Blocks<'_>)> {
    #[allow(unsafe_code)]
    fn compress(states: States<'_>, blocks: Blocks<'_>) {
        // SAFETY: only given out where the processor has these instructions, which is all that
        // `take_turns` asks for: it touches no memory but by references.
        unsafe { take_turns(states, blocks) }
    }
    let can = is_x86_feature_detected!("sha")
        && is_x86_feature_detected!("sse4.1")
        && is_x86_feature_detected!("ssse3");
    can.then_some(compress as fn(States<'_>, Blocks<'_>))
}

/// The state of a message, as SHA256RNDS2 wants it, and the words of the schedule that come next.
#[derive(Clone, Copy)]
struct Lane {
    abef: __m128i,
    cdgh: __m128i,
    words: [__m128i; 4],
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn four(words: [u32; 4]) -> __m128i {
    let [a, b, c, d] = words.map(u32::cast_signed);
    _mm_set_epi32(d, c, b, a)
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn words(register: __m128i) -> [u32; 4] {
    [
        _mm_extract_epi32::<0>(register),
        _mm_extract_epi32::<1>(register),
        _mm_extract_epi32::<2>(register),
        _mm_extract_epi32::<3>(register),
    ]
    .map(i32::cast_unsigned)
}

impl Lane {
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn load([a, b, c, d, e, f, g, h]: [u32; 8]) -> Self {
        let (abef, cdgh) = (four([f, e, b, a]), four([h, g, d, c]));
        Self { abef, cdgh, words: [abef; 4] }
    }

    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn store(self) -> [u32; 8] {
        let ([f, e, b, a], [h, g, d, c]) = (words(self.abef), words(self.cdgh));
        [a, b, c, d, e, f, g, h]
    }

    /// The first sixteen words of the schedule are the block.
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn begin(&mut self, block: &[u8; BLOCK]) {
        let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        for (words, part) in self.words.iter_mut().zip(block.as_chunks::<16>().0) {
            let part = u128::from_le_bytes(*part);
            let part = _mm_set_epi64x((part >> 64) as i64, part as i64);
            *words = _mm_shuffle_epi8(part, swap);
        }
    }

    /// Four rounds, with the four words that come first.
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn rounds(&mut self, k: __m128i) {
        let sums = _mm_add_epi32(self.words[0], k);
        self.cdgh = _mm_sha256rnds2_epu32(self.cdgh, self.abef, sums);
        let later = _mm_shuffle_epi32::<0x0e>(sums);
        self.abef = _mm_sha256rnds2_epu32(self.abef, self.cdgh, later);
    }

    /// Four words more behind, instead of those in front.
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn schedule(&mut self) {
        let [w0, w1, w2, w3] = self.words;
        let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8::<4>(w3, w2));
        self.words = [w1, w2, w3, _mm_sha256msg2_epu32(sum, w3)];
    }

    /// The first four words are done with, and no more are needed.
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn pass(&mut self) {
        let [w0, w1, w2, w3] = self.words;
        self.words = [w1, w2, w3, w0];
    }

    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn end(&mut self, before: &Self) {
        self.abef = _mm_add_epi32(self.abef, before.abef);
        self.cdgh = _mm_add_epi32(self.cdgh, before.cdgh);
    }
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn take_turns([one, two]: States<'_>, blocks: Blocks<'_>) {
    let (mut a, mut b) = (Lane::load(*one), Lane::load(*two));
    for (first, second) in blocks[0].iter().zip(blocks[1]) {
        let before = (a, b);
        a.begin(first);
        b.begin(second);
        let (scheduled, last) = K.split_at(12);
        for k in scheduled {
            let k = four(*k);
            a.rounds(k);
            b.rounds(k);
            a.schedule();
            b.schedule();
        }
        for k in last {
            let k = four(*k);
            a.rounds(k);
            b.rounds(k);
            a.pass();
            b.pass();
        }
        a.end(&before.0);
        b.end(&before.1);
    }
    (*one, *two) = (a.store(), b.store());
}
