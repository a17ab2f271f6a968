//! Generations brought from another store: whole or not at all, whatever happens to the power and
//! whatever the other store is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::GenerationId;
use store::{BringError, Depth, Store, part};
use support::{Item, Random, cartridge, number, open_as, read_all, write};
use vfs::{CrashMode, CrashVfs, Vfs};

type Expected = Vec<(GenerationId, Vec<Item>)>;

/// A store with generations of two cartridges, that have chunks in common.
fn source(vfs: &CrashVfs, seed: u64) -> (Store, Expected) {
    let store = open_as(Arc::new(vfs.clone()), false).unwrap().0;
    let (mut random, mut all) = (Random::new(seed), Vec::new());
    for n in [1, 2, 1] {
        let mut image = store.image(cartridge(n)).unwrap();
        let before: Vec<Item> = read_all(&mut image).unwrap();
        let new = (0..25).map(|_| (random.below(6) > 0).then(|| random.record(5000)));
        let new: Vec<Item> = new.collect();
        new.iter().for_each(|item| write(&mut image, item).unwrap());
        let id = image.seal().unwrap().unwrap();
        all.push((id, before.into_iter().chain(new).collect()));
    }
    (store, all)
}

/// Brings everything; false when the power went.
fn bring_all(from: &Store, to: &Store, all: &Expected) -> bool {
    all.iter().all(|(id, _)| {
        to.generation(*id).is_some()
            || to.bring(from, *id, &mut |_| true).is_ok_and(|(mut import, brought)| {
                assert_eq!(brought.lacking, 0);
                import.commit().is_ok()
            })
    })
}

fn check(store: &Store, all: &Expected, context: &str) {
    for (id, items) in all {
        let mut reader = store.reader(*id).unwrap_or_else(|error| panic!("{context}: {error}"));
        assert!(read_all(&mut reader).unwrap() == *items, "{context}");
    }
}

#[test]
fn the_power_goes_at_every_operation_and_it_is_brought_again() {
    let seed = support::seed(5);
    let from = CrashVfs::new();
    let (from, all) = source(&from, seed);
    let mut random = Random::new(seed);
    for sealed in [false, true] {
        let counted = CrashVfs::new();
        let to = open_as(Arc::new(counted.clone()), sealed).unwrap().0;
        let before = counted.operations();
        assert!(bring_all(&from, &to, &all));
        let operations = counted.operations() - before;
        let every = (operations * 2 / number("TWINREEL_CRASH_POINTS", 300)).max(1);
        println!("{operations} operations, one in {every}");
        for stop in (1..=operations).step_by(every as usize) {
            let disk = CrashVfs::new();
            let to = open_as(Arc::new(disk.clone()), sealed).unwrap().0;
            disk.stop_at(stop);
            // A change that is only tidying up may be what failed.
            let done = bring_all(&from, &to, &all);
            drop(to);
            let mode = CrashMode::ALL[random.below(CrashMode::ALL.len() as u64) as usize];
            let context = format!("TWINREEL_SEED={seed} sealed {sealed} stop {stop} {mode:?}");
            let to = open_as(Arc::new(disk.crash(mode, random.next())), sealed).unwrap().0;
            let there: Expected =
                all.iter().filter(|(id, _)| to.generation(*id).is_some()).cloned().collect();
            assert!(!done || there.len() == all.len(), "{context}");
            check(&to, &there, &context);
            assert!(bring_all(&from, &to, &all), "{context}");
            check(&to, &all, &context);
        }
    }
}

fn files(vfs: &dyn Vfs) -> Vec<PathBuf> {
    let mut all = vec![Path::new("/store/store.header").to_owned()];
    for dir in ["containers", "recipes"] {
        let dir = Path::new("/store").join(dir);
        all.extend(vfs.list(&dir).unwrap().into_iter().map(|name| dir.join(name)));
    }
    all
}

/// A disk with the bytes of another one, some of which are changed in a seeded way. What was done.
fn spoilt(vfs: &CrashVfs, random: &mut Random) -> (CrashVfs, String) {
    let disk = vfs.crash(CrashMode::ALL[0], 0);
    let files = files(&disk);
    let path = &files[random.below(files.len() as u64) as usize];
    let file = disk.open(path).unwrap();
    let len = file.len().unwrap();
    let at = random.below(len);
    let what = match random.below(6) {
        0 | 1 => {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ (1 << random.below(8))], at).unwrap();
            "a bit"
        }
        2 => {
            let garbage = 1 + random.below(5000) as usize;
            file.write_all_at(&random.bytes(garbage), at).unwrap();
            "garbage"
        }
        3 => {
            file.set_len(at).unwrap();
            "cut"
        }
        4 => {
            file.set_len(len + 1 + random.below(1 << 20)).unwrap();
            "longer"
        }
        _ => {
            // A file of ours in another's place.
            let other = &files[random.below(files.len() as u64) as usize];
            let bytes = vfs::read_all(&disk, other, 1 << 30).unwrap();
            file.set_len(0).unwrap();
            file.write_all_at(&bytes, 0).unwrap();
            "another file"
        }
    };
    file.sync_data().unwrap();
    (disk, format!("{what} at {at} of {}", path.display()))
}

/// Whatever the disk holds: what arrives is what was written, and what does not is told.
#[test]
fn what_is_spoilt_is_told_and_never_taken_for_something() {
    let seed = support::seed(6);
    let good = CrashVfs::new();
    let (store, all) = source(&good, seed);
    let digests: Vec<_> =
        all.iter().map(|(id, _)| store.recipe(*id).unwrap().digest().unwrap()).collect();
    drop(store);
    let mut random = Random::new(seed);
    let (mut lost, rounds) = (0, number("TWINREEL_CRASH_POINTS", 300));
    for round in 0..rounds {
        let (disk, what) = spoilt(&good, &mut random);
        let context = format!("TWINREEL_SEED={seed} round {round}: {what}");
        let Ok((from, report)) = open_as(Arc::new(disk), false) else {
            lost += 1;
            continue;
        };
        let to = open_as(Arc::new(CrashVfs::new()), false).unwrap().0;
        let mut told = !report.damage.is_empty();
        for (id, digest) in all.iter().map(|(id, _)| *id).zip(&digests) {
            match to.bring(&from, id, &mut |_| true) {
                Ok((mut import, brought)) => {
                    told |= brought.lacking > 0;
                    assert_eq!(brought.lacking > 0, !brought.damage.is_empty(), "{context}");
                    let committed = import.commit().is_ok();
                    assert!(committed || brought.lacking > 0, "{context}");
                    if committed {
                        assert_eq!(to.recipe(id).unwrap().digest().unwrap(), *digest, "{context}");
                    }
                }
                Err(BringError::There(_) | BringError::Here(_)) => told = true,
                Err(BringError::Stopped) => panic!("{context}"),
            }
        }
        let there: Expected =
            all.iter().filter(|(id, _)| to.generation(*id).is_some()).cloned().collect();
        check(&to, &there, &context);
        lost += u64::from(there.len() < all.len());
        assert!(told || there.len() == all.len(), "{context}");
    }
    println!("{lost} of {rounds} lost something");
    assert!(lost > rounds / 10);
}

#[test]
fn what_is_lacking_can_come_from_elsewhere_and_a_stop_keeps_what_came() {
    let (good, seed) = (CrashVfs::new(), support::seed(7));
    let (from, all) = source(&good, seed);
    let to = open_as(Arc::new(CrashVfs::new()), false).unwrap().0;
    let id = all[2].0;
    assert!(matches!(to.bring(&from, id, &mut |_| false), Err(BringError::Stopped)));
    assert!(to.generation(id).is_none());
    let (_, brought) = to.bring(&from, id, &mut |_| true).unwrap();
    assert_eq!(brought.chunks, 0, "they are here already");
    // Every other chunk is bad.
    let digests: Vec<_> = from.recipe(id).unwrap().chunks(0).map(|c| c.unwrap().digest).collect();
    let empty = open_as(Arc::new(CrashVfs::new()), false).unwrap().0;
    let path = Path::new("/store/containers");
    for name in good.list(path).unwrap() {
        let file = good.open(&path.join(name)).unwrap();
        let len = file.len().unwrap();
        (200..len).step_by(2000).for_each(|at| file.write_all_at(&[0x55; 4], at).unwrap());
    }
    let (mut import, brought) = empty.bring(&from, id, &mut |_| true).unwrap();
    assert!(brought.lacking > 0 && !brought.damage.is_empty());
    assert!(import.commit().is_err());
    for digest in digests.iter().filter(|digest| empty.missing(&[**digest])[0]) {
        let chunk = to.stored_chunk(digest).unwrap();
        empty.put_stored_chunk(digest, chunk.encoding, chunk.raw_len, &chunk.bytes).unwrap();
    }
    import.commit().unwrap();
    check(&empty, &all[2..].to_vec(), "healed");
}

#[test]
fn digests_find_the_chunk_that_is_not_held() {
    let disk = CrashVfs::new();
    let (store, all) = source(&disk, support::seed(8));
    let id = all[2].0;
    let copy = open_as(Arc::new(CrashVfs::new()), true).unwrap().0;
    let (mut import, _) = copy.bring(&store, id, &mut |_| true).unwrap();
    import.commit().unwrap();
    let (ours, theirs) = (store.recipe(id).unwrap(), copy.recipe(id).unwrap());
    assert_eq!(ours.digest().unwrap(), theirs.digest().unwrap());
    assert_eq!(ours.runs_digest().unwrap(), theirs.runs_digest().unwrap());
    let other = store.recipe(all[1].0).unwrap();
    assert_ne!(ours.digest().unwrap(), other.digest().unwrap());
    assert_ne!(ours.runs_digest().unwrap(), other.runs_digest().unwrap());
    let count = ours.info().chunks;
    let all_of = |store: &Store, lists, range, parts, depth| {
        store.digests(lists, range, parts, depth).unwrap()
    };
    for depth in [Depth::Present, Depth::Read] {
        for parts in [1, 7, count] {
            let mine = all_of(&store, &ours, (0, count), parts, depth);
            assert_eq!(mine.len() as u64, count.div_ceil(part(count, parts)));
            assert_eq!(mine, all_of(&copy, &theirs, (0, count), parts, depth));
        }
    }
    // One byte on disk: only who reads sees it, and then everybody.
    let bad = ours.chunk(count / 2).unwrap().unwrap();
    let dir = Path::new("/store/containers");
    for name in disk.list(dir).unwrap() {
        let path = dir.join(name);
        let bytes = vfs::read_all(&disk, &path, 1 << 30).unwrap();
        let stored = store.stored_chunk(&bad.digest).unwrap().bytes;
        let Some(at) = bytes.windows(stored.len()).position(|window| window == stored) else {
            continue;
        };
        disk.open(&path).unwrap().write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
        break;
    }
    let present = all_of(&store, &ours, (0, count), 1, Depth::Present);
    assert_eq!(present, all_of(&copy, &theirs, (0, count), 1, Depth::Present));
    let each = |store, lists, depth| all_of(store, lists, (0, count), count, depth);
    let (mine, good) = (each(&store, &ours, Depth::Read), each(&copy, &theirs, Depth::Read));
    for (index, (mine, good)) in (0..).zip(mine.iter().zip(&good)) {
        let is_bad = ours.chunk(index).unwrap().unwrap().digest == bad.digest;
        assert_eq!(mine != good, is_bad, "{index}");
    }
    // It was forgotten, so that it can be healed.
    assert_ne!(present, all_of(&store, &ours, (0, count), 1, Depth::Present));
}
