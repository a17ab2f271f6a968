//! Chunks that one engine found damaged and the other may have.
//!
//! Whoever lacks chunks asks for a few; each is answered, with the chunk or with nothing. Both
//! sides ask and answer. What comes is proven by whoever asked: it has the digest or is not stored.

use model::Digest;

use crate::replicate::ChunkData;

/// Chunks that are asked for at once, at most.
pub const HEAL_MAX: usize = 16;

/// Both ways, bulk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heal {
    /// These are asked for: 1 to [`HEAL_MAX`].
    Want(Vec<Digest>),
    /// One of them, or that it is not here.
    Chunk {
        /// Which.
        digest: Digest,
        /// In the form that the store keeps.
        data: Option<ChunkData>,
    },
}
