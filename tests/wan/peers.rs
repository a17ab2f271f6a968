//! The programs that an administrator could take instead.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tests::Scratch;

/// One of them, and how it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// As it comes.
    Restic,
    /// As it comes, but for the compression of what it would send anyway.
    Borg,
    /// With chunks of 16 KiB.
    BorgSmall,
    /// As it comes.
    Rustic,
    /// As it comes.
    Bupstash,
    /// A delta of the whole stream: no store.
    Xdelta3,
    /// The same.
    ZstdPatch,
}

/// What a figure of ours is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A deduplicating store as its makers set it.
    Default,
    /// One that somebody set for small differences.
    Tuned,
    /// A program that needs the whole stream before, at both ends.
    Delta,
}

impl Peer {
    pub(crate) const ALL: [Self; 7] = [
        Self::Restic,
        Self::Borg,
        Self::BorgSmall,
        Self::Rustic,
        Self::Bupstash,
        Self::Xdelta3,
        Self::ZstdPatch,
    ];

    /// As the tables name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Restic => "restic",
            Self::Borg => "borg",
            Self::BorgSmall => "borg, 16 KiB chunks",
            Self::Rustic => "rustic",
            Self::Bupstash => "bupstash",
            Self::Xdelta3 => "xdelta3",
            Self::ZstdPatch => "zstd --patch-from",
        }
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Restic | Self::Borg | Self::Rustic | Self::Bupstash => Kind::Default,
            Self::BorgSmall => Kind::Tuned,
            Self::Xdelta3 | Self::ZstdPatch => Kind::Delta,
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Restic => "restic",
            Self::Borg | Self::BorgSmall => "borg",
            Self::Rustic => "rustic",
            Self::Bupstash => "bupstash",
            Self::Xdelta3 => "xdelta3",
            Self::ZstdPatch => "zstd",
        }
    }

    /// Whether it is there; if not that is said.
    pub(crate) fn is_installed(self) -> bool {
        let version = match self {
            Self::Restic => "version",
            Self::Rustic | Self::Bupstash => "--version",
            _ => "-V",
        };
        let run = Command::new(self.program()).arg(version).stdout(Stdio::null()).status();
        if run.is_err() {
            tests::skip(&format!("wan beside {}", self.name()), "it is not installed");
        }
        run.is_ok()
    }

    /// A repository of its own.
    pub(crate) fn begin(self, scratch: &Scratch) -> Running {
        let dir = scratch.join(format!("{self:?}"));
        fs::create_dir_all(&dir).expect("a directory");
        fs::create_dir_all(dir.with_extension("home")).expect("a directory");
        let running = Running { peer: self, dir, number: 0 };
        match self {
            Self::Restic => running.run(&["init", "-q"], None),
            Self::Borg | Self::BorgSmall => running.run(&["init", "-e", "none", "repo"], None),
            Self::Rustic => running.run(&["init"], None),
            Self::Bupstash => {
                let key = running.key();
                running.run(&["init", "-r", "repo"], None);
                running.run(&["new-key", "-o", &key], None);
            }
            Self::Xdelta3 | Self::ZstdPatch => {}
        }
        running
    }
}

/// One of them with its repository.
pub(crate) struct Running {
    peer: Peer,
    dir: PathBuf,
    number: u32,
}

impl Running {
    /// Where bupstash has its key: not in what another site needs.
    fn key(&self) -> String {
        self.dir.with_extension("home").join("key").display().to_string()
    }

    /// What it has to send at least for this generation; `None` if it sends none.
    pub(crate) fn send(&mut self, stream: &[u8], before: Option<&Vec<u8>>) -> Option<u64> {
        self.number += 1;
        let archive = format!("repo::g{}", self.number);
        let held = sizes(&self.dir);
        match self.peer {
            Peer::Restic => {
                self.run(&["backup", "-q", "--stdin", "--stdin-filename", "s"], Some(stream));
            }
            Peer::Borg => self.run(&["create", "-C", "zstd,3", &archive, "-"], Some(stream)),
            Peer::BorgSmall => {
                let chunks = "--chunker-params=buzhash,10,16,14,4095";
                self.run(&["create", "-C", "zstd,3", chunks, &archive, "-"], Some(stream));
            }
            // By its parent it takes another stream for the same file, and reads nothing.
            Peer::Rustic => {
                self.run(&["backup", "--force", "--stdin-filename", "s", "-"], Some(stream));
            }
            Peer::Bupstash => {
                self.run(&["put", "-q", "-r", "repo", "-k", &self.key(), "-"], Some(stream));
            }
            Peer::Xdelta3 | Peer::ZstdPatch => return before.map(|old| self.delta(stream, old)),
        }
        let new = sizes(&self.dir).into_iter();
        let grown = new.map(|(path, size)| match held.get(&path) {
            // A file that goes on costs what it got; one that is replaced costs all of it.
            Some(before) if *before <= size => size - before,
            _ => size,
        });
        Some(grown.sum())
    }

    fn delta(&self, stream: &[u8], old: &[u8]) -> u64 {
        fs::write(self.dir.join("old"), old).expect("it is written");
        fs::write(self.dir.join("new"), stream).expect("it is written");
        match self.peer {
            Peer::Xdelta3 => {
                let window = format!("-B{}", old.len().next_power_of_two());
                self.run(&["-3", "-e", "-f", &window, "-s", "old", "new", "delta"], None);
            }
            _ => self.run(
                &["-q", "-f", "-3", "--long=31", "--patch-from=old", "new", "-o", "delta"],
                None,
            ),
        }
        fs::metadata(self.dir.join("delta")).expect("a delta").len()
    }

    fn run(&self, arguments: &[&str], input: Option<&[u8]>) {
        let home = self.dir.with_extension("home");
        let mut command = Command::new(self.peer.program());
        command.args(arguments).current_dir(&self.dir).env("HOME", &home);
        command.env("RESTIC_PASSWORD", "wan").env("RESTIC_REPOSITORY", "repo");
        command.env("RESTIC_CACHE_DIR", home.join("cache"));
        command.env("RUSTIC_PASSWORD", "wan").env("RUSTIC_REPOSITORY", "repo");
        command.env("RUSTIC_CACHE_DIR", home.join("cache")).env("RUSTIC_NO_PROGRESS", "true");
        command.env("RUSTIC_LOG_LEVEL", "warn");
        command.env("BORG_BASE_DIR", &home);
        command.env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes");
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().expect("it runs");
        let mut to = child.stdin.take().expect("a pipe");
        input.into_iter().for_each(|bytes| to.write_all(bytes).expect("it reads"));
        drop(to);
        let status = child.wait().expect("it ends");
        assert!(status.success(), "{} {arguments:?}: {status}", self.peer.program());
    }
}

/// The files below a directory that another site would need.
fn sizes(dir: &Path) -> BTreeMap<PathBuf, u64> {
    let mut all = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).expect("a directory").map(|entry| entry.unwrap()) {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            // borg makes these anew from the segments.
            let derived = ["index.", "hints.", "integrity.", "lock", "nonce"];
            match entry.file_type().unwrap().is_dir() {
                true => open.push(entry.path()),
                false if derived.iter().any(|it| name.starts_with(it)) => {}
                false => drop(all.insert(entry.path(), entry.metadata().unwrap().len())),
            }
        }
    }
    all
}
