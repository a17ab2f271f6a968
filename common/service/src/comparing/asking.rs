//! Questions to a peer about what it holds, and answers to those of a peer. How they are said is
//! the engine's business.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::{Digest, GenerationId};
use store::{Depth, Store};

use crate::shutdown::Shutdown;

/// So long without an answer is none.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked whether the engine stops.
const LOOK: Duration = Duration::from_millis(250);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The generation.
    pub generation: GenerationId,
    /// Index of its first chunk.
    pub first: u64,
    /// How many; with 0 the generation as a whole is asked for.
    pub count: u32,
    /// Into how many parts they are divided, at least 1.
    pub parts: u32,
    /// How closely they are looked at.
    pub depth: Depth,
}

/// What is held of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// How long the list of chunks is.
    pub chunks: u64,
    /// Over records and filemarks, if the generation as a whole was asked for.
    pub objects: Option<Digest>,
    /// Over each part: see [`Store::digests`].
    pub digests: Vec<Digest>,
}

/// An answer; `None`: there is no such generation, or it can not be read.
pub type Answer = Option<Held>;

/// Who waits for the answer to which question.
type Waiting = Option<(u64, SyncSender<Answer>)>;

/// The questions and answers of an engine.
#[derive(Debug, Default)]
pub struct Comparing {
    /// One question is under way at a time.
    turn: Mutex<()>,
    waiting: Mutex<Waiting>,
    number: AtomicU64,
    /// One question of a peer is answered at a time; others were given up by who asked.
    answering: AtomicBool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Comparing {
    /// Asks one peer, by `send`, which is given the number of the question and says whether it
    /// could be sent. `None` if no answer came. Blocks.
    pub fn ask(&self, shutdown: &Shutdown, send: impl FnOnce(u64) -> bool) -> Option<Answer> {
        let _turn = locked(&self.turn);
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        let (answer, answers) = sync_channel(1);
        *locked(&self.waiting) = Some((number, answer));
        let begun = Instant::now();
        let mut found = None;
        let sent = send(number);
        while sent && found.is_none() {
            match answers.recv_timeout(LOOK) {
                Ok(answer) => found = Some(answer),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    if begun.elapsed() > PATIENCE || shutdown.is_requested() {
                        break;
                    }
                }
            }
        }
        *locked(&self.waiting) = None;
        found
    }

    /// An answer came. One that nobody waits for is dropped. Never waits.
    pub fn arrived(&self, number: u64, answer: Answer) {
        if let Some((asked, waiting)) = locked(&self.waiting).as_ref()
            && *asked == number
        {
            // Full: it was answered before.
            let _ = waiting.try_send(answer);
        }
    }

    /// No answer will come any more: the link is down.
    pub fn give_up(&self) {
        *locked(&self.waiting) = None;
    }

    /// A peer asks: it is looked up in the background, and told by `send`.
    pub fn answer(
        self: &Arc<Self>,
        store: &Store,
        question: Question,
        send: impl FnOnce(Answer) + Send + 'static,
    ) {
        if self.answering.swap(true, Ordering::AcqRel) {
            return;
        }
        let (this, store) = (Arc::clone(self), store.clone());
        tokio::task::spawn_blocking(move || {
            let held = look(&store, &question);
            this.answering.store(false, Ordering::Release);
            send(held);
        });
    }
}

/// What a store holds of something; `None` if there is no such generation, or it can not be read.
pub fn look(store: &Store, question: &Question) -> Answer {
    let Question { generation, first, count, parts, depth } = *question;
    let lists = store.recipe(generation).ok()?;
    let chunks = lists.info().chunks;
    let found = match count {
        0 => lists.runs_digest().map(|objects| (Some(objects), Vec::new())),
        count => {
            let digests = store.digests(&lists, (first, count.into()), parts.into(), depth);
            digests.map(|digests| (None, digests))
        }
    };
    match found {
        Ok((objects, digests)) => Some(Held { chunks, objects, digests }),
        Err(error) => {
            tracing::warn!(%generation, %error, "a generation can not be compared");
            None
        }
    }
}
