//! Every dialogue of a tape-to-tape copy, played against two engines by a small application of the
//! test, over a grid of seeded cases: versions, who listens, virtual, ghost and foreign ends,
//! record sizes, windows, literals, filemarks, appends, ends of the medium, changes of tapes and
//! drives. What is on the tapes afterwards, and what is said on the way, has to be what a simple
//! model makes of the case.
//!
//! A case is repeated with `TWINREEL_SEED` and `TWINREEL_CASE`, as a failure prints them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod case;
mod found;
mod model;
mod player;
mod stage;
mod tapes;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use case::{Case, Counts, SWEEP};
use model::Plan;
use stage::{Dock, Stage};
use tests::{full, seed};

/// Cases that are played at once.
const WORKERS: u16 = 4;

/// Plays these cases; says which failed.
fn play_all(stage: &Stage, seed: u64, counts: Counts, only: Option<u64>) {
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let work = |worker: u16| {
        let mut dock = Dock::new(stage, worker);
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= counts.all() {
                return;
            }
            if only.is_some_and(|only| only != number) {
                continue;
            }
            let case = counts.case(seed, number);
            let played = catch_unwind(AssertUnwindSafe(|| {
                let plan = Plan::of(&case);
                player::play(&case, &plan, &mut dock);
            }));
            if played.is_err() {
                failed.store(true, Ordering::Relaxed);
                println!("case {number} has failed: TWINREEL_SEED={seed} TWINREEL_CASE={number}");
                println!("{}", describe(&case));
                // Nobody knows how this worker's drives were left.
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|i| scope.spawn(move || work(i))).collect();
        workers.into_iter().for_each(|worker| worker.join().expect("a worker ends"));
    });
    assert!(!failed.load(Ordering::Relaxed), "a case has failed");
}

fn describe(case: &Case) -> String {
    let legs = case.legs.iter().map(|leg| {
        format!(
            "{} to {} bytes, ranges {:?}, reads {:?}, {} foreign, empty window {}, steps {:?}",
            leg.source_record,
            leg.target_record,
            leg.ranges,
            leg.reads,
            leg.foreign.len(),
            leg.empty_window,
            leg.steps
                .iter()
                .map(|s| (s.marks, s.change, s.stay, s.forced, s.literals.len(), s.window))
                .collect::<Vec<_>>()
        )
    });
    let legs: Vec<_> = legs.collect();
    let version = player::version_name(case.version);
    format!("{version} {:?} to {:?}: {}", case.source, case.target, legs.join("; "))
}

#[test]
fn every_dialogue_makes_the_tapes_and_says_what_the_model_does() {
    let seed = seed("every_dialogue");
    let only = std::env::var("TWINREEL_CASE").ok().map(|text| text.parse().expect("a number"));
    let (large, part) = full((1, 16 << 20), (16, 64 << 20));
    let (sweep, random) = full((104, 112), (SWEEP, 1200));
    let counts = Counts { large, part, sweep, random };
    let stage = Stage::new("dialogues", WORKERS);
    play_all(&stage, seed, counts, only);
    println!("{} cases", counts.all());
}
