//! The rules of the house, held by tests: which room may know which ([`arrows`]), how long things
//! may grow and what may not be written ([`budgets`]), and that the book is whole ([`book`]).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod arrows;
mod book;
mod budgets;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The directory of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").to_owned()
}

/// The files that git knows or would add, relative to the root, in order. Without git (a source
/// archive) every file but those below `target`.
fn files() -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    let mut files: Vec<PathBuf> = match listed {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout)
            .expect("paths are text")
            .split_terminator('\0')
            .map(PathBuf::from)
            .filter(|path| root().join(path).is_file())
            .collect(),
        _ => walk(&root()),
    };
    files.sort();
    files.dedup();
    assert!(files.len() > 50, "these can not be all files: {files:?}");
    files
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory of ours").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() && name != "target" && name != ".git" {
            found.extend(walk(&path));
        } else if path.is_file() {
            found.push(path.strip_prefix(root()).expect("below the root").to_owned());
        }
    }
    found
}

fn read(path: &Path) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Fails with all of `findings` under `rule`, so that one run shows everything.
fn none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}
