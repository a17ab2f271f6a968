//! The driver against a device that answers by script: every row of the sense table, and answers
//! that never come.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::{ElementMap, ElementType};
use scsi::log::{self, LogPage, LogParameter};
use scsi::mode::{BlockDescriptor, ModeParameters, element_assignment};
use scsi::{
    Designator, DeviceType, ElementDescriptor, ElementReport, ModeForm, PositionForm,
    PositionReport, Sense, StandardInquiry, VitalPage,
};

use super::{Data, Place, ScsiChanger, ScsiCompletion, ScsiDrive, ScsiTransport, TransportError};
use crate::{
    CdbRequest, Control, MediumChanger, ReadEnd, SpaceKind, SpaceStop, Spaced, TapeDrive,
    TapeError, WriteEnd,
};

/// What a device answers.
#[derive(Clone, Debug)]
enum Answer {
    Good(Vec<u8>),
    Check(Sense, Vec<u8>),
    Status(u8),
    Lost(TransportError),
}

/// The answers to come, and the CDBs that came.
type Dialogue = (VecDeque<Answer>, Vec<Vec<u8>>);

/// Answers by script and remembers what it was asked.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Dialogue>>, Option<usize>);

impl Script {
    fn then(&self, answers: impl IntoIterator<Item = Answer>) {
        self.0.lock().unwrap().0.extend(answers);
    }

    /// The operation codes since the last call; everything scripted must have been used.
    fn asked(&self) -> Vec<u8> {
        let mut state = self.0.lock().unwrap();
        assert!(state.0.is_empty(), "not asked for: {:?}", state.0);
        state.1.drain(..).map(|cdb| cdb[0]).collect()
    }
}

impl ScsiTransport for Script {
    fn execute(
        &mut self,
        cdb: &[u8],
        data: Data<'_>,
        _timeout: Duration,
    ) -> Result<ScsiCompletion, TransportError> {
        let mut state = self.0.lock().unwrap();
        state.1.push(cdb.to_vec());
        let answer = state.0.pop_front().unwrap_or_else(|| panic!("no answer for {cdb:02x?}"));
        let (status, sense, bytes) = match answer {
            Answer::Good(bytes) => (0, Vec::new(), bytes),
            Answer::Check(sense, bytes) => (2, sense.to_descriptor(), bytes),
            Answer::Status(status) => (status, Vec::new(), Vec::new()),
            Answer::Lost(error) => return Err(error),
        };
        let residual = match data {
            Data::In(buffer) => {
                let n = bytes.len().min(buffer.len());
                buffer[..n].copy_from_slice(&bytes[..n]);
                buffer.len() as i64 - bytes.len() as i64
            }
            Data::None | Data::Out(_) => 0,
        };
        Ok(ScsiCompletion { status, sense, residual })
    }

    fn longest(&self) -> usize {
        self.1.unwrap_or(usize::MAX)
    }
}

/// A host adapter that takes 10 bytes at a time.
#[test]
fn a_read_is_no_longer_than_the_way_is_wide() {
    let script = Script { 1: Some(10), ..Script::default() };
    let inquiry = StandardInquiry::new(DeviceType::Tape, "TWINREEL", "FILE", "1");
    let serial = VitalPage::SerialNumber("S1".into()).encode(DeviceType::Tape);
    script.then([Answer::Good(inquiry.encode()), Answer::Good(serial), at(5)]);
    let mut drive = ScsiDrive::open(script.clone(), &control()).unwrap();
    script.then([Answer::Good(vec![7; 10])]);
    let end = drive.read(&mut [0; 2000], &control());
    assert_eq!(end, Ok(ReadEnd::Record { length: 10 }));
    let longer = Sense::INCORRECT_LENGTH.with_information(-90);
    script.then([Answer::Check(longer, vec![7; 10])]);
    let end = drive.read(&mut [0; 2000], &control());
    assert!(matches!(end, Err(TapeError::Unreachable(_))), "{end:?}");
    assert_eq!(script.asked().len(), 5);
}

fn good() -> Answer {
    Answer::Good(Vec::new())
}

fn check(sense: Sense) -> Answer {
    Answer::Check(sense, Vec::new())
}

fn broken() -> Answer {
    Answer::Lost(TransportError::Broken("cable".into()))
}

fn at(object: u64) -> Answer {
    let at_bot = object == 0;
    let report =
        PositionReport { at_bot, object: Some(object), file: Some(0), ..Default::default() };
    Answer::Good(report.encode(PositionForm::Long))
}

fn control() -> Control {
    Control::within(Duration::from_secs(30))
}

/// A drive that stands at an object.
fn drive(object: u64) -> (ScsiDrive<Script>, Script) {
    let script = Script::default();
    let inquiry = StandardInquiry::new(DeviceType::Tape, "TWINREEL", "FILE", "1");
    let serial = VitalPage::SerialNumber("S1".into()).encode(DeviceType::Tape);
    script.then([Answer::Good(inquiry.encode()), Answer::Good(serial), at(object)]);
    let mut drive = ScsiDrive::open(script.clone(), &control()).unwrap();
    drive.set_poll(Duration::ZERO);
    drive.position(&control()).unwrap();
    assert_eq!(script.asked(), [0x12, 0x12, 0x34]);
    (drive, script)
}

#[test]
fn reads_end_as_the_sense_says() {
    let ili = |information| Sense::INCORRECT_LENGTH.with_information(information);
    let filemark = Sense::FILEMARK_DETECTED.with_information(10);
    let tgt_end = Sense { eom: true, ..Sense::new(8, 0, 0) };
    let recovered = Sense::new(1, 0x17, 1);
    let record = |length| Ok(ReadEnd::Record { length });
    let failed = |sense| Err(TapeError::Check(sense));
    let deferred = Sense { deferred: true, ..Sense::WRITE_ERROR };
    let table = [
        (Answer::Good(vec![7; 10]), record(10)),
        (Answer::Good(vec![7; 4]), record(4)),
        (Answer::Check(ili(6), vec![7; 4]), record(4)),
        (Answer::Check(ili(-90), vec![7; 10]), record(100)),
        (Answer::Check(Sense::INCORRECT_LENGTH, vec![7; 4]), record(4)),
        (Answer::Check(recovered, vec![7; 10]), record(10)),
        (check(filemark), Ok(ReadEnd::Filemark)),
        (Answer::Check(filemark, vec![9; 10]), Ok(ReadEnd::Filemark)),
        (check(Sense::END_OF_DATA), Ok(ReadEnd::EndOfData)),
        (check(tgt_end), Ok(ReadEnd::EndOfData)),
        (check(Sense::new(8, 0x14, 3)), failed(Sense::new(8, 0x14, 3))),
        (check(Sense::UNRECOVERED_READ_ERROR), failed(Sense::UNRECOVERED_READ_ERROR)),
        (check(deferred), failed(deferred)),
        (check(Sense::POWER_ON_RESET), failed(Sense::POWER_ON_RESET)),
    ];
    for (answer, expected) in table {
        let (mut drive, script) = drive(5);
        script.then([answer.clone()]);
        let end = drive.read(&mut [0; 10], &control());
        assert_eq!(end, expected, "{answer:?}");
        assert_eq!(script.asked(), [0x08]);
    }
}

#[test]
fn writes_end_as_the_sense_says() {
    let early = Sense { eom: true, ..Sense::NO_SENSE };
    let failed = |sense| Err(TapeError::Check(sense));
    let deferred = Sense { deferred: true, ..Sense::WRITE_ERROR };
    let table = [
        (good(), Ok(WriteEnd::Written)),
        (check(Sense::EARLY_WARNING), Ok(WriteEnd::EarlyWarning)),
        (check(early), Ok(WriteEnd::EarlyWarning)),
        (check(Sense { eom: true, ..Sense::new(1, 0, 2) }), Ok(WriteEnd::EarlyWarning)),
        (check(Sense::PROGRAMMABLE_EARLY_WARNING), Ok(WriteEnd::Written)),
        (check(Sense::VOLUME_OVERFLOW), Ok(WriteEnd::Overflow)),
        (check(Sense::WRITE_ERROR), failed(Sense::WRITE_ERROR)),
        (check(Sense::WRITE_PROTECTED), failed(Sense::WRITE_PROTECTED)),
        (check(deferred), failed(deferred)),
        (check(Sense::MEDIUM_MAY_HAVE_CHANGED), failed(Sense::MEDIUM_MAY_HAVE_CHANGED)),
        (Answer::Status(0x18), Err(TapeError::ReservationConflict)),
    ];
    for (answer, expected) in table {
        let (mut writer, script) = drive(5);
        script.then([answer.clone()]);
        assert_eq!(writer.write(b"record", &control()), expected, "{answer:?}");
        assert_eq!(script.asked(), [0x0a]);
        let (mut marker, script) = drive(5);
        script.then([answer.clone()]);
        assert_eq!(marker.write_filemarks(2, &control()), expected, "{answer:?}");
        assert_eq!(script.asked(), [0x10]);
    }
}

#[test]
fn spacing_ends_as_the_sense_says() {
    let table = [
        (3, good(), Spaced { residual: 0, stop: SpaceStop::Done }),
        (
            3,
            check(Sense::FILEMARK_DETECTED.with_information(2)),
            Spaced { residual: 2, stop: SpaceStop::Filemark },
        ),
        (
            -3,
            check(Sense::BEGINNING_OF_MEDIUM.with_information(1)),
            Spaced { residual: 1, stop: SpaceStop::BeginningOfTape },
        ),
        (
            i64::MAX,
            check(Sense::END_OF_DATA.with_information(i64::MAX - 1)),
            Spaced { residual: i64::MAX as u64 - 1, stop: SpaceStop::EndOfData },
        ),
    ];
    for (count, answer, expected) in table {
        let (mut drive, script) = drive(5);
        script.then([answer]);
        assert_eq!(drive.space(SpaceKind::Records, count, &control()), Ok(expected));
        script.asked();
    }
}

/// What is asked and answered after the answer to a WRITE at object 5 is lost.
#[test]
fn a_lost_write_is_settled_by_the_position() {
    let aborted = check(Sense::ABORTED_COMMAND);
    let timed_out = Answer::Lost(TransportError::TimedOut);
    for lost in [broken(), aborted, timed_out, Answer::Status(0x40)] {
        let settle = |answers: Vec<Answer>| {
            let (mut drive, script) = drive(5);
            script.then([lost.clone()]);
            script.then(answers);
            let end = drive.write(b"record", &control());
            (end, script.asked())
        };
        let (end, asked) = settle(vec![at(5), check(Sense::EARLY_WARNING)]);
        assert_eq!((end, asked), (Ok(WriteEnd::EarlyWarning), vec![0x0a, 0x34, 0x0a]));
        let (end, asked) = settle(vec![at(6)]);
        assert_eq!((end, asked), (Ok(WriteEnd::Written), vec![0x0a, 0x34]));
        let (end, asked) = settle(vec![check(Sense::POWER_ON_RESET), at(6)]);
        assert_eq!((end, asked), (Ok(WriteEnd::Written), vec![0x0a, 0x34, 0x34]));
        for unknown in [
            vec![at(0)],
            vec![at(7)],
            vec![check(Sense::MEDIUM_MAY_HAVE_CHANGED)],
            vec![broken(), broken()],
            vec![at(5), broken()],
        ] {
            let (end, _) = settle(unknown.clone());
            assert!(matches!(end, Err(TapeError::PositionUnknown(_))), "{unknown:?}: {end:?}");
        }
    }
}

#[test]
fn a_lost_read_is_read_again_from_where_it_began() {
    let (mut drive, script) = drive(5);
    script.then([broken(), at(6), good(), Answer::Good(vec![7; 4])]);
    let mut buffer = [0; 4];
    assert_eq!(drive.read(&mut buffer, &control()), Ok(ReadEnd::Record { length: 4 }));
    assert_eq!((buffer, script.asked()), ([7; 4], vec![0x08, 0x34, 0x2b, 0x08]));
    script.then([broken(), at(6), good()]);
    drive.write_filemarks(0, &control()).unwrap();
    assert_eq!(script.asked(), [0x10, 0x34, 0x10], "a flush may be done twice");
    script.then([broken(), good()]);
    drive.rewind(&control()).unwrap();
    assert_eq!(script.asked(), [0x01, 0x01], "so may a rewind");
}

#[test]
fn nothing_sent_is_not_unknown() {
    let (mut drive, script) = drive(5);
    script.then([Answer::Lost(TransportError::NotSent("no session".into()))]);
    let error = drive.write(b"record", &control()).unwrap_err();
    assert_eq!(error, TapeError::Unreachable("no session".into()));
    // What the drive stands at is asked for anew, and a unit attention then is the caller's.
    script.then([check(Sense::POWER_ON_RESET)]);
    let error = drive.write(b"record", &control()).unwrap_err();
    assert_eq!(error, TapeError::Check(Sense::POWER_ON_RESET));
    assert_eq!(script.asked(), [0x0a, 0x34]);
}

#[test]
fn not_ready_and_busy_are_waited_out_within_the_deadline() {
    let (mut drive, script) = drive(5);
    let wait = [check(Sense::BECOMING_READY), Answer::Status(8), Answer::Status(0x28)];
    script.then(wait.into_iter().chain([good()]));
    assert_eq!(drive.write(b"record", &control()), Ok(WriteEnd::Written));
    script.then((0..3).map(|_| check(Sense::MEDIUM_MAY_HAVE_CHANGED)).chain([good()]));
    drive.ready(&control()).unwrap();
    script.asked();

    drive.set_poll(Duration::from_secs(60));
    script.then([Answer::Status(8)]);
    let soon = Control::within(Duration::from_millis(20));
    assert_eq!(drive.rewind(&soon), Err(TapeError::Busy));
    let cancelled = control();
    cancelled.cancel.cancel();
    assert_eq!(drive.rewind(&cancelled), Err(TapeError::Cancelled));
    script.asked();
}

#[test]
fn positions_come_in_the_form_that_the_drive_has() {
    let (mut drive, script) = drive(5);
    let short = PositionReport {
        object: Some(9),
        medium_object: Some(7),
        buffered_objects: None,
        at_bot: false,
        ..PositionReport::default()
    };
    let short = Answer::Good(short.encode(PositionForm::Short));
    script.then([check(Sense::bad_cdb_field(1, Some(4))), short.clone(), short]);
    for _ in 0..2 {
        let position = drive.position(&control()).unwrap();
        assert_eq!((position.object, position.buffered_objects), (9, 2));
    }
    assert_eq!(script.asked(), [0x34, 0x34, 0x34], "the long form is not tried again");
    let unknown = Answer::Good(PositionReport::default().encode(PositionForm::Short));
    script.then([unknown]);
    assert!(matches!(drive.position(&control()), Err(TapeError::PositionUnknown(_))));
}

#[test]
fn the_state_falls_back_to_what_the_drive_has() {
    let (mut drive, script) = drive(0);
    script.then([check(Sense::MEDIUM_NOT_PRESENT)]);
    assert_eq!(drive.state(&control()).unwrap().medium, None);
    script.then([check(Sense::INITIALIZING_COMMAND_REQUIRED)]);
    assert_eq!(drive.state(&control()).unwrap().medium, None);
    let mode = ModeParameters {
        medium_type: 0,
        device_specific: 0x90,
        block: Some(BlockDescriptor { density: 0x5e, blocks: 0, length: 512 }),
        pages: Vec::new(),
    };
    let mode = || Answer::Good(mode.encode(ModeForm::Ten));
    let parameters = vec![LogParameter::binary(1, 4, 700), LogParameter::binary(3, 4, 800)];
    let log = LogPage { code: log::page::TAPE_CAPACITY, parameters };
    let unsupported = || check(Sense::INVALID_OPERATION_CODE);
    script.then([good(), mode(), unsupported(), Answer::Good(log.encode(0))]);
    let state = drive.state(&control()).unwrap();
    let medium = state.medium.unwrap();
    assert_eq!((state.block_length, medium.write_protected), (512, true));
    assert_eq!((medium.capacity, medium.remaining), (Some(800 << 20), Some(700 << 20)));
    script.then([good(), mode(), unsupported(), check(Sense::bad_cdb_field(2, None))]);
    let medium = drive.state(&control()).unwrap().medium.unwrap();
    assert_eq!((medium.barcode, medium.capacity, medium.remaining), (None, None, None));
    script.then([check(Sense::POWER_ON_RESET)]);
    assert_eq!(drive.state(&control()), Err(TapeError::Check(Sense::POWER_ON_RESET)));
    script.asked();
}

#[test]
fn a_cdb_passes_through_as_it_is() {
    let (mut drive, script) = drive(5);
    let request = CdbRequest {
        cdb: vec![0xc0, 1, 2, 3, 4, 5],
        data_out: bytes::Bytes::new(),
        data_in_max: 8,
        timeout: Duration::from_secs(1),
    };
    script.then([Answer::Check(Sense::POWER_ON_RESET, vec![1, 2, 3]), at(5), good()]);
    let completion = drive.execute(&request, &control()).unwrap();
    assert_eq!((completion.status, completion.residual), (2, 5));
    assert_eq!(completion.data_in, [1, 2, 3]);
    assert_eq!(Sense::parse(&completion.sense), Some(Sense::POWER_ON_RESET));
    assert_eq!(script.0.lock().unwrap().1[0], request.cdb);
    // Where the tape stands after a foreign command is not assumed.
    drive.write(b"record", &control()).unwrap();
    assert_eq!(script.asked(), [0xc0, 0x34, 0x0a]);
    let long = CdbRequest { cdb: vec![0; 17], ..request };
    assert!(drive.execute(&long, &control()).is_err());
}

/// A changer of 2 slots and a drive whose inventory the script knows.
fn changer() -> (ScsiChanger<Script>, Script) {
    let script = Script::default();
    let inquiry = StandardInquiry::new(DeviceType::Changer, "TWINREEL", "LIB", "1");
    script.then([Answer::Good(inquiry.encode()), check(Sense::bad_cdb_field(2, None))]);
    let mut changer = ScsiChanger::open(script.clone(), &control()).unwrap();
    changer.set_poll(Duration::ZERO);
    script.asked();
    (changer, script)
}

fn descriptors(kind: ElementType, full: &[u16]) -> Vec<ElementDescriptor> {
    let map = ElementMap::with_counts(1, 2, 0);
    let (first, count) = map.range(kind);
    let element = |address| ElementDescriptor {
        address,
        kind,
        full: full.contains(&address),
        imported: false,
        accessible: kind != ElementType::Transport,
        exception: None,
        source: None,
        tag: full.contains(&address).then(|| "PTA001L8".to_owned()),
        identity: Some(Designator::t10("TWINREEL", "FILE", "D1", 10))
            .filter(|_| kind == ElementType::DataTransfer),
    };
    (first..first + count).map(element).collect()
}

/// The answers to an inventory; `separate` as a changer that can not report both at once.
fn inventory(full: &[u16], separate: bool) -> Vec<Answer> {
    let mode = ModeParameters {
        medium_type: 0,
        device_specific: 0,
        block: None,
        pages: vec![element_assignment(&ElementMap::with_counts(1, 2, 0))],
    };
    let mut answers = vec![
        check(Sense::MEDIUM_MAY_HAVE_CHANGED),
        check(Sense::INVALID_OPERATION_CODE),
        Answer::Good(mode.encode(ModeForm::Six)),
    ];
    let mut report = |kind, tags, identities| {
        let bytes = ElementReport::encode(&descriptors(kind, full), tags, identities);
        answers.push(Answer::Good(bytes));
    };
    report(ElementType::Transport, true, false);
    report(ElementType::Storage, true, false);
    if separate {
        report(ElementType::DataTransfer, true, false);
        report(ElementType::DataTransfer, false, true);
        answers.insert(5, check(Sense::bad_cdb_field(6, Some(0))));
    } else {
        report(ElementType::DataTransfer, true, true);
    }
    answers
}

#[test]
fn an_inventory_is_asked_for_type_by_type() {
    for separate in [false, true] {
        let (mut changer, script) = changer();
        script.then(inventory(&[1024], separate));
        let found = changer.inventory(&control()).unwrap();
        script.asked();
        let addresses: Vec<_> = found.elements.iter().map(|e| e.address).collect();
        assert_eq!(addresses, [16, 128, 1024, 1025]);
        assert_eq!(found.elements[2].barcode.as_ref().unwrap().as_str(), "PTA001L8");
        assert_eq!(found.elements[1].drive.as_ref().unwrap().serial, "D1");
        assert!(!found.elements[1].full && found.elements[1].barcode.is_none());
    }
}

#[test]
fn a_move_out_of_a_drive_unloads_first() {
    let (changer, script) = changer();
    let drive = Script::default();
    let mut changer = changer.with_drive(128, drive.clone());
    drive.then([check(Sense::MEDIUM_MAY_HAVE_CHANGED), good()]);
    script.then([good()]);
    changer.move_medium(128, 1024, &control()).unwrap();
    assert_eq!((drive.asked(), script.asked()), (vec![0x1b, 0x1b], vec![0xa5]));
    drive.then([check(Sense::MEDIUM_NOT_PRESENT)]);
    script.then([check(Sense::SOURCE_ELEMENT_EMPTY)]);
    let error = changer.move_medium(128, 1024, &control()).unwrap_err();
    assert_eq!(error, TapeError::Check(Sense::SOURCE_ELEMENT_EMPTY));
    drive.then([check(Sense::MEDIUM_REMOVAL_PREVENTED)]);
    let error = changer.move_medium(128, 1024, &control()).unwrap_err();
    assert_eq!(error, TapeError::Check(Sense::MEDIUM_REMOVAL_PREVENTED));
    script.then([good()]);
    changer.move_medium(1024, 128, &control()).unwrap();
    assert!(drive.asked().len() == 2, "a move into a drive does not unload it");
}

#[test]
fn a_lost_move_is_settled_by_the_inventory() {
    let (mut changer, script) = changer();
    let lost = |full: &[u16]| [vec![broken()], inventory(full, false)].concat();
    script.then(lost(&[1025]));
    changer.move_medium(1024, 1025, &control()).unwrap();
    assert_eq!(script.asked().iter().filter(|code| **code == 0xa5).count(), 1);
    script.then(lost(&[1024]).into_iter().chain([good()]));
    changer.move_medium(1024, 1025, &control()).unwrap();
    assert_eq!(script.asked().iter().filter(|code| **code == 0xa5).count(), 2);
    script.then(lost(&[16]));
    let error = changer.move_medium(1024, 1025, &control()).unwrap_err();
    assert!(matches!(error, TapeError::PositionUnknown(_)));
}

/// READ POSITION that says nothing (tgt): by the long form object 0 without being there, by the
/// short form that it does not know.
fn mute() -> [Answer; 2] {
    let long = PositionReport { object: Some(0), file: Some(0), ..Default::default() };
    let short = PositionReport::default();
    [Answer::Good(long.encode(PositionForm::Long)), Answer::Good(short.encode(PositionForm::Short))]
}

fn fresh_mute_drive() -> (ScsiDrive<Script>, Script) {
    let script = Script::default();
    let inquiry = StandardInquiry::new(DeviceType::Tape, "TGT", "ULT3580", "1");
    let serial = VitalPage::SerialNumber("S1".into()).encode(DeviceType::Tape);
    script.then([Answer::Good(inquiry.encode()), Answer::Good(serial)]);
    let mut drive = ScsiDrive::open(script.clone(), &control()).unwrap();
    drive.set_poll(Duration::ZERO);
    script.then(mute());
    (drive, script)
}

fn mute_drive() -> (ScsiDrive<Script>, Script) {
    let (mut drive, script) = fresh_mute_drive();
    // Where nobody can know where the tape stands it is rewound.
    script.then([good()]);
    assert_eq!(drive.position(&control()).unwrap().object, 0);
    assert_eq!(script.asked(), [0x12, 0x12, 0x34, 0x34, 0x01]);
    (drive, script)
}

#[test]
fn a_drive_without_positions_is_counted_for() {
    let (mut drive, script) = mute_drive();
    let [_, short] = mute();
    script.then([good(), good(), short.clone()]);
    drive.write(&[1; 9], &control()).unwrap();
    drive.write_filemarks(1, &control()).unwrap();
    assert_eq!(drive.position(&control()).unwrap().object, 2);
    assert_eq!(script.asked(), [0x0a, 0x10, 0x34]);
    // After a lost answer nobody knows.
    script.then([broken(), short.clone()]);
    let lost = drive.write(&[1; 9], &control());
    assert!(matches!(lost, Err(TapeError::PositionUnknown(_))), "{lost:?}");
    assert_eq!(script.asked(), [0x0a, 0x34]);
    script.then([short]);
    let unknown = drive.position(&control());
    assert!(matches!(unknown, Err(TapeError::PositionUnknown(_))), "{unknown:?}");
}

#[test]
fn what_was_counted_is_kept_for_the_next_user_of_the_same_tape() {
    let place = Place::default();
    let [_, short] = mute();
    let open = || {
        let (drive, script) = fresh_mute_drive();
        (drive.resuming(place.clone()), script)
    };
    let at = |drive: &mut ScsiDrive<Script>| drive.position(&control()).unwrap().object;
    let (mut first, script) = open();
    script.then([good(), good(), short.clone()]);
    assert_eq!(at(&mut first), 0);
    first.write(&[1; 9], &control()).unwrap();
    assert_eq!(at(&mut first), 1);
    drop(first);
    let (mut second, script) = open();
    assert_eq!(at(&mut second), 1);
    // Another tape, under the open drive: it is rewound, and counted anew.
    place.forget();
    script.then([short.clone(), good()]);
    assert_eq!(at(&mut second), 0);
    // What a user of the tape before has counted is nobody's any more.
    place.forget();
    drop(second);
    assert_eq!(place.look().1, None);
}

#[test]
fn filemarks_are_counted_by_reading_where_nobody_else_counts() {
    let (mut drive, script) = mute_drive();
    let [_, short] = mute();
    let longer = || check(Sense::INCORRECT_LENGTH.with_information(-99));
    let filemark = || check(Sense::FILEMARK_DETECTED);
    script.then([longer(), filemark(), longer(), longer(), filemark(), short.clone()]);
    let done = Spaced { residual: 0, stop: SpaceStop::Done };
    assert_eq!(drive.space(SpaceKind::Filemarks, 2, &control()), Ok(done));
    assert_eq!(drive.position(&control()).unwrap().object, 5);
    // Back over the one that was just read, whether the drive stops there or takes it for a record.
    for stop in [good(), check(Sense::FILEMARK_DETECTED.with_information(1))] {
        script.then([stop, short.clone(), filemark(), short.clone()]);
        assert_eq!(drive.space(SpaceKind::Filemarks, -1, &control()), Ok(done));
        assert_eq!(drive.position(&control()).unwrap().object, 4);
        assert_eq!(drive.read(&mut [0], &control()), Ok(ReadEnd::Filemark));
        assert_eq!(drive.position(&control()).unwrap().object, 5);
    }
    script.then([longer(), check(Sense::END_OF_DATA), short]);
    let end = Spaced { residual: 3, stop: SpaceStop::EndOfData };
    assert_eq!(drive.space(SpaceKind::Filemarks, 3, &control()), Ok(end));
    assert_eq!(drive.position(&control()).unwrap().object, 6);
    script.asked();
}

#[test]
fn without_locate_the_tape_is_walked() {
    let (mut drive, script) = mute_drive();
    let [_, short] = mute();
    let unsupported = check(Sense::INVALID_OPERATION_CODE);
    let filemark = check(Sense::FILEMARK_DETECTED.with_information(5));
    script.then([unsupported, good(), filemark, good(), short.clone()]);
    drive.locate(8, &control()).unwrap();
    assert_eq!(drive.position(&control()).unwrap().object, 8);
    assert_eq!(script.asked(), [0x2b, 0x01, 0x11, 0x11, 0x34]);
    // It is not tried again, and an object that is not there is the end of data.
    script.then([good(), check(Sense::END_OF_DATA.with_information(3))]);
    let beyond = drive.locate(9, &control());
    assert_eq!(beyond, Err(TapeError::Check(Sense::END_OF_DATA)));
    assert_eq!(script.asked(), [0x01, 0x11]);
}

/// A changer that counts its header into the bytes behind it leaves out the last eight.
#[test]
fn a_report_without_its_last_bytes_is_whole() {
    let script = Script::default();
    let inquiry = StandardInquiry::new(DeviceType::Changer, "TGT", "VTL", "1");
    let serial = VitalPage::SerialNumber("C1".into()).encode(DeviceType::Changer);
    script.then([Answer::Good(inquiry.encode()), Answer::Good(serial)]);
    let mut changer = ScsiChanger::open(script.clone(), &control()).unwrap();
    let map = ElementMap::from_ranges([(0, 0), (1000, 2), (0, 0), (0, 0)]);
    let page = ModeParameters { pages: vec![element_assignment(&map)], ..Default::default() };
    let element = |address: u16, tag: &str| ElementDescriptor {
        address,
        kind: ElementType::Storage,
        full: true,
        imported: false,
        accessible: true,
        exception: None,
        source: None,
        tag: Some(tag.into()),
        identity: None,
    };
    let elements = [element(1000, "TGT001L6"), element(1001, "TGT002L6")];
    let report = ElementReport::encode(&elements, true, false);
    let cut = report[..report.len() - 8].to_vec();
    script.then([Answer::Good(page.encode(ModeForm::Ten)), Answer::Good(cut)]);
    let inventory = changer.inventory(&control()).unwrap();
    let tags: Vec<_> = inventory.elements.iter().filter_map(|e| e.barcode.clone()).collect();
    assert_eq!(tags.iter().map(|tag| tag.as_str()).collect::<Vec<_>>(), ["TGT001L6", "TGT002L6"]);
    script.asked();
}
