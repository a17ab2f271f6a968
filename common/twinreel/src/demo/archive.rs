//! What is backed up: a tar of real files, topped up by seeded ones, and its second generation.
//!
//! A file of the second generation is that of the first with some of its bytes overwritten and
//! some put in between, decided by the seed and the name of the file alone. Everything else about
//! a member is fixed, so that an archive depends on nothing but files and seed. Ends are padded
//! with zeros to whole records, which a tar reader passes over.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write, repeat};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::random::Random;

/// Bytes of a tar block.
const BLOCK: u64 = 512;
/// Bytes of a seeded file.
const SEEDED: u64 = 8 << 20;
/// Edits are drawn for each window of so many bytes.
const WINDOW: u64 = 1 << 20;
/// Bytes that one overwrite replaces.
const OVERWRITE: u64 = 64 << 10;
/// The most bytes that one insertion puts in.
const INSERT: u64 = 4096;
/// Bytes moved at once.
const CHUNK: usize = 256 << 10;

/// A file of the archive.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Its path in the archive.
    pub(super) name: String,
    /// Its length in bytes.
    pub(super) length: u64,
    /// Where its bytes are; `None` for one that the seed makes.
    pub(super) file: Option<PathBuf>,
}

/// An archive that was written.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) bytes: u64,
    /// Bytes that are new in this generation.
    pub(super) changed: u64,
    pub(super) sha256: String,
}

/// Adds seeded members until the archive has at least `total` bytes.
pub(super) fn top_up(members: &mut Vec<Member>, total: u64) {
    let mut bytes: u64 = members.iter().map(|member| stored(member.length)).sum();
    let mut number = 0;
    while bytes < total {
        number += 1;
        let name = format!("seeded/{number:04}.bin");
        members.push(Member { name, length: SEEDED, file: None });
        bytes += stored(SEEDED);
    }
}

/// Bytes of a member with its header and its pad.
fn stored(length: u64) -> u64 {
    BLOCK + length.next_multiple_of(BLOCK)
}

/// A stretch of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    /// From the first generation.
    Old { offset: u64, length: u64 },
    /// New bytes, from a seed of their own.
    New { seed: u64, length: u64 },
}

impl Piece {
    fn length(self) -> u64 {
        match self {
            Self::Old { length, .. } | Self::New { length, .. } => length,
        }
    }
}

/// What the second generation of a member of `length` bytes is made of.
fn edited(length: u64, random: &mut Random) -> Vec<Piece> {
    let (mut pieces, mut at) = (Vec::new(), 0);
    let keep = |pieces: &mut Vec<Piece>, from: u64, to: u64| {
        if from < to {
            pieces.push(Piece::Old { offset: from, length: to - from });
        }
    };
    let mut window = 0;
    while window < length {
        let end = (window + WINDOW).min(length);
        let large = end - window >= OVERWRITE;
        if large && random.chance(1, 16) {
            keep(&mut pieces, at, window);
            at = window;
            pieces.push(Piece::New { seed: random.next(), length: 1 + random.below(INSERT) });
        }
        if random.chance(1, if large { 2 } else { 32 }) {
            let size = OVERWRITE.min(end - window);
            let from = window + random.below(end - window - size + 1);
            keep(&mut pieces, at, from);
            pieces.push(Piece::New { seed: random.next(), length: size });
            at = from + size;
        }
        window = end;
    }
    keep(&mut pieces, at, length);
    pieces
}

fn pieces(member: &Member, generation: u32, seed: u64) -> Vec<Piece> {
    match generation {
        1 => vec![Piece::Old { offset: 0, length: member.length }],
        _ => edited(member.length, &mut Random::named(seed ^ u64::from(generation), &member.name)),
    }
}

/// Writes a generation of the archive to a new file, in whole records of `record` bytes. `go_on`
/// is asked between members.
pub(super) fn write(
    path: &Path,
    members: &[Member],
    (generation, seed, record): (u32, u64, u64),
    go_on: &dyn Fn() -> io::Result<()>,
) -> io::Result<Written> {
    let mut out = Hashed::new(BufWriter::new(File::create_new(path)?));
    let mut changed = 0;
    for member in members {
        go_on()?;
        let pieces = pieces(member, generation, seed);
        let length = pieces.iter().map(|piece| piece.length()).sum();
        out.write_all(&header(&member.name, length)?)?;
        write_member(&mut out, member, &pieces, seed)?;
        zeros(&mut out, length.next_multiple_of(BLOCK) - length)?;
        if generation > 1 {
            let new = pieces.iter().filter(|piece| matches!(piece, Piece::New { .. }));
            changed += new.map(|piece| piece.length()).sum::<u64>();
        }
    }
    let end = (out.bytes + 2 * BLOCK).next_multiple_of(record);
    let pad = end - out.bytes;
    zeros(&mut out, pad)?;
    let (bytes, sha256) = (out.bytes, out.digest());
    out.inner.flush()?;
    Ok(Written { bytes, changed, sha256 })
}

fn zeros(out: &mut impl Write, count: u64) -> io::Result<()> {
    io::copy(&mut repeat(0).take(count), out).map(drop)
}

fn write_member(
    out: &mut impl Write,
    member: &Member,
    pieces: &[Piece],
    seed: u64,
) -> io::Result<()> {
    let mut file = member.file.as_ref().map(File::open).transpose()?;
    for piece in pieces {
        match (*piece, &mut file) {
            (Piece::New { seed, length }, _) => Random::new(seed).write(out, 0, length)?,
            (Piece::Old { offset, length }, None) => {
                Random::named(seed, &member.name).write(out, offset, length)?;
            }
            (Piece::Old { offset, length }, Some(file)) => {
                file.seek(SeekFrom::Start(offset))?;
                let mut buffer = vec![0; CHUNK.min(length as usize)];
                // A file that got shorter meanwhile goes on with zeros, as tar(1) does it.
                let mut rest = file.take(length).chain(repeat(0)).take(length);
                loop {
                    match rest.read(&mut buffer)? {
                        0 => break,
                        count => out.write_all(&buffer[..count])?,
                    }
                }
            }
        }
    }
    Ok(())
}

/// A ustar header (POSIX.1-2017, pax, "ustar Interchange Format") of a regular file.
fn header(name: &str, length: u64) -> io::Result<[u8; BLOCK as usize]> {
    let mut block = [0u8; BLOCK as usize];
    let (prefix, short) = split(name).ok_or_else(|| io::Error::other("a name is too long"))?;
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, short.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{length:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    put(345, prefix.as_bytes());
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}

/// A name in two parts, as a header holds it: prefix of 155 bytes, name of 100.
pub(super) fn split(name: &str) -> Option<(&str, &str)> {
    if name.len() <= 100 {
        return Some(("", name));
    }
    let slash = |(at, _): (usize, &str)| Some((&name[..at], &name[at + 1..]));
    let mut parts = name.match_indices('/').filter_map(slash);
    parts.find(|(prefix, rest)| prefix.len() <= 155 && (1..=100).contains(&rest.len()))
}

/// Counts and hashes what goes through.
pub(super) struct Hashed<W> {
    inner: W,
    sha: Sha256,
    pub(super) bytes: u64,
}

impl<W: Write> Hashed<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, sha: Sha256::new(), bytes: 0 }
    }

    /// The SHA-256 of what has gone through, in hexadecimal.
    pub(super) fn digest(&self) -> String {
        self.sha.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(data)?;
        self.sha.update(&data[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: u64 = 4096;

    fn go_on() -> io::Result<()> {
        Ok(())
    }

    fn members(dir: &Path) -> Vec<Member> {
        let path = dir.join("real");
        std::fs::write(&path, vec![7u8; 300_000]).unwrap();
        let long = format!("{}/{}", "d".repeat(120), "n".repeat(90));
        let file = Some(path);
        let mut members = vec![
            Member { name: "a/real".into(), length: 300_000, file: file.clone() },
            Member { name: long, length: 300_100, file },
        ];
        top_up(&mut members, 20 << 20);
        members
    }

    #[test]
    fn archives_depend_on_nothing_but_files_and_seed() {
        let dir = tempfile::tempdir().unwrap();
        let members = members(dir.path());
        let make = |name: &str, generation, seed| {
            write(&dir.path().join(name), &members, (generation, seed, RECORD), &go_on).unwrap()
        };
        let first = make("1", 1, 5);
        assert_eq!(first.sha256, make("again", 1, 5).sha256);
        assert!(first.bytes >= 20 << 20 && first.bytes % RECORD == 0 && first.changed == 0);
        assert_ne!(first.sha256, make("other", 1, 6).sha256);
        let second = make("2", 2, 5);
        assert_eq!(second.sha256, make("2 again", 2, 5).sha256);
        let percent = second.changed * 100 / second.bytes;
        assert!((1..=5).contains(&percent), "{percent} per cent changed");
        let existing = write(&dir.path().join("1"), &members, (1, 5, RECORD), &go_on);
        assert!(existing.is_err(), "nothing is overwritten");
    }

    #[test]
    fn tar_reads_both_generations() {
        let dir = tempfile::tempdir().unwrap();
        let members = members(dir.path());
        for generation in [1, 2] {
            let path = dir.path().join(format!("{generation}.tar"));
            write(&path, &members, (generation, 5, RECORD), &go_on).unwrap();
            let Ok(listed) = std::process::Command::new("tar").arg("tf").arg(&path).output() else {
                eprintln!("skipped: tar is not installed");
                return;
            };
            assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
            let names: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
            assert_eq!(
                String::from_utf8(listed.stdout).unwrap().lines().collect::<Vec<_>>(),
                names
            );
        }
    }

    #[test]
    fn edits_keep_everything_else_in_order() {
        for seed in 0..50 {
            let length = 10_000 + seed * 100_003;
            let pieces = edited(length, &mut Random::new(seed));
            let mut at = 0;
            for piece in &pieces {
                assert!(piece.length() > 0);
                if let Piece::Old { offset, length } = piece {
                    assert!(*offset >= at, "seed {seed}");
                    at = offset + length;
                }
            }
            assert!(at <= length);
        }
        assert_eq!(edited(0, &mut Random::new(1)), []);
    }

    #[test]
    fn names_are_split_where_a_header_can_hold_them() {
        assert_eq!(split("a/b"), Some(("", "a/b")));
        let long = format!("{}/{}", "p".repeat(150), "n".repeat(99));
        assert_eq!(split(&long).map(|(p, n)| (p.len(), n.len())), Some((150, 99)));
        assert_eq!(split(&"x".repeat(101)), None);
        assert_eq!(split(&format!("{}/{}", "p".repeat(160), "n")), None);
    }
}
