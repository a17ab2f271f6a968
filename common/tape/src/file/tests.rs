//! Cartridge files against the plain medium in memory, and against the loss of power.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::Barcode;
use proptest::prelude::*;
use scsi::Cdb;
use vfs::{CrashMode, CrashVfs, FaultKind, FaultOp, FaultyVfs, Vfs};

use super::{FileMedium, FileShelf};
use crate::target::{
    DriveSpec, Medium, MediumError, MemoryShelf, Shelf, TapeObject, TargetDrive, Transfer,
};
use crate::{Control, DeviceIdentity, ReadEnd, SpaceKind, SpaceStop, Spaced};

fn barcode() -> Barcode {
    Barcode::new("PTA001L8").unwrap()
}

fn shelf(vfs: &Arc<dyn Vfs>) -> FileShelf {
    let shelf = FileShelf::new(Arc::clone(vfs), PathBuf::from("/lib/cartridges"));
    shelf.stock(&[barcode()], 1 << 30).unwrap();
    shelf
}

/// A record of a length, with contents that tell it from others.
fn record(length: usize, salt: u8) -> Vec<u8> {
    (0..length).map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ salt).collect()
}

/// Everything on a tape, read from BOT.
fn read_all(medium: &mut dyn Medium) -> Vec<TapeObject> {
    medium.locate(0).unwrap();
    let mut buffer = vec![0; 2 << 20];
    let mut objects = Vec::new();
    loop {
        match medium.read(&mut buffer).unwrap() {
            ReadEnd::Record { length } => {
                objects.push(TapeObject::Record(buffer[..length].to_vec()));
            }
            ReadEnd::Filemark => objects.push(TapeObject::Filemark),
            ReadEnd::EndOfData => return objects,
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, u8),
    Filemarks(u32),
    Read(usize),
    Locate(u64),
    Space(SpaceKind, i64),
    Erase,
    Flush,
    Reopen,
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 1..600usize, 2 => 600..70_000usize, 1 => (1 << 20) - 30..(1 << 20) + 30usize]
}

fn kind() -> impl Strategy<Value = SpaceKind> {
    prop_oneof![
        4 => Just(SpaceKind::Records),
        4 => Just(SpaceKind::Filemarks),
        1 => Just(SpaceKind::EndOfData)
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (length(), any::<u8>()).prop_map(|(length, salt)| Step::Write(length, salt)),
        3 => (0..3u32).prop_map(Step::Filemarks),
        3 => (0..2000usize).prop_map(Step::Read),
        2 => (0..30u64).prop_map(Step::Locate),
        4 => (kind(), -8..8i64).prop_map(|(kind, count)| Step::Space(kind, count)),
        1 => Just(Step::Erase),
        2 => Just(Step::Flush),
        1 => Just(Step::Reopen),
    ]
}

/// Does a step and tells what can be seen of it.
fn perform(medium: &mut dyn Medium, step: &Step) -> Result<String, MediumError> {
    Ok(match step {
        Step::Write(length, salt) => format!("{:?}", medium.write(&record(*length, *salt))?),
        Step::Filemarks(count) => format!("{:?}", medium.write_filemarks(*count)?),
        Step::Read(length) => {
            let mut buffer = vec![0; *length];
            let end = medium.read(&mut buffer)?;
            if let ReadEnd::Record { length } = end {
                buffer.truncate(length);
                format!("{end:?} {buffer:?}")
            } else {
                format!("{end:?}")
            }
        }
        Step::Locate(object) => format!("{:?}", medium.locate(*object)?),
        Step::Space(kind, count) => format!("{:?}", medium.space(*kind, *count)?),
        Step::Erase => format!("{:?}", medium.erase()?),
        Step::Flush => format!("{:?}", medium.flush()?),
        Step::Reopen => format!("{:?}", medium.close()?),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// A cartridge file does what the medium in memory does.
    #[test]
    fn like_the_plain_medium(steps in prop::collection::vec(step(), 1..60)) {
        let vfs: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
        let files = shelf(&vfs);
        let memory = MemoryShelf::new();
        memory.add(&barcode(), 1 << 30);
        let mut plain = memory.open(&barcode()).unwrap();
        let mut file = Some(files.open(&barcode()).unwrap());
        for step in steps {
            let seen = perform(file.as_mut().unwrap(), &step);
            prop_assert_eq!(seen, perform(&mut plain, &step), "{:?}", step);
            if matches!(step, Step::Reopen) {
                file = None;
                file = file.or_else(|| Some(files.open(&barcode()).unwrap()));
                plain = memory.open(&barcode()).unwrap();
            }
            let file = file.as_ref().unwrap();
            let places = |m: &dyn Medium| (m.object(), m.file(), m.used(), m.recorded());
            prop_assert_eq!(places(file), places(&plain), "{:?}", step);
        }
        prop_assert_eq!(read_all(file.as_mut().unwrap()), read_all(&mut plain));
    }

    /// Whenever the power goes: what was flushed is there unless it was being overwritten, and
    /// what is there beyond it was written, whole and in this order.
    #[test]
    fn flushed_objects_survive_and_nothing_torn_is_read(
        steps in prop::collection::vec(step(), 1..40),
        stop in 1..60u64,
        seed: u64,
    ) {
        let crash = CrashVfs::new();
        let vfs: Arc<dyn Vfs> = Arc::new(crash.clone());
        let files = shelf(&vfs);
        crash.stop_at(stop);
        let mut tape = Tape::default();
        let mut file = files.open(&barcode()).ok();
        for step in &steps {
            let Some(medium) = file.as_mut() else { break };
            let before = medium.object() as usize;
            tape.attempt(before, step);
            if perform(medium, step).is_err() {
                break;
            }
            if matches!(step, Step::Flush | Step::Reopen) {
                tape.flushed();
            }
            if matches!(step, Step::Reopen) {
                file = None;
                file = file.or_else(|| files.open(&barcode()).ok());
            }
        }
        for mode in CrashMode::ALL {
            let after: Arc<dyn Vfs> = Arc::new(crash.crash(mode, seed));
            let mut medium = shelf(&after).open(&barcode()).unwrap();
            let found = read_all(&mut medium);
            tape.check(&found).map_err(|e| TestCaseError::fail(format!("{mode:?}: {e}")))?;
            medium.locate(found.len() as u64).unwrap();
            medium.write(b"it can be written on").unwrap();
            medium.close().unwrap();
        }
    }
}

/// What may be on a tape whose power can go at any time.
#[derive(Default)]
struct Tape {
    now: Vec<TapeObject>,
    /// The contents that it had since the last flush, the flushed one first.
    since: Vec<Vec<TapeObject>>,
    /// How many of the flushed objects nobody began to overwrite.
    safe: usize,
}

impl Tape {
    fn attempt(&mut self, at: usize, step: &Step) {
        if self.since.is_empty() {
            self.since.push(Vec::new());
        }
        let objects = match step {
            Step::Write(length, salt) => vec![TapeObject::Record(record(*length, *salt))],
            Step::Filemarks(count) if *count > 0 => vec![TapeObject::Filemark; *count as usize],
            Step::Erase => vec![],
            _ => return,
        };
        self.safe = self.safe.min(at);
        self.now.truncate(at);
        self.now.extend(objects);
        self.since.push(self.now.clone());
    }

    fn flushed(&mut self) {
        self.since = vec![self.now.clone()];
        self.safe = self.now.len();
    }

    fn check(&self, found: &[TapeObject]) -> Result<(), String> {
        let possible = self.since.iter().any(|objects| objects.starts_with(found));
        if !self.since.is_empty() && !possible {
            return Err(format!("{} objects that were never there together", found.len()));
        }
        if found.len() < self.safe {
            return Err(format!("{} objects, {} were flushed", found.len(), self.safe));
        }
        Ok(())
    }
}

fn mounted(vfs: &Arc<dyn Vfs>) -> FileMedium {
    shelf(vfs).open(&barcode()).unwrap()
}

#[test]
fn what_was_not_flushed_is_lost_and_what_was_is_not() {
    let crash = CrashVfs::new();
    let vfs: Arc<dyn Vfs> = Arc::new(crash.clone());
    let mut medium = mounted(&vfs);
    medium.write(&record(1000, 1)).unwrap();
    medium.write_filemarks(1).unwrap();
    medium.flush().unwrap();
    for salt in 2..9 {
        medium.write(&record(300_000, salt)).unwrap();
    }
    let after: Arc<dyn Vfs> = Arc::new(crash.crash(CrashMode::LoseUnsynced, 1));
    let objects = read_all(&mut mounted(&after));
    assert_eq!(objects, [TapeObject::Record(record(1000, 1)), TapeObject::Filemark]);
    // A process that is killed loses only what it had not handed over.
    let after: Arc<dyn Vfs> = Arc::new(crash.crash(CrashMode::KeepAll, 1));
    let kept = read_all(&mut mounted(&after)).len();
    assert!((3..9).contains(&kept), "{kept}");
}

#[test]
fn damage_of_flushed_objects_is_an_error_and_never_the_end_of_data() {
    let vfs: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
    let mut medium = mounted(&vfs);
    for salt in 0..4 {
        medium.write(&record(100, salt)).unwrap();
    }
    medium.close().unwrap();
    drop(medium);
    let file = vfs.open(Path::new("/lib/cartridges/PTA001L8.tape")).unwrap();
    let second = super::format::DATA + 124;
    let spoil = |at: u64| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    };
    let mut buffer = [0; 200];
    let is_corrupt = |e: &MediumError| matches!(e, MediumError::Corrupt(_));

    spoil(second + 20 + 50);
    let mut medium = mounted(&vfs);
    medium.read(&mut buffer).unwrap();
    assert!(is_corrupt(&medium.read(&mut buffer).unwrap_err()), "payload");
    assert_eq!(medium.object(), 1);
    assert!(is_corrupt(&medium.read(&mut buffer[..10]).unwrap_err()), "in what is cut off");
    medium.locate(2).unwrap();
    assert_eq!(medium.read(&mut buffer), Ok(ReadEnd::Record { length: 100 }));
    drop(medium);
    spoil(second + 20 + 50);

    spoil(second + 4);
    let mut medium = mounted(&vfs);
    medium.read(&mut buffer).unwrap();
    assert!(is_corrupt(&medium.read(&mut buffer).unwrap_err()), "head");
    assert!(is_corrupt(&medium.locate(3).unwrap_err()));
    assert!(is_corrupt(&medium.space(SpaceKind::EndOfData, 0).unwrap_err()));
    assert!(is_corrupt(&medium.space(SpaceKind::Records, 3).unwrap_err()));
    assert_eq!(medium.locate(1), Ok(1));
    medium.write(&record(10, 9)).unwrap();
    medium.close().unwrap();
    drop(medium);
    let mut medium = mounted(&vfs);
    assert_eq!(read_all(&mut medium).len(), 2, "written over, it is sound again");
}

#[test]
fn both_header_slots_serve_and_attributes_stay() {
    let crash = CrashVfs::new();
    let vfs: Arc<dyn Vfs> = Arc::new(crash.clone());
    let mut medium = mounted(&vfs);
    medium.set_attribute(0x0803, b"label").unwrap();
    medium.set_write_protected(true).unwrap();
    assert_eq!(medium.set_attribute(1, &[0; 300]), Err(MediumError::Full));
    let after: Arc<dyn Vfs> = Arc::new(crash.crash(CrashMode::LoseUnsynced, 1));
    let medium = mounted(&after);
    assert_eq!(medium.attribute(0x0803).unwrap(), b"label");
    assert!(medium.write_protected());
    drop(medium);
    let file = after.open(Path::new("/lib/cartridges/PTA001L8.tape")).unwrap();
    file.write_all_at(b"nonsense", super::format::SLOT).unwrap();
    let medium = mounted(&after);
    assert_eq!(medium.attribute(0x0803).unwrap(), b"label");
    assert!(!medium.write_protected(), "the older slot");
    drop(medium);
    file.write_all_at(b"nonsense", 0).unwrap();
    assert!(matches!(shelf(&after).open(&barcode()), Err(MediumError::Corrupt(_))));
}

#[test]
fn a_cartridge_is_mounted_once() {
    let vfs: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
    let shelf = shelf(&vfs);
    let first = shelf.open(&barcode()).unwrap();
    assert!(matches!(shelf.open(&barcode()), Err(MediumError::InUse(_))));
    drop(first);
    shelf.open(&barcode()).unwrap();
    let other = Barcode::new("PTA002L8").unwrap();
    assert_eq!(shelf.open(&other).unwrap_err(), MediumError::Missing(other.clone()));
    assert_eq!(shelf.open(&other).unwrap_err(), MediumError::Missing(other));
}

#[test]
fn a_full_disk_and_a_failed_sync_are_told() {
    let faulty = FaultyVfs::new(Arc::new(CrashVfs::new()));
    let vfs: Arc<dyn Vfs> = Arc::new(faulty.clone());
    let mut medium = mounted(&vfs);
    faulty.fail(FaultOp::Write, 1, FaultKind::Full);
    faulty.fail(FaultOp::Write, 2, FaultKind::Short);
    let mut written = 0;
    let full = loop {
        match medium.write(&record(400_000, written)) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((full, medium.object()), (MediumError::Full, written.into()));
    medium.write(&record(400_000, written)).unwrap();
    medium.flush().unwrap();
    assert_eq!(read_all(&mut medium).len(), usize::from(written) + 1);

    medium.write_filemarks(1).unwrap();
    faulty.fail(FaultOp::Write, 1, FaultKind::Full);
    assert!(matches!(medium.flush(), Err(MediumError::Io(_))), "it was accepted before");
    medium.flush().unwrap();

    medium.write_filemarks(1).unwrap();
    faulty.fail(FaultOp::Sync, 1, FaultKind::Io);
    assert!(matches!(medium.flush(), Err(MediumError::Io(_))));
    assert!(matches!(medium.write(b"more"), Err(MediumError::Io(_))));
    assert!(matches!(medium.flush(), Err(MediumError::Io(_))), "a retry does not help");
    medium.close().unwrap();
}

#[test]
fn short_reads_and_writes_do_not_show() {
    for seed in 0..20 {
        let faulty = FaultyVfs::new(Arc::new(CrashVfs::new()));
        let vfs: Arc<dyn Vfs> = Arc::new(faulty.clone());
        let mut medium = mounted(&vfs);
        for nth in 1..200 {
            faulty.fail(FaultOp::Read, nth, FaultKind::Short);
            faulty.fail(FaultOp::Write, nth, FaultKind::Short);
        }
        let lengths = [1, 511 + seed, 4096, 65_536, 1 << 20, 3_000_000];
        for (salt, length) in lengths.into_iter().enumerate() {
            medium.write(&record(length, salt as u8)).unwrap();
        }
        medium.flush().unwrap();
        medium.locate(0).unwrap();
        let mut buffer = vec![0; 4 << 20];
        for (salt, length) in lengths.into_iter().enumerate() {
            assert_eq!(medium.read(&mut buffer), Ok(ReadEnd::Record { length }));
            assert_eq!(buffer[..length], record(length, salt as u8));
        }
        let back = medium.space(SpaceKind::Records, -9).unwrap();
        assert_eq!(back, Spaced { residual: 3, stop: SpaceStop::BeginningOfTape });
    }
}

#[test]
fn a_drive_that_nobody_uses_holds_no_buffers() {
    let vfs: Arc<dyn Vfs> = Arc::new(CrashVfs::new());
    let identity = DeviceIdentity {
        vendor: "TWINREEL".into(),
        product: "ULTRIUM-TD8".into(),
        revision: "0001".into(),
        serial: "TESTDRIVE0".into(),
    };
    let spec = DriveSpec { index: 0, identity, early_warning: None, power_on_attention: false };
    let mut drive = TargetDrive::new(spec, Arc::new(shelf(&vfs)));
    drive.insert(&barcode()).unwrap();
    let control = Control::within(std::time::Duration::from_secs(60));
    let data = record(100_000, 1);
    let mut room = vec![0; data.len()];
    let length = data.len() as u32;
    let steps = [
        (1, Cdb::Write { fixed: false, length }, Transfer::Out(&data)),
        (1, Cdb::WriteFilemarks { immediate: false, count: 1 }, Transfer::None),
        (2, Cdb::Rewind { immediate: false }, Transfer::None),
        (2, Cdb::Read { fixed: false, sili: false, length }, Transfer::In(&mut room)),
    ];
    for (nexus, cdb, transfer) in steps {
        let answer = drive.execute_cdb(nexus, &cdb.encode(), transfer, &control).unwrap();
        assert_eq!(answer.status, 0, "{cdb:?}: {answer:?}");
    }
    let held = |drive: &TargetDrive<FileMedium>| drive.medium().unwrap().buffers();
    drive.forget_nexus(1);
    assert!(held(&drive) >= data.len(), "the other one reads on");
    drive.forget_nexus(2);
    assert_eq!(held(&drive), 0);
}
