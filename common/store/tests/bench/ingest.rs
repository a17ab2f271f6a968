//! How fast a stream is taken in and given back, beside restic, borg, rustic, bupstash and the
//! parts that a store is made of.
//!
//! ```text
//! cargo bench -p store --bench ingest                        512 MiB, three rounds
//! cargo bench -p store --bench ingest -- --mib 128 --rounds 1
//! cargo bench -p store --bench ingest -- --dir /mnt/disk     where the stores are made
//! cargo bench -p store --bench ingest -- --file STREAM       this one instead of made ones
//! ```
//!
//! Each input is a file that is in the page cache. Everybody reads it from there and writes to a
//! store of its own in the same directory, made anew in each round; then takes the same bytes in a
//! second time, looking at all of them; then gives the first ones back. What was given back is
//! compared, outside the clock. In each round the order turns, and what was written is brought to
//! the disk between two, outside the clock. The table says medians.
//!
//! The *ceiling* of a stream that is known is the `fastcdc` and `sha2` crates on all processors
//! over the same file in memory: nobody who cuts by content and names by SHA-256 does less.
//!
//! Under `cargo test` 4 MiB are taken in once, and nobody else takes part.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::{digest, is_there, make, median, read_out, run, settle, timed};
use model::{CartridgeId, Ulid};
use sha2::{Digest, Sha256};
use store::{Key, Options, Store};
use vfs::RealVfs;

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Ours,
    OursEncrypted,
    Restic,
    Borg,
    BorgSmall,
    Rustic,
    Bupstash,
}

impl Who {
    const ALL: [Self; 7] = [
        Self::Ours,
        Self::OursEncrypted,
        Self::Restic,
        Self::Borg,
        Self::BorgSmall,
        Self::Rustic,
        Self::Bupstash,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Ours => "Twinreel",
            Self::OursEncrypted => "Twinreel, encrypted",
            Self::Restic => "restic",
            Self::Borg => "borg, zstd,1, not encrypted",
            Self::BorgSmall => "the same, 16 KiB chunks",
            Self::Rustic => "rustic",
            Self::Bupstash => "bupstash",
        }
    }

    fn program(self) -> Option<&'static str> {
        match self {
            Self::Ours | Self::OursEncrypted => None,
            Self::Restic => Some("restic"),
            Self::Borg | Self::BorgSmall => Some("borg"),
            Self::Rustic => Some("rustic"),
            Self::Bupstash => Some("bupstash"),
        }
    }

    fn is_there(self) -> bool {
        self.program().is_none_or(is_there)
    }
}

/// What one did in one round: new, known, and back again.
type Times = [Duration; 3];

fn ours(dir: &Path, input: &Path, key: Option<&Key>) -> Times {
    let options = Options::default();
    let (store, _) = Store::open_with_key(Arc::new(RealVfs), dir, &options, key).unwrap();
    let take_in = |number: u64| {
        let mut image = store.image(CartridgeId(Ulid::from_parts(number, 0))).unwrap();
        common::take_in(&mut image, input)
    };
    let mut first = None;
    let new = timed(|| first = Some(take_in(1)));
    settle();
    let known = timed(|| _ = take_in(2));
    settle();
    let mut hash = Sha256::new();
    let read = |each: &mut dyn FnMut(&[u8])| {
        read_out(&mut store.reader(first.unwrap()).unwrap(), each);
    };
    let back = timed(|| read(&mut |_| {}));
    read(&mut |bytes| hash.update(bytes));
    assert_eq!(hash.finalize(), digest(input), "what came back is something else");
    [new, known, back]
}

fn peer(who: Who, dir: &Path, input: &Path) -> Times {
    let program = who.program().unwrap();
    fs::create_dir_all(dir).unwrap();
    let run = |words: &[&str], output: Stdio| run(program, dir, words, output);
    match who {
        Who::Restic => run(&["init", "-q"], Stdio::null()),
        Who::Rustic => run(&["init"], Stdio::null()),
        Who::Bupstash => {
            run(&["init", "-r", "repo"], Stdio::null());
            run(&["new-key", "-o", "key"], Stdio::null());
        }
        _ => run(&["init", "-e", "none", "repo"], Stdio::null()),
    }
    let new = timed(|| take_in(who, "a", input, &run));
    settle();
    let known = timed(|| take_in(who, "b", input, &run));
    settle();
    let text = input.to_str().unwrap();
    let give_back = |output: Stdio| match who {
        Who::Restic => run(&["dump", "-q", "latest", text], output),
        Who::Rustic => run(&["dump", &format!("latest:{text}")], output),
        Who::Bupstash => run(&["get", "-q", "-r", "repo", "-k", "key", "name=a"], output),
        _ => run(&["extract", "--stdout", "repo::a"], output),
    };
    let back = timed(|| give_back(Stdio::null()));
    let out = dir.join("back");
    give_back(File::create(&out).unwrap().into());
    assert_eq!(digest(&out), digest(input), "{} gave something else", who.name());
    [new, known, back]
}

/// Every byte is looked at, whatever is known of the file.
fn take_in(who: Who, archive: &str, input: &Path, run: &dyn Fn(&[&str], Stdio)) {
    let text = input.to_str().unwrap();
    let (of_borg, of_bupstash) = (format!("repo::{archive}"), format!("name={archive}"));
    let mut words = match who {
        Who::Restic => vec!["backup", "-q", "--force"],
        Who::Rustic => vec!["backup", "--force"],
        Who::Bupstash => {
            vec!["put", "-q", "--no-stat-caching", "-r", "repo", "-k", "key", &of_bupstash]
        }
        _ => vec!["create", "-C", "zstd,1", "--files-cache=disabled"],
    };
    if who == Who::BorgSmall {
        words.push("--chunker-params=buzhash,10,16,14,4095");
    }
    if matches!(who, Who::Borg | Who::BorgSmall) {
        words.push(&of_borg);
    }
    words.push(text);
    run(&words, Stdio::null());
}

/// Cuts and names the stream on all processors; only the sum of what came out is looked at.
fn ceiling(bytes: &[u8]) -> Duration {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    timed(|| {
        std::thread::scope(|scope| {
            for part in bytes.chunks(bytes.len().div_ceil(workers)) {
                scope.spawn(move || {
                    let cuts = fastcdc::v2020::FastCDC::new(part, 4096, 16_384, 65_536);
                    let named = cuts.map(|cut| {
                        let chunk = &part[cut.offset..cut.offset + cut.length];
                        Sha256::digest(chunk)[0] as usize
                    });
                    std::hint::black_box(named.sum::<usize>());
                });
            }
        });
    })
}

struct Arguments {
    mib: u64,
    rounds: usize,
    dir: Option<PathBuf>,
    /// A stream that is there already.
    file: Option<PathBuf>,
    seed: u64,
    /// Without the others.
    alone: bool,
}

fn arguments() -> Arguments {
    let mut found =
        Arguments { mib: 4, rounds: 1, dir: None, file: None, seed: 20_260_101, alone: true };
    let mut words = std::env::args().skip(1);
    if std::env::args().any(|word| word == "--bench") {
        found = Arguments { mib: 512, rounds: 3, alone: false, ..found };
    }
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            "--mib" => found.mib = value().parse().expect("a number"),
            "--rounds" => found.rounds = value().parse().expect("a number"),
            "--seed" => found.seed = value().parse().expect("a number"),
            "--dir" => found.dir = Some(value().into()),
            "--file" => found.file = Some(value().into()),
            // What the test command gives to all.
            "--bench" | "--show-output" | "--nocapture" => {}
            other => panic!("{other} is not known: --mib N, --rounds N, --dir PATH, --file PATH"),
        }
    }
    found
}

fn main() {
    let arguments = arguments();
    let Arguments { mib, rounds, seed, alone, .. } = arguments;
    let scratch = match &arguments.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let scratch = scratch.expect("a directory");
    let there: Vec<_> = Who::ALL
        .into_iter()
        .filter(|who| who.program().is_none() || !alone && who.is_there())
        .collect();
    println!("{mib} MiB, {rounds} rounds, seed {seed}; MB/s, medians\n");
    println!("| input | by | new | known | given back |\n|---|---|--:|--:|--:|");
    let inputs = match &arguments.file {
        Some(file) => vec![fs::canonicalize(file).expect("the file is there")],
        None => [("random", false), ("words", true)]
            .map(|(kind, words)| {
                let input = scratch.path().join(kind);
                make(&input, mib, words, seed);
                input
            })
            .to_vec(),
    };
    for input in inputs {
        measure(&input, &there, rounds, &scratch.path().join("store"));
    }
    if alone {
        // So that it is counted.
        println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
    }
}

/// All rounds over one input, and their lines of the table.
fn measure(input: &Path, there: &[Who], rounds: usize, place: &Path) {
    let kind = input.file_name().unwrap().to_string_lossy();
    let key = Key::new([7; 32]);
    let mut all: BTreeMap<Who, Vec<Times>> = BTreeMap::new();
    let mut floor: Vec<[Duration; 2]> = Vec::new();
    for round in 0..rounds {
        let mut order = there.to_vec();
        order.rotate_left(round % there.len());
        for who in order {
            settle();
            let times = match who {
                Who::Ours => ours(place, input, None),
                Who::OursEncrypted => ours(place, input, Some(&key)),
                other => peer(other, place, input),
            };
            all.entry(who).or_default().push(times);
            fs::remove_dir_all(place).unwrap();
        }
        let bytes = fs::read(input).unwrap();
        let cat = || {
            let mut cat = Command::new("cat");
            assert!(cat.arg(input).stdout(Stdio::null()).status().unwrap().success());
        };
        floor.push([ceiling(&bytes), timed(cat)]);
    }
    let size = fs::metadata(input).unwrap().len() as f64;
    let rate = |times: Vec<Duration>| size / 1e6 / median(times).as_secs_f64();
    for (who, times) in &all {
        let of = |i: usize| rate(times.iter().map(|it| it[i]).collect());
        let (new, known, back) = (of(0), of(1), of(2));
        println!("| {kind} | {} | {new:.0} | {known:.0} | {back:.0} |", who.name());
    }
    let of = |i: usize| rate(floor.iter().map(|it| it[i]).collect());
    println!("| {kind} | fastcdc and sha2, all processors | - | {:.0} | - |", of(0));
    println!("| {kind} | `cat` of the input | - | - | {:.0} |", of(1));
}
