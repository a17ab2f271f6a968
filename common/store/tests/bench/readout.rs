//! How fast old and new generations of a changing image are given back, with cold caches, beside
//! restic, borg and `cat` of the same bytes from the same disk.
//!
//! ```text
//! cargo bench -p store --bench readout                       512 MiB, 20 generations, three rounds
//! cargo bench -p store --bench readout -- --mib 128 --rounds 1
//! cargo bench -p store --bench readout -- --dir /mnt/disk    where image and stores are
//! cargo bench -p store --bench readout -- --alone            without the others
//! ```
//!
//! The image is a file; two hundredths of it are written over between generations, at random places
//! of 4 to 128 KiB. Everybody takes in all generations, then gives back the first and the last of
//! them, each after all files were dropped from the page cache (`dd iflag=nocache`, which takes no
//! rights). Opening the store is part of it. Then the last generation is written together anew, its
//! old copies are collected, and both are read again. What comes back is compared, outside the
//! clock. The table says medians.
//!
//! Under `cargo test` 4 MiB are taken in, and nobody else takes part.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::{digest, is_there, make, median, read_out, run, settle, take_in, timed};
use model::{CartridgeId, GenerationId, Ulid};
use sha2::{Digest, Sha256};
use store::{Options, Store};
use vfs::RealVfs;

/// Who gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Cat,
    Ours,
    Together,
    Restic,
    Borg,
    BorgSmall,
}

impl Who {
    const PEERS: [Self; 3] = [Self::Restic, Self::Borg, Self::BorgSmall];

    fn name(self) -> &'static str {
        match self {
            Self::Cat => "`cat`",
            Self::Ours => "Twinreel",
            Self::Together => "Twinreel, written together anew",
            Self::Restic => "restic",
            Self::Borg => "borg, zstd,1, not encrypted",
            Self::BorgSmall => "the same, 16 KiB chunks",
        }
    }

    fn program(self) -> &'static str {
        if self == Self::Restic { "restic" } else { "borg" }
    }

    fn dir(self, scratch: &Path) -> PathBuf {
        scratch.join(format!("{self:?}"))
    }

    fn begin(self, scratch: &Path) {
        let dir = self.dir(scratch);
        fs::create_dir_all(&dir).unwrap();
        let words: &[&str] = match self {
            Self::Restic => &["init", "-q"],
            _ => &["init", "-e", "none", "repo"],
        };
        run(self.program(), &dir, words, Stdio::null());
    }

    fn take_in(self, scratch: &Path, image: &str, generation: usize) {
        let tag = format!("g{generation}");
        let archive = format!("repo::{tag}");
        let words = match self {
            Self::Restic => vec!["backup", "-q", "--force", "--tag", &tag, image],
            Self::BorgSmall => {
                let chunks = "--chunker-params=buzhash,10,16,14,4095";
                vec!["create", "-C", "zstd,1", "--files-cache=disabled", chunks, &archive, image]
            }
            _ => vec!["create", "-C", "zstd,1", "--files-cache=disabled", &archive, image],
        };
        run(self.program(), &self.dir(scratch), &words, Stdio::null());
    }

    fn give_back(self, scratch: &Path, image: &str, generation: usize, output: Stdio) {
        let tag = format!("g{generation}");
        let archive = format!("repo::{tag}");
        let words = match self {
            Self::Restic => vec!["dump", "-q", "--tag", &tag, "latest", image],
            _ => vec!["extract", "--stdout", &archive],
        };
        run(self.program(), &self.dir(scratch), &words, output);
    }
}

/// Time by the clock, and of processors.
#[derive(Clone, Copy)]
struct Spent {
    wall: Duration,
    busy: Duration,
}

/// Does something, and says what it took: of this process and of programs that it waited for.
fn spent(work: impl FnOnce()) -> Spent {
    /// A tick of the kernel's accounts.
    const TICK: Duration = Duration::from_millis(10);
    let ticks = || {
        let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
        fields.skip(11).take(4).filter_map(|field| field.parse::<u32>().ok()).sum::<u32>()
    };
    let before = ticks();
    let wall = timed(work);
    Spent { wall, busy: TICK * (ticks() - before) }
}

/// Drops all files in a directory from the page cache; false if one can not be.
fn cold(dir: &Path) -> bool {
    settle();
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).all(|path| {
        if path.is_dir() {
            return cold(&path);
        }
        let mut drop = Command::new("dd");
        drop.arg(format!("if={}", path.display()));
        drop.args(["iflag=nocache", "count=0", "status=none"]);
        drop.status().is_ok_and(|status| status.success())
    })
}

/// Writes over two hundredths of a file, with what `fresh` holds.
fn change(image: &Path, fresh: &Path, seed: u64) {
    let file = File::options().write(true).open(image).unwrap();
    let fresh = fs::read(fresh).unwrap();
    let length = file.metadata().unwrap().len();
    let mut state = seed | 1;
    let mut below = |n: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) % n
    };
    let mut left = length / 50;
    while left > 0 {
        let size = (4096 + below(124 << 10)).min(left);
        let from = below(fresh.len() as u64 - size) as usize;
        let to = below(length - size);
        file.write_all_at(&fresh[from..from + size as usize], to).unwrap();
        left -= size;
    }
    file.sync_all().unwrap();
}

fn open(scratch: &Path) -> Store {
    let dir = scratch.join("ours");
    Store::open(Arc::new(RealVfs), &dir, &Options::default()).unwrap().0
}

struct Bench<'a> {
    scratch: &'a Path,
    peers: &'a [Who],
    mib: u64,
    rounds: usize,
    last: usize,
    /// Our generations.
    ids: Vec<GenerationId>,
    /// Files with what is expected, by generation.
    images: BTreeMap<usize, PathBuf>,
    times: BTreeMap<(usize, Who), Vec<Spent>>,
    cold: bool,
}

impl Bench<'_> {
    fn take_all_in(&mut self, words: bool, seed: u64) {
        let image = self.scratch.join("image");
        make(&image, self.mib, words, seed);
        self.peers.iter().for_each(|peer| peer.begin(self.scratch));
        let text = image.to_str().unwrap();
        for generation in 1..=self.last {
            let store = open(self.scratch);
            let mut cartridge = store.image(CartridgeId(Ulid::from_parts(1, 0))).unwrap();
            self.ids.push(take_in(&mut cartridge, &image));
            self.peers.iter().for_each(|peer| peer.take_in(self.scratch, text, generation));
            if generation == 1 || generation == self.last {
                let kept = self.scratch.join(format!("image.{generation}"));
                fs::copy(&image, &kept).unwrap();
                self.images.insert(generation, kept);
            }
            let fresh = self.scratch.join("fresh");
            make(&fresh, 4, words, seed ^ (generation as u64) << 32);
            change(&image, &fresh, seed ^ generation as u64);
        }
    }

    fn ours(&mut self, who: Who) {
        let generations: Vec<usize> = self.images.keys().copied().collect();
        for generation in generations {
            let id = self.ids[generation - 1];
            for _ in 0..self.rounds {
                self.cold &= cold(self.scratch);
                let time = spent(|| {
                    let store = open(self.scratch);
                    read_out(&mut store.reader(id).unwrap(), &mut |_| {});
                });
                self.times.entry((generation, who)).or_default().push(time);
            }
            let (store, mut hash) = (open(self.scratch), Sha256::new());
            read_out(&mut store.reader(id).unwrap(), &mut |bytes| hash.update(bytes));
            assert_eq!(hash.finalize(), digest(&self.images[&generation]), "it is something else");
            println!("{} {generation}: {:?}", who.name(), store.fragmentation(id, None).unwrap());
        }
    }

    fn others(&mut self) {
        let text = self.scratch.join("image").to_str().unwrap().to_owned();
        let back = self.scratch.join("back");
        for (generation, image) in self.images.clone() {
            for round in 0..self.rounds {
                self.cold &= cold(self.scratch);
                let mut cat = Command::new("cat");
                cat.arg(&image).stdout(Stdio::null());
                let time = spent(|| assert!(cat.status().unwrap().success()));
                self.times.entry((generation, Who::Cat)).or_default().push(time);
                for peer in self.peers {
                    let give = |output| peer.give_back(self.scratch, &text, generation, output);
                    self.cold &= cold(self.scratch);
                    let time = spent(|| give(Stdio::null()));
                    self.times.entry((generation, *peer)).or_default().push(time);
                    if round == 0 {
                        give(File::create(&back).unwrap().into());
                        assert_eq!(digest(&back), digest(&image), "{peer:?}");
                    }
                }
            }
        }
    }

    fn write_together(&self) {
        let (store, id) = (open(self.scratch), self.ids[self.last - 1]);
        let mut rewriting = store.rewriting(1024, 100).unwrap();
        let time = timed(|| assert!(rewriting.generation(id, &mut |_| true).unwrap()));
        let collected = store.collect(50, &|| false).unwrap();
        println!("written together: {:?} in {time:?}; {collected:?}", rewriting.done());
    }

    fn table(&self, kind: &str) {
        let caches = if self.cold { "cold" } else { "WARM: dd can not drop them" };
        println!("\n| {kind}, caches {caches} | first | of a processor | last | of a processor |");
        println!("|---|--:|--:|--:|--:|");
        let whos: BTreeSet<Who> = self.times.keys().map(|(_, who)| *who).collect();
        for who in whos {
            let rate = |generation, of: fn(&Spent) -> Duration| {
                let times = self.times[&(generation, who)].iter().map(of).collect();
                // A tick at least: nobody takes nothing.
                (self.mib << 20) as f64 / 1e6 / median(times).as_secs_f64().max(0.01)
            };
            let wall = |generation| rate(generation, |spent| spent.wall);
            let busy = |generation| rate(generation, |spent| spent.busy);
            let (name, last) = (who.name(), self.last);
            let (first, first_busy) = (wall(1), busy(1));
            println!(
                "| {name} | {first:.0} | {first_busy:.0} | {:.0} | {:.0} |",
                wall(last),
                busy(last)
            );
        }
        println!();
    }
}

fn main() {
    let (mut mib, mut rounds, mut last, mut alone) = (4, 1, 5, true);
    let (mut dir, mut seed): (Option<PathBuf>, u64) = (None, 20_260_102);
    let tested = !std::env::args().any(|word| word == "--bench");
    if !tested {
        (mib, rounds, last, alone) = (512, 3, 20, false);
    }
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            "--mib" => mib = value().parse().expect("a number"),
            "--rounds" => rounds = value().parse().expect("a number"),
            "--generations" => last = value().parse().expect("a number"),
            "--seed" => seed = value().parse().expect("a number"),
            "--dir" => dir = Some(value().into()),
            "--alone" => alone = true,
            // What the test command gives to all.
            "--bench" | "--show-output" | "--nocapture" => {}
            other => panic!("{other} is not known: --mib, --rounds, --generations, --dir, --seed"),
        }
    }
    let there = |who: &Who| !alone && is_there(who.program());
    let peers: Vec<Who> = Who::PEERS.into_iter().filter(there).collect();
    println!("{mib} MiB, {last} generations, {rounds} rounds, seed {seed}; MB/s, medians\n");
    for (kind, words) in [("random", false), ("words", true)] {
        let scratch = match &dir {
            Some(dir) => tempfile::tempdir_in(dir),
            None => tempfile::tempdir(),
        };
        let scratch = scratch.expect("a directory");
        let mut bench = Bench {
            scratch: scratch.path(),
            peers: &peers,
            mib,
            rounds,
            last,
            ids: Vec::new(),
            images: BTreeMap::new(),
            times: BTreeMap::new(),
            cold: true,
        };
        bench.take_all_in(words, seed);
        bench.ours(Who::Ours);
        bench.write_together();
        bench.ours(Who::Together);
        bench.others();
        bench.table(kind);
    }
    if tested {
        // So that it is counted.
        println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
    }
}
