//! Seeds between two sites in one process, and disks that are not what they should be.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{Barcode, CartridgeId, Digest, GenerationId, LibraryName, SiteName, Ulid};
use serde_json::json;
use store::{Key, Object, Options, Store, StoredChunk};
use svs::{Cartridge, Catalogue, Generation, GenerationState, Replication, ReplicationState};
use tempfile::TempDir;

use super::*;
use crate::config;
use crate::healing::{Elsewhere, fetch_from};
use crate::shutdown::{self, Shutdown, ShutdownTrigger};

/// The store of the other site, asked in the way of a peer; `None`: the link is down.
struct Other(Option<Store>);

impl Elsewhere for Other {
    fn fetch(
        &self,
        wanted: &[Digest],
        _shutdown: &Shutdown,
    ) -> Option<Vec<(SiteName, Digest, StoredChunk)>> {
        let peer = self.0.clone().map(|store| (site_name("hq"), store));
        fetch_from(peer, wanted, |store, wanted| {
            Some(wanted.iter().map(|digest| (*digest, store.stored_chunk(digest).ok())).collect())
        })
    }
}

struct Site {
    dir: TempDir,
    store: Store,
    upkeep: Arc<Upkeep>,
    trigger: ShutdownTrigger,
}

fn site_name(name: &str) -> SiteName {
    SiteName::new(name).unwrap()
}

fn site_with(key: bool, other: Option<Store>) -> Site {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config::Upkeep::default();
    let path = dir.path().join("store.key");
    let key = key.then(|| Key::create(&path).unwrap());
    config.key_file = key.is_some().then_some(path);
    let options = Options::default();
    let opened = Store::open_with_key(real(), &dir.path().join("store"), &options, key.as_ref());
    let store = opened.unwrap().0;
    let catalogue = Arc::new(Catalogue::open(&dir.path().join("svs.db")).unwrap());
    let (trigger, shutdown) = shutdown::channel();
    let upkeep = Upkeep::new(store.clone(), catalogue, config, shutdown, Arc::new(Other(other)));
    Site { dir, store, upkeep, trigger }
}

fn site() -> Site {
    site_with(false, None)
}

/// A disk that is carried.
struct Carried {
    _dir: TempDir,
    path: PathBuf,
}

fn carried() -> Carried {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seed");
    Carried { _dir: dir, path }
}

fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (state >> 33) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

impl Site {
    /// A generation of a cartridge of site hq, with rows as an engine makes them.
    fn back_up(&self, n: u64, seed: u64, length: usize) -> GenerationId {
        let cartridge = CartridgeId(Ulid::from_parts(n, 1));
        let mut image = self.store.image(cartridge).unwrap();
        image.erase().unwrap();
        for record in bytes(seed, length).chunks(10_000) {
            image.write(record).unwrap();
        }
        image.write_filemarks(1).unwrap();
        let id = image.seal().unwrap().unwrap();
        let catalogue = self.upkeep.catalogue();
        let (library, barcode) = (LibraryName::new("vtl0").unwrap(), barcode(n));
        let row = Cartridge {
            id: cartridge,
            site: site_name("hq"),
            library,
            barcode,
            capacity: 1 << 30,
            write_protected: false,
            element: None,
            home: None,
        };
        catalogue.put_cartridge(&row).unwrap();
        let info = self.store.generation(id).unwrap();
        let number = self.store.generations(cartridge).len() as u64;
        let row = Generation {
            id,
            cartridge,
            number,
            state: GenerationState::Sealed,
            records: info.objects - 1,
            filemarks: 1,
            logical_bytes: info.bytes,
            unique_bytes: info.unique_bytes,
        };
        catalogue.put_generation(&row).unwrap();
        id
    }

    fn write(&self, disk: &Path, more: Value) -> Result<Value, String> {
        let mut params = json!({ "dir": disk, "site": "dr" });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.upkeep.write_seed(&serde_json::from_value(params).unwrap(), &site_name("hq"))
    }

    fn read(&self, disk: &Path) -> Result<Value, String> {
        self.read_with(disk, None)
    }

    fn read_with(&self, disk: &Path, key: Option<&Path>) -> Result<Value, String> {
        let disk = Disk { dir: disk.to_owned(), key_file: key.map(Path::to_owned) };
        let (me, peers) = (site_name("dr"), vec![site_name("hq")]);
        self.upkeep.read_seed(&disk, &Neighbours { me, peers })
    }

    fn content(&self, id: GenerationId) -> Vec<u8> {
        let mut reader = self.store.reader(id).unwrap();
        let (mut all, mut record) = (Vec::new(), vec![0; 10_000]);
        while let Object::Record { length } = reader.read(&mut record).unwrap() {
            all.extend_from_slice(&record[..length as usize]);
        }
        all
    }
}

fn barcode(n: u64) -> Barcode {
    Barcode::new(&format!("VTA{n:03}L8")).unwrap()
}

fn count(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("{key} in {value:#}"))
}

fn lines(value: &Value, key: &str) -> usize {
    value[key].as_array().unwrap_or_else(|| panic!("{key} in {value:#}")).len()
}

#[test]
fn what_a_site_lacks_is_written_and_taken_in() {
    let (local, remote, disk) = (site(), site(), carried());
    local.back_up(1, 1, 300_000);
    let second = local.back_up(1, 2, 400_000);
    let other = local.back_up(2, 2, 400_000);
    let there = local.back_up(3, 3, 100_000);
    let done = Replication {
        generation: there,
        site: site_name("dr"),
        state: ReplicationState::Done,
        job: None,
        bytes_logical: 0,
        bytes_unique: 0,
        bytes_wire: 0,
        message: None,
    };
    local.upkeep.catalogue().put_replication(&done).unwrap();
    // One cartridge, then all that lack.
    let one = local.write(&disk.path, json!({ "cartridges": [["vtl0", "VTA002L8"]] })).unwrap();
    assert_eq!((count(&one, "generations"), count(&one, "bytes")), (1, 400_000), "{one:#}");
    let all = local.write(&disk.path, json!({})).unwrap();
    assert_eq!((count(&all, "generations"), count(&all, "generations_before")), (1, 1));
    assert_eq!(count(&all, "stored_bytes"), 0, "the same bytes on two cartridges: {all:#}");
    let taken = remote.read(&disk.path).unwrap();
    assert_eq!((count(&taken, "generations"), count(&taken, "bytes")), (2, 800_000), "{taken:#}");
    assert_eq!((lines(&taken, "damage"), lines(&taken, "incomplete_generations")), (0, 0));
    for id in [second, other] {
        assert_eq!(remote.content(id), bytes(2, 400_000));
        assert_eq!(remote.store.generation(id), local.store.generation(id));
    }
    // The rows are there, and what nobody replicated yet outlives a collection and a restart.
    let rows = remote.upkeep.catalogue().cartridge_status().unwrap();
    let found: Vec<_> = rows.iter().map(|row| (row.barcode.clone(), row.number)).collect();
    assert_eq!(found, [(barcode(1), Some(2)), (barcode(2), Some(1))]);
    assert!(rows.iter().all(|row| row.site == site_name("hq")));
    remote.store.collect(100, &|| false).unwrap();
    assert_eq!(remote.content(second), bytes(2, 400_000));
    let again = remote.read(&disk.path).unwrap();
    assert_eq!((count(&again, "generations"), count(&again, "generations_before")), (0, 2));
}

#[test]
fn a_seed_that_was_ended_goes_on() {
    let (local, remote, disk) = (site(), site(), carried());
    let id = local.back_up(1, 1, 9 << 20);
    local.trigger.trigger();
    let stopped = local.write(&disk.path, json!({})).unwrap_err();
    assert!(stopped.contains("stopped"), "{stopped}");
    // Shipped too early: it is named.
    let early = remote.read(&disk.path).unwrap();
    assert_eq!((count(&early, "generations"), lines(&early, "incomplete_generations")), (0, 1));
    // The next run of the engine.
    let (_trigger, shutdown) = shutdown::channel();
    let catalogue = Catalogue::open(&local.dir.path().join("svs.db")).unwrap();
    let nobody = Arc::new(Other(None));
    let config = config::Upkeep::default();
    let upkeep = Upkeep::new(local.store.clone(), Arc::new(catalogue), config, shutdown, nobody);
    let order = json!({ "dir": disk.path, "site": "dr" });
    let order = serde_json::from_value(order).unwrap();
    let all = upkeep.write_seed(&order, &site_name("hq")).unwrap();
    assert_eq!(count(&all, "generations"), 1);
    assert!(count(&all, "stored_bytes") < 6 << 20, "what was there is not written again: {all:#}");
    assert_eq!(count(&remote.read(&disk.path).unwrap(), "generations"), 1);
    assert_eq!(remote.content(id), bytes(1, 9 << 20));
}

#[test]
fn a_seed_of_an_encrypted_store_is_encrypted_or_said_to_be_in_clear() {
    let (local, remote, disk) = (site_with(true, None), site(), carried());
    let id = local.back_up(1, 1, 300_000);
    let refused = local.write(&disk.path, json!({})).unwrap_err();
    assert!(refused.contains("--key-file") && !disk.path.exists(), "{refused}");
    let key = remote.dir.path().join("seed.key");
    Key::create(&key).unwrap();
    local.write(&disk.path, json!({ "key_file": key })).unwrap();
    let digest = local.store.recipe(id).unwrap().chunk(0).unwrap().unwrap().digest;
    for secret in [&bytes(1, 300_000)[1000..1100], digest.as_bytes(), b"VTA001L8"] {
        for dir in ["containers", "recipes", "index", "."] {
            for entry in fs::read_dir(disk.path.join(dir)).unwrap() {
                let Ok(bytes) = fs::read(entry.unwrap().path()) else { continue };
                assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{dir}");
            }
        }
    }
    let missing = remote.read(&disk.path).unwrap_err();
    assert!(missing.contains("--key-file"), "{missing}");
    let wrong = remote.dir.path().join("wrong.key");
    Key::create(&wrong).unwrap();
    assert!(remote.read_with(&disk.path, Some(&wrong)).unwrap_err().contains("key"));
    assert_eq!(count(&remote.read_with(&disk.path, Some(&key)).unwrap(), "generations"), 1);
    assert_eq!(remote.content(id), bytes(1, 300_000));
    let clear = carried();
    local.write(&clear.path, json!({ "in_clear": true })).unwrap();
    assert_eq!(count(&remote.read(&clear.path).unwrap(), "generations_before"), 1);
}

#[test]
fn what_is_no_seed_for_this_site_is_refused_and_not_touched() {
    let (local, remote, disk) = (site(), site(), carried());
    local.back_up(1, 1, 10_000);
    local.write(&disk.path, json!({})).unwrap();
    let other = local.write(&disk.path, json!({ "site": "elsewhere" })).unwrap_err();
    assert!(other.contains("from hq for dr"), "{other}");
    assert!(local.write(&carried().path, json!({ "site": "hq" })).is_err());
    let read = |me: &str, peer: &str| {
        let disk = Disk { dir: disk.path.clone(), key_file: None };
        let neighbours = Neighbours { me: site_name(me), peers: vec![site_name(peer)] };
        remote.upkeep.read_seed(&disk, &neighbours).unwrap_err()
    };
    assert!(read("third", "hq").contains("for site dr"));
    assert!(read("dr", "branch").contains("no [[peer]]"));
    // A directory of somebody else, a store that is none, the store of this engine.
    let somebody = carried();
    fs::create_dir_all(&somebody.path).unwrap();
    assert!(remote.read(&somebody.path).unwrap_err().contains("no seed"));
    fs::write(somebody.path.join("letter"), "dear").unwrap();
    assert!(local.write(&somebody.path, json!({})).unwrap_err().contains("something else"));
    assert_eq!(fs::read_dir(&somebody.path).unwrap().count(), 1);
    let third = site();
    third.back_up(1, 1, 10_000);
    let theirs = third.dir.path().join("store");
    assert!(local.write(&theirs, json!({})).unwrap_err().contains("in use"));
    let Site { dir, store, upkeep, .. } = third;
    drop((store, upkeep));
    let theirs = dir.path().join("store");
    assert!(local.write(&theirs, json!({})).unwrap_err().contains("is no seed"));
    assert!(remote.read(&theirs).unwrap_err().contains("is no seed"));
    assert!(remote.store.all_generations().is_empty());
    assert!(local.write(Path::new("relative"), json!({})).is_err());
}

/// Every file of the seed, one byte after the other as far as there is time: what arrives is
/// right, what does not is named with its file, and the rest is taken.
#[test]
fn a_flipped_byte_is_told_and_the_rest_is_taken() {
    let (local, disk) = (site(), carried());
    let ids = [local.back_up(1, 1, 200_000), local.back_up(2, 2, 200_000)];
    local.write(&disk.path, json!({})).unwrap();
    let (mut told, mut harmless) = (0, 0);
    for dir in ["containers", "recipes", "."] {
        for entry in fs::read_dir(disk.path.join(dir)).unwrap() {
            let path = entry.unwrap().path();
            let Ok(good) = fs::read(&path) else { continue };
            let step = (good.len() / 12).max(1);
            for at in (0..good.len()).step_by(step) {
                let mut bad = good.clone();
                bad[at] ^= 0x10;
                fs::write(&path, &bad).unwrap();
                let remote = site();
                let context = format!("byte {at} of {}", path.display());
                match remote.read(&disk.path) {
                    Err(_) => told += 1,
                    Ok(taken) => {
                        let there: Vec<_> = ids
                            .iter()
                            .filter(|id| remote.store.generation(**id).is_some())
                            .collect();
                        for id in &there {
                            assert!(remote.content(**id) == local.content(**id), "{context}");
                        }
                        let named = lines(&taken, "damage") > 0;
                        assert!(named || there.len() == 2, "{context}: {taken:#}");
                        assert!(!there.is_empty() || dir == "recipes", "{context}: {taken:#}");
                        if named { told += 1 } else { harmless += 1 }
                    }
                }
                fs::write(&path, &good).unwrap();
            }
        }
    }
    println!("{told} were told, {harmless} did no harm");
    assert!(told > 10);
}

#[test]
fn what_a_damaged_disk_lacks_comes_over_the_link() {
    let (local, disk) = (site(), carried());
    let id = local.back_up(1, 1, 3 << 20);
    local.write(&disk.path, json!({})).unwrap();
    let dir = disk.path.join("containers");
    let path = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| fs::metadata(path).unwrap().len());
    let path = path.unwrap();
    let mut bytes_of = fs::read(&path).unwrap();
    let end = bytes_of.len() / 10 * 9;
    bytes_of[..end].iter_mut().skip(1000).step_by(100_000).for_each(|byte| *byte ^= 1);
    fs::write(&path, bytes_of).unwrap();
    let alone = site();
    let taken = alone.read(&disk.path).unwrap();
    assert_eq!((count(&taken, "generations"), lines(&taken, "incomplete_generations")), (0, 1));
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(taken["damage"][0].as_str().unwrap().contains(name), "{taken:#}");
    let linked = site_with(false, Some(local.store.clone()));
    let taken = linked.read(&disk.path).unwrap();
    assert_eq!((count(&taken, "generations"), lines(&taken, "incomplete_generations")), (1, 0));
    assert!((1..100).contains(&count(&taken, "healed_chunks")), "{taken:#}");
    assert_eq!(linked.content(id), bytes(1, 3 << 20));
}

/// A list that says other things than the disk holds makes no rows of what is not there.
#[test]
fn a_list_that_lies_changes_nothing() {
    let (local, remote, disk) = (site(), site(), carried());
    let id = local.back_up(1, 1, 10_000);
    local.write(&disk.path, json!({})).unwrap();
    let (seed, _) = Store::open(real(), &disk.path, &Options::default()).unwrap();
    let list::Found::List(mut list) = list::List::read(&seed) else { panic!("a list") };
    let mut more = list.entries[0].clone();
    more.generation = GenerationId(Ulid(77));
    list.entries[0].cartridge = CartridgeId(Ulid(78));
    list.entries[0].number = u64::MAX >> 1;
    list.entries.push(more);
    list.write(&seed).unwrap();
    drop(seed);
    let taken = remote.read(&disk.path).unwrap();
    assert_eq!((count(&taken, "generations"), lines(&taken, "incomplete_generations")), (1, 1));
    let catalogue = remote.upkeep.catalogue();
    assert!(catalogue.cartridge(CartridgeId(Ulid(78))).unwrap().is_none());
    assert!(catalogue.generation(GenerationId(Ulid(77))).unwrap().is_none());
    assert_eq!(remote.content(id), bytes(1, 10_000));
    // A list that is none at all: what is whole is taken in without rows.
    let (seed, _) = Store::open(real(), &disk.path, &Options::default()).unwrap();
    let mut image = seed.image(list::LIST).unwrap();
    image.erase().unwrap();
    image.write(b"{}").unwrap();
    image.seal().unwrap();
    drop(image);
    drop(seed);
    let other = site();
    let taken = other.read(&disk.path).unwrap();
    assert_eq!((count(&taken, "generations"), lines(&taken, "damage")), (1, 1), "{taken:#}");
    assert_eq!(other.content(id), bytes(1, 10_000));
}
