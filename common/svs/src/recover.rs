//! What becomes of jobs when an engine starts again, and when its peer reports its facts.

use model::JobId;
use rusqlite::params;

use crate::catalogue::collect;
use crate::jobs::{enter, job_from_row, state_of};
use crate::{Catalogue, Job, JobOwner, JobState, SvsError};

/// What a restart did to one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The job as it was found.
    pub job: Job,
    /// What it is now: pending, or failed.
    pub state: JobState,
}

/// What the peer says of a job that both sites know. For what is on tape the remote is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFact {
    /// The state there.
    pub state: JobState,
    /// Bytes that the drive answered GOOD.
    pub bytes: u64,
    /// Object number and bytes of the last flush, if there was one.
    pub flushed: Option<(u64, u64)>,
    /// The cause there.
    pub message: Option<String>,
}

impl Catalogue {
    /// To be called once when an engine starts, before any work: settles every job that the last
    /// run left unfinished, in one transaction. `cause` tells people what happened ("the engine was
    /// restarted").
    ///
    /// - A job of this engine or of the peer returns to pending, to be resumed by its owner.
    /// - A job of a backup application fails, with what was flushed: its session is gone, and the
    ///   application's catalogue must not be passed behind its back.
    /// - Scheduled jobs stay scheduled. None stays in progress, waiting or paused.
    pub fn recover_after_restart(&self, cause: &str) -> Result<Vec<Recovered>, SvsError> {
        self.write(|tx| {
            // What was in progress ended when the last run last wrote, not when this one begins.
            tx.execute(
                "UPDATE jobs SET active_since = NULL, active_ms = active_ms + CAST(round(
                     (julianday(updated) - julianday(active_since)) * 86400000) AS INTEGER)
                 WHERE ended IS NULL AND active_since IS NOT NULL",
                [],
            )?;
            let sql = "SELECT * FROM jobs WHERE ended IS NULL ORDER BY id";
            let jobs = collect(tx, sql, [], job_from_row)?;
            let mut all = Vec::with_capacity(jobs.len());
            for job in jobs {
                let (state, message) = match (job.owner, job.state) {
                    (JobOwner::Dma, _) => (JobState::Failed, failure(cause, &job)),
                    (_, JobState::Pending | JobState::Scheduled) => continue,
                    _ => (JobState::Pending, format!("{cause}; to be resumed")),
                };
                enter(tx, job.id, state, Some(&message))?;
                all.push(Recovered { job, state });
            }
            Ok(all)
        })
    }

    /// Takes over what the peer knows of a job. Numbers only grow; a job that has ended here keeps
    /// its state, one that has not takes the peer's. Returns the state it has now.
    ///
    /// # Errors
    /// [`SvsError::NotFound`].
    pub fn reconcile(&self, id: JobId, fact: &PeerFact) -> Result<JobState, SvsError> {
        self.write(|tx| {
            let state = state_of(tx, id)?;
            let (object, bytes) = fact.flushed.unzip();
            tx.execute(
                "UPDATE jobs SET bytes = max(bytes, ?2),
                     flushed_object = coalesce(?3, flushed_object),
                     flushed_bytes = max(coalesce(flushed_bytes, ?4), coalesce(?4, flushed_bytes))
                 WHERE id = ?1",
                params![id.to_string(), fact.bytes, object, bytes],
            )?;
            if state.is_final() {
                return Ok(state);
            }
            enter(tx, id, fact.state, fact.message.as_deref())?;
            Ok(fact.state)
        })
    }
}

fn failure(cause: &str, job: &Job) -> String {
    match (job.flushed_bytes, job.flushed_object) {
        (Some(bytes), Some(object)) => {
            format!("{cause}; flushed to the target: {bytes} bytes, up to object {object}")
        }
        _ => format!("{cause}; nothing was flushed to the target"),
    }
}
