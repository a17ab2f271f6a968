//! What the tests of the store share: a model of a cartridge, seeded choices, small stores.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part")]

use std::path::Path;
use std::sync::Arc;

use model::CartridgeId;
use store::{
    ChunkParams, Image, Key, Object, OpenReport, Options, Reel, Space, SpaceStop, Spaced, Store,
};
use vfs::Vfs;

/// splitmix64: small, seeded, the same on every machine.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `n - 1`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    /// A record: random, of one value, or text, of a length that is often one of a few.
    pub fn record(&mut self, longest: u64) -> Vec<u8> {
        let len = match self.below(3) {
            0 => 1 + self.below(longest),
            1 => longest / 2 + 1,
            _ => 512.min(longest),
        } as usize;
        match self.below(4) {
            0 => vec![self.below(256) as u8; len],
            1 => b"a tape record ".iter().copied().cycle().take(len).collect(),
            // From a small pool, so that chunks repeat.
            2 => Random::new(self.below(4)).bytes(len),
            _ => self.bytes(len),
        }
    }
}

/// Chunks of a few hundred bytes in containers of a few KiB: everything happens in small tests.
pub fn small() -> Options {
    Options {
        chunk: ChunkParams { min: 128, average: 256, max: 1024, ..ChunkParams::default() },
        container_bytes: 16 << 10,
        // A run for each two or three containers, and so merges.
        recent_chunks: 40,
        ..Options::default()
    }
}

pub fn open(vfs: &Arc<dyn Vfs>) -> (Store, OpenReport) {
    Store::open(vfs.clone(), Path::new("/store"), &small()).unwrap()
}

/// The key of stores that are encrypted.
pub fn key() -> Key {
    Key::new([0x5e; 32])
}

/// Opens a store, encrypted or not.
pub fn open_as(vfs: Arc<dyn Vfs>, sealed: bool) -> store::Result<(Store, OpenReport)> {
    let key = sealed.then(key);
    Store::open_with_key(vfs, Path::new("/store"), &small(), key.as_ref())
}

pub fn cartridge(n: u64) -> CartridgeId {
    CartridgeId(model::Ulid::from_parts(n, 1))
}

/// A record, or a filemark.
pub type Item = Option<Vec<u8>>;

/// A cartridge as plainly as it can be said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tape {
    pub items: Vec<Item>,
    pub at: usize,
}

impl Tape {
    pub fn write(&mut self, item: Item) {
        self.items.truncate(self.at);
        self.items.push(item);
        self.at += 1;
    }

    pub fn bytes_to(&self, object: usize) -> u64 {
        self.items[..object].iter().flatten().map(|r| r.len() as u64).sum()
    }

    pub fn files_to(&self, object: usize) -> u64 {
        self.items[..object].iter().filter(|item| item.is_none()).count() as u64
    }

    pub fn space(&mut self, kind: Space, count: i64) -> Spaced {
        let mut left = count.unsigned_abs();
        if kind == Space::EndOfData {
            self.at = self.items.len();
            return Spaced { residual: 0, stop: SpaceStop::EndOfData };
        }
        while left > 0 {
            let next = if count < 0 { self.at.checked_sub(1) } else { Some(self.at) };
            let Some(item) = next.and_then(|at| self.items.get(at)) else {
                let stop = if count < 0 { SpaceStop::Beginning } else { SpaceStop::EndOfData };
                return Spaced { residual: left, stop };
            };
            let mark = item.is_none();
            self.at = if count < 0 { self.at - 1 } else { self.at + 1 };
            match (kind, mark) {
                (Space::Records, true) => {
                    return Spaced { residual: left, stop: SpaceStop::Filemark };
                }
                (Space::Filemarks, false) => {}
                _ => left -= 1,
            }
        }
        Spaced { residual: 0, stop: SpaceStop::Done }
    }
}

/// Reads everything from the beginning.
pub fn read_all(reel: &mut Reel) -> store::Result<Vec<Item>> {
    reel.locate(0)?;
    let mut buffer = vec![0; store::MAX_RECORD.min(1 << 20)];
    let mut items = Vec::new();
    loop {
        match reel.read(&mut buffer)? {
            Object::Record { length } => items.push(Some(buffer[..length as usize].to_vec())),
            Object::Filemark => items.push(None),
            Object::EndOfData => return Ok(items),
        }
    }
}

/// Writes an item where the image stands.
pub fn write(image: &mut Image, item: &Item) -> store::Result<()> {
    match item {
        Some(record) => image.write(record),
        None => image.write_filemarks(1),
    }
}

/// The seed of a randomised test: from the environment, or this one. Printed, so that a failure
/// can be repeated.
pub fn seed(default: u64) -> u64 {
    let seed = std::env::var("TWINREEL_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(default);
    println!("TWINREEL_SEED={seed}");
    seed
}

/// A number from the environment.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|s| s.parse().ok()).unwrap_or(default)
}
