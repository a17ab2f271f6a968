//! Finding the chunks of a container: by its footer, or where that is missing or damaged by going
//! through the whole file.

use vfs::VfsFile;

use super::format::{
    CHUNK_HEADER, CHUNK_MAGIC, ChunkHeader, FILE_HEADER, FOOTER_ENTRY, Listed, TRAILER, Trailer,
    is_file_header,
};
use crate::{Result, StoreError};

/// No container file is longer than this: the largest container, its index and a torn end.
const LONGEST: u64 = 1 << 30;

/// What a container holds.
pub(super) struct Scanned {
    pub(super) chunks: Vec<Listed>,
    /// It has a good footer: it is complete and nothing is added any more.
    pub(super) sealed: bool,
    /// Bytes that are neither chunk, header nor footer.
    pub(super) lost: u64,
    /// All of them are at the end.
    pub(super) torn: bool,
    /// Of the file.
    pub(super) len: u64,
}

/// Looks at container `id`.
pub(super) fn scan(id: u32, file: &dyn VfsFile) -> Result<Scanned> {
    let len = file.len()?;
    if len > LONGEST {
        let what = "a container is longer than any can be";
        return Err(StoreError::Damaged { path: file.path().to_owned(), what });
    }
    if let Some(chunks) = by_footer(id, file, len)? {
        return Ok(Scanned { chunks, sealed: true, lost: 0, torn: false, len });
    }
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(by_search(id, &bytes))
}

/// What a container's own list says, `None` without a good one.
pub(super) fn by_footer(id: u32, file: &dyn VfsFile, len: u64) -> Result<Option<Vec<Listed>>> {
    let Some(trailer_at) = len.checked_sub(TRAILER as u64) else { return Ok(None) };
    let mut bytes = [0; TRAILER];
    file.read_exact_at(&mut bytes, trailer_at)?;
    let Some(trailer) = Trailer::decode(id, &bytes) else { return Ok(None) };
    let size = u64::from(trailer.count) * FOOTER_ENTRY as u64;
    if u64::from(trailer.at) + size != trailer_at {
        return Ok(None);
    }
    let mut entries = vec![0; size as usize];
    file.read_exact_at(&mut entries, trailer.at.into())?;
    Ok(trailer.chunks(id, &entries))
}

/// Goes through the file header by header. After something bad it looks for the next place where
/// a whole good chunk begins, so that damage costs no more than what it touches.
fn by_search(id: u32, bytes: &[u8]) -> Scanned {
    let (mut chunks, mut lost, mut last_good) = (Vec::new(), 0u64, 0);
    let mut at = 0;
    if bytes.get(..FILE_HEADER).is_some_and(|header| is_file_header(id, header)) {
        (at, last_good) = (FILE_HEADER, FILE_HEADER);
    }
    while at < bytes.len() {
        let (header, stored) = match good_chunk(id, &bytes[at..]) {
            Some(found) => found,
            None => {
                let next = next_magic(bytes, at + 1);
                lost += (next - at) as u64;
                at = next;
                continue;
            }
        };
        chunks.push((header.digest, header.location(id, at as u32, chunks.len() as u32)));
        at += CHUNK_HEADER + stored;
        last_good = at;
    }
    let torn = lost == (bytes.len() - last_good) as u64;
    Scanned { chunks, sealed: false, lost, torn, len: bytes.len() as u64 }
}

/// The chunk at the front of `bytes` and the length of its stored bytes, if both are intact.
fn good_chunk(id: u32, bytes: &[u8]) -> Option<(ChunkHeader, usize)> {
    let header = ChunkHeader::decode(id, bytes)?;
    let stored = bytes.get(CHUNK_HEADER..CHUNK_HEADER + header.stored_len as usize)?;
    (crc32c::crc32c(stored) == header.stored_crc).then_some((header, stored.len()))
}

fn next_magic(bytes: &[u8], from: usize) -> usize {
    let found = bytes[from..].windows(CHUNK_MAGIC.len()).position(|window| window == CHUNK_MAGIC);
    found.map_or(bytes.len(), |offset| from + offset)
}
