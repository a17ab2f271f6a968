//! The window: which part of the stream the tape at hand holds.

use crate::wire::ErrorCode;

use super::command::Flow;

/// All ones: no end.
const INFINITE: u64 = u64::MAX;

/// A part of the stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Window {
    /// First byte behind it, `None` if it has no end.
    pub(super) fn end(self) -> Option<u64> {
        match self.length {
            INFINITE => None,
            length => self.offset.checked_add(length).filter(|end| *end != INFINITE),
        }
    }

    /// Whether the byte at `position` is in it.
    pub(super) fn contains(self, position: u64) -> bool {
        position >= self.offset && self.end().is_none_or(|end| position < end)
    }

    /// Whether it can be set. `idle` is a mover that does not know its direction yet.
    ///
    /// A window of no length is legal before the mover starts: clients set it so that the first
    /// byte of the stream pauses the mover. An offset that is no multiple of the record size is
    /// legal towards the connection: the tape stands at that offset already, and tapes with a
    /// short record before it exist.
    pub(super) fn check(
        self,
        record_size: u32,
        flow: Option<Flow>,
        idle: bool,
    ) -> Result<(), ErrorCode> {
        let record = u64::from(record_size);
        if self.length == 0 {
            return if idle && self.offset == 0 { Ok(()) } else { Err(ErrorCode::IllegalArgs) };
        }
        if self.length != INFINITE && self.offset.checked_add(self.length).is_none() {
            return Err(ErrorCode::IllegalArgs);
        }
        if record == 0 {
            return Err(ErrorCode::Precondition);
        }
        match flow {
            Some(Flow::ToTape) if self.end().is_some() && !self.length.is_multiple_of(record) => {
                Err(ErrorCode::IllegalArgs)
            }
            _ => Ok(()),
        }
    }
}

/// A `NDMP_MOVER_READ` that is not satisfied yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    /// First byte behind it, `None` if it has no end.
    pub(super) end: Option<u64>,
}

impl Reading {
    /// A read of `length` bytes from `offset`.
    pub(super) fn new(offset: u64, length: u64) -> Result<Self, ErrorCode> {
        match (length, offset.checked_add(length)) {
            (0, _) => Err(ErrorCode::IllegalArgs),
            (INFINITE, _) | (_, Some(INFINITE)) => Ok(Self { end: None }),
            (_, Some(end)) => Ok(Self { end: Some(end) }),
            (_, None) => Err(ErrorCode::IllegalArgs),
        }
    }

    /// What is left at `position`, all ones if it has no end.
    pub(super) fn left(self, position: u64) -> u64 {
        self.end.map_or(INFINITE, |end| end.saturating_sub(position))
    }
}
