//! Where a byte stream is cut into chunks: one definition for everybody who names chunks.
//!
//! A cut depends only on the bytes behind the cut before it. So the same bytes give the same cuts
//! however they arrive, and cutting may begin anew at any earlier cut.
//!
//! - Content decides: FastCDC, the 2020 form with normalization level 1.
//! - Headers of members of archives (tar, cpio, dump) are chunks of their own where their data is
//!   large. A header changes when a time does, and would make the data beside it another chunk.
//!   Data that begins at a cut is cut alike wherever it stands in the stream.
//!
//! The rules are written down in `docs/formats/store.md` and never change: a new rule is a new
//! [`Rules`].
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod archive;
mod content;
mod cpio;
mod dump;
mod tar;

use archive::Finder;
use content::Content;

/// What is cut by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rules {
    /// Content alone.
    Plain,
    /// Content, and headers of tar members.
    Tar,
    /// Content, and headers of members of tar, cpio and dump.
    #[default]
    Archives,
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
    finder: Option<Finder>,
    content: Content,
}

impl Cutter {
    /// One with these sizes, which fastcdc takes (even, 64, 256 and 1024 at least), and rules.
    pub fn new(sizes: Sizes, rules: Rules) -> Self {
        Self { sizes, finder: Finder::new(rules), content: Content::new(sizes) }
    }

    /// So many bytes make the next cut certain, whatever comes behind them.
    pub fn certain(&self) -> usize {
        self.sizes.max + self.finder.as_ref().map_or(0, Finder::longest)
    }

    /// The length of the chunk at the front of `bytes`, which is not empty: as if nothing came
    /// behind them where they are fewer than [`Cutter::certain`].
    pub fn next(&self, bytes: &[u8]) -> usize {
        let Some(finder) = &self.finder else { return self.content.cut(bytes) };
        if let Some(length) = finder.headers(bytes, self.sizes.max) {
            return length;
        }
        let length = self.content.cut(bytes);
        finder.before(bytes, length).unwrap_or(length)
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

    /// A header of one of the forms, and what data is filled up to.
    fn header(form: u64, name: &str, size: u64, time: u64) -> (Vec<u8>, usize) {
        let blocks = (size.div_ceil(1024)).min(512) as u32;
        match form % 5 {
            0 => (cpio::header(name, size, time), 4),
            1 => (cpio::portable_header(name, size, time), 1),
            2 => (dump::header(dump::Kind::Inode, blocks, time as u32, false), 1024),
            3 => (dump::header(dump::Kind::Inode, blocks, time as u32, true), 1024),
            _ => (tar::header(name, size, time), 512),
        }
    }

    /// Something like archives, damaged: headers that are none, members cut short, junk between.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let member = (0u64..100_000, any::<u64>(), 0u8..12, 0u64..5);
        proptest::collection::vec(member, 0..12).prop_map(|members| {
            let mut out = Vec::new();
            for (size, seed, what, form) in members {
                let size = if seed % 3 == 0 { size % 3000 } else { size };
                let (mut header, unit) = header(form, &format!("file-{seed}"), size, seed);
                let at = seed as usize % header.len();
                match what {
                    0 => header[at] ^= 1,
                    1 => out.extend(noise(seed as usize % 700, seed)),
                    2 => header.truncate(at),
                    _ => {}
                }
                out.extend(&header);
                let data = noise(size as usize, seed);
                out.extend(&data[..if what == 3 { data.len() / 2 } else { data.len() }]);
                out.resize(out.len().next_multiple_of(unit), 0);
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
            for rules in RULES {
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
            let cutter = Cutter::new(Sizes::default(), Rules::Archives);
            prop_assert_eq!(cuts(&cutter, &[&data]).iter().sum::<usize>(), data.len());
        }
    }

    #[test]
    fn without_headers_all_rules_cut_as_the_crate_does() {
        let data = noise(1 << 20, 1);
        let whole: Vec<_> =
            fastcdc::v2020::FastCDC::new(&data, 4096, 16384, 65536).map(|it| it.length).collect();
        for rules in RULES {
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

    fn archive(form: u64, night: u64) -> Vec<u8> {
        let mut out = Vec::new();
        for file in 0..200u64 {
            let size = file * 7919 % 40_000;
            let (header, unit) = header(form, &format!("tree/{file}"), size, night);
            out.extend(header);
            out.extend(noise(size as usize, file));
            out.resize(out.len().next_multiple_of(unit), 0);
        }
        out
    }

    #[test]
    fn times_that_change_leave_the_data_alone() {
        for form in 0..5 {
            let (old, new) = (archive(form, 1), archive(form, 2));
            let plain = fresh(&old, &new, Rules::Plain);
            assert!(plain > old.len() / 2, "{plain} of {}", old.len());
            // Headers, and the few small files between them.
            let known = fresh(&old, &new, Rules::Archives);
            assert!(known < old.len() / 10, "{known} of {}", old.len());
            // Wherever it stands in the stream.
            let moved = [b"a label of some other length".as_slice(), &new].concat();
            let known = fresh(&old, &moved, Rules::Archives);
            assert!(known < old.len() / 10, "{known} of {}", old.len());
        }
    }

    #[test]
    fn tar_is_cut_alike_by_both_rules_that_know_it() {
        let archive = archive(TAR, 1);
        let [tar, all] = [Rules::Tar, Rules::Archives].map(|it| Cutter::new(Sizes::default(), it));
        assert_eq!(cuts(&tar, &[&archive]), cuts(&all, &[&archive]));
    }

    /// If this fails, every store and every peer loses its deduplication of archives.
    #[test]
    fn the_cuts_of_an_archive_never_change() {
        for (form, golden) in GOLDEN {
            let rules = if form == TAR { Rules::Tar } else { Rules::Archives };
            let cutter = Cutter::new(Sizes::default(), rules);
            let found = cuts(&cutter, &[&archive(form, 1)[..300_000]]);
            assert_eq!(&found[..12], golden, "form {form}");
        }
    }

    const TAR: u64 = 4;
    const RULES: [Rules; 3] = [Rules::Plain, Rules::Tar, Rules::Archives];
    const GOLDEN: [(u64, [usize; 12]); 4] = [
        (0, [240, 7920, 120, 15840, 120, 21104, 2656, 120, 23805, 7871, 120, 20075]),
        (1, [166, 7919, 83, 15838, 83, 21104, 2653, 83, 23805, 7871, 83, 20075]),
        (2, [2048, 8192, 1024, 16384, 1024, 21104, 3472, 1024, 23805, 7939, 1024, 20075]),
        (TAR, [1024, 8192, 512, 15872, 512, 21104, 2960, 512, 23805, 7939, 512, 20075]),
    ];
}
