//! In which reads chunks are fetched that are wanted together: by where they lie, not by the order
//! in which they are wanted.

use super::format::CHUNK_HEADER;
use crate::index::Location;

/// At most so much is read in one go.
const READ_SIZE: u64 = 8 << 20;

impl Location {
    pub(super) fn end(&self) -> u64 {
        u64::from(self.offset) + CHUNK_HEADER as u64 + u64::from(self.stored_len)
    }
}

/// A part of one container that is read in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) container: u32,
    pub(crate) from: u32,
    pub(crate) to: u64,
    /// Which of the places it gets, in the order in which they lie.
    pub(crate) members: Vec<usize>,
    /// Bytes of it that nobody wants.
    over: u64,
}

impl Read {
    fn of(index: usize, at: &Location) -> Self {
        let Location { container, offset: from, .. } = *at;
        Self { container, from, to: at.end(), members: vec![index], over: 0 }
    }

    /// Bytes that are read.
    pub(crate) fn len(&self) -> u64 {
        self.to - u64::from(self.from)
    }

    /// Bytes of them that are wanted.
    pub(crate) fn wanted(&self) -> u64 {
        self.len() - self.over
    }

    /// Takes in a place that does not lie before the last one, if it is worth it.
    fn take(&mut self, index: usize, at: &Location, most: u64) -> bool {
        let gap = u64::from(at.offset).saturating_sub(self.to);
        let near = at.container == self.container
            && gap <= most
            && self.over + gap <= self.wanted().max(most)
            && at.end().max(self.to) - u64::from(self.from) <= READ_SIZE;
        if near {
            self.over += gap;
            self.to = self.to.max(at.end());
            self.members.push(index);
        }
        near
    }
}

/// The reads that get all of the places, which may be twice among them. Those that lie at most
/// `gap` apart are read in one go, as long as no more is read over than is wanted.
pub(crate) fn plan(places: &[Location], gap: u64) -> Vec<Read> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by_key(|i| (places[*i].container, places[*i].offset));
    let mut reads: Vec<Read> = Vec::new();
    for index in order {
        let at = &places[index];
        if !reads.last_mut().is_some_and(|last| last.take(index, at, gap)) {
            reads.push(Read::of(index, at));
        }
    }
    reads
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Encoding;
    use crate::testing::Random;

    const GAP: u64 = 256 << 10;

    fn at(container: u32, offset: u32, stored_len: u32) -> Location {
        let (raw_len, encoding) = (stored_len, Encoding::Raw);
        Location { container, offset, stored_len, raw_len, encoding, number: 0 }
    }

    #[test]
    fn neighbours_are_read_together_in_whatever_order_they_are_wanted() {
        let places = [at(2, 1056, 944), at(1, 32, 100), at(2, 56, 944), at(2, 1056, 944)];
        let reads = plan(&places, GAP);
        assert_eq!(reads.len(), 2);
        assert_eq!((reads[0].container, reads[0].members.as_slice()), (1, &[1][..]));
        assert_eq!((reads[1].from, reads[1].to), (56, 2056));
        assert_eq!(reads[1].members, [2, 0, 3]);
    }

    #[test]
    fn no_more_is_read_over_than_is_wanted() {
        let mut random = Random::new(7);
        for _ in 0..200 {
            let places: Vec<_> = (0..random.below(300) + 1)
                .map(|_| {
                    let container = random.below(3) as u32;
                    at(container, random.below(64 << 20) as u32, random.below(60_000) as u32 + 1)
                })
                .collect();
            let reads = plan(&places, GAP);
            let mut members: Vec<_> = reads.iter().flat_map(|read| read.members.clone()).collect();
            members.sort_unstable();
            assert!(members.into_iter().eq(0..places.len()));
            for read in &reads {
                let within = |i: &usize| {
                    let at = &places[*i];
                    at.container == read.container && at.offset >= read.from && at.end() <= read.to
                };
                assert!(read.members.iter().all(within));
                assert!(read.len() <= READ_SIZE && read.over <= read.wanted().max(GAP));
            }
        }
    }
}
