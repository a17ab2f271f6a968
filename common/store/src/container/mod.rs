//! Containers: append-only files of chunks, and the one place that reads and writes them.
//!
//! One container is *active*: chunks are appended to it, through a buffer. When it is full it is
//! *sealed*: an index of it is written behind its chunks, all of it is synced, and it never
//! changes again. Containers that were active when the process ended are sealed at the next open.
//!
//! Durability is counted in [`Mark`]s: the total of bytes appended in this run. What was appended
//! before a mark is durable once [`Containers::sync`] of that mark has returned. Several writers
//! share one sync.

mod format;
mod gather;
mod mend;
mod parts;
mod plan;
mod read;
mod scan;
mod sweep;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::Digest;
use vfs::{Vfs, VfsFile};

use crate::index::{FIRST_EPOCH, Found, Index, Location};
use crate::{Damage, Encoding, Options, Result, Statistics, StoreError};
use format::{CHUNK_HEADER, ChunkHeader, Listed};
pub(crate) use gather::Moment;
pub(crate) use parts::{Parts, Reading};
pub(crate) use plan::plan;

/// Appended bytes are handed to the file system in pieces of about this size.
const WRITE_SIZE: usize = 1 << 20;
/// So much of it is brought to disk at once, without waiting for it: whoever syncs finds little to
/// do, and the disk is not idle while chunks are made.
const WRITE_BACK: u64 = 4 << 20;
const PAGE: u64 = 4096;
/// Container files held open for reading.
const OPEN_FILES: usize = 64;

/// How much was appended in this run, in bytes; 0 is always durable.
pub(crate) type Mark = u64;

/// What [`Containers::append`] did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appended {
    /// The chunk was not here before.
    pub(crate) new: bool,
    /// When this is synced, the chunk is durable.
    pub(crate) mark: Mark,
}

/// The container that grows.
#[derive(Default)]
struct Active {
    file: Option<Arc<dyn VfsFile>>,
    id: u32,
    /// Bytes handed to the file.
    written: u64,
    /// As far as the system was told to bring them to disk.
    told: u64,
    /// What follows them. Writing it again after an error is harmless: it has its place.
    buffer: Vec<u8>,
    chunks: Vec<Listed>,
    mark: Mark,
}

pub(crate) struct Containers {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    limit: u64,
    /// See [`plan`].
    gap: u64,
    index: Index,
    active: Mutex<Active>,
    /// The id of the active container; those below are sealed and durable.
    active_id: AtomicU32,
    /// A copy of the active container's mark, to be read without its lock.
    appended: AtomicU64,
    synced: AtomicU64,
    /// Whoever holds it syncs for all who wait.
    syncing: Mutex<()>,
    poisoned: AtomicBool,
    poison: Mutex<String>,
    files: Mutex<VecDeque<(u32, Arc<dyn VfsFile>)>>,
    /// Whoever makes the index anew has it.
    mending: Mutex<()>,
    /// Begins anew with every collection; what is relied on is stamped with it.
    epoch: AtomicU32,
    /// Who builds on chunks that no recipe names yet: in which epoch they began, and how many.
    holds: Mutex<BTreeMap<u32, u32>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn file_name(id: u32) -> String {
    format!("{id:08x}.container")
}

fn id_of(name: &str) -> Option<u32> {
    let id = u32::from_str_radix(name.strip_suffix(".container")?, 16).ok()?;
    (name == file_name(id)).then_some(id)
}

impl Containers {
    /// Opens the containers in `dir`, seals those that are not, and fills the index.
    pub(crate) fn open(
        vfs: Arc<dyn Vfs>,
        (dir, index): (PathBuf, PathBuf),
        options: &Options,
        damage: &mut Vec<Damage>,
    ) -> Result<Self> {
        vfs.create_dir_all(&dir)?;
        let mut ids = Vec::new();
        for name in vfs.list(&dir)? {
            match id_of(&name) {
                Some(id) => ids.push(id),
                None => damage.push(Damage::Stranger { path: dir.join(&name) }),
            }
        }
        let index = Index::open(vfs.clone(), index, options.recent_chunks, &ids, damage)?;
        let mut next = 1;
        for (i, id) in ids.iter().enumerate() {
            let last = i + 1 == ids.len();
            next = id.saturating_add(1);
            if index.covers(*id) && !index.is_flawed(*id) {
                continue;
            }
            let path = dir.join(file_name(*id));
            let (chunks, whole) = recover(vfs.as_ref(), &path, *id, last, damage)?;
            if index.covers(*id) {
                // It was looked at for the sake of the report.
                continue;
            }
            index.recover(*id, &chunks, !whole)?;
            match last {
                // It is begun anew if there is nothing in it.
                true if chunks.is_empty() => next = *id,
                true => {}
                false => index.sealed(next, chunks.len() as u64)?,
            }
        }
        // What a container was called that is no more stands in runs still.
        next = next.max(index.through());
        Ok(Self {
            vfs,
            dir,
            limit: options.container_bytes.into(),
            gap: options.chunk.gap(),
            index,
            active: Mutex::new(Active { id: next, ..Active::default() }),
            active_id: AtomicU32::new(next),
            appended: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            syncing: Mutex::new(()),
            poisoned: AtomicBool::new(false),
            poison: Mutex::new(String::new()),
            files: Mutex::new(VecDeque::new()),
            mending: Mutex::new(()),
            epoch: AtomicU32::new(FIRST_EPOCH),
            holds: Mutex::default(),
        })
    }

    /// Where a chunk lies.
    pub(crate) fn lookup(&self, digest: &Digest) -> Result<Option<Location>> {
        self.find(digest, None)
    }

    /// Where the index is damaged it is made anew first.
    fn find(&self, digest: &Digest, epoch: Option<u32>) -> Result<Option<Location>> {
        let found = match self.index.find(digest, epoch) {
            Err(error) if error.is_damage() => {
                self.mend(&|| false)?;
                self.index.find(digest, epoch)?
            }
            found => found?,
        };
        Ok(found.map(|found| self.brought(found)))
    }

    /// The place that was found; those of its neighbours are brought if they are wanted.
    fn brought(&self, found: Found) -> Location {
        if found.wanted {
            let id = found.at.container;
            let file = self.vfs.open(&self.dir.join(file_name(id)));
            // It is a help only; what is wrong with the file is found by whoever reads it.
            if let Ok(Some(list)) = file.map_err(StoreError::from).and_then(|file| {
                let len = file.len()?;
                scan::by_footer(id, file.as_ref(), len)
            }) {
                self.index.bring(id, &list);
            }
        }
        found.at
    }

    /// The length of a chunk and the mark at which it is durable, `None` if it is not here. Whoever
    /// asks relies on it: it stays as long as the asker's hold.
    pub(crate) fn have(&self, digest: &Digest) -> Result<Option<(u32, Mark)>> {
        let epoch = self.epoch.load(Ordering::Acquire);
        Ok(self.find(digest, Some(epoch))?.map(|at| self.marked(at)))
    }

    /// The same for somebody who has the chunk and can store it: where the index is damaged it is
    /// not known, and nobody waits until the index is mended.
    pub(crate) fn known(&self, digest: &Digest) -> Result<Option<(u32, Mark)>> {
        let epoch = self.epoch.load(Ordering::Acquire);
        match self.index.find(digest, Some(epoch)) {
            Err(error) if error.is_damage() => Ok(None),
            found => Ok(found?.map(|found| self.marked(self.brought(found)))),
        }
    }

    fn marked(&self, location: Location) -> (u32, Mark) {
        // The mark is read first: if the container is sealed in between, it is only too high.
        let appended = self.appended.load(Ordering::Acquire);
        let active = location.container >= self.active_id.load(Ordering::Acquire);
        (location.raw_len, if active { appended } else { 0 })
    }

    /// Appends a chunk in its stored form, unless it is here. On an error nothing was appended.
    pub(crate) fn append(
        &self,
        digest: &Digest,
        encoding: Encoding,
        raw_len: u32,
        stored: &[u8],
    ) -> Result<Appended> {
        self.check_poison()?;
        let mut active = locked(&self.active);
        if let Some((_, mark)) = self.known(digest)? {
            return Ok(Appended { new: false, mark });
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        let location = self.put(&mut active, digest, (encoding, raw_len), stored)?;
        self.index.insert(digest, location, epoch);
        Ok(Appended { new: true, mark: active.mark })
    }

    /// Puts a chunk into the active container. On an error nothing was.
    fn put(
        &self,
        active: &mut Active,
        digest: &Digest,
        (encoding, raw_len): (Encoding, u32),
        stored: &[u8],
    ) -> Result<Location> {
        let size = (CHUNK_HEADER + stored.len()) as u64;
        let end = active.written + active.buffer.len() as u64;
        if !active.chunks.is_empty() && end + size > self.limit {
            self.seal(active)?;
        }
        if active.file.is_none() {
            self.begin(active)?;
        }
        if active.buffer.len() >= WRITE_SIZE {
            active.write_out()?;
        }
        let stored_crc = crc32c::crc32c(stored);
        let stored_len = stored.len() as u32;
        let header = ChunkHeader { digest: *digest, encoding, raw_len, stored_len, stored_crc };
        let offset = (active.written + active.buffer.len() as u64) as u32;
        let location = header.location(active.id, offset, active.chunks.len() as u32);
        let id = active.id;
        header.encode(id, &mut active.buffer);
        active.buffer.extend_from_slice(stored);
        active.chunks.push((*digest, location));
        active.mark += size;
        self.appended.store(active.mark, Ordering::Release);
        Ok(location)
    }

    /// Makes everything up to `mark` durable, together with whoever else asks for it now.
    pub(crate) fn sync(&self, mark: Mark) -> Result<()> {
        if self.synced.load(Ordering::Acquire) >= mark {
            return Ok(());
        }
        let _turn = locked(&self.syncing);
        if self.synced.load(Ordering::Acquire) >= mark {
            return Ok(());
        }
        self.check_poison()?;
        let mut active = locked(&self.active);
        active.write_out()?;
        let (file, reached) = (active.file.clone(), active.mark);
        drop(active);
        if let Some(file) = file {
            file.sync_data().map_err(|error| self.poison(error))?;
        }
        self.synced.fetch_max(reached, Ordering::AcqRel);
        Ok(())
    }

    /// Everything appended so far.
    pub(crate) fn mark(&self) -> Mark {
        self.appended.load(Ordering::Acquire)
    }

    fn begin(&self, active: &mut Active) -> Result<()> {
        let path = self.dir.join(file_name(active.id));
        // A file of that name is what an earlier attempt left: no chunk is in it.
        let file = self.vfs.open_or_create(&path)?;
        file.set_len(0)?;
        self.vfs.sync_dir(&self.dir).map_err(|error| self.poison(error))?;
        active.file = Some(file.into());
        (active.written, active.told) = (0, 0);
        active.buffer = format::encode_file_header(active.id);
        Ok(())
    }

    /// Writes the active container's index and syncs it; the next append begins another one.
    fn seal(&self, active: &mut Active) -> Result<()> {
        active.write_out()?;
        if let Some(file) = &active.file {
            // A footer vouches for the chunks before it, so they are durable first.
            file.sync_data().map_err(|error| self.poison(error))?;
            let footer = format::encode_footer(active.id, active.written as u32, &active.chunks);
            file.write_all_at(&footer, active.written)?;
            file.sync_data().map_err(|error| self.poison(error))?;
        }
        self.synced.fetch_max(active.mark, Ordering::AcqRel);
        let (id, mark, chunks) = (active.id + 1, active.mark, active.chunks.len() as u64);
        *active = Active { id, mark, ..Active::default() };
        self.active_id.store(id, Ordering::Release);
        self.index.sealed(id, chunks)
    }

    /// Remembers that a sync failed: what is on disk is not known any more.
    fn poison(&self, error: vfs::VfsError) -> StoreError {
        *locked(&self.poison) = error.to_string();
        self.poisoned.store(true, Ordering::Release);
        error.into()
    }

    /// Passes an error on; if it is that of a sync or of a rename, nobody knows what is on disk
    /// and nothing more is written.
    pub(crate) fn poisoned_by(&self, error: StoreError) -> StoreError {
        use vfs::VfsOp::{Rename, Sync, SyncDir};
        match error {
            StoreError::Vfs(error) if matches!(error.op, Sync | SyncDir | Rename) => {
                self.poison(error)
            }
            other => other,
        }
    }

    /// An error once a sync has failed.
    pub(crate) fn check_poison(&self) -> Result<()> {
        match self.poisoned.load(Ordering::Acquire) {
            true => Err(StoreError::Poisoned(locked(&self.poison).clone())),
            false => Ok(()),
        }
    }

    pub(crate) fn statistics(&self) -> Statistics {
        let (chunks, raw_bytes, stored_bytes) = self.index.totals();
        let containers = self.vfs.list(&self.dir).map_or(0, |names| names.len() as u64);
        Statistics {
            chunks,
            raw_bytes,
            stored_bytes,
            containers,
            index_memory: self.index.memory(),
        }
    }
}

impl Active {
    fn write_out(&mut self) -> Result<()> {
        if let Some(file) = self.file.as_ref().filter(|_| !self.buffer.is_empty()) {
            file.write_all_at(&self.buffer, self.written)?;
            self.written += self.buffer.len() as u64;
            self.buffer.clear();
            // What is filled on would be written twice: the last page is left alone.
            let whole = self.written - self.written % PAGE;
            if whole - self.told >= WRITE_BACK {
                file.write_back(self.told..whole);
                self.told = whole;
            }
        }
        Ok(())
    }
}

/// The chunks of a container that was found, and whether it is as it was made. Seals the last one,
/// which was active when the process ended; any other was sealed once and is damaged if it is not:
/// it is left as it is.
fn recover(
    vfs: &dyn Vfs,
    path: &Path,
    id: u32,
    last: bool,
    damage: &mut Vec<Damage>,
) -> Result<(Vec<Listed>, bool)> {
    let file = vfs.open(path)?;
    let mut report = |bytes, torn| {
        damage.push(Damage::Container { path: path.to_owned(), bytes, torn: torn && last });
    };
    let scanned = match scan::scan(id, file.as_ref()) {
        Err(StoreError::Damaged { .. }) => {
            report(file.len()?, false);
            return Ok((Vec::new(), false));
        }
        other => other?,
    };
    if scanned.sealed {
        return Ok((scanned.chunks, true));
    }
    if scanned.lost > 0 || !last {
        report(scanned.lost, scanned.torn);
    }
    if last && !scanned.chunks.is_empty() {
        // Nothing is overwritten: the index goes behind what was found. Should there be no room
        // for it the container is searched again the next time; its chunks must be durable
        // now, and before an index vouches for them.
        file.sync_data()?;
        let footer = format::encode_footer(id, scanned.len as u32, &scanned.chunks);
        match file.write_all_at(&footer, scanned.len) {
            Err(error) if error.is_full() => return Ok((scanned.chunks, false)),
            Err(error) => return Err(error.into()),
            Ok(()) => file.sync_data()?,
        }
    }
    Ok((scanned.chunks, last))
}

/// A container of one chunk, of fixed content.
#[cfg(test)]
pub(crate) fn golden() -> Vec<u8> {
    let digest = Digest([3; 32]);
    let stored_crc = crc32c::crc32c(b"stored");
    let (encoding, raw_len, stored_len) = (Encoding::Zstd, 100, 6);
    let header = ChunkHeader { digest, encoding, raw_len, stored_len, stored_crc };
    let mut out = format::encode_file_header(5);
    let at = out.len() as u32;
    header.encode(5, &mut out);
    out.extend_from_slice(b"stored");
    let footer = format::encode_footer(5, out.len() as u32, &[(digest, header.location(5, at, 0))]);
    out.extend(footer);
    out
}
