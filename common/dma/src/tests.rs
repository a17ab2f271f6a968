//! The application against real sessions over TCP.

use bytes::Bytes;
use ndmp::testing::{ListDrive, Object};
use ndmp::wire::ErrorCode;
use std::sync::atomic::Ordering;

use crate::copy::{CopyObserver, CopyPlan, CopyReport, Part, Unattended, What, copy};
use crate::data::{ChangeTape, OneTape, backup, restore};
use crate::server::Server;
use crate::*;

const SOURCE: &str = "vl/drive0";
const TARGET: &str = "gl/drive0";

fn login() -> Login {
    Login::md5("ndmp", "ndmp")
}

fn client(server: &Server, version: Version, device: &str) -> Client {
    let mut client = Client::connect(server.address, Some(version), &login()).unwrap();
    client.open_tape(device, TapeOpenMode::Raw).unwrap();
    client.rewind().unwrap();
    client
}

fn block(seed: u8, length: usize) -> Object {
    Object::Record(vec![seed; length].into())
}

/// Files of records; an empty list is an empty file.
fn tape(files: &[&[usize]]) -> ListDrive {
    let mut drive = ListDrive::with_tape();
    let mut seed = 0u8;
    for file in files {
        for length in *file {
            seed = seed.wrapping_add(1);
            drive.objects.push(block(seed, *length));
        }
        drive.objects.push(Object::Mark);
    }
    drive
}

fn run(
    version: Version,
    source: ListDrive,
    target: ListDrive,
    plan: &CopyPlan,
    observer: &mut dyn CopyObserver,
) -> (Result<CopyReport, DmaError>, Vec<Object>) {
    let server = Server::start();
    server.drives.put(SOURCE, source);
    server.drives.put(TARGET, target);
    let mut from = client(&server, version, SOURCE);
    let mut to = client(&server, version, TARGET);
    let report = copy(&mut from, &mut to, plan, observer);
    let closed = to.close_tape().is_ok();
    assert!(closed || report.is_err());
    (report, server.drives.take(TARGET).objects)
}

#[test]
fn connecting_says_whose_fault_it_is() {
    let server = Server::start();
    for version in Version::ALL {
        for login in [login(), Login::text("ndmp", "ndmp")] {
            let client = Client::connect(server.address, Some(version), &login).unwrap();
            assert_eq!(client.version(), version);
            client.close();
        }
    }
    let client = Client::connect(server.address, None, &login()).unwrap();
    assert_eq!(client.version(), Version::V4);
    let wrong = Client::connect(server.address, None, &Login::md5("ndmp", "hunter2"));
    let error = wrong.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NotAuthorized));
    assert!(!format!("{:?}", Login::md5("ndmp", "hunter2")).contains("hunter2"));
    let nobody = Client::connect("127.0.0.1:1", None, &login());
    assert!(matches!(nobody, Err(DmaError::Connect { .. })));
    let long = Client::connect(server.address, None, &Login::md5("ndmp", "x".repeat(33)));
    assert!(matches!(long, Err(DmaError::Invalid(_))));
}

#[test]
fn blocks_and_marks_read_alike_in_every_version() {
    for version in Version::ALL {
        let server = Server::start();
        server.drives.put(SOURCE, ListDrive::with_tape());
        let mut tape = client(&server, version, SOURCE);
        let data = Bytes::from_static(b"one");
        assert_eq!(tape.write_block(data.clone()).unwrap(), Wrote::Done);
        tape.write_filemarks(2).unwrap();
        assert_eq!(tape.write_block(data.clone()).unwrap(), Wrote::Done);
        tape.write_filemarks(1).unwrap();
        tape.rewind().unwrap();
        let one = TapeObject::Block(data);
        let expected =
            [one.clone(), TapeObject::Filemark, TapeObject::Filemark, one, TapeObject::Filemark];
        assert_eq!(tape.read_all(100).unwrap(), expected, "{version}");
        assert_eq!(tape.tape_state().unwrap().file_num, 3);
        assert!(tape.skip_filemarks(1).is_err());
    }
}

#[test]
fn a_changer_through_cdbs() {
    let server = Server::start();
    let mut robot = Client::connect(server.address, None, &login()).unwrap();
    robot.open_scsi("vl/changer").unwrap();
    let elements = robot.inventory().unwrap();
    assert_eq!(elements.len(), 1);
    assert_eq!(robot.find_cartridge("VTA001L8").unwrap().address, 1024);
    assert!(robot.find_cartridge("VTA002L8").is_err());
    let error = robot.move_medium(1024, 128).unwrap_err();
    assert!(matches!(error, DmaError::Scsi { command: 0xa5, status: 2, .. }), "{error}");
    robot.close_scsi().unwrap();
    let error = robot.open_tape("vl/drive7", TapeOpenMode::Read).unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NoDevice));
    assert_eq!(error.to_string(), "vl/drive7 can not be opened: the server has no such device");
}

#[test]
fn whole_tapes_are_copied_record_for_record() {
    let files: &[&[usize]] =
        &[&[32], &[512; 9], &[], &[], &[32, 1024, 1024, 1024], &[65536; 40], &[512]];
    for version in [Version::V3, Version::V4] {
        for headers in [0, 1] {
            let plan = CopyPlan { what: What::Everything { headers }, ..CopyPlan::default() };
            let mut files = files.to_vec();
            if headers == 0 {
                // one record length in each file: that of its first record
                files.remove(4);
            }
            let source = tape(&files);
            let expected = source.objects.clone();
            let (report, copied) =
                run(version, source, ListDrive::with_tape(), &plan, &mut Unattended);
            let report = report.unwrap();
            assert_eq!(report.parts.len(), files.len());
            assert_eq!(report.filemarks, files.len() as u64);
            assert!(copied == expected, "{version} {headers} headers");
        }
    }
}

#[test]
fn mixed_records_are_copied_one_by_one() {
    for version in Version::ALL {
        let source = tape(&[&[512, 1, 65536, 3], &[], &[7]]);
        let expected = source.objects.clone();
        let plan = CopyPlan { what: What::RecordByRecord, ..CopyPlan::default() };
        let (report, copied) = run(version, source, ListDrive::with_tape(), &plan, &mut Unattended);
        assert_eq!(report.unwrap().records, 5);
        assert_eq!(copied, expected);
    }
}

#[test]
fn parts_of_known_length_share_one_connection() {
    for version in [Version::V3, Version::V4] {
        for window in [None, Some(2048), Some(512)] {
            let files: &[&[usize]] = &[&[100], &[30, 512, 512, 512], &[30], &[30, 512], &[1024; 3]];
            let part = |headers, length| Part { headers, length: Some(length) };
            let parts = vec![
                part(1, 0),
                part(1, 3 * 512),
                part(1, 0),
                part(1, 512),
                Part { headers: 0, length: None },
            ];
            let source = tape(files);
            let expected = source.objects.clone();
            let plan = CopyPlan {
                what: What::Parts(parts),
                record_size: Some(512),
                window,
                ..CopyPlan::default()
            };
            let (report, copied) =
                run(version, source, ListDrive::with_tape(), &plan, &mut Unattended);
            let report = report.unwrap();
            assert_eq!(report.parts, [0, 1536, 0, 512, 3 * 512], "cut to the record size");
            assert_eq!(copied[..copied.len() - 4], expected[..expected.len() - 4]);
        }
    }
}

#[test]
fn records_may_be_of_another_length_on_the_target() {
    let source = tape(&[&[1000; 5]]);
    let plan = CopyPlan { target_record_size: Some(1500), ..CopyPlan::default() };
    let target = ListDrive::with_tape();
    let (report, copied) = run(Version::V4, source, target, &plan, &mut Unattended);
    assert_eq!(report.unwrap().parts, [5000]);
    let bytes: Vec<u8> = copied
        .iter()
        .flat_map(|object| match object {
            Object::Record(data) => {
                assert_eq!(data.len(), 1500);
                data.to_vec()
            }
            Object::Mark => vec![],
        })
        .collect();
    assert_eq!(bytes.len(), 6000, "padded");
    assert!(bytes[..1000].iter().all(|byte| *byte == 1));
    assert!(bytes[5000..].iter().all(|byte| *byte == 0));
    assert_eq!(copied.last(), Some(&Object::Mark));
}

/// Puts an empty tape in, with a label, each time one is full.
struct Stack<'a> {
    server: &'a Server,
    full: Vec<Vec<Object>>,
    left: u32,
}

impl Stack<'_> {
    fn next(&mut self, target: &mut Client, position: u64) -> Result<(), DmaError> {
        if self.left == 0 {
            return Err(DmaError::EndOfMedium { position });
        }
        self.left -= 1;
        target.close_tape()?;
        let mut drive = self.server.drives.take(TARGET);
        self.full.push(std::mem::take(&mut drive.objects));
        drive.at = 0;
        self.server.drives.put(TARGET, drive);
        target.open_tape(TARGET, TapeOpenMode::Raw)?;
        target.rewind()?;
        target.write_block(Bytes::from_static(b"label"))?;
        target.write_filemarks(1)
    }
}

impl CopyObserver for Stack<'_> {
    fn change_tape(&mut self, target: &mut Client, position: u64) -> Result<(), DmaError> {
        self.next(target, position)
    }
}

impl ChangeTape for Stack<'_> {
    fn change(&mut self, client: &mut Client, position: u64) -> Result<bool, DmaError> {
        self.next(client, position).map(|()| true)
    }
}

fn spanning(
    version: Version,
    parts: What,
    tapes: u32,
) -> (Result<CopyReport, DmaError>, Vec<Object>) {
    let server = Server::start();
    let mut target = ListDrive::with_tape();
    target.warning = Some((5 * 512, 9 * 512));
    server.drives.put(SOURCE, tape(&[&[512; 9], &[512; 9]]));
    server.drives.put(TARGET, target);
    let mut from = client(&server, version, SOURCE);
    let mut to = client(&server, version, TARGET);
    let plan = CopyPlan { what: parts, record_size: Some(512), ..CopyPlan::default() };
    let mut stack = Stack { server: &server, full: Vec::new(), left: tapes };
    let report = copy(&mut from, &mut to, &plan, &mut stack);
    let mut all = std::mem::take(&mut stack.full);
    all.push(server.drives.take(TARGET).objects);
    let records = all.into_iter().flatten();
    let data = |object: &Object| matches!(object, Object::Record(data) if data.len() == 512);
    (report, records.filter(data).collect())
}

#[test]
fn a_copy_goes_on_with_the_next_tape() {
    let known = || What::Parts(vec![Part { headers: 0, length: Some(9 * 512) }; 2]);
    for version in [Version::V3, Version::V4] {
        for what in [known(), What::Everything { headers: 0 }] {
            let (report, records) = spanning(version, what, 9);
            let report = report.unwrap();
            assert!(report.tape_changes >= 2, "{}", report.tape_changes);
            assert_eq!(report.tapes.len() as u32, report.tape_changes + 1);
            assert_eq!(report.tapes.iter().sum::<u64>(), 18 * 512);
            assert!(report.tapes.iter().all(|bytes| *bytes > 0), "{:?}", report.tapes);
            let expected: Vec<Object> = (1..=18).map(|seed| block(seed, 512)).collect();
            assert!(records == expected, "{version}: not one record lost or doubled");
        }
        let (report, _) = spanning(version, known(), 1);
        assert!(matches!(report, Err(DmaError::EndOfMedium { .. })), "{report:?}");
    }
}

#[test]
fn a_source_that_fails_before_its_first_byte_is_told_at_once() {
    for version in [Version::V3, Version::V4] {
        let server = Server::start();
        server.worn.store(true, Ordering::Relaxed);
        server.drives.put(SOURCE, tape(&[&[512]]));
        server.drives.put(TARGET, ListDrive::with_tape());
        let mut from = client(&server, version, SOURCE);
        let mut to = client(&server, version, TARGET);
        // Nothing ever comes to the target, whose news must not be waited for.
        let copied = copy(&mut from, &mut to, &CopyPlan::default(), &mut Unattended);
        match copied {
            Err(DmaError::Halted { .. }) if version == Version::V4 => {}
            Err(DmaError::Paused { side: "source", position: 0, .. }) => {}
            other => panic!("{version}: {other:?}"),
        }
    }
}

#[test]
fn plans_that_make_no_sense_are_refused() {
    let plans = [
        CopyPlan { record_size: Some(0), ..CopyPlan::default() },
        CopyPlan { window: Some(512), ..CopyPlan::default() },
        CopyPlan { window: Some(100), record_size: Some(512), ..CopyPlan::default() },
        CopyPlan { window: Some(0), record_size: Some(512), ..CopyPlan::default() },
    ];
    for plan in plans {
        let target = ListDrive::with_tape();
        let (report, _) = run(Version::V4, tape(&[]), target, &plan, &mut Unattended);
        assert!(matches!(report, Err(DmaError::Invalid(_))));
    }
    let target = ListDrive::with_tape();
    let plan = CopyPlan::default();
    let (report, _) = run(Version::V2, tape(&[&[1]]), target, &plan, &mut Unattended);
    assert!(matches!(report, Err(DmaError::NotInVersion(..))));
    let parts = What::Parts(vec![Part { headers: 0, length: Some(1024) }]);
    let plan = CopyPlan { what: parts, record_size: Some(512), ..CopyPlan::default() };
    let short = tape(&[&[512]]);
    let (report, _) = run(Version::V4, short, ListDrive::with_tape(), &plan, &mut Unattended);
    assert!(matches!(report, Err(DmaError::Incomplete { expected: 1024, moved: 512 })));
}

#[test]
fn streams_go_to_tape_and_back() {
    for version in Version::ALL {
        let server = Server::start();
        let mut drive = ListDrive::with_tape();
        drive.warning = Some((30_000, 40_000));
        server.drives.put(TARGET, drive);
        let mut tape = client(&server, version, TARGET);
        let input: Vec<u8> = (0..100_001u32).map(|at| (at % 251) as u8).collect();
        let mut stack = Stack { server: &server, full: Vec::new(), left: 9 };
        let sent = backup(&mut tape, 1000, &mut input.as_slice(), &mut stack).unwrap();
        assert_eq!(sent, input.len() as u64);
        tape.write_filemarks(1).unwrap();
        assert!(!stack.full.is_empty());
        let mut tapes = std::mem::take(&mut stack.full);
        tapes.push(server.drives.lock()[TARGET].objects.clone());
        let mut whole = ListDrive::with_tape();
        whole.objects = tapes
            .into_iter()
            .flatten()
            .filter(|object| matches!(object, Object::Record(data) if data.len() == 1000))
            .chain([Object::Mark])
            .collect();
        server.drives.put(TARGET, whole);
        for length in [None, Some(input.len() as u64)] {
            tape.rewind().unwrap();
            let mut output = Vec::new();
            let got = restore(&mut tape, 1000, length, &mut output, &mut OneTape).unwrap();
            assert_eq!(got, output.len() as u64);
            assert_eq!(output[..input.len()], input[..]);
            assert!(output[input.len()..].iter().all(|byte| *byte == 0));
            assert_eq!(output.len(), length.map_or(101_000, |length| length as usize));
        }
    }
}

#[test]
fn a_greeting_tells_version_and_time_and_logs_nobody_in() {
    let server = Server::start();
    for version in Version::ALL {
        let mut client = Client::greet(server.address, Some(version)).unwrap();
        assert_eq!((client.version(), client.offered()), (version, 4));
        assert_eq!(client.server_address().unwrap(), server.address);
        let time = client.server_time().expect("a time stamp");
        assert!(time.read.elapsed().is_ok());
        let refused = client.open_tape(SOURCE, TapeOpenMode::Read).unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::NotAuthorized));
        let wrong = client.log_in(&Login::md5("ndmp", "wrong")).unwrap_err();
        assert!(matches!(wrong, DmaError::NotAuthorized), "{wrong}");
        client.log_in(&login()).unwrap();
    }
}
