//! A cartridge that can be written.

mod cutting;
mod naming;
mod reference;

pub use reference::Extent;

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use model::{CartridgeId, GenerationId};

use crate::chunker::Chunker;
use crate::codec::{Compressor, name};
use crate::collect::Hold;
use crate::container::Reading;
use crate::follow::Writing;
use crate::journal::{self, Event, Found, Journal, JournalHeader, Totals};
use crate::layout::Layout;
use crate::recipe::{Identity, layout_of};
use crate::reel::Reel;
use crate::store::{Inner, Pin};
use crate::{ChunkRef, Encoding, MAX_RECORD, ObjectRun, Result, StoreError};

use naming::Naming;

/// What a generation has stored.
#[derive(Default)]
struct Ledger {
    unique_bytes: u64,
    stored_bytes: u64,
    /// When the containers are synced up to here, all chunks of the generation are durable.
    mark: u64,
}

/// The open generation of an image.
struct Writer {
    journal: Journal,
    compressor: Compressor,
    naming: Naming,
    ledger: Ledger,
    /// Bytes at the front of the tail that are in the journal.
    tail_logged: usize,
    /// Something was written since the last acknowledged flush.
    dirty: bool,
    /// Some flush was acknowledged: the generation outlives the image.
    acknowledged: bool,
    /// What it relies on stays until the recipe names it.
    _hold: Hold,
}

/// A cartridge open for reading and writing, by one owner; see [`Reel`] for moving and reading.
///
/// A write drops everything behind the current place, appends, and leaves the place at the new
/// end of data. The first write after opening or after [`Image::seal`] begins a new generation on
/// top of the newest sealed one, which itself stays as it is. What was written is durable when
/// [`Image::flush`] returns, not before; what was flushed survives dropping the image without
/// sealing, and the end of the process.
///
/// On an error nothing was written and the place is where it was.
pub struct Image {
    reel: Reel,
    cartridge: CartridgeId,
    /// The newest sealed generation, kept from being deleted.
    base: Option<Pin>,
    writer: Option<Writer>,
}

impl Deref for Image {
    type Target = Reel;
    fn deref(&self) -> &Reel {
        &self.reel
    }
}

impl DerefMut for Image {
    fn deref_mut(&mut self) -> &mut Reel {
        &mut self.reel
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let open = self.generation();
        f.debug_struct("Image").field("cartridge", &self.cartridge).field("open", &open).finish()
    }
}

impl Image {
    pub(crate) fn open(inner: &Arc<Inner>, cartridge: CartridgeId) -> Result<Self> {
        let _opening = inner.opening();
        let open = inner.take_image(cartridge)?;
        let image = Self::build(inner, cartridge, open);
        if image.is_err() {
            inner.return_image(cartridge);
        }
        image
    }

    fn build(
        inner: &Arc<Inner>,
        cartridge: CartridgeId,
        open: Option<GenerationId>,
    ) -> Result<Self> {
        let resumed = open.map(|id| Resumed::find(inner, id)).transpose()?;
        let base = match &resumed {
            Some(resumed) => resumed.inspected.header.parent,
            None => inner.latest(cartridge).map(|info| info.id),
        };
        let (recipe, base) = base.map(|id| inner.recipe(id)).transpose()?.unzip();
        let mut layout = layout_of(recipe.as_ref(), inner.params(), &inner.scratch);
        let writer = resumed.map(|resumed| resumed.writer(inner, &mut layout)).transpose()?;
        Ok(Self { reel: Reel::new(inner.clone(), layout), cartridge, base, writer })
    }

    /// Whose image it is.
    pub fn cartridge(&self) -> CartridgeId {
        self.cartridge
    }

    /// The open generation, `None` if nothing was written since opening or sealing.
    pub fn generation(&self) -> Option<GenerationId> {
        self.writer.as_ref().map(|writer| writer.journal.header.generation)
    }

    /// The newest sealed generation: what the open one is written on, or what is read if there is
    /// none open. `None` for a cartridge that was never sealed.
    pub fn sealed_generation(&self) -> Option<GenerationId> {
        self.base.as_ref().map(Pin::generation)
    }

    /// Whether something was written that a [`Image::flush`] would make durable.
    pub fn is_dirty(&self) -> bool {
        self.writer.as_ref().is_some_and(|writer| writer.dirty)
    }

    /// Writes one record of 1 to [`MAX_RECORD`] bytes here.
    pub fn write(&mut self, record: &[u8]) -> Result<()> {
        if record.is_empty() || record.len() > MAX_RECORD {
            return Err(StoreError::RecordSize(record.len()));
        }
        let (writer, reel) = self.writer_here()?;
        writer.make_room(reel, false)?;
        let run = ObjectRun::Records { size: record.len() as u32, count: 1 };
        reel.layout.tail.push(record);
        writer.append(reel, run);
        Ok(())
    }

    /// Writes filemarks here; 0 does nothing, not even a flush.
    pub fn write_filemarks(&mut self, count: u32) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let (writer, reel) = self.writer_here()?;
        // A chunk never spans a filemark: what begins behind one is cut alike wherever it stands.
        writer.make_room(reel, true)?;
        writer.append(reel, ObjectRun::Filemarks { count: count.into() });
        Ok(())
    }

    /// Drops everything from the current place on.
    pub fn erase(&mut self) -> Result<()> {
        match self.reel.place == self.reel.layout.end {
            true => Ok(()),
            false => self.writer_here().map(|_| ()),
        }
    }

    /// Makes everything written so far durable. After an error it may be or may not be; a retry
    /// is allowed and says [`StoreError::Poisoned`] where it can not help.
    pub fn flush(&mut self) -> Result<()> {
        let Some(writer) = self.writer.as_mut().filter(|writer| writer.dirty) else {
            return Ok(());
        };
        self.reel.inner.containers.check_poison()?;
        writer.flush(&mut self.reel)?;
        self.reel.inner.set_open(self.cartridge, self.generation());
        Ok(())
    }

    /// Ends the open generation: everything written becomes durable and a sealed generation that
    /// never changes, whose id is returned; `None` if nothing was written since the last one. The
    /// image stays where it is; the next write begins another generation.
    pub fn seal(&mut self) -> Result<Option<GenerationId>> {
        let written = self.writer.as_ref().is_some_and(|w| w.dirty || w.acknowledged);
        let Some(writer) = self.writer.as_mut().filter(|_| written) else {
            self.give_up_writer();
            return Ok(None);
        };
        let inner = self.reel.inner.clone();
        inner.containers.check_poison()?;
        writer.make_room(&mut self.reel, true)?;
        // Whoever follows it has the end of it; without that it is read from the recipe.
        if let Err(error) = writer.journal.publish() {
            tracing::debug!(%error, "the end of a journal was not written");
        }
        inner.containers.sync(writer.ledger.mark)?;
        let header = writer.journal.header;
        let identity = Identity {
            id: header.generation,
            cartridge: header.cartridge,
            parent: header.parent,
            created_ms: header.created_ms,
            unique_bytes: writer.ledger.unique_bytes,
            stored_bytes: writer.ledger.stored_bytes,
        };
        inner.commit(&identity.info(&self.reel.layout), &self.reel.layout)?;
        inner.set_open(self.cartridge, None);
        self.give_up_writer();
        self.base = Some(inner.pin(header.generation)?);
        // The lists in memory say the same as the recipe, only larger: keeping them is no harm.
        if let Ok((recipe, _)) = inner.recipe(header.generation) {
            self.reel.layout = layout_of(Some(&recipe), inner.params(), &inner.scratch);
            self.reel.changed();
        }
        Ok(Some(header.generation))
    }

    /// Removes the journal of a generation that is sealed or has nothing in it. If that fails the
    /// next start does it.
    fn give_up_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            let removed = journal::remove(self.reel.inner.vfs.as_ref(), writer.journal.path());
            if let Err(error) = removed {
                tracing::warn!(%error, "a journal that is not needed any more was left behind");
            }
        }
    }

    /// The open generation, begun if there is none, with the current place as its end of data.
    fn writer_here(&mut self) -> Result<(&mut Writer, &mut Reel)> {
        self.reel.inner.containers.check_poison()?;
        if self.writer.is_none() {
            self.begin()?;
        }
        let (Some(writer), reel) = (&mut self.writer, &mut self.reel) else {
            return Err(StoreError::InUse(self.cartridge));
        };
        if reel.place != reel.layout.end {
            writer.truncate(reel)?;
        }
        Ok((writer, reel))
    }

    fn begin(&mut self) -> Result<()> {
        let inner = &self.reel.inner;
        let parent = self.sealed_generation();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let created_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        // Ids of one cartridge ascend even if the clock is set back.
        let after = parent.map_or(0, |id| (id.0.0 >> 80) as u64 + 1);
        let generation = GenerationId::generate(created_ms.max(after));
        let cartridge = self.cartridge;
        let header = JournalHeader { generation, cartridge, parent, created_ms };
        let path = inner.journal_path(generation);
        let journal = Journal::create(inner.vfs.as_ref(), path, header)
            .map_err(|error| inner.containers.poisoned_by(error))?;
        self.writer = Some(Writer::new(inner, journal));
        Ok(())
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // A journal without an acknowledged flush means nothing.
        if self.writer.as_ref().is_some_and(|writer| !writer.acknowledged) {
            self.give_up_writer();
        }
        self.reel.inner.return_image(self.cartridge);
    }
}

impl Ledger {
    /// Stores a chunk if it is not there, in the form that `stored` gives.
    fn store<'a>(
        &mut self,
        inner: &Inner,
        chunk: ChunkRef,
        stored: impl FnOnce() -> (Encoding, &'a [u8]),
    ) -> Result<()> {
        let have = inner.containers.known(&chunk.digest)?.filter(|(len, _)| *len == chunk.len);
        let mark = match have {
            Some((_, mark)) => mark,
            None => {
                let (encoding, stored) = stored();
                let done = inner.containers.append(&chunk.digest, encoding, chunk.len, stored)?;
                if done.new {
                    // They go on from what a journal says.
                    let (raw, packed) = (u64::from(chunk.len), stored.len() as u64);
                    self.unique_bytes = self.unique_bytes.saturating_add(raw);
                    self.stored_bytes = self.stored_bytes.saturating_add(packed);
                }
                done.mark
            }
        };
        self.mark = self.mark.max(mark);
        Ok(())
    }
}

impl Writer {
    fn new(inner: &Arc<Inner>, mut journal: Journal) -> Self {
        journal.tell(Writing::new(&inner.live, journal.header.generation));
        Self {
            journal,
            compressor: Compressor::new(inner.options.zstd_level),
            naming: Naming::new(inner),
            ledger: Ledger::default(),
            tail_logged: 0,
            dirty: false,
            acknowledged: false,
            _hold: Hold::new(inner),
        }
    }

    /// Stores what is ready to be, with `end` all of the tail, and makes room for one write.
    fn make_room(&mut self, reel: &mut Reel, end: bool) -> Result<()> {
        self.journal.relieve()?;
        match end {
            true => self.store_tail(reel, true)?,
            false => self.store_blocks(reel, false)?,
        }
        reel.layout.reserve()
    }

    /// Stores what is cut off the tail in slabs, as far as it is named; with `all`, all of it.
    fn store_blocks(&mut self, reel: &mut Reel, all: bool) -> Result<()> {
        loop {
            while self.naming.is_ready(all || self.naming.is_full()) {
                self.store_named(reel)?;
            }
            // Storing them may fail, and then they are where they were.
            match reel.layout.tail.take_slab() {
                Some(slab) => self.naming.give(slab),
                None if all && self.naming.is_ready(true) => {}
                None => break,
            }
        }
        if all {
            self.naming.restart();
            reel.layout.tail.take_back();
        }
        Ok(())
    }

    /// Stores the next chunk of the slabs.
    fn store_named(&mut self, reel: &mut Reel) -> Result<()> {
        let Some((raw, ready)) = self.naming.next() else { return Ok(()) };
        let chunk = ChunkRef { digest: ready.digest, len: raw.len() as u32 };
        self.ledger.store(&reel.inner, chunk, || match ready.stored {
            Some(stored) => stored,
            // It was there, and turned out to be damaged meanwhile.
            None => self.compressor.encode(raw),
        })?;
        self.list(reel, chunk)?;
        self.naming.pass();
        Ok(())
    }

    /// Stores everything whose cuts are certain, with `end` all of the tail.
    fn store_tail(&mut self, reel: &mut Reel, end: bool) -> Result<()> {
        self.store_blocks(reel, true)?;
        while let Some(raw) = reel.layout.tail.peek(end) {
            let chunk = ChunkRef { digest: name(raw), len: raw.len() as u32 };
            self.ledger.store(&reel.inner, chunk, || self.compressor.encode(raw))?;
            self.list(reel, chunk)?;
        }
        Ok(())
    }

    /// Moves a chunk that is stored from the tail to the list.
    fn list(&mut self, reel: &mut Reel, chunk: ChunkRef) -> Result<()> {
        reel.layout.chunks.reserve()?;
        self.journal.add(Event::Chunk(chunk));
        reel.layout.push_chunk(chunk);
        reel.layout.tail.consume(chunk.len as usize);
        self.tail_logged = self.tail_logged.saturating_sub(chunk.len as usize);
        Ok(())
    }

    /// Appends objects whose bytes are in the tail already.
    fn append(&mut self, reel: &mut Reel, run: ObjectRun) {
        reel.layout.push_run(run);
        self.journal.add(Event::Objects(run));
        reel.place = reel.layout.end;
        self.dirty = true;
    }

    /// Drops everything from the current place on.
    fn truncate(&mut self, reel: &mut Reel) -> Result<()> {
        self.journal.relieve()?;
        self.store_tail(reel, false)?;
        let place = reel.place;
        let partial = match reel.layout.cut_chunk(place.byte)? {
            Some(entry) => {
                // The front of the chunk that is cut apart goes back to where it came from.
                let mut chunk = Bytes::new();
                let (containers, mut reading) = (&reel.inner.containers, Reading::seldom());
                containers.read_chunks(&[entry.chunk], &mut reading, |raw| chunk = raw)?;
                chunk.truncate((place.byte - entry.start) as usize);
                Some(chunk)
            }
            None => None,
        };
        let in_tail = place.byte.saturating_sub(reel.layout.chunked) as usize;
        reel.layout.truncate(place, partial.as_deref())?;
        self.journal.add(Event::Truncate(place.object));
        self.tail_logged = if partial.is_some() { 0 } else { self.tail_logged.min(in_tail) };
        self.dirty = true;
        reel.changed();
        Ok(())
    }

    fn flush(&mut self, reel: &mut Reel) -> Result<()> {
        self.journal.relieve()?;
        self.store_tail(reel, false)?;
        reel.layout.reserve()?;
        reel.inner.containers.sync(self.ledger.mark)?;
        let Layout { tail, end, chunks, .. } = &reel.layout;
        self.log_tail(tail);
        let totals = Totals {
            objects: end.object,
            bytes: end.byte,
            chunks: chunks.len(),
            unique_bytes: self.ledger.unique_bytes,
            stored_bytes: self.ledger.stored_bytes,
        };
        self.journal.commit(totals).map_err(|error| reel.inner.containers.poisoned_by(error))?;
        self.dirty = false;
        self.acknowledged = true;
        Ok(())
    }

    fn log_tail(&mut self, tail: &Chunker) {
        let pending = tail.pending();
        if self.tail_logged < pending.len() {
            self.journal.add(Event::Tail(&pending[self.tail_logged..]));
            self.tail_logged = pending.len();
        }
    }
}

/// An open generation that is gone on with.
struct Resumed {
    inspected: journal::Inspected,
    file: Box<dyn vfs::VfsFile>,
}

impl Resumed {
    fn find(inner: &Arc<Inner>, id: GenerationId) -> Result<Self> {
        let path = inner.journal_path(id);
        let file = inner.vfs.open(&path)?;
        match journal::inspect(id, file.as_ref())? {
            Found::Open(inspected) => Ok(Self { inspected, file }),
            _ => Err(StoreError::Damaged { path, what: "the journal can not be read any more" }),
        }
    }

    fn writer(self, inner: &Arc<Inner>, layout: &mut Layout) -> Result<Writer> {
        let path = inner.journal_path(self.inspected.header.generation);
        let fits = journal::replay(&self.inspected, self.file.as_ref(), layout)?;
        let what = "the journal does not fit the generation below it";
        fits.ok_or_else(|| StoreError::Damaged { path: path.clone(), what })?;
        let journal = Journal::resume(inner.vfs.as_ref(), path, &self.inspected)
            .map_err(|error| inner.containers.poisoned_by(error))?;
        let mut writer = Writer::new(inner, journal);
        let base = self.inspected.header.parent.and_then(|id| inner.generation(id));
        let before = base.map_or(0, |base| base.bytes);
        writer.journal.resumed(layout.chunked.saturating_sub(before));
        // Under its hold, so that a collection that comes later keeps them.
        inner.stamp(layout)?;
        Ok(Writer {
            ledger: Ledger {
                unique_bytes: self.inspected.totals.unique_bytes,
                stored_bytes: self.inspected.totals.stored_bytes,
                mark: 0,
            },
            tail_logged: layout.tail.len(),
            dirty: false,
            acknowledged: true,
            ..writer
        })
    }
}
