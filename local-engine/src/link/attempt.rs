//! One attempt at one generation: its job, its rows, and what they say while it runs.
//!
//! Everything is written down before it starts. An attempt that the link ended leaves pending rows
//! behind; the next one goes on under the same job, and the receiver wants only what it lacks.

use std::time::{Duration, Instant};

use link::TransferId;
use model::{GenerationId, JobId, SiteName, Ulid};
use service::messages;
use svs::{
    Cartridge, Catalogue, Ending, EventKind, JobKind, JobOwner, JobState, NewJob, Replication,
    ReplicationState, SvsError, Verified,
};
use tokio::sync::mpsc;

use super::outbox::Bulk;
use super::replicate::{Replicated, Replicator};
use super::transfer::{self, Moved, Unfinished, What};
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
    /// A copy waits for it.
    pub(super) urgent: bool,
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
        let id = JobId::generate(now_ms());
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
        let known = self.known().map_err(Unfinished::Failed)?;
        if known.row.as_ref().is_some_and(|row| row.state == ReplicationState::Done) {
            return Ok(());
        }
        let job = self.job(&known).map_err(Unfinished::failed)?;
        let begun = self.catalogue().transition(job, JobState::InProgress, None);
        begun.map_err(Unfinished::failed)?;
        let nothing = (Moved::default(), None);
        let written = self.write(&known, job, ReplicationState::InProgress, nothing);
        written.map_err(Unfinished::failed)?;
        self.say(messages::REPLICATION_BEGINS, &known, job, &[("bytes", &known.logical)]);
        let mut moved = Moved::default();
        let result = self.send(&known, job, way, &mut moved);
        if let Err(error) = self.ended(&known, job, moved, &result) {
            tracing::error!(%error, "the state of a replication could not be written");
        }
        result
    }

    fn send(
        &self,
        known: &Known,
        job: JobId,
        way: &Bulk,
        so_far: &mut Moved,
    ) -> Result<(), Unfinished> {
        match self.send_by(self.bases(), (known, job), way, so_far) {
            // Told without a base nothing is taken for granted, and what is damaged there is sent
            // again.
            Err(Unfinished::BadBase(cause)) => {
                tracing::warn!(generation = %self.generation, cause, "told again, without a base");
                let before = so_far.wire;
                let result = self.send_by(Vec::new(), (known, job), way, so_far);
                so_far.wire += before;
                match result {
                    Err(Unfinished::BadBase(cause)) => Err(Unfinished::Failed(cause)),
                    other => other,
                }
            }
            other => other,
        }
    }

    /// What the generation may be told by, the best first.
    fn bases(&self) -> Vec<GenerationId> {
        let store = &self.replicator.ground().store;
        let info = store.generation(self.generation);
        let parent = info.and_then(|info| info.parent);
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

    fn send_by(
        &self,
        bases: Vec<GenerationId>,
        (known, job): (&Known, JobId),
        way: &Bulk,
        so_far: &mut Moved,
    ) -> Result<(), Unfinished> {
        let cartridge = known.cartridge.as_ref();
        let what = What {
            transfer: TransferId(Ulid::generate(now_ms())),
            generation: self.generation,
            barcode: cartridge.map(|c| c.barcode.clone()),
            library: cartridge.map(|c| c.library.clone()),
            capacity: cartridge.map_or(0, |c| c.capacity),
            bases,
            level: self.replicator.ground().config.replication.compression,
            job,
            urgent: self.urgent,
        };
        let (messages, mut inbox) = mpsc::channel(INBOX);
        if !self.replicator.join(what.transfer, messages, way) {
            return Err(Unfinished::LinkDown);
        }
        let mut told = Instant::now();
        let store = &self.replicator.ground().store;
        let result = transfer::send(store, &what, way, &mut inbox, &mut |moved| {
            *so_far = moved;
            if told.elapsed() >= PROGRESS_EVERY {
                told = Instant::now();
                self.tell(known, job, moved);
            }
        });
        self.replicator.leave(what.transfer);
        *so_far = result?;
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
