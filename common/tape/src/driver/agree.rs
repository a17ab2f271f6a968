//! A drive driven by CDBs and the same drive called directly must do the same.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::Barcode;
use proptest::prelude::*;

use super::{LocalTransport, ScsiDrive};
use crate::target::{DriveHandle, DriveSpec, FaultPlan, MemoryMedium, MemoryShelf, TargetDrive};
use crate::{Control, DeviceIdentity, SpaceKind, TapeDrive, TapeError};

fn control() -> Control {
    Control::within(Duration::from_secs(30))
}

/// A drive with a cartridge of 20000 bytes, 5000 of them behind early warning.
fn loaded() -> Arc<Mutex<TargetDrive<MemoryMedium>>> {
    let barcode = Barcode::new("PTA001L8").unwrap();
    let shelf = MemoryShelf::new();
    shelf.add(&barcode, 20_000);
    let identity = DeviceIdentity {
        vendor: "TWINREEL".into(),
        product: "DRIVE".into(),
        revision: "1".into(),
        serial: "S1".into(),
    };
    let early_warning = Some(5000);
    let spec = DriveSpec { index: 0, identity, early_warning, power_on_attention: true };
    let mut drive = TargetDrive::new(spec, Arc::new(shelf));
    drive.insert(&barcode).unwrap();
    Arc::new(Mutex::new(drive))
}

fn scsi(drive: &Arc<Mutex<TargetDrive<MemoryMedium>>>) -> ScsiDrive<LocalTransport> {
    let transport = LocalTransport::drive(Arc::clone(drive), 7);
    let mut drive = ScsiDrive::open(transport, &control()).unwrap();
    drive.set_poll(Duration::from_millis(1));
    drive
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize),
    Filemarks(u32),
    Read(usize),
    Locate(u64),
    Space(SpaceKind, i64),
    Rewind,
    Position,
    Load,
    Unload,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        4 => Just(SpaceKind::Records),
        4 => Just(SpaceKind::Filemarks),
        1 => Just(SpaceKind::EndOfData)
    ];
    prop_oneof![
        8 => (1..3000usize).prop_map(Step::Write),
        3 => (0..3u32).prop_map(Step::Filemarks),
        5 => (1..3000usize).prop_map(Step::Read),
        2 => (0..20u64).prop_map(Step::Locate),
        4 => (kind, -6..6i64).prop_map(|(kind, count)| Step::Space(kind, count)),
        1 => Just(Step::Rewind),
        2 => Just(Step::Position),
        1 => Just(Step::Load),
        1 => Just(Step::Unload),
    ]
}

/// Does a step and tells what can be seen of it.
fn perform(drive: &mut dyn TapeDrive, step: &Step) -> Result<String, TapeError> {
    let control = &control();
    Ok(match step {
        Step::Write(length) => {
            let record: Vec<u8> = (0..*length).map(|i| (i * 7) as u8).collect();
            format!("{:?}", drive.write(&record, control)?)
        }
        Step::Filemarks(count) => format!("{:?}", drive.write_filemarks(*count, control)?),
        Step::Read(length) => {
            let mut buffer = vec![0; *length];
            let end = drive.read(&mut buffer, control)?;
            format!("{end:?} {buffer:?}")
        }
        Step::Locate(object) => format!("{:?}", drive.locate(*object, control)?),
        Step::Space(kind, count) => format!("{:?}", drive.space(*kind, *count, control)?),
        Step::Rewind => format!("{:?}", drive.rewind(control)?),
        Step::Position => {
            let position = drive.position(control)?;
            format!("{} {} {}", position.object, position.file, position.past_early_warning)
        }
        Step::Load => format!("{:?}", drive.load(control)?),
        Step::Unload => format!("{:?}", drive.unload(control)?),
    })
}

/// Error kinds compare by key and code: which field pointer or INFORMATION comes along differs.
fn code(result: Result<String, TapeError>) -> Result<String, String> {
    result.map_err(|error| error.to_string())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn both_ways_to_a_drive_agree(steps in prop::collection::vec(step(), 1..60)) {
        let (by_cdb, direct) = (loaded(), loaded());
        let mut by_cdb = scsi(&by_cdb);
        let mut direct = DriveHandle::new(direct, 7);
        for step in steps {
            let seen = code(perform(&mut by_cdb, &step));
            prop_assert_eq!(seen, code(perform(&mut direct, &step)), "{:?}", step);
        }
        let (a, b) = (by_cdb.state(&control()), direct.state(&control()));
        prop_assert_eq!(a.is_ok(), b.is_ok());
        if let (Ok(a), Ok(b)) = (a, b) {
            let barcode = |m: &Option<crate::MediumState>| m.as_ref().map(|m| m.barcode.clone());
            prop_assert_eq!(barcode(&a.medium), barcode(&b.medium));
        }
    }
}

/// A lost answer is settled by the position whatever command it belonged to.
#[test]
fn lost_answers_do_not_show() {
    let plan =
        FaultPlan::parse("* write 2 lost\n* filemarks 1 lost\n* read 1 lost\n* space 1 lost");
    let drive = loaded();
    drive.lock().unwrap().set_faults(&plan.unwrap());
    let mut by_cdb = scsi(&drive);
    let direct = loaded();
    let mut direct = DriveHandle::new(direct, 7);
    let steps = [
        Step::Position,
        Step::Position,
        Step::Write(100),
        Step::Write(200),
        Step::Filemarks(2),
        Step::Write(300),
        Step::Locate(1),
        Step::Read(1000),
        Step::Space(SpaceKind::Filemarks, 1),
        Step::Position,
        Step::Space(SpaceKind::EndOfData, 0),
        Step::Position,
    ];
    for step in steps {
        let seen = code(perform(&mut by_cdb, &step));
        assert_eq!(seen, code(perform(&mut direct, &step)), "{step:?}");
    }
}
