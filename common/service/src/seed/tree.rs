//! What may lie on a disk that comes from outside, before anything of it is opened.

use std::fs;
use std::io;
use std::path::Path;

/// Files of a seed at most: 256 TB in containers of 64 MiB.
const FILES: usize = 4 << 20;
/// The file that is in every store.
const HEADER: &str = "store.header";
/// Where a store has its index, which can be made anew.
const INDEX: &str = "index";
/// What is in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    /// Nothing; it may not even be there.
    Nothing,
    /// A store, in plain files only.
    Store,
    /// Something else.
    Other,
}

/// Looks what is in `dir`, without opening a file of it. Links could lead out of the disk, and
/// special files could hang: none of ours is one.
pub(super) fn look(dir: &Path) -> io::Result<Contents> {
    let names = match fs::read_dir(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contents::Nothing),
        Err(error) => return Err(error),
    };
    let (mut found, mut files) = (false, 0);
    for entry in names {
        let entry = entry?;
        // Made with the file system.
        if entry.file_name() == "lost+found" {
            continue;
        }
        found = true;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            for inner in fs::read_dir(entry.path())? {
                let inner = inner?;
                plain(&inner.path(), &inner.metadata()?, &mut files)?;
            }
        } else {
            plain(&entry.path(), &metadata, &mut files)?;
        }
    }
    Ok(match (found, dir.join(HEADER).exists()) {
        (false, _) => Contents::Nothing,
        (true, true) => Contents::Store,
        (true, false) => Contents::Other,
    })
}

fn plain(path: &Path, metadata: &fs::Metadata, files: &mut usize) -> io::Result<()> {
    let bad = |what: &str| Err(io::Error::other(format!("{} is {what}", path.display())));
    *files += 1;
    if *files > FILES {
        return bad("one file too many for a seed");
    }
    // `DirEntry::metadata` does not follow links.
    match metadata.is_file() {
        false => bad("no plain file, and does not belong into a seed"),
        true => Ok(()),
    }
}

/// Takes the index away, so that it is made anew from what it is an index of. It is the one part of
/// a store that is taken into memory as it is, and on this disk nobody vouches for it.
pub(super) fn forget_index(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir.join(INDEX)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_plain_files_are_looked_at_further() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("seed");
        assert_eq!(look(&dir).unwrap(), Contents::Nothing);
        fs::create_dir_all(dir.join("recipes")).unwrap();
        assert_eq!(look(&dir).unwrap(), Contents::Other);
        fs::write(dir.join(HEADER), "x").unwrap();
        fs::write(dir.join("recipes/y"), "x").unwrap();
        assert_eq!(look(&dir).unwrap(), Contents::Store);
        // Beside the directory, where nothing may be touched.
        let outside = scratch.path().join("outside");
        fs::write(&outside, "x").unwrap();
        for link in ["journals", "recipes/z", "index"] {
            symlink(&outside, dir.join(link)).unwrap();
            assert!(look(&dir).unwrap_err().to_string().contains("no plain file"), "{link}");
            fs::remove_file(dir.join(link)).unwrap();
        }
        fs::create_dir_all(dir.join("recipes/deep")).unwrap();
        assert!(look(&dir).is_err());
    }
}
