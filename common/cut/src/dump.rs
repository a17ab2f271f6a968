//! Headers of `dump`: of file systems by BSD and Linux, and of filers, whose NDMP type *dump* has
//! the same ones.
//!
//! A header is a block of 1024 bytes with a magic number and words whose sum is 84446, in the order
//! of bytes of the machine that wrote it. It stands before each file, and before each further 512
//! blocks of one, and holds the date of the dump and the number of its block on the tape: so each
//! is another in each dump.

use crate::archive::{Form, Member};

/// Bytes of a header, and of a block of data.
pub(crate) const HEADER: usize = 1024;
/// What all 32-bit words of a header add up to.
const SUM: u32 = 84_446;
/// Where the number of blocks behind the header stands, and for each of them, up to 512, a byte
/// that says whether it is there or a hole.
const COUNT: usize = 160;
const PRESENT: std::ops::Range<usize> = 164..676;
/// Where the magic stands.
const MAGIC_AT: usize = 24;

/// Magic number 60012, and that of UFS 2, as little and as big machines write them.
pub(crate) const FORMS: [Form; 4] = [
    Form { magic: &60_012u32.to_le_bytes(), at: MAGIC_AT, member: little },
    Form { magic: &60_012u32.to_be_bytes(), at: MAGIC_AT, member: big },
    Form { magic: &0x1954_0119u32.to_le_bytes(), at: MAGIC_AT, member: little },
    Form { magic: &0x1954_0119u32.to_be_bytes(), at: MAGIC_AT, member: big },
];

/// What stands behind a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing: the begin or the end of a volume.
    Volume,
    /// Blocks of a file, but for holes.
    Inode,
    /// A map of inodes: all blocks.
    Map,
}

impl Kind {
    fn of(number: u32) -> Option<Self> {
        match number {
            1 | 5 => Some(Self::Volume),
            2 | 4 => Some(Self::Inode),
            3 | 6 => Some(Self::Map),
            _ => None,
        }
    }
}

fn little(bytes: &[u8]) -> Option<Member> {
    member(bytes.first_chunk()?, u32::from_le_bytes)
}

fn big(bytes: &[u8]) -> Option<Member> {
    member(bytes.first_chunk()?, u32::from_be_bytes)
}

fn member(header: &[u8; HEADER], word: fn([u8; 4]) -> u32) -> Option<Member> {
    let words = header.as_chunks().0.iter().map(|bytes| word(*bytes));
    let sum = words.fold(0u32, u32::wrapping_add);
    if sum != SUM {
        return None;
    }
    let kind = Kind::of(word(*header.first_chunk()?))?;
    let count = word(*header[COUNT..].first_chunk()?);
    let blocks = match kind {
        Kind::Volume => 0,
        Kind::Map => u64::from(count),
        Kind::Inode => {
            let present = &header[PRESENT];
            let count = usize::try_from(count).map_or(present.len(), |it| it.min(present.len()));
            present[..count].iter().filter(|byte| **byte != 0).count() as u64
        }
    };
    Some(Member::new(HEADER, blocks * HEADER as u64, HEADER))
}

/// A header before so many blocks, of a dump of some date.
#[cfg(test)]
pub(crate) fn header(kind: Kind, blocks: u32, date: u32, big: bool) -> Vec<u8> {
    let mut words = [0u32; HEADER / 4];
    words[0] = match kind {
        Kind::Volume => 1,
        Kind::Inode => 2,
        Kind::Map => 3,
    };
    (words[1], words[4], words[6], words[COUNT / 4]) = (date, date % 9000, 60_012, blocks);
    let bytes = |word: u32| if big { word.to_be_bytes() } else { word.to_le_bytes() };
    let mut out: Vec<u8> = words.into_iter().flat_map(bytes).collect();
    if kind == Kind::Inode {
        out[PRESENT][..blocks as usize].fill(1);
    }
    let word = if big { u32::from_be_bytes } else { u32::from_le_bytes };
    let sum = out.as_chunks().0.iter().fold(0u32, |sum, it| sum.wrapping_add(word(*it)));
    out[28..32].copy_from_slice(&bytes(SUM.wrapping_sub(sum)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_known_by_every_byte_of_it() {
        for (big_one, member) in [(false, little as fn(&[u8]) -> Option<Member>), (true, big)] {
            let good = header(Kind::Inode, 12, 1_700_000_000, big_one);
            let whole = Member { header: HEADER, data: 12_288, filled: 12_288 };
            assert_eq!(member(&good), Some(whole));
            for at in 0..HEADER {
                let mut bad = good.clone();
                bad[at] ^= 1;
                assert_eq!(member(&bad), None, "byte {at}");
            }
            assert_eq!(member(&good[..HEADER - 1]), None);
        }
    }

    #[test]
    fn holes_have_no_blocks_and_counts_may_lie() {
        let mut bytes = header(Kind::Inode, 8, 1, false);
        // Two holes of one byte each, made up for in the checksum: it stands at words of their own.
        bytes[164] = 0;
        bytes[168] = 0;
        let sum = u32::from_le_bytes(*bytes[28..].first_chunk().unwrap()) + 2;
        bytes[28..32].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(little(&bytes).unwrap().data, 6 * 1024);
        let map = header(Kind::Map, u32::MAX, 1, false);
        assert_eq!(little(&map).unwrap().data, 1024 * u32::MAX as usize);
        assert_eq!(little(&header(Kind::Volume, 9, 1, false)).unwrap().data, 0);
    }
}
