//! What the simulations share: random numbers from a printed seed, and how many schedules to run.
#![allow(dead_code)]

/// SplitMix64: small, good enough, the same for ever.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// True so many times in a thousand.
    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// Runs `schedule` with many seeds; `TWINREEL_SEED` runs one again, `TWINREEL_LINK_SEEDS` sets how
/// many. A failing seed is printed with the way to run it again.
pub(crate) fn seeds(default: u64, schedule: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    let (first, count) = match number("TWINREEL_SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("TWINREEL_LINK_SEEDS").unwrap_or(default)),
    };
    println!("seeds {first} to {}", first + count - 1);
    for seed in first..first + count {
        let result = std::panic::catch_unwind(|| schedule(seed));
        if let Err(panic) = result {
            println!("failed with TWINREEL_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
