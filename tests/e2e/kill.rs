//! `kill -9` of either engine, at a moment that an event tells: nobody is left waiting, nobody is
//! told what is not so, and what was interrupted goes on or ends with its cause.
//!
//! A killed local engine takes the application's sessions with it: its copy has failed, and what is
//! on the tape is a first part. A killed remote engine comes back within the lease: the copy goes
//! on where the position of the tape can be proven, and fails otherwise. Replications always end
//! done.

use std::sync::mpsc::{Sender, channel};

use dma::{Client, DmaError};
use svs::JobState;
use tests::wait::PATIENCE;
use tests::{Direction, Item, Object, Rng, Role, full, read_tape, seed};

use crate::scene::{Copying, RECORD, SOURCE, Scene, TAPES, TARGET, VIRTUAL, first};

/// Records of the backup: 16 MiB, of which one tape holds about two thirds where it has an end.
const RECORDS: usize = 256;
const TAPE: &str = "11MiB";

/// What a copy is doing when an engine is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    WaitingForReplication,
    FirstRecord,
    MiddleOfRange,
    EndOfMedium,
    Flush,
}

fn kill(scene: &mut Scene, victim: Role) {
    println!("kill -9 of the {victim:?} engine");
    match victim {
        Role::Local => scene.pair.local.kill(),
        Role::Remote => scene.pair.remote.kill(),
    }
}

fn run_again(scene: &mut Scene, victim: Role) {
    // What slowed the drive down is over, and is not to be counted again.
    scene.faults("");
    scene.pair.relay.bandwidth(None);
    let mark = scene.pair.local.log().mark();
    match victim {
        Role::Local => scene.pair.local.run(),
        Role::Remote => scene.pair.remote.run(),
    }
    scene.pair.local.wait_line_from(mark, "link up");
}

/// Brings a new copy to the moment of the kill.
fn reach(scene: &Scene, phase: Phase, rng: &mut Rng) -> Copying {
    // Long enough to be killed in; nobody waits for it.
    let rule = |operation: &str| format!("* {operation} delay 1500\n");
    let mark = scene.pair.remote.log().mark();
    let stop_at = |operation: &str| {
        println!("stopped before {operation}");
        scene.faults(&rule(operation));
        let copying = scene.begin_copy();
        scene.wait_fault(mark, operation);
        copying
    };
    match phase {
        Phase::WaitingForReplication => {
            let (told, moment) = channel();
            let copying = scene.begin_copy();
            scene.wait_copy(JobState::WaitingReplication);
            let bytes = rng.between(1, 4 << 20);
            println!("stopped after {bytes} bytes to the other site");
            scene.pair.relay.at(Direction::Up, bytes, move || {
                told.send(()).unwrap_or_default();
            });
            moment.recv_timeout(PATIENCE).expect("the replication goes on");
            copying
        }
        Phase::FirstRecord => stop_at(&format!("write {}", rng.between(1, 2))),
        Phase::MiddleOfRange => stop_at(&format!("write {}", rng.between(10, 240))),
        Phase::Flush => {
            let point: &str = rng.pick::<&str>(&["flush 1", "filemarks 1"]);
            stop_at(point)
        }
        Phase::EndOfMedium => {
            let after = *rng.pick(&["", "unload 1", "move 1", "rewind 1", "write 1"]);
            println!("stopped at the end of the medium, {after}");
            let copying = scene.begin_copy();
            copying.paused();
            if !after.is_empty() {
                scene.faults(&rule(after));
                copying.go();
                scene.wait_fault(mark, after);
            }
            copying
        }
    }
}

/// The whole scene: a copy, a kill in a phase of it, and everything that has to hold afterwards.
fn copy_and_kill(victim: Role, phase: Phase, rng: &mut Rng) {
    let waits = phase == Phase::WaitingForReplication;
    let name = format!("kill-{victim:?}-{phase:?}").to_lowercase();
    let scene = Scene::new(&name, |_, remote| {
        if phase == Phase::EndOfMedium {
            first(remote, "physical_library").insert("capacity".into(), TAPE.into());
        }
    });
    let mut scene = scene.backed_up(rng, RECORDS, !waits);
    // A drive that lost its buffer stands where nobody can tell, and says so.
    scene.pair.remote.allow("TWR-5004-E");
    if waits {
        scene.pair.relay.bandwidth(Some(4 << 20));
    }
    let copying = reach(&scene, phase, rng);
    kill(&mut scene, victim);
    let outcome = match victim {
        Role::Local => {
            let outcome = copying.outcome();
            run_again(&mut scene, victim);
            outcome
        }
        Role::Remote => {
            run_again(&mut scene, victim);
            copying.outcome()
        }
    };
    judge(&scene, victim, phase, outcome.err());
    scene.works_again();
}

/// What both engines say afterwards is what is on the tapes.
fn judge(scene: &Scene, victim: Role, phase: Phase, error: Option<DmaError>) {
    scene.at_rest();
    scene.unload_ghost();
    let (here, there) = (scene.copy_row(Role::Local), scene.pair.copies(Role::Remote).pop());
    let on_tapes = scene.on_tapes();
    println!("{} records are on tape; {here:?}; {there:?}", on_tapes.len());
    assert!(scene.objects.starts_with(&on_tapes), "the tapes hold something else");
    assert!(error.is_some() || here.state == JobState::Done, "the application was told so");
    if here.state == JobState::Done {
        assert_eq!(on_tapes.len(), RECORDS, "done is on tape");
        let all = (RECORDS * RECORD) as u64;
        assert_eq!(here.bytes, all);
        // Whether more was to come, the remote does not know of a session that is gone.
        let there = there.expect("the remote wrote it");
        assert_eq!(there.bytes, all);
        assert!(there.state == JobState::Done || victim == Role::Local, "{there:#?}");
    }
    if there_is_a_copy(scene, Role::Remote) {
        for role in [Role::Local, Role::Remote] {
            let row = scene.copy_row(role);
            let flushed = row.flushed_bytes.unwrap_or(0);
            assert!(flushed <= (on_tapes.len() * RECORD) as u64, "{role:?} {row:#?}");
        }
    }
    if victim == Role::Remote && phase == Phase::WaitingForReplication {
        assert!(error.is_none(), "nothing was on tape yet, and the lease has not ended");
    }
}

fn there_is_a_copy(scene: &Scene, role: Role) -> bool {
    !scene.pair.copies(role).is_empty()
}

impl Scene {
    /// The records on the ghost tapes in their order, without the filemarks at their ends.
    fn on_tapes(&self) -> Vec<Object> {
        let files = self.pair.ghost_files();
        let all = TAPES.iter().flat_map(|tape| read_tape(&files, tape));
        all.filter(|object| *object != Object::Filemark).collect()
    }
}

fn copies(victim: Role, phase: Phase) {
    let name = format!("kill::{victim:?}::{phase:?}");
    let base = Rng::new(seed("kill"));
    for round in 0..full(1, 3) {
        println!("round {round}");
        copy_and_kill(victim, phase, &mut base.fork(&format!("{name}{round}")));
    }
}

#[test]
fn local_in_a_copy_that_waits_for_replication() {
    copies(Role::Local, Phase::WaitingForReplication);
}

#[test]
fn local_at_the_first_record() {
    copies(Role::Local, Phase::FirstRecord);
}

#[test]
fn local_in_the_middle_of_a_range() {
    copies(Role::Local, Phase::MiddleOfRange);
}

#[test]
fn local_at_the_end_of_the_medium() {
    copies(Role::Local, Phase::EndOfMedium);
}

#[test]
fn local_in_a_flush() {
    copies(Role::Local, Phase::Flush);
}

#[test]
fn remote_in_a_copy_that_waits_for_replication() {
    copies(Role::Remote, Phase::WaitingForReplication);
}

#[test]
fn remote_at_the_first_record() {
    copies(Role::Remote, Phase::FirstRecord);
}

#[test]
fn remote_in_the_middle_of_a_range() {
    copies(Role::Remote, Phase::MiddleOfRange);
}

#[test]
fn remote_at_the_end_of_the_medium() {
    copies(Role::Remote, Phase::EndOfMedium);
}

#[test]
fn remote_in_a_flush() {
    copies(Role::Remote, Phase::Flush);
}

/// Objects that an application writes one by one, and whether each was answered with success.
fn write_on(mut tape: Client, mut rng: Rng, told: &Sender<(Object, bool)>) {
    for number in 1.. {
        let item = match number % 6 {
            0 => Item::Filemark,
            _ => {
                let length = rng.between(1, 100_000);
                Item::Record(rng.bytes(length as usize))
            }
        };
        let done = match &item {
            Item::Record(bytes) => tape.write_block(bytes.clone().into()).map(drop),
            Item::Filemark => tape.write_filemarks(1),
        };
        if let Err(error) = &done {
            assert!(!matches!(error, DmaError::TimedOut(_)), "left waiting: {error}");
        }
        if told.send((item.object(), done.is_ok())).is_err() || done.is_err() {
            return;
        }
    }
}

/// Kills an engine while records go one by one to a drive; everything up to the last filemark that
/// was answered is on that tape once, and what is behind it is what was written.
fn write_and_kill(victim: Role, drive: &str, rng: &mut Rng) {
    let mut scene = Scene::new(&format!("kill-{victim:?}-write").to_lowercase(), |_, _| {});
    scene.pair.remote.allow("TWR-5004-E");
    scene.operator.load("vtl0", VIRTUAL, 0);
    scene.operator.load("dr-ptl0", TAPES[0], 0);
    let mut tape = scene.operator.tape(drive);
    tape.rewind().expect("the tape rewinds");
    let (told, answers) = channel();
    let (last, data) = (rng.between(1, 60) as usize, Rng::new(rng.next_u64()));
    println!("killed after {last} objects");
    let writer = std::thread::spawn(move || write_on(tape, data, &told));
    let next = || answers.recv_timeout(PATIENCE * 2);
    let mut all: Vec<Object> = (0..last).map(|_| next().expect("it is written").0).collect();
    kill(&mut scene, victim);
    run_again(&mut scene, victim);
    let mut safe = all.iter().rposition(|object| *object == Object::Filemark).map_or(0, |i| i + 1);
    while let Ok((object, done)) = next() {
        all.push(object.clone());
        if done && object == Object::Filemark {
            safe = all.len();
        }
        if !done {
            break;
        }
    }
    writer.join().expect("the application is told in time");
    let mut found = match drive {
        SOURCE => scene.operator.read(SOURCE),
        _ => {
            scene.unload_ghost();
            read_tape(&scene.pair.ghost_files(), TAPES[0])
        }
    };
    println!("{} objects of {}, {safe} of them safe", found.len(), all.len());
    if !all.starts_with(&found) {
        // Behind the last record stands the mark of a drive that was closed after a write.
        assert_eq!(found.pop(), Some(Object::Filemark));
    }
    assert!(found.len() >= safe && all.starts_with(&found), "something else is on the tape");
    if drive == SOURCE {
        scene.operator.unload("vtl0", 0);
        scene.pair.wait_replicated(VIRTUAL);
    }
    scene.at_rest();
}

fn writes(victim: Role, drive: &str) {
    let base = Rng::new(seed("kill"));
    for round in 0..full(2, 6) {
        println!("round {round}");
        write_and_kill(victim, drive, &mut base.fork(&format!("write {victim:?} {round}")));
    }
}

#[test]
fn local_while_a_virtual_tape_is_written() {
    writes(Role::Local, SOURCE);
}

#[test]
fn local_while_a_ghost_tape_is_written() {
    writes(Role::Local, TARGET);
}

#[test]
fn remote_while_a_ghost_tape_is_written() {
    writes(Role::Remote, TARGET);
}

/// Where a replication is when an engine is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Wanted, and the link is down.
    Waiting,
    /// The first chunks are on the wire.
    First,
    /// Somewhere in its data.
    Middle,
    /// The receiver makes it a generation of its own.
    Commit,
}

fn replicate_and_kill(victim: Role, way: Way, rng: &mut Rng) {
    let name = format!("kill-{victim:?}-replication-{way:?}").to_lowercase();
    let scene = Scene::new(&name, |_, _| {});
    let mut scene = scene.backed_up(rng, RECORDS, false);
    let total = (RECORDS * RECORD) as u64;
    let mark = scene.pair.remote.log().mark();
    let bytes = match way {
        Way::Waiting | Way::Commit => None,
        Way::First => Some(rng.between(1, 200_000)),
        Way::Middle => Some(rng.between(200_000, total - 200_000)),
    };
    println!("killed after {bytes:?} bytes");
    let (told, moment) = channel();
    let (go, gone) = channel::<()>();
    if let Some(bytes) = bytes {
        scene.pair.relay.at(Direction::Up, bytes, move || {
            told.send(()).unwrap_or_default();
            // Nothing passes until the engine is dead.
            gone.recv_timeout(PATIENCE).unwrap_or_default();
        });
    }
    if way == Way::Waiting {
        scene.pair.relay.part();
    }
    scene.operator.unload("vtl0", 0);
    match way {
        Way::Waiting => {}
        Way::First | Way::Middle => moment.recv_timeout(PATIENCE).expect("bytes on the wire"),
        Way::Commit => {
            let step = *rng.pick(&["every chunk is here", "the store has it", "the rows say so"]);
            println!("killed when {step}");
            scene.pair.remote.wait_line_from(mark, &format!("commit: {step}"));
        }
    }
    kill(&mut scene, victim);
    drop(go);
    scene.pair.relay.join();
    run_again(&mut scene, victim);
    scene.pair.wait_replicated(VIRTUAL);
    scene.at_rest();
    for role in [Role::Local, Role::Remote] {
        let jobs = scene.replications(role);
        assert!(jobs.iter().any(|job| job.state == JobState::Done), "{role:?}: {jobs:#?}");
    }
    scene.unload_ghost();
    scene.operator.load("vtl0", VIRTUAL, 0);
    // Every chunk is there: the copy is made of them alone.
    scene.works_again();
}

fn replications(victim: Role, way: Way) {
    let base = Rng::new(seed("kill"));
    for round in 0..full(1, 3) {
        println!("round {round}");
        let name = format!("kill::{victim:?}::replication::{way:?}{round}");
        replicate_and_kill(victim, way, &mut base.fork(&name));
    }
}

#[test]
fn local_before_a_replication() {
    replications(Role::Local, Way::Waiting);
}

#[test]
fn local_at_the_first_chunk_of_a_replication() {
    replications(Role::Local, Way::First);
}

#[test]
fn local_in_the_middle_of_a_replication() {
    replications(Role::Local, Way::Middle);
}

#[test]
fn local_at_the_commit_of_a_replication() {
    replications(Role::Local, Way::Commit);
}

#[test]
fn remote_before_a_replication() {
    replications(Role::Remote, Way::Waiting);
}

#[test]
fn remote_at_the_first_chunk_of_a_replication() {
    replications(Role::Remote, Way::First);
}

#[test]
fn remote_in_the_middle_of_a_replication() {
    replications(Role::Remote, Way::Middle);
}

#[test]
fn remote_at_the_commit_of_a_replication() {
    replications(Role::Remote, Way::Commit);
}
