//! An index that is damaged under an open store mends itself: nobody who reads or writes fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::Path;
use std::sync::Arc;

use model::GenerationId;
use store::Store;
use support::{Item, Random, cartridge, number, open_as, read_all, write};
use vfs::{CrashMode, CrashVfs, Vfs};

const INDEX: &str = "/store/index";

fn open(vfs: &CrashVfs) -> Store {
    let (store, report) = open_as(Arc::new(vfs.clone()), false).unwrap();
    // After a crash the end of the last container may be torn.
    let torn = |it: &store::Damage| matches!(it, store::Damage::Container { torn: true, .. });
    assert!(report.damage.iter().all(torn), "{:?}", report.damage);
    store
}

fn back_up(store: &Store, number: u64, items: &[Item]) -> GenerationId {
    let mut image = store.image(cartridge(number)).unwrap();
    items.iter().for_each(|item| write(&mut image, item).unwrap());
    image.seal().unwrap().unwrap()
}

/// Runs on disk.
fn runs(vfs: &CrashVfs) -> Vec<String> {
    let names = vfs.list(Path::new(INDEX)).unwrap();
    names.into_iter().filter(|name| name.ends_with(".run")).collect()
}

/// Flips a byte in every page of every run.
fn spoil(vfs: &CrashVfs, random: &mut Random) -> usize {
    let mut pages = 0;
    for name in runs(vfs) {
        let file = vfs.open(&Path::new(INDEX).join(name)).unwrap();
        for page in 0..file.len().unwrap() / 4096 {
            let (mut byte, at) = ([0], page * 4096 + random.below(4096));
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ (1 << random.below(8))], at).unwrap();
            pages += 1;
        }
    }
    pages
}

type Kept = Vec<(GenerationId, Vec<Item>)>;

/// A store that was just opened, so that no page of its index is in memory.
fn made(vfs: &CrashVfs, random: &mut Random) -> (Store, Kept) {
    let store = open(vfs);
    let kept = (0..4)
        .map(|n| {
            let items: Vec<Item> = (0..40).map(|_| Some(random.record(3000))).collect();
            (back_up(&store, n, &items), items)
        })
        .collect();
    drop(store);
    (open(vfs), kept)
}

fn check(store: &Store, kept: &Kept, context: &str) {
    for (id, items) in kept {
        let read = read_all(&mut store.reader(*id).unwrap());
        assert!(read.unwrap_or_else(|error| panic!("{context}: {error}")) == *items, "{context}");
    }
    let checked = store.check(&mut |_| true).unwrap();
    assert_eq!((checked.damage, checked.incomplete), (vec![], vec![]), "{context}");
}

#[test]
fn who_reads_does_not_notice_and_the_next_seal_makes_it_last() {
    let mut random = Random::new(support::seed(91));
    let vfs = CrashVfs::new();
    let (store, mut kept) = made(&vfs, &mut random);
    assert!(spoil(&vfs, &mut random) > 0);
    check(&store, &kept, "damaged");
    assert!(!store.mend_index(&|| false).unwrap(), "it was mended twice");
    // It is on disk again when containers were sealed, and the next open needs no container.
    let items: Vec<Item> = (0..40).map(|_| Some(random.bytes(3000))).collect();
    kept.push((back_up(&store, 9, &items), items));
    assert!(vfs.exists(&Path::new(INDEX).join("manifest")).unwrap());
    drop(store);
    let store = open(&vfs);
    check(&store, &kept, "opened again");
    assert!(!store.mend_index(&|| false).unwrap(), "it was not mended");
}

#[test]
fn who_writes_does_not_wait_and_nothing_is_freed_that_is_needed() {
    let mut random = Random::new(support::seed(92));
    let vfs = CrashVfs::new();
    let (store, mut kept) = made(&vfs, &mut random);
    spoil(&vfs, &mut random);
    // The same once more, of which nothing is known now.
    let before = store.statistics().chunks;
    let (_, items) = kept[0].clone();
    kept.push((back_up(&store, 9, &items), items));
    assert!(store.statistics().chunks > before, "no page was damaged");
    // A collection has to know: it mends first. It also gives up what was stored twice.
    let (gone, _) = kept.remove(1);
    store.delete_generation(gone).unwrap();
    store.collect(100, &|| false).unwrap();
    assert!(!store.mend_index(&|| false).unwrap(), "the collection did not mend it");
    check(&store, &kept, "collected");
    store.collect(100, &|| false).unwrap();
    drop(store);
    let store = open(&vfs);
    check(&store, &kept, "opened again");
}

#[test]
fn a_list_that_is_damaged_too_costs_no_other_container() {
    let mut random = Random::new(support::seed(93));
    let vfs = CrashVfs::new();
    let (store, kept) = made(&vfs, &mut random);
    spoil(&vfs, &mut random);
    let dir = Path::new("/store/containers");
    let path = dir.join(&vfs.list(dir).unwrap()[0]);
    let file = vfs.open(&path).unwrap();
    let len = file.len().unwrap();
    file.write_all_at(b"damage", len - 20).unwrap();
    // It can not be made anew beside the running store: who reads is told, and the next open does.
    let read = |store: &Store| {
        let all = kept.iter().map(|(id, items)| {
            read_all(&mut store.reader(*id).unwrap()).is_ok_and(|read| read == *items)
        });
        all.filter(|good| *good).count()
    };
    assert!(read(&store) < kept.len());
    drop(store);
    let (store, _) = open_as(Arc::new(vfs.clone()), false).unwrap();
    assert_eq!(read(&store), kept.len());
}

/// Damage, backups, reading, collections, rewriting and new starts in any order.
#[test]
fn every_generation_stays_whole_whatever_else_is_done() {
    let seed = support::seed(94);
    for round in 0..number("TWINREEL_MEND_ROUNDS", 40) {
        let mut random = Random::new(seed.wrapping_mul(101) + round);
        let vfs = CrashVfs::new();
        let (mut store, mut kept) = made(&vfs, &mut random);
        for step in 0..40 {
            let context = format!("TWINREEL_SEED={seed} round {round} step {step}");
            match random.below(8) {
                0 | 1 => _ = spoil(&vfs, &mut random),
                2 | 3 => {
                    let mut items = kept[random.below(kept.len() as u64) as usize].1.clone();
                    items.extend((0..random.below(20)).map(|_| Some(random.record(3000))));
                    let cartridge = random.below(6);
                    kept.push((back_up(&store, cartridge, &items), items));
                }
                4 if kept.len() > 2 => {
                    let (id, _) = kept.remove(random.below(kept.len() as u64) as usize);
                    store.delete_generation(id).unwrap();
                }
                5 => _ = store.collect(random.below(101) as u8, &|| false).unwrap(),
                6 => {
                    let id = kept[random.below(kept.len() as u64) as usize].0;
                    let mut rewriting = store.rewriting(1, 100).unwrap();
                    rewriting.generation(id, &mut |_| true).unwrap();
                }
                _ if random.below(3) == 0 => {
                    drop(store);
                    let (opened, report) = open_as(Arc::new(vfs.clone()), false).unwrap();
                    let index = |it: &store::Damage| matches!(it, store::Damage::Index { .. });
                    assert!(report.damage.iter().all(index), "{context}: {:?}", report.damage);
                    store = opened;
                }
                _ => {
                    let (id, items) = &kept[random.below(kept.len() as u64) as usize];
                    let read = read_all(&mut store.reader(*id).unwrap());
                    let read = read.unwrap_or_else(|error| panic!("{context}: {error}"));
                    assert!(read == *items, "{context}");
                }
            }
        }
        check(&store, &kept, &format!("TWINREEL_SEED={seed} round {round}"));
    }
}

#[test]
fn a_crash_while_it_is_mended_loses_nothing() {
    let seed = support::seed(95);
    let mut random = Random::new(seed);
    for point in 0..number("TWINREEL_CRASH_POINTS", 300) / 5 {
        let vfs = CrashVfs::new();
        let (store, kept) = made(&vfs, &mut random);
        spoil(&vfs, &mut random);
        // What rots does so on the disk.
        let vfs = {
            drop(store);
            let vfs = vfs.crash(CrashMode::ALL[(point % 4) as usize], random.next());
            spoil(&vfs, &mut random);
            vfs
        };
        let (store, _) = open_as(Arc::new(vfs.clone()), false).unwrap();
        vfs.stop_at(1 + random.below(60));
        let items: Vec<Item> = (0..30).map(|_| Some(random.bytes(2000))).collect();
        let work = || -> store::Result<()> {
            let mut image = store.image(cartridge(20))?;
            for item in &items {
                write(&mut image, item)?;
            }
            let mut reader = store.reader(kept[0].0)?;
            read_all(&mut reader)?;
            image.seal()?;
            store.collect(90, &|| false)?;
            Ok(())
        };
        let _ = work();
        drop(store);
        let vfs = vfs.crash(CrashMode::ALL[random.below(4) as usize], random.next());
        let (store, _) = open_as(Arc::new(vfs), false).unwrap();
        check(&store, &kept, &format!("TWINREEL_SEED={seed} point {point}"));
    }
}
