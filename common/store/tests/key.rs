//! Encrypted stores: which key opens them, what a stolen disk tells, and peers with other keys.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use store::{Key, KeyError, Store, StoreError};
use support::{Item, Random, cartridge, key, open, open_as, read_all, small, write};
use vfs::{CrashVfs, Vfs};

const DIR: &str = "/store";

/// Every file below a directory, with its bytes.
fn files(vfs: &dyn Vfs, dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for name in vfs.list(dir).unwrap() {
        let path = dir.join(name);
        if vfs.list(&path).is_ok() {
            all.extend(files(vfs, &path));
        } else {
            let bytes = vfs::read_all(vfs, &path, 1 << 30).unwrap();
            all.insert(path, bytes);
        }
    }
    all
}

fn items(seed: u64) -> Vec<Item> {
    let mut random = Random::new(seed);
    (0..30).map(|_| (random.below(5) > 0).then(|| random.record(6000))).collect()
}

/// Writes a sealed generation, and the beginning of another one.
fn fill(store: &Store, items: &[Item]) -> model::GenerationId {
    let mut image = store.image(cartridge(1)).unwrap();
    items.iter().for_each(|item| write(&mut image, item).unwrap());
    let id = image.seal().unwrap().unwrap();
    image.write(b"the beginning of the next generation").unwrap();
    image.flush().unwrap();
    id
}

fn open_key(vfs: &Arc<dyn Vfs>, key: Option<&Key>) -> store::Result<Store> {
    Ok(Store::open_with_key(vfs.clone(), Path::new(DIR), &small(), key)?.0)
}

#[test]
fn only_its_key_opens_a_store_and_nothing_is_touched_by_another() {
    let disk: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
    let items = items(1);
    let store = open_key(&disk, Some(&key())).unwrap();
    let id = fill(&store, &items);
    drop(store);
    let before = files(disk.as_ref(), Path::new(DIR));
    let other = Key::new([9; 32]);
    let missing = open_key(&disk, None).unwrap_err();
    assert!(
        matches!(&missing, StoreError::Key(KeyError::Missing { id, .. }) if *id == key().id()),
        "{missing}"
    );
    let wrong = open_key(&disk, Some(&other)).unwrap_err();
    assert!(matches!(wrong, StoreError::Key(KeyError::Wrong { .. })), "{wrong}");
    assert!(wrong.to_string().contains(&other.id().to_string()));
    assert!(!wrong.retry_helps());
    assert!(files(disk.as_ref(), Path::new(DIR)) == before);
    let store = open_key(&disk, Some(&key())).unwrap();
    assert!(read_all(&mut store.reader(id).unwrap()).unwrap() == items);
}

#[test]
fn a_store_without_a_key_is_not_opened_with_one() {
    let disk: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
    fill(&open_key(&disk, None).unwrap(), &items(2));
    let before = files(disk.as_ref(), Path::new(DIR));
    let error = open_key(&disk, Some(&key())).unwrap_err();
    assert!(matches!(error, StoreError::Key(KeyError::NotEncrypted(_))), "{error}");
    assert!(files(disk.as_ref(), Path::new(DIR)) == before);
}

#[test]
fn a_key_is_changed_without_writing_data_anew() {
    let disk: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
    let (items, new) = (items(3), Key::new([9; 32]));
    let store = open_key(&disk, Some(&key())).unwrap();
    let id = fill(&store, &items);
    let change = |old: &Key| Store::change_key(disk.as_ref(), Path::new(DIR), old, &new);
    assert!(matches!(change(&key()), Err(StoreError::Locked(_))));
    drop(store);
    let before = files(disk.as_ref(), Path::new(DIR));
    assert!(matches!(change(&new), Err(StoreError::Key(KeyError::Wrong { .. }))));
    change(&key()).unwrap();
    let mut after = files(disk.as_ref(), Path::new(DIR));
    let header = Path::new(DIR).join("store.header");
    assert!(after[&header] != before[&header]);
    after.insert(header.clone(), before[&header].clone());
    assert!(after == before);
    assert!(matches!(open_key(&disk, Some(&key())), Err(StoreError::Key(_))));
    let store = open_key(&disk, Some(&new)).unwrap();
    assert!(read_all(&mut store.reader(id).unwrap()).unwrap() == items);
}

/// What a stolen disk shows of data that the thief has as well: in the same tests a store without a
/// key shows it, so that the looking can find.
#[test]
fn nothing_on_disk_names_a_chunk() {
    for sealed in [false, true] {
        let disk = CrashVfs::new();
        let shared: Arc<dyn Vfs> = Arc::new(disk.clone());
        let (store, _) = open_as(shared, sealed).unwrap();
        let id = fill(&store, &items(4));
        store.lock_cartridge(cartridge(1), 77).unwrap();
        let recipe = store.recipe(id).unwrap();
        let digests: Vec<_> = recipe.chunks(0).map(|chunk| chunk.unwrap().digest).collect();
        assert!(digests.len() > 20);
        drop((recipe, store));
        let all = files(&disk, Path::new(DIR));
        assert!(all.len() > 4);
        let holds = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).any(|it| it == what);
        let mut shown = 0;
        for (path, bytes) in &all {
            // Half a digest is enough to know a file by.
            let named = digests.iter().any(|digest| holds(bytes, &digest.as_bytes()[..8]));
            let told = [&b"the beginning of the next"[..], b"a tape record", b"TRck", b"TRjf"];
            let told = told.iter().any(|text| holds(bytes, text));
            assert!(!(sealed && (named || told)), "{}", path.display());
            shown += u32::from(named || told);
        }
        assert_eq!(shown > 2, !sealed);
    }
}

/// Chunks are named as everywhere: what is here is not stored twice, and goes to and comes from
/// peers with another key or none.
#[test]
fn peers_need_not_have_the_same_key() {
    let items = items(5);
    let new = |key: Option<Key>| {
        open_key(&(Arc::new(CrashVfs::new()) as Arc<dyn Vfs>), key.as_ref()).unwrap()
    };
    let stores = [new(Some(key())), new(None), new(Some(Key::new([9; 32])))];
    let id = fill(&stores[0], &items);
    let chunks = stores[0].statistics().chunks;
    for pair in stores.windows(2) {
        let (from, to) = (&pair[0], &pair[1]);
        let recipe = from.recipe(id).unwrap();
        let mut import = to.import(*recipe.info()).unwrap();
        for chunk in recipe.chunks(0) {
            let chunk = chunk.unwrap();
            import.append_chunk(chunk).unwrap();
            let stored = from.stored_chunk(&chunk.digest).unwrap();
            to.put_stored_chunk(&chunk.digest, stored.encoding, stored.raw_len, &stored.bytes)
                .unwrap();
        }
        recipe.runs(0).for_each(|run| import.append_objects(run.unwrap()).unwrap());
        import.commit().unwrap();
        assert!(read_all(&mut to.reader(id).unwrap()).unwrap() == items);
    }
    // The same once more adds nothing.
    let mut image = stores[2].image(cartridge(3)).unwrap();
    items.iter().for_each(|item| write(&mut image, item).unwrap());
    image.seal().unwrap();
    assert_eq!(stores[2].statistics().chunks, chunks);
}

#[test]
fn scrub_and_collect_work_with_a_key() {
    let disk = CrashVfs::new();
    let shared: Arc<dyn Vfs> = Arc::new(disk.clone());
    let (store, _) = open_as(shared.clone(), true).unwrap();
    let first = fill(&store, &items(6));
    let kept = items(7);
    let mut image = store.image(cartridge(2)).unwrap();
    kept.iter().for_each(|item| write(&mut image, item).unwrap());
    let id = image.seal().unwrap().unwrap();
    drop(image);
    let checked = store.check(&mut |_| true).unwrap();
    assert!(checked.damage.is_empty() && checked.incomplete.is_empty() && checked.chunks > 20);
    // The next generation on it goes first: it is built on the one that is deleted.
    let mut image = store.image(cartridge(1)).unwrap();
    image.locate(0).unwrap();
    image.erase().unwrap();
    image.seal().unwrap();
    drop(image);
    store.delete_generation(first).unwrap();
    let collected = store.collect(100, &|| false).unwrap();
    assert!(collected.containers > 0);
    drop(store);
    let (store, report) = open_as(shared, true).unwrap();
    assert!(report.damage.is_empty());
    assert!(read_all(&mut store.reader(id).unwrap()).unwrap() == kept);
    drop(store);
    // One byte of a container of the disk below, and the scrub finds it.
    let dir = Path::new(DIR).join("containers");
    let path = dir.join(&disk.list(&dir).unwrap()[0]);
    let file = disk.open(&path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 21_000).unwrap();
    file.write_all_at(&[!byte[0]], 21_000).unwrap();
    let (store, _) = open_as(Arc::new(disk), true).unwrap();
    let checked = store.check(&mut |_| true).unwrap();
    assert!(!checked.damage.is_empty());
    assert!(open(&(Arc::new(CrashVfs::new()) as _)).1.damage.is_empty());
}
