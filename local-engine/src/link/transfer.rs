//! One generation on its way: the store's side of `link::Sender`.

use link::{
    Begin, Chunk, ChunkData, Entry, FailWhy, Failure, Message, Offer, Replicate, ReplicateBody,
    Segment, Sender, SenderOutput, Totals, TransferId,
};
use model::{Barcode, GenerationId, JobId, LibraryName};
use serde_json::json;
use store::{Compare, GenerationInfo, ObjectRun, Piece, Recipes, Store, StoreError};
use tokio::sync::mpsc::Receiver;

use super::outbox::Bulk;

/// Chunks named in one batch: about 16 MiB of data, so that wants come back while more is offered.
const BATCH_CHUNKS: usize = 1024;

/// Why a transfer ended before its aim.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfinished {
    /// The connection is gone: it goes on over the next one.
    #[error("the link is down")]
    LinkDown,
    /// One side gave it up for now: it goes on over the next connection.
    #[error("{0}")]
    Later(String),
    /// A retry by itself would not help.
    #[error("{0}")]
    Failed(String),
}

impl Unfinished {
    /// A failure, with its cause in words.
    pub(super) fn failed(cause: impl std::fmt::Display) -> Self {
        Self::Failed(cause.to_string())
    }
}

/// What a transfer moved.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moved {
    /// Bytes of the generation that were named so far, those that the receiver had included.
    pub(super) named: u64,
    /// Bytes of the chunks that the receiver lacked, before compression.
    pub(super) unique: u64,
    /// Bytes of all its messages, both ways.
    pub(super) wire: u64,
}

/// Sends one generation; blocks until it is committed there. `progress` hears of bytes named.
pub(super) fn send(
    store: &Store,
    what: &What,
    bulk: &Bulk,
    inbox: &mut Receiver<ReplicateBody>,
    progress: &mut dyn FnMut(Moved),
) -> Result<Moved, Unfinished> {
    let gone = || Unfinished::Failed("the generation is gone".into());
    let info = store.generation(what.generation).ok_or_else(gone)?;
    let mut recipe = RecipeReader::open(store, info).map_err(Unfinished::failed)?;
    let mut sender = Sender::new(what.transfer, begin(&info, what));
    let mut moved = Moved::default();
    loop {
        while let Some(output) = sender.poll() {
            match output {
                SenderOutput::Send(message) => {
                    let frame = Message::Replicate(message).encode();
                    moved.wire += frame.len() as u64 + 4;
                    bulk.send(what.urgent, frame).map_err(|()| Unfinished::LinkDown)?;
                    moved.unique = sender.counters().unique;
                    moved.named = sender.counters().offered;
                    progress(moved);
                }
                SenderOutput::NeedBatch { runs } => match recipe.batch(store, runs) {
                    Ok(Some(offer)) => sender.batch(offer).map_err(Unfinished::failed)?,
                    Ok(None) => sender.end(recipe.totals()).map_err(Unfinished::failed)?,
                    Err(error) => sender.fail(unreadable(&error)),
                },
                SenderOutput::ReadChunk { sequence, index, digest } => {
                    match store.stored_chunk(&digest) {
                        Ok(chunk) => sender
                            .chunk(sequence, index, data(chunk))
                            .map_err(Unfinished::failed)?,
                        Err(error) => sender.fail(unreadable(&error)),
                    }
                }
                SenderOutput::Done(counters) => {
                    moved.unique = counters.unique;
                    return Ok(moved);
                }
                SenderOutput::Failed(failure) if failure.why == FailWhy::Cancelled => {
                    return Err(Unfinished::Later(failure.to_string()));
                }
                SenderOutput::Failed(failure) => return Err(Unfinished::failed(failure)),
            }
        }
        let body = inbox.blocking_recv().ok_or(Unfinished::LinkDown)?;
        moved.wire += wire_length(what.transfer, &body);
        sender.handle(body).map_err(Unfinished::failed)?;
    }
}

/// Which generation is sent, and as what.
#[derive(Clone, Debug)]
pub(super) struct What {
    pub(super) transfer: TransferId,
    pub(super) generation: GenerationId,
    pub(super) barcode: Option<Barcode>,
    pub(super) library: Option<LibraryName>,
    pub(super) capacity: u64,
    /// The job row here; the other site uses the same id.
    pub(super) job: JobId,
    /// A copy waits for it.
    pub(super) urgent: bool,
}

fn begin(info: &GenerationInfo, what: &What) -> Begin {
    let attributes = json!({
        "library": what.library,
        "capacity": what.capacity,
        "created_ms": info.created_ms,
        "unique_bytes": info.unique_bytes,
        "stored_bytes": info.stored_bytes,
        "objects": info.objects,
        "filemarks": info.filemarks,
        "bytes": info.bytes,
        "chunks": info.chunks,
        "job": what.job,
    });
    Begin {
        generation: info.id,
        cartridge: info.cartridge,
        parent: info.parent,
        barcode: what.barcode.clone(),
        attributes: attributes.to_string().into(),
    }
}

fn wire_length(transfer: TransferId, body: &ReplicateBody) -> u64 {
    let message = Replicate { transfer, body: body.clone() };
    Message::Replicate(message).encode().len() as u64 + 4
}

fn unreadable(error: &StoreError) -> Failure {
    Failure { why: FailWhy::Gone, text: error.to_string() }
}

fn data(chunk: store::StoredChunk) -> ChunkData {
    let (encoding, raw_length) = (chunk.encoding as u8, chunk.raw_len);
    ChunkData { encoding, raw_length, bytes: chunk.bytes }
}

/// Reads a recipe in batches.
struct RecipeReader {
    info: GenerationInfo,
    recipe: Recipes,
    compare: Option<Compare>,
    compared: bool,
    next_chunk: u64,
    next_run: u64,
}

impl RecipeReader {
    fn open(store: &Store, info: GenerationInfo) -> Result<Self, StoreError> {
        let recipe = store.recipe(info.id)?;
        Ok(Self { info, recipe, compare: None, compared: false, next_chunk: 0, next_run: 0 })
    }

    fn totals(&self) -> Totals {
        let GenerationInfo { objects, bytes, chunks, .. } = self.info;
        Totals { objects, bytes, chunks }
    }

    /// The next batch, `None` behind the last.
    fn batch(&mut self, store: &Store, runs: bool) -> Result<Option<Offer>, StoreError> {
        if let (true, false, Some(parent)) = (runs, self.compared, self.info.parent) {
            self.compare = Some(store.compare(self.info.id, parent)?);
        }
        self.compared = true;
        let segments = self.segments()?;
        let mut entries = Vec::new();
        let mut chunks = 0;
        while entries.len() < link::OFFER_ENTRIES_MAX && chunks < BATCH_CHUNKS {
            let Some(entry) = self.entry()? else { break };
            chunks += usize::from(matches!(entry, Entry::Chunk(_)));
            entries.push(entry);
        }
        let over = segments.is_empty() && entries.is_empty();
        Ok((!over).then_some(Offer { segments, entries }))
    }

    fn segments(&mut self) -> Result<Vec<Segment>, StoreError> {
        let runs = self.recipe.runs(self.next_run).take(link::OFFER_SEGMENTS_MAX);
        let segments: Vec<_> = runs
            .map(|run| {
                Ok(match run? {
                    ObjectRun::Records { size, count } => Segment::Records { size, count },
                    ObjectRun::Filemarks { count } => Segment::Filemarks(count),
                })
            })
            .collect::<Result<_, StoreError>>()?;
        self.next_run += segments.len() as u64;
        Ok(segments)
    }

    fn entry(&mut self) -> Result<Option<Entry>, StoreError> {
        let named = |chunk: store::ChunkRef| {
            Entry::Chunk(Chunk { digest: chunk.digest, length: chunk.len })
        };
        if let Some(compare) = &mut self.compare {
            return Ok(match compare.next().transpose()? {
                Some(Piece::Run { first, count }) => Some(Entry::Run { first, count }),
                Some(Piece::Chunk(chunk)) => Some(named(chunk)),
                None => None,
            });
        }
        let chunk = self.recipe.chunk(self.next_chunk)?;
        self.next_chunk += u64::from(chunk.is_some());
        Ok(chunk.map(named))
    }
}
