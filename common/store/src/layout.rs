//! A cartridge's content: object runs and chunks, with their places, so that any object, byte or
//! filemark is found by binary search.

use std::sync::Arc;

use model::Digest;

use crate::bytesio::{Fields, Put};
use crate::chunker::Chunker;
use crate::paged::{Chain, Entry, Scratch, Section};
use crate::reel::Runs;
use crate::{ChunkParams, ChunkRef, MAX_CHUNK, MAX_RECORD, ObjectRun, Result, StoreError};

/// A chunk and where it begins in the byte stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkEntry {
    pub(crate) start: u64,
    pub(crate) chunk: ChunkRef,
}

impl ChunkEntry {
    /// The first byte behind it.
    pub(crate) fn end(&self) -> u64 {
        self.start + u64::from(self.chunk.len)
    }
}

impl Entry for ChunkEntry {
    const SIZE: usize = 44;
    const KIND: u8 = 1;

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.start);
        out.put_u32(self.chunk.len);
        out.put(self.chunk.digest.as_bytes());
    }

    fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        let (start, len) = (fields.u64()?, fields.u32()?);
        let digest = Digest(fields.array()?);
        start.checked_add(u64::from(len))?;
        let fits = (1..=MAX_CHUNK as u32).contains(&len);
        fits.then_some(Self { start, chunk: ChunkRef { digest, len } })
    }
}

/// A run of objects and what is before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Objects before it.
    pub(crate) object: u64,
    /// Bytes before it.
    pub(crate) byte: u64,
    /// Filemarks before it.
    pub(crate) file: u64,
    pub(crate) run: ObjectRun,
}

impl Segment {
    /// The place `objects` objects (at most its count) into the segment.
    pub(crate) fn place(&self, objects: u64) -> Place {
        let (mut byte, mut file) = (self.byte, self.file);
        match self.run {
            ObjectRun::Records { size, .. } => byte += objects * u64::from(size),
            ObjectRun::Filemarks { .. } => file += objects,
        }
        Place { object: self.object + objects, byte, file }
    }

    /// The place behind it.
    pub(crate) fn end(&self) -> Place {
        self.place(self.run.count())
    }

    pub(crate) fn is_filemarks(&self) -> bool {
        matches!(self.run, ObjectRun::Filemarks { .. })
    }
}

impl Entry for Segment {
    const SIZE: usize = 36;
    const KIND: u8 = 2;

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.object);
        out.put_u64(self.byte);
        out.put_u64(self.file);
        out.put_u64(self.run.count());
        out.put_u32(self.run.size());
    }

    fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        let (object, byte, file) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let (count, size) = (fields.u64()?, fields.u32()?);
        let run = run_of(size, count)?;
        object.checked_add(count)?;
        byte.checked_add(count.checked_mul(u64::from(size))?)?;
        Some(Self { object, byte, file, run })
    }
}

/// The run with this size (0 for filemarks) and count, `None` if out of bounds.
pub(crate) fn run_of(size: u32, count: u64) -> Option<ObjectRun> {
    match size {
        _ if count == 0 || size as usize > MAX_RECORD => None,
        0 => Some(ObjectRun::Filemarks { count }),
        _ => Some(ObjectRun::Records { size, count }),
    }
}

/// A place between two objects, in the three ways of counting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Records and filemarks before it.
    pub object: u64,
    /// Bytes of records before it.
    pub byte: u64,
    /// Filemarks before it.
    pub file: u64,
}

/// The lists of one generation, sealed or open. The bytes of records are in the chunks; those at
/// the end that are not cut yet are in the chunker.
pub(crate) struct Layout {
    pub(crate) chunks: Chain<ChunkEntry>,
    pub(crate) segments: Chain<Segment>,
    pub(crate) end: Place,
    /// Bytes in chunks. What follows them up to `end` is in the tail.
    pub(crate) chunked: u64,
    pub(crate) tail: Chunker,
}

/// The lists of a sealed generation.
pub(crate) struct Base {
    pub(crate) chunks: Arc<Section<ChunkEntry>>,
    pub(crate) segments: Arc<Section<Segment>>,
    pub(crate) end: Place,
}

impl Layout {
    /// An empty cartridge, or all of a sealed generation.
    pub(crate) fn new(params: ChunkParams, scratch: &Scratch, base: Option<Base>) -> Self {
        let (chunks, segments, end) = match base {
            Some(Base { chunks, segments, end }) => (Some(chunks), Some(segments), end),
            None => (None, None, Place::default()),
        };
        Self {
            chunks: Chain::new(chunks, scratch.clone()),
            segments: Chain::new(segments, scratch.clone()),
            end,
            chunked: end.byte,
            tail: Chunker::new(params),
        }
    }

    /// The lists contradict themselves.
    pub(crate) fn damaged(&self, what: &'static str) -> StoreError {
        StoreError::Damaged { path: self.chunks.path(), what }
    }

    /// Makes room for the entries that one write adds, so that it can not fail half done.
    pub(crate) fn reserve(&mut self) -> Result<()> {
        self.chunks.reserve()?;
        self.segments.reserve()
    }

    /// Appends objects at the end; the record bytes are pushed to the tail by the caller.
    pub(crate) fn push_run(&mut self, run: ObjectRun) {
        let last = self.segments.last_own().filter(|last| last.run.size() == run.size());
        let segment = match last {
            Some(last) => {
                let (ObjectRun::Records { count, .. } | ObjectRun::Filemarks { count }) =
                    &mut last.run;
                *count += run.count();
                *last
            }
            None => {
                let Place { object, byte, file } = self.end;
                let segment = Segment { object, byte, file, run };
                self.segments.push(segment);
                segment
            }
        };
        self.end = segment.end();
    }

    /// Appends a chunk behind the last one.
    pub(crate) fn push_chunk(&mut self, chunk: ChunkRef) {
        self.chunks.push(ChunkEntry { start: self.chunked, chunk });
        self.chunked += u64::from(chunk.len);
    }

    /// The segment with the object, `None` at or beyond the end.
    pub(crate) fn segment_of(&self, object: u64) -> Result<Option<(u64, Segment)>> {
        if object >= self.end.object {
            return Ok(None);
        }
        let behind = self.segments.partition_point(|s| s.object <= object)?;
        let index =
            behind.checked_sub(1).ok_or_else(|| self.damaged("its objects do not begin"))?;
        Ok(Some((index, self.segments.get(index)?)))
    }

    /// The runs of objects from `object` on.
    pub(crate) fn runs(&self, object: u64) -> Runs<'_> {
        Runs::new(self, object)
    }

    /// The place before an object, or the end of data if there are fewer.
    pub(crate) fn place_of(&self, object: u64) -> Result<Place> {
        Ok(match self.segment_of(object)? {
            Some((_, segment)) => segment.place(object - segment.object),
            None => self.end,
        })
    }

    /// The index of the chunk that holds the byte at `byte`; it must be before the tail.
    pub(crate) fn chunk_of(&self, byte: u64) -> Result<u64> {
        Ok(self.chunks.partition_point(|entry| entry.start <= byte)?.saturating_sub(1))
    }

    /// Drops everything from `place` on. `partial` are the bytes between the start of the chunk
    /// that `place` cuts apart and `place`; see [`Layout::cut_chunk`]. On an error nothing changed.
    pub(crate) fn truncate(&mut self, place: Place, partial: Option<&[u8]>) -> Result<()> {
        let kept_segments = self.segments.partition_point(|s| s.object < place.object)?;
        let last = match kept_segments.checked_sub(1) {
            Some(index) => Some(self.segments.get(index)?),
            None => None,
        };
        let kept_chunks = self.chunks.partition_point(|entry| entry.end() <= place.byte)?;
        let chunked = match kept_chunks.checked_sub(1) {
            Some(index) => self.chunks.get(index)?.end(),
            None => 0,
        };
        let split = last.filter(|segment| segment.end().object > place.object);
        let segments = self.segments.cut(kept_segments - u64::from(split.is_some()))?;
        let chunks = self.chunks.cut(kept_chunks)?;
        self.segments.apply(segments);
        self.chunks.apply(chunks);
        if let Some(segment) = split {
            let run = run_of(segment.run.size(), place.object - segment.object);
            run.into_iter().for_each(|run| self.segments.push(Segment { run, ..segment }));
        }
        match (partial, place.byte.checked_sub(self.chunked)) {
            (Some(bytes), _) => self.tail.reset(bytes),
            (None, Some(kept)) => self.tail.truncate(kept as usize),
            (None, None) => self.tail.reset(&[]),
        }
        self.chunked = chunked;
        self.end = place;
        Ok(())
    }

    /// The chunk that would be cut apart by dropping everything from `byte` on.
    pub(crate) fn cut_chunk(&self, byte: u64) -> Result<Option<ChunkEntry>> {
        if byte >= self.chunked || byte == 0 {
            return Ok(None);
        }
        let entry = self.chunks.get(self.chunk_of(byte)?)?;
        Ok((entry.start < byte).then_some(entry))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use vfs::{CrashVfs, Vfs};

    use super::*;
    use crate::paged::encode_page;

    #[test]
    fn a_list_that_does_not_begin_at_its_beginning_is_damage() {
        let vfs = CrashVfs::new();
        let run = ObjectRun::Filemarks { count: 3 };
        let segment = Segment { object: 5, byte: 0, file: 5, run };
        let file = vfs.create(Path::new("lists")).unwrap();
        file.write_all_at(&encode_page(7, 0, &[segment]), 0).unwrap();
        let file: Arc<dyn vfs::VfsFile> = file.into();
        let base = Base {
            chunks: Section::new(file.clone(), 0, 7, 0).into(),
            segments: Section::new(file, 0, 7, 1).into(),
            end: segment.end(),
        };
        let scratch = Scratch::new(Arc::new(vfs), "scratch".into()).unwrap();
        let layout = Layout::new(ChunkParams::default(), &scratch, Some(base));
        assert_eq!(layout.place_of(6).unwrap().object, 6);
        assert!(layout.place_of(4).unwrap_err().is_damage());
    }
}
