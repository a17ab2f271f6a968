//! The elementary steps of a drive, and what comes of them.

use bytes::Bytes;

/// One thing asked of the open drive. Each is one call of a drive as SCSI knows it (SSC-4), so
/// that whoever has such a drive maps them one to one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DriveStep {
    /// To the beginning of the tape; flushes first. Answered by `Done`.
    Rewind,
    /// Over records, backwards with a negative count. Stops behind a filemark that is met
    /// forwards, before one that is met backwards. Answered by `Spaced`.
    SpaceRecords(i64),
    /// Over filemarks, backwards with a negative count. Answered by `Spaced`.
    SpaceFilemarks(i64),
    /// Read the record here, at most so many bytes of it. Answered by `Record`, `Filemark` (the
    /// tape stands behind it) or `EndOfData`.
    Read {
        /// Room for the record; the rest of a longer one is lost and the tape stands behind it.
        max: u32,
    },
    /// Write one record. Answered by `Written`, `EarlyWarning` or `Overflow`.
    Write(Bytes),
    /// Write filemarks, not immediate: everything before is on the medium when this is answered.
    /// 0 only flushes. Answered like `Write`.
    Filemarks(u32),
    /// Flush, rewind and unthread. Answered by `Done`.
    Unload,
    /// What is loaded. Answered by `State`, also by an empty drive.
    State,
    /// Where the tape stands. Answered by `Position`.
    Position,
}

/// What came of a [`DriveStep`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepResult {
    /// Done.
    Done,
    /// A record was read.
    Record {
        /// Its length on tape.
        length: u64,
        /// Its first bytes, as many as there was room for.
        data: Bytes,
    },
    /// A filemark was read over; the tape stands behind it.
    Filemark,
    /// Nothing is written here.
    EndOfData,
    /// Written.
    Written,
    /// Written, at or beyond early warning.
    EarlyWarning,
    /// Not written: the medium is full.
    Overflow,
    /// Spacing ended.
    Spaced {
        /// Objects of the asked kind that were not spaced over.
        residual: u64,
        /// Why it ended.
        stop: SpaceEnd,
    },
    /// What is loaded.
    State(Loaded),
    /// Where the tape stands.
    Position {
        /// Filemarks before this place.
        file: u64,
        /// At the beginning of the tape.
        at_bot: bool,
    },
    /// The step failed. The position is what SSC-4 says for the failure.
    Failed(Failure),
}

/// Why spacing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpaceEnd {
    /// The count was reached.
    Done,
    /// A filemark was in the way of records: crossed, in either direction.
    Filemark,
    /// The beginning of the tape.
    BeginningOfTape,
    /// The end of the data.
    EndOfData,
}

/// What is in a drive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loaded {
    /// A medium is threaded and ready.
    pub medium: bool,
    /// It can not be written.
    pub write_protected: bool,
    /// Fixed block length in bytes, 0 for variable blocks.
    pub block_length: u32,
    /// Bytes that fit on the medium, if known.
    pub capacity: Option<u64>,
    /// Bytes that still fit after this place, if known.
    pub remaining: Option<u64>,
}

/// A device or connection did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// What kind of failure, which decides the NDMP error.
    pub kind: FailureKind,
    /// What to tell the operator, on one line.
    pub text: String,
}

impl Failure {
    /// A failure of a kind, with words for the operator.
    pub fn new(kind: FailureKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

/// The kinds of [`Failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// There is no device of that name.
    NoDevice,
    /// Another session or host has it; a retry may help.
    Busy,
    /// The user may not use it.
    Denied,
    /// The drive is empty, or its medium is not threaded.
    NoMedium,
    /// The medium can not be written.
    WriteProtected,
    /// UNIT ATTENTION 28h: the medium was changed; the tape stands at its beginning.
    MediumChanged,
    /// UNIT ATTENTION 29h: the device was reset; the tape stands at its beginning.
    Reset,
    /// The medium failed (MEDIUM ERROR, BLANK CHECK in a wrong place).
    Medium,
    /// The device refused the step (ILLEGAL REQUEST).
    Refused,
    /// No answer in time; what was done is not known.
    TimedOut,
    /// Ended early on request, at a record boundary.
    Cancelled,
    /// Everything else: hardware, a way to the device that broke, an unknown position.
    Io,
}
