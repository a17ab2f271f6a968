//! One generation on its way: the store's side of `link::Sender`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use link::{
    Bases, Begin, FailWhy, Failure, Message, Replicate, ReplicateBody, Sender, SenderOutput,
    Totals, TransferId,
};
use model::{Barcode, GenerationId, JobId, LibraryName};
use serde_json::json;
use store::{GenerationInfo, Store, StoreError};
use tokio::sync::mpsc::Receiver;

use super::bulk::Bulk;
use super::packing::PackingError;
use super::recipe::{Batch, RecipeReader};

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
    /// It is being written, and what was sent is not how it goes on: it begins anew.
    #[error("the cartridge is written anew")]
    Lost,
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

/// What comes to a transfer.
#[derive(Debug)]
pub(super) enum Event {
    /// A message of the receiver.
    Peer(ReplicateBody),
    /// The generation was written on, or is sealed and in the catalogue.
    Grown,
}

/// Who follows a transfer.
pub(super) trait Watch {
    /// So much went.
    fn progress(&mut self, moved: Moved);

    /// The generation is sealed and all of it is offered; whether it may be committed there. If
    /// not, this is asked again behind the next event.
    fn sealed(&mut self) -> Result<bool, Unfinished>;
}

/// Sends one generation; blocks until it is committed there.
pub(super) fn send(
    store: &Store,
    what: &What,
    bulk: &Bulk,
    inbox: &mut Receiver<Event>,
    watch: &mut dyn Watch,
) -> Result<Moved, Unfinished> {
    let begin = begin(store, what)?;
    let mut sending = Sending {
        what,
        bulk,
        watch,
        recipe: RecipeReader::new(store, what.generation, what.level),
        sender: Sender::new(what.transfer, begin),
        asked: None,
        moved: Moved::default(),
    };
    loop {
        sending.batch()?;
        while let Some(output) = sending.sender.poll() {
            if sending.act(output)? {
                return Ok(sending.moved);
            }
        }
        if let Event::Peer(body) = inbox.blocking_recv().ok_or(Unfinished::LinkDown)? {
            sending.moved.wire += wire_length(what.transfer, &body);
            sending.sender.handle(body).map_err(Unfinished::failed)?;
        }
    }
}

struct Sending<'a> {
    what: &'a What,
    bulk: &'a Bulk,
    watch: &'a mut dyn Watch,
    recipe: RecipeReader<'a>,
    sender: Sender,
    /// A batch is asked for, to be told by this base.
    asked: Option<Option<GenerationId>>,
    moved: Moved,
}

impl Sending<'_> {
    /// Hands the batch over that is asked for, if there is one.
    fn batch(&mut self) -> Result<(), Unfinished> {
        let Some(base) = self.asked else { return Ok(()) };
        match self.recipe.batch(base, self.sender.oldest()) {
            Ok(Batch::Later) => return Ok(()),
            Ok(Batch::Offer(offer)) => self.sender.batch(offer).map_err(Unfinished::failed)?,
            Ok(Batch::End(_)) if !self.watch.sealed()? => return Ok(()),
            Ok(Batch::End(info)) => self.sender.end(totals(&info)).map_err(Unfinished::failed)?,
            Ok(Batch::Lost) => {
                let text = "the cartridge is written anew".to_owned();
                self.sender.fail(Failure { why: FailWhy::Cancelled, text });
                self.tell_end();
                return Err(Unfinished::Lost);
            }
            Err(error) => self.sender.fail(unreadable(&error)),
        }
        self.asked = None;
        Ok(())
    }

    /// Tells the receiver that it is over.
    fn tell_end(&mut self) {
        while let Some(output) = self.sender.poll() {
            if let SenderOutput::Send(message) = output {
                // A link that breaks now says the same.
                let _ = self.tell(message);
            }
        }
    }

    fn tell(&mut self, message: Replicate) -> Result<(), Unfinished> {
        let frame = Message::Replicate(message).encode();
        self.moved.wire += frame.len() as u64 + 4;
        let urgent = self.what.urgent.load(Ordering::Relaxed);
        let sent = self.bulk.send(urgent, self.what.transfer, frame);
        sent.map_err(|()| Unfinished::LinkDown)
    }

    /// Does what the machine asks for; true when it is done.
    fn act(&mut self, output: SenderOutput) -> Result<bool, Unfinished> {
        match output {
            SenderOutput::Send(message) => {
                self.tell(message)?;
                self.moved.unique = self.sender.counters().unique;
                self.moved.named = self.sender.counters().offered;
                self.watch.progress(self.moved);
            }
            SenderOutput::NeedBatch { base } => {
                let base = base.and_then(|base| self.what.bases.list().get(base as usize).copied());
                self.asked = Some(base);
                self.batch()?;
            }
            SenderOutput::NeedPack { sequence, chunks } => {
                match self.recipe.pack(sequence, &chunks) {
                    Ok(pack) => self.sender.pack(pack).map_err(Unfinished::failed)?,
                    Err(PackingError::Store(error)) => self.sender.fail(unreadable(&error)),
                    Err(error @ PackingError::Base(_)) => {
                        let text = error.to_string();
                        self.sender.fail(Failure { why: FailWhy::Base, text });
                    }
                    Err(error) => return Err(Unfinished::failed(error)),
                }
            }
            SenderOutput::Done(counters) => {
                self.moved.unique = counters.unique;
                return Ok(true);
            }
            SenderOutput::Failed(failure) if failure.why == FailWhy::Cancelled => {
                return Err(Unfinished::Later(failure.to_string()));
            }
            SenderOutput::Failed(failure) if failure.why == FailWhy::Base => {
                return Err(Unfinished::BadBase(failure.to_string()));
            }
            SenderOutput::Failed(failure) => return Err(Unfinished::failed(failure)),
        }
        Ok(false)
    }
}

fn totals(info: &GenerationInfo) -> Totals {
    let GenerationInfo { objects, bytes, chunks, unique_bytes, stored_bytes, .. } = *info;
    Totals { objects, bytes, chunks, unique: unique_bytes, stored: stored_bytes }
}

/// Which generation is sent, and as what.
#[derive(Clone, Debug)]
pub(super) struct What {
    pub(super) transfer: TransferId,
    pub(super) generation: GenerationId,
    pub(super) barcode: Option<Barcode>,
    pub(super) library: Option<LibraryName>,
    pub(super) capacity: u64,
    /// What it may be told by.
    pub(super) bases: Bases,
    /// The zstd level of what is new.
    pub(super) level: i32,
    /// The job row here; the other site uses the same id.
    pub(super) job: JobId,
    /// A copy waits for it; that may change.
    pub(super) urgent: Arc<AtomicBool>,
    /// It was not sealed when this began: the receiver writes nothing down before the end.
    pub(super) ahead: bool,
}

fn begin(store: &Store, what: &What) -> Result<Begin, Unfinished> {
    let info = store.generation(what.generation);
    let (cartridge, parent, created_ms) = match &info {
        Some(info) => (info.cartridge, info.parent, info.created_ms),
        None => store.open_header(what.generation).map_err(|_| Unfinished::Lost)?,
    };
    // So that what came there in another way is proven to be the same.
    let digest = match &info {
        Some(_) => {
            let lists = store.recipe(what.generation).map_err(|_| Unfinished::Lost)?;
            Some(lists.digest().map_err(Unfinished::failed)?.to_string())
        }
        None => None,
    };
    let attributes = json!({
        "digest": digest,
        "library": what.library,
        "capacity": what.capacity,
        "created_ms": created_ms,
        "bytes": info.map(|info| info.bytes),
        "job": what.job,
        "ahead": what.ahead,
    });
    Ok(Begin {
        generation: what.generation,
        cartridge,
        parent,
        bases: what.bases.clone(),
        barcode: what.barcode.clone(),
        attributes: attributes.to_string().into(),
    })
}

fn wire_length(transfer: TransferId, body: &ReplicateBody) -> u64 {
    let message = Replicate { transfer, body: body.clone() };
    Message::Replicate(message).encode().len() as u64 + 4
}

fn unreadable(error: &StoreError) -> Failure {
    Failure { why: FailWhy::Gone, text: error.to_string() }
}
