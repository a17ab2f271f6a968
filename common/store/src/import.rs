//! Taking over a generation from a peer: lists first or with the chunks, in any rhythm, and one
//! commit that succeeds only if everything is here.

use std::sync::Arc;

use model::{Digest, GenerationId};

use crate::collect::Hold;
use crate::layout::{Layout, run_of};
use crate::recipe::{Recipe, layout_of};
use crate::store::{Inner, Pin};
use crate::{ChunkRef, GenerationInfo, ObjectRun, Result, StoreError};

/// A generation that is being taken over. Dropping it (or a crash) leaves nothing but the chunks
/// that were put, which a later import finds.
pub struct Import {
    inner: Arc<Inner>,
    info: GenerationInfo,
    layout: Layout,
    /// The recipe that runs were last taken from.
    parent: Option<(Recipe, Pin)>,
    /// All chunks before this one are known to be here.
    present: u64,
    /// `info` has the peer's numbers; until then anything may come.
    announced: bool,
    /// What is found here stays until the recipe names it.
    _hold: Hold,
}

impl std::fmt::Debug for Import {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Import").field("id", &self.info.id).finish_non_exhaustive()
    }
}

impl crate::Store {
    /// Like [`crate::Store::import`] where the peer tells the numbers of objects, bytes and chunks
    /// only at the end ([`Import::announce`], before [`Import::commit`]); those in `info` mean
    /// nothing. A generation that is here already is not looked at before the commit.
    pub fn import_unannounced(&self, info: GenerationInfo) -> Import {
        let inner = self.0.clone();
        let layout = layout_of(None, inner.params(), &inner.scratch);
        let _hold = Hold::new(&inner);
        Import { inner, info, layout, parent: None, present: 0, announced: false, _hold }
    }
}

impl Import {
    pub(crate) fn begin(inner: &Arc<Inner>, info: GenerationInfo) -> Result<Self> {
        let layout = layout_of(None, inner.params(), &inner.scratch);
        let inner = inner.clone();
        let _hold = Hold::new(&inner);
        let import = Self { inner, info, layout, parent: None, present: 0, announced: true, _hold };
        match import.inner.generation(info.id) {
            Some(found) if found != info => Err(import.wrong("another one of this id is here")),
            _ => Ok(import),
        }
    }

    /// Tells how much was announced, for an import that began without knowing
    /// ([`crate::Store::import_unannounced`]): objects, bytes of all records, and chunks. Filemarks
    /// are counted as they come.
    pub fn announce(&mut self, objects: u64, bytes: u64, chunks: u64) {
        let filemarks = self.layout.end.file;
        self.info = GenerationInfo { objects, filemarks, bytes, chunks, ..self.info };
        self.announced = true;
    }

    /// Tells how many bytes of chunks were new where it was written, before and after compression.
    pub fn tell_new(&mut self, unique_bytes: u64, stored_bytes: u64) {
        self.info = GenerationInfo { unique_bytes, stored_bytes, ..self.info };
    }

    fn wrong(&self, what: &'static str) -> StoreError {
        StoreError::WrongImport { generation: self.info.id, what }
    }

    /// What was announced.
    pub fn info(&self) -> &GenerationInfo {
        &self.info
    }

    /// How many chunks were appended.
    pub fn chunks(&self) -> u64 {
        self.layout.chunks.len()
    }

    /// Appends the next chunk of the list. It need not be here yet.
    pub fn append_chunk(&mut self, chunk: ChunkRef) -> Result<()> {
        let len = u64::from(chunk.len);
        if len == 0 || len > crate::MAX_CHUNK as u64 {
            return Err(self.wrong("a chunk's length is out of bounds"));
        }
        let fits = self.layout.chunks.len() < self.info.chunks
            && len <= self.info.bytes.saturating_sub(self.layout.chunked);
        if self.announced && !fits {
            return Err(self.wrong("there are more chunks or bytes than announced"));
        }
        self.layout.reserve()?;
        self.layout.push_chunk(chunk);
        Ok(())
    }

    /// Appends `count` chunks of another generation that is here, from its chunk `first` on.
    pub fn append_run(&mut self, from: GenerationId, first: u64, count: u64) -> Result<()> {
        if self.parent.as_ref().is_none_or(|(recipe, _)| recipe.info.id != from) {
            self.parent = Some(self.inner.recipe(from)?);
        }
        let Some((recipe, _)) = &self.parent else { return Ok(()) };
        let chunks = recipe.chunks.clone();
        let end = first.checked_add(count).filter(|end| *end <= chunks.len());
        let end = end.ok_or_else(|| self.wrong("a run goes beyond its generation"))?;
        (first..end).try_for_each(|i| self.append_chunk(chunks.get(i)?.chunk))
    }

    /// Appends `count` chunks that were appended before, from chunk `first` on: one by one, so that
    /// they may be some of those that this call appends.
    pub fn append_again(&mut self, first: u64, count: u64) -> Result<()> {
        let possible = first < self.layout.chunks.len() && first.checked_add(count).is_some();
        if !possible {
            return Err(self.wrong("a repetition of what did not come yet"));
        }
        (first..first + count).try_for_each(|i| self.append_chunk(self.layout.chunks.get(i)?.chunk))
    }

    /// Appends the next run of objects.
    pub fn append_objects(&mut self, run: ObjectRun) -> Result<()> {
        let bytes = run.count().checked_mul(run.size().into());
        // Without an announcement only what can be counted at all is in bounds.
        let (objects, most) = match self.announced {
            true => (self.info.objects, self.info.bytes),
            false => (u64::MAX, u64::MAX),
        };
        let fits = run_of(run.size(), run.count()).is_some()
            && run.count() <= objects.saturating_sub(self.layout.end.object)
            && bytes.is_some_and(|it| it <= most.saturating_sub(self.layout.end.byte));
        if !fits {
            return Err(self.wrong("a run of objects is out of bounds"));
        }
        self.layout.reserve()?;
        self.layout.push_run(run);
        Ok(())
    }

    /// The next chunks, `limit` at most, that were appended and are not here; empty when all are.
    pub fn missing(&mut self, limit: usize) -> Result<Vec<Digest>> {
        let (mut missing, mut all_here) = (Vec::new(), true);
        for i in self.present..self.layout.chunks.len() {
            let chunk = self.layout.chunks.get(i)?.chunk;
            if !self.has(&chunk)? {
                missing.push(chunk.digest);
                all_here = false;
            } else if all_here {
                self.present = i + 1;
            }
            if missing.len() >= limit {
                break;
            }
        }
        Ok(missing)
    }

    fn has(&self, chunk: &ChunkRef) -> Result<bool> {
        match self.inner.containers.known(&chunk.digest)? {
            Some((len, _)) if len != chunk.len => {
                Err(self.wrong("a chunk's length is not the one it has"))
            }
            found => Ok(found.is_some()),
        }
    }

    /// Makes the generation exist: checks that all is as announced and every chunk is here, makes
    /// the chunks durable and then the recipe. Fails with [`StoreError::MissingChunk`] if one is
    /// missing; it may be put and `commit` called again. If the generation is here already that
    /// is fine, whatever was appended.
    pub fn commit(&mut self) -> Result<GenerationInfo> {
        if let Some(found) = self.inner.generation(self.info.id) {
            return Ok(found);
        }
        if !self.announced {
            return Err(self.wrong("it was not announced how much there is"));
        }
        let (info, layout) = (&self.info, &self.layout);
        let found = (layout.end.object, layout.end.file, layout.end.byte, layout.chunks.len());
        if found != (info.objects, info.filemarks, info.bytes, info.chunks) {
            return Err(self.wrong("what came is not as much as was announced"));
        }
        if layout.chunked != info.bytes {
            return Err(self.wrong("the chunks do not add up to the records"));
        }
        self.inner.containers.check_poison()?;
        // A chunk may have turned out to be damaged meanwhile: all are looked up once more.
        for i in 0..self.layout.chunks.len() {
            let chunk = self.layout.chunks.get(i)?.chunk;
            if !self.has(&chunk)? {
                self.present = self.present.min(i);
                return Err(StoreError::MissingChunk(chunk.digest));
            }
        }
        self.inner.containers.sync(self.inner.containers.mark())?;
        self.inner.commit(&self.info, &self.layout)?;
        Ok(self.info)
    }
}
