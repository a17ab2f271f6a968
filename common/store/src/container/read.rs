//! Reading chunks: one by one in stored form, or many in the order in which a recipe needs them.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use model::Digest;
use vfs::VfsFile;

use super::format::{CHUNK_HEADER, ChunkHeader};
use super::{Containers, OPEN_FILES, file_name, locked};
use crate::codec::Decompressor;
use crate::index::Location;
use crate::paged::read_exact;
use crate::{ChunkRef, Result, StoreError, StoredChunk};

/// Chunks that lie at most this far apart are read in one go.
const GAP: u64 = 64 << 10;
/// At most so much is read in one go.
const READ_SIZE: u64 = 4 << 20;

impl Location {
    fn end(&self) -> u64 {
        u64::from(self.offset) + CHUNK_HEADER as u64 + u64::from(self.stored_len)
    }
}

impl Containers {
    /// A chunk as it is stored, its checksum verified.
    pub(crate) fn stored(&self, digest: &Digest) -> Result<StoredChunk> {
        let find = || self.lookup(digest)?.ok_or(StoreError::MissingChunk(*digest));
        let mut location = find()?;
        let bytes = loop {
            match self.read_range(location.container, location.offset, location.end()) {
                // Its container was collected meanwhile, and what is needed of it moved before.
                Err(error) if error.is_gone() => match find()? {
                    now if now != location => location = now,
                    _ => return Err(error),
                },
                read => break Bytes::from(read?),
            }
        };
        self.checked(digest, location, bytes)
    }

    /// The same, of a chunk that lies at this place.
    pub(super) fn stored_at(&self, digest: &Digest, location: Location) -> Result<StoredChunk> {
        let bytes = self.read_range(location.container, location.offset, location.end())?;
        self.checked(digest, location, bytes.into())
    }

    fn checked(&self, digest: &Digest, location: Location, bytes: Bytes) -> Result<StoredChunk> {
        match check(digest, &location, &bytes) {
            Some(_) => Ok(StoredChunk {
                encoding: location.encoding,
                raw_len: location.raw_len,
                bytes: bytes.slice(CHUNK_HEADER..),
            }),
            None => Err(self.bad_chunk(location, "the checksum does not match")),
        }
    }

    /// The bytes of chunks, in order, verified by their names. Neighbours are read together, and
    /// what is stored as it is is not copied: it stays a part of what was read.
    pub(crate) fn read_chunks(
        &self,
        chunks: &[ChunkRef],
        decompressor: &mut Decompressor,
        each: impl FnMut(Bytes),
    ) -> Result<()> {
        self.read_on(chunks, decompressor, &mut { each })
    }

    fn read_on(
        &self,
        chunks: &[ChunkRef],
        decompressor: &mut Decompressor,
        each: &mut dyn FnMut(Bytes),
    ) -> Result<()> {
        let find = |chunk: &ChunkRef| -> Result<Option<Location>> {
            Ok(self.lookup(&chunk.digest)?.filter(|at| at.raw_len == chunk.len))
        };
        // Those before one that is missing can be read.
        let places = chunks.iter().map_while(|chunk| find(chunk).transpose());
        let places = places.collect::<Result<Vec<_>>>()?;
        let mut first = 0;
        while first < places.len() {
            let group = together(&places[first..]);
            let base = u64::from(places[first].offset);
            let end = places[first + group - 1].end();
            let read = self.read_range(places[first].container, base as u32, end);
            let bytes = match read {
                // Its container was collected meanwhile, and what is needed of it moved before.
                Err(error) if error.is_gone() && find(&chunks[first])? != Some(places[first]) => {
                    return self.read_on(&chunks[first..], decompressor, each);
                }
                read => Bytes::from(read?),
            };
            for i in first..first + group {
                let (digest, location) = (&chunks[i].digest, places[i]);
                let from = (u64::from(location.offset) - base) as usize;
                let to = (location.end() - base) as usize;
                let stored =
                    check(digest, &location, &bytes[from..to]).ok_or("the checksum does not match");
                let raw = stored.and_then(|stored| {
                    decompressor.decode(digest, location.encoding, location.raw_len, stored)
                });
                each(match raw.map_err(|what| self.bad_chunk(location, what))? {
                    Cow::Borrowed(part) => bytes.slice_ref(part),
                    Cow::Owned(raw) => raw.into(),
                });
            }
            first += group;
        }
        match chunks.get(places.len()) {
            Some(missing) => Err(StoreError::MissingChunk(missing.digest)),
            None => Ok(()),
        }
    }

    /// The chunk turned out to be damaged, wherever it lies.
    pub(crate) fn bad(&self, digest: &Digest, what: &'static str) -> StoreError {
        match self.lookup(digest) {
            Ok(Some(location)) => self.bad_chunk(location, what),
            Ok(None) => StoreError::MissingChunk(*digest),
            Err(error) => error,
        }
    }

    /// A chunk that can not be read is forgotten, so that whoever brings it again heals it.
    fn bad_chunk(&self, location: Location, what: &'static str) -> StoreError {
        self.index.forget(&location);
        StoreError::Damaged { path: self.dir.join(file_name(location.container)), what }
    }

    fn read_range(&self, container: u32, from: u32, to: u64) -> Result<Vec<u8>> {
        let from = u64::from(from);
        let mut bytes = vec![0; (to - from) as usize];
        let (file, filed) = match self.active_part(container, from, &mut bytes) {
            Some(part) => part,
            None => (self.file(container)?, bytes.len()),
        };
        read_exact(file.as_ref(), &mut bytes[..filed], from)?;
        Ok(bytes)
    }

    /// Of the active container: fills in what is still in the buffer, and says how many bytes
    /// before that are in the file.
    fn active_part(
        &self,
        container: u32,
        from: u64,
        bytes: &mut [u8],
    ) -> Option<(Arc<dyn VfsFile>, usize)> {
        let active = locked(&self.active);
        let file = active.file.as_ref().filter(|_| container == active.id)?;
        let filed = active.written.saturating_sub(from).min(bytes.len() as u64) as usize;
        let rest = &mut bytes[filed..];
        if !rest.is_empty() {
            let start = (from + filed as u64 - active.written) as usize;
            rest.copy_from_slice(active.buffer.get(start..start + rest.len())?);
        }
        Some((file.clone(), filed))
    }

    fn file(&self, container: u32) -> Result<Arc<dyn VfsFile>> {
        let mut files = locked(&self.files);
        if let Some((_, file)) = files.iter().find(|(id, _)| *id == container) {
            return Ok(file.clone());
        }
        let file: Arc<dyn VfsFile> = self.vfs.open(&self.dir.join(file_name(container)))?.into();
        if files.len() == OPEN_FILES {
            files.pop_front();
        }
        files.push_back((container, file.clone()));
        Ok(file)
    }
}

/// The stored bytes, if header and checksum are those of the chunk at this place.
fn check<'a>(digest: &Digest, location: &Location, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let header = ChunkHeader::decode(location.container, bytes)?;
    let stored = bytes.get(CHUNK_HEADER..)?;
    let same = header.digest == *digest
        && header.location(location.container, location.offset, location.number) == *location;
    (same && crc32c::crc32c(stored) == header.stored_crc).then_some(stored)
}

/// How many of the places lie so that one read gets them: at least one.
fn together(places: &[Location]) -> usize {
    let first = &places[0];
    let mut end = first.end();
    let follows = |next: &&Location| {
        let near = next.container == first.container
            && u64::from(next.offset) >= end
            && u64::from(next.offset) - end <= GAP
            && next.end() - u64::from(first.offset) <= READ_SIZE;
        end = next.end();
        near
    };
    1 + places[1..].iter().take_while(follows).count()
}
