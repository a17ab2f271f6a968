//! Later generations go as differences to what the other site has, and arrive byte for byte.

use std::fs;

use tests::{Content, Object, Role, Texture, read_tape, seed};

use crate::scene::{RECORD, SOURCE, Scene, TAPES, VIRTUAL};
use crate::upkeep::{containers, store};

const OTHER: &str = "VTA002L8";
const LENGTH: u64 = 24 << 20;

/// Text, since random bytes have nothing in common with what they replace.
fn first(seed: u64) -> Content {
    Content::new(Texture::Compressible, seed, LENGTH)
}

/// A few short places are others now.
fn second(content: &Content, seed: u64) -> Content {
    let edit = |content: Content, n: u64| content.overwrite(n * 2_000_000 + 77, 300, seed + n);
    (1..10).fold(content.clone(), edit)
}

/// Writes it to a cartridge and waits until the other site has it; bytes on the wire meanwhile.
fn back_up(scene: &Scene, barcode: &str, content: &Content) -> u64 {
    scene.operator.load("vtl0", barcode, 0);
    let before = scene.pair.relay.total();
    scene.operator.backup(SOURCE, RECORD as u32, content.reader());
    scene.operator.unload("vtl0", 0);
    scene.pair.wait_replicated(barcode);
    scene.pair.relay.total() - before
}

/// A copy of it to tape is made at the other site and is right.
fn check(scene: &mut Scene, barcode: &str, content: &Content) {
    scene.operator.load("vtl0", barcode, 0);
    scene.operator.load("dr-ptl0", TAPES[0], 0);
    scene.begin_copy().outcome().expect("the copy is done");
    scene.unload_ghost();
    let bytes = content.to_vec();
    let records = bytes.chunks(RECORD).map(Object::record);
    let found = read_tape(&scene.pair.ghost_files(), TAPES[0]);
    assert!(records.chain([Object::Filemark]).eq(found), "the tape differs");
}

#[test]
fn what_changed_goes_and_not_what_it_stands_in() {
    let seed = seed("differences");
    let mut scene = Scene::new("differences", |_, _| {});
    let night = first(seed);
    let all = back_up(&scene, VIRTUAL, &night);
    assert!(all > LENGTH / 20, "{all}");
    let next = second(&night, seed);
    let wire = back_up(&scene, VIRTUAL, &next);
    // Chunk by chunk it would be 9 times 16 KiB at least, compressed.
    assert!(wire < 20_000, "{wire} of {all}");
    check(&mut scene, VIRTUAL, &next);
}

#[test]
fn the_same_job_on_another_cartridge_costs_as_little() {
    let seed = seed("differences");
    let mut scene = Scene::new("cartridges", |_, _| {});
    let night = first(seed);
    let all = back_up(&scene, VIRTUAL, &night);
    let next = second(&night, seed);
    let wire = back_up(&scene, OTHER, &next);
    assert!(wire < 20_000, "{wire} of {all}");
    check(&mut scene, OTHER, &next);
}

/// The old bytes can not be read at the other site: the generation is sent without them, and what
/// was found to be damaged there is sent again.
#[test]
fn a_damaged_base_is_done_without() {
    let seed = seed("differences");
    let mut scene = Scene::new("base", |_, remote| {
        // Nothing looks for damage before the transfer does.
        let mut store = toml::Table::new();
        store.insert("check_rate".into(), 0.into());
        remote.insert("store".into(), store.into());
    });
    let night = first(seed);
    back_up(&scene, VIRTUAL, &night);
    assert!(scene.pair.remote.terminate().success());
    for file in containers(&scene, Role::Remote) {
        let mut bytes = fs::read(&file).expect("a container");
        // Everything but headers and footer, as far as a step of 512 bytes can tell.
        let end = bytes.len() / 10 * 9;
        bytes[1000..end].iter_mut().step_by(512).for_each(|byte| *byte ^= 1);
        fs::write(file, bytes).expect("it is changed");
    }
    scene.pair.remote.run();
    scene.operator.wait_for("dr-ptl0");
    let next = second(&night, seed);
    back_up(&scene, VIRTUAL, &next);
    scene.pair.local.wait_line("told again, without a base");
    let stat = store(&scene, Role::Remote, "stat").1;
    assert_eq!(stat["generations"].as_u64(), Some(2), "{stat:#}");
}
