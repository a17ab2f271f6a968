//! Replication of one sealed generation: offer, want, send, commit.
//!
//! The sender tells what the generation is made of, in batches: runs of its parent, where the
//! receiver has committed that, else names of chunks. The receiver answers each batch with a bitmap
//! of what it lacks, the chunks follow in their stored form, and when all are there and durable the
//! generation is committed. Batches and chunks are pipelined: a window of 8 batches
//! (up to 64 MiB of data each) and 16 MiB of chunks are under way at once, so that a
//! round trip is paid once in many megabytes. After a break everything is offered again, which
//! costs the recipe, and only what is still missing is sent.

mod receiver;
mod sender;

pub use receiver::{Begun, Receiver, ReceiverOutput};
pub use sender::{Sender, SenderOutput};

use bytes::Bytes;
use model::{Barcode, CartridgeId, Digest, GenerationId, Ulid};

/// The most batches under way.
pub(crate) const OFFERS_MAX: u32 = 8;
/// The most entries (runs or chunks) of one batch.
pub const OFFER_ENTRIES_MAX: usize = 4096;
/// The most object segments of one batch.
pub const OFFER_SEGMENTS_MAX: usize = 16_384;
/// The most bytes of chunks, as stored, that are sent and not yet stored there.
pub(crate) const CREDIT: u64 = 16 << 20;
/// A message of chunks is sent when it holds so many bytes, or when nothing more is ready.
pub(crate) const CHUNKS_TARGET: usize = 1 << 20;
/// The longest chunk, raw or stored, in bytes.
pub const CHUNK_MAX: usize = 1 << 20;

/// One attempt to replicate one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransferId(pub Ulid);

/// What a generation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Its name, the same at both sites.
    pub generation: GenerationId,
    /// The cartridge it is a state of.
    pub cartridge: CartridgeId,
    /// The generation it was made from.
    pub parent: Option<GenerationId>,
    /// The cartridge's barcode.
    pub barcode: Option<Barcode>,
    /// What else the engines keep with it, at most 64 KiB; this crate does not look into it.
    pub attributes: Bytes,
}

/// A run of objects of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// `count` records of `size` bytes each.
    Records {
        /// Bytes of each.
        size: u32,
        /// How many.
        count: u64,
    },
    /// So many filemarks.
    Filemarks(u64),
}

/// A piece of the recipe, in stream order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// `count` chunks of the parent from its chunk `first` on.
    Run {
        /// Index of the first chunk in the parent's recipe.
        first: u64,
        /// How many.
        count: u64,
    },
    /// One chunk.
    Chunk(Chunk),
}

/// The name and raw length of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// SHA-256 of its raw bytes.
    pub digest: Digest,
    /// Raw bytes, 1 to 1 MiB.
    pub length: u32,
}

/// A batch of the recipe. Segments and entries are two independent lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// At most 16384.
    pub segments: Vec<Segment>,
    /// At most 4096.
    pub entries: Vec<Entry>,
}

impl Offer {
    /// The chunks among the entries, in order.
    pub fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Chunk(chunk) => Some(chunk),
            Entry::Run { .. } => None,
        })
    }
}

/// A chunk in the form that the store keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkData {
    /// The store's encoding byte.
    pub encoding: u8,
    /// Its raw length.
    pub raw_length: u32,
    /// The stored bytes.
    pub bytes: Bytes,
}

/// A generation in numbers, to be compared at commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records and filemarks.
    pub objects: u64,
    /// Bytes of all records.
    pub bytes: u64,
    /// Chunks, those in runs included.
    pub chunks: u64,
}

/// Why a transfer failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}: {text}")]
pub struct Failure {
    /// The kind.
    pub why: FailWhy,
    /// For people, at most 1024 bytes.
    pub text: String,
}

/// The kinds of [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FailWhy {
    /// The receiver's store can not take it (full, broken); a retry helps once that is repaired.
    #[error("the store there failed")]
    Store,
    /// What arrived is not what was offered; the sender should verify the cartridge.
    #[error("the data is damaged")]
    Corrupt,
    /// One side gave it up; it can be started again.
    #[error("cancelled")]
    Cancelled,
    /// The receiver does not take it (not allowed, shutting down).
    #[error("refused")]
    Refused,
    /// The generation is no longer at the sender.
    #[error("the generation is gone")]
    Gone,
}

/// A message of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replicate {
    /// The transfer.
    pub transfer: TransferId,
    /// The message.
    pub body: ReplicateBody,
}

/// The messages of a transfer, in the order in which they first appear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicateBody {
    /// Sender: this is to be replicated.
    Begin(Begin),
    /// Receiver: go on.
    Ready {
        /// It is already committed; nothing more is to do.
        already: bool,
        /// The parent is committed: runs may be offered.
        parent: bool,
    },
    /// Sender: the next batch, numbered from 0.
    Offer {
        /// Its number.
        sequence: u32,
        /// The batch.
        offer: Offer,
    },
    /// Receiver: which chunks of a batch it lacks, one for each chunk entry.
    Want {
        /// The batch.
        sequence: u32,
        /// True for a chunk that is to be sent.
        wanted: Vec<bool>,
    },
    /// Sender: chunks of one batch.
    Chunks {
        /// The batch.
        sequence: u32,
        /// (index among the chunk entries of the batch, chunk).
        chunks: Vec<(u32, ChunkData)>,
    },
    /// Receiver: what it has stored and finished.
    Credit {
        /// Stored bytes of chunks since the beginning.
        stored: u64,
        /// Batches whose chunks are all here, counted from the first.
        offers: u32,
    },
    /// Sender: that was all.
    Commit(Totals),
    /// Receiver: committed and durable.
    Committed,
    /// Either: it failed.
    Failed(Failure),
}

/// What a transfer moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Raw bytes named so far by chunk entries (those in runs are not counted here; the totals of
    /// the generation are its logical size).
    pub offered: u64,
    /// Raw bytes of the chunks that the receiver lacked.
    pub unique: u64,
    /// Bytes of chunks as sent. Frames add the recipe and headers: the engine counts its sockets.
    pub wire: u64,
}

/// A peer or shell that broke the rules of a transfer. The transfer is over; with a peer at fault
/// the connection closes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// The peer sent what may not come now.
    #[error("the peer sent {0} out of turn")]
    OutOfTurn(&'static str),
    /// The peer sent more than it had credit for.
    #[error("the peer exceeded the {0}")]
    Exceeded(&'static str),
    /// The peer's message does not fit what went before.
    #[error("the peer's {0} does not match the offer")]
    Mismatch(&'static str),
    /// The calling engine handed in what was not asked for: a defect of ours.
    #[error("{0} was not asked for")]
    NotAsked(&'static str),
}
