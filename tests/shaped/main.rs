//! How long replication takes on a narrow and long wire.
//!
//! ```text
//! cargo bench -p tests --bench shaped
//! cargo bench -p tests --bench shaped -- --rounds 3 --draw    makes docs/pictures/shaped.svg
//! cargo bench -p tests --bench shaped -- --quick                      whether it runs
//! ```
//!
//! Two engines as processes with a relay between them that lets so many bits a second pass each way
//! and gives every byte half of the round trip on its way. On a link that is established a
//! generation is written to a tape; the clock runs from its unload, with which replication begins,
//! until the catalogue says that it is durable at the other site. New data that does not compress,
//! in sizes from 64 KiB up, then three generations of a mixed backup.
//!
//! The bound is the time that the bytes from the local to the remote engine take at this width,
//! all of them counted, and two round trips. In a second run nothing is delivered for 0.2 to 1 s
//! every now and then, at times that the seed says: what the loss of a packet looks like to those
//! who read behind TCP. What the wire stood still meanwhile is added to the bound.
//!
//! Nothing passes or fails by its speed. Times want a machine that does nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tests::{
    Axis, Content, Direction, Input, Operator, Pair, Picture, Relay, Rng, Scratch, Series, Texture,
    draw, thousands,
};

/// Bytes of a record on the tape.
const RECORD: u32 = 65_536;
const TAPE: &str = "VTA001L8";

/// A kind of wire.
#[derive(Clone, Copy, Debug)]
struct Shape {
    megabits: u64,
    round_trip_ms: u64,
    stalls: bool,
}

impl Shape {
    fn bytes_per_second(self) -> u64 {
        self.megabits * 125_000
    }

    fn name(self) -> String {
        let stalls = if self.stalls { ", stalls" } else { "" };
        format!("{} Mbit/s, {} ms{stalls}", self.megabits, self.round_trip_ms)
    }

    /// What nobody can be faster than by much: seconds.
    fn bound(self, bytes: u64) -> f64 {
        bytes as f64 / self.bytes_per_second() as f64 + 2.0 * self.round_trip_ms as f64 / 1000.0
    }
}

/// One generation that was replicated.
#[derive(Clone, Debug)]
struct Figure {
    shape: String,
    what: String,
    bytes: u64,
    seconds: f64,
    /// Of them the wire stood still.
    stalled: f64,
    bound: f64,
}

impl Figure {
    fn times(&self) -> f64 {
        self.seconds / (self.bound + self.stalled)
    }
}

struct Options {
    rounds: usize,
    /// The largest new data, and the size of a mixed backup, for each 20 Mbit/s.
    most: u64,
    /// Whether the picture of the book is made anew.
    draw: bool,
}

fn main() {
    let options = options(std::env::args().skip(1));
    let seed = tests::seed("--bench shaped");
    let mut figures = Vec::new();
    println!("| wire | generation | bytes up | seconds | of them still | bound | times |");
    println!("|---|---|--:|--:|--:|--:|--:|");
    for (megabits, round_trip_ms) in [(20, 40), (100, 200)] {
        for stalls in [false, true] {
            let shape = Shape { megabits, round_trip_ms, stalls };
            for round in 0..options.rounds {
                measure(shape, seed + round as u64, options.most * megabits / 20, &mut figures);
            }
        }
    }
    summary(&figures);
    if options.draw {
        draw("shaped", &picture(&figures));
    }
    // So that a run under `cargo test` is counted.
    println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
}

/// `cargo bench` says `--bench`; without it this is a trial of the benchmark itself.
fn options(arguments: impl Iterator<Item = String>) -> Options {
    let mut chosen = Options { rounds: 1, most: 16 << 20, draw: false };
    let (mut arguments, mut quick, mut bench) = (arguments, false, false);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} of what?"));
        match argument.as_str() {
            "--quick" => quick = true,
            "--bench" => bench = true,
            "--rounds" => chosen.rounds = value().parse().expect("a number"),
            "--draw" => chosen.draw = true,
            // What `cargo test` passes on to everything.
            "--show-output" | "--nocapture" | "-q" => {}
            other => panic!("{other}: see the head of tests/shaped/main.rs"),
        }
    }
    if quick || !bench { Options { rounds: 1, most: 256 << 10, draw: false } } else { chosen }
}

/// A new pair over this wire, and every generation over it.
fn measure(shape: Shape, seed: u64, most: u64, figures: &mut Vec<Figure>) {
    let scratch = Scratch::new("shaped");
    let mut pair = Pair::new(&scratch, |_, _| {});
    let operator = pair.operated();
    pair.relay.delay(Duration::from_millis(shape.round_trip_ms / 2));
    pair.relay.bandwidth(Some(shape.bytes_per_second()));
    let rng = Rng::new(seed);
    let mut send = |what: &str, bytes: &[u8]| {
        let stalls = shape.stalls.then(|| rng.fork(what));
        let (bytes, seconds, stalled) = replicate(&pair, &operator, bytes, stalls);
        let (shape, what, bound) = (shape.name(), what.to_owned(), shape.bound(bytes));
        let figure = Figure { shape, what, bytes, seconds, stalled, bound };
        println!(
            "| {} | {} | {} | {seconds:.2} | {stalled:.2} | {:.2} | {:.2} |",
            figure.shape,
            figure.what,
            thousands(bytes),
            bound + stalled,
            figure.times()
        );
        figures.push(figure);
    };
    let sizes = (0..).map(|step| 65_536 << (2 * step)).take_while(|size| *size <= most);
    for size in sizes {
        let new = Content::new(Texture::Incompressible, rng.fork("new").next_u64() ^ size, size);
        send(&format!("{} KiB new", size >> 10), &new.to_vec());
    }
    let mixed = Input::Mix.generations(2 * most, seed).expect("it is made here");
    for (number, stream) in mixed.take(3).enumerate() {
        send(&format!("mix, {number}"), &stream);
    }
}

/// Replicates a generation: bytes up, seconds, and how many of them the wire stood still.
fn replicate(
    pair: &Pair,
    operator: &Operator,
    bytes: &[u8],
    stalls: Option<Rng>,
) -> (u64, f64, f64) {
    operator.load("vtl0", TAPE, 0);
    operator.backup("vtl0/drive0", RECORD, bytes);
    let before = pair.relay.bytes(Direction::Up);
    let stalled = Mutex::new(Duration::ZERO);
    let (over, end) = channel::<()>();
    let seconds = std::thread::scope(|scope| {
        if let Some(rng) = stalls {
            let stalled = &stalled;
            scope.spawn(move || stall(&pair.relay, rng, &end, stalled));
        }
        let begin = Instant::now();
        operator.unload("vtl0", 0);
        pair.wait_replicated(TAPE);
        let seconds = begin.elapsed().as_secs_f64();
        drop(over);
        seconds
    });
    let stalled = stalled.into_inner().unwrap_or_else(PoisonError::into_inner);
    (pair.relay.bytes(Direction::Up) - before, seconds, stalled.as_secs_f64())
}

/// Stops the wire now and then until `end`, and adds up for how long.
fn stall(relay: &Relay, mut rng: Rng, end: &Receiver<()>, stalled: &Mutex<Duration>) {
    let goes_on =
        |ms: u64| end.recv_timeout(Duration::from_millis(ms)) == Err(RecvTimeoutError::Timeout);
    while goes_on(rng.between(100, 3000)) {
        let begin = Instant::now();
        relay.stall();
        let more = goes_on(rng.between(200, 1000));
        relay.resume();
        *stalled.lock().unwrap_or_else(PoisonError::into_inner) += begin.elapsed();
        if !more {
            return;
        }
    }
}

/// Least, median and most of each wire.
fn summary(figures: &[Figure]) {
    println!("\n| wire | least | median | most times the bound |\n|---|--:|--:|--:|");
    let mut shapes: Vec<_> = figures.iter().map(|figure| &figure.shape).collect();
    shapes.dedup();
    for shape in shapes {
        let of = figures.iter().filter(|figure| figure.shape == *shape);
        let mut all: Vec<_> = of.map(Figure::times).collect();
        all.sort_by(f64::total_cmp);
        let (least, median, most) = (all[0], all[all.len() / 2], all[all.len() - 1]);
        println!("| {shape} | {least:.2} | {median:.2} | {most:.2} |");
    }
}

/// How many times the bound each took, over how many bytes it was.
fn picture(figures: &[Figure]) -> Picture {
    let mut shapes: Vec<_> = figures.iter().map(|figure| figure.shape.clone()).collect();
    shapes.dedup();
    let of = |shape: &String| {
        let of = figures.iter().filter(|figure| figure.shape == *shape);
        let mut points: Vec<_> = of.map(|figure| (figure.bytes as f64, figure.times())).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Series { name: shape.clone(), points }
    };
    Picture {
        title: "Replication time by bytes over bandwidth plus two round trips".into(),
        x: Axis::Log("bytes on the wire".into()),
        y: Axis::Linear("times the bound".into()),
        series: shapes.iter().map(of).collect(),
    }
}
