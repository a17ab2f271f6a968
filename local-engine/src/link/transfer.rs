//! One generation on its way: the store's side of `link::Sender`.

use link::{
    Begin, FailWhy, Failure, Message, Replicate, ReplicateBody, Sender, SenderOutput, TransferId,
};
use model::{Barcode, GenerationId, JobId, LibraryName};
use serde_json::json;
use store::{GenerationInfo, Store, StoreError};
use tokio::sync::mpsc::Receiver;

use super::outbox::Bulk;
use super::recipe::{PackingError, RecipeReader};

/// Why a transfer ended before its aim.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfinished {
    /// The connection is gone: it goes on over the next one.
    #[error("the link is down")]
    LinkDown,
    /// One side gave it up for now: it goes on over the next connection.
    #[error("{0}")]
    Later(String),
    /// One side can not read the base: it goes on at once without one.
    #[error("{0}")]
    BadBase(String),
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
    let mut recipe = RecipeReader::open(store, info, what.level).map_err(Unfinished::failed)?;
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
                SenderOutput::NeedBatch { base } => {
                    let base = base.and_then(|base| what.bases.get(base as usize).copied());
                    match recipe.batch(base, sender.oldest()) {
                        Ok(Some(offer)) => sender.batch(offer).map_err(Unfinished::failed)?,
                        Ok(None) => sender.end(recipe.totals()).map_err(Unfinished::failed)?,
                        Err(error) => sender.fail(unreadable(&error)),
                    }
                }
                SenderOutput::NeedPack { sequence, chunks } => {
                    match recipe.pack(sequence, &chunks) {
                        Ok(pack) => sender.pack(pack).map_err(Unfinished::failed)?,
                        Err(PackingError::Store(error)) => sender.fail(unreadable(&error)),
                        Err(error @ PackingError::Base(_)) => {
                            let text = error.to_string();
                            sender.fail(Failure { why: FailWhy::Base, text });
                        }
                        Err(error) => return Err(Unfinished::failed(error)),
                    }
                }
                SenderOutput::Done(counters) => {
                    moved.unique = counters.unique;
                    return Ok(moved);
                }
                SenderOutput::Failed(failure) if failure.why == FailWhy::Cancelled => {
                    return Err(Unfinished::Later(failure.to_string()));
                }
                SenderOutput::Failed(failure) if failure.why == FailWhy::Base => {
                    return Err(Unfinished::BadBase(failure.to_string()));
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
    /// What it may be told by, the best first.
    pub(super) bases: Vec<GenerationId>,
    /// The zstd level of what is new.
    pub(super) level: i32,
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
        bases: what.bases.clone(),
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
