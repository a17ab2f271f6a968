//! Headers of cpio members: the portable form (odc) and the new ones (newc, crc).
//!
//! They have no checksum of their own. A header is known by its magic, by numbers that are nothing
//! but digits, and by a name that ends where its length says: more than hundred bytes that fit.

use memchr::memchr;

use crate::archive::{Form, Member};

/// The name of a member with the zero byte behind it.
const NAME_MAX: u64 = 4096;
/// Bytes of a header before the name, in the new and in the portable form.
const NEW: usize = 110;
const OLD: usize = 76;
/// No header is longer, name and filling included.
pub(crate) const HEADER_MAX: usize = (NEW + NAME_MAX as usize).next_multiple_of(4);

/// newc, crc and odc.
pub(crate) const FORMS: [Form; 3] = [
    Form { magic: b"070701", at: 0, member: new },
    Form { magic: b"070702", at: 0, member: new },
    Form { magic: b"070707", at: 0, member: portable },
];

/// A number of digits only.
fn number(digits: &[u8], radix: u32) -> Option<u64> {
    digits.iter().try_fold(0u64, |sum, digit| {
        let digit = char::from(*digit).to_digit(radix)?;
        Some(sum * u64::from(radix) + u64::from(digit))
    })
}

/// The length of a header with its name, if the name ends where it has to.
fn named(bytes: &[u8], fixed: usize, length: u64) -> Option<usize> {
    if !(2..=NAME_MAX).contains(&length) {
        return None;
    }
    let end = fixed + usize::try_from(length).ok()?;
    (memchr(0, bytes.get(fixed..end)?)? == end - fixed - 1).then_some(end)
}

/// Thirteen numbers of eight hexadecimal digits behind the magic; header and data are filled up
/// to four bytes.
fn new(bytes: &[u8]) -> Option<Member> {
    let fields = bytes.first_chunk::<NEW>()?[6..].chunks_exact(8);
    let mut numbers = [0; 13];
    for (number, field) in numbers.iter_mut().zip(fields) {
        *number = self::number(field, 16)?;
    }
    let end = named(bytes, NEW, numbers[11])?.next_multiple_of(4);
    (bytes.len() >= end).then(|| Member::new(end, numbers[6], 4))
}

/// Octal numbers of six digits, but those of the time and of the size, which have eleven; nothing
/// is filled up.
fn portable(bytes: &[u8]) -> Option<Member> {
    let digits = &bytes.first_chunk::<OLD>()?[6..];
    digits.iter().all(|digit| matches!(digit, b'0'..=b'7')).then_some(())?;
    let header = named(bytes, OLD, number(&bytes[59..65], 8)?)?;
    Some(Member::new(header, number(&bytes[65..OLD], 8)?, 1))
}

/// A header of a file as cpio writes it in the form newc.
#[cfg(test)]
pub(crate) fn header(name: &str, size: u64, time: u64) -> Vec<u8> {
    let numbers = [7, 0o100_644, 0, 0, 1, time & 0xffff_ffff, size, 1, 2, 0, 0];
    let mut out = b"070701".to_vec();
    for number in numbers.into_iter().chain([name.len() as u64 + 1, 0]) {
        out.extend(format!("{number:08X}").bytes());
    }
    out.extend(name.bytes());
    out.resize((out.len() + 1).next_multiple_of(4), 0);
    out
}

/// The same in the form odc.
#[cfg(test)]
pub(crate) fn portable_header(name: &str, size: u64, time: u64) -> Vec<u8> {
    let mut out = b"070707".to_vec();
    for number in [1, 7, 0o100_644, 0, 0, 1, 0] {
        out.extend(format!("{number:06o}").bytes());
    }
    out.extend(format!("{:011o}{:06o}{size:011o}", time & 0x1_ffff_ffff, name.len() + 1).bytes());
    out.extend(name.bytes().chain([0]));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_told_with_their_names_and_data() {
        let bytes = header("name", 12_345, 77);
        assert_eq!(new(&bytes), Some(Member { header: 116, data: 12_345, filled: 12_348 }));
        let bytes = portable_header("name", 12_345, 77);
        assert_eq!(portable(&bytes), Some(Member { header: 81, data: 12_345, filled: 12_345 }));
        let lower = header("name", 0xabc, 77).to_ascii_lowercase();
        assert_eq!(new(&lower).map(|it| it.data), Some(0xabc));
    }

    /// `printf ab > f; echo f | cpio -o -H FORM` of GNU cpio 2.13.
    #[test]
    fn headers_of_the_program_are_known() {
        let newc = b"07070100000001000081A4000000000000000000000001000000010000000200000000\
                     00000001000000000000000000000002000000\x30\x30f\0ab\0\0";
        assert_eq!(newc.len(), 116);
        assert_eq!(new(newc), Some(Member { header: 112, data: 2, filled: 4 }));
    }

    #[test]
    fn what_is_cut_short_or_has_other_bytes_is_none() {
        let forms = [(header("name", 9, 77), NEW), (portable_header("name", 9, 77), OLD)];
        for (good, fixed) in forms {
            let member = if fixed == NEW { new } else { portable };
            let whole = member(&good).unwrap().header;
            for length in 0..whole {
                assert_eq!(member(&good[..length]), None, "{length} bytes");
            }
            for at in 6..fixed {
                let mut bad = good.clone();
                bad[at] = b' ';
                assert_eq!(member(&bad), None, "byte {at}");
            }
            for (at, byte) in [(fixed + 1, 0), (fixed + 4, b'x')] {
                let mut bad = good.clone();
                bad[at] = byte;
                assert_eq!(member(&bad), None, "byte {at} of the name");
            }
        }
    }

    #[test]
    fn names_have_bounds() {
        for (length, good) in [(0, false), (1, true), (4095, true), (4096, false)] {
            let name = "n".repeat(length);
            assert_eq!(new(&header(&name, 1, 1)).is_some(), good, "{length}");
            assert_eq!(portable(&portable_header(&name, 1, 1)).is_some(), good, "{length}");
        }
        assert_eq!(new(&header(&"n".repeat(4095), 1, 1)).unwrap().header, HEADER_MAX);
    }
}
