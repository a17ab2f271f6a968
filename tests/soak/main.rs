//! Sixty-four NDMP sessions at once that do what is right and what is wrong, in random order, for
//! minutes; then nothing is left of them: every device is free, no job is under way, and memory is
//! what it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod line;
mod scripts;
mod traffic;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use dma::TapeOpenMode;
use ndmp::wire::ErrorCode;
use svs::JobFilter;
use tests::wait::{self, PATIENCE};
use tests::{Operator, Pair, Rng, Role, Scratch, full, seed};
use toml::{Table, Value};

use crate::scripts::Player;
use crate::traffic::Traffic;

/// Players, each with a session open nearly all the time, and a second one in a copy.
const PLAYERS: usize = 64;
/// Drives of each library.
const DRIVES: u16 = 24;
/// The two libraries.
const LIBRARIES: [&str; 2] = ["vtl0", "dr-ptl0"];
/// What memory may grow by behind the first part.
const GROWTH: u64 = 16 << 20;

/// Enough of everything for everybody, and tapes so short that their end is met.
fn roomy(local: &mut Table, remote: &mut Table) {
    for (config, list) in [(&mut *local, "virtual_library"), (remote, "physical_library")] {
        let library = config[list].as_array_mut().and_then(|all| all.first_mut());
        let library = library.and_then(Value::as_table_mut).expect("init writes one");
        library.insert("drives".into(), i64::from(DRIVES).into());
        library.insert("slots".into(), 64.into());
        library.insert("capacity".into(), "8MiB".into());
        library.insert("early_warning".into(), "1MiB".into());
        let cartridges = library["cartridges"].as_table_mut().expect("init writes it");
        cartridges.insert("count".into(), 40.into());
    }
    let ndmp = local["ndmp"].as_table_mut().expect("init writes it");
    ndmp.insert("max_sessions".into(), (4 * PLAYERS as i64).into());
}

/// Whether the drive or changer opens, and closes again.
fn opens(operator: &Operator, device: &str) -> Result<(), String> {
    let mut client = operator.dial();
    if device.ends_with("changer") {
        client.open_scsi(device).map_err(|error| error.to_string())?;
        return client.close_scsi().map_err(|error| error.to_string());
    }
    match client.open_tape(device, TapeOpenMode::Read) {
        Err(error) if error.code() == Some(ErrorCode::NoTapeLoaded) => Ok(()),
        opened => {
            opened.and_then(|()| client.close_tape()).map_err(|error| format!("{device}: {error}"))
        }
    }
}

/// Nobody is connected: everything comes to rest, and then every device opens at the first try.
/// Returns how long the rest took to come, and the memory of both engines.
fn rest(pair: &Pair, operator: &Operator) -> (Duration, [u64; 2]) {
    let began = Instant::now();
    let drives = (0..DRIVES).map(|index| format!("drive{index}"));
    let names: Vec<String> = drives.chain(["changer".to_owned()]).collect();
    let devices = LIBRARIES
        .iter()
        .flat_map(|library| names.iter().map(move |name| format!("{library}/{name}")));
    let devices: Vec<String> = devices.collect();
    for device in &devices {
        let mut last = String::new();
        let began = Instant::now();
        let free = || match opens(operator, device) {
            Ok(()) => Some(()),
            Err(error) if began.elapsed() > PATIENCE => panic!("not free: {error}"),
            Err(error) => {
                last = error;
                None
            }
        };
        wait::until_within(PATIENCE * 2, &format!("{device} is free"), free);
        if !last.is_empty() {
            println!("{device} was free after {:?}: {last}", began.elapsed());
        }
    }
    pair.wait_idle();
    let took = began.elapsed();
    for device in &devices {
        opens(operator, device).expect("a free device opens at once");
    }
    (took, [pair.local.resident_bytes(), pair.remote.resident_bytes()])
}

/// Lets all players play for so long. The first who finds something wrong ends it.
fn play(traffic: &Traffic, players: Vec<Player>, length: Duration) -> Vec<Player> {
    let end = Instant::now() + length;
    let running: Vec<_> = players
        .into_iter()
        .enumerate()
        .map(|(number, mut player)| {
            let play = move || {
                while Instant::now() < end && !player.traffic().failed() {
                    player.play();
                }
                player
            };
            thread::Builder::new().name(format!("player {number}")).spawn(play).expect("a thread")
        })
        .collect();
    let players = running.into_iter().map(|player| player.join().expect("a player")).collect();
    traffic.check();
    players
}

#[test]
fn sixty_four_sessions_leave_nothing_behind() {
    let rng = Rng::new(seed("--test soak"));
    let scratch = Scratch::new("soak");
    let mut pair = Pair::new(&scratch, roomy);
    for engine in [&mut pair.local, &mut pair.remote] {
        // What wrong clients do is worth a line each; a copy that they leave ends failed.
        engine.allow(" WARN ");
        engine.allow("TWR-4003-E");
        // What the allocator keeps of one busy moment is no leak, see docs/operations.md.
        engine.environment("MALLOC_ARENA_MAX", "2");
        engine.environment("MALLOC_TRIM_THRESHOLD_", "131072");
    }
    pair.run();
    let operator = Operator::of(&pair);
    operator.wait_for("dr-ptl0");
    // Most drives have a tape; the players see to the others.
    for (library, prefix) in LIBRARIES.iter().zip(["VTA", "PTA"]) {
        for drive in 0..DRIVES - 4 {
            operator.load(library, &format!("{prefix}{:03}L8", drive + 1), drive);
        }
    }

    let traffic = Arc::new(Traffic::default());
    let players = (0..PLAYERS).map(|number| {
        Player::new(operator.clone(), Arc::clone(&traffic), rng.fork(&number.to_string()))
    });
    let length = Duration::from_secs(full(20, 300));
    // A short run needs more than a tenth until every drive was used once.
    let begin = (length / 10).max(Duration::from_secs(10));
    let players = play(&traffic, players.collect(), begin);
    let (took, first) = rest(&pair, &operator);
    println!("after {begin:?}: {traffic}; at rest within {took:.1?}, resident {first:?}");
    play(&traffic, players, length - begin);
    let (took, last) = rest(&pair, &operator);
    println!("after {length:?}: {traffic}; at rest within {took:.1?}, resident {last:?}");

    for role in [Role::Local, Role::Remote] {
        let catalogue = pair.catalogue(role);
        catalogue.check().expect("the catalogue is consistent");
        let ended = catalogue.jobs(&JobFilter::default()).expect("the jobs are listed");
        println!("{role:?}: {} jobs, all ended", ended.len());
        assert!(ended.iter().all(|job| job.ended.is_some()), "{ended:#?}");
    }
    for (role, (first, last)) in ["local", "remote"].iter().zip(first.into_iter().zip(last)) {
        let grown = last.saturating_sub(first);
        println!("{role}: {first} bytes after {begin:?}, {last} after {length:?}");
        assert!(grown <= GROWTH, "the {role} engine grew by {grown} bytes");
    }
    traffic.was_lively();
}
