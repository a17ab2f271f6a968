//! How many bytes a later generation costs on the wire, beside the programs that an administrator
//! could take instead.
//!
//! ```text
//! cargo bench -p tests --bench wan                                   every input, 256 MiB
//! cargo bench -p tests --bench wan -- --size-mib 1024 --generations 4
//! cargo bench -p tests --bench wan -- --input tree --input framed    only these
//! cargo bench -p tests --bench wan -- --draw          makes docs/pictures/wan*.svg
//! cargo bench -p tests --bench wan -- --input sources --write DIR   only writes the streams
//! cargo bench -p tests --bench wan -- --quick                        8 MiB: whether it runs
//! ```
//!
//! Ours is a pair of engines as two processes, and every byte that a relay between them passes on,
//! both ways, from the unload of the tape until the catalogue says done. Of the others it is what
//! their repository grew by, without locks and indexes that stay at home: what any way of bringing
//! it to another site must send at least. The last column is what the store at the backup site
//! grew by, to be compared with the same. The delta tools get the whole stream before and are the
//! floor.
//!
//! Nothing here passes or fails by a figure. What arrives is verified by the engine's checksums,
//! and in every run the last generation is read back at the backup site.
//!
//! Under `cargo test` it runs as `--quick` does, without the others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod figures;
mod ours;
mod peers;

use std::path::PathBuf;

use figures::Figures;
use ours::Ours;
use peers::Peer;
use tests::{Input, Scratch};

/// What to do.
#[derive(Clone, Debug)]
struct Options {
    size: u64,
    generations: Option<usize>,
    inputs: Vec<Input>,
    peers: bool,
    /// Whether the pictures of the book are made anew.
    draw: bool,
    /// Where the streams go, and nothing else is done.
    write: Option<PathBuf>,
}

impl Options {
    /// Made inputs go on for ever; of the real ones all there are.
    fn generations(&self, input: Input) -> usize {
        let most = if matches!(input, Input::Sources | Input::Checkouts) { 6 } else { 3 };
        self.generations.unwrap_or(most)
    }
}

fn main() {
    let options = options(std::env::args().skip(1));
    let seed = tests::seed("--bench wan");
    let peers: Vec<Peer> = match options.peers && options.write.is_none() {
        true => Peer::ALL.into_iter().filter(|peer| peer.is_installed()).collect(),
        false => Vec::new(),
    };
    println!("{} MiB but for real sources, seed {seed}; bytes\n", options.size >> 20);
    let mut figures = Figures::new(&peers);
    println!("{}", figures.head());
    for input in options.inputs.iter().copied() {
        let streams = match input.generations(options.size, seed) {
            Ok(streams) => streams.take(options.generations(input)),
            Err(why) => {
                tests::skip(&format!("wan of {input}"), &why);
                continue;
            }
        };
        match &options.write {
            Some(directory) => write(directory, input, streams),
            None => measure(input, streams, &peers, &mut figures),
        }
    }
    println!("\n{}", figures.ratios());
    if options.draw {
        figures.draw();
    }
    // So that a run under `cargo test` is counted.
    println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
}

/// Everybody gets the same streams, and says what each cost.
fn measure(
    input: Input,
    streams: impl Iterator<Item = Vec<u8>>,
    peers: &[Peer],
    figures: &mut Figures,
) {
    let scratch = Scratch::new("wan");
    let mut ours = Ours::new(&scratch);
    let mut running: Vec<_> = peers.iter().map(|peer| peer.begin(&scratch)).collect();
    let mut before = None;
    for stream in streams {
        let moved = ours.send(&stream);
        let others = running.iter_mut().map(|peer| peer.send(&stream, before.as_ref())).collect();
        println!("{}", figures.add(input, &moved, others));
        before = Some(stream);
    }
    ours.check(before.as_ref().expect("one generation at least"));
}

/// The streams as files, for other benchmarks.
fn write(directory: &std::path::Path, input: Input, streams: impl Iterator<Item = Vec<u8>>) {
    std::fs::create_dir_all(directory).expect("a directory");
    for (number, stream) in streams.enumerate() {
        let path = directory.join(format!("{input}-{number}"));
        std::fs::write(path, stream).expect("the stream is written");
    }
}

/// `cargo bench` says `--bench`; without it this is a trial of the benchmark itself.
fn options(arguments: impl Iterator<Item = String>) -> Options {
    let quick = Options {
        size: 8 << 20,
        generations: Some(2),
        inputs: vec![Input::Tree, Input::Framed],
        peers: false,
        draw: false,
        write: None,
    };
    let mut chosen = Options {
        size: 256 << 20,
        generations: None,
        inputs: Vec::new(),
        peers: true,
        ..quick.clone()
    };
    let (mut arguments, mut is_quick, mut bench) = (arguments, false, false);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} of what?"));
        match argument.as_str() {
            "--quick" => is_quick = true,
            "--bench" => bench = true,
            "--alone" => chosen.peers = false,
            "--size-mib" => chosen.size = value().parse::<u64>().expect("a number") << 20,
            "--generations" => chosen.generations = Some(value().parse().expect("a number")),
            "--draw" => chosen.draw = true,
            "--write" => chosen.write = Some(value().into()),
            "--input" => chosen.inputs.push(value().parse().expect("an input")),
            // What `cargo test` passes on to everything.
            "--show-output" | "--nocapture" | "-q" => {}
            other => panic!("{other}: see the head of tests/wan/main.rs"),
        }
    }
    if chosen.inputs.is_empty() {
        chosen.inputs = Input::ALL.to_vec();
    }
    if is_quick || !bench { quick } else { chosen }
}
