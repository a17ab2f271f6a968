//! The seam itself: what the real file system and the one in memory agree on, what survives a loss
//! of power, and what a fault does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use vfs::{CrashMode, CrashVfs, FaultKind, FaultOp, FaultyVfs, RealVfs, Vfs, VfsError};

/// Both must answer alike.
fn contract(vfs: &dyn Vfs, root: &Path) {
    let dir = root.join("a/b");
    vfs.create_dir_all(&dir).unwrap();
    vfs.create_dir_all(&dir).unwrap();
    let one = dir.join("one");
    assert!(vfs.open(&one).unwrap_err().is_not_found());
    assert!(!vfs.exists(&one).unwrap());
    let file = vfs.create(&one).unwrap();
    assert!(vfs.create(&one).unwrap_err().is_taken());
    file.write_all_at(b"hello", 3).unwrap();
    file.sync_data().unwrap();
    assert_eq!(vfs.len(&one).unwrap(), 8);
    let mut buffer = [9; 10];
    assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 8);
    assert_eq!(&buffer[..8], b"\0\0\0hello");
    assert_eq!(file.read_at(&mut buffer, 99).unwrap(), 0);
    let error = file.read_exact_at(&mut buffer, 0).unwrap_err();
    assert_eq!(error.source.kind(), std::io::ErrorKind::UnexpectedEof);
    file.set_len(4).unwrap();
    assert_eq!(vfs::read_all(vfs, &one, 4).unwrap(), b"\0\0\0h");
    assert!(vfs::read_all(vfs, &one, 3).is_err());
    vfs::write_atomic(vfs, &dir.join("two"), b"2").unwrap();
    vfs::write_atomic(vfs, &dir.join("two"), b"22").unwrap();
    assert_eq!(vfs.list(&dir).unwrap(), ["one", "two"]);
    assert_eq!(vfs.list(&root.join("a")).unwrap(), ["b"]);
    vfs.rename(&one, &dir.join("two")).unwrap();
    assert_eq!(vfs.list(&dir).unwrap(), ["two"]);
    assert_eq!(vfs::read_all(vfs, &dir.join("two"), 9).unwrap(), b"\0\0\0h");
    vfs.remove(&dir.join("two")).unwrap();
    assert!(vfs.remove(&one).unwrap_err().is_not_found());
    assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 4, "an open file outlives its name");
    vfs.sync_dir(&dir).unwrap();
    assert!(vfs.sync_dir(&root.join("none")).unwrap_err().is_not_found());
    assert!(vfs.list(&root.join("none")).unwrap_err().is_not_found());
    written_back(vfs, &dir.join("back"));
    let lock = vfs.lock_exclusive(&dir).unwrap();
    assert!(vfs.lock_exclusive(&dir).unwrap_err().is_locked());
    drop(lock);
    drop(vfs.lock_exclusive(&dir).unwrap());
}

/// What the system may bring to disk early stays what it is, whatever is written over it.
fn written_back(vfs: &dyn Vfs, path: &Path) {
    let file = vfs.create(path).unwrap();
    let mut bytes: Vec<u8> = (0..3u32 << 18).flat_map(u32::to_le_bytes).collect();
    file.write_all_at(&bytes, 0).unwrap();
    file.write_back(0..1 << 20);
    bytes[1000..70_000].fill(7);
    file.write_all_at(&bytes[1000..70_000], 1000).unwrap();
    file.write_back(0..bytes.len() as u64);
    file.write_back(5..5);
    file.write_back(0..1 << 30);
    assert!(vfs::read_all(vfs, path, bytes.len()).unwrap() == bytes);
    file.sync_data().unwrap();
    assert!(vfs::read_all(vfs, path, bytes.len()).unwrap() == bytes);
}

#[test]
fn real_and_memory_agree() {
    let real = tempfile::tempdir().unwrap();
    contract(&RealVfs, real.path());
    contract(&CrashVfs::new(), Path::new("/root"));
    let inner: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
    contract(&FaultyVfs::new(inner), Path::new("/root"));
}

#[test]
fn a_name_needs_its_directory_synced() {
    let vfs = CrashVfs::new();
    vfs.create_dir_all(Path::new("/d")).unwrap();
    let file = vfs.create(Path::new("/d/a")).unwrap();
    file.write_all_at(b"abc", 0).unwrap();
    file.sync_data().unwrap();
    assert!(vfs.crash(CrashMode::LoseUnsynced, 0).list(Path::new("/d")).unwrap().is_empty());
    vfs.sync_dir(Path::new("/d")).unwrap();
    file.write_all_at(b"xyz", 0).unwrap();
    let after = vfs.crash(CrashMode::LoseUnsynced, 0);
    assert_eq!(vfs::read_all(&after, Path::new("/d/a"), 9).unwrap(), b"abc");
    vfs.remove(Path::new("/d/a")).unwrap();
    assert!(vfs.crash(CrashMode::LoseUnsynced, 0).exists(Path::new("/d/a")).unwrap());
    assert!(!vfs.crash(CrashMode::KeepAll, 0).exists(Path::new("/d/a")).unwrap());
}

/// Cuts the power at each operation of two atomic replacements in turn.
#[test]
fn an_atomic_write_is_atomic_at_every_crash_point() {
    let path = Path::new("/d/file");
    let work = |vfs: &CrashVfs| -> Result<(), VfsError> {
        vfs::write_atomic(vfs, path, &[2; 1500])?;
        vfs::write_atomic(vfs, path, &[3; 700])
    };
    for mode in CrashMode::ALL {
        for n in 1.. {
            let vfs = CrashVfs::new();
            vfs.create_dir_all(Path::new("/d")).unwrap();
            vfs::write_atomic(&vfs, path, &[1; 600]).unwrap();
            vfs.stop_at(n);
            let done = work(&vfs).is_ok();
            assert_eq!(done, !vfs.is_stopped());
            for seed in 0..8 {
                let after = vfs.crash(mode, seed);
                let found = vfs::read_all(&after, path, 9999).unwrap();
                let whole = [vec![1; 600], vec![2; 1500], vec![3; 700]].contains(&found);
                assert!(whole, "{mode:?} at {n} seed {seed}: {} bytes", found.len());
                assert!(!done || found == [3; 700], "{mode:?} at {n} seed {seed}");
            }
            if done {
                break;
            }
        }
    }
}

#[test]
fn faults_strike_the_nth_call_once() {
    let vfs = FaultyVfs::new(Arc::new(CrashVfs::new()));
    let file = vfs.create(Path::new("/a")).unwrap();
    vfs.fail(FaultOp::Write, 2, FaultKind::Full);
    vfs.fail(FaultOp::Write, 3, FaultKind::Short);
    vfs.fail(FaultOp::Sync, 1, FaultKind::Io);
    file.write_all_at(b"1", 0).unwrap();
    assert!(file.write_all_at(b"2", 0).unwrap_err().is_full());
    assert_eq!(file.write_at(b"12345", 0).unwrap(), 3);
    file.write_all_at(b"12345", 0).unwrap();
    let error = file.sync_data().unwrap_err();
    assert_eq!(error.to_string(), "cannot sync /a: Input/output error (os error 5)");
    file.sync_data().unwrap();
    assert_eq!(vfs.count(FaultOp::Write), 4);
}

#[derive(Clone, Debug)]
enum Step {
    Write(u16, Vec<u8>),
    SetLen(u16),
    Sync,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3000u16, prop::collection::vec(any::<u8>(), 0..1500))
            .prop_map(|(at, bytes)| Step::Write(at, bytes)),
        1 => (0..4000u16).prop_map(Step::SetLen),
        1 => Just(Step::Sync),
    ]
}

proptest! {
    /// What was synced last is there in every mode, wherever nothing was written since.
    #[test]
    fn synced_bytes_survive(steps in prop::collection::vec(step(), 1..20), seed: u64) {
        let vfs = CrashVfs::new();
        let path = Path::new("/f");
        let file = vfs.create(path).unwrap();
        vfs.sync_dir(Path::new("/")).unwrap();
        let (mut durable, mut touched) = (Vec::new(), [false; 8192]);
        for step in steps {
            match step {
                Step::Write(at, bytes) => {
                    touched[at as usize..at as usize + bytes.len()].fill(true);
                    file.write_all_at(&bytes, at.into()).unwrap();
                }
                Step::SetLen(len) => {
                    touched[len as usize..].fill(true);
                    file.set_len(len.into()).unwrap();
                }
                Step::Sync => {
                    file.sync_data().unwrap();
                    durable = vfs::read_all(&vfs, path, 9999).unwrap();
                    touched.fill(false);
                }
            }
        }
        let visible = vfs::read_all(&vfs, path, 9999).unwrap();
        for mode in CrashMode::ALL {
            let after = vfs::read_all(&vfs.crash(mode, seed), path, 9999).unwrap();
            for (i, byte) in durable.iter().enumerate().filter(|(i, _)| !touched[*i]) {
                prop_assert_eq!(after.get(i), Some(byte), "{:?} at {}", mode, i);
            }
            match mode {
                CrashMode::LoseUnsynced => prop_assert_eq!(&after, &durable),
                CrashMode::KeepAll => prop_assert_eq!(&after, &visible),
                CrashMode::Subset | CrashMode::TornTail => {}
            }
        }
    }
}
