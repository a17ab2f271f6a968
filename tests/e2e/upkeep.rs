//! The store of each site is looked after from the command line, beside everything else.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use svs::JobState;
use tests::{Content, Role, Texture, read_tape, seed, twinreel};

use crate::scene::{RECORD, SOURCE, Scene, TAPES, VIRTUAL};

/// More than a container.
const LENGTH: u64 = 70 << 20;

fn configuration(scene: &Scene, role: Role) -> String {
    let file = match role {
        Role::Local => "local.toml",
        Role::Remote => "remote.toml",
    };
    scene.pair.directory().join(file).to_str().expect("a scratch path is text").to_owned()
}

/// What `twinreel store VERB` says, and its exit code.
pub(crate) fn store(scene: &Scene, role: Role, verb: &str) -> (i32, Value) {
    let config = configuration(scene, role);
    let (code, out, errors) = twinreel(["store", verb, "--json", "--config", &config]);
    (code, serde_json::from_str(&out).unwrap_or_else(|_| panic!("{code}: {errors}")))
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("{key} in {value:#}"))
}

/// Bytes of all container files of an engine.
fn room(scene: &Scene, role: Role) -> u64 {
    containers(scene, role).iter().map(|file| fs::metadata(file).map_or(0, |it| it.len())).sum()
}

pub(crate) fn containers(scene: &Scene, role: Role) -> Vec<PathBuf> {
    let text = fs::read_to_string(configuration(scene, role)).expect("a configuration");
    let table: toml::Table = text.parse().expect("TOML");
    let state = table["site"]["state_dir"].as_str().expect("a state directory");
    let dir = scene.pair.directory().join(state).join("store/containers");
    let files = fs::read_dir(dir).expect("the containers").flatten().map(|entry| entry.path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    files
}

#[test]
fn superseded_generations_are_deleted_and_their_room_given_back_at_both_sites() {
    let seed = seed("upkeep");
    let mut scene = Scene::new("upkeep", |local, remote| {
        for config in [local, remote] {
            let mut store = toml::Table::new();
            store.insert("keep_generations".into(), 1.into());
            store.insert("check_rate".into(), 0.into());
            config.insert("store".into(), store.into());
        }
    });
    scene.pair.local.allow("TWR-6006-E");
    scene.pair.local.allow("TWR-6011-E");
    let mut content = Content::new(Texture::Incompressible, seed, LENGTH);
    for round in 0..2 {
        content = Content::new(Texture::Incompressible, seed + round, LENGTH);
        scene.operator.load("vtl0", VIRTUAL, 0);
        scene.operator.backup(SOURCE, RECORD as u32, content.reader());
        scene.operator.unload("vtl0", 0);
        scene.pair.wait_replicated(VIRTUAL);
    }
    for role in [Role::Local, Role::Remote] {
        assert_eq!(number(&store(&scene, role, "stat").1, "generations"), 2);
        let before = room(&scene, role);
        let (code, collected) = store(&scene, role, "collect");
        assert_eq!((code, number(&collected, "generations_deleted")), (0, 1), "{collected:#}");
        let after = room(&scene, role);
        assert!(before > 2 * LENGTH && after < LENGTH * 3 / 2, "{before} {after} {collected:#}");
        assert!(number(&collected, "bytes_freed") > LENGTH * 3 / 4, "{collected:#}");
        let job = collected["job"].as_str().expect("a job").parse().expect("its id");
        let row = scene.pair.catalogue(role).job_status(job).expect("the catalogue");
        assert_eq!(row.expect("a row").state, JobState::Done);
        let stat = store(&scene, role, "stat").1;
        assert_eq!(number(&stat, "bytes_in_generations"), LENGTH, "{stat:#}");
        let (code, checked) = store(&scene, role, "check");
        assert_eq!((code, checked["damage"].as_array().map(Vec::len)), (0, Some(0)), "{checked:#}");
    }
    // The newest one is whole at both sites: it is read here, and copied to tape there.
    scene.operator.load("vtl0", VIRTUAL, 0);
    scene.operator.load("dr-ptl0", TAPES[0], 0);
    scene.begin_copy().outcome().expect("the copy is done");
    scene.unload_ghost();
    let records = read_tape(&scene.pair.ghost_files(), TAPES[0]);
    let bytes = content.to_vec();
    let expected = bytes.chunks(RECORD).map(tests::Object::record);
    assert!(records.iter().filter(|it| **it != tests::Object::Filemark).cloned().eq(expected));
    // A byte that changes on the disk is found.
    let file = &containers(&scene, Role::Local)[0];
    let mut bytes = fs::read(file).expect("a container");
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(file, bytes).expect("it is changed");
    // Nobody is there who has it.
    scene.pair.relay.part();
    let (code, checked) = store(&scene, Role::Local, "check");
    let incomplete = checked["incomplete_generations"].as_array().map(Vec::len);
    assert_eq!((code, incomplete), (1, Some(1)), "{checked:#}");
}

/// What is locked is kept whatever the configuration says, and a lock is not shortened.
#[test]
fn a_locked_cartridge_keeps_its_generations() {
    let seed = seed("upkeep");
    let scene = Scene::new("lock", |local, _| {
        let mut store = toml::Table::new();
        store.insert("keep_generations".into(), 1.into());
        local.insert("store".into(), store.into());
    });
    for round in 0..2 {
        let content = Content::new(Texture::Incompressible, seed + round, 1 << 20);
        scene.operator.load("vtl0", VIRTUAL, 0);
        scene.operator.backup(SOURCE, RECORD as u32, content.reader());
        scene.operator.unload("vtl0", 0);
        scene.pair.wait_replicated(VIRTUAL);
    }
    let config = configuration(&scene, Role::Local);
    let cartridge = format!("vtl0:{VIRTUAL}");
    let lock = |until: &[&str]| {
        let words = ["store", "lock", &cartridge, "--json", "--config", &config];
        let (code, out, errors) = twinreel(words.iter().chain(until));
        (code, out + &errors)
    };
    assert!(lock(&[]).1.contains("null"), "{:?}", lock(&[]));
    let (code, said) = lock(&["--until", "2999-12-31"]);
    assert!(code == 0 && said.contains("3000-01-01T00:00:00Z"), "{said}");
    let (code, said) = lock(&["--until", "2999-12-30"]);
    assert!(code != 0 && said.contains("retention lock"), "{said}");
    assert!(lock(&[]).1.contains("3000-01-01T00:00:00Z"));
    let (code, collected) = store(&scene, Role::Local, "collect");
    assert_eq!((code, number(&collected, "generations_deleted")), (0, 0), "{collected:#}");
    assert_eq!(number(&store(&scene, Role::Local, "stat").1, "generations"), 2);
    // The other site has its own.
    assert_eq!(number(&store(&scene, Role::Remote, "stat").1, "generations"), 2);
}
