//! Copies that this engine runs by itself, for whoever asked: no session holds them.
//!
//! ```text
//!   order   what is to be copied, checked, and written down as a job before the work
//!   mount   a drive is waited for
//!   run     the records and filemarks of a section, written and flushed
//!   list    several copies under one job
//! ```
//!
//! Such a copy never spans: the end of the medium fails it. Its row says what to do, so it begins
//! again after a restart at the place on the target where it began before.

mod list;
mod mount;
mod order;
mod proof;
mod run;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::JobId;
use svs::{Ending, JobKind, JobOwner, JobState};
use tape::CancelToken;

use crate::device::{ENGINE_NEXUS, Opener};
use crate::engine::Engine;

pub use list::{OnFailure, parts_of};
pub(crate) use order::job_with;
pub use order::{Order, Purpose, Refused, Section, TapeAt};

/// Copies that run or wait at a time.
const COPIES_MAX: usize = 64;
/// Nexuses of copies begin here.
const NEXUS: u64 = ENGINE_NEXUS + 1;

/// The copies of an engine that have not ended.
#[derive(Default)]
pub struct Copies {
    running: Mutex<BTreeMap<JobId, CancelToken>>,
    /// Signalled when a copy no longer runs.
    ended: Condvar,
    /// Copies that were told to stop for now, and what is to become of them; they may still run.
    /// Taken before `running` where both are.
    held: Mutex<BTreeMap<JobId, Wish>>,
    /// Jobs that are lists, with their copies.
    lists: Mutex<BTreeMap<JobId, Vec<JobId>>>,
    nexus: AtomicU64,
    /// Whose nexus it is.
    nexuses: Mutex<BTreeMap<u64, JobId>>,
    /// Jobs that failed in this run of the engine and would fail again.
    unfit: Mutex<BTreeSet<JobId>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What becomes of a copy that stops for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// It waits for somebody to say more.
    Wait,
    /// It goes on as soon as it has stopped.
    GoOn,
    /// It ends.
    End,
}

/// The note of a copy's row: what it is, and whether it is to go on.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Note {
    #[serde(flatten)]
    order: Order,
    #[serde(default)]
    suspended: bool,
}

impl Copies {
    fn running(&self) -> MutexGuard<'_, BTreeMap<JobId, CancelToken>> {
        locked(&self.running)
    }

    fn opener(&self, job: JobId) -> Opener {
        let nexus = NEXUS + self.nexus.fetch_add(1, Ordering::Relaxed);
        locked(&self.nexuses).insert(nexus, job);
        Opener { nexus, who: format!("copy {job}") }
    }

    /// The copy that an initiator is.
    pub(crate) fn job_of(&self, nexus: u64) -> Option<JobId> {
        locked(&self.nexuses).get(&nexus).copied()
    }

    /// Whether a job that failed would fail again.
    pub(crate) fn is_unfit(&self, job: JobId) -> bool {
        locked(&self.unfit).contains(&job)
    }

    fn is_not_fit(&self, job: JobId) {
        locked(&self.unfit).insert(job);
    }

    /// Ends a copy at the next record; `false` if it is none of these, or has ended. One that may
    /// be suspended is ended by [`Engine::end_copy`].
    pub fn cancel(&self, job: JobId) -> bool {
        self.running().get(&job).map(CancelToken::cancel).is_some()
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<JobId, Wish>> {
        locked(&self.held)
    }

    fn lists(&self) -> MutexGuard<'_, BTreeMap<JobId, Vec<JobId>>> {
        locked(&self.lists)
    }

    /// The copies that a job stands for: those of a list, or itself.
    fn parts(&self, job: JobId) -> Vec<JobId> {
        self.lists().get(&job).cloned().unwrap_or_else(|| vec![job])
    }

    /// Takes a copy off those that run, and tells who waits for that.
    fn remove(&self, job: JobId) {
        self.running().remove(&job);
        locked(&self.nexuses).retain(|_, it| *it != job);
        self.ended.notify_all();
    }

    /// Returns when a copy has ended, or after so long.
    fn wait_for_an_end(&self, patience: Duration) {
        drop(self.ended.wait_timeout(self.running(), patience));
    }

    /// Whether a copy has stopped, and its row says so, until somebody says that it goes on.
    pub fn is_suspended(&self, job: JobId) -> bool {
        self.held().get(&job).is_some_and(|wish| *wish == Wish::Wait) && !self.is_running(job)
    }

    /// Whether a copy that was cancelled only stops for now.
    fn is_held(&self, job: JobId) -> bool {
        self.held().get(&job).is_some_and(|wish| *wish != Wish::End)
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
        let _turn = locked(&self.ordering);
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
            let left = run::run(&engine, id, order, cancel);
            engine.links.job_ended(id);
            engine.copy_left(id, left);
            engine.policy.ring();
        });
        match started {
            Ok(_) => Ok(()),
            Err(error) => {
                self.copies.remove(id);
                let cause = format!("no thread: {error}");
                let ending = Ending::failed(cause.clone());
                self.ground.catalogue.finish(id, &ending).map_err(Refused::Catalogue)?;
                Err(Refused::Failed(cause))
            }
        }
    }

    /// What becomes of a copy that no longer runs.
    fn copy_left(self: &Arc<Self>, id: JobId, left: Option<Order>) {
        let wish = {
            let mut held = self.copies.held();
            self.copies.remove(id);
            match (&left, held.get(&id)) {
                (Some(_), Some(Wish::Wait)) => Some(Wish::Wait),
                _ => held.remove(&id),
            }
        };
        match (left, wish) {
            (Some(order), Some(Wish::GoOn)) => self.go_on(id, order),
            (Some(_), Some(Wish::End)) => self.end_suspended(id),
            _ => {}
        }
    }

    fn end_suspended(&self, id: JobId) {
        let ending = Ending::cancelled("cancelled by its owner while it was suspended");
        if let Err(error) = self.ground.catalogue.finish(id, &ending) {
            tracing::warn!(job = %id, %error, "the job row could not be written");
        }
        self.copies.ended.notify_all();
    }

    /// Ends a copy, or all of a list, at the next record; `false` if it is none, or has ended.
    /// Blocks on the catalogue.
    pub fn end_copy(&self, job: JobId) -> bool {
        let mut ended = false;
        for part in self.copies.parts(job) {
            let mut held = self.copies.held();
            let runs = self.copies.running().get(&part).map(CancelToken::cancel).is_some();
            let waits = match held.get_mut(&part) {
                Some(wish) if runs => {
                    *wish = Wish::End;
                    false
                }
                Some(_) => held.remove(&part).is_some(),
                None => false,
            };
            drop(held);
            if waits {
                self.end_suspended(part);
            }
            ended |= runs || waits;
        }
        // Those that wait for drives look whether they still do.
        self.ground.registry.bell().ring();
        ended
    }

    /// Lets a copy, or all of a list, stop at the next record and give its drive back; `false` if
    /// there is none that runs. It goes on by [`Engine::resume_copy`] alone, and a restart of the
    /// engine changes nothing in that.
    pub fn suspend_copy(&self, job: JobId) -> bool {
        let mut stopped = false;
        for part in self.copies.parts(job) {
            let mut held = self.copies.held();
            let running = self.copies.running();
            let Some(cancel) = running.get(&part).filter(|cancel| !cancel.is_cancelled()) else {
                continue;
            };
            held.insert(part, Wish::Wait);
            cancel.cancel();
            stopped = true;
        }
        self.ground.registry.bell().ring();
        stopped
    }

    /// Lets a suspended copy, or all of a list, go on where it began on the target; `false` if
    /// there is none. Blocks on the catalogue.
    pub fn resume_copy(self: &Arc<Self>, job: JobId) -> bool {
        let mut resumed = false;
        for part in self.copies.parts(job) {
            let mut held = self.copies.held();
            let Some(wish) = held.get_mut(&part) else { continue };
            resumed = true;
            // One that still runs goes on when it has stopped.
            if self.copies.is_running(part) {
                *wish = Wish::GoOn;
                continue;
            }
            held.remove(&part);
            drop(held);
            let row = self.ground.catalogue.job(part).ok().flatten();
            let note = row.and_then(|row| serde_json::from_str(row.resume.as_deref()?).ok());
            if let Some(Note { order, .. }) = note {
                self.go_on(part, order);
            }
        }
        resumed
    }

    /// Starts a copy whose row waits.
    fn go_on(self: &Arc<Self>, id: JobId, order: Order) {
        let note = Note { order, suspended: false };
        self.keep_note(id, &note);
        if let Err(error) = self.start_copy(id, note.order) {
            tracing::warn!(job = %id, %error, "a suspended copy does not go on");
        }
    }

    fn keep_note(&self, id: JobId, note: &Note) {
        let kept = serde_json::to_string(note).map_err(|error| error.to_string());
        let kept = kept.and_then(|text| {
            self.ground.catalogue.set_resume(id, &text).map_err(|error| error.to_string())
        });
        if let Err(error) = kept {
            tracing::warn!(job = %id, error, "the job row could not be written");
        }
    }

    /// Goes on with what the last run left. To be called once, when the devices are there.
    pub fn resume_copies(self: &Arc<Self>) -> Result<(), svs::SvsError> {
        let catalogue = &self.ground.catalogue;
        let mut lists = Vec::new();
        let mut jobs = catalogue.unfinished_jobs(Some(JobKind::Copy))?;
        jobs.extend(catalogue.unfinished_jobs(Some(JobKind::Migration))?);
        for job in jobs {
            let ours = job.owner == JobOwner::Engine && job.state == JobState::Pending;
            let Some(text) = job.resume.as_deref().filter(|_| ours) else { continue };
            if let Some(note) = list::Note::of(&job) {
                lists.push((job.id, note));
                continue;
            }
            let started = match serde_json::from_str(text) {
                Ok(Note { suspended: true, .. }) => {
                    self.copies.held().insert(job.id, Wish::Wait);
                    Ok(())
                }
                Ok(Note { order, .. }) => {
                    self.start_copy(job.id, order).map_err(|error| error.to_string())
                }
                Err(error) => Err(format!("its note can not be read: {error}")),
            };
            if let Err(cause) = started {
                catalogue.finish(job.id, &Ending::failed(cause))?;
            }
        }
        for (id, note) in lists {
            if let Err(error) = self.follow_list(id, note) {
                catalogue.finish(id, &Ending::failed(error.to_string()))?;
            }
        }
        Ok(())
    }
}
