//! The drives of a library beside the local engine: what they say of themselves is acted upon, as
//! at the far site.

use bytes::Bytes;
use dma::{DmaError, TapeObject, TapeOpenMode};
use ndmp::wire::ErrorCode;
use scsi::Cdb;
use svs::{Condition, EventFilter, Health};
use tests::wait::until;
use tests::{Object, Role, read_tape};
use toml::{Table, Value};

use crate::policies::done;
use crate::scene::{Scene, first, persist};

/// What is on the tape.
const RECORD: &[u8] = b"record";

/// Gives the local engine a library of its own, with one drive and these cartridges.
pub(crate) fn library_here(local: &mut Table, remote: &mut Table, prefix: &str) {
    let mut library = first(remote, "physical_library").clone();
    library.insert("name".into(), "here".into());
    library.insert("path".into(), "here".into());
    library.insert("drives".into(), 1.into());
    let set = library["cartridges"].as_table_mut().expect("a set of cartridges");
    set.insert("prefix".into(), prefix.into());
    set.insert("count".into(), 3.into());
    local.insert("physical_library".into(), vec![Value::Table(library)].into());
}

fn scene(name: &str) -> Scene {
    let mut scene = Scene::new(name, |local, remote| library_here(local, remote, "LPA"));
    // What these tests are about.
    for id in ["TWR-6021-E", "TWR-6022-E"] {
        scene.pair.local.allow(id);
    }
    scene
}

/// Gives the library faults to inject.
fn plan(scene: &Scene, rules: &str) {
    let file = scene.pair.directory().join("here/faults");
    let new = file.with_extension("new");
    std::fs::write(&new, rules).expect("the faults are written");
    std::fs::rename(new, file).expect("the faults are in place");
}

/// An application writes a tape, while the drive raises a flag.
fn raise(scene: &Scene, flag: u16) {
    scene.operator.load("here", "LPA001L8", 0);
    plan(scene, &format!("drive0 write 1 alert {flag}\n"));
    let mut tape = scene.operator.tape("here/drive0");
    persist(|| tape.rewind()).expect("the session lives");
    tape.write_block(Bytes::from_static(RECORD)).expect("a record");
    tape.write_filemarks(1).expect("a filemark");
    tape.close_tape().expect("it closes");
    plan(scene, "");
}

fn health(scene: &Scene, subject: &str) -> Health {
    let all = scene.pair.catalogue(Role::Local).health().expect("the rows");
    all.into_iter().find(|row| row.subject == subject).expect("its row")
}

/// What the catalogue says of the drive.
fn state(scene: &Scene) -> String {
    let site = model::SiteName::new("hq").expect("a name");
    let library = model::LibraryName::new("here").expect("a name");
    let devices = scene.pair.catalogue(Role::Local).devices(&site, &library).expect("the rows");
    devices.into_iter().find(|it| it.name.to_string() == "here/drive0").expect("its row").state
}

fn messages(scene: &Scene) -> Vec<String> {
    let filter = EventFilter { limit: 1000, ..EventFilter::default() };
    let events = scene.pair.catalogue(Role::Local).events(&filter).expect("the events");
    events.into_iter().map(|event| event.message_id).collect()
}

#[test]
fn a_drive_here_that_has_a_fault_is_taken_out_of_use() {
    let mut scene = scene("faulthere");
    raise(&scene, 31);
    // Known before the application heard that the drive is closed.
    let row = health(&scene, "here/drive0");
    assert_eq!((row.condition, row.alerts.as_str()), (Condition::Down, "31"));
    assert_eq!(row.bytes_written, Some(RECORD.len() as u64));
    assert_eq!(health(&scene, "here/LPA001L8").loads, Some(1));
    for id in ["TWR-6020-W", "TWR-6021-E"] {
        assert!(messages(&scene).iter().any(|it| it == id), "{id}");
    }
    let down = "loaded LPA001L8, down: here/drive0 was taken out of use: TapeAlert 31";
    until("the catalogue says it", || state(&scene).starts_with(down).then_some(()));
    let refused =
        |scene: &Scene| scene.operator.dial().open_tape("here/drive0", TapeOpenMode::Raw).is_err();
    assert!(refused(&scene));
    scene.pair.local.terminate();
    scene.pair.local.run();
    assert!(refused(&scene), "it outlives the engine");
    done(&scene, "drive up here/drive0");
    assert!(!refused(&scene));
    until("the catalogue says it", || (state(&scene) == "loaded LPA001L8").then_some(()));
}

#[test]
fn a_cartridge_here_that_is_at_its_end_is_read_and_not_written() {
    let scene = scene("frozenhere");
    raise(&scene, 7);
    let row = health(&scene, "here/LPA001L8");
    assert_eq!((row.condition, row.alerts.as_str()), (Condition::Frozen, "7"));
    assert_eq!(health(&scene, "here/drive0").condition, Condition::Ok);
    let mut tape = scene.operator.tape("here/drive0");
    persist(|| tape.rewind()).expect("the session lives");
    let read = tape.read_object(100).expect("it is read");
    assert!(matches!(read, TapeObject::Block(block) if block == RECORD));
    let refused = |result: Result<(), DmaError>| {
        let error = result.expect_err("it is frozen");
        assert_eq!(error.code(), Some(ErrorCode::WriteProtect), "{error}");
    };
    refused(tape.write_block(Bytes::from_static(b"another")).map(drop));
    refused(tape.write_filemarks(1));
    tape.close_tape().expect("it closes");
    let mut robot = scene.operator.dial();
    robot.open_scsi("here/drive0").expect("it opens");
    robot.scsi_command(&Cdb::Rewind { immediate: false }, 0).expect("it rewinds");
    let erased = robot.scsi_command(&Cdb::Erase { long: false, immediate: false }, 0);
    let error = erased.expect_err("it is frozen").to_string();
    assert!(error.contains("07/27"), "{error}");
    robot.close_scsi().expect("it closes");
    let files = scene.pair.directory().join("here");
    assert_eq!(read_tape(&files, "LPA001L8"), [Object::record(RECORD), Object::Filemark]);
    done(&scene, "health --clear here/LPA001L8");
    let mut tape = scene.operator.tape("here/drive0");
    persist(|| tape.rewind()).expect("the session lives");
    tape.write_block(Bytes::from_static(b"another")).expect("it is written again");
    tape.close_tape().expect("it closes");
}

#[test]
fn a_drive_here_that_asks_for_it_is_cleaned_once_it_is_empty() {
    let mut scene = scene("cleanhere");
    // A cleaning cartridge lies beside the others.
    scene.pair.local.terminate();
    let path = scene.pair.local.config().to_owned();
    let text = std::fs::read_to_string(&path).expect("the configuration");
    let text = text.replace("\"LPA\"", "\"CLN\"").replace("count = 3", "count = 1");
    std::fs::write(&path, text).expect("it is written");
    scene.pair.local.run();
    raise(&scene, 20);
    assert_eq!(health(&scene, "here/drive0").condition, Condition::Clean);
    let cleaner = |scene: &Scene| {
        let all = scene.operator.inventory("here").into_iter();
        all.filter(|(_, tag)| tag == "CLN001L8").map(|(at, _)| at).collect::<Vec<_>>()
    };
    let slot = cleaner(&scene);
    assert!(matches!(slot[..], [at] if at >= 1024), "{slot:?}");
    scene.operator.unload("here", 0);
    until("it is cleaned", || {
        (health(&scene, "here/drive0").condition == Condition::Ok).then_some(())
    });
    // The row comes first.
    until("it is told", || messages(&scene).iter().any(|id| id == "TWR-6023-I").then_some(()));
    // The cartridge is back, and the drive is anybody's.
    assert_eq!(cleaner(&scene), slot);
    until("the drive opens", || {
        let mut client = scene.operator.dial();
        match client.open_tape("here/drive0", TapeOpenMode::Raw) {
            Err(error) if error.code() == Some(ErrorCode::NoTapeLoaded) => Some(()),
            opened => opened.ok(),
        }
    });
}
