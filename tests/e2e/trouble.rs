//! An application that goes away, sources that change, tapes that end: one outcome each at the
//! application, in the job's row and on the tape.

use dma::DmaError;
use ndmp::wire::{ErrorCode, TapeOpenMode};
use svs::{CopyPath, JobState};
use tests::{Relay, Rng, Role, read_tape, seed};

use crate::scene::{Copying, RECORD, SOURCE, Scene, TAPES, TARGET, first};

/// Both drives of a copy can be opened by the next one.
fn drives_are_free(scene: &Scene) {
    tests::wait::until("the drives are free", || {
        let mut next = scene.operator.dial();
        for drive in [SOURCE, TARGET] {
            match next.open_tape(drive, TapeOpenMode::Raw) {
                Err(error) if error.code() == Some(ErrorCode::DeviceBusy) => return None,
                opened => opened.expect("the drive opens"),
            }
            next.close_tape().expect("it closes");
        }
        Some(())
    });
}

#[test]
fn an_application_that_goes_leaves_a_failed_copy_and_free_drives() {
    let mut rng = Rng::new(seed("trouble")).fork("gone");
    let scene = Scene::with_backup("gone", &mut rng, 200, true);
    let slow = rng.between(5, 60);
    scene.faults(&format!("drive0 write {slow}.. delay 20"));
    let mark = scene.pair.remote.log().mark();
    let way = Relay::to(scene.pair.ndmp());
    let application = scene.operator.clone().by_way_of(way.address());
    let copying = Copying::begin(&application, TARGET);
    scene.wait_fault(mark, &format!("write {slow}"));
    way.part();
    let error = copying.outcome().expect_err("its sessions are gone");
    assert!(matches!(error, DmaError::Closed(_) | DmaError::Io(_)), "{error}");
    drives_are_free(&scene);
    let job = scene.wait_copy(JobState::Failed);
    let row = scene.copy_row(Role::Local);
    let cause = row.message.unwrap_or_default();
    assert!(cause.contains("session") && cause.contains("flushed"), "{cause}");
    scene.at_rest();
    scene.unload_ghost();
    let on_tape = scene.is_prefix(TAPES[0]) as u64;
    // It ends at a record boundary at once, not with what it was to write.
    assert!((slow - 1..200).contains(&on_tape), "{on_tape} of {slow}");
    assert_eq!(row.flushed_bytes, Some(on_tape * RECORD as u64), "{job:#?}");
    scene.works_again();
}

#[test]
fn a_copy_whose_application_goes_while_it_waits_never_begins() {
    let mut rng = Rng::new(seed("trouble")).fork("waiting");
    let scene = Scene::new("gone-waiting", |local, _| {
        let replication = "start = \"manual\"".parse().expect("a table");
        local.insert("replication".into(), toml::Value::Table(replication));
    });
    let scene = scene.backed_up(&mut rng, 200, false);
    scene.pair.relay.bandwidth(Some(1 << 20));
    let way = Relay::to(scene.pair.ndmp());
    let application = scene.operator.clone().by_way_of(way.address());
    let copying = Copying::begin(&application, TARGET);
    scene.wait_copy(JobState::WaitingReplication);
    way.part();
    copying.outcome().expect_err("its sessions are gone");
    drives_are_free(&scene);
    scene.wait_copy(JobState::Failed);
    scene.pair.relay.bandwidth(None);
    scene.at_rest();
    scene.unload_ghost();
    assert_eq!(read_tape(&scene.pair.ghost_files(), TAPES[0]), []);
    scene.works_again();
}

#[test]
fn a_source_that_was_overwritten_is_copied_as_it_is_now() {
    let mut rng = Rng::new(seed("trouble")).fork("overwritten");
    let mut scene = Scene::with_backup("overwritten", &mut rng, 120, true);
    for records in [150, 40] {
        // The site has what was there before, and nobody has unloaded the tape since.
        scene.overwrite(&mut rng, records);
        let report = scene.begin_copy().outcome().expect("the copy succeeds");
        assert_eq!(report.bytes(), (records * RECORD) as u64);
        let job = scene.copy_job(Role::Local);
        assert_eq!((job.state, job.path), (JobState::Done, Some(CopyPath::Offloaded)), "{job:#?}");
        // The tape was loaded a moment ago.
        assert_eq!(job.target, format!("dr-ptl0/{}", TAPES[0]));
        scene.unload_ghost();
        assert!(read_tape(&scene.pair.ghost_files(), TAPES[0]) == scene.objects);
        scene.operator.load("dr-ptl0", TAPES[0], 0);
    }
    scene.at_rest();
}

/// A copy to a tape that is full stands at its end when the application goes, and with `cut` the
/// link is down then.
fn full_tape(name: &str, cut: bool) {
    let mut rng = Rng::new(seed("trouble")).fork(name);
    let scene = Scene::new(name, |_, remote| {
        let library = first(remote, "physical_library");
        library.insert("capacity".into(), "8MiB".into());
        library.insert("early_warning".into(), "1MiB".into());
    });
    let scene = scene.backed_up(&mut rng, 200, true);
    let way = Relay::to(scene.pair.ndmp());
    let application = scene.operator.clone().by_way_of(way.address());
    let copying = Copying::begin(&application, TARGET);
    let position = copying.paused();
    assert_eq!(scene.wait_copy(JobState::PausedEom).bytes, position);
    let mark = scene.pair.local.log().mark();
    if cut {
        scene.pair.relay.part();
        scene.pair.local.wait_line_from(mark, "link down");
    }
    // The operator gives up.
    way.part();
    copying.outcome().expect_err("there is no other tape");
    scene.wait_copy(JobState::Failed);
    if cut {
        scene.pair.relay.join();
        scene.pair.local.wait_line_from(mark, "link up");
    }
    drives_are_free(&scene);
    scene.at_rest();
    scene.unload_ghost();
    let on_tape = scene.is_prefix(TAPES[0]) as u64 * RECORD as u64;
    for role in [Role::Local, Role::Remote] {
        let row = scene.copy_row(role);
        assert_eq!((on_tape, row.flushed_bytes), (position, Some(position)), "{role:?} {row:#?}");
    }
}

#[test]
fn a_full_tape_without_another_ends_a_copy_that_says_what_is_safe() {
    full_tape("full", false);
}

#[test]
fn a_site_hears_later_that_nobody_changes_its_full_tape() {
    full_tape("full-cut", true);
}
