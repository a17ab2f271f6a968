//! Reading a journal back: how far it is good, and what it says.

use model::GenerationId;
use vfs::VfsFile;

use super::format::{
    Event, FRAME_HEADER, FRAME_MAGIC, FrameHeader, HEADER, JournalHeader, Totals, good_frame,
};
use crate::Result;
use crate::bytesio::Fields;
use crate::layout::Layout;

/// How far behind a bad frame a good one is looked for.
const SEARCH: u64 = 32 << 20;

/// A journal as far as it is good.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inspected {
    pub(crate) header: JournalHeader,
    /// The first byte behind the last good commit.
    pub(crate) end: u64,
    /// Frames before `end`.
    pub(crate) frames: u64,
    pub(crate) totals: Totals,
    /// Bytes behind `end`.
    pub(crate) torn_bytes: u64,
    /// Acknowledged frames behind `end` are damaged.
    pub(crate) damaged: bool,
}

/// What a file in the journal directory is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found {
    /// An open generation.
    Open(Inspected),
    /// Nothing in it was ever acknowledged.
    Nothing,
    /// Something in it was acknowledged, but none of it can be used.
    Unusable(&'static str),
}

/// Looks at the journal of `generation` without applying it.
pub(crate) fn inspect(generation: GenerationId, file: &dyn VfsFile) -> Result<Found> {
    let len = file.len()?;
    let header = read_up_to(file, 0, HEADER as u64, len)?;
    let header = JournalHeader::decode(generation, &header);
    let (mut at, mut sequence) = (HEADER as u64, 0);
    let mut last = None;
    while let Some((frame, payload)) = read_frame(generation, file, at, len)? {
        if frame.sequence != sequence {
            break;
        }
        at += (FRAME_HEADER + payload.len()) as u64;
        sequence += 1;
        if frame.commit {
            last = totals_of(&payload).map(|totals| (at, sequence, totals));
        }
    }
    let damaged = durable_frame_after(generation, file, at, len, sequence)?;
    Ok(match (header, last) {
        (Some(header), Some((end, frames, totals))) => {
            let torn_bytes = len - end;
            Found::Open(Inspected { header, end, frames, totals, torn_bytes, damaged })
        }
        (None, Some(_)) => Found::Unusable("its header is damaged"),
        (_, None) if damaged => Found::Unusable("its beginning is damaged"),
        (_, None) => Found::Nothing,
    })
}

/// Applies the good part of a journal to the layout of its parent. `None` if it does not fit.
pub(crate) fn replay(
    inspected: &Inspected,
    file: &dyn VfsFile,
    layout: &mut Layout,
) -> Result<Option<()>> {
    let (mut at, mut last) = (HEADER as u64, Totals::default());
    while at < inspected.end {
        let frame = read_frame(inspected.header.generation, file, at, inspected.end)?;
        let Some((_, payload)) = frame else { return Ok(None) };
        at += (FRAME_HEADER + payload.len()) as u64;
        let mut fields = Fields(&payload);
        while !fields.is_empty() {
            match Event::decode(&mut fields) {
                Some(Event::Totals(totals)) => last = totals,
                Some(event) if fits(&event, layout) => apply(&event, layout)?,
                _ => return Ok(None),
            }
        }
    }
    let found = (layout.end.object, layout.end.byte, layout.chunks.len());
    let whole = layout.chunked + layout.tail.len() as u64 == layout.end.byte;
    let same = found == (last.objects, last.bytes, last.chunks) && last == inspected.totals;
    Ok((whole && same).then_some(()))
}

/// Whether an event keeps all numbers in bounds.
pub(super) fn fits(event: &Event<'_>, layout: &Layout) -> bool {
    match event {
        Event::Truncate(object) => *object <= layout.end.object,
        Event::Objects(run) => {
            let bytes = run.count().checked_mul(run.size().into());
            bytes.and_then(|bytes| layout.end.byte.checked_add(bytes)).is_some()
                && layout.end.object.checked_add(run.count()).is_some()
        }
        _ => true,
    }
}

pub(super) fn apply(event: &Event<'_>, layout: &mut Layout) -> Result<()> {
    layout.reserve()?;
    match event {
        Event::Truncate(object) => layout.truncate(layout.place_of(*object)?, None)?,
        Event::Tail(bytes) => layout.tail.push(bytes),
        Event::Chunk(chunk) => {
            let tail = layout.tail.len();
            layout.tail.consume(tail.min(chunk.len as usize));
            layout.push_chunk(*chunk);
        }
        Event::Objects(run) => layout.push_run(*run),
        Event::Totals(_) => {}
    }
    Ok(())
}

fn totals_of(payload: &[u8]) -> Option<Totals> {
    let mut encoded = Vec::new();
    Event::Totals(Totals::default()).encode(&mut encoded);
    let mut fields = Fields(payload.get(payload.len().checked_sub(encoded.len())?..)?);
    match Event::decode(&mut fields)? {
        Event::Totals(totals) => Some(totals),
        _ => None,
    }
}

fn read_up_to(file: &dyn VfsFile, at: u64, want: u64, len: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; want.min(len.saturating_sub(at)) as usize];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

pub(super) fn read_frame(
    generation: GenerationId,
    file: &dyn VfsFile,
    at: u64,
    len: u64,
) -> Result<Option<(FrameHeader, Vec<u8>)>> {
    let head = read_up_to(file, at, FRAME_HEADER as u64, len)?;
    let Some(header) = FrameHeader::decode(generation, &head) else { return Ok(None) };
    let size = FRAME_HEADER as u64 + u64::from(header.payload_len);
    let mut whole = read_up_to(file, at, size, len)?;
    if good_frame(generation, &whole).is_none() {
        return Ok(None);
    }
    whole.drain(..FRAME_HEADER);
    Ok(Some((header, whole)))
}

/// Whether behind `from` there is a good frame that says that frame `sequence` was durable.
fn durable_frame_after(
    generation: GenerationId,
    file: &dyn VfsFile,
    from: u64,
    len: u64,
    sequence: u64,
) -> Result<bool> {
    let bytes = read_up_to(file, from, SEARCH, len)?;
    let mut starts = bytes.windows(FRAME_MAGIC.len()).enumerate().skip(1);
    Ok(starts.any(|(i, window)| {
        window == FRAME_MAGIC
            && good_frame(generation, &bytes[i..])
                .is_some_and(|(frame, _)| frame.durable > sequence)
    }))
}
