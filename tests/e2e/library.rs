//! The libraries at the far site from here: who waits for their drives, drives that go down,
//! cartridges that leave and come back, drives that take their time to make a cartridge ready.

use serde_json::Value;
use svs::{EventFilter, JobFilter, MapStatus, MountState, OutsidePlace};
use tests::wait::until;
use tests::{Rng, Role, seed, twinreel};

use crate::drives::library_here;
use crate::policies::{back_up, call, copy, done, ghost, wait_copy};
use crate::scene::{Scene, TARGET, first};

/// A pair whose far library has so many drives, with data on the first virtual tapes.
fn scene(name: &str, drives: i64) -> Scene {
    Scene::new(name, |local, remote| {
        let front: toml::Table = [("name".to_owned(), "front".into())].into_iter().collect();
        local.insert("frontend_library".into(), vec![toml::Value::Table(front)].into());
        for (config, library) in [(local, "virtual_library"), (remote, "physical_library")] {
            let library = first(config, library);
            library.insert("drives".into(), drives.max(2).into());
            library.insert("slots".into(), 10.into());
            let set = library["cartridges"].as_table_mut().expect("a set of cartridges");
            set.insert("count".into(), 8.into());
        }
        first(remote, "physical_library").insert("drives".into(), drives.into());
    })
}

/// `twinreel WORDS --json` of the remote engine.
fn remotely(scene: &Scene, words: &str) -> Value {
    let config = scene.pair.directory().join("remote.toml");
    let config = config.to_str().expect("a scratch path is text").to_owned();
    let words = words.split(' ').map(|word| word.replace('_', " "));
    let words = words.chain(["--json".to_owned(), "--config".to_owned(), config]);
    let (code, out, errors) = twinreel(words);
    assert_eq!(code, 0, "{errors}");
    serde_json::from_str(&out).expect("JSON")
}

/// What the local catalogue says of a drive of the ghost.
fn drive(scene: &Scene, index: u16) -> String {
    let site = model::SiteName::new("dr").expect("a name");
    let library = model::LibraryName::new("ptl0").expect("a name");
    let devices = scene.pair.catalogue(Role::Local).devices(&site, &library).expect("the rows");
    let name = format!("ptl0/drive{index}");
    devices.into_iter().find(|it| it.name.to_string() == name).expect("its row").state
}

/// How often a cartridge was moved at the far site.
fn moves(scene: &Scene, barcode: &str) -> usize {
    let filter = EventFilter { limit: 1000, ..EventFilter::default() };
    let events = scene.pair.catalogue(Role::Remote).events(&filter).expect("the events");
    let moved = |text: &str| text.contains("moved") && text.contains(barcode);
    events.iter().filter(|event| moved(&event.text)).count()
}

fn waiting(scene: &Scene) -> Vec<svs::Mount> {
    let all = scene.pair.catalogue(Role::Local).mounts().expect("the queue");
    all.into_iter().filter(|it| it.state == MountState::Waiting).collect()
}

#[test]
fn copies_wait_for_a_drive_in_their_order_and_one_is_ended_there() {
    let mut rng = Rng::new(seed("queue"));
    let mut scene = scene("queue", 1);
    // The one that is ended on purpose.
    scene.pair.local.allow("TWR-8003-E");
    let mut data = Vec::new();
    for number in 1..=3 {
        data.push(back_up(&scene, number, &mut rng, 3));
        let pair = format!("vtl0:VTA00{number}L8 dr-ptl0:PTA00{number}L8");
        done(&scene, &format!("copy set {pair} --policy deferred --schedule at_2101-01-01T00:00Z"));
    }
    // An application has the only drive.
    scene.operator.load("dr-ptl0", "PTA008L8", 0);
    let mut session = scene.operator.tape(TARGET);
    for number in 1..=3 {
        done(&scene, &format!("copy run vtl0:VTA00{number}L8 dr-ptl0:PTA00{number}L8"));
    }
    let line = until("three wait", || Some(waiting(&scene)).filter(|line| line.len() == 3));
    assert!(line.iter().all(|it| it.priority == svs::MountPriority::Policy), "{line:?}");
    let of = |barcode: &str| {
        let line = waiting(&scene);
        line.into_iter().find(|it| it.tapes.ends_with(barcode)).and_then(|it| it.job)
    };
    let (second, third) = (of("PTA002L8").expect("a job"), of("PTA003L8").expect("a job"));
    let shown = done(&scene, &format!("queue priority {third} restore"));
    assert_eq!(shown.as_array().map(Vec::len), Some(3), "{shown}");
    assert!(waiting(&scene)[0].tapes.ends_with("PTA003L8"), "{shown}");
    done(&scene, &format!("queue cancel {second}"));
    until("two wait", || (waiting(&scene).len() == 2).then_some(()));
    // Its thread ends a moment after it has left the line.
    until("it is over", || {
        let (code, _, errors) = call(&scene, &format!("queue cancel {second}"));
        (code == 1 && errors.contains("does not run or wait")).then_some(())
    });
    session.close_tape().expect("it closes");
    drop(session);
    scene.operator.unload("dr-ptl0", 0);
    for number in [1, 3] {
        wait_copy(&scene, number, MapStatus::Done);
        assert_eq!(ghost(&scene, number), data[number - 1], "{number}");
    }
    assert!(ghost(&scene, 2).is_empty());
    // The more urgent one went first, and had ended when the other began.
    let jobs = scene.pair.catalogue(Role::Local).jobs(&JobFilter::default()).expect("the jobs");
    let ended = |barcode: &str| {
        let job = jobs.iter().find(|it| it.target.ends_with(barcode) && it.bytes > 0);
        job.and_then(|it| it.ended.clone()).expect("it has ended")
    };
    assert!(ended("PTA003L8") < ended("PTA001L8"), "{jobs:#?}");
    until("nobody is left", || {
        scene.pair.catalogue(Role::Local).mounts().expect("the queue").is_empty().then_some(())
    });
    scene.at_rest();
}

#[test]
fn a_tape_that_the_next_one_reads_stays_in_its_drive() {
    let mut rng = Rng::new(seed("reuse"));
    let scene = scene("reuse", 1);
    let data = back_up(&scene, 1, &mut rng, 3);
    done(&scene, "copy set vtl0:VTA001L8 dr-ptl0:PTA001L8 --policy always");
    wait_copy(&scene, 1, MapStatus::Done);
    done(&scene, "copy remove vtl0:VTA001L8");
    until("the tape is in its slot", || (moves(&scene, "PTA001L8") == 2).then_some(()));
    // Two copies of what is on that tape, asked for while an application has the drive.
    scene.operator.load("dr-ptl0", "PTA008L8", 0);
    let mut session = scene.operator.tape(TARGET);
    let schedule = "--policy deferred --schedule at_2101-01-01T00:00Z";
    for target in ["VTA005L8", "VTA006L8"] {
        done(&scene, &format!("copy set dr-ptl0:PTA001L8 vtl0:{target} {schedule}"));
        done(&scene, &format!("copy run dr-ptl0:PTA001L8 vtl0:{target}"));
    }
    until("both wait", || (waiting(&scene).len() == 2).then_some(()));
    session.close_tape().expect("it closes");
    drop(session);
    scene.operator.unload("dr-ptl0", 0);
    until("both are done", || {
        let rows = scene.pair.catalogue(Role::Local).copy_entries().expect("the map");
        rows.iter().all(|row| row.status == MapStatus::Done).then_some(())
    });
    until("the tape is back", || {
        scene.operator.inventory("dr-ptl0").iter().all(|(at, _)| *at >= 1024).then_some(())
    });
    // In and out once more, not twice.
    assert_eq!(moves(&scene, "PTA001L8"), 4);
    for target in ["VTA005L8", "VTA006L8"] {
        scene.operator.load("vtl0", target, 0);
        assert_eq!(scene.operator.read("vtl0/drive0"), data, "{target}");
        scene.operator.unload("vtl0", 0);
    }
    scene.at_rest();
}

#[test]
fn a_drive_that_goes_down_is_seen_here_and_copies_go_elsewhere() {
    let mut rng = Rng::new(seed("down"));
    let mut scene = scene("down", 2);
    // Said of each drive that is taken down.
    scene.pair.remote.allow("TWR-6021-E");
    scene.operator.wait_for("dr-ptl0");
    remotely(&scene, "drive down ptl0/drive0 --reason it_makes_a_noise");
    until("the drive is down here", || drive(&scene, 0).contains("makes a noise").then_some(()));
    let data = back_up(&scene, 1, &mut rng, 3);
    done(&scene, "copy set vtl0:VTA001L8 dr-ptl0:PTA001L8 --policy always");
    wait_copy(&scene, 1, MapStatus::Done);
    assert_eq!(ghost(&scene, 1), data);
    // With the other one down too, a copy waits, and goes on when a drive is brought up.
    remotely(&scene, "drive down ptl0/drive1");
    until("both are down", || drive(&scene, 1).contains("down").then_some(()));
    let data = back_up(&scene, 1, &mut rng, 4);
    let line = until("it waits", || Some(waiting(&scene)).filter(|line| line.len() == 1));
    until("it says for what", || {
        let reason = waiting(&scene).pop()?.reason?;
        reason.contains("out of service").then_some(())
    });
    println!("{line:?}");
    remotely(&scene, "drive up ptl0/drive0");
    wait_copy(&scene, 1, MapStatus::Done);
    assert_eq!(ghost(&scene, 1), data);
    assert!(!drive(&scene, 0).contains("down") && drive(&scene, 1).contains("down"));
}

#[test]
fn a_cartridge_is_exported_and_not_mounted_until_it_is_back() {
    let mut rng = Rng::new(seed("export"));
    let scene = scene("export", 2);
    scene.operator.wait_for("dr-ptl0");
    let data = back_up(&scene, 1, &mut rng, 3);
    let moved = done(&scene, "library export dr-ptl0:PTA001L8");
    assert_eq!(moved[0]["barcode"], "PTA001L8", "{moved}");
    let outside = scene.pair.catalogue(Role::Local).outside().expect("the rows");
    assert!(outside.len() == 1 && outside[0].place == OutsidePlace::Exported, "{outside:?}");
    let station = moved[0]["to"].as_u64().expect("an address");
    let seen = scene.operator.inventory("dr-ptl0");
    assert!(
        seen.iter().any(|(at, tag)| u64::from(*at) == station && tag == "PTA001L8"),
        "{seen:?}"
    );
    let (code, _, errors) = call(&scene, "library export dr-ptl0:PTA001L8");
    assert!(code == 1 && errors.contains("in the station already"), "{code} {errors}");
    done(&scene, "copy set vtl0:VTA001L8 dr-ptl0:PTA001L8 --policy always");
    until("the copy waits for the tape", || {
        copy(&scene, 1).message.filter(|text| text.contains("is exported"))
    });
    let moved = done(&scene, "library import dr-ptl0");
    assert_eq!(moved[0]["barcode"], "PTA001L8", "{moved}");
    assert_eq!(scene.pair.catalogue(Role::Local).outside().expect("the rows"), []);
    done(&scene, "copy run vtl0:VTA001L8 dr-ptl0:PTA001L8");
    wait_copy(&scene, 1, MapStatus::Done);
    assert_eq!(ghost(&scene, 1), data);
    let (code, _, errors) = call(&scene, "library import dr-ptl0");
    assert!(code == 1 && errors.contains("nothing lies"), "{code} {errors}");
}

#[test]
fn a_copy_says_that_its_tape_is_calibrated_and_how_far() {
    let mut rng = Rng::new(seed("calibration"));
    let scene = scene("calibration", 1);
    scene.operator.wait_for("dr-ptl0");
    scene.faults("drive0 load 1 calibrate 400");
    let data = back_up(&scene, 1, &mut rng, 3);
    done(&scene, "copy set vtl0:VTA001L8 dr-ptl0:PTA001L8 --policy always");
    let said = until("it says what it waits for", || {
        let filter = JobFilter::unfinished();
        let jobs = scene.pair.catalogue(Role::Local).jobs(&filter).expect("the jobs");
        jobs.into_iter().find_map(|job| job.message.filter(|text| text.ends_with('%')))
    });
    assert!(said.contains("makes dr-ptl0/PTA001L8 ready: "), "{said}");
    wait_copy(&scene, 1, MapStatus::Done);
    assert_eq!(ghost(&scene, 1), data);
}

/// Somebody at the far site goes to the station by hand while the engine there does not run:
/// `change` gets the full elements of the library, as its files tell them.
fn by_hand(scene: &mut Scene, change: impl FnOnce(&mut Vec<Value>)) {
    scene.pair.remote.terminate();
    let path = scene.pair.ghost_files().join("inventory.json");
    let text = std::fs::read_to_string(&path).expect("the inventory");
    let mut inventory: Value = serde_json::from_str(&text).expect("JSON");
    change(inventory["inventory"]["cells"].as_array_mut().expect("the full elements"));
    std::fs::write(&path, inventory.to_string()).expect("it is written");
    // A cartridge that is configured and not there would be made anew.
    let path = scene.pair.remote.config().to_owned();
    let text = std::fs::read_to_string(&path).expect("the configuration");
    std::fs::write(&path, text.replace("count = 8", "count = 7")).expect("it is written");
    scene.pair.remote.run();
    scene.operator.wait_for("dr-ptl0");
}

#[test]
fn a_cartridge_taken_from_the_station_is_off_site_until_it_is_in_a_slot_again() {
    let mut rng = Rng::new(seed("off site"));
    let mut scene = scene("offsite", 2);
    back_up(&scene, 8, &mut rng, 3);
    done(&scene, "copy set vtl0:VTA008L8 dr-ptl0:PTA008L8 --policy always");
    wait_copy(&scene, 8, MapStatus::Done);
    until("the tape is in its slot", || (moves(&scene, "PTA008L8") == 2).then_some(()));
    done(&scene, "library export dr-ptl0:PTA008L8");
    let mut taken = Vec::new();
    by_hand(&mut scene, |cells| {
        let is_it = |cell: &Value| cell["barcode"] == "PTA008L8";
        taken = cells.iter().filter(|cell| is_it(cell)).cloned().collect();
        cells.retain(|cell| !is_it(cell));
    });
    assert_eq!(taken.len(), 1);
    let place = |scene: &Scene| {
        let outside = scene.pair.catalogue(Role::Local).outside().expect("the rows");
        outside.first().map(|it| it.place)
    };
    until("it is off site", || (place(&scene) == Some(OutsidePlace::OffSite)).then_some(()));
    let data = back_up(&scene, 8, &mut rng, 4);
    until("the copy waits, and says where its tape is", || {
        copy(&scene, 8).message.filter(|text| text.contains("is off site since"))
    });
    let (code, _, errors) = call(&scene, "library import dr-ptl0");
    assert!(code == 1 && errors.contains("nothing lies"), "{code} {errors}");
    by_hand(&mut scene, |cells| {
        cells.append(&mut taken);
        cells.sort_by_key(|cell| cell["address"].as_u64());
    });
    until("it lies in the station", || {
        (place(&scene) == Some(OutsidePlace::Exported)).then_some(())
    });
    done(&scene, "library import dr-ptl0");
    assert_eq!(place(&scene), None);
    done(&scene, "copy run vtl0:VTA008L8 dr-ptl0:PTA008L8");
    wait_copy(&scene, 8, MapStatus::Done);
    assert_eq!(ghost(&scene, 8), data);
}

#[test]
fn a_drive_of_a_library_at_this_site_goes_down_and_comes_up() {
    let mut rng = Rng::new(seed("down here"));
    let mut scene = Scene::new("downhere", |local, remote| library_here(local, remote, "LPA"));
    // Said of each drive that is taken down.
    scene.pair.local.allow("TWR-6021-E");
    let health = done(&scene, "drive down here/drive0 --reason it_makes_a_noise");
    assert!(health[0]["condition"] == "down", "{health}");
    // It outlives the engine.
    scene.pair.local.terminate();
    scene.pair.local.run();
    let mut client = scene.operator.dial();
    let refused = client.open_tape("here/drive0", ndmp::wire::TapeOpenMode::Raw);
    assert!(refused.is_err(), "a drive that is down was opened");
    let data = back_up(&scene, 1, &mut rng, 3);
    done(&scene, "copy set vtl0:VTA001L8 here:LPA001L8 --policy always");
    until("the copy waits for the drive", || {
        let waiting = waiting(&scene).pop()?;
        waiting.reason.filter(|reason| reason.contains("out of service"))
    });
    done(&scene, "drive up here/drive0");
    wait_copy(&scene, 1, MapStatus::Done);
    let files = scene.pair.directory().join("here");
    assert_eq!(tests::read_tape(&files, "LPA001L8"), data);
    // Drives of others are not for this engine to say.
    for drive in ["vtl0/drive0", "dr-ptl0/drive0", "here/drive1", "here/changer", "nothing"] {
        let (code, _, errors) = call(&scene, &format!("drive down {drive}"));
        assert!(code == 1 && errors.contains("driven here"), "{drive}: {code} {errors}");
    }
}
