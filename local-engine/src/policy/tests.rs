//! The maps at work within one engine: tapes of its virtual library, written and moved by hand.

use std::path::Path;
use std::sync::Arc;

use model::{Barcode, LibraryName};
use serde_json::{Value, json};
use service::admin::AdminFault;
use svs::{CopyEntry, JobFilter, MapStatus, MediumRef};
use tape::{Control, ReadEnd, SpaceKind};

use super::{admin, names};
use crate::copies::TapeAt;
use crate::device::{Device, Opener};
use crate::engine::Engine;
use crate::testing::{PATIENCE, open_engine, until};

fn control() -> Control {
    Control::within(PATIENCE)
}

fn vtl0() -> LibraryName {
    LibraryName::new("vtl0").unwrap()
}

fn opener() -> Opener {
    Opener { nexus: 77, who: "a test".into() }
}

fn medium(engine: &Engine, barcode: &str) -> MediumRef {
    let tape = TapeAt { library: vtl0(), barcode: Barcode::new(barcode).unwrap() };
    names::medium(engine, &tape).unwrap()
}

/// Moves a tape between its slot and drive 0.
fn carry(engine: &Engine, barcode: &str, to_drive: bool) {
    let (_, view) = names::by_name(engine, &vtl0()).unwrap();
    let from = names::element(&view, &Barcode::new(barcode).unwrap()).unwrap();
    let all = &view.inventory.elements;
    let drive = all.iter().find(|e| e.kind == model::ElementType::DataTransfer).unwrap().address;
    let to = if to_drive { drive } else { from.source.unwrap() };
    let opened = engine.ground.registry.open_scsi("vtl0/changer", &opener(), &control());
    let (_claim, Device::Changer(mut changer)) = opened.unwrap() else { panic!("no changer") };
    changer.move_medium(from.address, to, &control()).unwrap();
}

/// Mounts a tape, writes records of these bytes and a filemark behind `object` objects, and
/// dismounts it.
fn write(engine: &Engine, barcode: &str, object: u64, bytes: &[u8]) {
    carry(engine, barcode, true);
    write_mounted(engine, object, bytes);
    carry(engine, barcode, false);
}

fn write_mounted(engine: &Engine, object: u64, bytes: &[u8]) {
    let opened = engine.ground.registry.open_tape("vtl0/drive0", &opener(), &control());
    let (_claim, mut drive) = opened.unwrap();
    // A unit attention for what was mounted.
    let _ = drive.state(&control());
    drive.locate(object, &control()).unwrap();
    for byte in bytes {
        drive.write(&[*byte; 1000], &control()).unwrap();
    }
    drive.write_filemarks(1, &control()).unwrap();
}

/// First bytes of the records of a tape, 0 for a filemark.
fn read(engine: &Engine, barcode: &str) -> Vec<u8> {
    carry(engine, barcode, true);
    let opened = engine.ground.registry.open_tape("vtl0/drive0", &opener(), &control());
    let (claim, mut drive) = opened.unwrap();
    let _ = drive.state(&control());
    let (mut buffer, mut found) = (vec![0; 2000], Vec::new());
    loop {
        match drive.read(&mut buffer, &control()).unwrap() {
            ReadEnd::Record { .. } => found.push(buffer[0]),
            ReadEnd::Filemark => found.push(0),
            ReadEnd::EndOfData => break,
        }
    }
    drop((claim, drive));
    carry(engine, barcode, false);
    found
}

fn call(engine: &Arc<Engine>, method: &str, params: Value) -> Result<Value, AdminFault> {
    admin::call(engine, method, params)
}

fn enter(engine: &Arc<Engine>, source: &str, target: &str, policy: &str) {
    let params = json!({
        "source": format!("vtl0:{source}"), "target": format!("vtl0:{target}"), "policy": policy,
        "verify": "readback",
    });
    call(engine, "copy_set", params).unwrap();
}

fn entry(engine: &Engine, source: &str, target: &str) -> CopyEntry {
    let (source, target) = (medium(engine, source), medium(engine, target));
    engine.ground.catalogue.copy_entry(&source, &target).unwrap().unwrap()
}

fn wait_done(engine: &Engine, source: &str, target: &str) {
    until("the copy is done", || {
        let entry = entry(engine, source, target);
        assert_ne!(entry.status, MapStatus::Failed, "{entry:?}");
        (entry.status == MapStatus::Done).then_some(())
    });
}

fn copies(engine: &Engine) -> Vec<svs::JobStatus> {
    engine.ground.catalogue.jobs(&JobFilter::default()).unwrap()
}

fn engine(dir: &Path) -> Arc<Engine> {
    open_engine(dir)
}

#[test]
fn a_dismounted_tape_is_copied_and_only_once() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    enter(&engine, "VTA001L8", "VTA002L8", "always");
    assert_eq!(entry(&engine, "VTA001L8", "VTA002L8").status, MapStatus::Pending);
    write(&engine, "VTA001L8", 0, b"abc");
    wait_done(&engine, "VTA001L8", "VTA002L8");
    assert_eq!(read(&engine, "VTA002L8"), b"abc\0");
    assert_eq!(read(&engine, "VTA001L8"), b"abc\0");
    // Mounted and read, and nothing written: nothing to copy.
    engine.look().unwrap();
    assert_eq!(copies(&engine).len(), 1);
    let places = engine.ground.catalogue.places(&medium(&engine, "VTA001L8")).unwrap();
    assert_eq!(places.copies, [medium(&engine, "VTA002L8")]);
}

#[test]
fn an_incremental_copy_brings_what_is_new_and_what_was_cut() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    enter(&engine, "VTA001L8", "VTA002L8", "incremental");
    write(&engine, "VTA001L8", 0, b"abcd");
    wait_done(&engine, "VTA001L8", "VTA002L8");
    // Behind the filemark; then in the middle, which cuts off the rest; then shorter.
    for (at, bytes, expected, moved) in [
        (5, &b"ef"[..], &b"abcd\0ef\0"[..], 2000),
        (2, b"x", b"abx\0", 1000),
        (0, b"yz", b"yz\0", 2000),
    ] {
        write(&engine, "VTA001L8", at, bytes);
        wait_done(&engine, "VTA001L8", "VTA002L8");
        assert_eq!(read(&engine, "VTA002L8"), expected);
        assert_eq!(copies(&engine).last().unwrap().bytes, moved, "at {at}");
    }
    // Somebody else writes the target: it is copied whole.
    write(&engine, "VTA002L8", 1, b"Q");
    engine.policy.ring();
    wait_done(&engine, "VTA001L8", "VTA002L8");
    assert_eq!(read(&engine, "VTA002L8"), b"yz\0");
}

#[test]
fn a_tape_that_was_only_cut_is_cut_at_its_copy() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    enter(&engine, "VTA001L8", "VTA002L8", "incremental");
    write(&engine, "VTA001L8", 0, b"abcdef");
    wait_done(&engine, "VTA001L8", "VTA002L8");
    carry(&engine, "VTA001L8", true);
    {
        let opened = engine.ground.registry.open_tape("vtl0/drive0", &opener(), &control());
        let (_claim, mut drive) = opened.unwrap();
        let _ = drive.state(&control());
        drive.locate(3, &control()).unwrap();
        // ERASE(6), from here on.
        let cdb = vec![0x19, 0, 0, 0, 0, 0];
        let timeout = PATIENCE;
        let request =
            tape::CdbRequest { cdb, data_out: bytes::Bytes::new(), data_in_max: 0, timeout };
        assert_eq!(drive.execute(&request, &control()).unwrap().status, 0);
    }
    carry(&engine, "VTA001L8", false);
    wait_done(&engine, "VTA001L8", "VTA002L8");
    assert_eq!(read(&engine, "VTA002L8"), b"abc");
}

#[test]
fn a_full_tape_is_copied_and_a_dismount_can_wait_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let params = json!({ "source": "vtl0:VTA001L8", "target": "vtl0:VTA002L8",
        "policy": "when full", "wait": 25 });
    call(&engine, "copy_set", params).unwrap();
    write(&engine, "VTA001L8", 0, b"a");
    assert_eq!(entry(&engine, "VTA001L8", "VTA002L8").status, MapStatus::Pending);
    // Beyond early warning, of 4 MB less 1 MB.
    carry(&engine, "VTA001L8", true);
    {
        let opened = engine.ground.registry.open_tape("vtl0/drive0", &opener(), &control());
        let (_claim, mut drive) = opened.unwrap();
        let _ = drive.state(&control());
        drive.space(SpaceKind::EndOfData, 0, &control()).unwrap();
        for _ in 0..4 {
            drive.write(&vec![7; 800_000], &control()).unwrap();
        }
    }
    assert!(engine.ground.catalogue.medium_facts(&medium(&engine, "VTA001L8")).unwrap().full);
    carry(&engine, "VTA001L8", false);
    // The dismount has waited.
    assert_eq!(entry(&engine, "VTA001L8", "VTA002L8").status, MapStatus::Done);
}

#[test]
fn a_copy_that_is_asked_for_or_scheduled_and_what_would_happen() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    enter(&engine, "VTA001L8", "VTA002L8", "deferred");
    let params = json!({ "source": "vtl0:VTA001L8", "target": "vtl0:VTA003L8",
        "policy": "deferred", "schedule": "at 2001-01-01T00:00Z" });
    call(&engine, "copy_set", params).unwrap();
    write(&engine, "VTA001L8", 0, b"abc");
    wait_done(&engine, "VTA001L8", "VTA003L8");
    assert_eq!(entry(&engine, "VTA001L8", "VTA002L8").status, MapStatus::Pending);
    let explained = call(&engine, "copy_explain", json!({ "source": "vtl0:VTA001L8" })).unwrap();
    let whys: Vec<_> =
        explained["entries"].as_array().unwrap().iter().map(|e| &e["verdict"]["why"]).collect();
    assert_eq!(whys, ["waits for a command", "the target is a current copy"]);
    call(&engine, "copy_run", json!({ "source": "vtl0:VTA001L8", "target": "vtl0:VTA002L8" }))
        .unwrap();
    wait_done(&engine, "VTA001L8", "VTA002L8");
    // A time that is to come.
    let params = json!({ "source": "vtl0:VTA001L8", "target": "vtl0:VTA003L8",
        "policy": "deferred", "schedule": "at 2101-01-01T00:00Z" });
    call(&engine, "copy_set", params).unwrap();
    write(&engine, "VTA001L8", 1, b"d");
    until("it is scheduled", || {
        let entry = entry(&engine, "VTA001L8", "VTA003L8");
        (entry.status == MapStatus::Scheduled).then_some(())
    });
    assert_eq!(read(&engine, "VTA003L8"), b"abc\0");
}

#[test]
fn a_copy_is_due_after_so_many_records_though_the_tape_is_in_its_drive() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let params = json!({ "source": "vtl0:VTA001L8", "target": "vtl0:VTA002L8",
        "policy": "incremental", "after_records": 3 });
    call(&engine, "copy_set", params).unwrap();
    carry(&engine, "VTA001L8", true);
    write_mounted(&engine, 0, b"ab");
    engine.look().unwrap();
    assert_eq!(entry(&engine, "VTA001L8", "VTA002L8").status, MapStatus::Pending);
    write_mounted(&engine, 3, b"c");
    wait_done(&engine, "VTA001L8", "VTA002L8");
    // What comes then is counted anew.
    write_mounted(&engine, 5, b"de");
    engine.look().unwrap();
    assert_eq!(entry(&engine, "VTA001L8", "VTA002L8").changed_from, Some(5));
    carry(&engine, "VTA001L8", false);
    wait_done(&engine, "VTA001L8", "VTA002L8");
    assert_eq!(read(&engine, "VTA002L8"), b"ab\0c\0de\0");
}

#[test]
fn a_migrated_tape_is_freed_once_its_target_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let params = json!({ "source": "vtl0:VTA001L8", "target": "vtl0:VTA002L8",
        "policy": "deferred" });
    call(&engine, "migration_set", params).unwrap();
    write(&engine, "VTA001L8", 0, b"abc");
    call(&engine, "migration_run", json!({ "source": "vtl0:VTA001L8" })).unwrap();
    let source = medium(&engine, "VTA001L8");
    until("it is freed", || engine.ground.catalogue.medium_facts(&source).unwrap().freed.map(drop));
    assert_eq!(read(&engine, "VTA002L8"), b"abc\0");
    let places = engine.ground.catalogue.places(&source).unwrap();
    assert_eq!(places.primary, medium(&engine, "VTA002L8"));
    let row = engine.ground.catalogue.find_cartridge(
        &engine.ground.config.site.name,
        &vtl0(),
        &Barcode::new("VTA001L8").unwrap(),
    );
    let newest = engine.ground.store.latest(row.unwrap().unwrap().id).unwrap();
    assert_eq!((newest.objects, newest.bytes), (0, 0), "the source is blank");
}

#[test]
fn what_can_not_stand_in_the_maps_is_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    enter(&engine, "VTA001L8", "VTA002L8", "always");
    let set = |source: &str, target: &str| {
        json!({ "source": source, "target": target,
        "policy": "always" })
    };
    for (method, params, why) in [
        ("copy_set", set("vtl0:VTA002L8", "vtl0:VTA001L8"), "a cycle"),
        ("copy_set", set("vtl0:VTA003L8", "vtl0:VTA002L8"), "is the target of"),
        ("copy_set", set("vtl0:VTA001L8", "vtl0:VTA001L8"), "its own target"),
        ("copy_set", set("vtl0:VTA009L8", "vtl0:VTA003L8"), "no tape vtl0:VTA009L8"),
        ("copy_set", set("vtl9:VTA001L8", "vtl0:VTA003L8"), "no library vtl9"),
        ("copy_set", set("lib X tape A", "vtl0:VTA003L8"), "serial number X"),
        ("copy_set", set("wwpn 0011223344556677 lun 1", "vtl0:VTA003L8"), "not supported"),
        ("copy_set", set("VTA001L8", "vtl0:VTA003L8"), "names no tape"),
        ("copy_set", set("vtl0:VTA001L8-VTA002L8", "vtl0:VTA003L8"), "2 sources and 1 targets"),
        (
            "copy_set",
            json!({ "source": "vtl0:VTA003L8", "target": "none", "pool": true,
            "policy": "always" }),
            "has no medium that is free",
        ),
        (
            "copy_set",
            json!({ "source": "vtl0:VTA001L8", "target": "vtl0:VTA003L8",
            "policy": "deferred", "schedule": "soon" }),
            "no schedule",
        ),
        (
            "migration_set",
            json!({ "source": "vtl0:VTA003L8", "target": "vtl0:VTA002L8",
            "policy": "incremental" }),
            "policy of copies",
        ),
        (
            "migration_set",
            json!({ "source": "vtl0:VTA003L8", "target": "vtl0:VTA002L8",
            "policy": "after days" }),
            "takes the days",
        ),
        ("copy_run", json!({ "source": "vtl0:VTA003L8" }), "no copy of"),
        ("map_set", json!({ "backend": "vtl0/drive9" }), "no drive"),
        (
            "map_set",
            json!({ "backend": "vtl0/drive0", "frontend": "vtl0/drive1" }),
            "before itself",
        ),
        ("copy_what", json!({}), "no method"),
    ] {
        let refused = call(&engine, method, params.clone()).unwrap_err();
        assert!(refused.message.contains(why), "{method} {params}: {refused}");
    }
    assert_eq!(engine.ground.catalogue.copy_entries().unwrap().len(), 1);
    // Changes are told.
    let raw = engine.ground.catalogue.events(&svs::EventFilter::default()).unwrap();
    let audits = raw.iter().filter(|event| event.kind == svs::EventKind::Audit);
    assert_eq!(audits.count(), 1);
}

#[test]
fn targets_come_from_a_pool() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let pool = json!({ "pool": "p", "tapes": ["vtl0:VTA002L8-VTA003L8"] });
    assert_eq!(call(&engine, "pool_set", pool).unwrap()["media"], 2);
    let params = json!({ "source": "vtl0:VTA001L8", "target": "p", "pool": true,
        "policy": "always" });
    call(&engine, "copy_set", params).unwrap();
    write(&engine, "VTA001L8", 0, b"q");
    wait_done(&engine, "VTA001L8", "VTA002L8");
}

#[test]
fn a_copy_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = engine(dir.path());
    enter(&first, "VTA001L8", "VTA002L8", "always");
    carry(&first, "VTA001L8", true);
    write_mounted(&first, 0, b"abc");
    // It ends with the tape in the drive; the entry is due as soon as it is dismounted.
    drop(first);
    let again =
        until("the first engine is gone", || std::panic::catch_unwind(|| engine(dir.path())).ok());
    assert_eq!(entry(&again, "VTA001L8", "VTA002L8").changed_from, Some(0));
    carry(&again, "VTA001L8", false);
    wait_done(&again, "VTA001L8", "VTA002L8");
    assert_eq!(read(&again, "VTA002L8"), b"abc\0");
}
