//! Several copies under one job.
//!
//! Each pair is a copy with a job of its own, which a drive, a failure or a restart concerns by
//! itself. The job of the list moves no bytes: it sums them up, and ends when all have ended.

use std::sync::Arc;
use std::time::Duration;

use model::JobId;
use serde::{Deserialize, Serialize};
use svs::{Ending, Job, JobKind, JobOwner, JobState, NewJob, Progress, Verified};

use super::{Order, Purpose, Refused, order};
use crate::engine::{Engine, now_ms};

/// How often the bytes of a list are summed up; its end is an event.
const SUM: Duration = Duration::from_millis(500);

/// What becomes of the others when one copy of a list fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnFailure {
    /// They go on.
    Continue,
    /// They are ended.
    Stop,
}

/// What the row of a list says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    parts: Vec<JobId>,
    on_failure: OnFailure,
}

impl Note {
    pub(super) fn of(job: &Job) -> Option<Self> {
        serde_json::from_str(job.resume.as_deref()?).ok()
    }
}

/// The copies of a list, if the job is one.
pub fn parts_of(job: &Job) -> Option<Vec<JobId>> {
    Note::of(job).map(|note| note.parts)
}

impl Engine {
    /// Begins several copies under one job, all or none. Blocks on the catalogue.
    ///
    /// # Errors
    /// Why one of them can not be; nothing is copied then.
    pub fn copy_list(
        self: &Arc<Self>,
        orders: Vec<Order>,
        on_failure: OnFailure,
    ) -> Result<JobId, Refused> {
        let _turn = self.ordering.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.copies.running().len() + orders.len() > super::COPIES_MAX {
            return Err(Refused::TooMany);
        }
        let mut written: Vec<(JobId, Order)> = Vec::new();
        for order in orders {
            match order::write_down(self, order, &Purpose::Asked) {
                Ok(done) => written.push(done),
                Err(refused) => {
                    for (id, _) in written {
                        let cause = "another copy of its list can not be";
                        let ended = self.ground.catalogue.finish(id, &Ending::cancelled(cause));
                        ended.map_err(Refused::Catalogue)?;
                    }
                    return Err(refused);
                }
            }
        }
        let list = self.write_list(&written, on_failure)?;
        let parts = written.iter().map(|(id, _)| *id).collect();
        for (id, order) in written {
            // One that has no thread has failed, and the list with it.
            drop(self.start_copy(id, order));
        }
        self.follow_list(list, Note { parts, on_failure })?;
        Ok(list)
    }

    fn write_list(
        &self,
        written: &[(JobId, Order)],
        on_failure: OnFailure,
    ) -> Result<JobId, Refused> {
        let first = written.first().map(|(_, order)| order);
        let first = first.ok_or_else(|| Refused::Invalid("the list is empty".into()))?;
        // No tape is called so: the tapes are those of the parts.
        let with_rest = |tape: &super::TapeAt| match written.len() {
            1 => format!("{tape} alone"),
            all => format!("{tape} and {} more", all - 1),
        };
        let ends = (with_rest(&first.source), with_rest(&first.target));
        let by = first.requested_by.clone();
        let id = JobId::generate(now_ms());
        let mut job = NewJob::new(id, JobKind::Copy, JobOwner::Engine, ends, by);
        let parts: Vec<_> = written.iter().map(|(id, _)| *id).collect();
        let totals: Option<Vec<u64>> =
            self.parts(&parts)?.iter().map(|it| it.bytes_total).collect();
        job.bytes_total = totals.map(|all| all.iter().sum());
        let note = serde_json::to_string(&Note { parts, on_failure });
        job.resume = Some(note.map_err(|error| Refused::Failed(error.to_string()))?);
        self.ground.catalogue.create_job(&job)?;
        Ok(id)
    }

    fn parts(&self, parts: &[JobId]) -> Result<Vec<Job>, svs::SvsError> {
        let rows = parts.iter().map(|id| self.ground.catalogue.job(*id));
        let rows: Result<Vec<_>, _> = rows.collect();
        Ok(rows?.into_iter().flatten().collect())
    }

    /// Sees a list through to its end, on a thread of its own.
    pub(super) fn follow_list(self: &Arc<Self>, id: JobId, note: Note) -> Result<(), Refused> {
        self.copies.lists().insert(id, note.parts.clone());
        let engine = Arc::clone(self);
        let thread = std::thread::Builder::new().name("copy-list".into());
        let started = thread.spawn(move || {
            if let Err(error) = engine.see_through(id, &note) {
                tracing::warn!(job = %id, %error, "a list of copies could not be written down");
            }
            engine.copies.lists().remove(&id);
        });
        started.map(drop).map_err(|error| Refused::Failed(format!("no thread: {error}")))
    }

    fn see_through(&self, id: JobId, note: &Note) -> Result<(), svs::SvsError> {
        let catalogue = &self.ground.catalogue;
        catalogue.transition(id, JobState::InProgress, None)?;
        let mut told = None;
        loop {
            if self.is_stopping() {
                return Ok(());
            }
            let parts = self.parts(&note.parts)?;
            let bytes = parts.iter().map(|part| part.bytes).sum();
            if parts.iter().all(|part| part.state.is_final()) {
                return catalogue.finish(id, &ending(&parts, bytes));
            }
            if told.replace(bytes) != Some(bytes) {
                catalogue.progress(id, Progress { bytes, bytes_total: None })?;
            }
            let failed = parts.iter().any(|part| part.state == JobState::Failed);
            if failed && note.on_failure == OnFailure::Stop {
                for part in &note.parts {
                    self.end_copy(*part);
                }
            }
            self.copies.wait_for_an_end(SUM);
        }
    }
}

/// How a list ends whose parts have ended.
fn ending(parts: &[Job], bytes: u64) -> Ending {
    let count = |state| parts.iter().filter(|part| part.state == state).count();
    let (failed, all) = (count(JobState::Failed), parts.len());
    let first = parts.iter().find(|part| part.state == JobState::Failed);
    let mut ending = match first {
        Some(first) => {
            let cause = first.message.as_deref().unwrap_or_default();
            let target = &first.target;
            Ending::failed(format!("{failed} of {all} copies failed; to {target}: {cause}"))
        }
        None if count(JobState::Done) == all => return Ending::done(bytes, Verified::None),
        None => {
            let done = count(JobState::Done);
            Ending::cancelled(format!("{done} of {all} copies are done, the others were ended"))
        }
    };
    ending.bytes = Some(bytes);
    ending
}
