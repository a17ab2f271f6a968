//! Random numbers that are the same on every machine and in every release of every crate.

use std::sync::OnceLock;

/// SplitMix64 (Steele, Lea, Flood 2014): one 64-bit state, every seed is good.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator for this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator of its own for a named part of a test, so that adding a draw to one part does
    /// not change what another part sees.
    pub fn fork(&self, part: &str) -> Self {
        let mix = |h: u64, b: u8| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
        Self(part.bytes().fold(self.0 ^ 0xcbf2_9ce4_8422_2325, mix))
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `bound` - 1; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True `numerator` times out of `denominator`.
    pub fn chance(&mut self, numerator: u64, denominator: u64) -> bool {
        self.below(denominator) < numerator
    }

    /// One of `items`.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    /// Fills `buffer` with random bytes.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for piece in buffer.chunks_mut(8) {
            piece.copy_from_slice(&self.next_u64().to_le_bytes()[..piece.len()]);
        }
    }

    /// So many random bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.fill(&mut bytes);
        bytes
    }
}

/// The seed of this run: `TWINREEL_SEED` if set, else a fixed one, so that a plain run is the same
/// every time. Printed with the command that repeats it.
pub fn seed(test: &str) -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    let seed = *SEED.get_or_init(|| match std::env::var("TWINREEL_SEED") {
        Ok(text) => text.parse().expect("TWINREEL_SEED is a number"),
        Err(_) => 20_260_101,
    });
    println!("seed {seed}: repeat with TWINREEL_SEED={seed} cargo test -p tests {test}");
    seed
}

/// How much to do: `quick` in a plain run, `full` under `tests/run --full` (`TWINREEL_FULL=1`).
pub fn full<T>(quick: T, full: T) -> T {
    if std::env::var_os("TWINREEL_FULL").is_some_and(|v| v == "1") { full } else { quick }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vector_comes_out() {
        let mut rng = Rng::new(1_234_567);
        let got: Vec<_> = (0..3).map(|_| rng.next_u64()).collect();
        assert_eq!(
            got,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn draws_stay_in_their_bounds() {
        let mut rng = Rng::new(7);
        assert!((0..1000).all(|_| (3..=9).contains(&rng.between(3, 9))));
        assert_eq!(rng.below(0), 0);
        assert_ne!(rng.fork("a").next_u64(), rng.fork("b").next_u64());
    }
}
