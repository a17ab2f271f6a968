//! Encryption of a store at rest: below all formats, above the file system.
//!
//! A store is encrypted from its making on or never. Its *data key* is random and stands in the
//! store's header, wrapped by a [`Key`] that is kept elsewhere. Everything but that header goes
//! through [`SealedVfs`], which encrypts whole blocks, so that no file shows a digest, the length
//! of a chunk, or where one begins.
//!
//! A block that is not authentic is never given out: it reads as [`FILL`], which no checksum of a
//! format fits, so damage is found, reported and mended in the way of a store without a key.

mod block;
mod file;
mod fs;
mod key;
#[cfg(test)]
mod tests;

pub(crate) use fs::SealedVfs;
pub use key::{Key, KeyError, KeyId};
pub(crate) use key::{Secret, WRAPPED, wrapped_for};

/// What bytes read as that are not authentic.
pub(crate) const FILL: u8 = 0xdb;

/// Fills with random bytes of the system.
pub(crate) fn random(bytes: &mut [u8]) -> std::io::Result<()> {
    aws_lc_rs::rand::fill(bytes).map_err(|_| std::io::Error::other("there are no random bytes"))
}
