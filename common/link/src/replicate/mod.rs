//! Replication of one generation: offer, want, send, commit. It may be written meanwhile: the
//! sender then offers what is there, and commits when it is sealed.
//!
//! The sender tells what the generation is made of, in batches: runs of another generation that
//! the receiver has committed (the *base*), runs of what was told before, and chunks. Chunks of
//! which little is left to send once the base is known are *fresh*, and so may be a few that the
//! receiver is likely to lack: they come without being asked for and without their names. All
//! others are named, the receiver answers with a bitmap of what it lacks, and those follow. Chunks
//! travel in *packs*: many in one compressed frame, as a difference to old bytes of the base where
//! there are some (see [`pack`] and [`unpack`]). Every chunk is verified by its SHA-256 before it
//! is used. When all are there and durable the generation is committed. Batches and packs are
//! pipelined: a window of 8 batches and 16 MiB of packs are under way at once, so that a round trip
//! is paid once in many megabytes. Where the base is sure the first offers go with the beginning,
//! so that nothing waits for its answer. After a break everything is offered again, which costs the
//! recipe, and only what is still missing is sent, with what is fresh.

mod delta;
mod pack;
mod receiver;
mod sender;

pub use delta::Difference;
pub use pack::{OLD_TAIL, PackError, left, pack, pack_differences, proof, unpack};
pub use receiver::{Begun, Piece, Receiver, ReceiverOutput, Unpack};
pub use sender::{Sender, SenderOutput};

use bytes::Bytes;
use model::{Barcode, CartridgeId, Digest, GenerationId, Ulid};

/// The most batches under way.
pub(crate) const OFFERS_MAX: u32 = 8;
/// The most entries (runs or chunks) of one batch.
pub const OFFER_ENTRIES_MAX: usize = 4096;
/// The most chunks that the runs and repetitions of one batch stand for: what a few bytes may make
/// a receiver write down.
pub const OFFER_RANGES_MAX: u64 = 1 << 22;
/// The most object segments of one batch.
pub const OFFER_SEGMENTS_MAX: usize = 16_384;
/// The most bytes of packs that are sent and not yet stored there.
pub(crate) const CREDIT: u64 = 16 << 20;
/// The most raw bytes of a pack's chunks, and the most old bytes it is a difference to.
pub const PACK_MAX: usize = 4 << 20;
/// The most bases that a beginning may name.
pub const BASES_MAX: usize = 4;
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
    /// What it may be told by.
    pub bases: Bases,
    /// The cartridge's barcode.
    pub barcode: Option<Barcode>,
    /// What else the engines keep with it, at most 64 KiB; this crate does not look into it.
    pub attributes: Bytes,
}

/// What a generation may be told by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bases {
    /// This one, which the receiver is known to have committed: offers follow without waiting for
    /// its answer. If it has not, it fails with [`FailWhy::Base`].
    Sure(GenerationId),
    /// The receiver takes the first of these that it has committed, the best first, at most 4. Of
    /// none there is nothing to wait for either.
    Any(Vec<GenerationId>),
}

impl Bases {
    /// All of them, the best first.
    pub fn list(&self) -> &[GenerationId] {
        match self {
            Self::Sure(base) => std::slice::from_ref(base),
            Self::Any(bases) => bases,
        }
    }

    /// The offers do not wait for the receiver.
    fn go_at_once(&self) -> bool {
        match self {
            Self::Sure(_) => true,
            Self::Any(bases) => bases.is_empty(),
        }
    }
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
    /// `count` chunks of the base from its chunk `first` on.
    Run {
        /// Index of the first chunk in the base's recipe.
        first: u64,
        /// How many.
        count: u64,
    },
    /// `count` chunks of this recipe itself, from its chunk `first` on. They may reach into what
    /// they stand for, as a repetition does.
    Again {
        /// Index of the first chunk in this recipe, before the entry.
        first: u64,
        /// How many.
        count: u64,
    },
    /// No piece of the recipe: chunks of the base whose bytes may help to say the next ones.
    Old {
        /// Index of the first chunk in the base's recipe.
        first: u64,
        /// How many.
        count: u64,
    },
    /// One chunk, to be asked for.
    Chunk(Chunk),
    /// One chunk of so many raw bytes that comes without being asked for.
    Fresh(u32),
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
    /// The raw lengths of the chunks among the entries, in order, with the names of those that are
    /// to be asked for.
    pub fn chunks(&self) -> impl Iterator<Item = (u32, Option<Digest>)> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Chunk(chunk) => Some((chunk.length, Some(chunk.digest))),
            Entry::Fresh(length) => Some((*length, None)),
            Entry::Run { .. } | Entry::Again { .. } | Entry::Old { .. } => None,
        })
    }

    /// What the base may help with, in order.
    pub fn olds(&self) -> impl Iterator<Item = (u64, u64)> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Old { first, count } => Some((*first, *count)),
            _ => None,
        })
    }
}

/// Chunks of one batch on their way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    /// Which of the batch's chunks, ascending.
    pub chunks: Vec<u32>,
    /// Which of the batch's old ranges they are a difference to, ascending; none if to nothing.
    pub olds: Vec<u32>,
    /// How `bytes` are encoded.
    pub form: PackForm,
    /// The SHA-256 of the names of all chunks of the pack, one behind the other: it proves those
    /// that are not named in the offer.
    pub proof: Digest,
    /// The chunks, one behind the other, encoded.
    pub bytes: Bytes,
}

/// How the bytes of a pack are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackForm {
    /// As they are.
    Plain,
    /// One zstd frame.
    Zstd,
    /// Copies of the old bytes and literals. The length of the first of two zstd frames (u32,
    /// little-endian), the operations, and the literals, whose prefix are the last old bytes.
    Delta,
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
    /// Bytes of chunks that were new where it was written, before compression; not compared.
    pub unique: u64,
    /// The same as they are stored there; not compared.
    pub stored: u64,
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
    /// The receiver can not read the base; without it the generation can still be sent.
    #[error("the base is damaged")]
    Base,
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
        /// Which of the bases is committed here: what the offers may refer to.
        base: Option<u32>,
    },
    /// Sender: the next batch, numbered from 0.
    Offer {
        /// Its number.
        sequence: u32,
        /// The batch.
        offer: Offer,
    },
    /// Receiver: which chunks of a batch it lacks, one for each that was named. Not sent for a
    /// batch that names none.
    Want {
        /// The batch.
        sequence: u32,
        /// True for a chunk that is to be sent.
        wanted: Vec<bool>,
    },
    /// Sender: chunks of one batch.
    Pack {
        /// The batch.
        sequence: u32,
        /// The chunks.
        pack: Pack,
    },
    /// Receiver: what it has stored and finished.
    Credit {
        /// Bytes of packs, as they came, that are stored since the beginning.
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
    /// Raw bytes of the chunks that were sent.
    pub unique: u64,
    /// Bytes of packs as sent. Frames add the recipe and headers: the engine counts its sockets.
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
