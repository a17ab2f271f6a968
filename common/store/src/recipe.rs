//! Recipes: what a sealed generation consists of, in one file that never changes.
//!
//! File: a header page; the pages of the chunk list; the pages of the object map; the header page
//! once more. The lists are searched in place ([`crate::paged`]) and never loaded whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{CartridgeId, GenerationId};
use vfs::{Vfs, VfsFile};

use crate::bytesio::{Fields, Put, open_with_crc, seal_with_crc};
use crate::layout::{Base, ChunkEntry, Layout, Place, Segment, run_of};
use crate::paged::{PAGE, Scratch, Section, SectionWriter, read_exact};
use crate::{ChunkParams, GenerationInfo, Result, StoreError};

const MAGIC: &[u8; 8] = b"TRREELR1";
const VERSION: u32 = 1;

/// A sealed generation, open for reading.
pub(crate) struct Recipe {
    pub(crate) info: GenerationInfo,
    pub(crate) chunks: Arc<Section<ChunkEntry>>,
    pub(crate) segments: Arc<Section<Segment>>,
    /// One of the two headers is damaged.
    pub(crate) half_header: bool,
}

/// The file of a generation's recipe.
pub(crate) fn file_name(id: GenerationId) -> String {
    format!("{id}.recipe")
}

fn salt(id: GenerationId) -> u32 {
    crc32c::crc32c(&id.to_bytes())
}

fn encode_header(info: &GenerationInfo, segments: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(PAGE);
    out.put(MAGIC);
    out.put_u32(VERSION);
    out.put_u32(0);
    out.put(&info.to_bytes());
    out.put_u64(segments);
    out.resize(PAGE - 4, 0);
    seal_with_crc(salt(info.id), &mut out);
    out
}

/// The header and the number of segments, `None` if it is not one of this generation.
fn decode_header(id: GenerationId, page: &[u8]) -> Option<(GenerationInfo, u64)> {
    let mut fields = Fields(open_with_crc(salt(id), page)?);
    let (magic, version) = (fields.array::<8>()?, fields.u32()?);
    fields.take(4)?;
    let info = GenerationInfo::from_bytes(fields.take(GenerationInfo::LENGTH)?)?;
    let segments = fields.u64()?;
    (magic == *MAGIC && version == VERSION && info.id == id).then_some((info, segments))
}

/// Where the second header is, `None` if such a file can not be.
fn second_header(chunks: u64, segments: u64) -> Option<u64> {
    let chunks = Section::<ChunkEntry>::pages_for(chunks);
    let segments = Section::<Segment>::pages_for(segments);
    chunks.checked_add(segments)?.checked_add(1)?.checked_mul(PAGE as u64)
}

impl Recipe {
    /// Opens the recipe of `id` in `dir`. Reads the headers only.
    pub(crate) fn open(vfs: &dyn Vfs, dir: &Path, id: GenerationId) -> Result<Self> {
        let path = dir.join(file_name(id));
        let file: Arc<dyn VfsFile> = vfs.open(&path)?.into();
        let damaged = |what| StoreError::Damaged { path: path.clone(), what };
        let len = file.len()?;
        if len < 2 * PAGE as u64 {
            return Err(damaged("the file is too short"));
        }
        let read = |at| -> Result<_> {
            let mut page = vec![0; PAGE];
            read_exact(file.as_ref(), &mut page, at)?;
            Ok(decode_header(id, &page))
        };
        let (first, second) = (read(0)?, read(len - PAGE as u64)?);
        let half_header = first.is_none() || first != second;
        let (info, segments) = first.or(second).ok_or_else(|| damaged("both headers are bad"))?;
        if second_header(info.chunks, segments) != Some(len - PAGE as u64) {
            return Err(damaged("its length is not what its header says"));
        }
        let base = PAGE as u64;
        let chunks = Section::new(file.clone(), base, salt(id), info.chunks);
        let base = base + Section::<ChunkEntry>::pages_for(info.chunks) * PAGE as u64;
        let segments = Section::new(file, base, salt(id), segments);
        Ok(Self { info, chunks: chunks.into(), segments: segments.into(), half_header })
    }

    /// The parts from which a [`Layout`] begins.
    fn base(&self) -> Base {
        let GenerationInfo { objects, bytes, filemarks, .. } = self.info;
        let end = Place { object: objects, byte: bytes, file: filemarks };
        Base { chunks: self.chunks.clone(), segments: self.segments.clone(), end }
    }
}

/// Who a recipe is of, and what only its writer knows.
pub(crate) struct Identity {
    pub(crate) id: GenerationId,
    pub(crate) cartridge: CartridgeId,
    pub(crate) parent: Option<GenerationId>,
    pub(crate) created_ms: u64,
    pub(crate) unique_bytes: u64,
    pub(crate) stored_bytes: u64,
}

impl Identity {
    /// Together with what the layout knows.
    pub(crate) fn info(&self, layout: &Layout) -> GenerationInfo {
        GenerationInfo {
            id: self.id,
            cartridge: self.cartridge,
            parent: self.parent,
            created_ms: self.created_ms,
            objects: layout.end.object,
            filemarks: layout.end.file,
            bytes: layout.end.byte,
            chunks: layout.chunks.len(),
            unique_bytes: self.unique_bytes,
            stored_bytes: self.stored_bytes,
        }
    }
}

/// Writes the recipe of a layout that has no tail left, durably. The chunks must be durable
/// already. Until it returns there may be no recipe or a whole one after a crash.
pub(crate) fn write(
    vfs: &dyn Vfs,
    dir: &Path,
    attempt: u64,
    info: &GenerationInfo,
    layout: &Layout,
) -> Result<()> {
    let temporary: PathBuf = dir.join(format!("{}.{attempt}.tmp", info.id));
    let file = vfs.create(&temporary)?.into();
    if let Err(error) = write_file(&file, info, layout) {
        // What is left over is removed at the next start if this fails too.
        let _ = vfs.remove(&temporary);
        return Err(error);
    }
    vfs.rename(&temporary, &dir.join(file_name(info.id)))?;
    Ok(vfs.sync_dir(dir)?)
}

fn write_file(file: &Arc<dyn VfsFile>, info: &GenerationInfo, layout: &Layout) -> Result<()> {
    let salt = salt(info.id);
    let mut chunks = SectionWriter::new(file.clone(), PAGE as u64, salt);
    for i in 0..layout.chunks.len() {
        chunks.push(layout.chunks.get(i)?)?;
    }
    let (_, at) = chunks.finish()?;
    let mut segments = SectionWriter::new(file.clone(), at, salt);
    let mut last: Option<Segment> = None;
    for i in 0..layout.segments.len() {
        // Where an old generation ends and the new one goes on, equal runs may meet.
        let next = layout.segments.get(i)?;
        last = Some(match last {
            Some(last) if last.run.size() == next.run.size() => joined(last, next),
            Some(last) => {
                segments.push(last)?;
                next
            }
            None => next,
        });
    }
    last.into_iter().try_for_each(|last| segments.push(last))?;
    let (count, at) = segments.finish()?;
    let header = encode_header(info, count);
    file.write_all_at(&header, at)?;
    file.write_all_at(&header, 0)?;
    Ok(file.sync_data()?)
}

fn joined(first: Segment, next: Segment) -> Segment {
    let run = run_of(first.run.size(), first.run.count() + next.run.count());
    Segment { run: run.unwrap_or(first.run), ..first }
}

/// All of a recipe's content as a layout.
pub(crate) fn layout_of(recipe: Option<&Recipe>, params: ChunkParams, scratch: &Scratch) -> Layout {
    Layout::new(params, scratch, recipe.map(Recipe::base))
}
