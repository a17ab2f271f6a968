//! What is known of each container: how many chunks it has, which of them count, and in which
//! epoch somebody last relied on each. One byte a chunk, once somebody did.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Location;

/// An epoch, counted from one that is the same for all containers. 255 stands for all later ones:
/// what bears it is kept for longer than it needs to be, and never for less.
pub(super) type Stamp = u8;

/// The chunks of one container, by their number in it.
#[derive(Debug, Default)]
pub(super) struct Contents(Mutex<Inside>);

#[derive(Debug, Default)]
struct Inside {
    /// Chunks that are listed, and so their numbers.
    count: u32,
    /// Those of them that do not count: they lie elsewhere by now, or are damaged.
    gone: BTreeSet<u32>,
    /// Bytes of those that count, before and after compression, without headers.
    raw: u64,
    stored: u64,
    /// The stamps of the first chunks; those behind have 0.
    stamps: Vec<Stamp>,
    /// Bytes in the file by stamp, of those above 0.
    live: Vec<(Stamp, u64)>,
}

/// Figures of a container, as they are kept on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) count: u32,
    pub(super) gone: Vec<u32>,
    pub(super) raw: u64,
    pub(super) stored: u64,
}

impl Inside {
    fn counts(&self, number: u32) -> bool {
        number < self.count && !self.gone.contains(&number)
    }

    fn stamp(&self, number: u32) -> Stamp {
        self.stamps.get(number as usize).copied().unwrap_or(0)
    }

    fn weigh(&mut self, stamp: Stamp, change: impl FnOnce(u64) -> u64) {
        if stamp == 0 {
            return;
        }
        let slot = match self.live.iter().position(|(at, _)| *at == stamp) {
            Some(slot) => slot,
            None => {
                self.live.push((stamp, 0));
                self.live.len() - 1
            }
        };
        self.live[slot].1 = change(self.live[slot].1);
    }

    fn set_stamp(&mut self, at: &Location, stamp: Stamp) {
        let number = at.number as usize;
        if self.stamps.len() <= number {
            self.stamps.resize(number + 1, 0);
        }
        let before = std::mem::replace(&mut self.stamps[number], stamp);
        self.weigh(before, |bytes| bytes.saturating_sub(at.size()));
        self.weigh(stamp, |bytes| bytes.saturating_add(at.size()));
    }
}

impl Contents {
    pub(super) fn of(listed: Listed) -> Self {
        let Listed { count, gone, raw, stored } = listed;
        let gone = gone.into_iter().collect();
        Self(Mutex::new(Inside { count, gone, raw, stored, ..Inside::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn listed(&self) -> Listed {
        let inside = self.lock();
        let gone = inside.gone.iter().copied().collect();
        Listed { count: inside.count, gone, raw: inside.raw, stored: inside.stored }
    }

    /// Chunks that are listed.
    pub(super) fn count(&self) -> u32 {
        self.lock().count
    }

    /// The next chunk, whose number is the count so far.
    pub(super) fn push(&self, at: &Location, stamp: Stamp) {
        let mut inside = self.lock();
        inside.count = inside.count.max(at.number + 1);
        inside.raw += u64::from(at.raw_len);
        inside.stored += u64::from(at.stored_len);
        if stamp > 0 {
            inside.set_stamp(at, stamp);
        }
    }

    /// Whether the chunk at this place counts.
    pub(super) fn counts(&self, at: &Location) -> bool {
        self.lock().counts(at.number)
    }

    /// The same, and stamps it if it does.
    pub(super) fn touch(&self, at: &Location, stamp: Stamp) -> bool {
        let mut inside = self.lock();
        let counts = inside.counts(at.number);
        if counts && inside.stamp(at.number) < stamp {
            inside.set_stamp(at, stamp);
        }
        counts
    }

    /// The chunk's stamp, `None` if it does not count.
    pub(super) fn stamp(&self, at: &Location) -> Option<Stamp> {
        let inside = self.lock();
        inside.counts(at.number).then(|| inside.stamp(at.number))
    }

    /// The chunk at this place does not count any more. Its stamp, `None` if it did not before.
    pub(super) fn leave(&self, at: &Location) -> Option<Stamp> {
        let mut inside = self.lock();
        if !inside.counts(at.number) {
            return None;
        }
        let stamp = inside.stamp(at.number);
        inside.weigh(stamp, |bytes| bytes.saturating_sub(at.size()));
        inside.gone.insert(at.number);
        inside.raw = inside.raw.saturating_sub(at.raw_len.into());
        inside.stored = inside.stored.saturating_sub(at.stored_len.into());
        Some(stamp)
    }

    /// Bytes in the file of chunks that count and were stamped with this or later.
    pub(super) fn live(&self, needed: Stamp) -> u64 {
        let inside = self.lock();
        if needed == 0 {
            let chunks = u64::from(inside.count) - inside.gone.len() as u64;
            return inside.stored + chunks * super::HEADER;
        }
        inside.live.iter().filter(|(stamp, _)| *stamp >= needed).map(|(_, bytes)| bytes).sum()
    }

    /// Bytes of memory, about.
    pub(super) fn memory(&self) -> u64 {
        let inside = self.lock();
        let gone = inside.gone.len() * 6;
        (size_of::<(u32, Self)>() + inside.stamps.capacity() + gone) as u64
    }

    /// Chunks that count, and their bytes before and after compression.
    pub(super) fn totals(&self) -> (u64, u64, u64) {
        let inside = self.lock();
        (u64::from(inside.count) - inside.gone.len() as u64, inside.raw, inside.stored)
    }

    /// Counts stamps from a later epoch on, in which the one that is now has the stamp `now`. What
    /// had the greatest one may be from any epoch up to this: it is taken for the newest.
    pub(super) fn rebase(&self, later: u32, now: Stamp) {
        let later = Stamp::try_from(later).unwrap_or(Stamp::MAX);
        let rebased = |stamp: Stamp| match stamp {
            Stamp::MAX => now,
            stamp => stamp.saturating_sub(later),
        };
        let mut inside = self.lock();
        inside.stamps.iter_mut().for_each(|stamp| *stamp = rebased(*stamp));
        for (stamp, bytes) in std::mem::take(&mut inside.live) {
            inside.weigh(rebased(stamp), |more| more + bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Encoding;

    fn at(number: u32) -> Location {
        let (offset, encoding) = (number * 100, Encoding::Raw);
        Location { container: 1, offset, stored_len: 44, raw_len: 44, encoding, number }
    }

    #[test]
    fn stamps_rise_and_what_has_left_does_not_count() {
        let contents = Contents::default();
        (0..3).for_each(|number| contents.push(&at(number), 2));
        assert_eq!((contents.live(0), contents.live(2), contents.live(3)), (300, 300, 0));
        assert!(contents.touch(&at(1), 5) && contents.touch(&at(1), 4));
        assert_eq!(contents.stamp(&at(1)), Some(5));
        assert_eq!((contents.live(2), contents.live(3)), (300, 100));
        assert_eq!(contents.leave(&at(1)), Some(5));
        assert_eq!((contents.leave(&at(1)), contents.stamp(&at(1))), (None, None));
        assert!(!contents.touch(&at(1), 9) && !contents.touch(&at(3), 9));
        assert_eq!((contents.live(0), contents.live(1), contents.live(3)), (200, 200, 0));
        assert_eq!(contents.totals(), (2, 88, 88));
        contents.rebase(1, 9);
        assert_eq!((contents.stamp(&at(0)), contents.live(1), contents.live(2)), (Some(1), 200, 0));
        contents.rebase(7, 9);
        assert_eq!((contents.stamp(&at(0)), contents.live(0), contents.live(1)), (Some(0), 200, 0));
        let again = Contents::of(contents.listed());
        assert_eq!(again.listed(), contents.listed());
        assert!(again.counts(&at(2)) && !again.counts(&at(1)));
    }
}
