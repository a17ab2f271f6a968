//! Loss of power at every point: what was acknowledged is there, and nothing is torn.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::Arc;

use model::GenerationId;
use store::{Damage, Image, Result, Store};
use support::{Item, Random, Tape, cartridge, number, open_as, read_all, write};
use vfs::{CrashMode, CrashVfs, Vfs};

/// What is known of a cartridge while a workload runs.
#[derive(Clone, Default)]
struct Known {
    tape: Tape,
    /// Contents that a crash may leave: the last acknowledged one first, then every state since.
    possible: Vec<Vec<Item>>,
    /// Sealed generations that were answered.
    sealed: Vec<(GenerationId, Vec<Item>)>,
    /// What is being sealed now: there as a whole or not at all.
    sealing: Option<Vec<Item>>,
    /// What is being deleted now: there as a whole or not at all.
    deleting: Option<(GenerationId, Vec<Item>)>,
}

impl Known {
    fn acknowledged(&mut self) {
        self.possible = vec![self.tape.items.clone()];
    }

    fn state(&mut self) {
        self.possible.push(self.tape.items.clone());
    }
}

struct Run {
    store: Store,
    images: Vec<Image>,
    known: Vec<Known>,
}

const CARTRIDGES: u64 = 2;

/// One step of the workload on cartridge `n`; an error is the power that went.
fn step(run: &mut Run, n: usize, random: &mut Random) -> Result<()> {
    let (image, known) = (&mut run.images[n], &mut run.known[n]);
    match random.below(13) {
        0..=4 => {
            for _ in 0..random.below(5) + 1 {
                let item = (random.below(6) > 0).then(|| random.record(4000));
                known.tape.write(item.clone());
                known.state();
                write(image, &item)?;
            }
        }
        5 | 6 => {
            image.flush()?;
            known.acknowledged();
        }
        7 => {
            let object = random.below(known.tape.items.len() as u64 + 1);
            known.tape.at = image.locate(object)? as usize;
        }
        8 => {
            known.sealing = Some(known.tape.items.clone());
            if let Some(id) = image.seal()? {
                known.sealed.push((id, known.tape.items.clone()));
            }
            known.acknowledged();
            known.sealing = None;
        }
        9 if known.sealed.len() > 1 => {
            let which = random.below(known.sealed.len() as u64 - 1) as usize;
            let (id, items) = known.sealed.remove(which);
            known.deleting = Some((id, items));
            run.store.delete_generation(id)?;
            known.deleting = None;
        }
        10 => {
            let percent = random.below(101) as u8;
            run.store.collect(percent, &|| false)?;
        }
        11 if !known.sealed.is_empty() => {
            let (id, _) = &known.sealed[random.below(known.sealed.len() as u64) as usize];
            // As few reads as can be, so that there is something to move.
            run.store.rewriting(1, 100)?.generation(*id, &mut |_| true)?;
        }
        _ => {
            known.tape.items.truncate(known.tape.at);
            known.state();
            image.erase()?;
        }
    }
    Ok(())
}

/// Runs a workload until the power goes (`stop` mutating operations after the store was made) or
/// it ends. Returns what is known, and how many operations it took.
fn workload(vfs: &CrashVfs, seed: u64, stop: Option<u64>, sealed: bool) -> (Vec<Known>, u64) {
    let shared: Arc<dyn Vfs> = Arc::new(vfs.clone());
    let (store, _) = open_as(shared, sealed).unwrap();
    let images = (0..CARTRIDGES).map(|n| store.image(cartridge(n)).unwrap()).collect();
    let known =
        (0..CARTRIDGES).map(|_| Known { possible: vec![Vec::new()], ..Known::default() }).collect();
    let mut run = Run { store, images, known };
    let before = vfs.operations();
    stop.into_iter().for_each(|n| vfs.stop_at(n));
    let mut random = Random::new(seed);
    for _ in 0..60 {
        let n = random.below(CARTRIDGES) as usize;
        if step(&mut run, n, &mut random).is_err() {
            assert!(vfs.is_stopped());
            break;
        }
    }
    let operations = vfs.operations() - before;
    drop(run.images);
    drop(run.store);
    (run.known, operations)
}

/// Opens what the crash left and compares.
fn check(vfs: &CrashVfs, known: &[Known], sealed: bool, context: &str) {
    let shared: Arc<dyn Vfs> = Arc::new(vfs.clone());
    let (store, report) =
        open_as(shared, sealed).unwrap_or_else(|error| panic!("{context}: {error}"));
    for damage in &report.damage {
        // Unsynced bytes of the last container may survive in any part.
        assert!(matches!(damage, Damage::Container { .. }), "{context}: {damage:?}");
    }
    for (n, known) in known.iter().enumerate() {
        let cartridge = cartridge(n as u64);
        for (id, items) in &known.sealed {
            let mut reader = store.reader(*id).unwrap_or_else(|e| panic!("{context}: {e}"));
            assert!(read_all(&mut reader).unwrap() == *items, "{context}");
        }
        for info in store.generations(cartridge) {
            let answered = known.sealed.iter().any(|(id, _)| *id == info.id);
            let items = read_all(&mut store.reader(info.id).unwrap()).unwrap();
            let deleting =
                known.deleting.as_ref().is_some_and(|it| *it == (info.id, items.clone()));
            let fits = answered || deleting || known.sealing == Some(items);
            assert!(fits, "{context}: unknown generation");
        }
        let mut image = store.image(cartridge).unwrap_or_else(|e| panic!("{context}: {e}"));
        let found = read_all(&mut image).unwrap_or_else(|e| panic!("{context}: {e}"));
        assert!(known.possible.contains(&found), "{context}: {} objects", found.len());
        // The recovered cartridge can be gone on with, sealed and read.
        image.write(b"after the crash").unwrap();
        let id = image.seal().unwrap().unwrap();
        let mut expected = found;
        expected.push(Some(b"after the crash".to_vec()));
        let read = read_all(&mut store.reader(id).unwrap()).unwrap();
        assert!(read == expected, "{context}");
    }
}

fn crashes(sealed: bool) {
    let seed = support::seed(2);
    let points = number("TWINREEL_CRASH_POINTS", 300);
    let mut random = Random::new(seed);
    let (mut done, mut round) = (0, 0);
    while done < points {
        let workload_seed = seed.wrapping_mul(1000) + round;
        let (_, operations) = workload(&CrashVfs::new(), workload_seed, None, sealed);
        // Every point of the first workload as far as the number allows, then samples.
        let all = round == 0 && operations * 2 <= points;
        let stops: Vec<u64> = match all {
            true => (1..=operations).collect(),
            false => (0..40).map(|_| 1 + random.below(operations)).collect(),
        };
        for stop in stops {
            let vfs = CrashVfs::new();
            let (known, _) = workload(&vfs, workload_seed, Some(stop), sealed);
            let mode = CrashMode::ALL[random.below(CrashMode::ALL.len() as u64) as usize];
            let crash_seed = random.next();
            let context = format!(
                "TWINREEL_SEED={seed} workload {workload_seed} stop {stop} {mode:?} {crash_seed}"
            );
            check(&vfs.crash(mode, crash_seed), &known, sealed, &context);
            done += 1;
        }
        round += 1;
    }
}

#[test]
fn what_was_acknowledged_survives_a_crash_at_any_point() {
    crashes(false);
}

#[test]
fn what_was_acknowledged_survives_a_crash_at_any_point_encrypted() {
    crashes(true);
}

/// The power goes again while the store recovers from the first loss.
fn crashes_while_recovering(sealed: bool) {
    let seed = support::seed(3);
    let mut random = Random::new(seed);
    for round in 0..number("TWINREEL_CRASH_POINTS", 300) / 10 {
        let workload_seed = seed.wrapping_mul(77) + round;
        let vfs = CrashVfs::new();
        let stop = 1 + random.below(120);
        let (known, _) = workload(&vfs, workload_seed, Some(stop), sealed);
        let mut image = vfs.crash(CrashMode::ALL[(round % 4) as usize], random.next());
        let context = format!("TWINREEL_SEED={seed} workload {workload_seed} stop {stop}");
        for second in 1..6 {
            image.stop_at(second);
            let shared: Arc<dyn Vfs> = Arc::new(image.clone());
            let opened = open_as(shared, sealed);
            drop(opened);
            let mode = CrashMode::ALL[random.below(4) as usize];
            image = image.crash(mode, random.next());
        }
        check(&image, &known, sealed, &context);
    }
}

#[test]
fn a_crash_while_recovering_changes_nothing() {
    crashes_while_recovering(false);
}

#[test]
fn a_crash_while_recovering_changes_nothing_encrypted() {
    crashes_while_recovering(true);
}
