//! How many bytes a later generation costs on the wire, beside the programs that an administrator
//! could take instead.
//!
//! ```text
//! cargo bench -p tests --bench wan                                   every input, 256 MiB
//! cargo bench -p tests --bench wan -- --size-mib 1024 --generations 4
//! cargo bench -p tests --bench wan -- --input tree --input framed    only these
//! cargo bench -p tests --bench wan -- --quick                        8 MiB: whether it runs
//! ```
//!
//! Ours is a pair of engines as two processes, and every byte that a relay between them passes on,
//! both ways, from the unload of the tape until the catalogue says done. Of the others it is what
//! their repository grew by, without locks and indexes that stay at home: what any way of bringing
//! it to another site must send at least. A second row of ours is what the store at the backup site
//! grew by, to be compared with the same. The delta tools get the whole stream before and are the
//! floor.
//!
//! Nothing here passes or fails by a figure. What arrives is verified by the engine's checksums,
//! and in every run the last generation is read back at the backup site.
//!
//! Under `cargo test` it runs as `--quick` does, without the others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod inputs;
mod ours;
mod peers;

use inputs::Input;
use ours::Ours;
use peers::Peer;
use tests::Scratch;

/// What to do.
#[derive(Clone, Debug)]
struct Options {
    size: u64,
    generations: usize,
    inputs: Vec<Input>,
    peers: bool,
}

fn main() {
    let options = options(std::env::args().skip(1));
    let seed = tests::seed("--bench wan");
    let peers: Vec<Peer> = match options.peers {
        true => Peer::ALL.into_iter().filter(|peer| peer.is_installed()).collect(),
        false => Vec::new(),
    };
    let size = options.size >> 20;
    println!(
        "{size} MiB, seed {seed}; bytes on the wire for each generation, the first one first\n"
    );
    for input in &options.inputs {
        println!("| {input} | generations |\n|---|---|");
        let mut rows: Vec<(String, Vec<String>)> = Vec::new();
        let mut add = |name: String, figure: String| match rows.iter_mut().find(|it| it.0 == name) {
            Some(row) => row.1.push(figure),
            None => rows.push((name, vec![figure])),
        };
        let scratch = Scratch::new("wan");
        let mut ours = Ours::new(&scratch);
        let mut running: Vec<_> = peers.iter().map(|peer| peer.begin(&scratch)).collect();
        let mut before = None;
        for stream in input.generations(options.size, seed).take(options.generations) {
            let moved = ours.send(&stream);
            add("twinreel".into(), format!("{} ({:.1} s)", moved.bytes, moved.seconds));
            add("twinreel, stored here".into(), moved.stored.to_string());
            for peer in &mut running {
                let bytes = peer.send(&stream, before.as_ref());
                let figure = bytes.map_or_else(|| "-".into(), |bytes| bytes.to_string());
                add(peer.to_string(), figure);
            }
            before = Some(stream);
        }
        ours.check(before.as_ref().expect("one generation at least"));
        for (name, figures) in rows {
            println!("| {name} | {} |", figures.join(" | "));
        }
        println!();
    }
    // So that a run under `cargo test` is counted.
    println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
}

/// `cargo bench` says `--bench`; without it this is a trial of the benchmark itself.
fn options(arguments: impl Iterator<Item = String>) -> Options {
    let quick = Options {
        size: 8 << 20,
        generations: 2,
        inputs: vec![Input::Tree, Input::Framed],
        peers: false,
    };
    let mut chosen = Options { size: 256 << 20, generations: 3, inputs: Vec::new(), peers: true };
    let (mut arguments, mut is_quick, mut bench) = (arguments, false, false);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} of what?"));
        match argument.as_str() {
            "--quick" => is_quick = true,
            "--bench" => bench = true,
            "--alone" => chosen.peers = false,
            "--size-mib" => chosen.size = value().parse::<u64>().expect("a number") << 20,
            "--generations" => chosen.generations = value().parse().expect("a number"),
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
