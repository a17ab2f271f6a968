//! A frontend over a virtual library and a ghost library, and what a host is answered when the
//! library that holds its tape is switched off.

use std::collections::BTreeMap;

use bytes::Bytes;
use dma::copy::{CopyPlan, Unattended, What, copy};
use dma::{DmaError, TapeObject};
use model::JobId;
use ndmp::wire::ErrorCode;
use svs::{
    Catalogue, CopyEntry, CopyPath, CopyStart, FrontendBackend, JobKind, JobOwner, JobState,
    MapPolicy, MediumRef, NewJob, Settled, Verified,
};
use tests::wait::{self, PATIENCE};
use tests::{Item, Object, Rng, Role, full, read_tape, seed, twinreel};
use toml::{Table, Value};

use crate::scene::{RECORD, Scene, first};

/// The frontend's drives by their serial numbers.
fn frontend(drive: u16) -> String {
    format!("lib FE0 drive FE0{:03X}", drive + 1)
}

/// A pair with a second virtual library and a frontend of six drives.
struct Front {
    scene: Scene,
    /// Serial numbers: of the libraries, and of their drives.
    serials: BTreeMap<String, (String, Vec<String>)>,
}

fn table(text: &str) -> Value {
    Value::Table(text.parse().expect("a table"))
}

fn change(local: &mut Table, remote: &mut Table) {
    let more = "name = \"vtl1\"\ndrives = 4\nslots = 8\ncapacity = \"1GiB\"\n\
                cartridges = { prefix = \"VTB\", count = 8 }";
    let libraries = local.get_mut("virtual_library").and_then(Value::as_array_mut);
    libraries.expect("init writes one").push(table(more));
    let frontend = "name = \"fe0\"\ndrives = 6\nslots = 24\nimport_export = 0\nserial = \"FE0\"";
    local.insert("frontend_library".into(), Value::Array(vec![table(frontend)]));
    // A site that is gone is given up soon.
    first(local, "link").insert("lease_seconds".into(), Value::Integer(5));
    let link = remote.get_mut("link").and_then(Value::as_table_mut).expect("init writes it");
    link.insert("lease_seconds".into(), Value::Integer(5));
}

impl Front {
    fn new(name: &str) -> Self {
        let mut scene = Scene::new(name, change);
        for number in ["TWR-8103-E", "TWR-8105-E", "TWR-6"] {
            scene.pair.local.allow(number);
        }
        let catalogue = scene.pair.catalogue(Role::Local);
        let mut serials = BTreeMap::new();
        for library in catalogue.libraries().expect("the libraries") {
            let devices = catalogue.devices(&library.site, &library.name).expect("its devices");
            let mut drives: Vec<_> = devices
                .into_iter()
                .filter(|device| device.name.to_string().contains("/drive"))
                .map(|device| (device.name.to_string(), device.serial))
                .collect();
            drives.sort();
            let drives = drives.into_iter().map(|(_, serial)| serial).collect();
            serials.insert(library.name.to_string(), (library.serial, drives));
        }
        Self { scene, serials }
    }

    /// The catalogue of the local engine, to be changed while it runs.
    fn maps(&self) -> Catalogue {
        let path = self.scene.pair.directory().join("hq").join("svs.db");
        Catalogue::open(&path).expect("the catalogue opens")
    }

    fn serial(&self, library: &str) -> &str {
        &self.serials[library].0
    }

    fn medium(&self, library: &str, volser: &str) -> MediumRef {
        format!("lib {} tape {volser}", self.serial(library)).parse().expect("a medium")
    }

    /// Puts a backend drive behind a drive of the frontend, with tapes `FIRST-LAST` to show.
    fn map(&self, drive: u16, library: &str, index: usize, tapes: &[&str]) {
        let (serial, drives) = &self.serials[library];
        let range = |tapes: &&str| format!("lib {serial} tape {tapes}").parse().expect("a range");
        let row = FrontendBackend {
            backend_device: format!("lib {serial} drive {}", drives[index]).parse().expect("it"),
            frontend_device: Some(frontend(drive).parse().expect("a device")),
            alternative_backend_device: None,
            backend_tapes: tapes.iter().map(range).collect(),
        };
        self.maps().put_frontend_backend(&row).expect("the row is written");
    }

    /// Notes that a target is a current copy of a source. That they hold the same is the caller's.
    fn settle(&self, source: &MediumRef, target: &MediumRef) {
        let maps = self.maps();
        // Until it is done it waits for a command: otherwise the engine makes the copy itself.
        let mut entry = CopyEntry::new(source.clone(), target.clone(), MapPolicy::Deferred);
        maps.put_copy_entry(&entry).expect("the entry is written");
        let ends = (source.to_string(), target.to_string());
        let id = JobId::generate(1_800_000_000_000);
        let job = NewJob::new(id, JobKind::Copy, JobOwner::Engine, ends, "a test");
        let version = maps.medium_facts(source).expect("the facts").version;
        let start = CopyStart { source, target, version, from: 0, seen: (0, 0) };
        maps.begin_copy(&job, &start).expect("the copy begins");
        let done = Settled::Done(Verified::Position);
        assert!(maps.settle_copy(source, target, id, &done).expect("the copy ends"));
        maps.transition(id, JobState::InProgress, None).expect("its job begins");
        maps.finish(id, &svs::Ending::done(0, Verified::Position)).expect("its job ends");
        entry.policy = MapPolicy::Always;
        maps.put_copy_entry(&entry).expect("the policy is changed");
    }

    /// Writes a tape in a library of its own, as a plain copy, and dismounts it.
    fn put(&self, library: &str, barcode: &str, items: &[Item]) {
        let operator = &self.scene.operator;
        operator.load(library, barcode, 0);
        operator.write(&format!("{library}/drive0"), items);
        operator.unload(library, 0);
    }

    fn alternative(&self, drive: u16) -> Option<String> {
        let rows = self.maps().frontend_backends().expect("the rows");
        let device = frontend(drive).parse().expect("a device");
        let row = rows.into_iter().find(|row| row.frontend_device.as_ref() == Some(&device));
        row.expect("its row").alternative_backend_device.map(|device| device.to_string())
    }

    fn wait_event(&self, number: &str) {
        wait::until(number, || {
            let events = self.scene.pair.catalogue(Role::Local);
            let events = events.events(&svs::EventFilter::default()).expect("the events");
            events.iter().any(|event| event.message_id == number).then_some(())
        });
    }

    /// Drives of a library with a tape in them.
    fn in_use(&self, library: &str) -> usize {
        // The engine may have the changer for a moment: it puts a tape back.
        wait::until("the changer can be asked", || {
            let mut robot = self.scene.operator.dial();
            robot.open_scsi(&format!("{library}/changer")).ok()?;
            let elements = robot.inventory().ok()?;
            Some(elements.iter().filter(|e| (128..1024).contains(&e.address) && e.full).count())
        })
    }

    /// Ends the remote engine without a word.
    fn switch_off(&mut self) {
        self.scene.pair.remote.kill();
    }

    fn switch_on(&mut self) {
        self.scene.pair.remote.run();
        self.scene.operator.wait_for("dr-ptl0");
    }
}

fn items(rng: &mut Rng, records: usize) -> Vec<Item> {
    let records = (0..records).map(|_| Item::Record(rng.bytes(RECORD)));
    records.chain([Item::Filemark]).collect()
}

fn objects(items: &[Item]) -> Vec<Object> {
    items.iter().map(Item::object).collect()
}

#[test]
fn a_frontend_over_both_sites_is_the_tapes_at_both() {
    let mut rng = Rng::new(seed("frontends")).fork("both");
    let front = Front::new("fe-both");
    let config = front.scene.pair.local.config().to_str().expect("a path").to_owned();
    for (backend, frontend, tapes) in [
        ("vtl0/drive0", "fe0/drive0", "vtl0:VTA001L8-VTA003L8"),
        ("dr-ptl0/drive0", "fe0/drive1", "dr-ptl0:PTA001L8-PTA002L8"),
    ] {
        let set = ["map", "set", "--config", &config, backend, "--frontend", frontend, "--tapes"];
        let (code, _, errors) = twinreel(set.into_iter().chain([tapes]));
        assert_eq!(code, 0, "twinreel map set: {errors}");
    }
    let operator = &front.scene.operator;
    let shown: Vec<_> = operator.inventory("fe0").into_iter().map(|(_, tag)| tag).collect();
    assert_eq!(shown, ["VTA001L8", "VTA002L8", "VTA003L8", "PTA001L8", "PTA002L8"]);
    let backup = items(&mut rng, 40);
    operator.load("fe0", "VTA001L8", 0);
    operator.load("fe0", "PTA001L8", 1);
    operator.write("fe0/drive0", &backup);
    operator.write("fe0/drive1", &items(&mut rng, 3));
    assert!(operator.read("fe0/drive0") == objects(&backup));

    // Through both frontends the data goes by name.
    let mut from = operator.dial();
    from.open_tape("fe0/drive0", dma::TapeOpenMode::Read).expect("the source opens");
    from.rewind().expect("it rewinds");
    let mut to = operator.tape("fe0/drive1");
    to.rewind().expect("it rewinds");
    let plan = CopyPlan {
        what: What::Everything { headers: 0 },
        record_size: Some(RECORD as u32),
        patience: PATIENCE,
        ..CopyPlan::default()
    };
    let report = copy(&mut from, &mut to, &plan, &mut Unattended).expect("the copy succeeds");
    assert_eq!(report.bytes(), 40 * RECORD as u64);
    to.close_tape().expect("the target closes");
    from.close_tape().expect("the source closes");
    let job = front.scene.copy_job(Role::Local);
    assert_eq!(job.path, Some(CopyPath::Offloaded), "{job:?}");
    assert_eq!((job.source.as_str(), job.target.as_str()), ("fe0/VTA001L8", "fe0/PTA001L8"));
    assert!(operator.read("fe0/drive1") == objects(&backup));

    for drive in 0..2 {
        operator.unload("fe0", drive);
        assert_eq!(front.alternative(drive), None);
    }
    assert_eq!((front.in_use("vtl0"), front.in_use("dr-ptl0")), (0, 0));
    assert!(read_tape(&front.scene.pair.ghost_files(), "PTA001L8") == objects(&backup));
    operator.load("vtl0", "VTA001L8", 0);
    assert!(operator.read("vtl0/drive0") == objects(&backup));
}

/// A ghost tape in the frontend, with a current copy on a virtual one.
fn with_copy(front: &Front, backup: &[Item]) {
    front.map(0, "ptl0", 0, &["PTA001L8"]);
    let operator = &front.scene.operator;
    operator.load("fe0", "PTA001L8", 0);
    operator.write("fe0/drive0", backup);
    operator.unload("fe0", 0);
    front.put("vtl1", "VTB001L8", backup);
    front.settle(&front.medium("ptl0", "PTA001L8"), &front.medium("vtl1", "VTB001L8"));
}

#[test]
fn primary_off_in_the_middle_of_nothing() {
    let mut rng = Rng::new(seed("frontends")).fork("nothing");
    let mut front = Front::new("fe-nothing");
    let backup = items(&mut rng, 20);
    with_copy(&front, &backup);
    front.switch_off();
    wait::until("the site is known to be gone", || {
        let mut client = front.scene.operator.dial();
        client.open_scsi("dr-ptl0/drive0").ok()?;
        let ready = client.scsi_command(&scsi::Cdb::TestUnitReady, 0);
        ready.is_err_and(|error| error.to_string().contains("02/04/00")).then_some(())
    });
    let operator = front.scene.operator.clone();
    operator.load("fe0", "PTA001L8", 0);
    assert!(operator.read("fe0/drive0") == objects(&backup));
    let copy = format!("lib {} drive {}", front.serial("vtl1"), front.serials["vtl1"].1[0]);
    assert_eq!(front.alternative(0), Some(copy));
    // A write needs the primary.
    let mut tape = operator.tape("fe0/drive0");
    tape.rewind().expect("it rewinds");
    let refused = tape.write_block(Bytes::from_static(b"new")).expect_err("there is no primary");
    assert_eq!(refused.code(), Some(ErrorCode::WriteProtect), "{refused}");
    tape.close_tape().expect("it closes");
    front.wait_event("TWR-8101-W");
    front.wait_event("TWR-8105-E");
    operator.unload("fe0", 0);
    assert_eq!(front.alternative(0), None);
    // The primary is back, and taken.
    front.switch_on();
    operator.load("fe0", "PTA001L8", 0);
    assert_eq!((front.alternative(0), front.in_use("vtl1")), (None, 0));
    assert!(operator.read("fe0/drive0") == objects(&backup));
}

#[test]
fn primary_off_in_the_middle_of_a_read() {
    let mut rng = Rng::new(seed("frontends")).fork("read");
    let mut front = Front::new("fe-read");
    let backup = items(&mut rng, 20);
    with_copy(&front, &backup);
    let operator = front.scene.operator.clone();
    operator.load("fe0", "PTA001L8", 0);
    let mut tape = operator.dial();
    tape.open_tape("fe0/drive0", dma::TapeOpenMode::Read).expect("it opens");
    for _ in 0..5 {
        assert!(matches!(tape.read_object(1 << 20), Ok(TapeObject::Block(_))));
    }
    front.switch_off();
    let told = (0..20).find_map(|_| tape.read_object(1 << 20).err()).expect("an error");
    assert!(!matches!(told, DmaError::TimedOut(_) | DmaError::Closed(_)), "{told}");
    tape.close_tape().expect("it closes");
    drop(tape);
    front.wait_event("TWR-8104-W");
    // Dismounted and mounted again under the same name, it is read from its beginning.
    operator.unload("fe0", 0);
    operator.load("fe0", "PTA001L8", 0);
    assert!(operator.read("fe0/drive0") == objects(&backup));
    assert!(front.alternative(0).is_some());
    operator.unload("fe0", 0);
    // The tape that the site was left with goes to its slot.
    front.switch_on();
    wait::until("the tape is put back", || (front.in_use("dr-ptl0") == 0).then_some(()));
}

#[test]
fn primary_off_in_the_middle_of_an_append() {
    let mut rng = Rng::new(seed("frontends")).fork("append");
    let mut front = Front::new("fe-append");
    let backup = items(&mut rng, 20);
    with_copy(&front, &backup);
    let operator = front.scene.operator.clone();
    operator.load("fe0", "PTA001L8", 0);
    let mut tape = operator.tape("fe0/drive0");
    tape.mtio(ndmp::wire::MtioOp::Fsf, 1).expect("behind the backup");
    let record = Bytes::from(rng.bytes(RECORD));
    tape.write_block(record.clone()).expect("the first record is written");
    tape.write_filemarks(1).expect("and flushed");
    front.switch_off();
    let told = (0..20).find_map(|_| tape.write_block(record.clone()).err()).expect("an error");
    assert!(!matches!(told, DmaError::TimedOut(_) | DmaError::Closed(_)), "{told}");
    drop(tape.close_tape());
    drop(tape);
    // Taken out, with as many attempts as it takes: what is lost is told first.
    let take_out = || {
        let mut robot = operator.dial();
        robot.open_scsi("fe0/changer").ok()?;
        let elements = robot.inventory().ok()?;
        let held = elements.iter().find(|element| element.address == 128)?;
        let moved = !held.full || robot.move_medium(128, held.source?).is_ok();
        robot.close_scsi().ok()?;
        moved.then_some(())
    };
    wait::until("the tape is taken out", take_out);
    // The copy lacks what was appended: it is not served, and the host is told no lie.
    operator.load("fe0", "PTA001L8", 0);
    let mut tape = operator.dial();
    let refused = tape.open_tape("fe0/drive0", dma::TapeOpenMode::Read);
    let refused = refused.expect_err("nothing current is left");
    assert_ne!(refused.code(), Some(ErrorCode::NoTapeLoaded), "{refused}");
    front.wait_event("TWR-8103-E");
    wait::until("the tape is taken out", take_out);
    // The primary has all that was flushed.
    front.switch_on();
    operator.load("fe0", "PTA001L8", 0);
    let found = operator.read("fe0/drive0");
    let expected = [objects(&backup), vec![Object::record(&record), Object::Filemark]].concat();
    assert!(found.starts_with(&expected), "{} objects", found.len());
}

#[test]
fn killed_with_tapes_mounted_they_go_back_and_the_frontend_works() {
    let mut rng = Rng::new(seed("frontends")).fork("kill");
    let mut front = Front::new("fe-kill");
    front.map(0, "vtl0", 0, &["VTA001L8"]);
    front.map(1, "ptl0", 0, &["PTA001L8"]);
    let operator = front.scene.operator.clone();
    let backup = items(&mut rng, 10);
    for (drive, tape) in [(0, "VTA001L8"), (1, "PTA001L8")] {
        operator.load("fe0", tape, drive);
        operator.write(&format!("fe0/drive{drive}"), &backup);
    }
    front.scene.pair.local.kill_and_run();
    operator.wait_for("dr-ptl0");
    wait::until_within(PATIENCE * 2, "the tapes are put back", || {
        (front.in_use("vtl0") + front.in_use("dr-ptl0") == 0).then_some(())
    });
    assert_eq!(front.in_use("fe0"), 0);
    for (drive, tape) in [(0, "VTA001L8"), (1, "PTA001L8")] {
        operator.load("fe0", tape, drive);
        assert!(operator.read(&format!("fe0/drive{drive}")) == objects(&backup));
        operator.unload("fe0", drive);
    }
}

/// Three copies of each tape in three libraries: 2, 4 and 2 drives.
#[test]
fn mounts_spread_as_utilisation_says() {
    let mut rng = Rng::new(seed("frontends")).fork("spread");
    let front = Front::new("fe-spread");
    let operator = front.scene.operator.clone();
    let libraries = ["vtl0", "vtl1", "dr-ptl0"];
    let drives = [2usize, 4, 2];
    for drive in 0..6 {
        let shown: &[&str] = if drive == 0 { &["VTA001L8-VTA006L8"] } else { &[] };
        front.map(drive, "vtl0", 0, shown);
    }
    let backup = items(&mut rng, 2);
    for n in 1..=6 {
        let source = front.medium("vtl0", &format!("VTA00{n}L8"));
        front.put("vtl0", &format!("VTA00{n}L8"), &backup);
        for (library, own, prefix) in [("vtl1", "vtl1", "VTB"), ("dr-ptl0", "ptl0", "PTA")] {
            let barcode = format!("{prefix}00{n}L8");
            front.put(library, &barcode, &backup);
            front.settle(&source, &front.medium(own, &barcode));
        }
    }
    let mut mounted: BTreeMap<u16, u64> = BTreeMap::new();
    let mut taken = [0u32; 3];
    for _ in 0..full(16, 120) {
        let free: Vec<u16> = (0..6).filter(|drive| !mounted.contains_key(drive)).collect();
        let load = !free.is_empty() && (mounted.len() < 3 || rng.chance(1, 2));
        if !load {
            let drive = *rng.pick(&mounted.keys().copied().collect::<Vec<_>>());
            operator.unload("fe0", drive);
            mounted.remove(&drive);
            continue;
        }
        let tapes: Vec<u64> = (1..=6).filter(|n| mounted.values().all(|it| it != n)).collect();
        let (drive, tape) = (*rng.pick(&free), *rng.pick(&tapes));
        let before = libraries.map(|library| front.in_use(library));
        operator.load("fe0", &format!("VTA00{tape}L8"), drive);
        mounted.insert(drive, tape);
        let after = libraries.map(|library| front.in_use(library));
        let chosen = (0..3).find(|n| after[*n] == before[*n] + 1).expect("one more is in use");
        let least = (0..3).min_by_key(|n| before[*n] * 4 / drives[*n]).expect("three");
        assert_eq!(before[chosen] * 4 / drives[chosen], before[least] * 4 / drives[least]);
        taken[chosen] += 1;
        println!("in use {before:?} of {drives:?}: {} is taken", libraries[chosen]);
        if full(false, true) {
            assert!(operator.read(&format!("fe0/drive{drive}")) == objects(&backup));
        }
    }
    println!("mounts: {libraries:?} {taken:?}");
    assert!(taken.iter().all(|count| *count > 0), "{taken:?}");
}
