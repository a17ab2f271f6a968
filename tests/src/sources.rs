//! Successive releases of real source trees, as cargo brings them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Scratch;
use crate::inputs::member;

/// Crates that carry much source of other people, each with six releases in a row. Together about
/// 250 MB a generation.
const CRATES: [(&str, [&str; 6]); 5] = [
    ("aws-lc-sys", ["0.37.0", "0.37.1", "0.38.0", "0.39.0", "0.39.1", "0.40.0"]),
    ("libgit2-sys", ["0.18.0", "0.18.1", "0.18.2", "0.18.3", "0.18.4", "0.18.5"]),
    ("libsqlite3-sys", ["0.33.0", "0.34.0", "0.35.0", "0.36.0", "0.37.0", "0.38.0"]),
    ("openssl-src", ["300.5.0", "300.5.1", "300.5.2", "300.5.3", "300.5.4", "300.5.5"]),
    ("windows", ["0.60.0", "0.61.1", "0.61.3", "0.62.0", "0.62.1", "0.62.2"]),
];

/// Their tars, one for each generation.
pub(crate) struct Sources {
    scratch: Scratch,
    night: usize,
    /// Whether every file gets the time of its generation.
    touched: bool,
    /// The files of the generation before, and when each was changed.
    before: BTreeMap<String, (Vec<u8>, u64)>,
}

impl Sources {
    /// Has cargo fetch all generations; why not, if it can not.
    pub(crate) fn fetch(touched: bool) -> Result<Self, String> {
        let scratch = Scratch::new("sources");
        for night in 0..CRATES[0].1.len() {
            let dir = scratch.join(format!("{night}"));
            fs::create_dir_all(dir.join("src")).expect("a directory");
            fs::write(dir.join("src/lib.rs"), "").expect("a file");
            fs::write(dir.join("Cargo.toml"), manifest(night)).expect("a manifest");
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["vendor", "--quiet", "vendor"]).current_dir(&dir).stdout(Stdio::null());
            let output = cargo.stderr(Stdio::piped()).output().map_err(|e| e.to_string())?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                let cause = said.lines().next().unwrap_or_default();
                return Err(format!("cargo can not fetch the sources: {cause}"));
            }
        }
        Ok(Self { scratch, night: 0, touched, before: BTreeMap::new() })
    }
}

/// A package that depends on this generation of each.
fn manifest(night: usize) -> String {
    let mut text = "[package]\nname = \"generation\"\nedition = \"2021\"\n".to_owned();
    text.push_str("[workspace]\n[dependencies]\n");
    for (name, releases) in CRATES {
        let release = releases[night];
        writeln!(text, "{name} = {{ version = \"={release}\", default-features = false }}")
            .expect("a string takes it");
    }
    text
}

impl Iterator for Sources {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.night == CRATES[0].1.len() {
            return None;
        }
        let vendor = self.scratch.join(format!("{}/vendor", self.night));
        let mut files = BTreeMap::new();
        for (name, _) in CRATES {
            read(&vendor.join(name), name, &mut files);
        }
        drop(fs::remove_dir_all(&vendor));
        let (mut tar, mut now) = (Vec::new(), BTreeMap::new());
        for (number, (name, body)) in files.into_iter().enumerate() {
            // A checkout writes some files a second.
            let new = 1_700_000_000 + 604_800 * self.night as u64 + number as u64 / 500;
            let old = self.before.get(&name).filter(|(before, _)| *before == body);
            let modified = old.filter(|_| !self.touched).map_or(new, |(_, modified)| *modified);
            member(&mut tar, &name, modified, &body);
            now.insert(name, (body, modified));
        }
        tar.resize(tar.len() + 1024, 0);
        self.before = now;
        self.night += 1;
        Some(tar)
    }
}

/// All files below a directory by their names in the tar, but for what cargo adds.
fn read(dir: &Path, name: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry")) {
        let (kind, path) = (entry.file_type().expect("a kind"), entry.path());
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        if kind.is_dir() {
            read(&path, &name, files);
        } else if kind.is_file() && !name.ends_with("/.cargo-checksum.json") {
            files.insert(name, fs::read(&path).expect("a file"));
        }
    }
}
