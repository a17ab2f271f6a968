//! What all players have done together.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// One count.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// One more.
    pub(crate) fn up(&self) {
        self.add(1);
    }

    /// So many more.
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts, and what was found wrong.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// Control connections.
    pub(crate) sessions: Count,
    /// Requests that were answered, several of a step counted once.
    pub(crate) steps: Count,
    /// Those answered with an error.
    pub(crate) refused: Count,
    /// Messages that were cut off or went unread.
    pub(crate) halves: Count,
    /// Cartridges moved.
    pub(crate) moves: Count,
    /// Streams written or read through a data connection to their end.
    pub(crate) streams: Count,
    /// Copies between movers that came to their end.
    pub(crate) copies: Count,
    /// Copies that were left in the middle.
    pub(crate) broken: Count,
    /// Bytes of the streams and copies.
    pub(crate) bytes: Count,
    failed: AtomicBool,
    wrong: Mutex<Vec<String>>,
}

impl Traffic {
    /// Something that must not be; everybody stops.
    pub(crate) fn wrong(&self, what: String) {
        println!("WRONG: {what}");
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(what);
        self.failed.store(true, Ordering::Relaxed);
    }

    /// Whether something was found.
    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Fails the test if something was found.
    pub(crate) fn check(&self) {
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// A soak in which nothing happens shows nothing.
    pub(crate) fn was_lively(&self) {
        let counts = [
            (&self.refused, 100),
            (&self.halves, 100),
            (&self.moves, 50),
            (&self.streams, 20),
            (&self.copies, 5),
            (&self.broken, 5),
        ];
        assert!(counts.iter().all(|(count, least)| count.get() >= *least), "only {self}");
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} sessions, {} steps ({} refused), {} cut messages, {} moves, {} streams, \
             {} copies, {} left in the middle, {} MiB",
            self.sessions.get(),
            self.steps.get(),
            self.refused.get(),
            self.halves.get(),
            self.moves.get(),
            self.streams.get(),
            self.copies.get(),
            self.broken.get(),
            self.bytes.get() >> 20
        )
    }
}
