//! What the benchmarks of the store share: running peers, timing, streams to take in.
#![allow(dead_code, unreachable_pub, reason = "each benchmark uses a part")]

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use store::Reel;

/// Bytes of a record.
pub const RECORD: usize = 256 << 10;

/// Whether a program can be run; says so if it can not.
pub fn is_there(program: &str) -> bool {
    let mut run = Command::new(program);
    run.arg("help").stdout(Stdio::null()).stderr(Stdio::null());
    let there = run.status().is_ok();
    if !there {
        println!("SKIPPED: {program} is not installed");
    }
    there
}

/// Gives all records of a reel, from where it stands.
pub fn read_out(reel: &mut Reel, each: &mut dyn FnMut(&[u8])) {
    let mut buffer = vec![0; RECORD];
    loop {
        match reel.read(&mut buffer).unwrap() {
            store::Object::Record { length, .. } => each(&buffer[..length as usize]),
            store::Object::EndOfData => break,
            store::Object::Filemark => {}
        }
    }
}

/// Takes a file in as records and a filemark, and seals it.
pub fn take_in(image: &mut store::Image, input: &Path) -> model::GenerationId {
    let (mut file, mut record) = (File::open(input).unwrap(), vec![0; RECORD]);
    loop {
        let mut filled = 0;
        while filled < RECORD {
            match file.read(&mut record[filled..]).unwrap() {
                0 => break,
                n => filled += n,
            }
        }
        if filled == 0 {
            break;
        }
        image.write(&record[..filled]).unwrap();
    }
    image.write_filemarks(1).unwrap();
    image.seal().unwrap().unwrap()
}

pub fn timed(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

pub fn settle() {
    assert!(Command::new("sync").status().expect("sync runs").success());
}

pub fn digest(input: &Path) -> sha2::digest::Output<Sha256> {
    let (mut file, mut hash, mut part) =
        (File::open(input).unwrap(), Sha256::new(), vec![0; RECORD]);
    loop {
        match file.read(&mut part).unwrap() {
            0 => return hash.finalize(),
            n => hash.update(&part[..n]),
        }
    }
}

pub fn run(program: &str, dir: &Path, arguments: &[&str], output: Stdio) {
    let mut command = Command::new(program);
    command.current_dir(dir).args(arguments).stdin(Stdio::null()).stdout(output);
    for (name, value) in [
        ("RESTIC_REPOSITORY", "repo"),
        ("RESTIC_PASSWORD", "bench"),
        ("RESTIC_CACHE_DIR", "cache"),
        ("RUSTIC_REPOSITORY", "repo"),
        ("RUSTIC_PASSWORD", "bench"),
        ("RUSTIC_CACHE_DIR", "rustic"),
        ("RUSTIC_NO_PROGRESS", "true"),
        ("RUSTIC_LOG_LEVEL", "warn"),
        ("HOME", "home"),
        ("BORG_BASE_DIR", "borg"),
        ("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes"),
    ] {
        let path = name.ends_with("_DIR") || name == "HOME";
        let whole = if path { dir.join(value).into_os_string() } else { value.into() };
        command.env(name, whole);
    }
    let status = command.status().expect("the program runs");
    assert!(status.success(), "{program} {arguments:?}");
}

/// A stream of random bytes, or one of words that compresses about three to one.
pub fn make(path: &Path, mib: u64, words: bool, seed: u64) {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    let mut file = std::io::BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    for _ in 0..(mib << 20) / 8 {
        let word = match next() {
            it if words && it % 3 > 0 => (it >> 60).wrapping_mul(0x2020_2020),
            it => it ^ (it >> 29),
        };
        file.write_all(&word.to_le_bytes()).unwrap();
    }
    file.into_inner().unwrap().sync_all().unwrap();
}

pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
