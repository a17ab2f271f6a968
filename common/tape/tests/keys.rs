//! Keys for tapes: the driver against the embedded library, which encrypts for real.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::{Barcode, CartridgeSet};
use scsi::Sense;
use tape::driver::{Data, ScsiCompletion, ScsiDrive, ScsiTransport, TransportError};
use tape::file::{FileLibrary, FileLibrarySpec};
use tape::target::FaultPlan;
use tape::{
    CdbRequest, Control, KeyError, KeyRing, MediumChanger, ReadEnd, SpaceKind, SpaceStop,
    TapeDrive, TapeError, TapeKey, WriteEnd,
};
use vfs::{CrashVfs, Vfs};
use zeroize::Zeroizing;

const WORDS: &[u8] = b"what nobody else is to read ";

fn control() -> Control {
    Control::within(Duration::from_secs(60))
}

fn key(name: &str, byte: u8) -> Arc<TapeKey> {
    Arc::new(TapeKey::new(name, Zeroizing::new([byte; 32])))
}

fn ring(keys: &[(&str, u8)]) -> KeyRing {
    KeyRing::new(keys.iter().map(|(name, byte)| key(name, *byte)).collect())
}

/// A library whose first cartridge lies in its first drive.
struct Scene {
    vfs: Arc<dyn Vfs>,
    library: FileLibrary,
    nexus: u64,
}

impl Scene {
    fn new() -> Self {
        let vfs: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
        let spec = FileLibrarySpec {
            name: "ptl0".into(),
            drives: 2,
            slots: 4,
            import_export: 1,
            capacity: 64 << 20,
            early_warning: None,
            barcodes: CartridgeSet { prefix: "PTA".into(), count: 3 }.barcodes().unwrap(),
        };
        let library = FileLibrary::open(Arc::clone(&vfs), Path::new("/ptl0"), &spec).unwrap();
        let scene = Self { vfs, library, nexus: 1 };
        let mut changer = scene.library.changer(1, &control()).unwrap();
        changer.inventory(&control()).unwrap();
        changer.move_medium(1024, 128, &control()).unwrap();
        scene
    }

    /// The drive as a new initiator with these keys.
    fn drive(&mut self, ring: KeyRing) -> ScsiDrive<Recorded> {
        self.nexus += 1;
        let transport = self.library.drive_transport(0, self.nexus).unwrap();
        let recorded = Recorded { inner: Box::new(transport), sent: Arc::default() };
        let drive = ScsiDrive::open(recorded, &control()).unwrap();
        let tape = Barcode::new("PTA001L8").unwrap();
        let mut drive = drive.with_keys(Arc::new(ring), Box::new(move || Some(tape.clone())));
        drive.ready(&control()).unwrap();
        drive.rewind(&control()).unwrap();
        drive
    }

    /// The bytes of the cartridge's file.
    fn file(&self) -> Vec<u8> {
        let path = self.library.shelf().path(&Barcode::new("PTA001L8").unwrap());
        let file = self.vfs.open(&path).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }
}

/// A way that remembers the operation codes.
struct Recorded {
    inner: Box<dyn ScsiTransport>,
    sent: Arc<Mutex<Vec<u8>>>,
}

impl ScsiTransport for Recorded {
    fn execute(
        &mut self,
        cdb: &[u8],
        data: Data<'_>,
        timeout: Duration,
    ) -> Result<ScsiCompletion, TransportError> {
        self.sent.lock().unwrap().push(cdb[0]);
        self.inner.execute(cdb, data, timeout)
    }
}

fn record(number: usize) -> Vec<u8> {
    let mut record = format!("{number:08} ").into_bytes();
    record.extend(WORDS.repeat(100 + number));
    record
}

fn write(drive: &mut dyn TapeDrive, numbers: std::ops::Range<usize>) {
    for number in numbers {
        assert_eq!(drive.write(&record(number), &control()), Ok(WriteEnd::Written));
    }
    drive.write_filemarks(1, &control()).unwrap();
}

fn read(drive: &mut dyn TapeDrive) -> Result<Vec<u8>, TapeError> {
    let mut buffer = vec![0; 1 << 20];
    match drive.read(&mut buffer, &control())? {
        ReadEnd::Record { length } => Ok(buffer[..length].to_vec()),
        ReadEnd::Filemark => Ok(b"F".to_vec()),
        ReadEnd::EndOfData => Ok(Vec::new()),
    }
}

fn holds(bytes: &[u8], words: &[u8]) -> bool {
    bytes.windows(words.len()).any(|window| window == words)
}

#[test]
fn what_is_written_with_a_key_is_on_tape_with_it_and_comes_back() {
    let mut scene = Scene::new();
    let site = || ring(&[("site", 1)]).for_library("site").unwrap();
    let mut drive = scene.drive(site());
    write(&mut drive, 0..20);
    assert_eq!(drive.position(&control()).unwrap().object, 21);
    let state = drive.state(&control()).unwrap().medium.unwrap();
    assert_eq!(state.barcode.unwrap().as_str(), "PTA001L8");
    let file = scene.file();
    assert!(!holds(&file, WORDS) && !holds(&file, &[1; 32]));
    assert!(holds(&file, b"site"), "the name of the key goes onto the tape");
    drive.rewind(&control()).unwrap();
    for number in 0..20 {
        assert_eq!(read(&mut drive).unwrap(), record(number));
    }
    assert_eq!(read(&mut drive).unwrap(), b"F");
    drop(drive);
    // Somebody else with the same key, without having written.
    let mut drive = scene.drive(ring(&[("another", 9), ("renamed", 1)]));
    assert_eq!(read(&mut drive).unwrap(), record(0));
    drive.locate(7, &control()).unwrap();
    assert_eq!(read(&mut drive).unwrap(), record(7));
    let spaced = drive.space(SpaceKind::Records, -3, &control()).unwrap();
    assert_eq!((spaced.stop, drive.position(&control()).unwrap().object), (SpaceStop::Done, 5));
    let spaced = drive.space(SpaceKind::Filemarks, 1, &control()).unwrap();
    assert_eq!((spaced.stop, drive.position(&control()).unwrap().object), (SpaceStop::Done, 21));
    let spaced = drive.space(SpaceKind::Records, -5, &control()).unwrap();
    assert_eq!((spaced.residual, spaced.stop), (5, SpaceStop::Filemark));
    assert_eq!(drive.position(&control()).unwrap().object, 20);
    // A read that is too short is cut off and passed, as ever.
    drive.locate(3, &control()).unwrap();
    let mut short = [0; 20];
    let end = drive.read(&mut short, &control()).unwrap();
    assert_eq!(end, ReadEnd::Record { length: record(3).len() });
    assert_eq!((&short[..], drive.position(&control()).unwrap().object), (&record(3)[..20], 4));
}

#[test]
fn a_key_that_is_not_here_is_named() {
    let mut scene = Scene::new();
    write(&mut scene.drive(ring(&[("site", 1)]).for_library("site").unwrap()), 0..3);
    let id = key("site", 1).id().to_string();
    for ring in [KeyRing::default(), ring(&[("site", 2), ("other", 3)])] {
        let mut drive = scene.drive(ring);
        drive.locate(1, &control()).unwrap();
        let error = read(&mut drive).unwrap_err();
        let TapeError::Key(KeyError::Unknown(named)) = &error else { panic!("{error:?}") };
        assert_eq!(*named, format!("\"site\" ({id})"));
        assert!(error.to_string().contains(&id), "{error}");
        // The tape stands in front of what could not be read.
        assert_eq!(drive.position(&control()).unwrap().object, 1);
    }
}

#[test]
fn keys_change_along_a_tape_and_with_its_pool() {
    let mut scene = Scene::new();
    let two = || ring(&[("old", 1), ("new", 2)]);
    write(&mut scene.drive(two().for_library("old").unwrap()), 0..3);
    let tag = |text: &str| Barcode::new(text).unwrap();
    let pool = two().for_library("old").unwrap();
    let pool = pool.for_pool(tag("PTA001L8"), tag("PTA001L8"), Some("new")).unwrap();
    let mut drive = scene.drive(pool);
    drive.space(SpaceKind::EndOfData, 0, &control()).unwrap();
    write(&mut drive, 3..6);
    // Reading the old part takes the other key, and writing then takes the new one again.
    drive.locate(1, &control()).unwrap();
    assert_eq!(read(&mut drive).unwrap(), record(1));
    drive.space(SpaceKind::EndOfData, 0, &control()).unwrap();
    write(&mut drive, 6..8);
    drop(drive);
    let mut plain = scene.drive(two());
    plain.space(SpaceKind::EndOfData, 0, &control()).unwrap();
    write(&mut plain, 8..10);
    plain.rewind(&control()).unwrap();
    for number in 0..10 {
        let mut found = read(&mut plain).unwrap();
        if found == b"F" {
            found = read(&mut plain).unwrap();
        }
        assert_eq!(found, record(number), "record {number}");
    }
    // The last part was to be in the clear. Only the new key reads what it has written.
    let file = scene.file();
    assert!(holds(&file, &record(9)) && !holds(&file, &record(7)));
    let mut drive = scene.drive(ring(&[("new", 2)]));
    drive.locate(7, &control()).unwrap();
    assert_eq!(read(&mut drive).unwrap(), b"F");
    assert_eq!(read(&mut drive).unwrap(), record(6));
    drive.locate(1, &control()).unwrap();
    let error = read(&mut drive).unwrap_err();
    assert!(matches!(error, TapeError::Key(KeyError::Unknown(_))), "{error:?}");
}

#[test]
fn a_lost_answer_and_a_reset_do_not_lose_the_key() {
    let mut scene = Scene::new();
    let mut drive = scene.drive(ring(&[("site", 1)]).for_library("site").unwrap());
    let plan = FaultPlan::parse("* write 2 lost\n* filemarks 1 lost\n* read 1 lost").unwrap();
    scene.library.library().lock().unwrap().set_faults(&plan);
    write(&mut drive, 0..5);
    assert_eq!(drive.position(&control()).unwrap().object, 6);
    let target = scene.library.library().lock().unwrap().drives().next().cloned().unwrap();
    target.lock().unwrap().reset();
    // The reset is told, as ever; what is written after it is encrypted again.
    let told = drive.write(&record(5), &control());
    assert_eq!(told, Err(TapeError::Check(Sense::POWER_ON_RESET)));
    drive.locate(6, &control()).unwrap();
    write(&mut drive, 5..7);
    assert!(!holds(&scene.file(), WORDS));
    drive.rewind(&control()).unwrap();
    let all: Vec<_> = (0..8).map(|_| read(&mut drive).unwrap()).collect();
    assert_eq!((&all[4], &all[5][..], &all[7]), (&record(4), &b"F"[..], &record(6)));
}

#[test]
fn a_key_that_went_without_a_word_is_noticed_behind_the_flush() {
    let mut scene = Scene::new();
    let mut drive = scene.drive(ring(&[("site", 1)]).for_library("site").unwrap());
    assert_eq!(drive.write(&record(0), &control()), Ok(WriteEnd::Written));
    // The same initiator behind our back: a set data encryption page that says off.
    let mut other = scene.library.drive_transport(0, scene.nexus).unwrap();
    let mut off = vec![0, 0x10, 0, 16, 0x20, 0, 0, 0, 1];
    off.resize(20, 0);
    let cdb = [0xb5, 0x20, 0, 0x10, 0, 0, 0, 0, 0, 20, 0, 0];
    let done = other.execute(&cdb, Data::Out(&off), Duration::from_secs(5)).unwrap();
    assert_eq!(done.status, 0);
    assert_eq!(drive.write(&record(1), &control()), Ok(WriteEnd::Written));
    let lost = drive.write_filemarks(1, &control());
    assert!(matches!(lost, Err(TapeError::Key(KeyError::Lost(_)))), "{lost:?}");
}

#[test]
fn the_key_leaves_the_drive_with_the_tape_and_with_its_user() {
    let mut scene = Scene::new();
    let site = || ring(&[("site", 1)]).for_library("site").unwrap();
    let status = |scene: &Scene| {
        let mut way = scene.library.drive_transport(0, scene.nexus).unwrap();
        let mut page = [0; 64];
        let cdb = [0xa2, 0x20, 0, 0x20, 0, 0, 0, 0, 0, 64, 0, 0];
        loop {
            let done = way.execute(&cdb, Data::In(&mut page), Duration::from_secs(5)).unwrap();
            if done.status == 0 {
                return (page[5], page[6]);
            }
        }
    };
    let mut drive = scene.drive(site());
    write(&mut drive, 0..2);
    assert_eq!(status(&scene), (2, 3));
    drive.unload(&control()).unwrap();
    assert_eq!(status(&scene), (0, 0));
    drive.load(&control()).unwrap();
    write(&mut drive, 0..2);
    assert!(!holds(&scene.file(), WORDS), "loaded again it is encrypted again");
    assert_eq!(status(&scene), (2, 3));
    drop(drive);
    assert_eq!(status(&scene), (0, 0));
}

#[test]
fn keys_cost_no_command_for_each_record() {
    let mut scene = Scene::new();
    let mut drive = scene.drive(ring(&[("site", 1)]).for_library("site").unwrap());
    let sent = Arc::clone(&drive.transport().sent);
    sent.lock().unwrap().clear();
    write(&mut drive, 0..50);
    let count = |code: u8| sent.lock().unwrap().iter().filter(|it| **it == code).count();
    // Capabilities and status at the first write, status behind the flush.
    assert_eq!((count(0x0a), count(0xb5), count(0xa2)), (50, 1, 3));
    // Without keys there is nothing to ask.
    let mut drive = scene.drive(KeyRing::default());
    let sent = Arc::clone(&drive.transport().sent);
    write(&mut drive, 0..5);
    assert!(!sent.lock().unwrap().iter().any(|code| matches!(code, 0xa2 | 0xb5)));
}

#[test]
fn what_is_passed_through_is_encrypted_too_and_brings_no_key() {
    let mut scene = Scene::new();
    let mut drive = scene.drive(ring(&[("site", 1)]).for_library("site").unwrap());
    let pass = |cdb: &[u8], data_out: Vec<u8>, data_in_max: u32| CdbRequest {
        cdb: cdb.to_vec(),
        data_out: data_out.into(),
        data_in_max,
        timeout: Duration::from_secs(5),
    };
    let words = WORDS.repeat(4);
    let length = words.len() as u8;
    let done = drive.execute(&pass(&[0x0a, 0, 0, 0, length, 0], words.clone(), 0), &control());
    assert_eq!(done.unwrap().status, 0);
    let cdb = [0xb5, 0x20, 0, 0x10, 0, 0, 0, 0, 0, 20, 0, 0];
    let refused = drive.execute(&pass(&cdb, vec![0; 20], 0), &control()).unwrap();
    let sense = Sense::parse(&refused.sense).unwrap();
    assert_eq!((refused.status, sense), (2, Sense::INVALID_OPERATION_CODE));
    drive.write_filemarks(0, &control()).unwrap();
    assert!(!holds(&scene.file(), WORDS));
    drop(drive);
    let mut drive = scene.drive(ring(&[("site", 1)]));
    let read = pass(&[0x08, 0, 0, 0, length, 0], Vec::new(), length.into());
    let done = drive.execute(&read, &control()).unwrap();
    assert_eq!((done.status, done.data_in), (0, words));
}
