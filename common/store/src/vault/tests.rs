//! The layer alone: it behaves like the file system below, also after a crash, and shows nothing.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vfs::{CrashMode, CrashVfs, Vfs, VfsFile, write_atomic};

use super::block::{AREA, BLOCK, STRIDE};
use super::key::Secret;
use super::*;
use crate::testing::Random;

fn sealed(disk: &CrashVfs) -> SealedVfs {
    SealedVfs::new(Arc::new(disk.clone()), Secret::of([7; 32]))
}

fn whole(file: &dyn VfsFile) -> Vec<u8> {
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// The seed of a randomised test, printed.
fn seed(default: u64) -> u64 {
    let seed = std::env::var("TWINREEL_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(default);
    println!("TWINREEL_SEED={seed}");
    seed
}

#[test]
fn a_file_behaves_like_bytes() {
    let seed = seed(71);
    for round in 0..40 {
        let mut random = Random::new(seed * 1000 + round);
        let disk = CrashVfs::new();
        let mut vfs = sealed(&disk);
        let path = Path::new("/file");
        let mut file = vfs.create(path).unwrap();
        let mut model = Vec::new();
        for _ in 0..60 {
            match random.below(12) {
                0 => {
                    let len = random.below(3 * model.len() as u64 / 2 + 5000) as usize;
                    file.set_len(len as u64).unwrap();
                    model.resize(len, 0);
                }
                1 => file.sync_data().unwrap(),
                2 => {
                    // Another handle sees the same, also when it is the first of a new process.
                    let other = vfs.open(path).unwrap();
                    assert!(whole(other.as_ref()) == model);
                    drop(std::mem::replace(&mut file, other));
                    vfs = if random.below(2) == 0 {
                        drop(file);
                        let vfs = sealed(&disk);
                        file = vfs.open(path).unwrap();
                        vfs
                    } else {
                        vfs
                    };
                }
                _ => {
                    let at = match random.below(3) {
                        0 => random.below(model.len() as u64 + 9000) as usize,
                        _ => model.len(),
                    };
                    let longest = [100, 5000, 700_000][random.below(3) as usize];
                    let len = random.below(longest) as usize;
                    let bytes = random.bytes(len);
                    file.write_all_at(&bytes, at as u64).unwrap();
                    if !bytes.is_empty() {
                        model.resize(model.len().max(at + bytes.len()), 0);
                        model[at..at + bytes.len()].copy_from_slice(&bytes);
                    } else {
                        model.resize(model.len().max(at), 0);
                    }
                }
            }
            assert_eq!(file.len().unwrap(), model.len() as u64, "seed {seed} round {round}");
            let at = random.below(model.len() as u64 + 10) as usize;
            let mut buffer = vec![0; random.below(20_000) as usize];
            let read = file.read_at(&mut buffer, at as u64).unwrap();
            let expected = &model[at.min(model.len())..(at + buffer.len()).min(model.len())];
            assert!(buffer[..read] == *expected, "seed {seed} round {round}");
        }
        assert!(whole(file.as_ref()) == model, "seed {seed} round {round}");
    }
}

/// Appending in all rhythms, with cuts as a journal makes them: what was synced is there after a
/// crash, and what is behind it is not something that was never written there.
#[test]
fn what_was_synced_survives_a_crash() {
    let seed = seed(72);
    let rounds = if std::env::var_os("TWINREEL_FULL").is_some() { 20_000 } else { 600 };
    for round in 0..rounds {
        let mut random = Random::new(seed * 100_000 + round);
        let mut disk = CrashVfs::new();
        let path = Path::new("/file");
        let (mut synced, mut written) = (Vec::new(), Vec::new());
        {
            let file = sealed(&disk).create(path).unwrap();
            file.sync_data().unwrap();
            disk.sync_dir(Path::new("/")).unwrap();
        }
        for crash in 0..4 {
            let vfs = sealed(&disk);
            let file = vfs.open(path).unwrap();
            let found = whole(file.as_ref());
            let context = format!("seed {seed} round {round} crash {crash}");
            assert!(found.starts_with(&synced), "{context}: {} {}", found.len(), synced.len());
            let strange = found.iter().zip(&written).skip(synced.len()).any(|(is, was)| {
                // Blocks that did not survive.
                is != was && *is != FILL && *is != 0
            });
            assert!(!strange, "{context}");
            disk.stop_at(1 + random.below(12));
            // As a journal does: what was not acknowledged is cut off.
            if file.set_len(synced.len() as u64).and_then(|()| file.sync_data()).is_ok() {
                written.clone_from(&synced);
                loop {
                    let len = [10, 3000, 20_000][random.below(3) as usize];
                    let len = random.below(len) as usize + 1;
                    let bytes = random.bytes(len);
                    let at = written.len() as u64;
                    written.extend_from_slice(&bytes);
                    if file.write_all_at(&bytes, at).is_err() {
                        break;
                    }
                    if random.below(2) == 0 {
                        match file.sync_data() {
                            Ok(()) => synced.clone_from(&written),
                            Err(_) => break,
                        }
                    }
                }
            }
            drop(file);
            let mode = CrashMode::ALL[random.below(CrashMode::ALL.len() as u64) as usize];
            disk = disk.crash(mode, random.next());
        }
    }
}

/// What is on disk says nothing of what was written, and no two blocks have one nonce.
#[test]
fn nothing_is_readable_and_no_nonce_comes_twice() {
    let disk = CrashVfs::new();
    let vfs = sealed(&disk);
    let text = b"TRREELC1 a digest or a chunk ".repeat(3000);
    let mut nonces = HashSet::new();
    let mut count = 0;
    for name in ["/a", "/b"] {
        let file = vfs.create(Path::new(name)).unwrap();
        for _ in 0..3 {
            file.write_all_at(&text, 0).unwrap();
            file.sync_data().unwrap();
            let raw = whole(disk.open(Path::new(name)).unwrap().as_ref());
            assert!(!raw.windows(8).any(|window| window == b"TRREELC1"));
            for block in raw[AREA..].chunks_exact(STRIDE) {
                nonces.insert(block[..12].to_vec());
                count += 1;
            }
        }
    }
    assert!(count > 100);
    assert_eq!(nonces.len(), count);
    // Two files of one content have nothing in common behind the magic of their heads.
    let [a, b] = ["/a", "/b"].map(|name| whole(disk.open(Path::new(name)).unwrap().as_ref()));
    let same = a.chunks_exact(16).zip(b.chunks_exact(16)).filter(|(a, b)| a == b && a[0] != 0);
    assert_eq!(same.count(), 0);
}

/// A block in another place, of another file or of another store is not taken for it.
#[test]
fn a_block_counts_only_in_its_place() {
    let disk = CrashVfs::new();
    let vfs = sealed(&disk);
    for name in ["/a", "/b"] {
        write_atomic(&vfs, Path::new(name), &[1; 3 * BLOCK]).unwrap();
    }
    let raw = whole(disk.open(Path::new("/a")).unwrap().as_ref());
    let block = |n: usize| &raw[AREA + n * STRIDE..AREA + (n + 1) * STRIDE];
    let moves = [("/a", block(1), 0), ("/b", block(0), 0)];
    for (name, bytes, to) in moves {
        let copy = disk.crash(CrashMode::KeepAll, 0);
        let file = copy.open(Path::new(name)).unwrap();
        file.write_all_at(bytes, (AREA + to * STRIDE) as u64).unwrap();
        let found = whole(sealed(&copy).open(Path::new(name)).unwrap().as_ref());
        assert!(found[..BLOCK] == [FILL; BLOCK] && found[BLOCK..] == [1; 2 * BLOCK]);
    }
    let other = SealedVfs::new(Arc::new(disk.clone()), Secret::of([8; 32]));
    let found = whole(other.open(Path::new("/a")).unwrap().as_ref());
    assert!(!found.is_empty() && found.iter().all(|byte| *byte == FILL));
}

#[test]
fn a_key_file_is_made_once_and_read_only_as_it_must_be() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("store.key");
    let key = Key::create(&path).unwrap();
    assert!(matches!(Key::create(&path), Err(KeyError::Io { .. })));
    assert_eq!(Key::read(&path).unwrap().id(), key.id());
    let mode = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    for bad in [0o640, 0o604, 0o660] {
        mode(bad);
        assert!(matches!(Key::read(&path), Err(KeyError::File { .. })), "{bad:o}");
    }
    mode(0o600);
    let good = std::fs::read_to_string(&path).unwrap();
    let same = "ab".repeat(32);
    for bad in [&good[..63], &good.replace(['0', '7'], "g"), &(good.clone() + "0"), &same, ""] {
        std::fs::write(&path, bad).unwrap();
        assert!(matches!(Key::read(&path), Err(KeyError::File { .. })));
    }
    assert!(matches!(Key::read(&dir.path().join("none")), Err(KeyError::Io { .. })));
    assert!(matches!(Key::read(dir.path()), Err(KeyError::File { .. })));
}

#[test]
fn a_data_key_is_unwrapped_by_its_key_in_its_place_alone() {
    let (key, other, dir) = (Key::new([1; 32]), Key::new([2; 32]), Path::new("/store"));
    let wrapped = key.wrap(&Secret::of([3; 32]), b"place").unwrap();
    assert!(key.unwrap(dir, &wrapped, b"place").is_ok_and(|secret| secret.is([3; 32])));
    assert!(matches!(key.unwrap(dir, &wrapped, b"other"), Err(KeyError::Damaged(_))));
    let wrong = other.unwrap(dir, &wrapped, b"place").err();
    assert!(matches!(wrong, Some(KeyError::Wrong { id, given, .. })
        if id == key.id() && given == other.id()));
    let mut bad = wrapped;
    bad[WRAPPED - 1] ^= 1;
    assert!(key.unwrap(dir, &bad, b"place").is_err());
}
