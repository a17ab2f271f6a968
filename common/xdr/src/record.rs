//! Record marking (RFC 5531 section 11): a record is a run of fragments, each with a four-byte
//! header whose top bit marks the last one and whose other bits are its length.

use bytes::{Buf, Bytes, BytesMut};

const LAST: u32 = 0x8000_0000;

/// What a peer may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest record, in bytes, over all its fragments.
    pub record: usize,
    /// Most fragments of one record, so that empty ones can not be sent for ever.
    pub fragments: usize,
}

impl Default for Limits {
    /// A tape record of 2 MiB with room for the message around it, in at most 1024 fragments.
    fn default() -> Self {
        Self { record: 2 * 1024 * 1024 + 4096, fragments: 1024 }
    }
}

/// A record that the limits do not allow. The stream can not be used any further: close it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The fragments add up to more than [`Limits::record`].
    #[error("a message of more than {0} bytes")]
    TooLong(usize),
    /// More than [`Limits::fragments`].
    #[error("a message of more than {0} fragments")]
    TooManyFragments(usize),
}

/// Collects bytes from a stream and hands out whole records.
#[derive(Debug, Default)]
pub struct Reassembler {
    limits: Limits,
    input: BytesMut,
    /// Fragments of the record under way, but for its last.
    gathered: BytesMut,
    fragments: usize,
}

impl Reassembler {
    /// A reassembler with nothing in it.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Where a socket may read into; what arrives is looked at by [`Reassembler::next_record`].
    /// Call that until it gives nothing before reading more, and the buffer stays bounded by one
    /// record and one read.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    /// Adds bytes from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Whether part of a record has arrived: a stream that ends now was cut.
    pub fn is_midway(&self) -> bool {
        !self.input.is_empty() || self.fragments > 0
    }

    /// The next whole record, or `None` until more bytes arrive. A record of one fragment shares
    /// the memory it was read into.
    pub fn next_record(&mut self) -> Result<Option<Bytes>, RecordError> {
        loop {
            let Some(header) = self.input.first_chunk::<4>().copied().map(u32::from_be_bytes)
            else {
                return Ok(None);
            };
            let length = (header & !LAST) as usize;
            if length > self.limits.record - self.gathered.len() {
                return Err(RecordError::TooLong(self.limits.record));
            }
            if self.fragments >= self.limits.fragments {
                return Err(RecordError::TooManyFragments(self.limits.fragments));
            }
            if self.input.len() < 4 + length {
                self.input.reserve(4 + length - self.input.len());
                return Ok(None);
            }
            self.input.advance(4);
            let fragment = self.input.split_to(length);
            if header & LAST == 0 {
                self.gathered.extend_from_slice(&fragment);
                self.fragments += 1;
                continue;
            }
            self.fragments = 0;
            if self.gathered.is_empty() {
                return Ok(Some(fragment.freeze()));
            }
            self.gathered.extend_from_slice(&fragment);
            return Ok(Some(self.gathered.split().freeze()));
        }
    }
}

/// A record as one last fragment, ready to be sent. A record of 2 GiB or more is refused.
pub fn frame(record: &[u8]) -> Result<Vec<u8>, RecordError> {
    if record.len() >= LAST as usize {
        return Err(RecordError::TooLong(LAST as usize - 1));
    }
    let mut framed = Vec::with_capacity(record.len() + 4);
    framed.extend_from_slice(&[0; 4]);
    framed.extend_from_slice(record);
    mark(&mut framed);
    Ok(framed)
}

/// Fills in the header of a record that was built behind four spare bytes: [`frame`] without the
/// copy. The record must be shorter than 2 GiB, which every [`crate::Writer`]'s limit sees to.
pub fn mark(framed: &mut [u8]) {
    let length = framed.len().saturating_sub(4) as u32 & !LAST;
    if let Some(header) = framed.first_chunk_mut::<4>() {
        *header = (length | LAST).to_be_bytes();
    }
}
