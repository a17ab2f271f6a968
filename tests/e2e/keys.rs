//! Tapes that the drive encrypts: a copy is on tape under the key of its pool, comes back, and the
//! key is nowhere but in its file.

use std::fs;
use std::path::{Path, PathBuf};

use tests::{Object, Operator, Pair, Rng, Scratch, read_encrypted_tape, read_tape, seed, twinreel};
use toml::{Table, Value};

use crate::scene::{RECORD, Scene, TAPES, TARGET, first};

/// Keys of the names, made by the command, and their entries in the configuration.
fn keys(directory: &Path, remote: &mut Table, names: &[&str]) {
    let key = |name: &&str| {
        let file = key_file(directory, name);
        let file = file.to_str().expect("a scratch path is text");
        let (code, said, errors) = twinreel(["key", "new", file]);
        assert_eq!(code, 0, "twinreel key new: {errors}");
        let digits = fs::read_to_string(file).expect("the key was made");
        assert!(!said.contains(digits.trim_end()), "{said}");
        let mut entry = Table::new();
        entry.insert("name".into(), Value::String((*name).to_owned()));
        entry.insert("file".into(), Value::String(file.to_owned()));
        Value::Table(entry)
    };
    remote.insert("tape_key".into(), Value::Array(names.iter().map(key).collect()));
}

fn key_file(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.key"))
}

/// Every file under a directory.
fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory is listed").flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(&path, found),
            Ok(kind) if kind.is_file() => found.push(path),
            _ => {}
        }
    }
}

fn holds(bytes: &[u8], words: &[u8]) -> bool {
    bytes.windows(words.len()).any(|window| window == words)
}

/// Neither as it is nor in hexadecimal, nor as a list of numbers: in no log, no catalogue, no
/// store and on no tape.
fn key_is_nowhere(pair: &Pair, key: &Path) {
    let digits = fs::read_to_string(key).expect("the key is there");
    let digits = digits.trim_end();
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).expect("digits");
        u8::from_str_radix(text, 16).expect("digits")
    };
    let raw: Vec<u8> = digits.as_bytes().chunks(2).map(byte).collect();
    // Eight bytes of it would be too much already.
    let list = raw[..8].iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    for engine in [&pair.local, &pair.remote] {
        for line in engine.log().since(0) {
            assert!(!line.to_lowercase().contains(&digits[..16]), "{line}");
            assert!(!line.contains(&list), "{line}");
        }
    }
    let mut all = Vec::new();
    files(pair.directory(), &mut all);
    assert!(all.iter().any(|path| path.ends_with("svs.db")), "{all:?}");
    for path in all {
        let bytes = fs::read(&path).unwrap_or_default();
        for words in [&raw[..8], &digits.as_bytes()[..16]] {
            assert!(!holds(&bytes, words), "a part of the key is in {}", path.display());
        }
    }
}

/// The whole tape again through the ghost drive, as the application restores it.
fn restored(operator: &Operator) -> Vec<Object> {
    operator.read(TARGET)
}

#[test]
fn a_copy_is_encrypted_by_the_key_of_its_pool_and_comes_back() {
    let mut rng = Rng::new(seed("keys")).fork("pool");
    let safe = Scratch::new("safe");
    let mut scene = Scene::new("keys", |_, remote| {
        keys(&safe, remote, &["site", "away"]);
        let library = first(remote, "physical_library");
        library.insert("key".into(), "site".into());
        library.insert("verify".into(), "readback".into());
        let mut pool = Table::new();
        pool.insert("tapes".into(), format!("{0}-{0}", TAPES[1]).into());
        pool.insert("key".into(), "away".into());
        library.insert("key_pools".into(), Value::Array(vec![Value::Table(pool)]));
    });
    // Everything that is said, by everybody.
    for engine in [&mut scene.pair.remote, &mut scene.pair.local] {
        assert!(engine.terminate().success());
        engine.environment("TWINREEL_LOG", "trace");
        engine.run();
    }
    scene.operator.wait_for("dr-ptl0");
    let scene = scene.backed_up(&mut rng, 40, true);
    for (tape, name, other) in [(TAPES[0], "site", "away"), (TAPES[1], "away", "site")] {
        if tape == TAPES[1] {
            scene.operator.load("dr-ptl0", tape, 0);
        }
        let report = scene.begin_copy().outcome().expect("the copy succeeds");
        assert_eq!(report.bytes(), (40 * RECORD) as u64);
        assert!(restored(&scene.operator) == scene.objects, "{tape} comes back");
        scene.unload_ghost();
        let files = scene.pair.ghost_files();
        let read = |key| read_encrypted_tape(&files, tape, &key_file(&safe, key));
        assert!(read(name) == scene.objects, "{tape} is as the page of its format says");
        assert!(read(other) != scene.objects, "another key reads {tape}");
    }
    for name in ["site", "away"] {
        key_is_nowhere(&scene.pair, &key_file(&safe, name));
    }
}

#[test]
fn a_key_that_is_not_configured_is_named_and_the_tape_is_left() {
    let mut rng = Rng::new(seed("keys")).fork("unknown");
    let safe = Scratch::new("safe-unknown");
    let mut scene = Scene::new("keys-unknown", |_, remote| {
        keys(&safe, remote, &["site"]);
        first(remote, "physical_library").insert("key".into(), "site".into());
    });
    scene = scene.backed_up(&mut rng, 10, true);
    scene.begin_copy().outcome().expect("the copy succeeds");
    scene.unload_ghost();
    let key = key_file(&safe, "site");
    let (code, said, _) = twinreel(["key", "show", key.to_str().expect("a scratch path is text")]);
    let id = said.split_whitespace().last().unwrap_or_default().to_owned();
    assert_eq!((code, id.len()), (0, 24), "{said}");
    // The key is taken out of the configuration.
    assert!(scene.pair.remote.terminate().success());
    let file = scene.pair.remote.config().to_owned();
    let text = fs::read_to_string(&file).expect("the configuration is there");
    let mut config: Table = text.parse().expect("it is TOML");
    config.remove("tape_key");
    first(&mut config, "physical_library").remove("key");
    fs::write(&file, config.to_string()).expect("it is written");
    scene.pair.remote.allow("TWR-5007-E");
    let mark = scene.pair.remote.log().mark();
    scene.pair.remote.run();
    scene.operator.wait_for("dr-ptl0");
    scene.operator.load("dr-ptl0", TAPES[0], 0);
    let mut tape = scene.operator.tape(TARGET);
    tape.rewind().expect("the tape rewinds");
    tape.read_object(1 << 20).expect_err("nobody here can read it");
    let line = scene.pair.remote.wait_line_from(mark, "TWR-5007-E");
    assert!(line.contains(&id) && line.contains("site"), "{line}");
    tape.close_tape().expect("the drive closes");
    // It can still be written, in the clear.
    scene.operator.write(TARGET, &[tests::Item::Record(vec![7; 1000]), tests::Item::Filemark]);
    scene.unload_ghost();
    let found = read_tape(&scene.pair.ghost_files(), TAPES[0]);
    assert_eq!(found, [Object::record(&[7; 1000]), Object::Filemark]);
}
