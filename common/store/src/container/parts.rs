//! Memory that reading uses again and again: to get new pages from the system, and to clear them,
//! costs a tenth of what is read.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::codec::Decompressor;

/// What is fetched in one read is handed on in parts of about this size.
pub(super) const PART: usize = 1 << 20;
/// A read that takes less than this of a part gets memory of its own, lest a small chunk of it
/// keeps a whole part.
const LEAST: usize = PART / 4 * 3;
/// So many parts are kept for the next that asks.
const SPARE: usize = 16;

/// Parts that nobody uses at the moment.
#[derive(Debug, Default)]
pub(crate) struct Parts(Mutex<Vec<Vec<u8>>>);

impl Parts {
    fn spare(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory of a length; what is in it when it is got is anything.
pub(super) struct Part {
    bytes: Vec<u8>,
    len: usize,
    home: Option<Arc<Parts>>,
}

impl Part {
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl From<Part> for Bytes {
    fn from(part: Part) -> Self {
        Self::from_owner(part)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            let mut spare = home.spare();
            if spare.len() < SPARE {
                spare.push(std::mem::take(&mut self.bytes));
            }
        }
    }
}

/// What a thread that reads chunks keeps from one read to the next.
pub(crate) struct Reading {
    pub(super) decompressor: Decompressor,
    parts: Option<Arc<Parts>>,
}

impl Reading {
    /// Of one of several threads that use the same memory.
    pub(crate) fn with(parts: &Arc<Parts>) -> Self {
        Self { decompressor: Decompressor::new(), parts: Some(parts.clone()) }
    }

    /// Of a thread that reads now and then, and keeps no parts meanwhile.
    pub(crate) fn seldom() -> Self {
        Self { decompressor: Decompressor::new(), parts: None }
    }

    /// Of a thread alone.
    pub(crate) fn alone() -> Self {
        Self::with(&Arc::default())
    }

    pub(super) fn part(&self, len: usize) -> Part {
        let Some(parts) = self.parts.as_ref().filter(|_| (LEAST..=PART).contains(&len)) else {
            return Part { bytes: vec![0; len], len, home: None };
        };
        let bytes = parts.spare().pop().unwrap_or_else(|| vec![0; PART]);
        Part { bytes, len, home: Some(parts.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_used_again_once_nobody_holds_it_and_small_reads_hold_none() {
        let reading = Reading::alone();
        let mut part = reading.part(LEAST);
        part.bytes().fill(7);
        let at = part.as_ref().as_ptr();
        let whole = Bytes::from(part);
        let piece = whole.slice(5..6);
        drop(whole);
        assert_ne!(reading.part(PART).as_ref().as_ptr(), at, "a piece of it is held");
        assert_eq!(&piece[..], [7]);
        drop(piece);
        assert_eq!(reading.part(PART).as_ref().as_ptr(), at);
        let spare = || reading.parts.as_ref().unwrap().spare().len();
        let before = spare();
        drop((reading.part(LEAST - 1), reading.part(PART + 1)));
        assert_eq!(spare(), before);
        drop((0..2 * SPARE).map(|_| reading.part(PART)).collect::<Vec<_>>());
        assert_eq!(spare(), SPARE);
    }
}
