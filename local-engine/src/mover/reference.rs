//! What a drive can do beyond `TapeDrive` when a copy need not pass through this process.

use copy::Holder;
use model::{Barcode, CartridgeId, GenerationId};
use tape::{Control, TapeDrive, TapeError};

use super::{Counters, JobHandle, Run, Stop};
use crate::ghost::ForeignStream;

/// A stretch of a sealed generation's byte stream. Filemarks have no bytes, so a stretch between
/// two of them is named by bytes alone and record sizes do not matter to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The generation.
    pub generation: GenerationId,
    /// Offset in the generation's stream of record bytes.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

impl Extent {
    /// The part after the first `bytes`.
    pub fn after(self, bytes: u64) -> Self {
        let bytes = bytes.min(self.length);
        Self { offset: self.offset + bytes, length: self.length - bytes, ..self }
    }

    /// The first `bytes`.
    pub fn first(self, bytes: u64) -> Self {
        Self { length: self.length.min(bytes), ..self }
    }
}

/// What lies between the position of a source and the next filemark or end of data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The cartridge.
    pub cartridge: CartridgeId,
    /// Its volume tag.
    pub barcode: Barcode,
    /// Where the bytes are; of length 0 at a filemark or at the end of data.
    pub extent: Extent,
}

/// A drive whose cartridge is in the store: its data can be named instead of read.
pub trait ReferenceSource {
    /// Seals what was flushed and names the bytes up to the next filemark, beginning `rest` bytes
    /// before the position (that much of the last record has not been sent).
    fn segment(&mut self, rest: u64) -> Result<Segment, TapeError>;

    /// How far the tape has visibly moved when `consumed` bytes of the segment are taken: bytes
    /// and whole records, rounded up to the end of a record.
    fn visible(&mut self, segment: &Segment, consumed: u64) -> Result<(u64, u64), TapeError>;

    /// Positions the tape behind `consumed` bytes of the segment; inside a record it is passed and
    /// its rest returned.
    fn advance(&mut self, segment: &Segment, consumed: u64) -> Result<Vec<u8>, TapeError>;
}

/// How a range that the engine beside the drive wrote has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeEnd {
    /// All whole records are written.
    Done,
    /// The last record was written at or beyond early warning and more remain.
    EarlyWarning,
    /// The next record did not fit.
    Overflow,
    /// It failed.
    Failed(TapeError),
}

/// What a range wrote: only what the far drive answered GOOD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeWritten {
    /// Why it ended.
    pub end: RangeEnd,
    /// Stream bytes written, without padding.
    pub bytes: u64,
    /// The last write was answered with early warning.
    pub early_warning: bool,
}

/// A range for a drive beside another engine.
#[derive(Clone, Debug)]
pub struct RangeRequest {
    /// The job row it belongs to.
    pub job: Option<JobHandle>,
    /// The bytes, in order.
    pub extents: Vec<Extent>,
    /// Record size on the tape.
    pub record_size: u32,
    /// Pad and write a last partial record; without it only whole records are asked for.
    pub pad_last: bool,
    /// Only overflow ends the range.
    pub ignore_early_warning: bool,
}

/// A drive beside another engine that has, or gets, the data itself.
pub trait RangeTarget {
    /// Writes a range there. `progress` hears of stream bytes written so far.
    fn write_range(
        &mut self,
        request: &RangeRequest,
        control: &Control,
        progress: &mut dyn FnMut(u64),
    ) -> RangeWritten;
}

/// A drive as the engine holds it: a tape drive, and what else it can do.
pub trait EngineDrive: TapeDrive {
    /// Where its tapes are, for the planner.
    fn holder(&self) -> Holder;

    /// The drive itself.
    fn tape(&mut self) -> &mut dyn TapeDrive;

    /// What is loaded, for people: `vtl0/VTA001L8`. Sends the drive no command.
    fn medium_name(&mut self) -> String;

    /// LOGICAL UNIT RESET (SAM-5 6.3.3): reservations and prevented removals end, every initiator
    /// finds 06/29/00.
    fn reset(&mut self, control: &Control) -> Result<(), TapeError>;

    /// Whether a command would reach the drive now.
    fn is_reachable(&self) -> bool {
        true
    }

    /// Many records are going to be read one behind the other, none longer than `record_max`:
    /// reading ahead pays. What was read ahead is taken back by [`EngineDrive::end_reading`].
    fn begin_reading(&mut self, _record_max: u32) {}

    /// The tape stands where the reader thinks it does when this returns `Ok`.
    fn end_reading(&mut self, _control: &Control) -> Result<(), TapeError> {
        Ok(())
    }

    /// Its data can be named.
    fn reference_source(&mut self) -> Option<&mut dyn ReferenceSource> {
        None
    }

    /// Takes the bytes of a foreign mover as a stream until something stops it; everything counted
    /// is flushed before a stop at the end of the medium or of the stream. `None` where a stream is
    /// of no use: the bytes come record by record then.
    fn write_stream(
        &mut self,
        _stream: &mut ForeignStream,
        _run: &Run,
        _counters: &Counters,
    ) -> Option<Stop> {
        None
    }

    /// Whether [`EngineDrive::write_stream`] takes streams.
    fn takes_streams(&self) -> bool {
        false
    }

    /// It can be told to write data by name.
    fn range_target(&mut self) -> Option<&mut dyn RangeTarget> {
        None
    }
}

/// Gives the bytes of an extent from this engine's store.
pub trait Resolve: Send + Sync {
    /// Reads an extent of at most [`super::RECORD_MAX`] bytes.
    fn read(&self, extent: Extent) -> Result<Vec<u8>, String>;
}
