//! One question to a peer at a time, and one of a peer that is answered.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::shutdown::Shutdown;

/// How often it is looked whether the engine stops.
const LOOK: Duration = Duration::from_millis(250);

/// Who waits for answers `A`.
#[derive(Debug)]
pub(crate) struct Asking<A> {
    /// One question is under way at a time.
    turn: Mutex<()>,
    /// Who waits for the answers to which question.
    waiting: Mutex<Option<(u64, SyncSender<A>)>>,
    number: AtomicU64,
    /// One question of a peer is answered at a time; others were given up by who asked.
    answering: AtomicBool,
}

impl<A> Default for Asking<A> {
    fn default() -> Self {
        let (turn, waiting) = Default::default();
        let (number, answering) = Default::default();
        Self { turn, waiting, number, answering }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<A> Asking<A> {
    /// Asks one peer, by `send`, which is given the number of the question and says whether it
    /// could be sent; then waits, for each answer so long as `patience`, until `take` says that
    /// this was the last one. Up to `room` answers may come at once. False if they did not all
    /// come. Blocks.
    pub(crate) fn ask(
        &self,
        (room, patience): (usize, Duration),
        shutdown: &Shutdown,
        send: impl FnOnce(u64) -> bool,
        mut take: impl FnMut(A) -> bool,
    ) -> bool {
        let _turn = locked(&self.turn);
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        let (answer, answers) = sync_channel(room);
        *locked(&self.waiting) = Some((number, answer));
        let (mut all, mut heard) = (false, Instant::now());
        let sent = send(number);
        while sent && !all {
            match answers.recv_timeout(LOOK) {
                Ok(answer) => {
                    heard = Instant::now();
                    all = take(answer);
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    if heard.elapsed() > patience || shutdown.is_requested() {
                        break;
                    }
                }
            }
        }
        *locked(&self.waiting) = None;
        all
    }

    /// An answer came; with a number it counts for the question of this number alone. One that
    /// nobody waits for is dropped. Never waits.
    pub(crate) fn arrived(&self, number: Option<u64>, answer: A) {
        if let Some((asked, waiting)) = locked(&self.waiting).as_ref()
            && number.is_none_or(|number| number == *asked)
        {
            // Full: more than was asked for.
            let _ = waiting.try_send(answer);
        }
    }

    /// No answer will come any more: the link is down.
    pub(crate) fn give_up(&self) {
        *locked(&self.waiting) = None;
    }

    /// Whether a question of a peer is to be answered now: then until [`Asking::end_answer`].
    pub(crate) fn begin_answer(&self) -> bool {
        !self.answering.swap(true, Ordering::AcqRel)
    }

    /// The next question of a peer may be answered.
    pub(crate) fn end_answer(&self) {
        self.answering.store(false, Ordering::Release);
    }
}
