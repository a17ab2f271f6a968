//! Where a byte stream is cut into chunks: one definition for everybody who names chunks.
//!
//! A cut depends only on the bytes behind the cut before it. So the same bytes give the same cuts
//! however they arrive, and cutting may begin anew at any earlier cut.
//!
//! - Content decides: FastCDC, the 2020 form with normalization level 1.
//! - Headers of tar members are chunks of their own where their data is large. A header changes
//!   when a time does, and would make the data beside it another chunk. Data that begins at a cut
//!   is cut alike wherever it stands in the stream.
//!
//! The rules are written down in `docs/formats/store.md` and never change: a new rule is a new
//! [`Rules`].
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod tar;

use fastcdc::v2020::{Normalization, cut, select_masks};

/// What is cut by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rules {
    /// Content alone.
    Plain,
    /// Content, and headers of tar members.
    #[default]
    Tar,
}

/// The sizes of chunks that content decides on, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// No chunk is shorter, but before a header or at an end.
    pub min: usize,
    /// What is aimed at.
    pub average: usize,
    /// No chunk is longer.
    pub max: usize,
}

impl Default for Sizes {
    /// 4, 16 and 64 KiB.
    fn default() -> Self {
        Self { min: 4 << 10, average: 16 << 10, max: 64 << 10 }
    }
}

/// Finds cuts.
#[derive(Clone, Debug)]
pub struct Cutter {
    sizes: Sizes,
    rules: Rules,
    masks: (u64, u64),
}

impl Cutter {
    /// One with these sizes, which fastcdc takes (even, 64, 256 and 1024 at least), and rules.
    pub fn new(sizes: Sizes, rules: Rules) -> Self {
        Self { sizes, rules, masks: select_masks(sizes.average, Normalization::Level1) }
    }

    /// So many bytes make the next cut certain, whatever comes behind them.
    pub fn certain(&self) -> usize {
        match self.rules {
            Rules::Plain => self.sizes.max,
            Rules::Tar => self.sizes.max + tar::HEADER,
        }
    }

    /// The length of the chunk at the front of `bytes`, which is not empty: as if nothing came
    /// behind them where they are fewer than [`Cutter::certain`].
    pub fn next(&self, bytes: &[u8]) -> usize {
        if self.rules == Rules::Tar
            && let Some(length) = tar::headers(bytes, self.sizes.max)
        {
            return length;
        }
        let length = self.content(bytes);
        match self.rules {
            Rules::Plain => length,
            Rules::Tar => tar::before_header(bytes, length).unwrap_or(length),
        }
    }

    fn content(&self, bytes: &[u8]) -> usize {
        let Sizes { min, average, max } = self.sizes;
        let bytes = &bytes[..bytes.len().min(max)];
        let (short, long) = self.masks;
        cut(bytes, min, average, max, short, long, short << 1, long << 1).1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cuts(cutter: &Cutter, pieces: &[&[u8]]) -> Vec<usize> {
        let (mut pending, mut found) = (Vec::new(), Vec::new());
        for piece in pieces {
            pending.extend_from_slice(piece);
            while pending.len() >= cutter.certain() {
                found.push(cutter.next(&pending));
                pending.drain(..found[found.len() - 1]);
            }
        }
        while !pending.is_empty() {
            found.push(cutter.next(&pending));
            pending.drain(..found[found.len() - 1]);
        }
        found
    }

    fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64 ^ seed;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    /// Something like a tar, with damage: headers that are none, members cut short, junk between.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let member = (0u64..100_000, any::<u64>(), 0u8..12);
        proptest::collection::vec(member, 0..12).prop_map(|members| {
            let mut out = Vec::new();
            for (size, seed, what) in members {
                let size = if seed % 3 == 0 { size % 3000 } else { size };
                let mut header = tar::header(&format!("file-{seed}"), size, seed);
                match what {
                    0 => header[seed as usize % 512] ^= 1,
                    1 => out.extend(noise(seed as usize % 700, seed)),
                    2 => header.truncate(seed as usize % 512),
                    _ => {}
                }
                out.extend(&header);
                let data = noise(size as usize, seed);
                out.extend(&data[..if what == 3 { data.len() / 2 } else { data.len() }]);
                out.resize(out.len().next_multiple_of(512), 0);
            }
            out
        })
    }

    proptest! {
        #[test]
        fn pieces_do_not_move_cuts(
            data in stream(),
            sizes in prop::collection::vec(1usize..90_000, 1..40),
        ) {
            for rules in [Rules::Plain, Rules::Tar] {
                let cutter = Cutter::new(Sizes::default(), rules);
                let whole = cuts(&cutter, &[&data]);
                prop_assert_eq!(whole.iter().sum::<usize>(), data.len());
                prop_assert!(whole.iter().all(|length| (1..=65_536).contains(length)));
                let (mut rest, mut pieces) = (&data[..], Vec::new());
                for size in sizes.iter().cycle() {
                    if rest.is_empty() {
                        break;
                    }
                    let (piece, behind) = rest.split_at((*size).min(rest.len()));
                    pieces.push(piece);
                    rest = behind;
                }
                prop_assert_eq!(&cuts(&cutter, &pieces), &whole);
            }
        }

        #[test]
        fn anything_is_cut_and_comes_to_an_end(
            data in prop::collection::vec(any::<u8>(), 1..3000),
        ) {
            let cutter = Cutter::new(Sizes::default(), Rules::Tar);
            prop_assert_eq!(cuts(&cutter, &[&data]).iter().sum::<usize>(), data.len());
        }
    }

    #[test]
    fn without_headers_both_rules_cut_as_the_crate_does() {
        let data = noise(1 << 20, 1);
        let whole: Vec<_> =
            fastcdc::v2020::FastCDC::new(&data, 4096, 16384, 65536).map(|it| it.length).collect();
        for rules in [Rules::Plain, Rules::Tar] {
            assert_eq!(cuts(&Cutter::new(Sizes::default(), rules), &[&data]), whole);
        }
    }

    /// Bytes of `new` that are in no chunk of `old`.
    fn fresh(old: &[u8], new: &[u8], rules: Rules) -> usize {
        let cutter = Cutter::new(Sizes::default(), rules);
        let chunks = |data: &[u8]| {
            let mut at = 0;
            let cut = |length: usize| {
                at += length;
                data[at - length..at].to_vec()
            };
            cuts(&cutter, &[data]).into_iter().map(cut).collect::<Vec<_>>()
        };
        let known: std::collections::HashSet<_> = chunks(old).into_iter().collect();
        chunks(new).iter().filter(|chunk| !known.contains(*chunk)).map(Vec::len).sum()
    }

    fn archive(night: u64) -> Vec<u8> {
        let mut out = Vec::new();
        for file in 0..200u64 {
            let size = file * 7919 % 40_000;
            out.extend(tar::header(&format!("tree/{file}"), size, night));
            out.extend(noise(size as usize, file));
            out.resize(out.len().next_multiple_of(512), 0);
        }
        out
    }

    #[test]
    fn times_that_change_leave_the_data_alone() {
        let (old, new) = (archive(1), archive(2));
        let (plain, known) = (fresh(&old, &new, Rules::Plain), fresh(&old, &new, Rules::Tar));
        assert!(plain > old.len() / 2, "{plain} of {}", old.len());
        // Headers, and the few small files between them.
        assert!(known < old.len() / 20, "{known} of {}", old.len());
        // Wherever it stands in the stream.
        let moved = [b"a label of some other length".as_slice(), &new].concat();
        let known = fresh(&old, &moved, Rules::Tar);
        assert!(known < old.len() / 15, "{known} of {}", old.len());
    }

    /// If this fails, every store and every peer loses its deduplication of archives.
    #[test]
    fn the_cuts_of_an_archive_never_change() {
        let cutter = Cutter::new(Sizes::default(), Rules::Tar);
        let found = cuts(&cutter, &[&archive(1)[..300_000]]);
        assert_eq!(&found[..12], GOLDEN);
    }

    const GOLDEN: [usize; 12] =
        [1024, 8192, 512, 15872, 512, 21104, 2960, 512, 23805, 7939, 512, 20075];
}
