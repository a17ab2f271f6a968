//! Generations on their way to one site: what is wanted, what runs, what is done.
//!
//! A generation that a copy waits for is urgent: it starts at once and its frames go before all
//! others. Of the rest one runs at a time, in the order in which they were sealed. One that is
//! still written is sent ahead, as far as it is there, so that little is left when it is sealed.
//! What a broken link interrupts goes on when it is back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use link::{Replicate, TransferId};
use model::{GenerationId, JobId, SiteName};
use service::config::ReplicationStart;
use store::Growth;
use svs::{GenerationState, Replication, ReplicationState, SvsError};
use tape::{Control, TapeError};
use tokio::sync::mpsc;

use super::Ground;
use super::attempt::Attempt;
use super::bulk::Bulk;
use super::transfer::{Event, Unfinished};
use crate::engine::now_ms;

/// Urgent transfers at once.
const URGENT_MAX: usize = 4;
/// How often a waiting DMA is told how far the replication is.
const TELL_EVERY: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(200);
/// Open generations that are sent ahead at once.
const AHEAD_MAX: usize = 8;
/// A generation is sent ahead once so much of it is written, and that much more each time that it
/// was written over.
const AHEAD_FROM: u64 = 16 << 20;

/// A generation that is wanted at the site.
#[derive(Clone, Debug)]
struct Wanted {
    requested_by: String,
    urgent: bool,
    /// The same for a transfer that runs.
    hurry: Arc<AtomicBool>,
    /// The job of its first attempt.
    job: JobId,
    /// It is still written: nobody asked for it yet.
    ahead: bool,
    running: bool,
    /// Waits for the next connection.
    parked: bool,
}

impl Wanted {
    fn new(requested_by: &str) -> Self {
        Self {
            requested_by: requested_by.to_owned(),
            urgent: false,
            hurry: Arc::default(),
            job: JobId::generate(now_ms()),
            ahead: false,
            running: false,
            parked: false,
        }
    }

    /// Of those of a kind only so many run at once.
    fn kind(&self) -> Kind {
        match (self.urgent, self.ahead) {
            (true, _) => Kind::Urgent,
            (false, false) => Kind::Rest,
            (false, true) => Kind::Ahead,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Urgent,
    Rest,
    Ahead,
}

/// How far a generation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Replicated {
    /// Bytes of all records.
    pub(super) logical: u64,
    /// Of them named to the site so far.
    pub(super) named: u64,
    /// Bytes on the wire.
    pub(super) wire: u64,
}

#[derive(Default)]
struct State {
    site: Option<SiteName>,
    way: Option<Bulk>,
    wanted: BTreeMap<GenerationId, Wanted>,
    done: BTreeSet<GenerationId>,
    failed: BTreeMap<GenerationId, String>,
    /// Of those that run.
    far: BTreeMap<GenerationId, Replicated>,
    transfers: BTreeMap<TransferId, mpsc::Sender<Event>>,
    /// The same, by what they send.
    sending: BTreeMap<GenerationId, mpsc::Sender<Event>>,
    /// From how many bytes on an open generation is tried again.
    again_from: BTreeMap<GenerationId, u64>,
}

impl State {
    /// The next generation that may run now, which from now on does.
    fn next(&mut self) -> Option<(GenerationId, Wanted, Bulk)> {
        let way = self.way.clone()?;
        let runs =
            |kind| self.wanted.values().filter(move |w| w.running && w.kind() == kind).count();
        let (urgent_runs, rest_runs) = (runs(Kind::Urgent), runs(Kind::Rest));
        let ahead_runs = runs(Kind::Ahead);
        let waits = |kind: Kind| {
            let mut all = self.wanted.iter();
            all.find(|(_, w)| !w.running && !w.parked && w.kind() == kind).map(|(id, _)| *id)
        };
        let urgent = waits(Kind::Urgent).filter(|_| urgent_runs < URGENT_MAX);
        let rest = waits(Kind::Rest).filter(|_| rest_runs == 0 && urgent_runs == 0);
        let ahead = waits(Kind::Ahead).filter(|_| ahead_runs < AHEAD_MAX);
        let generation = urgent.or(rest).or(ahead)?;
        let wanted = self.wanted.get_mut(&generation)?;
        wanted.running = true;
        Some((generation, wanted.clone(), way))
    }

    /// Takes in how an attempt over `way` ended.
    fn ended(&mut self, generation: GenerationId, way: &Bulk, result: Result<(), Unfinished>) {
        self.far.remove(&generation);
        let ahead = self.wanted.get(&generation).is_some_and(|wanted| wanted.ahead);
        match result {
            Ok(()) => {
                self.wanted.remove(&generation);
                self.done.insert(generation);
            }
            // Nobody waits for it: when it is sealed it is wanted.
            Err(cause) if ahead => {
                tracing::debug!(%generation, %cause, "sending ahead has ended");
                self.wanted.remove(&generation);
                let from = self.again_from.entry(generation).or_default();
                *from = match cause {
                    Unfinished::Failed(_) | Unfinished::BadBase(_) => u64::MAX,
                    Unfinished::LinkDown => AHEAD_FROM,
                    Unfinished::Lost | Unfinished::Later(_) => from.saturating_add(AHEAD_FROM),
                };
            }
            Err(Unfinished::Lost) => {
                if let Some(wanted) = self.wanted.get_mut(&generation) {
                    wanted.running = false;
                }
            }
            Err(Unfinished::Failed(cause) | Unfinished::BadBase(cause)) => {
                self.wanted.remove(&generation);
                self.failed.insert(generation, cause);
            }
            Err(Unfinished::LinkDown | Unfinished::Later(_)) => {
                // Over the same connection it would end in the same way.
                let same = self.way.as_ref().is_some_and(|now| now.is_same(way));
                if let Some(wanted) = self.wanted.get_mut(&generation) {
                    wanted.running = false;
                    wanted.parked = same;
                }
            }
        }
    }

    /// Takes in that an open generation grew or ended; whether something may run now.
    fn grown(&mut self, growth: Growth) -> bool {
        let Growth { generation, bytes, open } = growth;
        if let Some(inbox) = self.sending.get(&generation) {
            // One that has messages to read looks at the generation as well.
            drop(inbox.try_send(Event::Grown));
        }
        if !open {
            self.again_from.remove(&generation);
            self.wanted.retain(|id, wanted| *id != generation || !wanted.ahead || wanted.running);
            return false;
        }
        let from = self.again_from.entry(generation).or_insert(AHEAD_FROM);
        if self.way.is_none() || bytes < *from || self.wanted.contains_key(&generation) {
            return false;
        }
        *from = bytes;
        let wanted = Wanted { ahead: true, ..Wanted::new("policy while-writing") };
        self.wanted.insert(generation, wanted);
        true
    }
}

struct Inner {
    ground: Arc<Ground>,
    state: Mutex<State>,
    changed: Condvar,
}

/// Brings generations to one site; clones share it.
#[derive(Clone)]
pub struct Replicator(Arc<Inner>);

impl Replicator {
    pub(super) fn new(ground: &Arc<Ground>, site: Option<SiteName>) -> Self {
        let state = Mutex::new(State { site, ..State::default() });
        let ground = Arc::clone(ground);
        let this = Self(Arc::new(Inner { ground, state, changed: Condvar::new() }));
        if this.0.ground.config.replication.start == ReplicationStart::WhileWriting {
            let weak = Arc::downgrade(&this.0);
            this.0.ground.store.watch(Arc::new(move |growth| {
                if let Some(inner) = weak.upgrade() {
                    Self(inner).grown(growth);
                }
            }));
        }
        this
    }

    /// Told by whoever writes: never waits.
    fn grown(&self, growth: Growth) {
        let may_run = self.lock().grown(growth);
        if may_run {
            self.dispatch();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ground(&self) -> &Ground {
        &self.0.ground
    }

    /// The bulk connection is there: what is unfinished goes on.
    pub(super) fn up(&self, site: &SiteName, way: Bulk) {
        {
            let mut state = self.lock();
            state.site = Some(site.clone());
            state.way = Some(way);
            state.wanted.values_mut().for_each(|wanted| wanted.parked = false);
        }
        let this = self.clone();
        // The catalogue is asked on a thread that may block.
        drop(tokio::task::spawn_blocking(move || {
            this.adopt_unfinished();
            this.dispatch();
            this.look_ahead();
        }));
    }

    /// Begins what can be sent ahead.
    fn look_ahead(&self) {
        if self.0.ground.config.replication.start == ReplicationStart::WhileWriting {
            self.0.ground.store.growing().into_iter().for_each(|growth| self.grown(growth));
        }
    }

    /// The bulk connection is gone: transfers under way end and wait.
    pub(super) fn down(&self) {
        let mut state = self.lock();
        state.way = None;
        state.transfers.clear();
        state.sending.clear();
        drop(state);
        self.0.changed.notify_all();
    }

    /// A message of the receiver.
    pub(super) async fn message(&self, message: Replicate) {
        let inbox = self.lock().transfers.get(&message.transfer).cloned();
        if let Some(inbox) = inbox {
            // A transfer that has ended needs no news.
            drop(inbox.send(Event::Peer(message.body)).await);
        }
    }

    /// Lets the messages of a transfer come, if `way` is still the way; false otherwise.
    pub(super) fn join(
        &self,
        (transfer, generation): (TransferId, GenerationId),
        inbox: mpsc::Sender<Event>,
        way: &Bulk,
    ) -> bool {
        let mut state = self.lock();
        let stands = state.way.as_ref().is_some_and(|now| now.is_same(way));
        if stands {
            state.transfers.insert(transfer, inbox.clone());
            state.sending.insert(generation, inbox);
        }
        stands
    }

    /// A transfer is over.
    pub(super) fn leave(&self, transfer: TransferId, generation: GenerationId) {
        let mut state = self.lock();
        state.transfers.remove(&transfer);
        state.sending.remove(&generation);
    }

    /// How far a generation that runs is.
    pub(super) fn note_progress(&self, generation: GenerationId, far: Replicated) {
        self.lock().far.insert(generation, far);
    }

    /// Takes over what the catalogue knows to be unfinished, and with it what the policy wants
    /// but nobody noted before a crash.
    fn adopt_unfinished(&self) {
        match self.unfinished() {
            Ok(all) => {
                for generation in all {
                    self.note(generation, "resumed after a restart", false);
                }
            }
            Err(error) => tracing::error!(%error, "unfinished replications can not be listed"),
        }
    }

    fn unfinished(&self) -> Result<Vec<GenerationId>, SvsError> {
        let Some(site) = self.lock().site.clone() else { return Ok(Vec::new()) };
        let catalogue = &self.0.ground.catalogue;
        let rows = catalogue.replications(&[])?;
        let known: BTreeMap<_, _> = rows
            .into_iter()
            .filter(|row| row.site == site)
            .map(|row| (row.generation, row.state))
            .collect();
        let open = [ReplicationState::Pending, ReplicationState::InProgress];
        let by_policy = self.0.ground.config.replication.start != ReplicationStart::Manual;
        let mut newest = BTreeMap::new();
        for row in catalogue.all_generations()? {
            if row.state == GenerationState::Sealed {
                newest.insert(row.cartridge, row.id);
            }
        }
        let missed = newest.into_values().filter(|id| by_policy && !known.contains_key(id));
        let mut all: Vec<_> = missed.collect();
        let unfinished = known.iter().filter(|(_, state)| open.contains(state));
        all.extend(unfinished.map(|(id, _)| *id));
        Ok(all)
    }

    /// Wants a generation at the site, some time: written down first. Blocks on the catalogue.
    pub fn want(&self, generation: GenerationId, requested_by: &str) {
        // A site that was never met has no name yet; what it lacks is found when it is met.
        let wanted = self.lock().wanted.get(&generation).cloned();
        let wanted = wanted.unwrap_or_else(|| Wanted::new(requested_by));
        let wanted = Wanted { requested_by: requested_by.to_owned(), ahead: false, ..wanted };
        if let Some(attempt) = self.attempt(generation, &wanted)
            && let Err(cause) = attempt.write_down()
        {
            tracing::error!(%generation, cause, "a wanted replication could not be written down");
        }
        self.note(generation, requested_by, false);
        self.dispatch();
    }

    fn attempt(&self, generation: GenerationId, wanted: &Wanted) -> Option<Attempt<'_>> {
        Some(Attempt {
            replicator: self,
            generation,
            site: self.lock().site.clone()?,
            requested_by: wanted.requested_by.clone(),
            urgent: Arc::clone(&wanted.hurry),
            job: wanted.job,
            ahead: wanted.ahead,
        })
    }

    fn note(&self, generation: GenerationId, by: &str, urgent: bool) {
        let mut state = self.lock();
        if state.done.contains(&generation) {
            return;
        }
        state.failed.remove(&generation);
        let new = || Wanted::new(by);
        let wanted = state.wanted.entry(generation).or_insert_with(new);
        wanted.urgent |= urgent;
        wanted.hurry.fetch_or(urgent, Ordering::Relaxed);
        wanted.parked &= !urgent;
        if std::mem::take(&mut wanted.ahead) {
            wanted.requested_by = by.to_owned();
        }
        if let Some(inbox) = state.sending.get(&generation) {
            // Its row is there now.
            drop(inbox.try_send(Event::Grown));
        }
    }

    /// Starts what may run now.
    fn dispatch(&self) {
        loop {
            let next = self.lock().next();
            let Some((generation, wanted, way)) = next else { return };
            let this = self.clone();
            let thread = std::thread::Builder::new().name("replicate".into());
            let started = thread.spawn(move || this.run(generation, &wanted, &way));
            if let Err(error) = started {
                tracing::error!(%error, "no thread for a replication; it waits for the next");
                if let Some(wanted) = self.lock().wanted.get_mut(&generation) {
                    wanted.running = false;
                }
                return;
            }
        }
    }

    /// One attempt at one generation, on a thread of its own.
    fn run(&self, generation: GenerationId, wanted: &Wanted, way: &Bulk) {
        let result = match self.attempt(generation, wanted) {
            Some(attempt) => attempt.run(way),
            None => Err(Unfinished::LinkDown),
        };
        self.lock().ended(generation, way, result);
        self.0.changed.notify_all();
        self.dispatch();
        // The link may have come back before this attempt saw it go.
        self.look_ahead();
    }

    /// Brings a generation to the site ahead of everything else and waits until it is committed
    /// there, as long as `alive` says nothing else. `tell` hears of it every 30 s. Blocks.
    ///
    /// # Errors
    /// Of `alive` and of the control; [`TapeError::Lost`] if the replication failed.
    pub fn ensure(
        &self,
        generation: GenerationId,
        control: &Control,
        alive: &dyn Fn() -> Result<(), TapeError>,
        tell: &mut dyn FnMut(String),
    ) -> Result<(), TapeError> {
        self.note(generation, "a copy that waits for it", true);
        self.dispatch();
        let mut told = Instant::now();
        loop {
            let text = {
                let state = self.lock();
                if state.done.contains(&generation) {
                    return Ok(());
                }
                if let Some(cause) = state.failed.get(&generation) {
                    return Err(TapeError::Lost(format!("the replication failed: {cause}")));
                }
                progress_text(&state, generation)
            };
            control.check()?;
            alive()?;
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                tell(text);
            }
            let state = self.lock();
            if state.wanted.contains_key(&generation) {
                drop(self.0.changed.wait_timeout(state, LOOK));
            }
        }
    }

    /// Whether a generation is committed at the site, as far as this run knows.
    pub fn is_done(&self, generation: GenerationId) -> bool {
        self.lock().done.contains(&generation)
    }

    /// The site says that it does not have a generation (any more): it has to go there again.
    /// Blocks on the catalogue.
    ///
    /// # Errors
    /// The catalogue can not be read or written; nothing has changed.
    pub fn forget(&self, generation: GenerationId) -> Result<(), SvsError> {
        let Some(site) = self.lock().site.clone() else { return Ok(()) };
        let catalogue = &self.0.ground.catalogue;
        if let Some(row) = catalogue.replication(generation, &site)? {
            let message = Some("the site does not have it any more".to_owned());
            let state = ReplicationState::Pending;
            catalogue.put_replication(&Replication { state, message, ..row })?;
        }
        self.lock().done.remove(&generation);
        Ok(())
    }

    /// Generations that wait or run.
    pub fn pending(&self) -> usize {
        self.lock().wanted.len()
    }
}

fn progress_text(state: &State, generation: GenerationId) -> String {
    if state.way.is_none() {
        return "the copy waits for the link to the remote site".into();
    }
    match state.far.get(&generation) {
        Some(far) => {
            let percent = far.named.saturating_mul(100) / far.logical.max(1);
            let Replicated { logical, named, wire } = far;
            format!(
                "the copy waits for its replication: {percent} %, {named} of {logical} bytes, \
                 {wire} bytes sent"
            )
        }
        None => "the copy waits for its replication to begin".into(),
    }
}

#[cfg(test)]
mod tests {
    use model::Ulid;

    use super::*;

    fn wanted(urgent: bool) -> Wanted {
        Wanted { urgent, ..Wanted::new("test") }
    }

    fn id(n: u128) -> GenerationId {
        GenerationId(Ulid(n))
    }

    fn state(all: &[(u128, bool)]) -> (State, Bulk) {
        let (way, queues) = Bulk::new();
        // The way need not lead anywhere.
        drop(queues);
        let mut state = State { way: Some(way.clone()), ..State::default() };
        state.wanted.extend(all.iter().map(|(n, urgent)| (id(*n), wanted(*urgent))));
        (state, way)
    }

    fn drain(state: &mut State) -> Vec<u128> {
        std::iter::from_fn(|| state.next()).map(|(generation, ..)| generation.0.0).collect()
    }

    #[test]
    fn urgent_generations_go_first_and_the_rest_one_by_one() {
        let (mut state, way) = state(&[(1, false), (2, false), (3, true), (4, true)]);
        assert_eq!(drain(&mut state), [3, 4]);
        state.ended(id(3), &way, Ok(()));
        assert_eq!(drain(&mut state), [], "an urgent one still runs");
        state.ended(id(4), &way, Ok(()));
        assert_eq!(drain(&mut state), [1]);
        state.wanted.extend((10..20).map(|n| (id(n), wanted(true))));
        assert_eq!(drain(&mut state).len(), URGENT_MAX);
        assert!(state.done.contains(&id(3)) && !state.done.contains(&id(1)));
    }

    #[test]
    fn what_the_link_interrupts_goes_on_over_the_next_connection_only() {
        let (mut state, way) = state(&[(1, false)]);
        assert_eq!(drain(&mut state), [1]);
        state.ended(id(1), &way, Err(Unfinished::LinkDown));
        assert_eq!(drain(&mut state), [], "the same connection would end it again");
        let (next, _queues) = Bulk::new();
        state.way = Some(next);
        state.wanted.values_mut().for_each(|wanted| wanted.parked = false);
        assert_eq!(drain(&mut state), [1]);
        // The link came back while the old attempt was still ending.
        state.ended(id(1), &way, Err(Unfinished::LinkDown));
        assert_eq!(drain(&mut state), [1]);
        state.way = None;
        state.ended(id(1), &way, Err(Unfinished::LinkDown));
        assert_eq!(drain(&mut state), []);
        assert!(state.failed.is_empty() && state.wanted.contains_key(&id(1)));
    }

    #[test]
    fn a_failure_is_told_once_and_forgotten_when_it_is_wanted_again() {
        let (mut state, way) = state(&[(1, true)]);
        assert_eq!(drain(&mut state), [1]);
        state.ended(id(1), &way, Err(Unfinished::Failed("no room".into())));
        assert_eq!(state.failed[&id(1)], "no room");
        assert!(state.wanted.is_empty() && !state.done.contains(&id(1)));
    }
}
