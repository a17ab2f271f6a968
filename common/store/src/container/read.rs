//! Reading chunks: one by one in stored form, or many in the order in which a recipe needs them.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use model::Digest;
use vfs::VfsFile;

use super::format::{CHUNK_HEADER, ChunkHeader};
use super::parts::{PART, Reading};
use super::plan::{Read, plan};
use super::{Containers, OPEN_FILES, file_name, locked};
use crate::codec::{OTHER_NAME, names};
use crate::index::Location;
use crate::paged::read_exact;
use crate::{ChunkRef, Result, StoreError, StoredChunk};

/// Chunks that are read, in the order in which they are wanted.
struct Wanted<'a> {
    chunks: &'a [ChunkRef],
    pieces: Vec<Option<Bytes>>,
    /// The first that can not be had, and why.
    failed: Option<(usize, StoreError)>,
}

impl Wanted<'_> {
    fn fail(&mut self, at: usize, error: StoreError) {
        if self.failed.as_ref().is_none_or(|(before, _)| at < *before) {
            self.failed = Some((at, error));
        }
    }

    fn put(&mut self, at: usize, piece: Result<Bytes>) {
        match piece {
            Ok(piece) => self.pieces[at] = Some(piece),
            Err(error) => self.fail(at, error),
        }
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

    pub(super) fn checked(
        &self,
        digest: &Digest,
        location: Location,
        bytes: Bytes,
    ) -> Result<StoredChunk> {
        match check(digest, &location, &bytes) {
            Some(_) => Ok(StoredChunk {
                encoding: location.encoding,
                raw_len: location.raw_len,
                bytes: bytes.slice(CHUNK_HEADER..),
            }),
            None => Err(self.bad_chunk(location, "the checksum does not match")),
        }
    }

    /// The bytes of chunks, in order, verified by their names; up to the first that can not be had.
    /// They are read by where they lie, neighbours together, and what is stored as it is is not
    /// copied: it stays a part of what was read.
    pub(crate) fn read_chunks(
        &self,
        chunks: &[ChunkRef],
        reading: &mut Reading,
        each: impl FnMut(Bytes),
    ) -> Result<()> {
        let mut wanted = Wanted { chunks, pieces: vec![None; chunks.len()], failed: None };
        let mut places = Vec::with_capacity(chunks.len());
        for (i, chunk) in chunks.iter().enumerate() {
            match self.place_of(chunk) {
                Ok(at) => places.push(at),
                Err(error) => {
                    // Those before it can be read.
                    wanted.fail(i, error);
                    break;
                }
            }
        }
        for read in plan(&places, self.gap) {
            self.fetch(&read, &places, &mut wanted, reading);
        }
        wanted.pieces.into_iter().map_while(|piece| piece).for_each(each);
        wanted.failed.map_or(Ok(()), |(_, error)| Err(error))
    }

    pub(crate) fn place_of(&self, chunk: &ChunkRef) -> Result<Location> {
        let found = self.lookup(&chunk.digest)?.filter(|at| at.raw_len == chunk.len);
        found.ok_or(StoreError::MissingChunk(chunk.digest))
    }

    /// Fetches what one read gets, in parts that the processor's cache holds and that are given
    /// back one by one; the system reads ahead of them.
    fn fetch(
        &self,
        read: &Read,
        places: &[Location],
        wanted: &mut Wanted<'_>,
        reading: &mut Reading,
    ) {
        let mut members = &read.members[..];
        while let Some(first) = members.first() {
            let from = places[*first].offset;
            let end = u64::from(from) + PART as u64;
            let inside = members.iter().take_while(|i| places[**i].end() <= end).count();
            let (part, rest) = members.split_at(inside.max(1));
            self.fetch_part(from, part, places, wanted, reading);
            members = rest;
        }
    }

    fn fetch_part(
        &self,
        from: u32,
        members: &[usize],
        places: &[Location],
        wanted: &mut Wanted<'_>,
        reading: &mut Reading,
    ) {
        let first = members.iter().min().copied().unwrap_or(0);
        if wanted.failed.as_ref().is_some_and(|(at, _)| *at <= first) {
            // What comes behind an error is not given.
            return;
        }
        let to = members.iter().map(|i| places[*i].end()).max().unwrap_or(0);
        let mut part = reading.part((to - u64::from(from)) as usize);
        let bytes = match self.read_into(places[first].container, from, part.bytes()) {
            Ok(()) => Bytes::from(part),
            Err(error) if error.is_gone() => {
                // Its container was collected meanwhile, and what is needed of it moved before.
                for i in members {
                    let piece = self.moved(&wanted.chunks[*i], reading);
                    wanted.put(*i, piece);
                }
                return;
            }
            Err(error) => return wanted.fail(first, error),
        };
        let mut whole = Vec::with_capacity(members.len());
        for i in members {
            let (digest, at) = (&wanted.chunks[*i].digest, places[*i]);
            let within = (at.offset - from) as usize;
            let part = &bytes[within..within + at.size() as usize];
            // Its SHA-256 says more than the checksum of its stored bytes.
            let stored = header(digest, &at, part).ok_or("it is not at its place");
            let raw = stored.and_then(|(_, stored)| {
                reading.decompressor.unpack(at.encoding, at.raw_len, stored)
            });
            match raw {
                Ok(raw) => whole.push((*i, raw)),
                Err(what) => wanted.fail(*i, self.bad_chunk(at, what)),
            }
        }
        let names = names(&whole.iter().map(|(_, raw)| &raw[..]).collect::<Vec<_>>());
        for ((i, raw), name) in whole.into_iter().zip(names) {
            match name == wanted.chunks[i].digest {
                true => wanted.pieces[i] = Some(piece(&bytes, raw)),
                false => wanted.fail(i, self.bad_chunk(places[i], OTHER_NAME)),
            }
        }
    }

    /// A chunk that lay elsewhere a moment ago.
    fn moved(&self, chunk: &ChunkRef, reading: &mut Reading) -> Result<Bytes> {
        let stored = self.stored(&chunk.digest)?;
        let StoredChunk { encoding, raw_len, bytes } = stored;
        let raw = reading.decompressor.decode(&chunk.digest, encoding, raw_len, &bytes);
        raw.map(|raw| piece(&bytes, raw)).map_err(|what| self.bad(&chunk.digest, what))
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

    pub(super) fn read_range(&self, container: u32, from: u32, to: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; (to - u64::from(from)) as usize];
        self.read_into(container, from, &mut bytes)?;
        Ok(bytes)
    }

    fn read_into(&self, container: u32, from: u32, bytes: &mut [u8]) -> Result<()> {
        let from = u64::from(from);
        let (file, filed) = match self.active_part(container, from, bytes) {
            Some(part) => part,
            None => (self.file(container)?, bytes.len()),
        };
        read_exact(file.as_ref(), &mut bytes[..filed], from)
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

/// The decoded bytes of a chunk: a part of what was read, where it is stored as it is.
fn piece(read: &Bytes, raw: Cow<'_, [u8]>) -> Bytes {
    match raw {
        Cow::Borrowed(part) => read.slice_ref(part),
        Cow::Owned(raw) => raw.into(),
    }
}

/// The header and the stored bytes, if that is the header of the chunk at this place.
fn header<'a>(
    digest: &Digest,
    location: &Location,
    bytes: &'a [u8],
) -> Option<(ChunkHeader, &'a [u8])> {
    let header = ChunkHeader::decode(location.container, bytes)?;
    let same = header.digest == *digest
        && header.location(location.container, location.offset, location.number) == *location;
    same.then_some((header, bytes.get(CHUNK_HEADER..)?))
}

/// The stored bytes, if header and checksum are those of the chunk at this place.
fn check<'a>(digest: &Digest, location: &Location, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let (header, stored) = header(digest, location, bytes)?;
    (crc32c::crc32c(stored) == header.stored_crc).then_some(stored)
}
