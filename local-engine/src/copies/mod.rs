//! Copies that this engine runs by itself, for whoever asked: no session holds them.
//!
//! ```text
//!   order   what is to be copied, checked, and written down as a job before the work
//!   mount   a drive is waited for
//!   run     the records and filemarks of a section, written and flushed
//! ```
//!
//! Such a copy never spans: the end of the medium fails it. Its row says what to do, so it begins
//! again after a restart at the place on the target where it began before.

mod mount;
mod order;
mod proof;
mod run;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::JobId;
use svs::{Ending, JobKind, JobOwner, JobState};
use tape::CancelToken;

use crate::device::{ENGINE_NEXUS, Opener};
use crate::engine::Engine;

pub use order::{Order, Purpose, Refused, Section, TapeAt};

/// Copies that run or wait at a time.
const COPIES_MAX: usize = 64;
/// Nexuses of copies begin here.
const NEXUS: u64 = ENGINE_NEXUS + 1;

/// The copies of an engine that have not ended.
#[derive(Default)]
pub struct Copies {
    running: Mutex<BTreeMap<JobId, CancelToken>>,
    nexus: AtomicU64,
    /// Whose nexus it is.
    nexuses: Mutex<BTreeMap<u64, JobId>>,
    /// Jobs that failed in this run of the engine and would fail again.
    unfit: Mutex<BTreeSet<JobId>>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Copies {
    fn running(&self) -> MutexGuard<'_, BTreeMap<JobId, CancelToken>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opener(&self, job: JobId) -> Opener {
        let nexus = NEXUS + self.nexus.fetch_add(1, Ordering::Relaxed);
        held(&self.nexuses).insert(nexus, job);
        Opener { nexus, who: format!("copy {job}") }
    }

    /// The copy that an initiator is.
    pub(crate) fn job_of(&self, nexus: u64) -> Option<JobId> {
        held(&self.nexuses).get(&nexus).copied()
    }

    /// Whether a job that failed would fail again.
    pub(crate) fn is_unfit(&self, job: JobId) -> bool {
        held(&self.unfit).contains(&job)
    }

    fn is_not_fit(&self, job: JobId) {
        held(&self.unfit).insert(job);
    }

    fn ended(&self, job: JobId) {
        self.running().remove(&job);
        held(&self.nexuses).retain(|_, it| *it != job);
    }

    /// Ends a copy at the next record; `false` if it is none of these, or has ended.
    pub fn cancel(&self, job: JobId) -> bool {
        self.running().get(&job).map(CancelToken::cancel).is_some()
    }

    /// Whether a copy runs here.
    pub fn is_running(&self, job: JobId) -> bool {
        self.running().contains_key(&job)
    }

    /// Ends all copies at their next record, without ending their jobs: they are gone on with when
    /// the engine starts again.
    pub fn stop(&self) {
        self.running().values().for_each(CancelToken::cancel);
    }
}

impl Engine {
    /// Begins a copy: checks it, writes its job, starts its thread. Blocks on the catalogue.
    ///
    /// # Errors
    /// Why it can not be; nothing was done then.
    pub fn copy(self: &Arc<Self>, order: Order) -> Result<JobId, Refused> {
        self.copy_for(order, &Purpose::Asked)
    }

    /// Begins a copy that an entry of the maps wants: job and entry are written together.
    ///
    /// # Errors
    /// As [`Engine::copy`].
    pub fn copy_for(
        self: &Arc<Self>,
        order: Order,
        purpose: &Purpose<'_>,
    ) -> Result<JobId, Refused> {
        let _turn = self.ordering.lock().unwrap_or_else(PoisonError::into_inner);
        if self.copies.running().len() >= COPIES_MAX {
            return Err(Refused::TooMany);
        }
        let (id, order) = order::write_down(self, order, purpose)?;
        self.start_copy(id, order)?;
        Ok(id)
    }

    fn start_copy(self: &Arc<Self>, id: JobId, order: Order) -> Result<(), Refused> {
        let cancel = CancelToken::new();
        self.copies.running().insert(id, cancel.clone());
        let engine = Arc::clone(self);
        let thread = std::thread::Builder::new().name("copy".into());
        let started = thread.spawn(move || {
            run::run(&engine, id, order, cancel);
            engine.copies.ended(id);
            engine.links.job_ended(id);
            engine.policy.ring();
        });
        match started {
            Ok(_) => Ok(()),
            Err(error) => {
                self.copies.running().remove(&id);
                let cause = format!("no thread: {error}");
                let ending = Ending::failed(cause.clone());
                self.ground.catalogue.finish(id, &ending).map_err(Refused::Catalogue)?;
                Err(Refused::Failed(cause))
            }
        }
    }

    /// Goes on with what the last run left. To be called once, when the devices are there.
    pub fn resume_copies(self: &Arc<Self>) -> Result<(), svs::SvsError> {
        let catalogue = &self.ground.catalogue;
        let mut jobs = catalogue.unfinished_jobs(Some(JobKind::Copy))?;
        jobs.extend(catalogue.unfinished_jobs(Some(JobKind::Migration))?);
        for job in jobs {
            let ours = job.owner == JobOwner::Engine && job.state == JobState::Pending;
            let Some(text) = job.resume.as_deref().filter(|_| ours) else { continue };
            let started = match serde_json::from_str(text) {
                Ok(order) => self.start_copy(job.id, order).map_err(|error| error.to_string()),
                Err(error) => Err(format!("its note can not be read: {error}")),
            };
            if let Err(cause) = started {
                catalogue.finish(job.id, &Ending::failed(cause))?;
            }
        }
        Ok(())
    }
}
