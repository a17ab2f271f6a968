//! Generations on their way to one site: what is wanted, what runs, what is done.
//!
//! A generation that a copy waits for is urgent: it starts at once and its frames go before all
//! others. Of the rest one runs at a time, in the order in which they were sealed. Everything is
//! written down before it starts, and what a broken link interrupts goes on when it is back: the
//! receiver keeps its chunks and wants only what is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use link::{JobReport, Message, Replicate, ReplicateBody, TransferId};
use model::{GenerationId, JobId, SiteName, Ulid};
use service::bandwidth::{Bandwidth, Counters};
use service::config::ReplicationStart;
use service::framing::FrameWriter;
use svs::{
    Ending, GenerationState, JobKind, JobOwner, JobState, NewJob, PeerFact, Replication,
    ReplicationState, SvsError, Verified,
};
use tape::{Control, TapeError};
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;

use super::Ground;
use super::transfer::{self, Moved, What};
use crate::engine::now_ms;

/// Urgent transfers at once.
const URGENT_MAX: usize = 4;
/// Frames that wait for the bulk connection, in each of its two queues: about 1 MiB each.
const QUEUE: usize = 8;
/// How often a job's bytes are written down.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// How often a waiting DMA is told how far the replication is.
const TELL_EVERY: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(200);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The way to the bulk connection: an urgent queue and one for the rest.
#[derive(Clone)]
pub(super) struct Bulk {
    urgent: mpsc::Sender<Bytes>,
    rest: mpsc::Sender<Bytes>,
}

/// The other end of a [`Bulk`].
pub(super) struct BulkQueues {
    urgent: mpsc::Receiver<Bytes>,
    rest: mpsc::Receiver<Bytes>,
}

impl Bulk {
    pub(super) fn new() -> (Self, BulkQueues) {
        let (urgent, urgent_out) = mpsc::channel(QUEUE);
        let (rest, rest_out) = mpsc::channel(QUEUE);
        (Self { urgent, rest }, BulkQueues { urgent: urgent_out, rest: rest_out })
    }

    /// Queues a frame, waiting for room; an error when the link is down.
    pub(super) fn send(&self, urgent: bool, frame: Bytes) -> Result<(), ()> {
        let queue = if urgent { &self.urgent } else { &self.rest };
        queue.blocking_send(frame).map_err(|_| ())
    }

    /// A sign of life; data under way is one too.
    pub(super) fn ping(&self) {
        drop(self.rest.try_send(Message::Ping(0).encode()));
    }
}

/// Writes what is queued, urgent frames first.
pub(super) async fn write_bulk<W: AsyncWrite + Unpin>(
    mut writer: FrameWriter<W>,
    mut queues: BulkQueues,
    bandwidth: Bandwidth,
) -> Failure {
    loop {
        let frame = tokio::select! {
            biased;
            Some(frame) = queues.urgent.recv() => frame,
            Some(frame) = queues.rest.recv() => frame,
            else => return "the link is taken down".into(),
        };
        bandwidth.take(frame.len()).await;
        if let Err(error) = writer.write(&[&frame]).await {
            return error.into();
        }
        if queues.urgent.is_empty()
            && queues.rest.is_empty()
            && let Err(error) = writer.flush().await
        {
            return error.into();
        }
    }
}

/// A generation that is wanted at the site.
#[derive(Clone, Debug)]
struct Wanted {
    requested_by: String,
    job: Option<JobId>,
    urgent: bool,
    running: bool,
}

/// How far a generation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replicated {
    /// Bytes of all records.
    pub logical: u64,
    /// Bytes of chunks that the site lacked.
    pub unique: u64,
    /// Bytes on the wire.
    pub wire: u64,
}

#[derive(Default)]
struct State {
    site: Option<SiteName>,
    way: Option<Bulk>,
    wanted: BTreeMap<GenerationId, Wanted>,
    done: BTreeSet<GenerationId>,
    failed: BTreeMap<GenerationId, String>,
    moved: BTreeMap<GenerationId, Replicated>,
    transfers: BTreeMap<TransferId, mpsc::Sender<ReplicateBody>>,
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
        Self(Arc::new(Inner { ground: Arc::clone(ground), state, changed: Condvar::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bulk connection is there: what is unfinished goes on.
    pub(super) fn up(&self, site: &SiteName, way: Bulk, _counters: Arc<Counters>) {
        {
            let mut state = self.lock();
            state.site = Some(site.clone());
            state.way = Some(way);
        }
        let this = self.clone();
        // The catalogue is asked on a thread that may block.
        drop(tokio::task::spawn_blocking(move || {
            this.adopt_unfinished();
            this.dispatch();
        }));
    }

    /// The bulk connection is gone: transfers under way end and wait.
    pub(super) fn down(&self) {
        let mut state = self.lock();
        state.way = None;
        state.transfers.clear();
        drop(state);
        self.0.changed.notify_all();
    }

    /// A message of the receiver.
    pub(super) async fn message(&self, message: Replicate) {
        let inbox = self.lock().transfers.get(&message.transfer).cloned();
        if let Some(inbox) = inbox {
            // A transfer that has ended needs no news.
            drop(inbox.send(message.body).await);
        }
    }

    /// Takes over what the catalogue knows to be unfinished, and with it what the policy wants
    /// but nobody noted before a crash.
    fn adopt_unfinished(&self) {
        let result = self.unfinished();
        match result {
            Ok(all) => {
                for (generation, job) in all {
                    self.note(generation, "resumed after a restart", job, false);
                }
            }
            Err(error) => tracing::error!(%error, "unfinished replications can not be listed"),
        }
    }

    fn unfinished(&self) -> Result<Vec<(GenerationId, Option<JobId>)>, SvsError> {
        let Some(site) = self.lock().site.clone() else { return Ok(Vec::new()) };
        let catalogue = &self.0.ground.catalogue;
        let rows = catalogue.replications(&[])?;
        let known: BTreeMap<_, _> = rows
            .into_iter()
            .filter(|row| row.site == site)
            .map(|row| (row.generation, (row.state, row.job)))
            .collect();
        let open = [ReplicationState::Pending, ReplicationState::InProgress];
        let by_policy = self.0.ground.config.replication.start == ReplicationStart::OnUnload;
        let mut newest = BTreeMap::new();
        for row in catalogue.all_generations()? {
            if row.state == GenerationState::Sealed {
                newest.insert(row.cartridge, row.id);
            }
        }
        let missed = newest.into_values().filter(|id| by_policy && !known.contains_key(id));
        let mut all: Vec<_> = missed.map(|id| (id, None)).collect();
        let unfinished = known.iter().filter(|(_, (state, _))| open.contains(state));
        all.extend(unfinished.map(|(id, (_, job))| (*id, *job)));
        Ok(all)
    }

    /// Wants a generation at the site, some time.
    pub fn want(&self, generation: GenerationId, requested_by: &str) {
        self.note(generation, requested_by, None, false);
        self.dispatch();
    }

    fn note(&self, generation: GenerationId, by: &str, job: Option<JobId>, urgent: bool) {
        let mut state = self.lock();
        if state.done.contains(&generation) {
            return;
        }
        state.failed.remove(&generation);
        let wanted = state.wanted.entry(generation).or_insert_with(|| Wanted {
            requested_by: by.to_owned(),
            job,
            urgent,
            running: false,
        });
        wanted.urgent |= urgent;
    }

    /// Starts what may run now.
    fn dispatch(&self) {
        while let Some((generation, urgent, way)) = self.next() {
            let this = self.clone();
            let thread = std::thread::Builder::new().name("replicate".into());
            let started = thread.spawn(move || this.run(generation, urgent, &way));
            if let Err(error) = started {
                tracing::error!(%error, "no thread for a replication");
                if let Some(wanted) = self.lock().wanted.get_mut(&generation) {
                    wanted.running = false;
                }
                return;
            }
        }
    }

    fn next(&self) -> Option<(GenerationId, bool, Bulk)> {
        let mut state = self.lock();
        let way = state.way.clone()?;
        let running =
            |urgent| state.wanted.values().filter(move |w| w.running && w.urgent == urgent);
        let (urgent_runs, rest_runs) = (running(true).count(), running(false).count());
        let waits = |urgent: bool| {
            let mut all = state.wanted.iter();
            all.find(|(_, w)| !w.running && w.urgent == urgent).map(|(id, _)| *id)
        };
        let urgent = waits(true).filter(|_| urgent_runs < URGENT_MAX);
        let rest = waits(false).filter(|_| rest_runs == 0 && urgent_runs == 0);
        let generation = urgent.or(rest)?;
        let wanted = state.wanted.get_mut(&generation)?;
        wanted.running = true;
        Some((generation, wanted.urgent, way))
    }

    /// One attempt at one generation, on a thread of its own.
    fn run(&self, generation: GenerationId, urgent: bool, way: &Bulk) {
        let result = self.attempt(generation, urgent, way);
        let mut state = self.lock();
        let link_is_down = state.way.is_none();
        match result {
            Ok(moved) => {
                state.wanted.remove(&generation);
                state.done.insert(generation);
                state.moved.insert(generation, moved);
            }
            Err(cause) if link_is_down => {
                if let Some(wanted) = state.wanted.get_mut(&generation) {
                    wanted.running = false;
                }
                tracing::info!(%generation, %cause, "a replication waits for the link");
            }
            Err(cause) => {
                state.wanted.remove(&generation);
                state.failed.insert(generation, cause);
            }
        }
        drop(state);
        self.0.changed.notify_all();
        self.dispatch();
    }

    fn attempt(
        &self,
        generation: GenerationId,
        urgent: bool,
        way: &Bulk,
    ) -> Result<Replicated, String> {
        let text = |error: SvsError| error.to_string();
        let catalogue = &self.0.ground.catalogue;
        let Some(site) = self.lock().site.clone() else { return Err("no site".into()) };
        let row = catalogue.generation(generation).map_err(text)?;
        let row = row.ok_or("the catalogue does not know the generation")?;
        let known = catalogue.replication(generation, &site).map_err(text)?;
        if let Some(done) = known.as_ref().filter(|row| row.state == ReplicationState::Done) {
            return Ok(Replicated {
                logical: done.bytes_logical,
                unique: done.bytes_unique,
                wire: done.bytes_wire,
            });
        }
        let cartridge = catalogue.cartridge(row.cartridge).map_err(text)?;
        let job = self.begin_job(generation, &site, cartridge.as_ref(), row.logical_bytes)?;
        let what = What {
            transfer: TransferId(Ulid::generate(now_ms())),
            generation,
            barcode: cartridge.as_ref().map(|c| c.barcode.clone()),
            library: cartridge.as_ref().map(|c| c.library.clone()),
            capacity: cartridge.as_ref().map_or(0, |c| c.capacity),
            urgent,
        };
        let mut progress = Progress {
            replicator: self,
            job,
            generation,
            site: site.clone(),
            logical: row.logical_bytes,
            before: known.map_or(0, |row| row.bytes_wire),
            told: Instant::now(),
        };
        progress.write(ReplicationState::InProgress, Moved::default(), None).map_err(text)?;
        let (messages, mut inbox) = mpsc::channel(64);
        self.lock().transfers.insert(what.transfer, messages);
        let store = &self.0.ground.store;
        let result =
            transfer::send(store, &what, way, &mut inbox, &mut |moved| progress.tell(moved));
        self.lock().transfers.remove(&what.transfer);
        self.ended(&progress, result)
    }

    fn begin_job(
        &self,
        generation: GenerationId,
        site: &SiteName,
        cartridge: Option<&svs::Cartridge>,
        logical: u64,
    ) -> Result<JobId, String> {
        let catalogue = &self.0.ground.catalogue;
        let (known, by) = {
            let state = self.lock();
            let wanted = state.wanted.get(&generation);
            (wanted.and_then(|w| w.job), wanted.map(|w| w.requested_by.clone()))
        };
        let id = known.unwrap_or_else(|| JobId::generate(now_ms()));
        let name = |c: &svs::Cartridge| format!("{}/{}", c.library, c.barcode);
        let source = cartridge.map_or_else(|| generation.to_string(), name);
        let ends = (source, site.to_string());
        let by = by.unwrap_or_else(|| "a copy".into());
        let mut job = NewJob::new(id, JobKind::Replication, JobOwner::Engine, ends, by);
        job.bytes_total = Some(logical);
        job.generation = Some(generation);
        job.cartridge = cartridge.map(|c| c.id);
        // A job that is there already goes on under its row.
        catalogue.create_job(&job).map_err(|error| error.to_string())?;
        if let Some(wanted) = self.lock().wanted.get_mut(&generation) {
            wanted.job = Some(id);
        }
        catalogue.transition(id, JobState::InProgress, None).map_err(|error| error.to_string())?;
        Ok(id)
    }

    fn ended(
        &self,
        progress: &Progress<'_>,
        result: Result<Moved, String>,
    ) -> Result<Replicated, String> {
        let catalogue = &self.0.ground.catalogue;
        let link_is_down = self.lock().way.is_none();
        let written = match &result {
            Ok(moved) => progress.write(ReplicationState::Done, *moved, None).and_then(|()| {
                let ending = Ending::done(progress.logical, Verified::None);
                catalogue.finish(progress.job, &ending)
            }),
            Err(cause) if link_is_down => progress
                .write(ReplicationState::Pending, Moved::default(), Some(cause.clone()))
                .and_then(|()| {
                    let waits = Some("waits for the link");
                    catalogue.transition(progress.job, JobState::Pending, waits).map(drop)
                }),
            Err(cause) => progress
                .write(ReplicationState::Failed, Moved::default(), Some(cause.clone()))
                .and_then(|()| catalogue.finish(progress.job, &Ending::failed(cause.as_str()))),
        };
        if let Err(error) = written {
            tracing::error!(%error, "the state of a replication could not be written");
        }
        let moved = result.inspect_err(|cause| {
            tracing::warn!(generation = %progress.generation, %cause, "a replication has ended");
        })?;
        let (logical, unique) = (progress.logical, moved.unique);
        let wire = progress.before + moved.wire;
        tracing::info!(
            generation = %progress.generation, site = %progress.site, logical, unique, wire,
            "replicated"
        );
        Ok(Replicated { logical, unique, wire })
    }

    /// Brings a generation to the site ahead of everything else and waits until it is committed
    /// there. `tell` hears of the progress every 30 s. Blocks.
    pub fn ensure(
        &self,
        generation: GenerationId,
        control: &Control,
        tell: &mut dyn FnMut(String),
    ) -> Result<(), TapeError> {
        self.note(generation, "a copy that waits for it", None, true);
        self.dispatch();
        let mut told = Instant::now();
        let mut state = self.lock();
        loop {
            if state.done.contains(&generation) {
                return Ok(());
            }
            if let Some(cause) = state.failed.get(&generation) {
                return Err(TapeError::Lost(format!("the replication failed: {cause}")));
            }
            control.check()?;
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                let moved = state.moved.get(&generation).copied().unwrap_or_default();
                tell(match state.way {
                    Some(_) => format!("waiting for replication: {} bytes sent", moved.wire),
                    None => "waiting for the link to the remote site".into(),
                });
            }
            let wait = self.0.changed.wait_timeout(state, LOOK);
            state = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether a generation is committed at the site, as far as this run knows.
    pub fn is_done(&self, generation: GenerationId) -> bool {
        self.lock().done.contains(&generation)
    }

    /// The site says that it does not have a generation (any more).
    pub fn forget(&self, generation: GenerationId) {
        self.lock().done.remove(&generation);
    }

    /// Generations that wait or run.
    pub fn pending(&self) -> usize {
        self.lock().wanted.len()
    }
}

/// What is written down of a transfer while it runs.
struct Progress<'a> {
    replicator: &'a Replicator,
    job: JobId,
    generation: GenerationId,
    site: SiteName,
    logical: u64,
    /// Bytes on the wire of earlier attempts.
    before: u64,
    told: Instant,
}

impl Progress<'_> {
    fn tell(&mut self, moved: Moved) {
        if self.told.elapsed() < PROGRESS_EVERY {
            return;
        }
        self.told = Instant::now();
        let seen = Replicated {
            logical: self.logical,
            unique: moved.unique,
            wire: self.before + moved.wire,
        };
        self.replicator.lock().moved.insert(self.generation, seen);
        if let Err(error) = self.write(ReplicationState::InProgress, moved, None) {
            tracing::warn!(%error, "the progress of a replication could not be written");
        }
    }

    fn write(
        &self,
        state: ReplicationState,
        moved: Moved,
        message: Option<String>,
    ) -> Result<(), SvsError> {
        self.replicator.0.ground.catalogue.put_replication(&Replication {
            generation: self.generation,
            site: self.site.clone(),
            state,
            job: Some(self.job),
            bytes_logical: self.logical,
            bytes_unique: moved.unique,
            bytes_wire: self.before + moved.wire,
            message,
        })
    }
}

/// Takes over what the remote knows of a copy that ended without its session; true when it may
/// forget it.
pub(super) fn reconcile(ground: &Ground, report: &JobReport) -> bool {
    let state = if report.complete { JobState::Done } else { JobState::Failed };
    let fact = PeerFact {
        state,
        bytes: report.flushed_bytes,
        flushed: report.flushed_object.map(|object| (object, report.flushed_bytes)),
        message: Some(report.text.clone()),
    };
    match ground.catalogue.reconcile(report.job, &fact) {
        Ok(_) | Err(SvsError::NotFound(_)) => true,
        Err(error) => {
            tracing::warn!(%error, job = %report.job, "what the remote knows could not be kept");
            false
        }
    }
}
