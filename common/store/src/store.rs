//! The store: what it consists of, who uses which generation, and how it is opened.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use model::{CartridgeId, Digest, GenerationId};
use vfs::{DirLock, Vfs};

use crate::codec::{Compressor, Decompressor};
use crate::container::{Containers, Reading};
use crate::follow::Live;
use crate::journal;
use crate::kin::Sketches;
use crate::lock::Locks;
use crate::paged::Scratch;
use crate::recipe::{self, Recipe};
use crate::spares::Spares;
use crate::vault::{Key, SealedVfs};
use crate::{
    ChunkParams, ChunkRef, Compare, Damage, Encoding, GenerationInfo, GenerationReader, Image,
    Import, OpenReport, Options, Recipes, Result, Statistics, StoreError, StoredChunk, recover,
};

/// A sealed generation and how many pins it has.
struct Sealed {
    info: GenerationInfo,
    pins: u32,
}

/// Who has what.
#[derive(Default)]
pub(crate) struct Catalogue {
    sealed: BTreeMap<GenerationId, Sealed>,
    /// Open generations that have acknowledged writes, by cartridge.
    open: HashMap<CartridgeId, GenerationId>,
    /// Cartridges with an image open.
    images: HashSet<CartridgeId>,
    /// Generations whose recipes or journals were found unusable.
    damaged: HashSet<GenerationId>,
}

/// What all handles of one open store share.
pub(crate) struct Inner {
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    pub(crate) containers: Containers,
    pub(crate) scratch: Scratch,
    catalogue: Mutex<Catalogue>,
    attempts: AtomicU64,
    /// Decompressors for chunks that are put, one for each thread that does it at once.
    spare: Spares<Decompressor>,
    /// One collection at a time.
    collecting: Mutex<()>,
    /// Held for reading by whoever opens an image.
    opening: RwLock<()>,
    /// The same for chunks that are put and not compressed yet.
    packers: Spares<Compressor>,
    /// And for chunks that are read out of any order.
    readers: Spares<Reading>,
    pub(crate) sketches: Sketches,
    pub(crate) live: Arc<Live>,
    pub(crate) locks: Locks,
    _lock: DirLock,
}

impl Inner {
    fn catalogue(&self) -> MutexGuard<'_, Catalogue> {
        self.catalogue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Work with one of the spare compressors.
    pub(crate) fn pack<T>(&self, work: impl FnOnce(&mut Compressor) -> T) -> T {
        self.packers.with(|| Compressor::new(self.options.zstd_level), work)
    }

    /// The chunk that `stored` is, with one of the spare decompressors.
    fn decode<'a>(
        &self,
        digest: &Digest,
        encoding: Encoding,
        raw_len: u32,
        stored: &'a [u8],
    ) -> Result<Cow<'a, [u8]>, &'static str> {
        self.spare.with(Decompressor::new, |it| it.decode(digest, encoding, raw_len, stored))
    }

    pub(crate) fn collecting(&self) -> MutexGuard<'_, ()> {
        self.collecting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever opens an image has it until the image relies on what it needs.
    pub(crate) fn opening(&self) -> RwLockReadGuard<'_, ()> {
        self.opening.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for all who are opening an image now.
    pub(crate) fn wait_for_openers(&self) {
        drop(self.opening.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// The sealed generations.
    pub(crate) fn sealed(&self) -> Vec<GenerationId> {
        self.catalogue().sealed.keys().copied().collect()
    }

    /// Recipe files that were found damaged at start and are there still.
    pub(crate) fn damaged_recipes(&self) -> Result<Vec<PathBuf>> {
        let damaged: Vec<_> = self.catalogue().damaged.iter().copied().collect();
        let paths = damaged.into_iter().map(|id| self.recipes().join(recipe::file_name(id)));
        paths
            .filter_map(|path| self.vfs.exists(&path).map(|is| is.then_some(path)).transpose())
            .map(|path| Ok(path?))
            .collect()
    }

    /// Every journal, by the generation in its name.
    pub(crate) fn journals(&self) -> Result<Vec<(GenerationId, PathBuf)>> {
        let dir = self.dir.join(recover::JOURNALS);
        let names = self.vfs.list(&dir)?;
        let id = |name: &str| name.strip_suffix(".journal")?.parse().ok();
        Ok(names.iter().filter_map(|name| Some((id(name)?, dir.join(name)))).collect())
    }

    /// Makes it durable which recipes and journals there are.
    pub(crate) fn sync_lists(&self) -> Result<()> {
        for dir in [self.recipes(), self.dir.join(recover::JOURNALS)] {
            self.vfs.sync_dir(&dir).map_err(|error| self.containers.poisoned_by(error.into()))?;
        }
        Ok(())
    }

    /// Whether nobody has the generation in hand: no image, and it is not sealed.
    pub(crate) fn is_idle(&self, id: GenerationId) -> bool {
        let catalogue = self.catalogue();
        let open = catalogue.open.iter().find(|(_, open)| **open == id);
        match open {
            Some((cartridge, _)) => !catalogue.images.contains(cartridge),
            // Begun and never flushed belongs to an image; so does what is being sealed. What is
            // left was found damaged at start.
            None => !catalogue.sealed.contains_key(&id) && catalogue.damaged.contains(&id),
        }
    }

    pub(crate) fn recipes(&self) -> PathBuf {
        self.dir.join(recover::RECIPES)
    }

    pub(crate) fn journal_path(&self, id: GenerationId) -> PathBuf {
        self.dir.join(recover::JOURNALS).join(recover::journal_name(id))
    }

    pub(crate) fn params(&self) -> ChunkParams {
        self.options.chunk
    }

    /// Opens a recipe, pinned as long as the result lives.
    pub(crate) fn recipe(self: &Arc<Self>, id: GenerationId) -> Result<(Recipe, Pin)> {
        let pin = self.pin(id)?;
        Ok((Recipe::open(self.vfs.as_ref(), &self.recipes(), id)?, pin))
    }

    pub(crate) fn pin(self: &Arc<Self>, id: GenerationId) -> Result<Pin> {
        let mut catalogue = self.catalogue();
        let sealed = catalogue.sealed.get_mut(&id).ok_or(StoreError::NoGeneration(id))?;
        sealed.pins += 1;
        Ok(Pin { inner: self.clone(), id })
    }

    pub(crate) fn latest(&self, cartridge: CartridgeId) -> Option<GenerationInfo> {
        let catalogue = self.catalogue();
        let mut newest_first = catalogue.sealed.values().rev().map(|sealed| sealed.info);
        newest_first.find(|info| info.cartridge == cartridge)
    }

    pub(crate) fn generation(&self, id: GenerationId) -> Option<GenerationInfo> {
        self.catalogue().sealed.get(&id).map(|sealed| sealed.info)
    }

    /// Writes a recipe and lists it. Equal to doing it once if it is done twice.
    pub(crate) fn commit(
        &self,
        info: &GenerationInfo,
        layout: &crate::layout::Layout,
    ) -> Result<()> {
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed);
        // Were it unknown whether the recipe is there, going on with its journal could lose what
        // is acknowledged later: where both are found, the recipe counts.
        recipe::write(self.vfs.as_ref(), &self.recipes(), attempt, info, layout)
            .map_err(|error| self.containers.poisoned_by(error))?;
        let new = || Sealed { info: *info, pins: 0 };
        self.catalogue().sealed.entry(info.id).or_insert_with(new);
        Ok(())
    }

    /// Takes the cartridge for one image; says which open generation it has.
    pub(crate) fn take_image(&self, cartridge: CartridgeId) -> Result<Option<GenerationId>> {
        let mut catalogue = self.catalogue();
        match catalogue.images.insert(cartridge) {
            true => Ok(catalogue.open.get(&cartridge).copied()),
            false => Err(StoreError::InUse(cartridge)),
        }
    }

    pub(crate) fn return_image(&self, cartridge: CartridgeId) {
        self.catalogue().images.remove(&cartridge);
    }

    /// Remembers that the cartridge has an open generation, or none.
    pub(crate) fn set_open(&self, cartridge: CartridgeId, id: Option<GenerationId>) {
        let mut catalogue = self.catalogue();
        match id {
            Some(id) => catalogue.open.insert(cartridge, id),
            None => catalogue.open.remove(&cartridge),
        };
    }
}

fn lock(vfs: &dyn Vfs, dir: &Path) -> Result<DirLock> {
    vfs.lock_exclusive(dir).map_err(|error| match error.is_locked() {
        true => StoreError::Locked(dir.to_owned()),
        false => error.into(),
    })
}

fn unusable(damage: &Damage) -> Option<GenerationId> {
    match damage {
        Damage::Journal { generation, usable: false, .. } | Damage::Recipe { generation, .. } => {
            Some(*generation)
        }
        _ => None,
    }
}

/// A deduplicating store. Clones are handles of the same store, for any number of threads; the
/// directory stays locked until the last handle, image, reader and pin is dropped.
#[derive(Clone)]
pub struct Store(pub(crate) Arc<Inner>);

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("dir", &self.0.dir).finish()
    }
}

impl Store {
    /// Opens the store in `dir`, or makes one in a directory that is empty or not there. Takes
    /// the directory for itself, recovers what a crash left, and reports what it found.
    ///
    /// Fails if the directory is in use, holds something else, or can not be read or written; not
    /// because something in the store is damaged.
    pub fn open(vfs: Arc<dyn Vfs>, dir: &Path, options: &Options) -> Result<(Self, OpenReport)> {
        Self::open_with_key(vfs, dir, options, None)
    }

    /// Like [`Store::open`], for a store that is encrypted: one that is made is encrypted if there
    /// is a key, and one that is there is opened with the key that it has.
    ///
    /// # Errors
    /// [`StoreError::Key`] if this is not the key, or the store has none; nothing was touched.
    pub fn open_with_key(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        options: &Options,
        key: Option<&Key>,
    ) -> Result<(Self, OpenReport)> {
        options.check()?;
        vfs.create_dir_all(dir)?;
        let lock = lock(vfs.as_ref(), dir)?;
        let (options, secret) = recover::store_header(vfs.as_ref(), dir, options, key)?;
        let vfs = match secret {
            Some(secret) => Arc::new(SealedVfs::new(vfs, secret)),
            None => vfs,
        };
        Self::open_files(vfs, dir, options, lock)
    }

    /// Makes `new` the key of an encrypted store that nobody has open. No data is written anew, so
    /// whoever had the old key and a copy of the old header can still read.
    ///
    /// # Errors
    /// [`StoreError::Key`] if `old` is not its key; [`StoreError::Locked`].
    pub fn change_key(vfs: &dyn Vfs, dir: &Path, old: &Key, new: &Key) -> Result<()> {
        let _lock = lock(vfs, dir)?;
        recover::change_key(vfs, dir, old, new)
    }

    fn open_files(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        options: Options,
        lock: DirLock,
    ) -> Result<(Self, OpenReport)> {
        let mut report = OpenReport::default();
        let scratch = Scratch::new(vfs.clone(), dir.join(recover::SCRATCH))?;
        let paths = (dir.join(recover::CONTAINERS), dir.join(recover::INDEX));
        let containers = Containers::open(vfs.clone(), paths, &options, &mut report.damage)?;
        let locks = Locks::open(vfs.as_ref(), dir, &mut report.damage)?;
        recover::recipes(vfs.as_ref(), dir, &mut report)?;
        recover::journals(vfs.as_ref(), dir, &mut report)?;
        let listed = |info: &GenerationInfo| (info.id, Sealed { info: *info, pins: 0 });
        let catalogue = Catalogue {
            sealed: report.generations.iter().map(listed).collect(),
            open: report.recovered.iter().map(|open| (open.cartridge, open.id)).collect(),
            images: HashSet::new(),
            damaged: report.damage.iter().filter_map(unusable).collect(),
        };
        let inner = Inner {
            vfs,
            dir: dir.to_owned(),
            options,
            containers,
            scratch,
            catalogue: Mutex::new(catalogue),
            attempts: AtomicU64::new(0),
            spare: Spares::new(),
            collecting: Mutex::new(()),
            opening: RwLock::new(()),
            packers: Spares::new(),
            readers: Spares::new(),
            sketches: Sketches::default(),
            live: Arc::default(),
            locks,
            _lock: lock,
        };
        Ok((Self(Arc::new(inner)), report))
    }

    /// The options in force.
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// Opens a cartridge for reading and writing, at its beginning. There is one image of a
    /// cartridge at a time. A cartridge that the store does not know is empty; one with an open
    /// generation goes on with that, as far as it was acknowledged.
    pub fn image(&self, cartridge: CartridgeId) -> Result<Image> {
        Image::open(&self.0, cartridge)
    }

    /// Drops the open generation of a cartridge: its newest sealed one counts again. `false` if
    /// there is none. Refused while an image of it is open.
    pub fn discard_open(&self, cartridge: CartridgeId) -> Result<bool> {
        let open = self.0.take_image(cartridge)?;
        let removed = open.map(|id| {
            journal::remove(self.0.vfs.as_ref(), &self.0.journal_path(id))?;
            self.0.set_open(cartridge, None);
            Ok(())
        });
        self.0.return_image(cartridge);
        removed.transpose().map(|removed| removed.is_some())
    }

    /// The open generation of a cartridge with acknowledged writes, if there is one: the id that
    /// sealing it will give.
    pub fn open_generation(&self, cartridge: CartridgeId) -> Option<GenerationId> {
        self.0.catalogue().open.get(&cartridge).copied()
    }

    /// A sealed generation.
    pub fn generation(&self, id: GenerationId) -> Option<GenerationInfo> {
        self.0.generation(id)
    }

    /// The newest sealed generation of a cartridge.
    pub fn latest(&self, cartridge: CartridgeId) -> Option<GenerationInfo> {
        self.0.latest(cartridge)
    }

    /// The sealed generations of a cartridge, oldest first.
    pub fn generations(&self, cartridge: CartridgeId) -> Vec<GenerationInfo> {
        let mut all = self.all_generations();
        all.retain(|info| info.cartridge == cartridge);
        all
    }

    /// All sealed generations, by id.
    pub fn all_generations(&self) -> Vec<GenerationInfo> {
        self.0.catalogue().sealed.values().map(|sealed| sealed.info).collect()
    }

    /// Keeps a generation from being deleted as long as the pin lives.
    pub fn pin(&self, id: GenerationId) -> Result<Pin> {
        self.0.pin(id)
    }

    /// Deletes a sealed generation, durably. Refused while it is pinned, read, the parent of an
    /// open one, or kept by a lock. Its chunks stay until they are collected.
    pub fn delete_generation(&self, id: GenerationId) -> Result<()> {
        let mut catalogue = self.0.catalogue();
        let sealed = catalogue.sealed.get(&id).ok_or(StoreError::NoGeneration(id))?;
        self.0.locks.check(sealed.info.cartridge)?;
        let open = catalogue.open.get(&sealed.info.cartridge).copied();
        let newest = || {
            let same = |s: &&Sealed| s.info.cartridge == sealed.info.cartridge;
            catalogue.sealed.values().rev().find(same).map(|s| s.info.id)
        };
        // An open generation is written on top of the newest sealed one.
        if sealed.pins > 0 || (open.is_some() && newest() == Some(id)) {
            return Err(StoreError::Pinned(id));
        }
        self.0.vfs.remove(&self.0.recipes().join(recipe::file_name(id)))?;
        catalogue.sealed.remove(&id);
        drop(catalogue);
        Ok(self.0.vfs.sync_dir(&self.0.recipes())?)
    }

    /// Reads a sealed generation, from its beginning. Any number of readers at once; pins it.
    pub fn reader(&self, id: GenerationId) -> Result<GenerationReader> {
        GenerationReader::open(&self.0, id)
    }

    /// The chunk list and object map of a sealed generation; pins it.
    pub fn recipe(&self, id: GenerationId) -> Result<Recipes> {
        Recipes::open(&self.0, id)
    }

    /// For each of the chunks, whether it is missing here. One that is not stays as long as a hold
    /// that was taken before ([`Store::hold`]).
    pub fn missing(&self, digests: &[Digest]) -> Vec<bool> {
        // Where it can not be found out it is brought again, and whoever stores it is told why.
        digests
            .iter()
            .map(|digest| !matches!(self.0.containers.known(digest), Ok(Some(_))))
            .collect()
    }

    /// The bytes of a chunk, SHA-256 verified.
    pub fn chunk(&self, digest: &Digest) -> Result<Vec<u8>> {
        let stored = self.stored_chunk(digest)?;
        let decoded = self.0.decode(digest, stored.encoding, stored.raw_len, &stored.bytes);
        let decoded = decoded.map_err(|what| self.0.containers.bad(digest, what))?;
        Ok(decoded.into_owned())
    }

    /// Adds the bytes of chunks, SHA-256 verified. Those that lie together are read together.
    pub fn chunks(&self, chunks: &[ChunkRef], out: &mut Vec<u8>) -> Result<()> {
        self.0.readers.with(Reading::seldom, |reading| {
            let each = |raw: Bytes| out.extend_from_slice(&raw);
            self.0.containers.read_chunks(chunks, reading, each)
        })
    }

    /// How a chunk is stored, and in how many bytes.
    pub fn form(&self, chunk: &ChunkRef) -> Result<(Encoding, u32)> {
        self.0.containers.place_of(chunk).map(|at| (at.encoding, at.stored_len))
    }

    /// A chunk in its stored form, checksum verified (not its SHA-256, which whoever puts it
    /// somewhere verifies).
    pub fn stored_chunk(&self, digest: &Digest) -> Result<StoredChunk> {
        self.0.containers.stored(digest)
    }

    /// Stores a chunk that comes from elsewhere, after proving that it is what it is called:
    /// decompressed within `raw_len`, SHA-256 equal. `true` if it was new. It is durable when the
    /// import that needs it has committed, or after [`Store::sync`].
    pub fn put_stored_chunk(
        &self,
        digest: &Digest,
        encoding: Encoding,
        raw_len: u32,
        stored: &[u8],
    ) -> Result<bool> {
        let wrong = |what| StoreError::WrongChunk { digest: *digest, what };
        if stored.len() > raw_len as usize {
            return Err(wrong("its stored form is larger than itself"));
        }
        let decoded = self.0.decode(digest, encoding, raw_len, stored);
        decoded.map_err(wrong)?;
        Ok(self.0.containers.append(digest, encoding, raw_len, stored)?.new)
    }

    /// Makes every chunk put so far durable.
    pub fn sync(&self) -> Result<()> {
        self.0.containers.sync(self.0.containers.mark())
    }

    /// Begins to take over a generation from a peer; `info` is the peer's.
    pub fn import(&self, info: GenerationInfo) -> Result<Import> {
        Import::begin(&self.0, info)
    }

    /// How `generation` differs from `base`: its chunk list as runs of the base's, runs of its own,
    /// and chunks that are in neither. Needs bounded memory, whatever their size.
    pub fn compare(&self, generation: GenerationId, base: Option<GenerationId>) -> Result<Compare> {
        Compare::open(&self.0, generation, base)
    }

    /// Makes the index anew from the containers if a part of it turned out to be damaged, beside
    /// everything else. Who reads does it too, when it is in the way; who writes does not wait, and
    /// stores once more what is not known meanwhile. True if it was done; it ends early when `stop`
    /// says so.
    ///
    /// # Errors
    /// The disk does not answer. The next open makes the index anew then.
    pub fn mend_index(&self, stop: &dyn Fn() -> bool) -> Result<bool> {
        self.0.containers.mend(stop)
    }

    /// Figures.
    pub fn statistics(&self) -> Statistics {
        self.0.containers.statistics()
    }
}

/// Keeps a generation from being deleted; dropping it lets go.
pub struct Pin {
    inner: Arc<Inner>,
    id: GenerationId,
}

impl Pin {
    /// The generation.
    pub fn generation(&self) -> GenerationId {
        self.id
    }
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pin").field(&self.id).finish()
    }
}

impl Clone for Pin {
    fn clone(&self) -> Self {
        if let Some(sealed) = self.inner.catalogue().sealed.get_mut(&self.id) {
            sealed.pins += 1;
        }
        Self { inner: self.inner.clone(), id: self.id }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if let Some(sealed) = self.inner.catalogue().sealed.get_mut(&self.id) {
            sealed.pins -= 1;
        }
    }
}
