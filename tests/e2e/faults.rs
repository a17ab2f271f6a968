//! Broken media, broken drives and a broken link: what the application is told is what happened.

use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use dma::{Client, DmaError, Wrote};
use ndmp::wire::{ErrorCode, HaltReason, MessageCode, ReplyBody};
use scsi::Sense;
use svs::{CopyPath, JobState};
use tests::{Direction, Object, Rng, Role, full, read_tape, seed};

use crate::scene::{Copying, RECORD, Scene, TAPES, TARGET, first};

#[test]
fn a_write_error_in_the_middle_halts_the_mover_and_fails_the_copy() {
    let mut rng = Rng::new(seed("faults")).fork("write-error");
    let scene = Scene::with_backup("write-error", &mut rng, 256, true);
    let bad = rng.between(20, 230);
    scene.faults(&format!("drive0 write {bad} sense 03/0c/00"));
    let error = scene.begin_copy().outcome().expect_err("a write fails");
    let halted =
        matches!(error, DmaError::Halted { side: "target", reason: HaltReason::MediaError, .. });
    assert!(halted, "{error}");
    let job = scene.wait_copy(JobState::Failed);
    let written = bad - 1;
    assert_eq!(job.bytes, written * RECORD as u64, "{job:#?}");
    assert!(job.message.as_deref().is_some_and(|text| text.contains("03/0c/00")), "{job:#?}");
    scene.at_rest();
    let there = scene.copy_job(Role::Remote);
    assert!(there.state == JobState::Failed, "{there:#?}");
    assert!(there.message.as_deref().is_some_and(|text| text.contains("03/0c/00")), "{there:#?}");
    scene.unload_ghost();
    assert_eq!(scene.is_prefix(TAPES[0]) as u64, written);
    scene.works_again();
}

/// Sets the header field `write_protected` of a cartridge file, by what
/// `docs/formats/file-library.md` says.
fn protect(file: &Path) {
    const SLOT: usize = 65_536;
    let bytes = std::fs::read(file).expect("the cartridge file");
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    // Slot 0 has an even sequence number if it was written, slot 1 an odd one.
    let written = |slot: &usize| bytes[*slot..].starts_with(b"TWRLTAPE");
    let newest = [0, SLOT].into_iter().filter(written).max_by_key(|slot| number(slot + 16));
    let newest = newest.expect("a header");
    let length = u32::from_le_bytes(bytes[newest + 12..newest + 16].try_into().unwrap()) as usize;
    let body = String::from_utf8(bytes[newest + 32..newest + 32 + length].to_vec()).unwrap();
    let body = body.replace("\"write_protected\":false", "\"write_protected\":true");
    let mut slot = bytes[newest..newest + 12].to_vec();
    slot.extend((body.len() as u32).to_le_bytes());
    let sequence = number(newest + 16) + 1;
    slot.extend(sequence.to_le_bytes());
    let sum = crc32c(&[&slot, body.as_bytes()].concat());
    slot.extend(sum.to_le_bytes());
    slot.extend([0; 4]);
    slot.extend(body.as_bytes());
    let at = if sequence % 2 == 0 { 0 } else { SLOT as u64 };
    let file = std::fs::File::options().write(true).open(file).expect("the cartridge file");
    file.write_all_at(&slot, at).expect("the header is written");
}

fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[test]
fn a_write_protected_ghost_tape_is_told_as_such_and_stays_as_it_is() {
    let mut rng = Rng::new(seed("faults")).fork("write-protect");
    let scene = Scene::with_backup("write-protect", &mut rng, 64, true);
    scene.unload_ghost();
    protect(&scene.tape_file(TAPES[0]));
    scene.operator.load("dr-ptl0", TAPES[0], 0);
    let mut tape = scene.operator.dial();
    let refused = tape.open_tape(TARGET, dma::TapeOpenMode::ReadWrite);
    let code = refused.expect_err("the tape is protected").code();
    assert_eq!(code, Some(ErrorCode::WriteProtect));
    scene.begin_copy().outcome().expect_err("the tape is protected");
    let job = scene.wait_copy(JobState::Failed);
    assert_eq!(job.bytes, 0, "{job:#?}");
    assert!(job.message.as_deref().is_some_and(|text| text.contains("07/27/00")), "{job:#?}");
    scene.at_rest();
    scene.unload_ghost();
    assert_eq!(read_tape(&scene.pair.ghost_files(), TAPES[0]), []);
}

/// A copy whose drive is slow from a random record on, up to the moment when it writes that one.
fn slow_copy(scene: &Scene, rng: &mut Rng, records: u64, milliseconds: u64) -> (Copying, u64) {
    let slow = rng.between(5, records / 3);
    scene.faults(&format!("drive0 write {slow}.. delay {milliseconds}"));
    let mark = scene.pair.remote.log().mark();
    let copying = scene.begin_copy();
    scene.wait_fault(mark, &format!("write {slow}"));
    (copying, slow)
}

#[test]
fn a_copy_outlives_a_link_that_is_down_for_a_moment() {
    let mut rng = Rng::new(seed("faults")).fork("short-cut");
    let scene = Scene::with_backup("short-cut", &mut rng, 200, true);
    let (copying, slow) = slow_copy(&scene, &mut rng, 200, 10);
    let (here, there) = (scene.pair.local.log().mark(), scene.pair.remote.log().mark());
    scene.pair.relay.part();
    scene.pair.local.wait_line_from(here, "link down");
    // It is written on while nobody hears of it.
    scene.wait_fault(there, &format!("write {}", slow + 60));
    scene.pair.relay.join();
    let report = copying.outcome().expect("the copy goes on");
    assert_eq!(report.bytes(), 200 * RECORD as u64);
    let job = scene.copy_job(Role::Local);
    assert_eq!((job.state, job.path), (JobState::Done, Some(CopyPath::Offloaded)), "{job:#?}");
    scene.at_rest();
    scene.unload_ghost();
    assert!(read_tape(&scene.pair.ghost_files(), TAPES[0]) == scene.objects);
    scene.works_again();
}

#[test]
fn a_copy_ends_with_a_lease_that_nobody_renewed() {
    let mut rng = Rng::new(seed("faults")).fork("long-cut");
    let scene = Scene::new("long-cut", |local, remote| {
        first(local, "link").insert("lease_seconds".into(), 5.into());
        let link = remote["link"].as_table_mut().expect("a table");
        link.insert("lease_seconds".into(), 5.into());
    });
    let scene = scene.backed_up(&mut rng, 200, true);
    let (copying, slow) = slow_copy(&scene, &mut rng, 200, 500);
    let (here, there) = (scene.pair.local.log().mark(), scene.pair.remote.log().mark());
    scene.pair.relay.part();
    scene.pair.local.wait_line_from(here, "link down");
    // The remote frees the drive by itself, and the DMA is told without it.
    scene.pair.remote.wait_line_from(there, "TWR-5005-W");
    let error = copying.outcome().expect_err("the lease is over");
    assert!(matches!(error, DmaError::Halted { side: "target", .. }), "{error}");
    scene.wait_copy(JobState::Failed);
    scene.pair.relay.join();
    scene.at_rest();
    let there = scene.copy_row(Role::Remote);
    assert_eq!(there.state, JobState::Failed, "{there:#?}");
    scene.unload_ghost();
    let on_tape = scene.is_prefix(TAPES[0]) as u64;
    assert!(on_tape >= slow - 1, "{on_tape} of {slow}");
    for role in [Role::Local, Role::Remote] {
        let row = scene.copy_row(role);
        assert_eq!(row.flushed_bytes, Some(on_tape * RECORD as u64), "{role:?} {row:#?}");
    }
    scene.works_again();
}

/// What TEST UNIT READY on an open device answers; a drive without a cartridge is ready enough.
fn ready(client: &mut Client) -> String {
    let cdb = scsi::Cdb::TestUnitReady.encode();
    let result = client.execute_cdb(&cdb, Bytes::new(), 0).expect("an answer of the device");
    match Sense::parse(&result.sense) {
        _ if result.status == 0 => "ready".to_owned(),
        Some(sense) if (sense.key, sense.asc) == (0x02, 0x3a) => "ready".to_owned(),
        Some(sense) => format!("{:02x}/{:02x}/{:02x}", sense.key, sense.asc, sense.ascq),
        None => panic!("status {:02x} without sense data", result.status),
    }
}

fn wait_ready(client: &mut Client) {
    tests::wait::until("the device is back", || (ready(client) == "ready").then_some(()));
}

/// A session with a changer or a drive open for CDBs.
fn device(scene: &Scene, name: &str) -> Client {
    let mut client = scene.operator.dial();
    client.open_scsi(name).expect("the device opens");
    client
}

/// The ghost devices that a DMA is told of.
fn ghosts(scene: &Scene) -> Vec<String> {
    let mut client = scene.operator.dial();
    let mut names = Vec::new();
    for code in [MessageCode::ConfigGetScsiInfo, MessageCode::ConfigGetTapeInfo] {
        let ReplyBody::Devices(models) = client.ask_bare(code).expect("a list") else {
            panic!("not a list of devices");
        };
        let all = models.into_iter().flat_map(|model| model.devices).map(|found| found.device);
        names.extend(all.filter(|name| name.starts_with("dr-")));
    }
    names.sort();
    names
}

fn tags(changer: &mut Client) -> Vec<(u16, String)> {
    let elements = changer.inventory().expect("an inventory");
    elements.into_iter().filter_map(|e| Some((e.address, e.tag?))).collect()
}

/// Listed, with its inventory, and not ready: what a library is whose site can not be reached.
fn is_listed_and_not_ready(scene: &Scene, inventory: &[(u16, String)]) {
    assert_eq!(ghosts(scene), ["dr-ptl0/changer", "dr-ptl0/drive0", "dr-ptl0/drive1"]);
    let mut changer = device(scene, "dr-ptl0/changer");
    assert_eq!(changer.inquiry().expect("an answer").product, "EMBEDDED-LIBRARY");
    assert_eq!(tags(&mut changer), inventory);
    assert_eq!(ready(&mut changer), "02/04/00");
    let moved = changer.move_medium(inventory[0].0, 129).expect_err("nobody can move it");
    assert!(moved.to_string().contains("02/04/00"), "{moved}");
    let mut drive = device(scene, "dr-ptl0/drive1");
    assert_eq!(drive.inquiry().expect("an answer").product, "EMBEDDED-DRIVE");
    assert_eq!(ready(&mut drive), "02/04/00");
    drive.close_scsi().expect("it closes");
    if drive.open_tape("dr-ptl0/drive1", dma::TapeOpenMode::Raw).is_ok() {
        let error = drive.rewind().expect_err("there is no drive to rewind");
        assert!(error.code().is_some(), "{error}");
    }
}

#[test]
fn a_ghost_library_without_its_link_is_listed_and_not_ready() {
    let scene = Scene::new("no-link", |_, _| {});
    let mut changer = device(&scene, "dr-ptl0/changer");
    let mut drive = device(&scene, "dr-ptl0/drive0");
    wait_ready(&mut changer);
    wait_ready(&mut drive);
    let inventory = tags(&mut changer);
    assert_eq!(inventory.len(), 6);
    for open in [true, false] {
        let mark = scene.pair.local.log().mark();
        scene.pair.relay.part();
        scene.pair.local.wait_line_from(mark, "link down");
        if open {
            // Sessions that have the devices open see it as new ones do.
            assert_eq!(tags(&mut changer), inventory);
            assert_eq!(ready(&mut changer), "02/04/00");
            assert_eq!(ready(&mut drive), "02/04/00");
        } else {
            is_listed_and_not_ready(&scene, &inventory);
        }
        scene.pair.relay.join();
        if open {
            wait_ready(&mut changer);
            wait_ready(&mut drive);
            changer.close_scsi().expect("it closes");
            drive.close_scsi().expect("it closes");
        }
    }
    scene.operator.wait_for("dr-ptl0");
    scene.operator.load("dr-ptl0", TAPES[0], 1);
}

#[test]
fn a_restart_of_the_remote_is_a_power_on_of_its_devices() {
    let mut scene = Scene::new("power-on", |_, _| {});
    let mut changer = device(&scene, "dr-ptl0/changer");
    let mut drive = device(&scene, "dr-ptl0/drive0");
    wait_ready(&mut changer);
    wait_ready(&mut drive);
    let mark = scene.pair.local.log().mark();
    scene.pair.remote.kill();
    scene.pair.local.wait_line_from(mark, "link down");
    assert_eq!(ready(&mut drive), "02/04/00");
    scene.pair.remote.run();
    scene.pair.local.wait_line_from(mark, "link up");
    for client in [&mut changer, &mut drive] {
        let told = tests::wait::until("the device is back", || {
            Some(ready(client)).filter(|told| told != "02/04/00")
        });
        assert_eq!(told, "06/29/00");
        // The engine here tells of it, and the drive itself may do so once more.
        let next = [ready(client), ready(client)];
        assert!(next[0] == "06/29/00" || next[0] == "ready", "{next:?}");
        assert_eq!(next[1], "ready");
    }
}

#[test]
fn a_ghost_library_is_listed_though_its_site_was_not_reached_since_the_start() {
    let mut scene = Scene::new("not-reached", |_, _| {});
    let inventory = tags(&mut device(&scene, "dr-ptl0/changer"));
    scene.pair.remote.kill();
    scene.pair.local.kill_and_run();
    is_listed_and_not_ready(&scene, &inventory);
    scene.pair.remote.run();
    scene.operator.wait_for("dr-ptl0");
    scene.operator.load("dr-ptl0", TAPES[0], 1);
}

#[test]
fn a_copy_within_this_site_does_not_see_the_link_go() {
    let mut rng = Rng::new(seed("faults")).fork("local");
    let scene = Scene::new("local-cut", |local, _| {
        let library = "name = \"ptl1\"\nbackend = \"file\"\npath = \"ptl1\"\ndrives = 1\n\
                       slots = 8\ncapacity = \"1GiB\"\n\
                       cartridges = { prefix = \"PTB\", count = 2 }";
        let library: toml::Table = library.parse().expect("a table");
        local.insert("physical_library".into(), vec![toml::Value::Table(library)].into());
    });
    let scene = scene.backed_up(&mut rng, 200, false);
    let files = scene.pair.directory().join("ptl1");
    scene.operator.load("ptl1", "PTB001L8", 0);
    let slow = rng.between(20, 100);
    std::fs::write(files.join("faults"), format!("drive0 write {slow}.. delay 5\n")).unwrap();
    let mark = scene.pair.local.log().mark();
    let copying = Copying::begin(&scene.operator, "ptl1/drive0");
    scene.pair.local.wait_line_from(mark, &format!("fault: write {slow} "));
    scene.pair.relay.part();
    scene.pair.local.wait_line_from(mark, "link down");
    copying.outcome().expect("the copy succeeds");
    let job = scene.copy_job(Role::Local);
    assert_eq!((job.state, job.path), (JobState::Done, Some(CopyPath::Moved)), "{job:#?}");
    // And another one that begins without a link.
    Copying::begin(&scene.operator, "ptl1/drive0").outcome().expect("the copy succeeds");
    scene.operator.unload("ptl1", 0);
    assert!(read_tape(&files, "PTB001L8") == scene.objects);
    scene.pair.relay.join();
}

#[test]
fn a_record_is_written_once_whenever_the_link_is_cut() {
    let mut rng = Rng::new(seed("faults")).fork("once");
    let scene = Scene::new("once", |_, _| {});
    scene.operator.load("dr-ptl0", TAPES[0], 0);
    let mut tape = scene.operator.tape(TARGET);
    tape.rewind().expect("the tape rewinds");
    let (mark, mut objects) = (scene.pair.local.log().mark(), Vec::new());
    for _ in 0..full(16, 80) {
        let length = rng.between(1, 3000);
        let record = rng.bytes(length as usize);
        let (direction, within) =
            *rng.pick(&[(Direction::Up, length + 100), (Direction::Down, 150)]);
        scene.pair.relay.at(direction, rng.between(1, within), scene.pair.relay.scissors());
        objects.push(Object::record(&record));
        let wrote = tape.write_block(record.into()).expect("the record is written");
        assert_eq!(wrote, Wrote::Done);
        if rng.chance(1, 5) {
            scene.pair.relay.at(Direction::Down, rng.between(1, 150), scene.pair.relay.scissors());
            tape.write_filemarks(1).expect("the filemark is written");
            objects.push(Object::Filemark);
        }
    }
    tape.close_tape().expect("the drive closes");
    let cuts = scene.pair.local.log().since(mark).iter().filter(|l| l.contains("link up")).count();
    assert!(cuts >= 8, "the link was cut only {cuts} times");
    scene.unload_ghost();
    if objects.last() != Some(&Object::Filemark) {
        objects.push(Object::Filemark);
    }
    assert_eq!(read_tape(&scene.pair.ghost_files(), TAPES[0]), objects);
}
