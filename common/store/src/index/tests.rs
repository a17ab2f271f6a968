//! The index against a map, over flushes, merges, moved and freed containers, and reopening; and
//! what a chunk costs in memory.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use model::Digest;
use sha2::{Digest as _, Sha256};
use vfs::{CrashVfs, RealVfs, Vfs};

use super::*;
use crate::Options;
use crate::testing::Random;

fn digest(n: u64) -> Digest {
    Digest(Sha256::digest(n.to_le_bytes()).into())
}

fn place(container: u32, number: u32) -> Location {
    let (offset, encoding) = (32 + number * 156, Encoding::Raw);
    Location { container, offset, stored_len: 100, raw_len: 120, encoding, number }
}

type Listing = Vec<(Digest, Location)>;

/// An index, the containers that would be on disk, and where every chunk must be found.
struct World {
    vfs: Arc<dyn Vfs>,
    index: Arc<Index>,
    containers: BTreeMap<u32, Listing>,
    active: u32,
    model: HashMap<u64, (Location, u32)>,
    epoch: u32,
}

const LIMIT: u32 = 30;
const PER_CONTAINER: usize = 8;

fn open(vfs: &Arc<dyn Vfs>, present: &[u32]) -> (Arc<Index>, Vec<Damage>) {
    let mut damage = Vec::new();
    let dir = Path::new("/index").to_owned();
    let index = Index::open(vfs.clone(), dir, LIMIT, present, &mut damage).unwrap();
    (Arc::new(index), damage)
}

impl World {
    fn new() -> Self {
        let vfs: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
        let (index, _) = open(&vfs, &[]);
        let (containers, model) = (BTreeMap::new(), HashMap::new());
        Self { vfs, index, containers, active: 1, model, epoch: FIRST_EPOCH }
    }

    /// Room for one chunk more in the active container; seals it before that when it is full.
    fn next_place(&mut self) -> Location {
        if self.containers.get(&self.active).is_some_and(|list| list.len() == PER_CONTAINER) {
            self.active += 1;
            self.index.sealed(self.active, PER_CONTAINER as u64).unwrap();
        }
        let list = self.containers.entry(self.active).or_default();
        place(self.active, list.len() as u32)
    }

    fn add(&mut self, n: u64) {
        let epoch = self.epoch;
        match self.index.find(&digest(n), Some(epoch)).unwrap() {
            Some(found) => {
                let (at, stamp) = self.model.get_mut(&n).expect("it is not here");
                assert_eq!(found.at, *at);
                *stamp = epoch;
            }
            None => {
                assert!(!self.model.contains_key(&n), "{n} was lost");
                let at = self.next_place();
                self.index.insert(&digest(n), at, epoch);
                self.containers.get_mut(&self.active).unwrap().push((digest(n), at));
                self.model.insert(n, (at, epoch));
            }
        }
    }

    /// Frees what was not relied on since `needed` in a container that is not active.
    fn empty(&mut self, id: u32, needed: u32) {
        let list = self.containers[&id].clone();
        let numbers: Vec<_> = self.model.iter().filter(|(_, (at, _))| at.container == id).collect();
        let bytes: u64 = numbers.iter().filter(|(_, (_, stamp))| *stamp >= needed).count() as u64;
        assert_eq!(self.index.live(id, needed), bytes * 156, "container {id}");
        let names: HashMap<Digest, u64> = numbers.iter().map(|(n, _)| (digest(**n), **n)).collect();
        for (name, at) in list {
            let live = self.index.is_live(&at, needed);
            let known = names.get(&name).filter(|n| self.model[n].0 == at);
            assert_eq!(live, known.map(|n| self.model[n].1 >= needed));
            let Some(n) = known else { continue };
            if live == Some(false) {
                continue;
            }
            let to = self.next_place();
            self.containers.get_mut(&self.active).unwrap().push((name, to));
            self.index.relocate(&name, at, to);
            self.model.get_mut(n).unwrap().0 = to;
        }
        let free = self.model.values().filter(|(at, _)| at.container == id).count() as u64;
        assert_eq!(self.index.abandon(id, needed), Some(free));
        self.model.retain(|_, (at, _)| at.container != id);
        self.containers.remove(&id);
    }

    fn reopen(&mut self) {
        let present: Vec<u32> = self.containers.keys().copied().collect();
        let (index, damage) = open(&self.vfs, &present);
        assert_eq!(damage, []);
        self.index = index;
        self.recover();
    }

    fn recover(&mut self) {
        // What is active is sealed then, as a store does.
        for (id, list) in &self.containers {
            if !self.index.covers(*id) {
                self.index.recover(*id, list, false).unwrap();
                self.index.sealed(id + 1, list.len() as u64).unwrap();
            }
        }
        let next = self.containers.keys().last().map_or(1, |id| id + 1);
        self.active = next.max(self.index.through());
        self.model.values_mut().for_each(|(_, stamp)| *stamp = FIRST_EPOCH);
        self.epoch = FIRST_EPOCH;
    }

    fn check(&self, most: u64) {
        for n in 0..most {
            let found = self.index.find(&digest(n), None).unwrap();
            let wanted = self.model.get(&n).map(|(at, _)| *at);
            assert_eq!(found.map(|found| found.at), wanted, "chunk {n}");
            // As a store does when it is told to.
            if let Some(found) = found.filter(|found| found.wanted) {
                self.index.bring(found.at.container, &self.containers[&found.at.container]);
            }
        }
        assert_eq!(self.index.totals().0, self.model.len() as u64);
    }
}

#[test]
fn it_finds_what_a_map_finds() {
    let seed = std::env::var("TWINREEL_SEED").map_or(7, |text| text.parse().unwrap());
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let mut world = World::new();
    let (mut merged, mut reopened) = (0, 0);
    for step in 0..3000 {
        let most = 100 + step / 4;
        match random.below(40) {
            0 => {
                world.reopen();
                reopened += 1;
            }
            1 => {
                world.epoch += 1 + random.below(90) as u32;
                world.index.begin_epoch(world.epoch, world.epoch);
            }
            2..=4 => {
                let sealed: Vec<_> =
                    world.containers.keys().copied().filter(|id| *id < world.active).collect();
                if let Some(id) = sealed.get(random.below(sealed.len() as u64) as usize) {
                    let needed = world.epoch;
                    world.empty(*id, needed);
                }
            }
            5 => {
                let n = random.below(most);
                // A damaged chunk is stored anew, and the old place stays out of it.
                if let Some((at, _)) = world.model.remove(&n) {
                    world.index.forget(&at);
                    world.add(n);
                }
            }
            _ => (0..10).for_each(|_| world.add(random.below(most))),
        }
        if step % 100 == 0 {
            world.check(most);
        }
        merged = merged.max(world.index.upkeep().next_run);
    }
    world.check(900);
    assert!(merged > 10 && reopened > 10, "{merged} runs, {reopened} times reopened");
}

#[test]
fn what_is_damaged_on_disk_is_made_anew() {
    let mut world = World::new();
    (0..700).for_each(|n| world.add(n));
    world.reopen();
    let vfs = world.vfs.clone();
    let files = vfs.list(Path::new("/index")).unwrap();
    assert!(files.len() > 2, "{files:?}");
    let present: Vec<u32> = world.containers.keys().copied().collect();
    for name in files {
        let path = Path::new("/index").join(&name);
        let file = vfs.open(&path).unwrap();
        let len = file.len().unwrap();
        let mut byte = [0];
        // The pages of a run are looked at when they are read, its end at once.
        let at = if name == manifest::NAME { len / 2 } else { len - 70 };
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        let (index, damage) = open(&vfs, &present);
        assert!(matches!(&damage[..], [Damage::Index { .. }]), "{name}: {damage:?}");
        world.index = index;
        world.recover();
        world.check(700);
        world.reopen();
        world.check(700);
    }
    // A page is found out when it is read, and the next open makes all anew.
    let run = vfs.list(Path::new("/index")).unwrap().into_iter().find(|name| name.len() > 12);
    let file = vfs.open(&Path::new("/index").join(run.unwrap())).unwrap();
    file.write_all_at(&[0xff; 64], 300).unwrap();
    world.reopen();
    let bad = (0..700).find_map(|n| world.index.find(&digest(n), None).err());
    assert!(bad.unwrap().is_damage());
    world.reopen();
    world.check(700);
}

#[test]
fn what_is_stored_and_moved_while_the_runs_are_made_anew_is_found_afterwards() {
    let mut world = World::new();
    (0..400).for_each(|n| world.add(n));
    world.index.spoilt.store(true, Ordering::Release);
    let index = world.index.clone();
    let mut mending = index.begin_mending().unwrap();
    let containers = mending.containers();
    assert!(containers.len() > 20);
    let (first, rest) = containers.split_at(containers.len() / 2);
    first.iter().for_each(|id| mending.take(&world.containers[id]).unwrap());
    // One that was looked at and one that was not are emptied: what is needed of them is moved,
    // and written as a run before the others are there.
    world.epoch += 1;
    (0..400).filter(|n| n % 3 > 0).for_each(|n| world.add(n));
    let needed = world.epoch;
    [first[3], rest[3]].into_iter().for_each(|id| world.empty(id, needed));
    (400..700).for_each(|n| world.add(n));
    for id in rest.iter().filter(|id| world.containers.contains_key(id)) {
        mending.take(&world.containers[id]).unwrap();
    }
    assert!(mending.finish().unwrap() > 300);
    assert!(world.index.begin_mending().is_none());
    world.check(700);
    // Written down with the next container, and only then.
    (700..750).for_each(|n| world.add(n));
    world.reopen();
    assert!(world.index.through() > *rest.last().unwrap());
    world.check(750);
}

/// Stamps have a byte: what was stamped later than that counts is not older than it is.
#[test]
fn what_was_relied_on_after_a_long_hold_is_not_taken_for_old() {
    let mut world = World::new();
    world.add(1);
    let at = world.model[&1].0;
    // Somebody holds for a thousand collections.
    (2..=1000).for_each(|epoch| world.index.begin_epoch(epoch, 2));
    // Somebody else holds from the last of them on, and relies on a chunk.
    world.index.find(&digest(1), Some(1000)).unwrap().unwrap();
    for epoch in 1001..1010 {
        world.index.begin_epoch(epoch, 1000);
        assert_eq!(world.index.is_live(&at, 1000), Some(true), "epoch {epoch}");
        assert!(world.index.live(at.container, 1000) > 0);
    }
    // It is not kept for ever.
    world.index.begin_epoch(1010, 1010);
    assert_eq!(world.index.is_live(&at, 1010), Some(false));
}

#[test]
fn a_container_that_was_given_up_and_is_found_again_does_not_hide_what_came_later() {
    let mut world = World::new();
    (0..100).for_each(|n| world.add(n));
    let (old, _) = world.model[&3];
    let list = world.containers[&old.container].clone();
    // The chunk is damaged there, and stored anew; then the container is given up.
    world.index.forget(&old);
    world.model.remove(&3);
    world.add(3);
    world.epoch += 1;
    (0..100).for_each(|n| world.add(n));
    let needed = world.epoch;
    world.empty(old.container, needed);
    (100..200).for_each(|n| world.add(n));
    // Its file was not removed before the process ended.
    world.containers.insert(old.container, list);
    world.reopen();
    let found = world.index.find(&digest(3), None).unwrap().unwrap();
    assert!(found.at.container > old.container);
    assert_eq!(world.index.totals().0, 200);
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// What a chunk costs in memory and on disk. `TWINREEL_INDEX_CHUNKS=100000000` measures in large,
/// alone in the process (`docs/benchmarks.md`).
#[test]
fn memory_of_a_chunk_is_bounded() {
    const PER: u64 = 4096;
    let chunks = std::env::var("TWINREEL_INDEX_CHUNKS").ok();
    let chunks = chunks.map_or(200_000, |it| it.parse::<u64>().unwrap());
    let recent = if chunks > 1_000_000 { Options::default().recent_chunks } else { 8192 };
    let dir = tempfile::tempdir().unwrap();
    let open = |present: &[u32]| {
        let mut damage = Vec::new();
        let index = dir.path().join("index");
        Index::open(Arc::new(RealVfs), index, recent, present, &mut damage).unwrap()
    };
    let quick = |n: u64| {
        let mut bytes = [0; 32];
        for (i, word) in bytes.chunks_mut(8).enumerate() {
            // Odd multipliers: no two numbers give the same digest.
            let mixed = n.wrapping_add(i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word.copy_from_slice(&(mixed ^ (mixed >> 32)).to_le_bytes());
        }
        Digest(bytes)
    };
    let at = |n: u64| place((n / PER) as u32 + 1, (n % PER) as u32);
    let before = resident();
    let index = open(&[]);
    let begin = std::time::Instant::now();
    for n in 0..chunks {
        assert!(index.find(&quick(n), Some(FIRST_EPOCH + 1)).unwrap().is_none());
        index.insert(&quick(n), at(n), FIRST_EPOCH + 1);
        if n % PER == PER - 1 {
            index.sealed((n / PER) as u32 + 2, PER).unwrap();
        }
    }
    let entered = begin.elapsed();
    let begin = std::time::Instant::now();
    let asked = chunks / 997;
    assert!((0..asked).all(|n| {
        let n = n * 997;
        index.find(&quick(n), None).unwrap().map(|found| found.at) == Some(at(n))
    }));
    let asked_in = begin.elapsed() / asked as u32;
    let (runs, memory) = (index.read().runs.len(), index.memory());
    let disk: u64 = std::fs::read_dir(dir.path().join("index"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    println!(
        "{chunks} chunks, {runs} runs: {memory} bytes in memory ({} a chunk; the process grew by \
         {} a chunk), {} on disk a chunk; {entered:.1?} to enter, {asked_in:.1?} a look-up of \
         what lies anywhere",
        memory as f64 / chunks as f64,
        resident().saturating_sub(before) as f64 / chunks as f64,
        disk / chunks,
    );
    let present: Vec<u32> = (1..=(chunks / PER) as u32).collect();
    drop(index);
    let begin = std::time::Instant::now();
    let index = open(&present);
    println!("{:.1?} to open", begin.elapsed());
    assert_eq!(index.find(&quick(5), None).unwrap().map(|found| found.at), Some(at(5)));
    // A byte for the stamp, two and a bit for filter and fences; and the recent ones.
    assert!(memory < chunks * 4 + u64::from(recent) * 131 + (1 << 20), "{memory}");
    assert!(runs < 24);
}
