//! How fast the pair is, beside `cp` of the same bytes on the same disk.
//!
//! ```text
//! cargo bench -p tests                                 1 GiB, five rounds
//! cargo bench -p tests -- --size-mib 4096 --rounds 3
//! cargo bench -p tests -- --quick                      16 MiB, one round: whether it runs
//! ```
//!
//! Every round has new data and a new pair of engines as two processes, so each begins with empty
//! stores. Every step has a `cp` of its own just before it, with which it is compared. Within a
//! round the ways to do one thing follow each other, and their order turns round from one round to
//! the next, so that a machine that gets slower does not favour either. Before each step
//! everything is written back to the disk, so that no step pays for another. A table says the
//! median over the rounds.
//!
//! Where `ndmjob` is installed, its own tape agent does the same on its file simulator, in turns
//! with ours; a second table compares them.
//!
//! Nothing here passes or fails by its speed. What is copied is checked, outside the clock: tapes
//! are read back through NDMP, and those at the other site by a reader that shares no code with
//! the engines.
//!
//! Under `cargo test` it runs as `--quick` does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod copying;
mod figures;
mod machine;
mod ndmjob;
mod round;

use figures::Figures;
use ndmjob::Peer;
use round::Round;

/// What to do.
#[derive(Clone, Copy, Debug)]
struct Options {
    size: u64,
    rounds: u64,
}

fn main() {
    let options = options(std::env::args().skip(1));
    let seed = tests::seed("bench");
    let mut figures = Figures::new(options.size);
    for number in 0..options.rounds {
        eprintln!("round {} of {}", number + 1, options.rounds);
        Round::new(options.size, seed, number, &mut figures).run();
    }
    println!("{}", machine::describe());
    println!("{} MiB, {} rounds, seed {seed}\n", options.size >> 20, options.rounds);
    println!("{figures}");
    match Peer::is_installed() {
        true => println!("{}", figures.beside()),
        false => tests::skip("bench beside ndmjob", "amanda-common is not installed"),
    }
    // So that a run under `cargo test` is counted.
    println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
}

/// `cargo bench` says `--bench`; without it this is a trial of the benchmark itself.
fn options(arguments: impl Iterator<Item = String>) -> Options {
    const QUICK: Options = Options { size: 16 << 20, rounds: 1 };
    let mut arguments = arguments.peekable();
    let (mut chosen, mut quick, mut bench) = (Options { size: 1 << 30, rounds: 5 }, false, false);
    while let Some(argument) = arguments.next() {
        let mut number = || -> u64 {
            let value = arguments.next().and_then(|value| value.parse().ok());
            value.filter(|n| *n > 0).unwrap_or_else(|| panic!("{argument} needs a number"))
        };
        match argument.as_str() {
            "--quick" => quick = true,
            "--bench" => bench = true,
            "--size-mib" => chosen.size = number() << 20,
            "--rounds" => chosen.rounds = number(),
            // What `cargo test` passes on to everything.
            "--show-output" | "--nocapture" | "-q" => {}
            other => panic!("{other}: only --quick, --size-mib N, --rounds N"),
        }
    }
    if quick || !bench { QUICK } else { chosen }
}
