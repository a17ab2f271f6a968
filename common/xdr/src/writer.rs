//! Building XDR.

use crate::{XdrError, padding};

/// An encoder with a size limit. Values are appended without ceremony; the limit is looked at
/// with every one and reported once, by [`Writer::finish`].
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    limit: usize,
    wanted: u64,
}

impl Writer {
    /// An empty message that may grow to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit, wanted: 0 }
    }

    fn append(&mut self, bytes: &[u8]) {
        self.wanted = self.wanted.saturating_add(bytes.len() as u64);
        if self.wanted <= self.limit as u64 {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// `unsigned int`.
    pub fn u32(&mut self, value: u32) {
        self.append(&value.to_be_bytes());
    }

    /// `int`.
    pub fn i32(&mut self, value: i32) {
        self.append(&value.to_be_bytes());
    }

    /// `unsigned hyper`, high word first.
    pub fn u64(&mut self, value: u64) {
        self.append(&value.to_be_bytes());
    }

    /// `bool`.
    pub fn bool(&mut self, value: bool) {
        self.u32(u32::from(value));
    }

    /// `opaque[n]`: no count, padded.
    pub fn fixed(&mut self, value: &[u8]) {
        self.append(value);
        self.append(&[0; 3][..padding(value.len())]);
    }

    /// The count before an array's items.
    pub fn count(&mut self, count: usize) {
        match u32::try_from(count) {
            Ok(count) => self.u32(count),
            Err(_) => self.wanted = u64::MAX,
        }
    }

    /// `opaque<>`.
    pub fn opaque(&mut self, value: &[u8]) {
        self.count(value.len());
        self.fixed(value);
    }

    /// `string<>`.
    pub fn string(&mut self, value: &str) {
        self.opaque(value.as_bytes());
    }

    /// `item<>`: the count, then each item by `item`.
    pub fn array<T>(&mut self, items: &[T], mut item: impl FnMut(&mut Self, &T)) {
        self.count(items.len());
        for value in items {
            item(self, value);
        }
    }

    /// The message, unless it would be longer than the limit.
    pub fn finish(self) -> Result<Vec<u8>, XdrError> {
        match self.wanted <= self.limit as u64 {
            true => Ok(self.bytes),
            false => Err(XdrError::TooLong { length: self.wanted, max: self.limit as u64 }),
        }
    }
}
