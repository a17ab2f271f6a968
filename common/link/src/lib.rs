//! The protocol between the two engines of a pair: what they say ([`Message`]) and who says what
//! when (the state machines). Sans-I/O: no socket, no clock, no thread; time comes in as
//! milliseconds of any steady clock, and what is to be done goes out as values.
//!
//! | idea | types | holds |
//! |---|---|---|
//! | connections | [`Hello`], [`greet`], [`Pairing`] | version, site, run, control and bulk |
//! | device reports | [`SiteReport`], [`ReportWatch`] | what the remote site owns, every change |
//! | leases | [`LeaseClient`], [`LeaseTable`], [`settle`] | operations done once or known unknown |
//! | ranges | [`CopyRange`], [`Splice`] | the offloaded copy: names of data, not data |
//! | replication | [`Sender`], [`Receiver`] | one generation, only the chunks that lack |
//! | streams | [`StreamSender`], [`StreamReceiver`] | bytes in order, deduplicated, by credit |
//! | healing | [`Heal`] | a few chunks by name, for the side where they are damaged |
//! | comparing | [`Compare`] | digests of what is held, down to the chunk that differs |
//!
//! Invariants. A frame never exceeds [`FRAME_MAX`] and its structure never [`BODY_MAX`]; whatever
//! breaks a rule is a typed error that names the peer as the one at fault, and the connection
//! closes. A numbered operation has one answer for ever. No byte of a range is lost or doubled over
//! any sequence of results. A generation is committed at the receiver only behind all its chunks.
//!
//! What is not here: TLS, sockets, framing on the wire and bandwidth (`service`), the store and the
//! catalogue (machines ask their shell by outputs), and the devices (they are behind `tape`).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod compare;
mod connect;
mod heal;
mod lease;
pub mod proto;
mod range;
mod replicate;
mod report;
mod stream;
mod wire;

pub use compare::{
    COMPARE_CHUNKS_MAX, COMPARE_PARTS_MAX, Compare, CompareAsk, CompareBody, CompareTold,
};
pub use connect::{
    Capabilities, Channel, Goodbye, GoodbyeReason, GreetError, Hello, Meeting, PROTOCOL_VERSION,
    Pairing, Peer, PeerMemory, Token, greet,
};
pub use heal::{HEAL_MAX, Heal};
pub use lease::{
    Answer, CLOSING_MS, ClientError, ClientEvent, Doubt, EndReason, Expect, LEASES_MAX,
    LeaseAction, LeaseBody, LeaseClient, LeaseReply, LeaseReplyBody, LeaseRequest, LeaseTable,
    Numbered, Proof, Refusal, RefusalWhy, RestoreError, Settled, TableError, Work, after_crash,
    settle, settle_move,
};
pub use range::{
    Boundary, CopyRange, Extent, Layout, Mark, RangeEnd, RangeResult, RangeSource, ReadEndReason,
    ReadRange, ReadResult, SegmentLayout, SourcePoint, SourceView, Splice, SpliceError, Step,
    Verify, Visible,
};
pub use replicate::{
    BASES_MAX, Bases, Begin, Begun, CHUNK_MAX, Chunk, ChunkData, Counters, Difference, Entry,
    FailWhy, Failure, OFFER_ENTRIES_MAX, OFFER_RANGES_MAX, OFFER_SEGMENTS_MAX, OLD_TAIL, Offer,
    PACK_MAX, Pack, PackError, PackForm, Piece, Receiver, ReceiverOutput, Replicate, ReplicateBody,
    Segment, Sender, SenderOutput, Totals, TransferError, TransferId, Unpack, left, pack,
    pack_differences, proof, unpack,
};
pub use report::{
    DriveReport, FROZEN_MAX, JobReport, LibraryReport, ReportTooLong, ReportWatch, SiteReport,
};
pub use stream::{
    Chunker, Item, STREAM_WINDOW, Stream, StreamBody, StreamError, StreamId, StreamReceiver,
    StreamReceiverOutput, StreamSender, StreamSenderOutput,
};
pub use wire::{BODY_MAX, DecodeError, FRAME_MAX, Message, PAYLOAD_MAX};
