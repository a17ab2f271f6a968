//! Ranges: the offloaded copy. What is to be written is named, not sent; [`Splice`] decides which
//! range comes next between two movers and what each of them shows.

mod layout;
mod splice;

pub use layout::{Layout, Mark, SegmentLayout, SourcePoint};
pub use splice::{Boundary, SourceView, Splice, SpliceError, Step, Visible};

use model::{GenerationId, JobId, ObjectNumber};
use scsi::Sense;

use crate::stream::StreamId;

/// The most extents that one range may name.
pub(crate) const EXTENTS_MAX: usize = 4096;

/// A run of bytes of one sealed generation: `length` bytes from `offset_in_object` bytes behind the
/// beginning of the record `first_object` on, over as many records as it takes; never over a
/// filemark. The offset may lie beyond that record: it counts on into the ones behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The generation, sealed at the source and committed at the remote.
    pub generation: GenerationId,
    /// The record in or behind which it begins.
    pub first_object: ObjectNumber,
    /// Bytes from the beginning of that record to its own.
    pub offset_in_object: u64,
    /// Its length in bytes, over 0.
    pub length: u64,
}

/// Where the bytes of a range come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeSource {
    /// From replicated generations, in this order, 0 to 4096 of them.
    Extents(Vec<Extent>),
    /// From a stream that the peer sends.
    Stream {
        /// The stream.
        stream: StreamId,
        /// The offset in it of the first byte.
        from: u64,
        /// At most so many bytes; fewer when the stream is finished before.
        length: u64,
    },
}

/// How the data of a copy is proven on tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verify {
    /// Not at all, beyond the drive's GOOD.
    None,
    /// The position behind the last flush is what it must be.
    Position,
    /// It is read back and compared.
    Readback,
}

/// One numbered piece of a copy: the bytes of `source`, put into records of `record_size`.
///
/// Only whole records are written; a rest smaller than a record is left (the next range carries
/// it first), unless `pad_last` says to fill it up with zeros and write it; of a stream, only
/// where the stream ends. Early warning and overflow end the range, and the remote flushes before
/// it answers them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyRange {
    /// The job it belongs to.
    pub job: JobId,
    /// What to write.
    pub source: RangeSource,
    /// The record size in bytes, 1 to 16 MiB - 1.
    pub record_size: u32,
    /// Fill the last record with zeros.
    pub pad_last: bool,
    /// Flush at the end (WRITE FILEMARKS of 0, not immediate).
    pub flush: bool,
    /// Early warning is no end: who asks knows of it and writes on to the end of the medium.
    pub ignore_early_warning: bool,
    /// Where the drive must stand before, else nothing is written and the answer is
    /// `PositionUnknown`.
    pub expected_object: ObjectNumber,
    /// How it is proven once it is flushed; as the library says if not given.
    pub verify: Option<Verify>,
}

/// How a range ended. Exactly one of them ends each range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeEnd {
    /// All whole records (and the padded one) are written.
    Done,
    /// The last record counted was written at or beyond early warning; flushed.
    EarlyWarning,
    /// The record after the last one counted found no room and is not on the tape; flushed.
    Overflow,
    /// The drive reports this; the records counted were answered GOOD before.
    MediaError(Sense),
    /// Cancelled at a record boundary.
    Cancelled,
    /// Nothing was written: a generation is not committed here. Replicate it, then ask again.
    NotReplicated,
    /// Nothing was written: the medium in the drive is not this site's to write.
    NotMine,
}

/// What a range did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeResult {
    /// How it ended.
    pub end: RangeEnd,
    /// Bytes of the source whose WRITE was answered GOOD, padding not counted.
    pub bytes: u64,
    /// Records so written.
    pub records: u64,
    /// The drive's object number behind the last record written; `expected_object` if none was.
    pub object: ObjectNumber,
    /// Whether everything before that place is on the medium.
    pub flushed: bool,
}

/// Reads records ahead into a stream, from where the drive stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRange {
    /// The job it belongs to.
    pub job: JobId,
    /// The stream that the remote opens for it.
    pub stream: StreamId,
    /// Where the drive must stand before.
    pub expected_object: ObjectNumber,
    /// At most so many objects are read.
    pub objects_max: u64,
    /// The longest record expected, in bytes, 1 to 16 MiB - 1; a longer one is a media error.
    pub record_max: u32,
    /// When a filemark ends it: leave the tape before it (NDMP version 4) and not behind it.
    pub before_filemark: bool,
}

/// How a read range ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadEndReason {
    /// At a filemark.
    Filemark,
    /// At the end of data.
    EndOfData,
    /// `objects_max` were read.
    Limit,
    /// The drive reports this for the record after the last one counted.
    MediaError(Sense),
    /// Cancelled; the drive is positioned behind what was taken.
    Cancelled,
}

/// What a read range did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadResult {
    /// How it ended.
    pub end: ReadEndReason,
    /// Records put into the stream; for a cancelled one, taken from it.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The drive's object number now.
    pub object: ObjectNumber,
}
