//! Dialogues that went wrong once.

use dma::Version;
use tests::{Item, Rng, seed};

use crate::case::{Case, Change, Leg, Place, Range, SMALL, Step, ZONE, record};
use crate::model::Plan;
use crate::player;
use crate::stage::{Dock, Stage};

const ALL: Range =
    Range { reel: 0, file: 0, skip: 0, read: false, bytes: None, absolute: true, switch: false };

/// One connection in which nothing is special: the first byte pauses the target, which then writes
/// to the end.
fn leg(size: u32) -> Leg {
    Leg {
        target_listens: true,
        local: false,
        source_record: size,
        target_record: size,
        ranges: Vec::new(),
        reads: Vec::new(),
        foreign: Vec::new(),
        empty_window: true,
        late_window: false,
        steps: Vec::new(),
        marks: 1,
    }
}

fn case(source: Place, target: Place, leg: Leg) -> Case {
    Case {
        version: Version::V4,
        source,
        target,
        reels: Vec::new(),
        small: false,
        before: Vec::new(),
        start: 0,
        legs: vec![leg],
    }
}

/// The case with a small first tape on which so many bytes are free.
fn on_small(case: Case, free: u64) -> Case {
    let fill = (SMALL - free) as usize;
    let before = vec![Item::Record(vec![0xf1; fill]), Item::Filemark];
    Case { small: true, before, start: 1, ..case }
}

fn rng(name: &str) -> Rng {
    Rng::new(seed("dialogues")).fork(name)
}

/// A tape of one file.
fn file(rng: &mut Rng, size: u64, count: usize) -> Vec<Vec<Item>> {
    let records = (0..count).map(|_| record(rng, size));
    vec![records.chain([Item::Filemark]).collect()]
}

fn play(name: &str, cases: &[Case]) {
    let stage = Stage::new(name, 1);
    let mut dock = Dock::new(&stage, 0);
    for case in cases {
        player::play(case, &Plan::of(case), &mut dock);
    }
}

/// What the other site said of the stream while the application looked at the tape was lost.
#[test]
fn a_foreign_stream_goes_on_after_a_look_at_the_tape() {
    let foreign = rng("look").bytes(700_000);
    let cases = vec![case(Place::Foreign, Place::Ghost, Leg { foreign, ..leg(65_536) }); 4];
    play("look", &cases);
}

/// The answer to the stream's first opening went to the drive that was left.
#[test]
fn a_foreign_stream_goes_on_in_another_drive_before_its_first_byte_is_written() {
    let foreign = rng("switch").bytes(700_000);
    let step = Step { change: Some(Change::Switch), ..Step::default() };
    let leg = Leg { foreign, steps: vec![step], ..leg(65_536) };
    play("switch", &vec![case(Place::Foreign, Place::Ghost, leg); 4]);
}

/// The end of the medium was told though nothing was left to write.
#[test]
fn a_foreign_stream_that_ends_beyond_early_warning_has_ended() {
    let size = 4096;
    let foreign = rng("warning").bytes(3 * size as usize);
    let case = case(Place::Foreign, Place::Ghost, Leg { foreign, ..leg(size) });
    play("warning", &[on_small(case, ZONE + 2 * u64::from(size) + 1)]);
}

/// The row did not name the last tape, when all that went on it had left the source before.
#[test]
fn the_row_names_a_tape_that_only_the_rest_went_on() {
    let mut rng = rng("rest");
    let cases = [Place::Virtual, Place::Ghost].map(|target| {
        let leg = Leg { ranges: vec![ALL], ..leg(65_536) };
        let reels = file(&mut rng, 50_000, 4);
        let case = Case { reels, ..case(Place::Virtual, target, leg) };
        // Three records, and not the rest of 3392 bytes.
        on_small(case, 3 * 65_536 + 100)
    });
    play("rest", &cases);
}

/// A record of which a read took a part was not counted as passed: the next read went to the wrong
/// place.
#[test]
fn reads_inside_of_records_find_their_place() {
    let mut rng = rng("reads");
    let reads = vec![(19_737, 584), (33_564, 632), (26_800, 0)];
    let cases = [Place::Foreign, Place::Virtual].map(|target| {
        let leg = Leg { ranges: vec![ALL], reads: reads.clone(), ..leg(1024) };
        Case { reels: file(&mut rng, 1024, 35), ..case(Place::Virtual, target, leg) }
    });
    play("reads", &cases);
}

/// The row named what was in a ghost drive before the changer had moved.
#[test]
fn the_row_names_the_ghost_tape_that_was_just_put_in() {
    let foreign = rng("swap").bytes(300_000);
    let leg = Leg { foreign, ..leg(65_536) };
    let case = on_small(case(Place::Foreign, Place::Ghost, leg), 2 * 65_536);
    play("swap", &vec![case; 10]);
}
