//! Which real files are taken.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::archive::{Member, split};

/// Entries of directories that are looked at.
const LOOKED_AT: usize = 200_000;
/// What is left of the budget for files when the search ends.
const ENOUGH: u64 = 64 << 10;

/// The Rust sysroot, or what else every machine has.
pub(super) fn root() -> Option<PathBuf> {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().ok();
    let sysroot = sysroot.filter(|output| output.status.success());
    let sysroot = sysroot.and_then(|output| String::from_utf8(output.stdout).ok());
    let sysroot = sysroot.map(|path| PathBuf::from(path.trim()));
    let others = ["/usr/lib", "/usr/share", "/usr/bin"].map(PathBuf::from);
    sysroot.into_iter().chain(others).find(|path| path.is_dir())
}

/// The regular files below a directory in the order of their names, as many as fit into `budget`
/// bytes; one that is too large or can not be read is passed over.
pub(super) fn files(root: &Path, mut budget: u64) -> Vec<Member> {
    let mut members = Vec::new();
    let mut looked_at = 0;
    // Depth first: a stack of paths, the next one on top.
    let mut stack = vec![root.to_owned()];
    while let Some(path) = stack.pop() {
        looked_at += 1;
        if budget < ENOUGH || looked_at > LOOKED_AT {
            break;
        }
        let Ok(about) = fs::symlink_metadata(&path) else { continue };
        if about.is_dir() {
            let Ok(entries) = fs::read_dir(&path) else { continue };
            let mut below: Vec<_> =
                entries.filter_map(|entry| Some(entry.ok()?.path())).take(LOOKED_AT).collect();
            below.sort_unstable_by(|a, b| b.cmp(a));
            stack.append(&mut below);
            continue;
        }
        let name = path.strip_prefix(root).ok().and_then(Path::to_str);
        let Some(name) = name.filter(|name| split(name).is_some()) else { continue };
        let fits = about.is_file() && about.len() <= budget;
        if fits && fs::File::open(&path).is_ok() {
            budget -= about.len();
            let name = name.to_owned();
            members.push(Member { name, length: about.len(), file: Some(path) });
        }
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_in_order_as_many_as_fit() {
        let dir = tempfile::tempdir().unwrap();
        for (name, length) in [("b/2", 70_000), ("b/1", 10), ("a", 20), ("c", 900_000), ("d", 5)] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![1; length]).unwrap();
        }
        std::os::unix::fs::symlink(dir.path().join("a"), dir.path().join("link")).unwrap();
        let names = |budget| -> Vec<String> {
            files(dir.path(), budget).into_iter().map(|member| member.name).collect()
        };
        assert_eq!(names(1 << 20), ["a", "b/1", "b/2", "c", "d"]);
        assert_eq!(names(500_000), ["a", "b/1", "b/2", "d"]);
        assert_eq!(names(100), [""; 0]);
        assert!(files(&dir.path().join("nothing"), 1 << 20).is_empty());
    }
}
