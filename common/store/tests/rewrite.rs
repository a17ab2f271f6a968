//! Generations that lie scattered are written together anew, and stay what they are: beside
//! everything else, and when the index is made anew from the containers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::Path;
use std::sync::Arc;

use model::GenerationId;
use store::{Options, Rewritten, Store, StoreError};
use support::{Item, Random, cartridge, number, read_all, small, write};
use vfs::{CrashVfs, Vfs};

const RECORD: usize = 4096;
/// A window of these stores is 128 KiB, so this is some eight reads for each.
const READS: u32 = 64 << 10;

/// Small chunks in containers that hold several windows.
fn options() -> Options {
    Options { container_bytes: 1 << 20, ..small() }
}

fn open(vfs: &Arc<dyn Vfs>) -> Store {
    let (store, report) = Store::open(vfs.clone(), Path::new("/store"), &options()).unwrap();
    assert_eq!(report.damage, []);
    store
}

fn back_up(store: &Store, cartridge_number: u64, items: &[Item]) -> GenerationId {
    let mut image = store.image(cartridge(cartridge_number)).unwrap();
    items.iter().for_each(|item| write(&mut image, item).unwrap());
    image.seal().unwrap().unwrap()
}

fn records(bytes: &[u8]) -> Vec<Item> {
    bytes.chunks(RECORD).map(|record| Some(record.to_vec())).collect()
}

/// Writes over some places of an image.
fn change(image: &mut [u8], places: u64, random: &mut Random) {
    for _ in 0..places {
        let len = 1 + random.below(1500) as usize;
        let at = random.below((image.len() - len) as u64) as usize;
        image[at..at + len].copy_from_slice(&random.bytes(len));
    }
}

fn rewrite(store: &Store, id: GenerationId, reads: u32) -> Rewritten {
    let mut rewriting = store.rewriting(reads, 100).unwrap();
    assert!(rewriting.generation(id, &mut |_| true).unwrap());
    rewriting.done()
}

/// The generations of an image that changes every day, with its content at each.
fn days(store: &Store, days: usize, random: &mut Random) -> Vec<(GenerationId, Vec<Item>)> {
    let mut image = random.bytes(3 << 20);
    (0..days)
        .map(|_| {
            let items = records(&image);
            let id = back_up(store, 1, &items);
            change(&mut image, 25, random);
            (id, items)
        })
        .collect()
}

#[test]
fn a_generation_that_lies_scattered_is_read_in_few_reads_afterwards() {
    let mut random = Random::new(support::seed(81));
    let vfs: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
    let store = open(&vfs);
    let all = days(&store, 20, &mut random);
    let reads = |store: &Store, which: usize| {
        let found = store.fragmentation(all[which].0, None).unwrap();
        assert_eq!(found.bytes, 3 << 20);
        found
    };
    let (first, before) = (reads(&store, 0), reads(&store, 19));
    let done = rewrite(&store, all[19].0, READS);
    let after = reads(&store, 19);
    println!("generation 1 {first:?}\n20 before {before:?}\n20 after {after:?}\n{done:?}");
    assert!(before.reads > 3 * first.reads && before.changes > 10 * first.changes);
    assert!(before.reads_per_gib() > u64::from(READS), "{}", before.reads_per_gib());
    assert!(after.reads_per_gib() < u64::from(READS) * 5 / 4, "{}", after.reads_per_gib());
    // What lay together stayed.
    assert!(done.moved < 2 << 20 && done.moved > 0 && !done.full, "{done:?}");
    assert_eq!(done.looked, 3 << 20);
    // Nothing is left to do, and the old generations are not much worse for it.
    assert_eq!(rewrite(&store, all[19].0, READS).moved, 0);
    assert!(reads(&store, 0).reads < before.reads);
    // The room comes back, as far as containers hold little else.
    let collected = store.collect(80, &|| false).unwrap();
    assert!(collected.containers > 0, "{collected:?}");
    for (id, items) in &all {
        assert!(read_all(&mut store.reader(*id).unwrap()).unwrap() == *items);
    }
    // A sample tells about the same.
    let sample = store.fragmentation(all[19].0, Some(1)).unwrap();
    assert_eq!(sample.bytes >> 17, 8, "{sample:?}");
}

#[test]
fn night_after_night_little_is_moved_and_every_generation_is_read_in_few_reads() {
    let mut random = Random::new(support::seed(86));
    let vfs: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
    let store = open(&vfs);
    let mut image = random.bytes(3 << 20);
    let (mut all, mut moved) = (Vec::new(), 0);
    for _ in 0..30 {
        let items = records(&image);
        let id = back_up(&store, 1, &items);
        moved += rewrite(&store, id, READS).moved;
        store.collect(50, &|| false).unwrap();
        let found = store.fragmentation(id, None).unwrap();
        assert!(found.reads_per_gib() < u64::from(READS) * 5 / 4, "{found:?}");
        all.push((id, items));
        change(&mut image, 25, &mut random);
    }
    let new = 29 * 25 * 1500;
    println!("{moved} bytes were moved, {new} were new");
    assert!(moved > 0 && moved < 6 * new, "{moved} of {new}");
    for (id, items) in &all {
        let found = store.fragmentation(*id, None).unwrap();
        println!("{found:?}");
        assert!(read_all(&mut store.reader(*id).unwrap()).unwrap() == *items);
    }
}

#[test]
fn no_more_room_is_taken_than_there_is() {
    let mut random = Random::new(support::seed(82));
    let vfs: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
    // Sealed containers count, so the one that is not should be small.
    let options = Options { container_bytes: 64 << 10, ..small() };
    let (store, _) = Store::open(vfs, Path::new("/store"), &options).unwrap();
    let all = days(&store, 20, &mut random);
    let mut rewriting = store.rewriting(READS / 4, 3).unwrap();
    assert!(!rewriting.generation(all[19].0, &mut |_| true).unwrap());
    let done = rewriting.done();
    let limit = store.statistics().stored_bytes * 4 / 100;
    assert!(done.full && done.moved > 0 && done.moved < limit, "{done:?}");
    // Old copies count against the room until they are collected.
    let mut sum = done.moved;
    for (id, _) in &all {
        let mut again = store.rewriting(READS / 4, 3).unwrap();
        again.generation(*id, &mut |_| true).unwrap();
        sum += again.done().moved;
    }
    assert!(sum < 2 * limit, "{sum} of {limit}");
    store.collect(100, &|| false).unwrap();
    let mut freed = store.rewriting(READS / 4, 3).unwrap();
    freed.generation(all[19].0, &mut |_| true).unwrap();
    assert!(freed.done().moved > 0, "{:?}", freed.done());
    // It ends when it is told to.
    let mut windows = 0;
    let mut pace = |_| {
        windows += 1;
        windows < 3
    };
    let mut stopped = store.rewriting(READS, 100).unwrap();
    assert!(!stopped.generation(all[19].0, &mut pace).unwrap());
    assert_eq!(windows, 3);
}

/// Two cartridges with the same content in another order would take it from each other for ever.
#[test]
fn what_was_moved_in_a_round_stays_in_that_round() {
    let mut random = Random::new(support::seed(83));
    let vfs: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
    let store = open(&vfs);
    // Enough that room is no question.
    back_up(&store, 3, &records(&random.bytes(3 << 20)));
    let mut pieces: Vec<Vec<u8>> = (0..400).map(|_| random.bytes(3000)).collect();
    // Each in a file of its own, so that it is cut alike wherever it is.
    let forwards: Vec<Item> = pieces.iter().flat_map(|piece| [Some(piece.clone()), None]).collect();
    let one = back_up(&store, 1, &forwards);
    let mut shuffled = Vec::new();
    while !pieces.is_empty() {
        let piece = pieces.swap_remove(random.below(pieces.len() as u64) as usize);
        shuffled.extend([Some(piece), None]);
    }
    let two = back_up(&store, 2, &shuffled);
    let mut rewriting = store.rewriting(READS / 4, 100).unwrap();
    assert!(rewriting.generation(two, &mut |_| true).unwrap());
    let moved = rewriting.done().moved;
    rewriting.generation(one, &mut |_| true).unwrap();
    rewriting.generation(two, &mut |_| true).unwrap();
    let total = 400 * 3000;
    assert!(moved > total / 2 && rewriting.done().moved < total * 5 / 4, "{:?}", rewriting.done());
    for (id, items) in [(one, forwards), (two, shuffled)] {
        assert!(read_all(&mut store.reader(id).unwrap()).unwrap() == items);
    }
}

/// One step of many: what is kept must be what it was, whatever else is done.
fn step(store: &Store, kept: &mut Vec<(GenerationId, Vec<Item>)>, random: &mut Random) {
    match random.below(8) {
        0..=2 => {
            let n = random.below(3);
            let mut bytes = Random::new(n).bytes(300 << 10);
            change(&mut bytes, random.below(40), random);
            let items = records(&bytes);
            kept.push((back_up(store, n, &items), items));
        }
        3 | 4 if !kept.is_empty() => {
            let id = kept[random.below(kept.len() as u64) as usize].0;
            let room = random.below(101) as u8;
            let mut rewriting = store.rewriting(random.below(1 << 17) as u32, room).unwrap();
            let mut left = random.below(8);
            rewriting
                .generation(id, &mut |_| {
                    left = left.saturating_sub(1);
                    left > 0
                })
                .unwrap();
        }
        5 => drop(store.collect(random.below(101) as u8, &|| false).unwrap()),
        6 if kept.len() > 2 => {
            let at = random.below(kept.len() as u64) as usize;
            store.delete_generation(kept.remove(at).0).unwrap();
        }
        _ => {}
    }
}

#[test]
fn every_generation_stays_what_it_is() {
    let seed = support::seed(84);
    for round in 0..number("TWINREEL_REWRITE_ROUNDS", 6) {
        let mut random = Random::new(seed.wrapping_mul(31) + round);
        let vfs: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
        let (mut store, mut kept) = (open(&vfs), Vec::new());
        for _ in 0..40 {
            step(&store, &mut kept, &mut random);
            if random.below(12) == 0 {
                drop(store);
                // Made anew from the containers, now and then.
                if random.below(2) == 0 {
                    let dir = Path::new("/store/index");
                    for name in vfs.list(dir).unwrap() {
                        vfs.remove(&dir.join(name)).unwrap();
                    }
                }
                store = open(&vfs);
            }
        }
        for (id, items) in &kept {
            let read = read_all(&mut store.reader(*id).unwrap()).unwrap();
            assert!(read == *items, "TWINREEL_SEED={seed} round {round}");
        }
        let checked = store.check(&mut |_| true).unwrap();
        assert_eq!((checked.damage, checked.incomplete), (vec![], vec![]), "round {round}");
    }
}

/// A reader, a collector and a rewriter, all at once.
#[test]
fn it_goes_on_beside_readers_writers_and_collections() {
    let seed = support::seed(85);
    let dir = tempfile::tempdir().unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(vfs::RealVfs);
    let (store, _) = Store::open(vfs, dir.path(), &options()).unwrap();
    let all = days(&store, 6, &mut Random::new(seed));
    let rounds = number("TWINREEL_REWRITE_ROUNDS", 6);
    std::thread::scope(|scope| {
        let moved = scope.spawn(|| {
            let mut random = Random::new(seed ^ 1);
            (0..4 * rounds)
                .map(|_| {
                    let id = all[random.below(6) as usize].0;
                    let mut rewriting = store.rewriting(READS / 4, 100).unwrap();
                    rewriting.generation(id, &mut |_| true).unwrap();
                    rewriting.done().moved
                })
                .sum::<u64>()
        });
        scope.spawn(|| {
            for _ in 0..2 * rounds {
                store.collect(90, &|| false).unwrap();
            }
        });
        scope.spawn(|| {
            let mut random = Random::new(seed ^ 2);
            for n in 0..rounds {
                let id = back_up(&store, 10 + n, &records(&random.bytes(100_000)));
                match store.delete_generation(id) {
                    // The collector looks at it just now.
                    Ok(()) | Err(StoreError::Pinned(_)) => {}
                    Err(error) => panic!("seed {seed}: {error}"),
                }
            }
        });
        for n in 0..2 * rounds {
            let (id, items) = &all[n as usize % all.len()];
            let read = read_all(&mut store.reader(*id).unwrap()).unwrap();
            assert!(read == *items, "seed {seed}");
        }
        assert!(moved.join().unwrap() > 0, "there was nothing to move");
    });
    assert_eq!(store.check(&mut |_| true).unwrap().incomplete, []);
}
