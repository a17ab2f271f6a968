//! What both sites hold of a generation, compared by digests.
//!
//! Whoever asks looks at its own side first and asks only for digests: of a long piece of the list
//! of chunks, and of parts of that piece where they differ. Whoever is asked keeps nothing between
//! two questions.

use model::{Digest, GenerationId};

/// Chunks of one question, at most.
pub const COMPARE_CHUNKS_MAX: u32 = 1 << 16;
/// Parts that one question asks for, at most.
pub const COMPARE_PARTS_MAX: u32 = 256;

/// Both ways, bulk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The answer has the number of its question.
    pub number: u64,
    /// What is said.
    pub body: CompareBody,
}

/// A question, or its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareBody {
    /// What the other side holds is asked for.
    Ask(CompareAsk),
    /// What is held; `None`: there is no such generation.
    Told(Option<CompareTold>),
}

/// A piece of the list of chunks of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompareAsk {
    /// The generation.
    pub generation: GenerationId,
    /// Index of its first chunk.
    pub first: u64,
    /// How many, up to [`COMPARE_CHUNKS_MAX`]; with 0 the generation as a whole is asked for.
    pub count: u32,
    /// Into how many parts it is divided, 1 to [`COMPARE_PARTS_MAX`].
    pub parts: u32,
    /// Chunks are to be read, and not only looked up.
    pub read: bool,
}

/// What is held of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompareTold {
    /// How long the list of chunks is.
    pub chunks: u64,
    /// Over records and filemarks, if the generation as a whole was asked for.
    pub objects: Option<Digest>,
    /// Over each part.
    pub digests: Vec<Digest>,
}
