//! The two idioms over a file system that every user needs.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use crate::{Vfs, VfsError, VfsOp};

/// Reads a whole file of at most `max` bytes; a longer one is an `InvalidData` error.
pub fn read_all(vfs: &dyn Vfs, path: &Path, max: usize) -> Result<Vec<u8>, VfsError> {
    let file = vfs.open(path)?;
    let len = file.len()?;
    let too_long = || {
        let cause = format!("{len} bytes, at most {max} expected");
        VfsError::new(VfsOp::Read, path, io::Error::new(io::ErrorKind::InvalidData, cause))
    };
    let len = usize::try_from(len).ok().filter(|len| *len <= max).ok_or_else(too_long)?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Replaces a file by new contents, durably: after a crash there is the old file or the new one,
/// whole. Writes `PATH.tmp` first, so two writers of one path must not run at once.
pub fn write_atomic(vfs: &dyn Vfs, path: &Path, bytes: &[u8]) -> Result<(), VfsError> {
    let mut temporary = OsString::from(path);
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    let file = vfs.open_or_create(temporary)?;
    file.set_len(0)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()?;
    vfs.rename(temporary, path)?;
    vfs.sync_dir(path.parent().unwrap_or(Path::new("")))
}
