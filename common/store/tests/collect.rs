//! Space comes back, and nothing that is needed goes: beside writers, readers and imports.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use store::{Options, Store, StoreError};
use support::{Item, Random, cartridge, open, read_all, small, write};
use vfs::{CrashVfs, RealVfs, Vfs};

fn memory() -> (CrashVfs, Arc<dyn Vfs>) {
    let vfs = CrashVfs::new();
    (vfs.clone(), Arc::new(vfs))
}

fn never() -> bool {
    false
}

/// Bytes of all containers.
fn used(vfs: &dyn Vfs) -> u64 {
    let dir = Path::new("/store/containers");
    let names = vfs.list(dir).unwrap();
    names.iter().map(|name| vfs.open(&dir.join(name)).unwrap().len().unwrap()).sum()
}

fn back_up(store: &Store, number: u64, items: &[Item]) -> model::GenerationId {
    let mut image = store.image(cartridge(number)).unwrap();
    items.iter().for_each(|item| write(&mut image, item).unwrap());
    image.seal().unwrap().unwrap()
}

#[test]
fn what_no_generation_needs_is_given_back_and_the_rest_stays() {
    let seed = support::seed(51);
    let mut random = Random::new(seed);
    let (vfs, shared) = memory();
    let (store, _) = open(&shared);
    let shared_part: Vec<Item> = (0..40).map(|_| Some(random.bytes(2000))).collect();
    let contents: Vec<Vec<Item>> = (0..6)
        .map(|_| {
            let mut items = shared_part.clone();
            items.extend((0..60).map(|_| Some(random.bytes(2000))));
            items
        })
        .collect();
    let ids: Vec<_> =
        contents.iter().enumerate().map(|(n, items)| back_up(&store, n as u64, items)).collect();
    let before = used(&vfs);
    let nothing = store.collect(50, &never).unwrap();
    assert_eq!((nothing.containers, nothing.freed), (0, 0), "{nothing:?}");
    for id in &ids[1..5] {
        store.delete_generation(*id).unwrap();
    }
    let collected = store.collect(50, &never).unwrap();
    assert!(collected.containers > 10 && collected.chunks > 500, "{collected:?}");
    let after = used(&vfs);
    assert!(after < before / 2, "{after} of {before}");
    for (id, items) in [(ids[0], &contents[0]), (ids[5], &contents[5])] {
        assert!(read_all(&mut store.reader(id).unwrap()).unwrap() == *items, "seed {seed}");
    }
    let checked = store.check(&mut |_| true).unwrap();
    assert_eq!((checked.damage.len(), checked.incomplete.len()), (0, 0), "{checked:?}");
    // What was freed can be written again, and all is as it was after the next start.
    let again = back_up(&store, 9, &contents[2]);
    drop(store);
    let (store, report) = open(&shared);
    assert_eq!(report.damage, []);
    for (id, items) in [(ids[0], &contents[0]), (again, &contents[2])] {
        assert!(read_all(&mut store.reader(id).unwrap()).unwrap() == *items, "seed {seed}");
    }
    // The last of them gone, so is all space but that of the active container.
    for info in store.all_generations() {
        store.delete_generation(info.id).unwrap();
    }
    store.collect(1, &never).unwrap();
    assert_eq!((used(&vfs), store.statistics().chunks), (0, 0));
}

#[test]
fn an_open_generation_keeps_what_it_found() {
    let (_, shared) = memory();
    let (store, _) = open(&shared);
    let mut random = Random::new(support::seed(52));
    let items: Vec<Item> = (0..50).map(|_| Some(random.bytes(3000))).collect();
    let id = back_up(&store, 1, &items);
    // Another cartridge refers to the same chunks; then the generation that they came with goes.
    let mut image = store.image(cartridge(2)).unwrap();
    items.iter().for_each(|item| write(&mut image, item).unwrap());
    image.flush().unwrap();
    store.delete_generation(id).unwrap();
    store.collect(100, &never).unwrap();
    store.collect(100, &never).unwrap();
    assert!(read_all(&mut image).unwrap() == items);
    // Flushed and let go: its journal names them.
    drop(image);
    store.collect(100, &never).unwrap();
    drop(store);
    let (store, _) = open(&shared);
    store.collect(100, &never).unwrap();
    let mut image = store.image(cartridge(2)).unwrap();
    store.collect(100, &never).unwrap();
    assert!(read_all(&mut image).unwrap() == items);
    let sealed = image.seal().unwrap().unwrap();
    drop(image);
    store.collect(100, &never).unwrap();
    assert!(read_all(&mut store.reader(sealed).unwrap()).unwrap() == items);
}

#[test]
fn nothing_is_freed_when_it_is_not_known_what_is_needed() {
    let (vfs, shared) = memory();
    let (store, _) = open(&shared);
    let mut random = Random::new(3);
    let items: Vec<Item> = (0..50).map(|_| Some(random.bytes(3000))).collect();
    let ids = [back_up(&store, 1, &items), back_up(&store, 2, &items[..9])];
    drop(store);
    let path = Path::new("/store/recipes").join(format!("{}.recipe", ids[0]));
    let file = vfs.open(&path).unwrap();
    let len = file.len().unwrap();
    for at in [0, len - 4096] {
        file.write_all_at(b"damage", at).unwrap();
    }
    let (store, report) = open(&shared);
    assert_eq!(report.damage.len(), 1);
    assert!(matches!(store.collect(100, &never), Err(StoreError::NotCollected(at)) if at == path));
    vfs.remove(&path).unwrap();
    assert!(store.collect(100, &never).unwrap().chunks > 0);
    assert!(read_all(&mut store.reader(ids[1]).unwrap()).unwrap() == items[..9]);
}

#[test]
fn a_check_finds_every_container_that_was_changed() {
    let (vfs, shared) = memory();
    let (store, _) = open(&shared);
    let mut random = Random::new(support::seed(53));
    let items: Vec<Item> = (0..60).map(|_| Some(random.bytes(3000))).collect();
    let id = back_up(&store, 1, &items);
    let dir = Path::new("/store/containers");
    let names = vfs.list(dir).unwrap();
    let path = dir.join(&names[random.below(names.len() as u64 - 1) as usize]);
    let file = vfs.open(&path).unwrap();
    file.write_all_at(b"xyz", 100 + random.below(5000)).unwrap();
    let checked = store.check(&mut |_| true).unwrap();
    assert_eq!((checked.damage.len(), checked.incomplete), (1, vec![id]), "{:?}", checked.damage);
    // Whoever brings the data again heals it.
    back_up(&store, 2, &items);
    assert_eq!(store.check(&mut |_| true).unwrap().incomplete, []);
    assert!(read_all(&mut store.reader(id).unwrap()).unwrap() == items);
}

/// Writers, readers and a collector that never rests. Contents come from a small pool, so that
/// what one deletes is what another is just finding.
#[test]
fn a_collection_goes_on_beside_writers_and_readers() {
    let seed = support::seed(54);
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(Arc::new(RealVfs), dir.path(), &small()).unwrap();
    let over = AtomicBool::new(false);
    let rounds = support::number("TWINREEL_COLLECT_ROUNDS", 60);
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let mut all = (0, 0);
            while !over.load(Ordering::Acquire) {
                let done = store.collect(80, &never).unwrap();
                all = (all.0 + done.containers, all.1 + done.chunks);
            }
            all
        });
        let writers: Vec<_> = (0..3)
            .map(|n| {
                let store = store.clone();
                scope.spawn(move || {
                    let mut random = Random::new(seed + n);
                    let mut kept = Vec::new();
                    for _ in 0..rounds {
                        let mut image = store.image(cartridge(n)).unwrap();
                        let mut items: Vec<Item> = Vec::new();
                        for _ in 0..random.below(40) + 1 {
                            let item = Some(Random::new(random.below(60)).bytes(5000));
                            write(&mut image, &item).unwrap();
                            items.push(item);
                            if random.below(10) == 0 {
                                image.flush().unwrap();
                            }
                        }
                        assert!(read_all(&mut image).unwrap() == items, "seed {seed}");
                        let id = image.seal().unwrap().unwrap();
                        drop(image);
                        kept.push((id, items));
                        if kept.len() > 2 {
                            match store.delete_generation(kept[0].0) {
                                Ok(()) => drop(kept.remove(0)),
                                // The collector looks at it just now.
                                Err(StoreError::Pinned(_)) => {}
                                Err(error) => panic!("seed {seed}: {error}"),
                            }
                        }
                        for (id, items) in &kept {
                            let read = read_all(&mut store.reader(*id).unwrap());
                            assert!(read.unwrap() == *items, "seed {seed}");
                        }
                    }
                })
            })
            .collect();
        let ended: Vec<_> = writers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::Release);
        let all = collector.join().unwrap();
        ended.into_iter().for_each(|writer| writer.unwrap());
        assert!(all.0 > 0 && all.1 > 0, "the collector had nothing to do");
    });
    drop(store);
    let (store, report) = Store::open(Arc::new(RealVfs), dir.path(), &Options::default()).unwrap();
    assert_eq!(report.damage, []);
    assert_eq!(store.check(&mut |_| true).unwrap().incomplete, []);
}
