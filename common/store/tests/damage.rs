//! Bytes that change on disk, disks that fail, disks that are full.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use store::{Damage, Store, StoreError};
use support::{Item, Random, cartridge, number, open, open_as, read_all, small, write};
use vfs::{CrashMode, CrashVfs, FaultKind, FaultOp, FaultyVfs, Vfs};

/// A store with two sealed generations of cartridge 1 and an open one of cartridge 2, and what
/// they hold.
fn furnished(sealed: bool) -> (CrashVfs, Vec<Vec<Item>>) {
    let vfs = CrashVfs::new();
    let shared: Arc<dyn Vfs> = Arc::new(vfs.clone());
    let (store, _) = open_as(shared, sealed).unwrap();
    let mut random = Random::new(9);
    let mut contents = Vec::new();
    let mut items: Vec<Item> = Vec::new();
    let mut image = store.image(cartridge(1)).unwrap();
    for _ in 0..2 {
        for _ in 0..8 {
            let item = (random.below(4) > 0).then(|| random.record(2500));
            write(&mut image, &item).unwrap();
            items.push(item);
        }
        image.seal().unwrap().unwrap();
        contents.push(items.clone());
    }
    let mut image = store.image(cartridge(2)).unwrap();
    let mut items = Vec::new();
    for _ in 0..3 {
        for item in [Some(random.record(2000)), None, Some(b"short".to_vec())] {
            write(&mut image, &item).unwrap();
            items.push(item);
        }
        image.flush().unwrap();
    }
    contents.push(items);
    (vfs.crash(CrashMode::KeepAll, 0), contents)
}

fn files(vfs: &dyn Vfs, dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for name in vfs.list(dir).unwrap() {
        let path = dir.join(name);
        match vfs.list(&path) {
            Ok(_) => all.extend(files(vfs, &path)),
            Err(_) => all.push(path),
        }
    }
    all
}

/// Whether opening and reading everything gives what was written, or says that it does not.
fn harmless_or_detected(vfs: &Arc<dyn Vfs>, contents: &[Vec<Item>], sealed: bool) -> bool {
    let (store, report) = match open_as(vfs.clone(), sealed) {
        Ok(opened) => opened,
        Err(StoreError::Unrecognised { .. } | StoreError::Key(_)) => return true,
        Err(error) => panic!("{error}"),
    };
    let torn = report.recovered.iter().any(|open| open.torn_bytes > 0);
    let mut detected = !report.damage.is_empty() || torn;
    for info in store.generations(cartridge(1)) {
        let items = &contents[usize::from(info.objects > 8)];
        let read = store.reader(info.id).and_then(|mut reader| {
            reader.verify()?;
            read_all(&mut reader)
        });
        match read {
            Ok(read) => assert!(read == *items),
            Err(error) => {
                assert!(error.is_damage(), "{error}");
                detected = true;
            }
        }
    }
    let open = store.image(cartridge(2)).and_then(|mut image| read_all(&mut image));
    match open {
        // What a damaged journal still gives is a first part of what was written.
        Ok(read) if detected => assert!(contents[2].starts_with(&read)),
        Ok(read) => assert!(read == contents[2]),
        Err(error) => {
            assert!(error.is_damage(), "{error}");
            detected = true;
        }
    }
    let complete = store.generations(cartridge(1)).len() == 2;
    complete || detected
}

fn flips(sealed: bool) {
    let (vfs, contents) = furnished(sealed);
    let all = files(&vfs, Path::new("/store"));
    let same: Arc<dyn Vfs> = Arc::new(vfs.crash(CrashMode::KeepAll, 0));
    assert!(harmless_or_detected(&same, &contents, sealed));
    let seed = support::seed(7);
    let mut random = Random::new(seed);
    let flips = number("TWINREEL_FLIPS", 2_000);
    let total: u64 = all.iter().map(|path| vfs.len(path).unwrap()).sum();
    let chance = if flips >= total { 1 } else { total / flips };
    let mut done = 0;
    for path in &all {
        for at in 0..vfs.len(path).unwrap() {
            if random.below(chance) > 0 {
                continue;
            }
            let copy = vfs.crash(CrashMode::KeepAll, 0);
            let file = copy.open(path).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            byte[0] ^= 1 << random.below(8);
            file.write_all_at(&byte, at).unwrap();
            let shared: Arc<dyn Vfs> = Arc::new(copy);
            let fine = harmless_or_detected(&shared, &contents, sealed);
            assert!(fine, "TWINREEL_SEED={seed} {} byte {at}", path.display());
            done += 1;
        }
    }
    println!("{done} of {total} bytes flipped");
}

#[test]
fn every_flipped_byte_is_detected_or_harmless() {
    flips(false);
}

#[test]
fn every_flipped_byte_of_an_encrypted_store_is_detected_or_harmless() {
    flips(true);
}

fn cuts(sealed: bool) {
    let (vfs, contents) = furnished(sealed);
    let mut random = Random::new(support::seed(8));
    for path in files(&vfs, Path::new("/store")) {
        for cut in 0..20 {
            let copy = vfs.crash(CrashMode::KeepAll, 0);
            let len = copy.len(&path).unwrap();
            match cut {
                0 => copy.remove(&path).unwrap(),
                _ => copy.open(&path).unwrap().set_len(random.below(len)).unwrap(),
            }
            let shared: Arc<dyn Vfs> = Arc::new(copy);
            // The loss of a whole recipe or journal is the catalogue's to notice.
            let listed = cut > 0 || path.extension().is_some_and(|ext| ext == "container");
            if listed {
                let journal = path.extension().is_some_and(|ext| ext == "journal");
                let fine = journal || harmless_or_detected(&shared, &contents, sealed);
                assert!(fine, "{} cut {cut}", path.display());
            }
        }
    }
}

#[test]
fn files_cut_short_or_missing_are_detected() {
    cuts(false);
}

#[test]
fn files_of_an_encrypted_store_cut_short_or_missing_are_detected() {
    cuts(true);
}

#[test]
fn a_damaged_chunk_is_healed_by_whoever_brings_it_again() {
    let vfs = CrashVfs::new();
    let shared: Arc<dyn Vfs> = Arc::new(vfs.clone());
    let (store, _) = open(&shared);
    let record = Random::new(3).bytes(900);
    let mut image = store.image(cartridge(1)).unwrap();
    image.write(&record).unwrap();
    let id = image.seal().unwrap().unwrap();
    let chunk = store.recipe(id).unwrap().chunk(0).unwrap().unwrap();
    let good = store.stored_chunk(&chunk.digest).unwrap();
    let path = Path::new("/store/containers/00000001.container");
    vfs.open(path).unwrap().write_all_at(b"bad", 200).unwrap();
    let mut buffer = vec![0; 1000];
    let read = store.reader(id).unwrap().read(&mut buffer);
    assert!(matches!(read, Err(StoreError::Damaged { .. })));
    assert_eq!(store.missing(&[chunk.digest]), [true]);
    store.put_stored_chunk(&chunk.digest, good.encoding, good.raw_len, &good.bytes).unwrap();
    store.reader(id).unwrap().read(&mut buffer).unwrap();
    assert_eq!(buffer[..900], record);
    store.sync().unwrap();
    drop((image, store));
    let (store, _) = open(&shared);
    assert_eq!(store.reader(id).unwrap().verify().unwrap(), 900);
}

#[test]
fn a_store_is_opened_once_and_only_a_store_is_opened() {
    let vfs: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
    let (store, _) = open(&vfs);
    let again = Store::open(vfs.clone(), Path::new("/store"), &small());
    assert!(matches!(again, Err(StoreError::Locked(_))));
    drop(store);
    vfs.open(Path::new("/store/store.header")).unwrap().write_all_at(&[0; 5000], 0).unwrap();
    let broken = Store::open(vfs.clone(), Path::new("/store"), &small());
    assert!(matches!(broken, Err(StoreError::Unrecognised { .. })));
    vfs.remove(Path::new("/store/store.header")).unwrap();
    let headless = Store::open(vfs, Path::new("/store"), &small());
    assert!(matches!(headless, Err(StoreError::Unrecognised { .. })));
}

/// Faults at random: every call succeeds as the model says or fails and changes nothing; after
/// reopening, what was acknowledged is there.
fn faults(sealed: bool) {
    let seed = support::seed(10);
    for round in 0..number("TWINREEL_FAULT_ROUNDS", 150) {
        let mut random = Random::new(seed.wrapping_mul(31) + round);
        let disk = CrashVfs::new();
        let faulty = FaultyVfs::new(Arc::new(disk.clone()));
        let shared: Arc<dyn Vfs> = Arc::new(faulty.clone());
        let (store, _) = open_as(shared, sealed).unwrap();
        let mut image = store.image(cartridge(1)).unwrap();
        let (mut items, mut safe): (Vec<Item>, usize) = (Vec::new(), 0);
        for _ in 0..random.below(5) {
            let kinds = [FaultKind::Io, FaultKind::Full, FaultKind::Short];
            let ops = [FaultOp::Write, FaultOp::Sync, FaultOp::Create, FaultOp::Rename];
            let (op, kind) = (ops[random.below(4) as usize], kinds[random.below(3) as usize]);
            faulty.fail(op, 1 + random.below(12), kind);
        }
        let mut last = None;
        for _ in 0..40 {
            match random.below(8) {
                0 if image.flush().is_ok() => safe = items.len(),
                1 => {
                    if let Ok(id) = image.seal() {
                        safe = items.len();
                        last = id.or(last);
                    }
                }
                _ => {
                    let item = (random.below(6) > 0).then(|| random.record(3000));
                    if write(&mut image, &item).is_ok() {
                        items.push(item);
                    }
                }
            }
            assert_eq!(image.end().object, items.len() as u64);
        }
        let context = format!("TWINREEL_SEED={seed} round {round}");
        assert!(read_all(&mut image).unwrap() == items, "{context}");
        drop((image, store));
        // What a failing disk said was synced must be there after a loss of power too.
        let after = disk.crash(CrashMode::ALL[random.below(4) as usize], random.next());
        let (store, report) = open_as(Arc::new(after), sealed).unwrap();
        let bad = report.damage.iter().any(|d| !matches!(d, Damage::Container { .. }));
        assert!(!bad, "{:?}", report.damage);
        let mut image = store.image(cartridge(1)).unwrap();
        let found = read_all(&mut image).unwrap();
        assert!(found.len() >= safe && items.starts_with(&found), "{context}");
        last.into_iter().for_each(|id| assert!(store.generation(id).is_some(), "{context}"));
    }
}

#[test]
fn a_failing_disk_loses_nothing_that_was_acknowledged() {
    faults(false);
}

#[test]
fn a_failing_disk_loses_nothing_that_an_encrypted_store_acknowledged() {
    faults(true);
}

/// What other threads read ahead is good up to the bad place, and an error there, again and again.
#[test]
fn a_bad_place_far_ahead_is_an_error_when_the_reader_gets_there() {
    let vfs = CrashVfs::new();
    let shared: Arc<dyn Vfs> = Arc::new(vfs.clone());
    let (store, _) = Store::open(shared, Path::new("/store"), &store::Options::default()).unwrap();
    let seed = support::seed(41);
    let mut random = Random::new(seed);
    let records: Vec<_> = (0..320).map(|_| random.bytes(40_000)).collect();
    let mut image = store.image(cartridge(1)).unwrap();
    records.iter().for_each(|record| image.write(record).unwrap());
    let id = image.seal().unwrap().unwrap();
    let at = 6_000_000 + random.below(6_000_000);
    let path = Path::new("/store/containers/00000001.container");
    let file = vfs.open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
    let mut reader = store.reader(id).unwrap();
    for attempt in 0..3 {
        reader.locate(0).unwrap();
        let mut buffer = vec![0; 40_000];
        let good = records.iter().take_while(|record| match reader.read(&mut buffer) {
            Ok(_) => {
                assert!(buffer == **record, "seed {seed}: attempt {attempt}");
                true
            }
            Err(error) => {
                let told =
                    matches!(error, StoreError::Damaged { .. } | StoreError::MissingChunk(_));
                assert!(told, "seed {seed}: {error}");
                false
            }
        });
        let good = good.count() as u64;
        // Headers and a chunk at most lie between the place in the file and that on the tape.
        assert!(good * 40_000 <= at && at <= (good + 4) * 40_000, "seed {seed}: {good} of {at}");
        assert!(reader.read(&mut buffer).is_err(), "seed {seed}");
        reader.locate(good + 4).unwrap();
        reader.read(&mut buffer).unwrap();
        assert!(buffer == records[good as usize + 4], "seed {seed}");
    }
}
