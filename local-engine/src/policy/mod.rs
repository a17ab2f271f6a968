//! The copy map and the migration map at work.
//!
//! ```text
//!   watch    writes are noted before they are answered; a dismount rings the bell
//!   hands    what the desk of `copy::policy` can do here: find tapes, begin copies, free media
//!   admin    what an administrator asks for, checked
//! ```
//!
//! One thread looks at all entries whenever the bell rings, or when the next one is due.

pub mod admin;
mod check;
mod hands;
mod names;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use copy::policy::{Desk, Now};
use jiff::tz::TimeZone;
use svs::{MapStatus, MediumRef, SvsError};

use crate::copies::TapeAt;
use crate::engine::{Engine, now_ms};

use hands::EngineHands;

/// How long after a look that failed the next one is made, in milliseconds.
const AFTER_FAILURE: u64 = 5_000;
/// The longest sleep: clocks are changed, and another process may write to the maps.
const LONGEST: Duration = Duration::from_secs(60);

/// Wakes those who look at the maps, and those who wait for what a look brings.
#[derive(Default)]
pub struct Bell {
    state: Mutex<Rings>,
    changed: Condvar,
    orders: AtomicU64,
}

#[derive(Clone, Copy, Default)]
struct Rings {
    /// Something happened, so often.
    rung: u64,
    /// So many of them were looked at.
    seen: u64,
}

impl Bell {
    fn state(&self) -> MutexGuard<'_, Rings> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened that an entry may wait for.
    pub fn ring(&self) {
        self.state().rung += 1;
        self.changed.notify_all();
    }

    /// A copy is going to be ordered: from here on every write is noted again.
    pub(crate) fn ordered(&self) {
        self.orders.fetch_add(1, Ordering::SeqCst);
    }

    fn orders(&self) -> u64 {
        self.orders.load(Ordering::SeqCst)
    }

    /// Everything that rang before `rung` was looked at.
    fn seen(&self, rung: u64) {
        self.state().seen = rung;
        self.changed.notify_all();
    }

    /// Waits until it rang again, at most so long.
    fn rest(&self, since: u64, longest: Duration) {
        let state = self.state();
        let waiting = |state: &mut Rings| state.rung == since;
        drop(self.changed.wait_timeout_while(state, longest, waiting));
    }

    /// Waits until `done` says so, asked after every ring and every look; `false` at the deadline.
    fn wait(&self, deadline: Instant, mut done: impl FnMut() -> bool) -> bool {
        loop {
            let before = *self.state();
            if done() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let same = |now: &mut Rings| now.rung == before.rung && now.seen == before.seen;
            drop(self.changed.wait_timeout_while(self.state(), left, same));
        }
    }
}

fn now() -> Now {
    Now { ms: now_ms(), zone: TimeZone::system() }
}

/// Puts the watch before the devices and begins to look at the maps.
///
/// # Errors
/// The thread can not be started.
pub(crate) fn start(engine: &Arc<Engine>) -> std::io::Result<()> {
    engine.ground.registry.watch(Arc::new(watch::MapWatch::new(engine)));
    let (bell, engine) = (Arc::clone(&engine.policy), Arc::downgrade(engine));
    let thread = std::thread::Builder::new().name("policy".into());
    thread.spawn(move || look_for_ever(&bell, &engine))?;
    Ok(())
}

/// Ends with the engine, which rings when it is dropped.
fn look_for_ever(bell: &Bell, engine: &Weak<Engine>) {
    loop {
        let rung = bell.state().rung;
        let Some(engine) = engine.upgrade().filter(|engine| !engine.is_stopping()) else { return };
        let next = engine.look().unwrap_or_else(|error| {
            tracing::warn!(%error, "the maps can not be looked at");
            Some(now_ms() + AFTER_FAILURE)
        });
        drop(engine);
        bell.seen(rung);
        let until = next.map(|next| Duration::from_millis(next.saturating_sub(now_ms())));
        bell.rest(rung, until.unwrap_or(LONGEST).min(LONGEST));
    }
}

/// Whether a tape holds what was migrated to it.
pub(crate) fn holds_migrated(engine: &Engine, tape: &TapeAt) -> Result<bool, SvsError> {
    match names::medium(engine, tape) {
        Some(medium) => engine.ground.catalogue.holds_migrated(&medium),
        None => Ok(false),
    }
}

impl Engine {
    fn desk(self: &Arc<Self>) -> Desk<EngineHands> {
        Desk::new(Arc::clone(&self.ground.catalogue), EngineHands::new(self))
    }

    /// Looks at all entries of the maps once.
    pub(crate) fn look(self: &Arc<Self>) -> Result<Option<u64>, SvsError> {
        self.desk().look(&now())
    }

    /// A copy found its target another than it left it: it is copied anew.
    pub(crate) fn changed_by_another(&self, tape: &TapeAt, object: u64) {
        if let Some(medium) = names::medium(self, tape) {
            let noted = self.ground.catalogue.touch(&medium, object, None, now_ms());
            noted.unwrap_or_else(|error| tracing::error!(%medium, %error, "a change is not noted"));
        }
    }

    /// Waits for the copies of a medium whose entries say that its dismount does.
    pub(crate) fn wait_for_copies(&self, medium: &MediumRef) {
        let catalogue = &self.ground.catalogue;
        let entries = catalogue.copies_of(medium).unwrap_or_default();
        let Some(longest) = entries.iter().map(|entry| entry.rule.wait).max().filter(|s| *s > 0)
        else {
            return;
        };
        let begin = Instant::now();
        let rung = self.policy.state().rung;
        let settled = self.policy.wait(begin + Duration::from_secs(longest), || {
            let looked = self.policy.state().seen >= rung;
            let entries = catalogue.copies_of(medium).unwrap_or_default();
            let mut waiting = entries.iter().filter(|entry| {
                entry.rule.wait > begin.elapsed().as_secs()
                    && matches!(entry.status, MapStatus::InProgress | MapStatus::Pending)
                    && !is_waiting_for_something_else(entry)
            });
            self.is_stopping() || (looked && waiting.next().is_none())
        });
        if !settled {
            tracing::warn!(%medium, longest, "a dismount does not wait for its copy any longer");
        }
    }
}

/// Pending, and not for a reason that goes away while the dismount waits.
fn is_waiting_for_something_else(entry: &svs::CopyEntry) -> bool {
    entry.status == MapStatus::Pending && entry.message.is_some() && entry.next_try.is_none()
}
