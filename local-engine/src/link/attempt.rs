//! One attempt at one generation: its job, its rows, and what they say while it runs.
//!
//! Everything is written down before it starts. An attempt that the link ended leaves pending rows
//! behind; the next one goes on under the same job, and the receiver wants only what it lacks.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use link::{Bases, TransferId};
use model::{GenerationId, JobId, SiteName, Ulid};
use service::messages;
use svs::{
    Cartridge, Catalogue, Ending, EventKind, JobKind, JobOwner, JobState, NewJob, Replication,
    ReplicationState, SvsError, Verified,
};
use tokio::sync::mpsc;

use super::bulk::Bulk;
use super::replicate::{Replicated, Replicator};
use super::transfer::{self, Moved, Unfinished, Watch, What};
use crate::engine::now_ms;

/// How often a job's bytes are written down.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// Messages of the receiver that wait for a transfer: its wants and credits are far fewer, since
/// what is under way is bounded.
const INBOX: usize = 64;

/// What an attempt is about.
pub(super) struct Attempt<'a> {
    pub(super) replicator: &'a Replicator,
    pub(super) generation: GenerationId,
    pub(super) site: SiteName,
    pub(super) requested_by: String,
    /// A copy waits for it; that may change.
    pub(super) urgent: Arc<AtomicBool>,
    /// The job of a first attempt.
    pub(super) job: JobId,
    /// It may still be written.
    pub(super) ahead: bool,
}

/// The rows of an attempt that runs. Before the generation is sealed there are none: what is sent
/// ahead is promised to nobody, and begins anew after a restart by itself.
struct Rows<'a> {
    attempt: &'a Attempt<'a>,
    written: Option<(Known, JobId)>,
    moved: Moved,
    /// Bytes on the wire of transfers of this attempt that ended.
    before: u64,
    told: Instant,
}

impl Rows<'_> {
    /// Writes down that it runs.
    fn write(&mut self) -> Result<(), Unfinished> {
        let attempt = self.attempt;
        let known = attempt.known().map_err(Unfinished::Failed)?;
        let job = attempt.job(&known).map_err(Unfinished::failed)?;
        let begun = attempt.catalogue().transition(job, JobState::InProgress, None);
        begun.map_err(Unfinished::failed)?;
        let nothing = (Moved::default(), None);
        let written = attempt.write(&known, job, ReplicationState::InProgress, nothing);
        written.map_err(Unfinished::failed)?;
        attempt.say(messages::REPLICATION_BEGINS, &known, job, &[("bytes", &known.logical)]);
        self.written = Some((known, job));
        Ok(())
    }

    /// With the transfers before this one.
    fn moved(&self) -> Moved {
        Moved { wire: self.moved.wire + self.before, ..self.moved }
    }
}

impl Watch for Rows<'_> {
    fn progress(&mut self, moved: Moved) {
        self.moved = moved;
        if let Some((known, job)) = &self.written
            && self.told.elapsed() >= PROGRESS_EVERY
        {
            self.told = Instant::now();
            self.attempt.tell(known, *job, self.moved());
        }
    }

    fn sealed(&mut self) -> Result<bool, Unfinished> {
        if self.written.is_some() {
            return Ok(true);
        }
        let row = self.attempt.catalogue().generation(self.attempt.generation);
        match row.map_err(Unfinished::failed)? {
            // Whoever writes it says so when it has.
            None => Ok(false),
            Some(_) => self.write().map(|()| true),
        }
    }
}

/// What is known of a generation before an attempt.
struct Known {
    cartridge: Option<Cartridge>,
    /// For people: `vtl0/VTA001L8`.
    source: String,
    logical: u64,
    row: Option<Replication>,
}

impl Known {
    /// Unique bytes and bytes on the wire of earlier attempts.
    fn before(&self) -> (u64, u64) {
        self.row.as_ref().map_or((0, 0), |row| (row.bytes_unique, row.bytes_wire))
    }
}

impl Attempt<'_> {
    fn catalogue(&self) -> &Catalogue {
        &self.replicator.ground().catalogue
    }

    fn known(&self) -> Result<Known, String> {
        let text = |error: SvsError| error.to_string();
        let generation = self.catalogue().generation(self.generation).map_err(text)?;
        let generation = generation.ok_or("the catalogue does not know the generation")?;
        let cartridge = self.catalogue().cartridge(generation.cartridge).map_err(text)?;
        let name = |c: &Cartridge| format!("{}/{}", c.library, c.barcode);
        let source = cartridge.as_ref().map_or_else(|| self.generation.to_string(), name);
        let row = self.catalogue().replication(self.generation, &self.site).map_err(text)?;
        Ok(Known { cartridge, source, logical: generation.logical_bytes, row })
    }

    /// The job to go on under: that of the row while it has not ended, else a new one.
    fn job(&self, known: &Known) -> Result<JobId, SvsError> {
        if let Some(id) = known.row.as_ref().and_then(|row| row.job)
            && self.catalogue().job(id)?.is_some_and(|job| !job.state.is_final())
        {
            return Ok(id);
        }
        let id = self.job;
        let ends = (known.source.clone(), self.site.to_string());
        let by = self.requested_by.clone();
        let mut job = NewJob::new(id, JobKind::Replication, JobOwner::Engine, ends, by);
        job.bytes_total = Some(known.logical);
        job.generation = Some(self.generation);
        job.cartridge = known.cartridge.as_ref().map(|cartridge| cartridge.id);
        self.catalogue().create_job(&job)?;
        Ok(id)
    }

    fn write(
        &self,
        known: &Known,
        job: JobId,
        state: ReplicationState,
        (moved, message): (Moved, Option<String>),
    ) -> Result<(), SvsError> {
        let before = known.before();
        self.catalogue().put_replication(&Replication {
            generation: self.generation,
            site: self.site.clone(),
            state,
            job: Some(job),
            bytes_logical: known.logical,
            bytes_unique: before.0 + moved.unique,
            bytes_wire: before.1 + moved.wire,
            message,
        })
    }

    /// Writes down that the generation is wanted, so that a restart does not forget it. Nothing is
    /// changed where it is under way or done. Blocks on the catalogue.
    pub(super) fn write_down(&self) -> Result<(), String> {
        let known = self.known()?;
        let stands = known.row.as_ref().is_some_and(|r| r.state != ReplicationState::Failed);
        if stands {
            return Ok(());
        }
        let text = |error: SvsError| error.to_string();
        let job = self.job(&known).map_err(text)?;
        let nothing = (Moved::default(), None);
        self.write(&known, job, ReplicationState::Pending, nothing).map_err(text)
    }

    /// Runs it. Blocks until it is committed there, has failed, or the link is down.
    pub(super) fn run(&self, way: &Bulk) -> Result<(), Unfinished> {
        let (moved, told) = (Moved::default(), Instant::now());
        let mut rows = Rows { attempt: self, written: None, moved, before: 0, told };
        if !self.ahead {
            let known = self.known().map_err(Unfinished::Failed)?;
            if known.row.as_ref().is_some_and(|row| row.state == ReplicationState::Done) {
                return Ok(());
            }
            rows.write()?;
        }
        let result = self.send(way, &mut rows);
        let moved = rows.moved();
        if let Some((known, job)) = &rows.written
            && let Err(error) = self.ended(known, *job, moved, &result)
        {
            tracing::error!(%error, "the state of a replication could not be written");
        }
        result
    }

    fn send(&self, way: &Bulk, rows: &mut Rows<'_>) -> Result<(), Unfinished> {
        let mut cause = String::new();
        for (number, bases) in self.ways_to_tell().into_iter().enumerate() {
            if number > 0 {
                let told = match bases.list().is_empty() {
                    true => "told again, without a base",
                    false => "told again, by a base that is there",
                };
                tracing::warn!(generation = %self.generation, cause, "{told}");
                rows.before += std::mem::take(&mut rows.moved).wire;
            }
            match self.send_by(bases, way, rows) {
                Err(Unfinished::BadBase(bad)) => cause = bad,
                other => return other,
            }
        }
        Err(Unfinished::Failed(cause))
    }

    /// By what it is tried to tell the generation, one after the other: by what is there as far as
    /// is known; by what may be there; without a base, when nothing is taken for granted and what
    /// is damaged there is sent again.
    fn ways_to_tell(&self) -> Vec<Bases> {
        let bases = self.bases();
        let there = |base: &GenerationId| {
            let row = self.catalogue().replication(*base, &self.site);
            row.ok().flatten().is_some_and(|row| row.state == ReplicationState::Done)
        };
        let sure = bases.first().copied().filter(there).map(Bases::Sure);
        let any = (!bases.is_empty()).then_some(Bases::Any(bases));
        sure.into_iter().chain(any).chain([Bases::Any(Vec::new())]).collect()
    }

    /// What the generation may be told by, the best first.
    fn bases(&self) -> Vec<GenerationId> {
        let store = &self.replicator.ground().store;
        let open = || store.open_header(self.generation).ok().and_then(|head| head.1);
        let parent = store.generation(self.generation).map_or_else(open, |info| info.parent);
        let done = self.catalogue().replications(&[ReplicationState::Done]);
        let there = done.unwrap_or_default().into_iter().rev();
        let there = there.filter(|row| row.site == self.site).map(|row| row.generation);
        let there = there.filter(|id| Some(*id) != parent);
        let among: Vec<_> = parent.into_iter().chain(there).collect();
        let mut bases = store.most_alike(self.generation, &among).unwrap_or_default();
        // With nothing in common the parent may still be what some bytes were before.
        bases.truncate(link::BASES_MAX - 1);
        let unlike = parent.filter(|parent| !bases.contains(parent));
        bases.extend(unlike);
        bases
    }

    fn send_by(&self, bases: Bases, way: &Bulk, rows: &mut Rows<'_>) -> Result<(), Unfinished> {
        let store = &self.replicator.ground().store;
        let cartridge = match store.generation(self.generation) {
            Some(info) => info.cartridge,
            None => store.open_header(self.generation).map_err(|_| Unfinished::Lost)?.0,
        };
        let cartridge = self.catalogue().cartridge(cartridge).map_err(Unfinished::failed)?;
        let cartridge = cartridge.as_ref();
        let what = What {
            transfer: TransferId(Ulid::generate(now_ms())),
            generation: self.generation,
            barcode: cartridge.map(|c| c.barcode.clone()),
            library: cartridge.map(|c| c.library.clone()),
            capacity: cartridge.map_or(0, |c| c.capacity),
            bases,
            level: self.replicator.ground().config.replication.compression,
            job: rows.written.as_ref().map_or(self.job, |(_, job)| *job),
            urgent: Arc::clone(&self.urgent),
            ahead: rows.written.is_none(),
        };
        let (messages, mut inbox) = mpsc::channel(INBOX);
        if !self.replicator.join((what.transfer, self.generation), messages, way) {
            return Err(Unfinished::LinkDown);
        }
        let result = transfer::send(store, &what, way, &mut inbox, rows);
        self.replicator.leave(what.transfer, self.generation);
        rows.moved = result?;
        Ok(())
    }

    fn tell(&self, known: &Known, job: JobId, moved: Moved) {
        let far = Replicated {
            logical: known.logical,
            named: moved.named.min(known.logical),
            wire: known.before().1 + moved.wire,
        };
        self.replicator.note_progress(self.generation, far);
        let progress = svs::Progress { bytes: far.named, bytes_total: None };
        let written = self
            .write(known, job, ReplicationState::InProgress, (moved, None))
            .and_then(|()| self.catalogue().progress(job, progress));
        if let Err(error) = written {
            tracing::warn!(%error, "the progress of a replication could not be written");
        }
    }

    fn ended(
        &self,
        known: &Known,
        job: JobId,
        moved: Moved,
        result: &Result<(), Unfinished>,
    ) -> Result<(), SvsError> {
        let catalogue = self.catalogue();
        match result {
            Ok(()) => {
                self.write(known, job, ReplicationState::Done, (moved, None))?;
                catalogue.finish(job, &Ending::done(known.logical, Verified::None))?;
                // A source may be locked until now.
                self.replicator.ground().policy.ring();
                let before = known.before();
                let (unique, wire) = (before.0 + moved.unique, before.1 + moved.wire);
                let (generation, site) = (self.generation, &self.site);
                tracing::debug!(%generation, %site, unique, wire, "replicated");
                self.say(
                    messages::REPLICATION_DONE,
                    known,
                    job,
                    &[("logical", &known.logical), ("unique", &unique), ("wire", &wire)],
                );
            }
            Err(Unfinished::Failed(cause)) => {
                let failed = (moved, Some(cause.clone()));
                self.write(known, job, ReplicationState::Failed, failed)?;
                catalogue.finish(job, &Ending::failed(cause.as_str()))?;
                self.say(messages::REPLICATION_FAILED, known, job, &[("cause", cause)]);
            }
            Err(waits) => {
                let pending = (moved, Some(waits.to_string()));
                self.write(known, job, ReplicationState::Pending, pending)?;
                let message = Some("goes on when the link is back");
                catalogue.transition(job, JobState::Pending, message)?;
                self.say(messages::REPLICATION_INTERRUPTED, known, job, &[("cause", waits)]);
            }
        }
        Ok(())
    }

    fn say(
        &self,
        id: &str,
        known: &Known,
        job: JobId,
        more: &[(&'static str, &dyn std::fmt::Display)],
    ) {
        let mut words: Vec<(&str, &dyn std::fmt::Display)> =
            vec![("cartridge", &known.source), ("site", &self.site)];
        words.extend_from_slice(more);
        let subject = job.to_string();
        messages::note(self.catalogue(), EventKind::Job, id, &words, Some(&subject));
    }
}
