//! The TAPE interface: blocks and filemarks.

use bytes::Bytes;
use ndmp::wire::{
    ErrorCode, MessageCode, MtioOp, Reply, ReplyBody, Request, TapeOpenMode, TapeState, Version,
    bounds,
};

use crate::{Client, DmaError};

/// The longest block that can be read or written, in bytes.
pub const BLOCK_MAX: u32 = bounds::DATA as u32;

/// What lies on tape at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TapeObject {
    /// A block.
    Block(Bytes),
    /// A filemark.
    Filemark,
    /// Nothing any more.
    EndOfData,
}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrote {
    /// Written.
    Done,
    /// **Not** written: the tape is at its end. Writing the same again works, until the tape is
    /// full for good; a wise application changes the tape.
    EndOfMedium,
}

fn unexpected(message: MessageCode) -> DmaError {
    DmaError::Protocol(format!("{message}: a reply of another kind"))
}

impl Client {
    /// Opens a drive. `Raw` exists in version 4 only and becomes `ReadWrite` in the others.
    pub fn open_tape(&mut self, device: &str, mode: TapeOpenMode) -> Result<(), DmaError> {
        let mode = match (mode, self.version()) {
            (TapeOpenMode::Raw, Version::V2 | Version::V3) => TapeOpenMode::ReadWrite,
            (mode, _) => mode,
        };
        self.file = None;
        self.ask_open(device, &Request::TapeOpen { device: device.to_owned(), mode })
    }

    /// Closes the drive; what was written is on tape when this returns.
    pub fn close_tape(&mut self) -> Result<(), DmaError> {
        self.ask_bare(MessageCode::TapeClose).map(|_| ())
    }

    /// Where the tape stands, and what is loaded.
    pub fn tape_state(&mut self) -> Result<TapeState, DmaError> {
        match self.ask_bare(MessageCode::TapeGetState)? {
            ReplyBody::TapeState(state) => Ok(state),
            _ => Err(unexpected(MessageCode::TapeGetState)),
        }
    }

    /// Moves the tape, or writes filemarks. Returns how much of `count` was left.
    pub fn mtio(&mut self, op: MtioOp, count: u32) -> Result<u32, DmaError> {
        self.file = None;
        match self.ask(&Request::TapeMtio { op, count })? {
            ReplyBody::Residual(left) => Ok(left),
            _ => Err(unexpected(MessageCode::TapeMtio)),
        }
    }

    /// To the beginning of the tape.
    pub fn rewind(&mut self) -> Result<(), DmaError> {
        self.mtio(MtioOp::Rew, 1).map(|_| ())
    }

    /// Writes filemarks; everything before them is on tape when this returns.
    pub fn write_filemarks(&mut self, count: u32) -> Result<(), DmaError> {
        self.mtio(MtioOp::Eof, count).map(|_| ())
    }

    /// Forwards over filemarks; all of them must be there.
    pub fn skip_filemarks(&mut self, count: u32) -> Result<(), DmaError> {
        match self.mtio(MtioOp::Fsf, count)? {
            0 => Ok(()),
            left => Err(DmaError::Invalid(format!("the tape has {left} filemarks too few"))),
        }
    }

    /// Writes one block of up to [`BLOCK_MAX`] bytes.
    pub fn write_block(&mut self, block: Bytes) -> Result<Wrote, DmaError> {
        let length = block.len() as u32;
        self.file = None;
        match self.call(&Request::TapeWrite(block))? {
            Reply { error: ErrorCode::NoErr, body: ReplyBody::Written(count) }
                if count == length =>
            {
                Ok(Wrote::Done)
            }
            Reply { error: ErrorCode::Eom, .. } => Ok(Wrote::EndOfMedium),
            Reply { error: ErrorCode::NoErr, .. } => Err(unexpected(MessageCode::TapeWrite)),
            Reply { error, .. } => {
                Err(DmaError::Refused { message: MessageCode::TapeWrite, error })
            }
        }
    }

    /// Reads what is next, at most `max` bytes of a block, and leaves the tape behind it: also
    /// behind a filemark, on which the versions differ otherwise.
    pub fn read_object(&mut self, max: u32) -> Result<TapeObject, DmaError> {
        let v4 = self.version() == Version::V4;
        if !v4 && self.file.is_none() {
            self.file = Some(self.tape_state()?.file_num);
        }
        let message = MessageCode::TapeRead;
        match self.call(&Request::TapeRead(max))? {
            Reply { error: ErrorCode::NoErr, body: ReplyBody::Data(data) } => {
                Ok(TapeObject::Block(data))
            }
            Reply { error: ErrorCode::NoErr, .. } => Err(unexpected(message)),
            Reply { error: ErrorCode::Eom, .. } => Ok(TapeObject::EndOfData),
            Reply { error: ErrorCode::Eof, .. } if v4 => {
                // Before the mark; a mark that can not be passed is the end of the data.
                match self.mtio(MtioOp::Fsf, 1)? {
                    0 => Ok(TapeObject::Filemark),
                    _ => Ok(TapeObject::EndOfData),
                }
            }
            Reply { error: ErrorCode::Eof, .. } => {
                let before = self.file;
                self.file = Some(self.tape_state()?.file_num);
                let crossed = self.file != before;
                Ok(if crossed { TapeObject::Filemark } else { TapeObject::EndOfData })
            }
            Reply { error, .. } => Err(DmaError::Refused { message, error }),
        }
    }

    /// Everything from here to the end of the data, for tapes that are known to be small.
    pub fn read_all(&mut self, max: u32) -> Result<Vec<TapeObject>, DmaError> {
        let mut objects = Vec::new();
        loop {
            match self.read_object(max)? {
                TapeObject::EndOfData => return Ok(objects),
                object => objects.push(object),
            }
        }
    }
}
