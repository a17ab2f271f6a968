//! What memory the engines take while backups run, and what a generation costs as the stores grow.
//!
//! ```text
//! cargo bench -p tests --bench growth
//! cargo bench -p tests --bench growth -- --fill-mib 1024 --steps 10
//! cargo bench -p tests --bench growth -- --draw       makes docs/pictures/{memory,growth*}.svg
//! cargo bench -p tests --bench growth -- --quick                      whether it runs
//! ```
//!
//! Each step fills a cartridge of its own with new data that does not compress, 512 MiB if not said
//! otherwise, so that after ten steps the stores hold ten times as much. Then the next generation
//! of one and the same backup of 128 MiB is written over its cartridge, with 64 overwrites of 64
//! KiB and 8 insertions of up to 64 KiB. Of it the table says what it cost: bytes between the
//! sites, growth of the store at the other site, seconds to write it and seconds to replicate it.
//! Memory is the resident set of both processes, looked at every 20 ms, all the time.
//!
//! Nothing passes or fails by a figure. Times want a machine that does nothing else; the rest does
//! not depend on it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use tests::{Axis, Content, Operator, Pair, Picture, Scratch, Series, Texture, draw, thousands};
use toml::Value;

/// Bytes of a record on the tapes.
const RECORD: u32 = 65_536;
/// What one generation after the other is written to.
const TAPE: &str = "VTA001L8";
const MIB: f64 = 1_048_576.0;

struct Options {
    /// Of the backup.
    size: u64,
    /// Of the new data of each step.
    fill: u64,
    steps: usize,
    /// Whether the pictures of the book are made anew.
    draw: bool,
}

/// What the generation of one step cost.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    /// What the other site held before.
    held: u64,
    wire: u64,
    stored: u64,
    write_seconds: f64,
    replicate_seconds: f64,
    /// Of the local and of the remote engine when it was done.
    memory: [u64; 2],
}

/// Memory at a moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Bytes taken in so far.
    taken_in: u64,
    /// Of the local and of the remote engine.
    memory: [u64; 2],
}

fn main() {
    let options = options(std::env::args().skip(1));
    let seed = tests::seed("--bench growth");
    let scratch = Scratch::new("growth");
    let mut pair = Pair::new(&scratch, |local, _| {
        let libraries = local["virtual_library"].as_array_mut().expect("init writes one");
        let library = libraries[0].as_table_mut().expect("a table");
        library.insert("slots".into(), Value::Integer(options.steps as i64 + 2));
        let cartridges = library["cartridges"].as_table_mut().expect("a table");
        cartridges.insert("count".into(), Value::Integer(options.steps as i64 + 1));
    });
    let operator = pair.operated();
    let taken_in = AtomicU64::new(0);
    let (over, end) = channel::<()>();
    let (costs, samples) = std::thread::scope(|scope| {
        let (pair, taken_in) = (&pair, &taken_in);
        let watch = scope.spawn(move || {
            let goes_on = |wait| end.recv_timeout(wait) == Err(RecvTimeoutError::Timeout);
            watch(pair, taken_in, &goes_on)
        });
        let costs = grow(pair, &operator, &options, seed, taken_in);
        drop(over);
        (costs, watch.join().expect("it only looks"))
    });
    report(&costs, &samples);
    if options.draw {
        draw_all(&costs, &samples);
    }
    // So that a run under `cargo test` is counted.
    println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
}

/// `cargo bench` says `--bench`; without it this is a trial of the benchmark itself.
fn options(arguments: impl Iterator<Item = String>) -> Options {
    let mut chosen = Options { size: 128 << 20, fill: 512 << 20, steps: 10, draw: false };
    let (mut arguments, mut quick, mut bench) = (arguments, false, false);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} of what?"));
        match argument.as_str() {
            "--quick" => quick = true,
            "--bench" => bench = true,
            "--size-mib" => chosen.size = value().parse::<u64>().expect("a number") << 20,
            "--fill-mib" => chosen.fill = value().parse::<u64>().expect("a number") << 20,
            "--steps" => chosen.steps = value().parse().expect("a number"),
            "--draw" => chosen.draw = true,
            // What `cargo test` passes on to everything.
            "--show-output" | "--nocapture" | "-q" => {}
            other => panic!("{other}: see the head of tests/growth/main.rs"),
        }
    }
    if quick || !bench {
        return Options { size: 8 << 20, fill: 4 << 20, steps: 2, draw: false };
    }
    chosen
}

/// Every step.
fn grow(
    pair: &Pair,
    operator: &Operator,
    options: &Options,
    seed: u64,
    taken_in: &AtomicU64,
) -> Vec<Cost> {
    let store = pair.directory().join("dr/store/containers");
    let back_up = |tape: &str, content: &Content| {
        operator.load("vtl0", tape, 0);
        let begin = Instant::now();
        let stream = Counted { from: content.reader(), count: taken_in };
        operator.backup("vtl0/drive0", RECORD, stream);
        let (written, begin) = (begin.elapsed(), Instant::now());
        operator.unload("vtl0", 0);
        pair.wait_replicated(tape);
        (written.as_secs_f64(), begin.elapsed().as_secs_f64())
    };
    let mut backup = Content::new(Texture::Incompressible, seed, options.size);
    back_up(TAPE, &backup);
    let mut costs = Vec::new();
    for step in 1..=options.steps as u64 {
        let fill = Content::new(Texture::Incompressible, seed ^ (step << 32), options.fill);
        back_up(&format!("VTA{:03}L8", step + 1), &fill);
        backup = backup.edited(64, 8, seed + step);
        let (held, wire) = (bytes_in(&store), pair.relay.total());
        let (write_seconds, replicate_seconds) = back_up(TAPE, &backup);
        costs.push(Cost {
            held,
            wire: pair.relay.total() - wire,
            stored: bytes_in(&store) - held,
            write_seconds,
            replicate_seconds,
            memory: [pair.local.resident_bytes(), pair.remote.resident_bytes()],
        });
        eprintln!("  {:?}", costs.last().expect("one"));
    }
    costs
}

/// Looks at both engines until it is over; of each 16 MiB that are taken in the most is kept.
fn watch(pair: &Pair, taken_in: &AtomicU64, goes_on: &dyn Fn(Duration) -> bool) -> Vec<Sample> {
    let mut all: Vec<Sample> = Vec::new();
    while goes_on(Duration::from_millis(20)) {
        let taken_in = taken_in.load(Ordering::Relaxed) >> 24 << 24;
        let memory = [pair.local.resident_bytes(), pair.remote.resident_bytes()];
        match all.last_mut().filter(|last| last.taken_in == taken_in) {
            Some(last) => {
                for (most, now) in last.memory.iter_mut().zip(memory) {
                    *most = now.max(*most);
                }
            }
            None => all.push(Sample { taken_in, memory }),
        }
    }
    all
}

/// Counts what is read.
struct Counted<'a, R> {
    from: R,
    count: &'a AtomicU64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Of all files in a directory.
fn bytes_in(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).expect("the containers").flatten();
    files.map(|file| file.metadata().map_or(0, |it| it.len())).sum()
}

fn report(costs: &[Cost], samples: &[Sample]) {
    println!(
        "| the store holds, MiB | bytes on the wire | stored | seconds to write | to replicate | \
         memory, MiB, local | remote |\n|--:|--:|--:|--:|--:|--:|--:|"
    );
    for cost in costs {
        println!(
            "| {:.0} | {} | {} | {:.2} | {:.2} | {:.0} | {:.0} |",
            cost.held as f64 / MIB,
            thousands(cost.wire),
            thousands(cost.stored),
            cost.write_seconds,
            cost.replicate_seconds,
            cost.memory[0] as f64 / MIB,
            cost.memory[1] as f64 / MIB,
        );
    }
    let most =
        |engine: usize| samples.iter().map(|it| it.memory[engine]).max().unwrap_or(0) as f64 / MIB;
    let gb = samples.last().map_or(0.0, |it| it.taken_in as f64 / 1e9);
    println!(
        "\n{gb:.1} GB taken in; at most {:.0} MiB local, {:.0} MiB remote\n",
        most(0),
        most(1)
    );
}

/// Memory over what was taken in, and cost over what the store holds.
fn draw_all(costs: &[Cost], samples: &[Sample]) {
    let over_held = |name: &str, y: &dyn Fn(&Cost) -> f64| Series {
        name: name.into(),
        points: costs.iter().map(|cost| (cost.held as f64 / 1e9, y(cost))).collect(),
    };
    let memory = |name: &str, engine: usize| Series {
        name: name.into(),
        points: samples
            .iter()
            .map(|it| (it.taken_in as f64 / 1e9, it.memory[engine] as f64 / MIB))
            .collect(),
    };
    let held = || Axis::Linear("GB in the store".into());
    let pictures = [
        ("memory", "Resident set while backups are taken in and replicated", "MiB"),
        ("growth", "Cost of a generation as the stores grow", "MB"),
        ("growth-seconds", "Seconds of a generation as the stores grow", "seconds"),
    ];
    let series = [
        vec![memory("local engine", 0), memory("remote engine", 1)],
        vec![
            over_held("between the sites", &|cost| cost.wire as f64 / 1e6),
            over_held("stored there", &|cost| cost.stored as f64 / 1e6),
        ],
        vec![
            over_held("to write", &|cost| cost.write_seconds),
            over_held("to replicate", &|cost| cost.replicate_seconds),
        ],
    ];
    let axes = [Axis::Linear("GB taken in".into()), held(), held()];
    for (((name, title, unit), series), x) in pictures.into_iter().zip(series).zip(axes) {
        let (title, y) = (title.into(), Axis::Linear(unit.into()));
        draw(name, &Picture { title, x, y, series });
    }
}
