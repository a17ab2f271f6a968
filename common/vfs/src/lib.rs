//! The seam under everything durable: what the store and the file tape library ask of a file
//! system, and nothing more.
//!
//! - [`Vfs`] and [`VfsFile`]: two small object-safe traits. Files are read and written at
//!   positions; there is no cursor and no append mode.
//! - [`RealVfs`]: the operating system.
//! - [`CrashVfs`]: in memory; knows what would survive a loss of power and hands out the image
//!   after one ([`CrashVfs::crash`]), at every point where one can happen
//!   ([`CrashVfs::stop_at`]).
//! - [`FaultyVfs`]: a decorator whose nth call fails or moves fewer bytes than asked.
//!
//! # What is durable when
//!
//! | durable | after |
//! |---|---|
//! | the bytes and the length of a file | [`VfsFile::sync_data`] of it |
//! | a name made, renamed or removed | [`Vfs::sync_dir`] of its directory |
//! | a directory | [`Vfs::create_dir_all`] returned |
//!
//! Nothing else is promised: a synced file whose name was not synced may be gone, unsynced writes
//! may survive in part and in any order, in units of a sector. A rename inside one directory is
//! atomic: after a crash there is the old name or the new one.
//!
//! [`read_all`] and [`write_atomic`] are the two idioms over it that everybody needs. Not here:
//! buffering, checksums, and paths above the directory that the caller was given.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod crash;
mod error;
mod faulty;
mod idiom;
mod real;
mod rng;

use std::fmt::Debug;
use std::ops::Range;
use std::path::Path;

pub use crash::{CrashMode, CrashVfs, SECTOR};
pub use error::{VfsError, VfsOp};
pub use faulty::{FaultKind, FaultOp, FaultyVfs};
pub use idiom::{read_all, write_atomic};
pub use real::RealVfs;

/// A file system, as far as durable state needs one.
pub trait Vfs: Send + Sync + Debug {
    /// Makes a new empty file, for reading and writing. Fails if the name is taken.
    fn create(&self, path: &Path) -> Result<Box<dyn VfsFile>, VfsError>;
    /// Opens a file that exists, for reading and writing.
    fn open(&self, path: &Path) -> Result<Box<dyn VfsFile>, VfsError>;
    /// Opens a file, and makes it empty if it is not there.
    fn open_or_create(&self, path: &Path) -> Result<Box<dyn VfsFile>, VfsError>;
    /// Gives a file another name, in place of whatever file had it. Atomic inside one directory;
    /// between two directories both must be synced, the new one first.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), VfsError>;
    /// Removes a file's name. Files that are open stay usable.
    fn remove(&self, path: &Path) -> Result<(), VfsError>;
    /// The names of the files and directories in a directory, sorted. Names that are not UTF-8
    /// are left out: none of ours is.
    fn list(&self, dir: &Path) -> Result<Vec<String>, VfsError>;
    /// Makes a directory and those above it, as far as they are missing; durable on return.
    fn create_dir_all(&self, dir: &Path) -> Result<(), VfsError>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> Result<(), VfsError>;
    /// Whether there is a file or directory of this name.
    fn exists(&self, path: &Path) -> Result<bool, VfsError>;
    /// The length of a file in bytes.
    fn len(&self, path: &Path) -> Result<u64, VfsError>;
    /// Takes a directory for this owner alone, against other processes and other owners in this
    /// one, until the lock is dropped. Fails at once ([`VfsError::is_locked`]) if it is taken.
    /// A process that dies loses its locks.
    fn lock_exclusive(&self, dir: &Path) -> Result<DirLock, VfsError>;
}

/// An open file. All calls take a position, so one handle serves many threads.
pub trait VfsFile: Send + Sync + Debug {
    /// Reads at most `buffer.len()` bytes at `offset`, possibly fewer; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, VfsError>;
    /// Writes at most `bytes.len()` bytes at `offset`, possibly fewer. A gap before reads as zero.
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<usize, VfsError>;
    /// The length in bytes.
    fn len(&self) -> Result<u64, VfsError>;
    /// Whether the length is 0.
    fn is_empty(&self) -> Result<bool, VfsError> {
        Ok(self.len()? == 0)
    }
    /// Cuts the file or extends it with zeros.
    fn set_len(&self, len: u64) -> Result<(), VfsError>;
    /// Makes bytes and length durable. After an error nothing is known about the unsynced bytes:
    /// they must be written again, or the file given up.
    fn sync_data(&self) -> Result<(), VfsError>;
    /// Says that these bytes are written and will be synced, so that the system may bring them to
    /// disk meanwhile. Nothing is promised by it; an error is told by [`VfsFile::sync_data`].
    fn write_back(&self, _bytes: Range<u64>) {}
    /// The path it was opened by, for messages.
    fn path(&self) -> &Path;

    /// Reads exactly `buffer.len()` bytes, or fails with `UnexpectedEof`.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), VfsError> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(&mut buffer[done..], offset + done as u64)? {
                0 => {
                    let cause = std::io::ErrorKind::UnexpectedEof.into();
                    return Err(VfsError::new(VfsOp::Read, self.path(), cause));
                }
                n => done += n,
            }
        }
        Ok(())
    }

    /// Writes all of `bytes`. After an error a part of them may be written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<(), VfsError> {
        let mut done = 0;
        while done < bytes.len() {
            match self.write_at(&bytes[done..], offset + done as u64)? {
                0 => {
                    let cause = std::io::ErrorKind::WriteZero.into();
                    return Err(VfsError::new(VfsOp::Write, self.path(), cause));
                }
                n => done += n,
            }
        }
        Ok(())
    }
}

/// A directory held exclusively; dropping it lets go.
#[must_use = "dropping the lock lets the directory go"]
pub struct DirLock(#[allow(dead_code, reason = "held for its Drop")] Box<dyn Send + Sync>);

impl Debug for DirLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DirLock")
    }
}
