//! The embedded library as an engine uses it: through its drivers, over restarts, crashes, faults,
//! and judged by a reader that shares no code with it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use model::{Barcode, CartridgeSet, ElementType};
use scsi::Sense;
use tape::driver::{LocalTransport, ScsiChanger, ScsiDrive};
use tape::file::{FileLibrary, FileLibraryError, FileLibrarySpec};
use tape::{Control, MediumChanger, ReadEnd, SpaceKind, TapeDrive, TapeError, WriteEnd};
use vfs::{CrashMode, CrashVfs, RealVfs, Vfs};

const SLOT: u16 = 1024;
const DRIVE: u16 = 128;

fn control() -> Control {
    Control::within(Duration::from_secs(60))
}

fn spec(count: u32) -> FileLibrarySpec {
    FileLibrarySpec {
        name: "ptl0".into(),
        drives: 2,
        slots: 4,
        import_export: 1,
        capacity: 8 << 20,
        early_warning: None,
        barcodes: CartridgeSet { prefix: "PTA".into(), count }.barcodes().unwrap(),
    }
}

fn open(vfs: &Arc<dyn Vfs>) -> Result<FileLibrary, FileLibraryError> {
    FileLibrary::open(Arc::clone(vfs), Path::new("/ptl0"), &spec(3))
}

/// The changer and the first drive of a library, past their power-on attentions.
fn devices(library: &FileLibrary) -> (ScsiChanger<LocalTransport>, ScsiDrive<LocalTransport>) {
    let mut changer = library.changer(1, &control()).unwrap();
    changer.inventory(&control()).unwrap();
    let mut drive = library.drives(1, &control()).unwrap().remove(0);
    let _ = drive.ready(&control());
    (changer, drive)
}

/// Where every cartridge is, by the changer.
fn places(changer: &mut ScsiChanger<LocalTransport>) -> Vec<(u16, String)> {
    let inventory = changer.inventory(&control()).unwrap();
    let full = inventory.elements.into_iter().filter(|element| element.full);
    full.map(|element| (element.address, element.barcode.unwrap().to_string())).collect()
}

fn crash_vfs() -> (CrashVfs, Arc<dyn Vfs>) {
    let crash = CrashVfs::new();
    (crash.clone(), Arc::new(crash))
}

#[test]
fn a_new_library_has_its_cartridges_in_the_slots_in_order() {
    let (_, vfs) = crash_vfs();
    let library = open(&vfs).unwrap();
    let mut changer = library.changer(1, &control()).unwrap();
    let inventory = changer.inventory(&control()).unwrap();
    assert_eq!(inventory.map.count(ElementType::Storage), 4);
    let expected =
        ["PTA001L8", "PTA002L8", "PTA003L8"].into_iter().zip(SLOT..).map(|(b, a)| (a, b.into()));
    assert_eq!(places(&mut changer), expected.collect::<Vec<_>>());
    let mut drives = library.drives(1, &control()).unwrap();
    let serials: Vec<_> = drives.iter().map(|drive| drive.identity().serial).collect();
    let reported = inventory.elements.iter().filter_map(|e| e.drive.as_ref());
    assert_eq!(reported.map(|d| d.serial.clone()).collect::<Vec<_>>(), serials);
    assert!(!serials.contains(&changer.identity().serial));
    assert_eq!(drives[0].state(&control()), Err(TapeError::Check(Sense::POWER_ON_RESET)));
    assert_eq!(drives[0].state(&control()).unwrap().medium, None);
}

#[test]
fn a_restart_keeps_the_tape_loaded_at_bot_and_says_so() {
    let (_, vfs) = crash_vfs();
    let library = open(&vfs).unwrap();
    let (mut changer, mut drive) = devices(&library);
    changer.move_medium(SLOT + 1, DRIVE, &control()).unwrap();
    let changed = drive.rewind(&control());
    assert_eq!(changed, Err(TapeError::Check(Sense::MEDIUM_MAY_HAVE_CHANGED)));
    drive.write(b"flushed", &control()).unwrap();
    drive.write_filemarks(1, &control()).unwrap();
    drive.write(b"not flushed", &control()).unwrap();
    let before = (places(&mut changer), drive.identity());
    drop((changer, drive, library));

    let library = open(&vfs).unwrap();
    let mut drive = library.drives(1, &control()).unwrap().remove(0);
    let error = drive.position(&control()).unwrap_err();
    assert_eq!(error, TapeError::Check(Sense::POWER_ON_RESET));
    assert_eq!(drive.position(&control()).unwrap().object, 0);
    let medium = drive.state(&control()).unwrap().medium.unwrap();
    assert_eq!(medium.barcode.unwrap().as_str(), "PTA002L8");
    assert_eq!(medium.capacity, Some(7 << 20), "up to early warning");
    let mut buffer = [0; 100];
    assert_eq!(drive.read(&mut buffer, &control()), Ok(ReadEnd::Record { length: 7 }));
    assert_eq!(&buffer[..7], b"flushed");
    assert_eq!(drive.read(&mut buffer, &control()), Ok(ReadEnd::Filemark));
    assert_eq!(drive.read(&mut buffer, &control()), Ok(ReadEnd::EndOfData), "it was lost");
    let mut changer = library.changer(1, &control()).unwrap();
    assert_eq!((places(&mut changer), drive.identity()), before);
    changer.move_medium(DRIVE, SLOT + 3, &control()).unwrap();
    let inventory = changer.inventory(&control()).unwrap();
    let element = inventory.elements.into_iter().find(|e| e.address == SLOT + 3).unwrap();
    assert_eq!(element.source, Some(SLOT + 1), "where it came from is kept too");
}

#[test]
fn a_directory_is_one_librarys_and_one_processes() {
    let (_, vfs) = crash_vfs();
    let dir = Path::new("/ptl0");
    let library = open(&vfs).unwrap();
    assert!(matches!(open(&vfs), Err(FileLibraryError::InUse(_))));
    let drives = library.drives(1, &control()).unwrap();
    drop(library);
    assert!(matches!(open(&vfs), Err(FileLibraryError::InUse(_))), "a device is still in use");
    drop(drives);
    for wrong in [
        FileLibrarySpec { name: "ptl1".into(), ..spec(3) },
        FileLibrarySpec { slots: 5, ..spec(3) },
        FileLibrarySpec { drives: 1, ..spec(3) },
    ] {
        let error = FileLibrary::open(Arc::clone(&vfs), dir, &wrong).unwrap_err();
        assert!(matches!(error, FileLibraryError::Foreign { .. }), "{error}");
        assert!(error.to_string().contains("ptl0 (drives 2, slots 4, import_export 1)"));
    }
    let error = FileLibrary::open(Arc::clone(&vfs), dir, &spec(5)).unwrap_err();
    assert!(matches!(error, FileLibraryError::Library(_)), "{error}");
    // Another cartridge, of another capacity: the old ones stay as they are.
    let larger = FileLibrarySpec { capacity: 1 << 30, ..spec(4) };
    let library = FileLibrary::open(Arc::clone(&vfs), dir, &larger).unwrap();
    let (mut changer, mut drive) = devices(&library);
    for (slot, capacity) in [(SLOT, 7 << 20), (SLOT + 3, 1008 << 20)] {
        changer.move_medium(slot, DRIVE, &control()).unwrap();
        drive.ready(&control()).unwrap();
        let medium = drive.state(&control()).unwrap().medium.unwrap();
        assert_eq!(medium.capacity, Some(capacity));
        changer.move_medium(DRIVE, slot, &control()).unwrap();
    }
    drop((changer, drive, library));
    vfs::write_atomic(&*vfs, &dir.join("inventory.json"), b"{}").unwrap();
    assert!(matches!(open(&vfs), Err(FileLibraryError::Inventory { .. })));
    vfs.remove(&dir.join("inventory.json")).unwrap();
    open(&vfs).unwrap();
}

#[test]
fn a_cartridge_file_that_vanished_is_not_made_anew() {
    let (_, vfs) = crash_vfs();
    drop(open(&vfs).unwrap());
    let lost = Path::new("/ptl0/cartridges/PTA001L8.tape");
    vfs.remove(lost).unwrap();
    let library = open(&vfs).unwrap();
    assert!(!vfs.exists(lost).unwrap());
    let (mut changer, mut drive) = devices(&library);
    changer.move_medium(SLOT, DRIVE, &control()).unwrap();
    let error = drive.ready(&control()).unwrap_err();
    assert_eq!(error, TapeError::Check(Sense::MEDIUM_NOT_PRESENT));
}

#[test]
fn early_warning_and_overflow_come_at_the_configured_capacity() {
    let (_, vfs) = crash_vfs();
    let library = open(&vfs).unwrap();
    let (mut changer, mut drive) = devices(&library);
    changer.move_medium(SLOT, DRIVE, &control()).unwrap();
    drive.ready(&control()).unwrap();
    let record = vec![7; 256 << 10];
    let mut ends = Vec::new();
    while ends.last() != Some(&WriteEnd::Overflow) {
        ends.push(drive.write(&record, &control()).unwrap());
    }
    assert_eq!(ends.len(), 33, "8 MiB are 32 records");
    assert!(ends[..27].iter().all(|end| *end == WriteEnd::Written));
    assert!(ends[27..32].iter().all(|end| *end == WriteEnd::EarlyWarning), "{ends:?}");
    assert_eq!(drive.write_filemarks(1, &control()), Ok(WriteEnd::EarlyWarning));
    assert_eq!(drive.position(&control()).unwrap().object, 33);
}

#[test]
fn the_fault_file_is_read_when_it_changes() {
    let (_, vfs) = crash_vfs();
    let library = open(&vfs).unwrap();
    let (mut changer, mut drive) = devices(&library);
    let faults = Path::new("/ptl0/faults");
    changer.move_medium(SLOT, DRIVE, &control()).unwrap();
    drive.ready(&control()).unwrap();
    let set = |text: &str| vfs::write_atomic(&*vfs, faults, text.as_bytes()).unwrap();
    set("drive0 write 2 sense 03/0c/00\nchanger move 1 sense 04/15/01");
    drive.write(b"one", &control()).unwrap();
    let failed = Err(TapeError::Check(Sense::WRITE_ERROR));
    assert_eq!(drive.write(b"two", &control()), failed);
    drive.write(b"two", &control()).unwrap();
    let error = changer.move_medium(SLOT + 1, DRIVE + 1, &control()).unwrap_err();
    assert_eq!(error, TapeError::Check(Sense::MECHANICAL_POSITIONING_ERROR));
    set("no such thing");
    drive.write(b"three", &control()).unwrap();
    // An answer that is lost: the driver proves by the position that the record was written.
    set("drive0 write 1 lost\nchanger move 1 lost");
    assert_eq!(drive.write(b"four", &control()), Ok(WriteEnd::Written));
    changer.move_medium(SLOT + 1, DRIVE + 1, &control()).unwrap();
    set("drive0 write 1 sense 03/0c/00");
    vfs.remove(faults).unwrap();
    drive.write(b"five", &control()).unwrap();
    assert_eq!(drive.position(&control()).unwrap().object, 5);
}

/// The power goes at every operation of a session in turn.
#[test]
fn every_answered_move_and_flush_survives_a_loss_of_power() {
    let mut finished = false;
    for stop in 1.. {
        let (crash, vfs) = crash_vfs();
        drop(open(&vfs).unwrap());
        crash.stop_at(stop);
        let (answered, flushed) = session(&vfs);
        for mode in CrashMode::ALL {
            for seed in 0..4 {
                let after: Arc<dyn Vfs> = Arc::new(crash.crash(mode, seed));
                check(&after, &answered, flushed, &format!("{mode:?} at {stop} seed {seed}"));
            }
        }
        if !crash.is_stopped() {
            finished = true;
            break;
        }
    }
    assert!(finished);
}

/// Loads a tape, writes, flushes, unloads, until something fails. Gives the places of the tape
/// that were answered last and may follow, and the records that were flushed.
fn session(vfs: &Arc<dyn Vfs>) -> (Vec<u16>, u64) {
    let mut places = vec![SLOT];
    let mut flushed = 0;
    let _ = (|| -> Result<(), TapeError> {
        let lost = |error: FileLibraryError| TapeError::Unreachable(error.to_string());
        let library = open(vfs).map_err(lost)?;
        let mut changer = library.changer(1, &control())?;
        let mut drive = library.drives(1, &control())?.remove(0);
        changer.inventory(&control())?;
        for round in 0..2 {
            places.push(DRIVE);
            changer.move_medium(SLOT, DRIVE, &control())?;
            places = vec![DRIVE];
            drive.ready(&control())?;
            drive.space(SpaceKind::EndOfData, 0, &control())?;
            for record in 0..3 {
                drive.write(&[round * 3 + record; 2000], &control())?;
            }
            drive.write_filemarks(0, &control())?;
            flushed += 3;
            places.push(SLOT);
            changer.move_medium(DRIVE, SLOT, &control())?;
            places = vec![SLOT];
        }
        Ok(())
    })();
    (places, flushed)
}

fn check(vfs: &Arc<dyn Vfs>, answered: &[u16], flushed: u64, context: &str) {
    let library = open(vfs).unwrap();
    let (mut changer, mut drive) = devices(&library);
    let found = places(&mut changer);
    let tapes: Vec<_> = found.iter().filter(|(_, barcode)| barcode == "PTA001L8").collect();
    assert!(tapes.len() == 1 && answered.contains(&tapes[0].0), "{context}: {tapes:?}");
    if tapes[0].0 != DRIVE {
        changer.move_medium(tapes[0].0, DRIVE, &control()).unwrap();
    }
    drive.ready(&control()).unwrap();
    let mut buffer = [0; 4000];
    for number in 0.. {
        match drive.read(&mut buffer, &control()).unwrap() {
            ReadEnd::Record { length } => {
                assert_eq!(length, 2000, "{context}");
                assert!(buffer[..length].iter().all(|byte| *byte == number), "{context}");
            }
            end => {
                assert_eq!(end, ReadEnd::EndOfData);
                assert!(u64::from(number) >= flushed, "{context}: {number} of {flushed} records");
                break;
            }
        }
    }
}

/// Runs the Python reader; `None` where there is no Python.
fn reader(arguments: &[&str]) -> Option<(i32, String)> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/tools/read_file_tape.py");
    match Command::new("python3").arg(script).args(arguments).output() {
        Ok(output) => {
            let text = String::from_utf8(output.stdout).unwrap();
            Some((output.status.code().unwrap(), text))
        }
        Err(error) => {
            println!("SKIPPED: python3 ({error})");
            None
        }
    }
}

#[test]
fn an_independent_reader_finds_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(RealVfs);
    let library = FileLibrary::open(vfs, dir.path(), &spec(1)).unwrap();
    let (mut changer, mut drive) = devices(&library);
    changer.move_medium(SLOT, DRIVE, &control()).unwrap();
    drive.ready(&control()).unwrap();
    let record = |length: usize| (0..length).map(|i| ((i * i) >> 5) as u8).collect::<Vec<_>>();
    let mut expected: Vec<Option<usize>> = Vec::new();
    for length in [1, 512, 4095, 4096, 4097, 65_536, 1 << 20, 3_000_001] {
        drive.write(&record(length), &control()).unwrap();
        expected.push(Some(length));
        if length % 2 == 0 {
            drive.write_filemarks(2, &control()).unwrap();
            expected.extend([None, None]);
        }
    }
    // Overwritten in the middle: what followed is gone.
    drive.locate(9, &control()).unwrap();
    expected.truncate(9);
    drive.write(&record(777), &control()).unwrap();
    drive.write(&record(778), &control()).unwrap();
    expected.extend([Some(777), Some(778)]);
    drive.write_filemarks(1, &control()).unwrap();
    expected.push(None);
    let path = library.shelf().path(&Barcode::new("PTA001L8").unwrap());
    judge(&path, &expected, dir.path());
    changer.move_medium(DRIVE, SLOT, &control()).unwrap();
    judge(&path, &expected, dir.path());

    // Damage of what was flushed is found.
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() - 100;
    bytes[middle] ^= 1;
    let spoiled = dir.path().join("spoiled.tape");
    std::fs::write(&spoiled, bytes).unwrap();
    if let Some((code, text)) = reader(&[spoiled.to_str().unwrap()]) {
        assert_eq!((code, text.lines().count()), (1, expected.len() - 2), "{text}");
    }
}

/// Compares what the reader lists and extracts with what was written.
fn judge(path: &Path, expected: &[Option<usize>], dir: &Path) {
    let record = |length: usize| (0..length).map(|i| ((i * i) >> 5) as u8).collect::<Vec<_>>();
    let path = path.to_str().unwrap();
    let Some((code, text)) = reader(&[path]) else { return };
    let found: Vec<_> = text.lines().map(|line| line.split(' ').collect::<Vec<_>>()).collect();
    let lengths: Vec<_> =
        found.iter().map(|words| words.get(1).map(|n| n.parse().unwrap())).collect();
    assert_eq!((code, lengths), (0, expected.to_vec()));
    let out: PathBuf = dir.join("out");
    let arguments = [path, "--json", "--extract", "2", out.to_str().unwrap()];
    let (code, json) = reader(&arguments).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["barcode"]), (0, &"PTA001L8".into()));
    assert_eq!(json["objects"].as_array().unwrap().len(), expected.len());
    let parts = [4095, 4096].map(record);
    assert_eq!(std::fs::read(&out).unwrap(), parts.concat(), "tape file 2");
}
