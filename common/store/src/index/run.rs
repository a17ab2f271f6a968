//! Runs: files of places, in the order of their digests, that never change.
//!
//! Pages of entries, then the *fences* (the first eight bytes of each page's first digest), the
//! filter, and a trailer. Fences and filter are kept in memory: some two bytes a chunk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::Digest;
use vfs::{Vfs, VfsFile};

use super::Location;
use super::filter::Filter;
use crate::bytesio::{Fields, Put, open_with_crc, salted_crc, seal_with_crc};
use crate::paged::{Entry, PAGE, Section, SectionWriter, read_exact};
use crate::{Encoding, Result, StoreError};

const MAGIC: &[u8; 8] = b"TRREELX1";
const TRAILER: usize = 64;

/// A chunk and its place, as they stand in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) digest: [u8; 32],
    pub(super) at: Location,
}

impl Entry for Spot {
    const SIZE: usize = 56;
    const KIND: u8 = 3;

    fn encode(&self, out: &mut Vec<u8>) {
        let Location { container, offset, stored_len, raw_len, encoding, number } = self.at;
        out.put(&self.digest);
        for value in [container, offset, stored_len, raw_len, number] {
            out.put_u32(value);
        }
        out.put_u8(encoding as u8);
        out.put(&[0; 3]);
    }

    fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        let digest = fields.array()?;
        let (container, offset) = (fields.u32()?, fields.u32()?);
        let (stored_len, raw_len, number) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let encoding = Encoding::from_byte(fields.u8()?)?;
        fields.take(3)?;
        let at = Location { container, offset, stored_len, raw_len, encoding, number };
        Some(Self { digest, at })
    }
}

/// What orders digests, but for those that begin alike.
fn key(digest: &[u8; 32]) -> u64 {
    digest.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// The checksums of a run's pages are salted with this.
fn salt(id: u64) -> u32 {
    id as u32
}

pub(super) fn file_name(id: u64) -> String {
    format!("{id:016x}.run")
}

/// A run that is open for looking up.
pub(super) struct Run {
    pub(super) id: u64,
    entries: Section<Spot>,
    fences: Box<[u64]>,
    filter: Filter,
}

impl Run {
    /// Opens run `id` in `dir`.
    pub(super) fn open(vfs: &dyn Vfs, dir: &Path, id: u64) -> Result<Self> {
        let path = dir.join(file_name(id));
        let damaged = |what| StoreError::Damaged { path: path.clone(), what };
        let file: Arc<dyn VfsFile> = vfs.open(&path)?.into();
        let at = file.len()?.checked_sub(TRAILER as u64);
        let at = at.ok_or_else(|| damaged("a run of the index is too short"))?;
        let mut trailer = [0; TRAILER];
        read_exact(file.as_ref(), &mut trailer, at)?;
        let trailer = Trailer::decode(id, &trailer);
        let trailer = trailer.ok_or_else(|| damaged("the end of a run of the index"))?;
        let pages = Section::<Spot>::pages_for(trailer.entries);
        let fences_at = pages * PAGE as u64;
        let filter_at = fences_at + pages * 8;
        if filter_at + trailer.filter_bytes != at {
            return Err(damaged("a run of the index has another length"));
        }
        let read = |from: u64, to: u64, crc: u32| {
            let mut bytes = vec![0; usize::try_from(to - from).unwrap_or(usize::MAX)];
            read_exact(file.as_ref(), &mut bytes, from)?;
            match salted_crc(salt(id), &bytes) == crc {
                true => Ok(bytes),
                false => Err(damaged("the checksum of a filter or of fences does not match")),
            }
        };
        let fences = read(fences_at, filter_at, trailer.fences_crc)?;
        let fences = fences.as_chunks::<8>().0.iter().map(|fence| u64::from_le_bytes(*fence));
        let fences = fences.collect();
        let filter = Filter::decode(&read(filter_at, at, trailer.filter_crc)?);
        let filter = filter.ok_or_else(|| damaged("a filter is not one"))?;
        let entries = Section::new(file, 0, salt(id), trailer.entries);
        Ok(Self { id, entries, fences, filter })
    }

    pub(super) fn len(&self) -> u64 {
        self.entries.len()
    }

    /// Bytes that it takes in memory, but for a few pages.
    pub(super) fn memory(&self) -> u64 {
        self.filter.size() + self.fences.len() as u64 * 8
    }

    /// Where the chunk was when the run was written.
    pub(super) fn find(&self, digest: &Digest) -> Result<Option<Location>> {
        let digest = digest.as_bytes();
        if !self.filter.may_have(digest) {
            return Ok(None);
        }
        let key = key(digest);
        // Digests that begin alike may lie on both sides of a fence.
        let mut page = self.fences.partition_point(|fence| *fence < key).saturating_sub(1);
        while self.fences.get(page).is_some_and(|fence| *fence <= key) {
            let entries = self.entries.page(page as u64)?;
            if let Ok(i) = entries.binary_search_by(|spot| spot.digest.cmp(digest)) {
                return Ok(Some(entries[i].at));
            }
            page += 1;
        }
        Ok(None)
    }

    /// The entries of a page, empty behind the last.
    pub(super) fn page(&self, number: u64) -> Result<Arc<[Spot]>> {
        match number < self.fences.len() as u64 {
            true => self.entries.page(number),
            false => Ok(Arc::new([])),
        }
    }
}

struct Trailer {
    entries: u64,
    filter_bytes: u64,
    fences_crc: u32,
    filter_crc: u32,
}

impl Trailer {
    fn encode(&self, id: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(TRAILER);
        out.put(MAGIC);
        [id, self.entries, self.filter_bytes].into_iter().for_each(|value| out.put_u64(value));
        out.put_u32(self.fences_crc);
        out.put_u32(self.filter_crc);
        out.resize(TRAILER - 4, 0);
        seal_with_crc(salt(id), &mut out);
        out
    }

    fn decode(id: u64, bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(open_with_crc(salt(id), bytes)?);
        let magic = fields.array::<8>()? == *MAGIC && fields.u64()? == id;
        let (entries, filter_bytes) = (fields.u64()?, fields.u64()?);
        let trailer =
            Self { entries, filter_bytes, fences_crc: fields.u32()?, filter_crc: fields.u32()? };
        (magic && entries > 0).then_some(trailer)
    }
}

/// A run that is being written.
pub(super) struct RunWriter {
    id: u64,
    path: PathBuf,
    file: Arc<dyn VfsFile>,
    entries: SectionWriter<Spot>,
    fences: Vec<u64>,
    filter: Filter,
}

impl RunWriter {
    /// Begins run `id` in `dir`, of at most so many entries.
    pub(super) fn create(vfs: &dyn Vfs, dir: &Path, id: u64, most: u64) -> Result<Self> {
        let path = dir.join(file_name(id));
        let file: Arc<dyn VfsFile> = vfs.open_or_create(&path)?.into();
        file.set_len(0)?;
        let entries = SectionWriter::new(file.clone(), 0, salt(id));
        Ok(Self { id, path, file, entries, fences: Vec::new(), filter: Filter::new(most) })
    }

    /// The next entry; they come in the order of their digests, none twice.
    pub(super) fn push(&mut self, spot: Spot) -> Result<()> {
        if self.entries.len().is_multiple_of(Spot::PER_PAGE as u64) {
            self.fences.push(key(&spot.digest));
        }
        self.filter.insert(&spot.digest);
        self.entries.push(spot)
    }

    /// Writes the rest and makes the file durable. `None` if there was no entry: there is no run
    /// then.
    pub(super) fn finish(self, vfs: &dyn Vfs, dir: &Path) -> Result<Option<Run>> {
        let (entries, at) = self.entries.finish()?;
        if entries == 0 {
            vfs.remove(&self.path)?;
            return Ok(None);
        }
        let salt = salt(self.id);
        let mut tail = Vec::new();
        self.fences.iter().for_each(|fence| tail.put_u64(*fence));
        let fences_crc = salted_crc(salt, &tail);
        let from = tail.len();
        self.filter.encode(&mut tail);
        let filter_crc = salted_crc(salt, &tail[from..]);
        let filter_bytes = (tail.len() - from) as u64;
        let trailer = Trailer { entries, filter_bytes, fences_crc, filter_crc };
        tail.extend_from_slice(&trailer.encode(self.id));
        self.file.write_all_at(&tail, at)?;
        self.file.sync_data()?;
        vfs.sync_dir(dir)?;
        let entries = Section::new(self.file, 0, salt, entries);
        Ok(Some(Run { id: self.id, entries, fences: self.fences.into(), filter: self.filter }))
    }
}
