//! The journal of an open generation: what was written since the generation began, so that what
//! was acknowledged survives a crash.
//!
//! Events are collected in memory and written as *frames*. A frame marked *commit* closes a
//! flush: once it is synced (the containers having been synced before), everything up to it is
//! acknowledged. Replaying stops after the last good commit that follows from good frames.

mod format;
mod replay;
mod track;

use std::path::{Path, PathBuf};

use vfs::{Vfs, VfsFile};

use crate::follow::Writing;
use crate::{ObjectRun, Result};
pub(crate) use format::{Event, JournalHeader, Totals};
use format::{FrameHeader, HEADER};
pub(crate) use replay::{Found, Inspected, inspect, replay};
pub(crate) use track::Tracker;

/// Events are written, without a commit, when so many bytes of them have come together.
///
/// That is about 7 MiB of data: so far behind is whoever follows it.
const FRAME_SIZE: usize = 16 << 10;

/// Writes the journal of one open generation.
pub(crate) struct Journal {
    path: PathBuf,
    file: Box<dyn VfsFile>,
    pub(crate) header: JournalHeader,
    /// Where the next frame goes.
    at: u64,
    sequence: u64,
    durable: u64,
    /// Encoded events of the next frame. A frame whose writing failed is written again, longer,
    /// in the same place.
    pending: Vec<u8>,
    /// Objects that were appended and may still become more.
    run: Option<ObjectRun>,
    /// Bytes of the chunks that were added.
    bytes: u64,
    writing: Option<Writing>,
}

impl Journal {
    /// Begins the journal of a new generation. Header and name are durable before any frame is
    /// written, so a journal with frames and no header is damaged and never just unfinished.
    pub(crate) fn create(vfs: &dyn Vfs, path: PathBuf, header: JournalHeader) -> Result<Self> {
        let file = vfs.create(&path)?;
        let begun = file.write_all_at(&header.encode(), 0).and_then(|()| file.sync_data());
        let begun = begun.and_then(|()| vfs.sync_dir(path.parent().unwrap_or(Path::new(""))));
        if let Err(error) = begun {
            // Without a commit the file means nothing; the next start removes it if this fails.
            let _ = vfs.remove(&path);
            return Err(error.into());
        }
        Ok(Self::at(path, file, header, HEADER as u64, 0))
    }

    /// The path of its file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Goes on with a journal that was replayed: cuts off what was not acknowledged.
    pub(crate) fn resume(vfs: &dyn Vfs, path: PathBuf, inspected: &Inspected) -> Result<Self> {
        let file = vfs.open(&path)?;
        file.set_len(inspected.end)?;
        file.sync_data()?;
        Ok(Self::at(path, file, inspected.header, inspected.end, inspected.frames))
    }

    fn at(
        path: PathBuf,
        file: Box<dyn VfsFile>,
        header: JournalHeader,
        at: u64,
        sequence: u64,
    ) -> Self {
        let (pending, run) = (Vec::new(), None);
        let durable = sequence;
        let (bytes, writing) = (0, None);
        Self { path, file, header, at, sequence, durable, pending, run, bytes, writing }
    }

    /// Adds an event to the next frame.
    pub(crate) fn add(&mut self, event: Event<'_>) {
        if let Event::Objects(run) = event {
            match &mut self.run {
                Some(ObjectRun::Records { size, count }) if *size == run.size() => {
                    *count += run.count();
                }
                Some(ObjectRun::Filemarks { count }) if run.size() == 0 => *count += run.count(),
                _ => {
                    self.end_run();
                    self.run = Some(run);
                }
            }
            return;
        }
        // The order among objects and bytes does not matter, but that to a truncation does.
        if matches!(event, Event::Truncate(_)) {
            self.end_run();
        }
        if let Event::Chunk(chunk) = event {
            self.bytes += u64::from(chunk.len);
        }
        event.encode(&mut self.pending);
    }

    /// Tells from now on how much was written.
    pub(crate) fn tell(&mut self, writing: Writing) {
        self.writing = Some(writing);
    }

    /// So many bytes of chunks are in it already.
    pub(crate) fn resumed(&mut self, bytes: u64) {
        self.bytes = bytes;
        self.writing.iter().for_each(|writing| writing.wrote(bytes));
    }

    /// Writes what came together, for those who follow it.
    pub(crate) fn publish(&mut self) -> Result<()> {
        self.end_run();
        match self.pending.is_empty() {
            true => Ok(()),
            false => self.write_frame(None),
        }
    }

    fn end_run(&mut self) {
        if let Some(run) = self.run.take() {
            Event::Objects(run).encode(&mut self.pending);
        }
    }

    /// Writes a frame if enough has come together; called before more is added, so that memory
    /// stays bounded when writing fails.
    pub(crate) fn relieve(&mut self) -> Result<()> {
        match self.pending.len() >= FRAME_SIZE {
            true => self.write_frame(None),
            false => Ok(()),
        }
    }

    /// Writes everything as a commit and syncs it. The containers must be synced already. After a
    /// failed sync nothing is known about the file: the caller must not go on with it.
    pub(crate) fn commit(&mut self, totals: Totals) -> Result<()> {
        self.write_frame(Some(totals))?;
        self.file.sync_data()?;
        self.durable = self.sequence;
        Ok(())
    }

    /// Writes what is pending as one frame, with totals as a commit. On an error it stays pending.
    fn write_frame(&mut self, commit: Option<Totals>) -> Result<()> {
        self.end_run();
        let events = self.pending.len();
        if let Some(totals) = commit {
            Event::Totals(totals).encode(&mut self.pending);
        }
        let (generation, commit) = (self.header.generation, commit.is_some());
        let frame =
            FrameHeader::encode(generation, commit, self.sequence, self.durable, &self.pending);
        if let Err(error) = self.file.write_all_at(&frame, self.at) {
            self.pending.truncate(events);
            return Err(error.into());
        }
        self.at += frame.len() as u64;
        self.sequence += 1;
        self.pending.clear();
        self.writing.iter().for_each(|writing| writing.wrote(self.bytes));
        Ok(())
    }
}

/// Removes a journal durably, so that it can not come back after its recipe is deleted.
pub(crate) fn remove(vfs: &dyn Vfs, path: &Path) -> Result<()> {
    vfs.remove(path)?;
    if let Some(dir) = path.parent() {
        vfs.sync_dir(dir)?;
    }
    Ok(())
}

/// A journal's header and one frame with an event of each kind, of fixed content.
#[cfg(test)]
pub(crate) fn golden() -> Vec<u8> {
    use model::{CartridgeId, Digest, GenerationId, Ulid};
    let generation = GenerationId(Ulid(1 << 90));
    let cartridge = CartridgeId(Ulid(2 << 90));
    let parent = Some(GenerationId(Ulid(3 << 90)));
    let header = JournalHeader { generation, cartridge, parent, created_ms: 5 };
    let mut payload = Vec::new();
    let chunk = crate::ChunkRef { digest: Digest([7; 32]), len: 8 };
    let (objects, bytes, chunks, unique_bytes, stored_bytes) = (1, 2, 3, 4, 5);
    let totals = Totals { objects, bytes, chunks, unique_bytes, stored_bytes };
    for event in [
        Event::Truncate(9),
        Event::Tail(b"tail"),
        Event::Chunk(chunk),
        Event::Objects(ObjectRun::Records { size: 10, count: 11 }),
        Event::Objects(ObjectRun::Filemarks { count: 12 }),
        Event::Totals(totals),
    ] {
        event.encode(&mut payload);
    }
    let mut out = header.encode();
    out.extend(FrameHeader::encode(generation, true, 13, 14, &payload));
    out
}
