//! The header of every message, and the frame around it.

use bytes::Bytes;
use xdr::{Reader, Writer, XdrError};

use super::bounds;
use super::code::MessageCode;
use super::enums::ErrorCode;

/// The six words before every body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Each side counts its own messages from 1.
    pub sequence: u32,
    /// Unix time in seconds.
    pub time_stamp: u32,
    /// A reply; else a request or a post.
    pub is_reply: bool,
    /// What it is about.
    pub code: MessageCode,
    /// The `sequence` of the request, 0 in requests and posts.
    pub reply_sequence: u32,
    /// If not `NDMP_NO_ERR`, no body follows.
    pub error: ErrorCode,
}

impl Header {
    /// Takes the header off a message.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, XdrError> {
        Ok(Self {
            sequence: reader.u32()?,
            time_stamp: reader.u32()?,
            is_reply: reader.bool()?,
            code: MessageCode::from_wire(reader.u32()?),
            reply_sequence: reader.u32()?,
            error: ErrorCode::from_wire(reader.u32()?),
        })
    }

    /// Builds a message: this header, then what `body` writes, in one fragment.
    pub fn encode(&self, body: impl FnOnce(&mut Writer)) -> Result<Bytes, XdrError> {
        let mut writer = Writer::new(bounds::MESSAGE + 4);
        writer.u32(0);
        writer.u32(self.sequence);
        writer.u32(self.time_stamp);
        writer.bool(self.is_reply);
        writer.u32(self.code.to_wire());
        writer.u32(self.reply_sequence);
        writer.u32(self.error.to_wire());
        body(&mut writer);
        let mut message = writer.finish()?;
        xdr::mark(&mut message);
        Ok(message.into())
    }
}
