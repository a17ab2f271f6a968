//! Questions to a peer about what it holds, and answers to those of a peer. How they are said is
//! the engine's business.

use std::sync::Arc;
use std::time::Duration;

use model::{Digest, GenerationId};
use store::{Depth, Store};

use crate::asking::Asking;
use crate::shutdown::Shutdown;

/// So long without an answer is none.
const PATIENCE: Duration = Duration::from_secs(120);

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

/// The questions and answers of an engine.
#[derive(Debug, Default)]
pub struct Comparing(Asking<Answer>);

impl Comparing {
    /// Asks one peer, by `send`, which is given the number of the question and says whether it
    /// could be sent. `None` if no answer came. Blocks.
    pub fn ask(&self, shutdown: &Shutdown, send: impl FnOnce(u64) -> bool) -> Option<Answer> {
        let mut found = None;
        let take = |answer| {
            found = Some(answer);
            true
        };
        self.0.ask((1, PATIENCE), shutdown, send, take);
        found
    }

    /// An answer came. One that nobody waits for is dropped. Never waits.
    pub fn arrived(&self, number: u64, answer: Answer) {
        self.0.arrived(Some(number), answer);
    }

    /// No answer will come any more: the link is down.
    pub fn give_up(&self) {
        self.0.give_up();
    }

    /// A peer asks: it is looked up in the background, and told by `send`.
    pub fn answer(
        self: &Arc<Self>,
        store: &Store,
        question: Question,
        send: impl FnOnce(Answer) + Send + 'static,
    ) {
        if !self.0.begin_answer() {
            return;
        }
        let (this, store) = (Arc::clone(self), store.clone());
        tokio::task::spawn_blocking(move || {
            let held = look(&store, &question);
            this.0.end_answer();
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
