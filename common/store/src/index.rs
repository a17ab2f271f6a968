//! Digest to place: which chunks there are and where they lie. All in memory for now (66 to 131
//! bytes a chunk); nothing outside this module knows how it is kept.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};

use model::Digest;

use crate::Encoding;

/// Where a chunk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) container: u32,
    /// Of its header, in the container file.
    pub(crate) offset: u32,
    pub(crate) stored_len: u32,
    pub(crate) raw_len: u32,
    pub(crate) encoding: Encoding,
}

/// Hashes a digest. Its bytes are random already, so eight of them mixed with a secret are hash
/// enough, and nobody outside can aim at one bucket.
#[derive(Clone)]
struct Mixer {
    secret: u64,
    state: u64,
}

impl BuildHasher for Mixer {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        self.clone()
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        // The length prefix of the array comes by itself, in 8 bytes, and is no use.
        if let Some(word) = bytes.first_chunk::<8>().filter(|_| bytes.len() >= 32) {
            let word = u128::from(u64::from_le_bytes(*word) ^ self.secret);
            let product = word * 0x9e37_79b9_7f4a_7c15;
            self.state = (product as u64) ^ ((product >> 64) as u64);
        }
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

/// A chunk's place, and the epoch in which somebody last relied on it.
struct Entry {
    location: Location,
    stamp: AtomicU32,
}

/// The chunks of a store.
pub(crate) struct Index {
    map: HashMap<[u8; 32], Entry, Mixer>,
    raw_bytes: u64,
    stored_bytes: u64,
}

impl Index {
    pub(crate) fn new() -> Self {
        let secret = RandomState::new().build_hasher().finish();
        let map = HashMap::with_hasher(Mixer { secret, state: 0 });
        Self { map, raw_bytes: 0, stored_bytes: 0 }
    }

    /// Where the chunk lies, `None` if it is not here.
    pub(crate) fn lookup(&self, digest: &Digest) -> Option<Location> {
        self.map.get(digest.as_bytes()).map(|entry| entry.location)
    }

    /// The same, and notes that somebody relies on it.
    pub(crate) fn touch(&self, digest: &Digest, epoch: u32) -> Option<Location> {
        let entry = self.map.get(digest.as_bytes())?;
        entry.stamp.fetch_max(epoch, Ordering::AcqRel);
        Some(entry.location)
    }

    /// The place of a chunk, and whether anybody relied on it since the beginning of `epoch`.
    pub(crate) fn is_live(&self, digest: &Digest, epoch: u32) -> Option<(Location, bool)> {
        let entry = self.map.get(digest.as_bytes())?;
        Some((entry.location, entry.stamp.load(Ordering::Acquire) >= epoch))
    }

    /// All places, each with whether anybody relied on it since the beginning of `epoch`.
    pub(crate) fn places(&self, epoch: u32) -> impl Iterator<Item = (Location, bool)> + '_ {
        let live = move |entry: &Entry| entry.stamp.load(Ordering::Acquire) >= epoch;
        self.map.values().map(move |entry| (entry.location, live(entry)))
    }

    /// Moves a chunk, if it still lies at `from`.
    pub(crate) fn relocate(&mut self, digest: &Digest, from: Location, to: Location) {
        let entry = self.map.get_mut(digest.as_bytes()).filter(|entry| entry.location == from);
        entry.into_iter().for_each(|entry| entry.location = to);
    }

    /// Enters a chunk; one that is here already is from now on read from the new place.
    pub(crate) fn insert(&mut self, digest: &Digest, location: Location, epoch: u32) {
        let entry = Entry { location, stamp: AtomicU32::new(epoch) };
        let old = self.map.insert(*digest.as_bytes(), entry);
        self.count(old.map(|old| old.location), u64::wrapping_sub);
        self.count(Some(location), u64::wrapping_add);
    }

    /// Forgets a chunk that turned out to be damaged at this place or is not needed any more, so
    /// that it is stored anew when somebody brings it.
    pub(crate) fn forget(&mut self, digest: &Digest, location: Location) {
        if self.lookup(digest) == Some(location) {
            let old = self.map.remove(digest.as_bytes());
            self.count(old.map(|old| old.location), u64::wrapping_sub);
        }
    }

    fn count(&mut self, location: Option<Location>, change: fn(u64, u64) -> u64) {
        if let Some(Location { raw_len, stored_len, .. }) = location {
            self.raw_bytes = change(self.raw_bytes, raw_len.into());
            self.stored_bytes = change(self.stored_bytes, stored_len.into());
        }
    }

    /// Chunks, their bytes before and after compression.
    pub(crate) fn totals(&self) -> (u64, u64, u64) {
        (self.map.len() as u64, self.raw_bytes, self.stored_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resident bytes of this process, now and at most so far.
    fn resident() -> (u64, u64) {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        let bytes = |name| field(name).unwrap_or(0) * 1024;
        (bytes("VmRSS:"), bytes("VmHWM:"))
    }

    fn digest(n: u64) -> Digest {
        let mut bytes = [0; 32];
        for (i, word) in bytes.chunks_mut(8).enumerate() {
            // Odd multipliers: no two numbers give the same digest.
            let mixed = n.wrapping_add(i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            word.copy_from_slice(&(mixed ^ (mixed >> 29)).to_le_bytes());
        }
        Digest(bytes)
    }

    /// What a chunk costs in memory. `TWINREEL_INDEX_CHUNKS=100000000` measures in large, alone in
    /// the process (`docs/benchmarks.md`).
    #[test]
    fn memory_of_a_chunk_is_bounded() {
        let chunks = std::env::var("TWINREEL_INDEX_CHUNKS").ok();
        let chunks = chunks.map_or(200_000, |it| it.parse::<u64>().unwrap());
        let encoding = Encoding::Raw;
        let place = |n: u64| Location {
            container: (n / 4096) as u32,
            offset: (n % 4096 * 16_384) as u32,
            stored_len: 16_000,
            raw_len: 16_384,
            encoding,
        };
        let before = resident().0;
        let mut index = Index::new();
        let begin = std::time::Instant::now();
        (0..chunks).for_each(|n| index.insert(&digest(n), place(n), FIRST_EPOCH));
        let inserted = begin.elapsed();
        assert!((0..chunks).step_by(997).all(|n| index.lookup(&digest(n)) == Some(place(n))));
        assert_eq!(index.lookup(&digest(chunks)), None);
        assert_eq!(index.totals().0, chunks);
        let (now, peak) = resident();
        let each = |bytes: u64| bytes.saturating_sub(before) / chunks;
        println!(
            "{chunks} chunks: {} bytes each, {} at most while it grows; {inserted:.1?} to enter",
            each(now),
            each(peak)
        );
        // An entry has 57 bytes with its control byte; a table is between 7/16 and 7/8 full.
        let table = (index.map.capacity() as u64 * 8 / 7) * 57;
        assert!(table / chunks <= 131, "{} bytes a chunk", table / chunks);
    }

    const FIRST_EPOCH: u32 = 1;
}
