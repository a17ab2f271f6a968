//! Small readers and writers of big-endian fields and padded texts.

use crate::Malformed;

/// Takes `width` bytes (up to 8) at a place as a number, zero for what is not there.
pub(crate) fn number(bytes: &[u8], at: usize, width: usize) -> u64 {
    let field = bytes.get(at..).unwrap_or_default();
    (0..width).fold(0, |value, i| value << 8 | u64::from(field.get(i).copied().unwrap_or(0)))
}

pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    number(bytes, at, 2) as u16
}

pub(crate) fn be24(bytes: &[u8], at: usize) -> u32 {
    number(bytes, at, 3) as u32
}

pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    number(bytes, at, 4) as u32
}

pub(crate) fn be64(bytes: &[u8], at: usize) -> u64 {
    number(bytes, at, 8)
}

pub(crate) fn bit(byte: u8, bit: u8) -> bool {
    byte & (1 << bit) != 0
}

/// The first `length` bytes, or which structure they are missing from.
pub(crate) fn need<'a>(
    bytes: &'a [u8],
    length: usize,
    what: &'static str,
) -> Result<&'a [u8], Malformed> {
    bytes.get(..length).ok_or(Malformed { what, needed: length, found: bytes.len() })
}

/// A text cut or blank padded to `width`, anything but printable ASCII as `?`.
pub(crate) fn padded(text: &str, width: usize) -> Vec<u8> {
    let printable = |c: char| if (' '..='~').contains(&c) { c as u8 } else { b'?' };
    let mut bytes: Vec<u8> = text.chars().take(width).map(printable).collect();
    bytes.resize(width, b' ');
    bytes
}

/// A padded field as text: without blanks and zeroes at its ends, unprintable bytes as `?`.
pub(crate) fn text(bytes: &[u8]) -> String {
    let printable = |b: &u8| if (b' '..=b'~').contains(b) || *b == 0 { *b as char } else { '?' };
    let text: String = bytes.iter().map(printable).collect();
    text.trim_matches([' ', '\0']).replace('\0', "?")
}
