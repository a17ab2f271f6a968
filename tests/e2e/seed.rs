//! A first replication that is shipped on a disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use store::{ChunkRef, ObjectRun, Options, Store};
use svs::{GenerationState, JobState, ReplicationState};
use tests::{Content, Pair, Role, Scratch, Texture, seed, twinreel};
use toml::Table;

use crate::scene::{RECORD, SOURCE, Scene, VIRTUAL};
use crate::upkeep::containers;

/// More than a container.
const LENGTH: u64 = 70 << 20;
/// What a replication may cost that has nothing to send: the names that go before the answer that
/// the generation is there, eight batches of a thousand at most.
const NAMES: u64 = 300 << 10;

/// A pair whose first replication waits for somebody to ask for it, with a backup.
fn pair(name: &str, key: Option<&str>, length: u64, seed: u64) -> (Scene, Content) {
    let scene = Scene::new(name, |local, _| {
        tests::start_replication(local, "manual");
        if let Some(key) = key {
            let mut store = Table::new();
            store.insert("key_file".into(), key.into());
            local.insert("store".into(), store.into());
        }
    });
    let content = Content::new(Texture::Compressible, seed, length);
    write(&scene, &content);
    (scene, content)
}

fn write(scene: &Scene, content: &Content) {
    scene.operator.load("vtl0", VIRTUAL, 0);
    scene.operator.backup(SOURCE, RECORD as u32, content.reader());
    scene.operator.unload("vtl0", 0);
}

fn command(words: &[&str]) -> Result<Value, String> {
    let (code, out, errors) = twinreel(words.iter().copied().chain(["--json"]));
    match code {
        0 => Ok(serde_json::from_str(&out).expect("JSON")),
        _ => Err(format!("{code}: {errors}{out}")),
    }
}

/// The configurations of both engines.
fn configs(pair: &Pair) -> (String, String) {
    let text = |path: &Path| path.to_str().expect("a scratch path is text").to_owned();
    (text(pair.local.config()), text(pair.remote.config()))
}

fn write_seed(local: &str, dir: &str, more: &[&str]) -> Result<Value, String> {
    let words = ["store", "seed", "write", "--config", local, "--site", "dr", dir];
    command(&[&words, more].concat())
}

fn read_seed(remote: &str, dir: &str, more: &[&str]) -> Result<Value, String> {
    command(&[&["store", "seed", "read", "--config", remote, dir], more].concat())
}

/// Bytes on the wire for the newest generation.
fn replicate(scene: &Scene) -> u64 {
    let (config, _) = configs(&scene.pair);
    let before = scene.pair.relay.total();
    let cartridge = format!("vtl0:{VIRTUAL}");
    command(&["replicate", "--config", &config, "--wait", &cartridge]).expect("it is replicated");
    scene.pair.relay.total() - before
}

fn path(scratch: &Scratch, name: &str) -> String {
    scratch.path().join(name).to_str().expect("a scratch path is text").to_owned()
}

#[test]
fn what_came_on_a_disk_is_not_sent() {
    let (seed, scratch) = (seed("seed"), Scratch::new("seed-disk"));
    let (store_key, key) = (path(&scratch, "store.key"), path(&scratch, "seed.key"));
    for file in [&store_key, &key] {
        command(&["store", "key", "new", file]).expect("a key");
    }
    let (mut scene, content) = pair("seed", Some(&store_key), LENGTH, seed);
    let (disk, (local, remote)) = (path(&scratch, "disk"), configs(&scene.pair));
    let refused = write_seed(&local, &disk, &[]).expect_err("no key");
    assert!(refused.contains("--key-file"), "{refused}");
    let written = write_seed(&local, &disk, &["--key-file", &key]).expect("it is written");
    assert_eq!(written["generations"], 1, "{written:#}");
    assert_eq!(written["bytes"], LENGTH, "{written:#}");
    let job = written["job"].as_str().expect("a job").parse().expect("its id");
    let row = scene.pair.catalogue(Role::Local).job_status(job).expect("the catalogue");
    assert_eq!(row.expect("a row").state, JobState::Done);
    // Nothing of it went over the link.
    assert!(scene.pair.relay.total() < LENGTH / 100);
    let refused = read_seed(&remote, &disk, &[]).expect_err("no key");
    assert!(refused.contains("--key-file"), "{refused}");
    let taken = read_seed(&remote, &disk, &["--key-file", &key]).expect("it is taken in");
    assert_eq!((&taken["generations"], &taken["bytes"]), (&1.into(), &LENGTH.into()), "{taken:#}");
    let there = scene.pair.cartridge(Role::Remote, VIRTUAL);
    assert_eq!((there.state, there.replication), (Some(GenerationState::Sealed), None));
    // It outlives what a store does by itself, and the engine.
    command(&["store", "collect", "--config", &remote]).expect("it is collected");
    scene.pair.remote.kill_and_run();
    scene.operator.wait_for("dr-ptl0");
    let wire = replicate(&scene);
    println!("{wire} bytes for what is there");
    assert!(wire < NAMES, "{wire}");
    for role in [Role::Local, Role::Remote] {
        let row = scene.pair.cartridge(role, VIRTUAL);
        assert_eq!(row.replication, Some(ReplicationState::Done), "{row:?}");
        assert_eq!(row.logical_bytes, Some(LENGTH));
    }
    scene.check_copy(&content);
    // The next night is a difference to it.
    let next = content.overwrite(20 << 20, 300, seed + 1).overwrite(50 << 20, 300, seed + 2);
    write(&scene, &next);
    let wire = replicate(&scene);
    println!("{wire} bytes for the next night");
    assert!(wire < 20_000, "{wire}");
    scene.check_copy(&next);
    // There is nothing left to be shipped.
    let more = write_seed(&local, &disk, &["--key-file", &key]).expect("it is written");
    assert_eq!(more["generations"], 0, "{more:#}");
}

/// Somebody had the disk, and put another content under the same name into it.
fn forge(disk: &str) {
    let open = || {
        let vfs = Arc::new(vfs::RealVfs);
        Store::open(vfs, &PathBuf::from(disk), &Options::default()).expect("a seed").0
    };
    let seed = open();
    let all = seed.all_generations();
    let info = *all.iter().max_by_key(|info| info.bytes).expect("a generation");
    drop(seed);
    let recipe = PathBuf::from(disk).join("recipes").join(format!("{}.recipe", info.id));
    std::fs::remove_file(recipe).expect("its recipe");
    let seed = open();
    let forged = b"what the thief wants to be on tape";
    let (stranger, digest) = {
        let mut image = seed.image(model::CartridgeId(model::Ulid(99))).expect("an image");
        image.write(forged).expect("it is written");
        let id = image.seal().expect("it is sealed").expect("a generation");
        let chunk = seed.recipe(id).expect("a recipe").chunk(0).expect("a chunk");
        (id, chunk.expect("one").digest)
    };
    let length = forged.len() as u32;
    let (bytes, chunks) = (u64::from(length), 1);
    let mut import = seed
        .import(store::GenerationInfo { objects: 1, filemarks: 0, bytes, chunks, ..info })
        .expect("an import");
    import.append_chunk(ChunkRef { digest, len: length }).expect("a chunk");
    import.append_objects(ObjectRun::Records { size: length, count: 1 }).expect("a record");
    import.commit().expect("it is forged");
    seed.delete_generation(stranger).expect("it was for the chunk");
}

#[test]
fn a_forged_disk_is_found_out_by_the_replication() {
    let (seed, scratch) = (seed("forged"), Scratch::new("forged-disk"));
    let (mut scene, content) = pair("forged", None, 4 << 20, seed);
    scene.pair.remote.allow("TWR-6017-E");
    let (disk, (local, remote)) = (path(&scratch, "disk"), configs(&scene.pair));
    write_seed(&local, &disk, &[]).expect("it is written");
    forge(&disk);
    let taken = read_seed(&remote, &disk, &[]).expect("it is taken in");
    assert_eq!(taken["generations"], 1, "{taken:#}");
    replicate(&scene);
    scene.pair.remote.wait_line("TWR-6017-E");
    scene.check_copy(&content);
}

#[test]
fn an_engine_that_dies_while_it_writes_or_reads_goes_on() {
    let (seed, scratch) = (seed("seed-kill"), Scratch::new("seed-kill-disk"));
    let (mut scene, content) = pair("seed-kill", None, LENGTH, seed);
    let (disk, (local, remote)) = (path(&scratch, "disk"), configs(&scene.pair));
    // Killed as soon as something is on the disk.
    let watched = PathBuf::from(&disk).join("containers");
    let written = std::thread::scope(|scope| {
        let writing = scope.spawn(|| write_seed(&local, &disk, &[]));
        tests::wait::until("the first container is begun", || watched.exists().then_some(()));
        signal(scene.pair.local.pid());
        writing.join().expect("the command ends")
    });
    // Killed behind its end it is no failure; mostly it is one.
    println!("written: {written:?}");
    scene.pair.local.kill_and_run();
    scene.operator.wait_for("dr-ptl0");
    write_seed(&local, &disk, &[]).expect("it goes on");
    let taken = std::thread::scope(|scope| {
        let reading = scope.spawn(|| read_seed(&remote, &disk, &[]));
        let store = scene.pair.directory().join("dr/store/containers");
        let grown = || std::fs::read_dir(&store).is_ok_and(|mut files| files.next().is_some());
        tests::wait::until("the first chunks arrive", || grown().then_some(()));
        signal(scene.pair.remote.pid());
        reading.join().expect("the command ends")
    });
    println!("taken: {taken:?}");
    scene.pair.remote.kill_and_run();
    scene.operator.wait_for("dr-ptl0");
    read_seed(&remote, &disk, &[]).expect("it is taken in");
    let wire = replicate(&scene);
    assert!(wire < NAMES, "{wire}");
    scene.pair.wait_idle();
    scene.check_copy(&content);
}

/// Ends a process at once.
fn signal(pid: u32) {
    let status = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(status.expect("kill runs").success());
}

fn compare(local: &str, more: &[&str]) -> Result<Value, String> {
    command(&[&["store", "compare", "--config", local], more].concat())
}

/// What the sites hold is compared, and what a disk damaged at either is found.
#[test]
fn sites_are_compared_by_digests() {
    let seed = seed("compare");
    let (mut scene, content) = pair("compare", None, LENGTH, seed);
    for message in ["TWR-6019-E", "TWR-6011-E", "TWR-6006-E"] {
        scene.pair.local.allow(message);
        scene.pair.remote.allow(message);
    }
    let (local, remote) = configs(&scene.pair);
    replicate(&scene);
    let before = scene.pair.relay.total();
    for more in [&[][..], &["--read", "--site", "dr"]] {
        let same = compare(&local, more).expect("they are the same");
        assert_eq!(same["same_generations"], 1, "{same:#}");
        assert!(same["same_chunks"].as_u64().is_some_and(|chunks| chunks > 1000), "{same:#}");
    }
    let wire = scene.pair.relay.total() - before;
    println!("{wire} bytes to compare twice");
    assert!(wire < 32 << 10, "{wire}");
    let stat = command(&["store", "stat", "--config", &local]).expect("figures");
    assert_eq!(stat["last_comparison"]["same_generations"], 1, "{stat:#}");
    // Here: it is found and got from there at once.
    spoil(&scene, Role::Local);
    let found = compare(&local, &["--read"]).expect_err("it differs");
    assert!(found.contains("damaged or missing here"), "{found}");
    compare(&local, &["--read"]).expect("it is healed");
    // There: it is found, and the check there gets it from here.
    spoil(&scene, Role::Remote);
    compare(&local, &[]).expect("nobody has read it yet");
    let found = compare(&local, &["--read"]).expect_err("it differs");
    assert!(found.contains("damaged or missing there"), "{found}");
    let checked = command(&["store", "check", "--config", &remote]).expect("it is healed");
    assert!(checked["healed_chunks"].as_u64().is_some_and(|count| count > 0), "{checked:#}");
    compare(&local, &["--read"]).expect("they are the same");
    // Nobody is there.
    scene.pair.relay.part();
    tests::wait::until("the link is down", || compare(&local, &[]).is_err().then_some(()));
    scene.pair.relay.join();
    tests::wait::until("the link is back", || compare(&local, &[]).is_ok().then_some(()));
    scene.check_copy(&content);
}

/// Changes some bytes in the first container of an engine.
fn spoil(scene: &Scene, role: Role) {
    let file = &containers(scene, role)[0];
    let mut bytes = std::fs::read(file).expect("a container");
    let step = bytes.len() / 8;
    (1..8).for_each(|part| bytes[part * step] ^= 1);
    std::fs::write(file, bytes).expect("it is changed");
}
