//! The three maps at work between two sites: entered by the command line, acted upon by the
//! engines, and seen to reach their status.

use dma::Wrote;
use serde_json::Value;
use svs::{CopyEntry, JobState, MapStatus, MigrationEntry};
use tests::wait::until;
use tests::{Content, Object, Rng, Role, Texture, read_tape, seed, twinreel};

use crate::scene::{RECORD, SOURCE, Scene, first};

/// Bytes on a tape of either kind.
const TAPE: i64 = 8 << 20;

fn scene(name: &str) -> Scene {
    Scene::new(name, |local, remote| {
        let front: toml::Table = [("name".to_owned(), "front".into())].into_iter().collect();
        local.insert("frontend_library".into(), vec![toml::Value::Table(front)].into());
        for (config, library) in [(local, "virtual_library"), (remote, "physical_library")] {
            let library = first(config, library);
            library.insert("capacity".into(), TAPE.into());
            library.insert("early_warning".into(), (1i64 << 20).into());
            library.insert("slots".into(), 10.into());
            let set = library["cartridges"].as_table_mut().expect("a set of cartridges");
            set.insert("count".into(), 8.into());
        }
    })
}

/// `twinreel WORDS --json` of the local engine.
pub(crate) fn call(scene: &Scene, words: &str) -> (i32, Value, String) {
    let config = scene.pair.directory().join("local.toml");
    let config = config.to_str().expect("a scratch path is text").to_owned();
    let words = words.split(' ').map(|word| word.replace('_', " "));
    let words = words.chain(["--json".to_owned(), "--config".to_owned(), config]);
    let (code, out, errors) = twinreel(words);
    (code, serde_json::from_str(&out).unwrap_or_default(), errors)
}

pub(crate) fn done(scene: &Scene, words: &str) -> Value {
    let (code, value, errors) = call(scene, words);
    assert_eq!(code, 0, "{words}: {errors}");
    value
}

pub(crate) fn copies(scene: &Scene) -> Vec<CopyEntry> {
    scene.pair.catalogue(Role::Local).copy_entries().expect("the map")
}

pub(crate) fn copy(scene: &Scene, number: usize) -> CopyEntry {
    let tape = format!("VTA{number:03}L8");
    let mut all = copies(scene).into_iter();
    all.find(|entry| entry.source_medium.to_string().ends_with(&tape)).expect("its entry")
}

fn migration(scene: &Scene, number: usize) -> MigrationEntry {
    let tape = format!("VTA{number:03}L8");
    let mut all =
        scene.pair.catalogue(Role::Local).migration_entries().expect("the map").into_iter();
    all.find(|entry| entry.source_medium.to_string().ends_with(&tape)).expect("its entry")
}

/// Mounts a virtual tape, writes random records from its beginning on, at most until early
/// warning, and a filemark, and dismounts it. What is on it then.
pub(crate) fn back_up(scene: &Scene, number: usize, rng: &mut Rng, records: usize) -> Vec<Object> {
    scene.operator.load("vtl0", &format!("VTA{number:03}L8"), 0);
    let mut session = scene.operator.tape(SOURCE);
    let mut objects = Vec::new();
    for _ in 0..records {
        let record = rng.bytes(RECORD);
        match session.write_block(record.clone().into()).expect("a record") {
            Wrote::Done => objects.push(Object::record(&record)),
            Wrote::EndOfMedium => break,
        }
    }
    session.write_filemarks(1).expect("a filemark");
    objects.push(Object::Filemark);
    session.close_tape().expect("it closes");
    scene.operator.unload("vtl0", 0);
    objects
}

pub(crate) fn wait_copy(scene: &Scene, number: usize, status: MapStatus) -> CopyEntry {
    until(&format!("copy {number} is {status}"), || {
        Some(copy(scene, number)).filter(|entry| entry.status == status)
    })
}

pub(crate) fn ghost(scene: &Scene, number: usize) -> Vec<Object> {
    read_tape(&scene.pair.ghost_files(), &format!("PTA{number:03}L8"))
}

/// More records than a tape takes before early warning.
const FULL: usize = 200;

#[test]
fn the_rows_of_the_tables_are_entered_and_reach_their_status() {
    let mut rng = Rng::new(seed("policies"));
    let scene = scene("policies");
    enter_the_rows(&scene);
    copies_reach_their_status(&scene, &mut rng);
    migrations_reach_their_status(&scene, &mut rng);
    judge_audit(&scene);
    scene.at_rest();
}

fn enter_the_rows(scene: &Scene) {
    done(scene, "copy set vtl0:VTA001L8 dr-ptl0:PTA001L8 --policy when-full");
    done(scene, "copy set vtl0:VTA002L8 dr-ptl0:PTA002L8 --policy always");
    done(scene, "copy set vtl0:VTA003L8 dr-ptl0:PTA003L8 --policy incremental");
    let schedule = "--schedule at_2101-01-01T00:00Z";
    done(scene, &format!("copy set vtl0:VTA004L8 dr-ptl0:PTA004L8 --policy deferred {schedule}"));
    let verify = "--verify readback";
    done(scene, &format!("migrate set vtl0:VTA005L8 dr-ptl0:PTA005L8 --policy when-full {verify}"));
    done(scene, "migrate set vtl0:VTA006L8 dr-ptl0:PTA006L8 --policy after-days --days 30");
    done(scene, "migrate set vtl0:VTA007L8 dr-ptl0:PTA007L8 --policy deferred");
    done(scene, "map set dr-ptl0/drive1 --tapes dr-ptl0:B10000-B10010");
    for (drive, tapes) in [("0", "VTA001L8-VTA004L8"), ("1", "VTA005L8-VTA008L8")] {
        let frontend = format!("--frontend front/drive{drive} --tapes vtl0:{tapes}");
        done(scene, &format!("map set vtl0/drive{drive} {frontend}"));
    }
    assert_eq!(scene.operator.inventory("front").len(), 8);
    let map = done(scene, "map show");
    assert_eq!(map.as_array().map(Vec::len), Some(3), "{map}");
    assert_eq!(map[0]["frontend_device"], Value::Null, "{map}");
    let range = map[0]["backend_tapes"][0].as_str().expect("a range").to_owned();
    assert!(range.ends_with(" tape B10000-B10010"), "{range}");
}

fn copies_reach_their_status(scene: &Scene, rng: &mut Rng) {
    // When full: done. Not before.
    let early = back_up(scene, 1, rng, 4);
    assert_eq!(copy(scene, 1).status, MapStatus::Pending);
    let full = back_up(scene, 1, rng, FULL);
    wait_copy(scene, 1, MapStatus::Done);
    assert_ne!(early, full);
    assert_eq!(ghost(scene, 1), full);

    // Always: pending until it is dismounted for the first time.
    assert_eq!(copy(scene, 2).status, MapStatus::Pending);
    assert_eq!(copy(scene, 2).message.as_deref(), Some("the source was never written"));

    // Deferred: scheduled.
    back_up(scene, 4, rng, 2);
    let scheduled = wait_copy(scene, 4, MapStatus::Scheduled);
    assert!(scheduled.message.is_some_and(|text| text.contains("due at 2101-01-01")));
    assert!(ghost(scene, 4).is_empty());

    // Incremental: in progress, seen at a drive that takes its time.
    scene.faults("drive0 write 1.. delay 50\ndrive1 write 1.. delay 50");
    let data = back_up(scene, 3, rng, 40);
    let under_way = wait_copy(scene, 3, MapStatus::InProgress);
    let shown = done(scene, "copy show");
    let row = shown.as_array().into_iter().flatten().find(|row| row["status"] == "in progress");
    assert!(row.is_some(), "{shown}");
    let job = under_way.job.expect("its job");
    scene.faults("");
    wait_copy(scene, 3, MapStatus::Done);
    assert_eq!(ghost(scene, 3), data);
    let row = scene.pair.catalogue(Role::Local).job_status(job).expect("read").expect("its row");
    assert_eq!(row.state, JobState::Done);
    assert_eq!(row.path, Some(svs::CopyPath::Offloaded), "{row:?}");
}

/// Done and freed; scheduled; waiting for a command.
fn migrations_reach_their_status(scene: &Scene, rng: &mut Rng) {
    let moved = back_up(scene, 5, rng, FULL);
    back_up(scene, 6, rng, 2);
    until("the tape is moved", || (migration(scene, 5).status == MapStatus::Done).then_some(()));
    assert_eq!(ghost(scene, 5), moved);
    let source = migration(scene, 5).source_medium;
    until("the source is freed", || {
        let facts = scene.pair.catalogue(Role::Local).medium_facts(&source).expect("the catalogue");
        facts.freed
    });
    until("the other is scheduled", || {
        (migration(scene, 6).status == MapStatus::Scheduled).then_some(())
    });
    assert_eq!(migration(scene, 7).status, MapStatus::Pending);
}

/// What was changed, and by whom it can be seen.
fn judge_audit(scene: &Scene) {
    let filter = svs::EventFilter { limit: 1000, ..svs::EventFilter::default() };
    let events = scene.pair.catalogue(Role::Local).events(&filter).expect("the events");
    let changes = events.iter().filter(|event| event.kind == svs::EventKind::Audit);
    assert_eq!(changes.count(), 10);
}

#[test]
fn an_incremental_copy_moves_what_was_written_and_no_more() {
    let mut rng = Rng::new(seed("incremental"));
    let scene = scene("incremental");
    done(&scene, "copy set vtl0:VTA001L8 dr-ptl0:PTA001L8 --policy incremental");
    let mut expected = Vec::new();
    for (files, records) in [(0, 20), (1, 10), (2, 1)] {
        let length = (records * RECORD) as u64;
        let content = Content::new(Texture::Incompressible, rng.next_u64(), length);
        scene.operator.load("vtl0", "VTA001L8", 0);
        let mut session = scene.operator.tape(SOURCE);
        session.mtio(ndmp::wire::MtioOp::Fsf, files).expect("behind what is there");
        for record in content.to_vec().chunks(RECORD) {
            session.write_block(record.to_vec().into()).expect("a record");
            expected.push(Object::record(record));
        }
        session.write_filemarks(1).expect("a filemark");
        expected.push(Object::Filemark);
        drop(session);
        scene.operator.unload("vtl0", 0);
        wait_copy(&scene, 1, MapStatus::Done);
        let job = scene.pair.copies(Role::Local).pop().expect("a copy");
        println!("{length} bytes were written, {} were copied", job.bytes);
        assert_eq!(job.bytes, length, "what was written, and no more");
        assert_eq!(ghost(&scene, 1), expected);
    }
}

/// A write to a source that is locked is answered when what is copied is at the other site.
#[test]
fn a_locked_source_waits_for_its_replication() {
    let mut rng = Rng::new(seed("lock"));
    let scene = scene("lock");
    done(&scene, "copy set vtl0:VTA001L8 dr-ptl0:PTA001L8 --policy always --lock-source 60");
    scene.pair.relay.bandwidth(Some(1 << 20));
    back_up(&scene, 1, &mut rng, 48);
    let under_way = wait_copy(&scene, 1, MapStatus::InProgress);
    let catalogue = scene.pair.catalogue(Role::Local);
    let job = catalogue.job(under_way.job.expect("its job")).expect("read").expect("its row");
    let generation = job.generation.expect("what is copied");
    let replicated = || {
        let done = catalogue.replications(&[svs::ReplicationState::Done]).expect("the rows");
        done.iter().any(|row| row.generation == generation)
    };
    assert!(!replicated(), "the link is too fast for this test");
    scene.operator.load("vtl0", "VTA001L8", 0);
    let mut session = scene.operator.tape(SOURCE);
    let record = rng.bytes(RECORD);
    let written = session.write_block(record.clone().into()).expect("a record");
    assert!(written == Wrote::Done && replicated(), "the write waits for the replication");
    session.close_tape().expect("it closes");
    drop(session);
    scene.operator.unload("vtl0", 0);
    scene.pair.relay.bandwidth(None);
    wait_copy(&scene, 1, MapStatus::Done);
    assert_eq!(ghost(&scene, 1)[0], Object::record(&record));
}

#[test]
fn what_would_happen_is_told_and_what_can_not_be_is_refused() {
    let mut rng = Rng::new(seed("explain"));
    let scene = scene("explain");
    done(&scene, "pool add dr dr-ptl0:PTA001L8-PTA002L8");
    done(&scene, "copy set vtl0:VTA001L8-VTA002L8 --pool dr --policy deferred");
    back_up(&scene, 1, &mut rng, 2);
    let told = done(&scene, "copy explain vtl0:VTA001L8-VTA008L8");
    let entries = told["entries"].as_array().expect("entries");
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0]["verdict"]["why"], "waits for a command");
    assert_eq!(entries[1]["verdict"]["why"], "the source was never written");
    let (code, _, errors) = call(&scene, "copy set vtl0:VTA003L8 --pool dr --policy always");
    assert!(code == 1 && errors.contains("has no medium that is free"), "{code} {errors}");
    done(&scene, "copy run vtl0:VTA001L8");
    wait_copy(&scene, 1, MapStatus::Done);
    let proof = done(&scene, "copy show");
    assert_eq!(proof[0]["changed_from"], Value::Null, "{proof}");
    done(&scene, "copy remove vtl0:VTA001L8-VTA002L8");
    assert!(copies(&scene).is_empty());
}

/// The engine is killed at steps of a copy and of a migration, and goes on.
#[test]
fn a_kill_at_any_step_leaves_maps_that_are_true() {
    let mut rng = Rng::new(seed("policies-kill"));
    let steps: &[&str] =
        tests::full(&["write 10"], &["write 1", "write 10", "flush 1", "unload 1", "move 1"]);
    for victim in [Role::Local, Role::Remote] {
        for step in steps {
            println!("{victim:?} is killed at {step}");
            let mut scene = scene(&format!("kill-policy-{victim:?}").to_lowercase());
            scene.pair.remote.allow("TWR-5004-E");
            scene.pair.local.allow("TWR-8002-W");
            done(&scene, "copy set vtl0:VTA001L8 dr-ptl0:PTA001L8 --policy always");
            done(&scene, "migrate set vtl0:VTA002L8 dr-ptl0:PTA002L8 --policy when-full");
            let operation = step.split(' ').next().unwrap_or_default();
            let mark = scene.pair.remote.log().mark();
            let rule = if operation == "move" {
                format!("changer {step}.. delay 200")
            } else {
                format!("drive0 {step}.. delay 200\ndrive1 {step}.. delay 200")
            };
            scene.faults(&rule);
            let data = back_up(&scene, 1, &mut rng, 12);
            let moved = back_up(&scene, 2, &mut rng, FULL);
            scene.wait_fault(mark, operation);
            match victim {
                Role::Local => scene.pair.local.kill_and_run(),
                Role::Remote => scene.pair.remote.kill_and_run(),
            }
            scene.faults("");
            scene.operator.wait_for("dr-ptl0");
            done(&scene, "copy run vtl0:VTA001L8");
            wait_copy(&scene, 1, MapStatus::Done);
            assert_eq!(ghost(&scene, 1), data);
            until("the tape is moved", || {
                if migration(&scene, 2).status == MapStatus::Pending {
                    done(&scene, "migrate run vtl0:VTA002L8");
                }
                (migration(&scene, 2).status == MapStatus::Done).then_some(())
            });
            assert_eq!(ghost(&scene, 2), moved);
        }
    }
}
