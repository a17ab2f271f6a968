//! Reading and writing of fixed-width little-endian fields.

use model::GenerationId;

/// Takes fields off the front of a slice; `None` when it is too short.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Appends fields.
pub(crate) trait Put {
    fn put(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    fn put_u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// crc32c of `bytes`, begun with a salt, so that bytes that strayed from another file (or another
/// place) do not pass.
pub(crate) fn salted_crc(salt: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(salt, bytes)
}

/// Appends the salted checksum of everything in `bytes`.
pub(crate) fn seal_with_crc(salt: u32, bytes: &mut Vec<u8>) {
    let crc = salted_crc(salt, bytes);
    bytes.put_u32(crc);
}

/// The content of `bytes` before a trailing salted checksum, `None` if that does not match.
pub(crate) fn open_with_crc(salt: u32, bytes: &[u8]) -> Option<&[u8]> {
    let (content, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    (salted_crc(salt, content).to_le_bytes() == crc).then_some(content)
}

/// An id, or none, in 16 bytes.
pub(crate) fn optional_id(id: Option<GenerationId>) -> [u8; 16] {
    id.map_or([0; 16], GenerationId::to_bytes)
}

/// The id in 16 bytes, `None` if all are zero.
pub(crate) fn read_optional_id(bytes: [u8; 16]) -> Option<GenerationId> {
    GenerationId::from_slice(&bytes).filter(|_| bytes != [0; 16])
}
