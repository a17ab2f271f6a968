//! A cartridge goes to the other site while it is written; little is left when it is unloaded.

use tests::wait::{self, PATIENCE};
use tests::{Content, Direction, Role, Texture, seed, start_replication};

use crate::scene::{RECORD, SOURCE, Scene, VIRTUAL};

const LENGTH: u64 = 64 << 20;
/// What may be left at the unload: a batch, a journal frame, and what the crew has in hand.
const LEFT: u64 = 24 << 20;

fn scene(name: &str) -> Scene {
    Scene::new(name, |local, _| start_replication(local, "while-writing"))
}

fn content(seed: u64) -> Content {
    Content::new(Texture::Incompressible, seed, LENGTH)
}

/// Waits until all but what may be left is at the other site; bytes on the wire from `before`.
fn wait_ahead(scene: &Scene, before: u64) -> u64 {
    wait::until_within(PATIENCE, "data goes ahead", || {
        let wire = scene.pair.relay.total() - before;
        (wire > LENGTH - LEFT).then_some(wire)
    })
}

/// Unloads it; bytes on the wire until it is replicated.
fn finish(scene: &Scene) -> u64 {
    let before = scene.pair.relay.total();
    scene.operator.unload("vtl0", 0);
    scene.pair.wait_replicated(VIRTUAL);
    scene.pair.relay.total() - before
}

#[test]
fn little_is_left_at_the_unload() {
    let content = content(seed("ahead"));
    let scene = scene("ahead");
    scene.operator.load("vtl0", VIRTUAL, 0);
    let before = scene.pair.relay.total();
    scene.operator.backup(SOURCE, RECORD as u32, content.reader());
    let early = wait_ahead(&scene, before);
    // Nobody was promised anything yet.
    assert!(scene.replications(Role::Local).is_empty());
    assert!(scene.replications(Role::Remote).is_empty());
    let late = finish(&scene);
    assert!(late < LEFT && early + late < LENGTH * 11 / 10, "{early} before, {late} after");
    let jobs = (scene.replications(Role::Local), scene.replications(Role::Remote));
    assert_eq!((jobs.0.len(), jobs.1.len()), (1, 1), "{jobs:#?}");
    assert_eq!(jobs.0[0].id, jobs.1[0].id);
    scene.check_copy(&content);
    scene.at_rest();
}

/// What was sent of a backup that is begun again is not what is sealed.
#[test]
fn a_backup_that_begins_again_is_sent_as_it_ended() {
    let seed = seed("ahead");
    let scene = scene("again");
    scene.operator.load("vtl0", VIRTUAL, 0);
    for round in 0..2 {
        let before = scene.pair.relay.total();
        scene.operator.backup(SOURCE, RECORD as u32, content(seed + round).reader());
        wait_ahead(&scene, before);
    }
    // Some of what was waited for was still of the first round.
    let late = finish(&scene);
    assert!(late < 2 * LEFT, "{late}");
    scene.check_copy(&content(seed + 1));
    scene.at_rest();
}

#[test]
fn what_went_ahead_survives_a_broken_link_and_both_restarts() {
    let content = content(seed("ahead"));
    let mut scene = scene("restart");
    scene.operator.load("vtl0", VIRTUAL, 0);
    let before = scene.pair.relay.total();
    let cut = scene.pair.relay.scissors();
    scene.pair.relay.at(Direction::Up, LENGTH / 3, cut);
    scene.operator.backup(SOURCE, RECORD as u32, content.reader());
    wait_ahead(&scene, before);
    scene.pair.remote.kill();
    scene.pair.remote.run();
    scene.operator.wait_for("dr-ptl0");
    scene.pair.local.kill();
    scene.pair.local.run();
    scene.operator.wait_for("dr-ptl0");
    let late = finish(&scene);
    let all = scene.pair.relay.total() - before;
    // A window is sent twice at most each time, and recipes are short.
    assert!(late < LENGTH && all < LENGTH * 2, "{late} of {all}");
    scene.check_copy(&content);
    scene.at_rest();
}
