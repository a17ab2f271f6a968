//! The bytes of a container file; `docs/formats/store.md` has the tables.

use model::Digest;

use crate::bytesio::{Fields, Put, open_with_crc, seal_with_crc};
use crate::index::Location;
use crate::{Encoding, MAX_CHUNK};

pub(super) const FILE_HEADER: usize = 32;
pub(super) const CHUNK_HEADER: usize = 56;
pub(super) const FOOTER_ENTRY: usize = 48;
pub(super) const TRAILER: usize = 32;

const FILE_MAGIC: &[u8; 8] = b"TRREELC1";
const FOOTER_MAGIC: &[u8; 8] = b"TRREELF1";
pub(super) const CHUNK_MAGIC: &[u8; 4] = b"TRck";
const VERSION: u32 = 1;

/// A line of a container's index.
pub(super) type Listed = (Digest, Location);

/// What stands before each chunk's stored bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkHeader {
    pub(super) digest: Digest,
    pub(super) encoding: Encoding,
    pub(super) raw_len: u32,
    pub(super) stored_len: u32,
    pub(super) stored_crc: u32,
}

/// The first bytes of container `id`.
pub(super) fn encode_file_header(id: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(FILE_HEADER);
    out.put(FILE_MAGIC);
    out.put_u32(VERSION);
    out.put_u32(id);
    out.resize(FILE_HEADER - 4, 0);
    seal_with_crc(0, &mut out);
    out
}

/// Whether these are the first bytes of container `id`, of a version that is known.
pub(super) fn is_file_header(id: u32, bytes: &[u8]) -> bool {
    let header = || {
        let mut fields = Fields(open_with_crc(0, bytes)?);
        Some((fields.array::<8>()?, fields.u32()?, fields.u32()?))
    };
    header() == Some((*FILE_MAGIC, VERSION, id))
}

impl ChunkHeader {
    pub(super) fn encode(&self, container: u32, out: &mut Vec<u8>) {
        let mut bytes = Vec::with_capacity(CHUNK_HEADER);
        bytes.put(CHUNK_MAGIC);
        bytes.put_u8(self.encoding as u8);
        bytes.put(&[0; 3]);
        bytes.put_u32(self.raw_len);
        bytes.put_u32(self.stored_len);
        bytes.put_u32(self.stored_crc);
        bytes.put(self.digest.as_bytes());
        seal_with_crc(container, &mut bytes);
        out.put(&bytes);
    }

    /// `None` for anything but a header of this container.
    pub(super) fn decode(container: u32, bytes: &[u8]) -> Option<Self> {
        if !bytes.starts_with(CHUNK_MAGIC) {
            return None;
        }
        let mut fields = Fields(open_with_crc(container, bytes.get(..CHUNK_HEADER)?)?);
        fields.take(4)?;
        let encoding = Encoding::from_byte(fields.u8()?)?;
        fields.take(3)?;
        let (raw_len, stored_len, stored_crc) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let digest = Digest(fields.array()?);
        let header = Self { digest, encoding, raw_len, stored_len, stored_crc };
        is_length(raw_len, stored_len).then_some(header)
    }

    /// The place of this chunk, if it begins at `offset` behind `number` others.
    pub(super) fn location(&self, container: u32, offset: u32, number: u32) -> Location {
        let Self { encoding, raw_len, stored_len, .. } = *self;
        Location { container, offset, stored_len, raw_len, encoding, number }
    }
}

fn is_length(raw_len: u32, stored_len: u32) -> bool {
    (1..=MAX_CHUNK as u32).contains(&raw_len) && (1..=raw_len).contains(&stored_len)
}

/// The index at the end of a sealed container whose chunks end at `at`.
pub(super) fn encode_footer(container: u32, at: u32, chunks: &[Listed]) -> Vec<u8> {
    let mut out = Vec::with_capacity(chunks.len() * FOOTER_ENTRY + TRAILER);
    for (digest, location) in chunks {
        out.put(digest.as_bytes());
        out.put_u32(location.offset);
        out.put_u32(location.stored_len);
        out.put_u32(location.raw_len);
        out.put_u8(location.encoding as u8);
        out.put(&[0; 3]);
    }
    let entries_crc = crc32c::crc32c(&out);
    let mut trailer = Vec::with_capacity(TRAILER);
    trailer.put(FOOTER_MAGIC);
    trailer.put_u32(container);
    trailer.put_u32(at);
    trailer.put_u32(chunks.len() as u32);
    trailer.put_u32(entries_crc);
    trailer.put_u32(0);
    seal_with_crc(container, &mut trailer);
    out.put(&trailer);
    out
}

/// Where the footer's entries begin and how many they are, from a file's last bytes.
pub(super) struct Trailer {
    pub(super) at: u32,
    pub(super) count: u32,
    entries_crc: u32,
}

impl Trailer {
    pub(super) fn decode(container: u32, bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(open_with_crc(container, bytes)?);
        let magic = fields.array::<8>()? == *FOOTER_MAGIC;
        let id = fields.u32()?;
        let trailer = Self { at: fields.u32()?, count: fields.u32()?, entries_crc: fields.u32()? };
        (magic && id == container).then_some(trailer)
    }

    /// The chunks that the footer lists, `None` if it is damaged.
    pub(super) fn chunks(&self, container: u32, entries: &[u8]) -> Option<Vec<Listed>> {
        if crc32c::crc32c(entries) != self.entries_crc {
            return None;
        }
        let mut fields = Fields(entries);
        let mut chunks = Vec::with_capacity(self.count as usize);
        while !fields.is_empty() {
            let digest = Digest(fields.array()?);
            let (offset, stored_len, raw_len) = (fields.u32()?, fields.u32()?, fields.u32()?);
            let encoding = Encoding::from_byte(fields.u8()?)?;
            fields.take(3)?;
            if !is_length(raw_len, stored_len) {
                return None;
            }
            let number = chunks.len() as u32;
            let at = Location { container, offset, stored_len, raw_len, encoding, number };
            chunks.push((digest, at));
        }
        Some(chunks)
    }
}
