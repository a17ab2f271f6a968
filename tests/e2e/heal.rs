//! What a disk damaged at one site is got from the other, and read again.

use std::fs;

use tests::{Content, Object, Role, Scratch, Texture, read_tape, seed, twinreel, wait};

use crate::scene::{RECORD, SOURCE, Scene, TAPES, VIRTUAL};
use crate::upkeep::{containers, store};

/// More than a container.
const LENGTH: u64 = 70 << 20;

/// Changes some bytes in the first container of an engine, all over it, so far behind its eighths.
fn damage(scene: &Scene, role: Role, behind: usize) {
    let file = &containers(scene, role)[0];
    let mut bytes = fs::read(file).expect("a container");
    let length = bytes.len();
    for part in 1..8 {
        bytes[length / 8 * part + behind] ^= 1;
    }
    fs::write(file, bytes).expect("it is changed");
}

/// A pair whose local store is encrypted and whose remote one is not.
fn pair(name: &str, scratch: &Scratch) -> Scene {
    let key = scratch.path().join("store.key");
    let key = key.to_str().expect("a scratch path is text").to_owned();
    let (code, _, errors) = twinreel(["store", "key", "new", &key]);
    assert_eq!(code, 0, "{errors}");
    let mut scene = Scene::new(name, |local, remote| {
        let mut store = toml::Table::new();
        store.insert("check_rate".into(), 0.into());
        remote.insert("store".into(), store.clone().into());
        store.insert("key_file".into(), key.into());
        local.insert("store".into(), store.into());
    });
    for message in ["TWR-6006-E", "TWR-6011-E"] {
        scene.pair.local.allow(message);
    }
    scene
}

#[test]
fn damaged_chunks_come_from_the_other_site() {
    let (seed, scratch) = (seed("heal"), Scratch::new("heal-key"));
    let mut scene = pair("heal", &scratch);
    let content = Content::new(Texture::Incompressible, seed, LENGTH);
    scene.operator.load("vtl0", VIRTUAL, 0);
    scene.operator.backup(SOURCE, RECORD as u32, content.reader());
    scene.operator.unload("vtl0", 0);
    scene.pair.wait_replicated(VIRTUAL);
    for (role, other) in [(Role::Local, "dr"), (Role::Remote, "hq")] {
        damage(&scene, role, 0);
        let (code, checked) = store(&scene, role, "check");
        let healed = checked["healed_chunks"].as_u64();
        assert!(code == 0 && healed.is_some_and(|count| count >= 7), "{code} {checked:#}");
        assert_eq!(checked["healed_from"], serde_json::json!([other]), "{checked:#}");
        assert_eq!(checked["incomplete_generations"].as_array().map(Vec::len), Some(0));
        // It stays so.
        let (code, checked) = store(&scene, role, "check");
        assert_eq!((code, checked["healed_chunks"].as_u64()), (0, Some(0)), "{checked:#}");
        assert_eq!(checked["damage"].as_array().map(Vec::len), Some(0), "{checked:#}");
    }
    // Nobody else has it: the cartridge is named. When the link is back it is healed.
    scene.pair.relay.part();
    damage(&scene, Role::Local, 1 << 20);
    let (code, checked) = store(&scene, Role::Local, "check");
    let named = &checked["incomplete_generations"][0]["cartridge"];
    assert!(code == 1 && *named == format!("vtl0:{VIRTUAL}"), "{code} {checked:#}");
    scene.pair.relay.join();
    wait::until("the other site is asked again", || {
        let (code, checked) = store(&scene, Role::Local, "check");
        (code == 0 && checked["incomplete_generations"] == serde_json::json!([])).then_some(())
    });
    // The bytes are right at both sites, also for the next process.
    scene.pair.local.kill_and_run();
    scene.pair.remote.kill_and_run();
    scene.operator.wait_for("dr-ptl0");
    scene.operator.load("vtl0", VIRTUAL, 0);
    scene.operator.load("dr-ptl0", TAPES[0], 0);
    let bytes = content.to_vec();
    let expected = || bytes.chunks(RECORD).map(Object::record);
    let data = |object: &Object| *object != Object::Filemark;
    let read = scene.operator.read(SOURCE);
    assert!(read.into_iter().filter(data).eq(expected()), "what is read here");
    scene.begin_copy().outcome().expect("the copy is done");
    scene.unload_ghost();
    let records = read_tape(&scene.pair.ghost_files(), TAPES[0]);
    assert!(records.into_iter().filter(data).eq(expected()), "what is on tape there");
}

/// An engine whose key file is gone or another one says so and touches nothing.
#[test]
fn an_engine_without_its_key_does_not_start() {
    let scratch = Scratch::new("key");
    let mut scene = pair("key-gone", &scratch);
    let key = scratch.path().join("store.key");
    scene.pair.local.terminate();
    let config = scene.pair.local.config().to_str().expect("text").to_owned();
    let start = || twinreel(["local-engine", "serve", "--config", &config]);
    let kept = fs::read(&key).expect("the key");
    fs::remove_file(&key).expect("it is removed");
    let (code, _, errors) = start();
    assert!(code != 0 && errors.contains("store.key"), "{code} {errors}");
    let text = key.to_str().expect("text");
    assert_eq!(twinreel(["store", "key", "new", text]).0, 0);
    let (code, _, errors) = start();
    assert!(code != 0 && errors.contains("is encrypted with key"), "{code} {errors}");
    fs::write(&key, kept).expect("it is back");
    // Another key, while the engine does not run.
    let new = scratch.path().join("new.key");
    let new = new.to_str().expect("text");
    assert_eq!(twinreel(["store", "key", "new", new]).0, 0);
    let (code, _, errors) = twinreel(["store", "key", "change", new, "--config", &config]);
    assert_eq!(code, 0, "{errors}");
    fs::rename(new, &key).expect("it takes its place");
    scene.pair.local.run();
    scene.operator.wait_for("dr-ptl0");
}
