//! Generations that two sites hold, compared by digests: of long pieces of their lists first, and
//! where those differ of parts of them, down to the chunk.
//!
//! What a side tells rests on what is on its disk: its recipe is read and verified, and each chunk
//! is looked up or, where that is asked for, read. See
//! `docs/adr/0075-sites-are-compared-by-digests.md`.

mod asking;
mod upkeep;

#[cfg(test)]
mod tests;

use model::{Digest, GenerationId};
use store::{Depth, Recipes, Result, Store, chunk_digest, part};

pub use asking::{Answer, Comparing, Held, Question, look};

/// Chunks that are compared with one digest, where they are looked up.
const LOOKED_UP: u64 = 8192;
/// The same where they are read: 16 MiB of data.
const READ: u64 = 1024;
/// Into how many parts a piece that differs is divided.
const PARTS: u32 = 256;
/// So many chunks that differ are looked for; of a generation that differs in more it is enough.
const DIFFERENCES: u64 = 1000;
/// Bytes of a chunk's entry in a list.
const ENTRY: u64 = 44;

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Chunks that were compared.
    pub chunks: u64,
    /// Chunks that are damaged or missing here.
    pub lacking_here: u64,
    /// The same there.
    pub lacking_there: u64,
    /// Places where the lists of chunks name different ones, or where one has ended.
    pub different: u64,
    /// Records and filemarks are not the same.
    pub objects_differ: bool,
}

impl Found {
    /// Whether both sites hold the same.
    pub fn is_same(&self) -> bool {
        Self { chunks: self.chunks, ..Self::default() } == *self
    }

    fn differences(&self) -> u64 {
        self.lacking_here + self.lacking_there + self.different
    }
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let many = if self.differences() >= DIFFERENCES { " or more" } else { "" };
        let mut separate = "";
        for (count, what) in [
            (self.lacking_here, "chunks are damaged or missing here"),
            (self.lacking_there, "chunks are damaged or missing there"),
            (self.different, "chunks are other ones"),
        ] {
            if count > 0 {
                write!(f, "{separate}{count}{many} {what}")?;
                separate = ", ";
            }
        }
        match self.objects_differ {
            true => write!(f, "{separate}records and filemarks are not the same"),
            false => Ok(()),
        }
    }
}

/// How a comparison ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// The peer did not answer, or it was to stop.
    Unanswered,
    /// The peer does not have the generation, or can not read it.
    NotThere,
    /// It has.
    Found(Found),
}

/// A comparison under way.
struct Comparison<'a> {
    store: &'a Store,
    lists: Recipes,
    generation: GenerationId,
    depth: Depth,
    ask: &'a mut dyn FnMut(&Question) -> Option<Answer>,
    found: Found,
}

/// Compares a generation with what a peer holds of it. `ask` asks the peer; `pace` is called with
/// bytes that are to be read, may wait, and ends everything when it says false.
///
/// # Errors
/// The lists of this store can not be read.
pub fn compare(
    store: &Store,
    generation: GenerationId,
    depth: Depth,
    ask: &mut dyn FnMut(&Question) -> Option<Answer>,
    pace: &mut dyn FnMut(u64) -> bool,
) -> Result<Compared> {
    let lists = store.recipe(generation)?;
    let chunks = lists.info().chunks;
    let whole = Question { generation, first: 0, count: 0, parts: 1, depth };
    let theirs = match ask(&whole) {
        None => return Ok(Compared::Unanswered),
        Some(None) => return Ok(Compared::NotThere),
        Some(Some(held)) => held,
    };
    let objects_differ = theirs.objects != Some(lists.runs_digest()?);
    let different = theirs.chunks.abs_diff(chunks);
    let found = Found { objects_differ, different, ..Found::default() };
    let mut comparison = Comparison { store, lists, generation, depth, ask, found };
    let window = match depth {
        Depth::Present => LOOKED_UP,
        Depth::Read => READ,
    };
    let mut first = 0;
    while first < chunks && comparison.found.differences() < DIFFERENCES {
        let count = window.min(chunks - first);
        let bytes = match depth {
            Depth::Present => count * ENTRY,
            Depth::Read => comparison.bytes(first, count)?,
        };
        if !pace(bytes) || comparison.piece(first, count, 1)?.is_none() {
            return Ok(Compared::Unanswered);
        }
        comparison.found.chunks += count;
        first += count;
    }
    Ok(Compared::Found(comparison.found))
}

impl Comparison<'_> {
    fn bytes(&self, first: u64, count: u64) -> Result<u64> {
        let chunks = self.lists.chunks(first).take(count as usize);
        chunks.map(|chunk| Ok(u64::from(chunk?.len))).sum()
    }

    /// Compares a piece in `parts` parts, and where they differ the parts of those. `None` if the
    /// peer does not answer.
    fn piece(&mut self, first: u64, count: u64, parts: u32) -> Result<Option<()>> {
        let (generation, depth) = (self.generation, self.depth);
        let question = Question { generation, first, count: count as u32, parts, depth };
        let Some(Some(theirs)) = (self.ask)(&question) else { return Ok(None) };
        let ours = self.store.digests(&self.lists, (first, count), parts.into(), depth)?;
        let step = part(count, parts.into());
        for (n, ours) in (0..).zip(&ours) {
            let theirs = theirs.digests.get(n as usize);
            if theirs == Some(ours) || self.found.differences() >= DIFFERENCES {
                continue;
            }
            let (from, length) = (first + n * step, step.min(count - n * step));
            if length == 1 {
                self.place(from, ours, theirs)?;
            } else if self.piece(from, length, PARTS)?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }

    /// A single chunk differs: why.
    fn place(&mut self, index: u64, ours: &Digest, theirs: Option<&Digest>) -> Result<()> {
        let Some(chunk) = self.lists.chunk(index)? else { return Ok(()) };
        let found = &mut self.found;
        if *ours == chunk_digest(&chunk, false) {
            found.lacking_here += 1;
        } else if theirs == Some(&chunk_digest(&chunk, false)) {
            found.lacking_there += 1;
        } else {
            found.different += 1;
        }
        Ok(())
    }
}
