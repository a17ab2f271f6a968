//! Headers of tar members: ustar, GNU and pax.
//!
//! A header is known by its magic and its checksum, wherever it stands: an archive inside something
//! else is found as well, and bytes that only look like one are cut by their content.

use crate::archive::{Form, Member};

/// Bytes of a header, and of the blocks that data is filled up to.
pub(crate) const HEADER: usize = 512;
/// The magic, the same for ustar (followed by a zero) and GNU (followed by a space), and where.
const MAGIC: &[u8] = b"ustar";
const MAGIC_AT: usize = 257;
/// Where the checksum stands.
const SUM: std::ops::Range<usize> = 148..156;
/// Where the size stands.
const SIZE: std::ops::Range<usize> = 124..136;

pub(crate) const FORM: Form = Form { magic: MAGIC, at: MAGIC_AT, member };

/// An octal number as tar writes it: blanks, digits, then a blank or a zero byte or nothing.
fn octal(field: &[u8]) -> Option<u64> {
    let text = field.trim_ascii_start();
    let end = text.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(text.len());
    let digit = |sum: u64, byte: &u8| match byte {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    };
    match end {
        0 => None,
        _ => text[..end].iter().try_fold(0, digit),
    }
}

/// Whether a header begins here.
fn is_header(bytes: &[u8]) -> bool {
    let Some(header) = bytes.first_chunk::<HEADER>() else { return false };
    if !header[MAGIC_AT..].starts_with(MAGIC) {
        return false;
    }
    let Some(told) = octal(&header[SUM]) else { return false };
    let all: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    let own: u64 = header[SUM].iter().map(|byte| u64::from(*byte)).sum();
    // The checksum is made with blanks in its own place.
    all - own + 8 * u64::from(b' ') == told
}

/// The member whose header this is.
fn member(bytes: &[u8]) -> Option<Member> {
    is_header(bytes).then(|| {
        // A size in base 256 is a large one.
        let size = octal(&bytes[SIZE]).unwrap_or(u64::MAX);
        Member::new(HEADER, size, HEADER)
    })
}

/// A header of a file as tar writes it.
#[cfg(test)]
pub(crate) fn header(name: &str, size: u64, time: u64) -> Vec<u8> {
    let mut out = vec![0; HEADER];
    out[..name.len()].copy_from_slice(name.as_bytes());
    out[100..108].copy_from_slice(b"0000644\0");
    out[SIZE].copy_from_slice(format!("{size:011o}\0").as_bytes());
    out[136..148].copy_from_slice(format!("{:011o}\0", time % (1 << 33)).as_bytes());
    out[156] = b'0';
    out[MAGIC_AT..MAGIC_AT + 8].copy_from_slice(b"ustar\x0000");
    out[SUM].copy_from_slice(b"        ");
    let sum: u64 = out.iter().map(|byte| u64::from(*byte)).sum();
    out[SUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rules, archive::Finder};

    fn headers(bytes: &[u8], max: usize) -> Option<usize> {
        Finder::new(Rules::Tar).unwrap().headers(bytes, max)
    }

    fn before_header(bytes: &[u8], length: usize) -> Option<usize> {
        Finder::new(Rules::Tar).unwrap().before(bytes, length)
    }

    #[test]
    fn a_header_is_known_by_every_byte_of_it() {
        let good = header("name", 12_345, 77);
        assert!(is_header(&good));
        assert_eq!(headers(&good, 65_536), Some(HEADER));
        for at in 0..HEADER {
            let mut bad = good.clone();
            bad[at] ^= 1;
            // The byte behind the checksum's number is not part of anything.
            assert!(!is_header(&bad) || SUM.contains(&at), "byte {at}");
        }
        assert!(!is_header(&good[..511]));
        let gnu = [&good[..MAGIC_AT + 5], b"  \0", &good[MAGIC_AT + 8..]].concat();
        assert!(!is_header(&gnu), "its checksum is another");
    }

    #[test]
    fn small_members_stay_together_and_large_ones_begin_anew() {
        let mut archive = Vec::new();
        for size in [100, 0, 2047, 2048] {
            archive.extend(header("x", size, 5));
            archive.resize(archive.len() + (size as usize).next_multiple_of(HEADER), b'.');
        }
        let small = 4 * HEADER + 512 + 2048;
        assert_eq!(headers(&archive, 65_536), Some(small));
        // Not beyond the largest chunk.
        assert_eq!(headers(&archive, 2047), Some(1024 + HEADER));
        let large = [b"junk".as_slice(), &archive].concat();
        assert_eq!(before_header(&large, 20_000), Some(4));
        assert_eq!(before_header(&large, 3), None);
        assert_eq!(before_header(&archive[small..], 2048), None);
    }

    #[test]
    fn what_only_looks_like_headers_is_given_up_on() {
        let mut bytes = b"ustar".repeat(4000);
        bytes.extend(header("behind", 9, 9));
        assert_eq!(before_header(&bytes, bytes.len()), None);
        assert_eq!(before_header(&bytes[19_800..], 2000), Some(200));
    }

    #[test]
    fn numbers_are_octal() {
        for (text, number) in [("0000644\0", Some(0o644)), ("   12 ", Some(10)), ("7", Some(7))] {
            assert_eq!(octal(text.as_bytes()), number);
        }
        for text in ["", "\0\0", "    ", "128", "8", "\u{80}\0\0\0", "7777777777777777777777777"] {
            assert_eq!(octal(text.as_bytes()), None, "{text:?}");
        }
    }
}
