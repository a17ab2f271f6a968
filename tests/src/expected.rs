//! A place to restore to that compares on arrival.

use std::io::{self, Write};

/// Takes only these bytes.
pub struct Expected<'a> {
    rest: &'a [u8],
}

impl<'a> Expected<'a> {
    /// All of these, in their order.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes that did not come yet.
    pub fn missing(&self) -> usize {
        self.rest.len()
    }
}

impl Write for Expected<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.rest.strip_prefix(bytes) {
            Some(rest) => self.rest = rest,
            None => return Err(io::Error::other("what is read is not what was written")),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
