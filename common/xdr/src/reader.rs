//! Taking XDR values off bytes.

use bytes::Bytes;

use crate::{XdrError, padding};

/// A cursor over one encoded message.
#[derive(Debug)]
pub struct Reader<'a> {
    source: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `source`.
    pub fn new(source: &'a Bytes) -> Self {
        Self { source, at: 0 }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.source.len() - self.at
    }

    /// The rest, unread, as a shared slice.
    pub fn rest(&self) -> Bytes {
        self.source.slice(self.at..)
    }

    /// Passes over the rest.
    pub fn skip_rest(&mut self) {
        self.at = self.source.len();
    }

    /// Ends the reading: nothing may be left over.
    pub fn finish(self) -> Result<(), XdrError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(XdrError::Trailing(left)),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], XdrError> {
        let end = self.at.checked_add(length).ok_or(XdrError::Truncated)?;
        let bytes = self.source.get(self.at..end).ok_or(XdrError::Truncated)?;
        self.at = end;
        Ok(bytes)
    }

    /// `opaque[N]`, which must be a multiple of four long to have no pad (all uses here are).
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], XdrError> {
        let bytes = self.take(N)?;
        self.take(padding(N))?;
        let mut array = [0; N];
        array.copy_from_slice(bytes);
        Ok(array)
    }

    /// `unsigned int`; NDMP encodes `u_long`, `u_short` and `u_char` alike.
    pub fn u32(&mut self) -> Result<u32, XdrError> {
        self.fixed::<4>().map(u32::from_be_bytes)
    }

    /// `int`.
    pub fn i32(&mut self) -> Result<i32, XdrError> {
        self.fixed::<4>().map(i32::from_be_bytes)
    }

    /// `unsigned hyper`, high word first.
    pub fn u64(&mut self) -> Result<u64, XdrError> {
        self.fixed::<8>().map(u64::from_be_bytes)
    }

    /// `bool`: 0 or 1, nothing else.
    pub fn bool(&mut self) -> Result<bool, XdrError> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(XdrError::Invalid),
        }
    }

    fn counted(&mut self, max: usize) -> Result<&'a [u8], XdrError> {
        let length = self.u32()? as usize;
        if length > max {
            return Err(XdrError::TooLong { length: length as u64, max: max as u64 });
        }
        let bytes = self.take(length)?;
        self.take(padding(length))?;
        Ok(bytes)
    }

    /// `opaque<max>`, sharing the message's memory. What the pad holds is not looked at: real
    /// senders leave rubbish there.
    pub fn opaque(&mut self, max: usize) -> Result<Bytes, XdrError> {
        let source = self.source;
        self.counted(max).map(|bytes| source.slice_ref(bytes))
    }

    /// `string<max>`. Bytes that are not UTF-8 become U+FFFD: names of other systems are shown,
    /// not refused.
    pub fn string(&mut self, max: usize) -> Result<String, XdrError> {
        self.counted(max).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// The count of an `item<max>` array whose items take at least `least` bytes each. A count
    /// that the rest of the message can not hold is refused, so that it may be allocated.
    pub fn count(&mut self, max: usize, least: usize) -> Result<usize, XdrError> {
        let count = self.u32()? as usize;
        if count > max {
            return Err(XdrError::TooLong { length: count as u64, max: max as u64 });
        }
        match count.checked_mul(least.max(1)) {
            Some(bytes) if bytes <= self.remaining() => Ok(count),
            _ => Err(XdrError::Truncated),
        }
    }

    /// `item<max>`: the count, then each item by `item`. See [`Reader::count`] for `least`.
    pub fn array<T, E: From<XdrError>>(
        &mut self,
        max: usize,
        least: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, E>,
    ) -> Result<Vec<T>, E> {
        let count = self.count(max, least)?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }
}
