//! The embedded physical library (`backend = "file"`): [`crate::target`] over cartridges that are
//! files, reached through [`crate::driver`] like real hardware.
//!
//! - [`FileLibrary`] opens a directory and gives its changer and drives.
//! - [`FileMedium`] is a mounted cartridge file, [`FileShelf`] the directory of them.
//!
//! What was flushed survives a loss of power; what was not may be lost, as in real hardware, but
//! never comes back torn, and nothing that an earlier use of a file left ever follows it. Damage
//! of what was flushed is an error, never an early end of data. All of it goes through [`vfs`],
//! and the format is described in `docs/formats/file-library.md`.

mod directory;
mod faults;
mod format;
mod index;
mod library;
mod medium;
mod shelf;
#[cfg(test)]
mod tests;
mod window;

pub use directory::{FileLibraryError, FileLibrarySpec};
pub use library::FileLibrary;
pub use medium::FileMedium;
pub use shelf::FileShelf;
