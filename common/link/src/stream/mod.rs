//! Streams: bytes in order, deduplicated against the receiver's store, bounded by credit.
//!
//! Used for a foreign mover's bytes on their way to a ghost drive, and for what a far drive reads
//! on its way back. The sender cuts the bytes into chunks as the store would, names them, and sends
//! those that the receiver lacks. Record boundaries and filemarks travel apart, so that they do
//! not spoil deduplication. The receiver puts the bytes together in order and says how far they
//! were *consumed*: written to the drive, or accepted by the destination. Until then the sender
//! keeps them, so that a broken link or a restarted receiver costs at most one window.

mod chunker;
mod receiver;
mod sender;

pub use chunker::Chunker;
pub use receiver::{Item, StreamReceiver, StreamReceiverOutput};
pub use sender::{StreamSender, StreamSenderOutput};

use model::Ulid;

use crate::replicate::{Chunk, ChunkData, Segment};

/// The most bytes that a sender may be ahead of what was consumed.
pub const STREAM_WINDOW: u64 = 64 << 20;
/// The most chunks of one offer.
pub(crate) const OFFER_CHUNKS_MAX: usize = 1024;
/// The most marks of one offer.
pub(crate) const OFFER_MARKS_MAX: usize = 4096;
/// A message of data is sent when it holds so many bytes, or when nothing more is ready.
pub(crate) const DATA_TARGET: usize = 1 << 20;

/// The name of one stream, made by whoever asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub Ulid);

/// A message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The stream.
    pub stream: StreamId,
    /// The message.
    pub body: StreamBody,
}

/// The messages of a stream, in the order in which they first appear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamBody {
    /// Sender: here it begins, or goes on after a break.
    Open {
        /// The sender still has every byte from here on.
        base: u64,
        /// Counts the openings of the stream from 0: an answer to an earlier one may be on its way
        /// still, or may be lost.
        opening: u32,
    },
    /// Receiver: begin there. Answers each `Open`.
    Accept {
        /// The first byte that the receiver lacks.
        from: u64,
        /// The sender may offer up to here.
        limit: u64,
        /// The opening that it answers.
        opening: u32,
    },
    /// Sender: the next chunks.
    Offer {
        /// Counts the offers since the last `Open`, from 0.
        sequence: u32,
        /// The offset of the first chunk.
        offset: u64,
        /// The chunks, one behind the other.
        chunks: Vec<Chunk>,
        /// Objects that end up to the end of these chunks, in order, where the stream has records.
        marks: Vec<Segment>,
    },
    /// Receiver: which chunks of an offer it lacks.
    Want {
        /// The offer.
        sequence: u32,
        /// True for a chunk that is to be sent.
        wanted: Vec<bool>,
    },
    /// Sender: chunks of one offer. Encoding 0 is raw, 1 is one zstd frame.
    Data {
        /// The offer.
        sequence: u32,
        /// (index in the offer, chunk).
        chunks: Vec<(u32, ChunkData)>,
    },
    /// Receiver: how far it came.
    Credit {
        /// Bytes before this offset are consumed; the sender may forget them.
        consumed: u64,
        /// The sender may offer up to here.
        limit: u64,
    },
    /// Sender: the stream ends at this offset.
    Finish(u64),
    /// Either: the stream is given up; the reason is for people, at most 1024 bytes.
    Abort(String),
}

/// A stream that can not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The peer broke a rule: the connection closes.
    #[error("the peer's stream {0}")]
    Peer(&'static str),
    /// The peer gave it up.
    #[error("the peer gave the stream up: {0}")]
    Aborted(String),
    /// The calling engine handed in what was not asked for or what has no room: a defect of ours.
    #[error("misuse of a stream: {0}")]
    Misuse(&'static str),
}
