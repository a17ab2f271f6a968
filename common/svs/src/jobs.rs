//! Jobs in the database.

use model::{GenerationId, JobId};
use rusqlite::{Connection, Row, Transaction, params};

use crate::catalogue::{collect, first};
use crate::text::{cut, millis_between, now, parsed, parsed_opt};
use crate::{
    Catalogue, CopyPath, Ending, Job, JobFilter, JobKind, JobState, JobStatus, NewJob, Progress,
    SvsError, Verified,
};

/// The longest text kept of a message or a name; a cause is a sentence, not a dump.
const TEXT_MAX: usize = 2048;
const RESUME_MAX: usize = 64 << 10;

impl Catalogue {
    /// Writes a job before its work starts. `false` if the id is there already (the same job, told
    /// twice by the peer): the row is left as it is.
    ///
    /// # Errors
    /// [`SvsError::Conflict`] for a final state or a resume note above 64 KiB.
    pub fn create_job(&self, job: &NewJob) -> Result<bool, SvsError> {
        self.write(|tx| insert_job(tx, job))
    }

    /// Moves a job to another state that has not ended, and returns the one it was in. The message
    /// replaces the last one; without one the last is cleared, because its cause is past.
    ///
    /// # Errors
    /// [`SvsError::NotFound`]; [`SvsError::Transition`] where [`JobState::may_become`] says no, and
    /// for a final state, which [`Catalogue::finish`] writes.
    pub fn transition(
        &self,
        id: JobId,
        to: JobState,
        message: Option<&str>,
    ) -> Result<JobState, SvsError> {
        self.write(|tx| {
            let from = state_of(tx, id)?;
            if to.is_final() || !from.may_become(to) {
                return Err(SvsError::Transition { job: id, from, to });
            }
            enter(tx, id, to, message)?;
            Ok(from)
        })
    }

    /// Notes how far a job has come. Cheap: it does not wait for the disk, so a power failure may
    /// take some of it back. A job that has ended is left alone. Call it a few times a second.
    pub fn progress(&self, id: JobId, progress: Progress) -> Result<(), SvsError> {
        self.write_relaxed(|tx| {
            tx.prepare_cached(
                "UPDATE jobs SET bytes = ?2, bytes_total = coalesce(?3, bytes_total), updated = ?4
                 WHERE id = ?1 AND ended IS NULL",
            )?
            .execute(params![
                id.to_string(),
                progress.bytes,
                progress.bytes_total,
                now()
            ])?;
            Ok(())
        })
    }

    /// Notes durably what a flush made safe: the target stands behind `object` objects, and `bytes`
    /// bytes of the job are on the medium. What a failed job reports comes from here.
    pub fn flushed(&self, id: JobId, object: u64, bytes: u64) -> Result<(), SvsError> {
        self.write(|tx| {
            let rows = tx.execute(
                "UPDATE jobs SET flushed_object = ?2, flushed_bytes = ?3,
                     bytes = max(bytes, ?3), updated = ?4
                 WHERE id = ?1",
                params![id.to_string(), object, bytes, now()],
            )?;
            one(rows, id)
        })
    }

    /// Notes who moves the bytes, and why.
    pub fn set_path(&self, id: JobId, path: CopyPath, reason: &str) -> Result<(), SvsError> {
        self.write(|tx| {
            let rows = tx.execute(
                "UPDATE jobs SET path = ?2, path_reason = ?3 WHERE id = ?1",
                params![id.to_string(), path, cut(reason, TEXT_MAX)],
            )?;
            one(rows, id)
        })
    }

    /// Replaces the text of what is read: a name became known.
    pub fn set_source(&self, id: JobId, source: &str) -> Result<(), SvsError> {
        self.write(|tx| {
            let rows = tx.execute(
                "UPDATE jobs SET source = ?2 WHERE id = ?1",
                params![id.to_string(), cut(source, TEXT_MAX)],
            )?;
            one(rows, id)
        })
    }

    /// Replaces the text of what is written: a copy went on to another tape.
    pub fn set_target(&self, id: JobId, target: &str) -> Result<(), SvsError> {
        self.write(|tx| {
            let rows = tx.execute(
                "UPDATE jobs SET target = ?2 WHERE id = ?1",
                params![id.to_string(), cut(target, TEXT_MAX)],
            )?;
            one(rows, id)
        })
    }

    /// Notes which generation a job is about, once it is sealed and known; it stays pinned until
    /// the job has ended ([`Catalogue::pinned_generations`]).
    pub fn set_generation(&self, id: JobId, generation: GenerationId) -> Result<(), SvsError> {
        self.write(|tx| {
            let rows = tx.execute(
                "UPDATE jobs SET generation = ?2 WHERE id = ?1",
                params![id.to_string(), generation.to_string()],
            )?;
            one(rows, id)
        })
    }

    /// Replaces what the owner needs to go on after a restart; at most 64 KiB.
    pub fn set_resume(&self, id: JobId, resume: &str) -> Result<(), SvsError> {
        check_resume(Some(resume))?;
        self.write(|tx| {
            let rows = tx.execute(
                "UPDATE jobs SET resume = ?2 WHERE id = ?1",
                params![id.to_string(), resume],
            )?;
            one(rows, id)
        })
    }

    /// Ends a job. Ending it again in the same way changes nothing and is `Ok`.
    ///
    /// # Errors
    /// [`SvsError::NotFound`]; [`SvsError::Transition`] if it ended otherwise, never began (for
    /// done), or if the state is not a final one.
    pub fn finish(&self, id: JobId, ending: &Ending) -> Result<(), SvsError> {
        self.write(|tx| {
            let from = state_of(tx, id)?;
            let to = ending.state;
            match from {
                _ if from == to && to.is_final() => return Ok(()),
                _ if to.is_final() && from.may_become(to) => {}
                _ => return Err(SvsError::Transition { job: id, from, to }),
            }
            enter(tx, id, to, ending.message.as_deref())?;
            tx.execute(
                "UPDATE jobs SET bytes = coalesce(?2, bytes), verified = ?3 WHERE id = ?1",
                params![id.to_string(), ending.bytes, ending.verified],
            )?;
            Ok(())
        })
    }

    /// A copy that is done was proven at the other site, which is told here afterwards. A better
    /// proof stays.
    pub fn set_verified(&self, id: JobId, verified: Verified) -> Result<(), SvsError> {
        self.write(|tx| {
            tx.execute(
                "UPDATE jobs SET verified = ?2 WHERE id = ?1 AND state = 'done'
                     AND CASE verified WHEN 'none' THEN 0 WHEN 'position' THEN 1 ELSE 2 END < ?3",
                params![id.to_string(), verified, verified as u8],
            )?;
            Ok(())
        })
    }

    /// One job with everything on record.
    pub fn job(&self, id: JobId) -> Result<Option<Job>, SvsError> {
        self.read(|c| first(c, "SELECT * FROM jobs WHERE id = ?1", [id.to_string()], job_from_row))
    }

    /// The jobs that have not ended, oldest first: what a start-up looks through.
    pub fn unfinished_jobs(&self, kind: Option<JobKind>) -> Result<Vec<Job>, SvsError> {
        let kind = kind.map(JobKind::as_str);
        let sql =
            "SELECT * FROM jobs WHERE ended IS NULL AND (?1 IS NULL OR kind = ?1) ORDER BY id";
        self.read(|c| collect(c, sql, [kind], job_from_row))
    }

    /// The newest jobs with everything on record, oldest first.
    pub fn newest_jobs(&self, limit: u32) -> Result<Vec<Job>, SvsError> {
        let sql = "SELECT * FROM (SELECT * FROM jobs ORDER BY id DESC LIMIT ?1) ORDER BY id";
        self.read(|c| collect(c, sql, [limit], job_from_row))
    }

    /// The generations that an unfinished job needs: nobody may free them.
    pub fn pinned_generations(&self) -> Result<Vec<GenerationId>, SvsError> {
        let sql = "SELECT DISTINCT generation FROM jobs
                   WHERE generation IS NOT NULL AND ended IS NULL";
        self.read(|c| collect(c, sql, [], |row| parsed(row, "generation")))
    }

    /// One job as people see it.
    pub fn job_status(&self, id: JobId) -> Result<Option<JobStatus>, SvsError> {
        self.read(|c| {
            first(c, "SELECT * FROM job_status WHERE id = ?1", [id.to_string()], status_from_row)
        })
    }

    /// Jobs as people see them, oldest first.
    pub fn jobs(&self, filter: &JobFilter) -> Result<Vec<JobStatus>, SvsError> {
        // Lists of our own words (no quotes in them), searched as text: ",done,failed,".
        let list = |words: Vec<&str>| (!words.is_empty()).then(|| format!(",{},", words.join(",")));
        let states = list(filter.states.iter().map(|s| s.as_str()).collect());
        let kinds = list(filter.kinds.iter().map(|k| k.as_str()).collect());
        let sql = "SELECT * FROM (
                SELECT * FROM job_status
                WHERE (?1 IS NULL OR instr(?1, ',' || state || ','))
                  AND (?2 IS NULL OR instr(?2, ',' || kind || ','))
                  AND (?3 IS NULL OR instr(source, ?3) OR instr(target, ?3))
                ORDER BY id DESC LIMIT ?4
            ) ORDER BY id";
        let params = params![states, kinds, filter.about, filter.limit];
        self.read(|c| collect(c, sql, params, status_from_row))
    }

    /// Forgets a job that has ended; `false` if there is no such job.
    ///
    /// # Errors
    /// [`SvsError::Conflict`] while it has not ended.
    pub fn forget_job(&self, id: JobId) -> Result<bool, SvsError> {
        self.write(|tx| {
            let sql = "SELECT ended IS NOT NULL FROM jobs WHERE id = ?1";
            let key = id.to_string();
            match first(tx, sql, [&key], |row| Ok(row.get::<_, bool>(0)?))? {
                None => Ok(false),
                Some(false) => Err(SvsError::Conflict(format!("job {id} has not ended"))),
                Some(true) => Ok(tx.execute("DELETE FROM jobs WHERE id = ?1", [&key])? == 1),
            }
        })
    }

    /// Forgets ended jobs beyond the newest `keep`. Returns how many.
    pub fn prune_jobs(&self, keep: u32) -> Result<usize, SvsError> {
        self.write(|tx| {
            Ok(tx.execute(
                "DELETE FROM jobs WHERE ended IS NOT NULL AND id NOT IN
                     (SELECT id FROM jobs WHERE ended IS NOT NULL ORDER BY id DESC LIMIT ?1)",
                [keep],
            )?)
        })
    }
}

/// Writes a job inside of a transaction; see [`Catalogue::create_job`].
pub(crate) fn insert_job(tx: &Transaction<'_>, job: &NewJob) -> Result<bool, SvsError> {
    let resume = job.resume.as_deref();
    check_resume(resume)?;
    if job.state.is_final() {
        return Err(SvsError::Conflict(format!("a new job can not be {}", job.state)));
    }
    let at = now();
    let begun = !matches!(job.state, JobState::Pending | JobState::Scheduled);
    let active = (job.state == JobState::InProgress).then_some(&at);
    let rows = tx.execute(
        "INSERT INTO jobs (id, kind, owner, source, target, state, bytes_total, cartridge,
             generation, requested_by, path, path_reason, resume, created, updated,
             started, active_since)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?14, ?15, ?16)
         ON CONFLICT (id) DO NOTHING",
        params![
            job.id.to_string(),
            job.kind,
            job.owner,
            cut(&job.source, TEXT_MAX),
            cut(&job.target, TEXT_MAX),
            job.state,
            job.bytes_total,
            job.cartridge.map(String::from),
            job.generation.map(String::from),
            cut(&job.requested_by, TEXT_MAX),
            job.path,
            job.path_reason.as_deref().map(|text| cut(text, TEXT_MAX)),
            resume,
            at,
            begun.then_some(&at),
            active,
        ],
    )?;
    Ok(rows == 1)
}

fn check_resume(resume: Option<&str>) -> Result<(), SvsError> {
    match resume.is_some_and(|text| text.len() > RESUME_MAX) {
        true => Err(SvsError::Conflict("a resume note has at most 64 KiB".to_owned())),
        false => Ok(()),
    }
}

fn one(rows: usize, id: JobId) -> Result<(), SvsError> {
    if rows == 1 { Ok(()) } else { Err(SvsError::NotFound(format!("job {id}"))) }
}

/// The state of a job inside a transaction.
pub(crate) fn state_of(tx: &Connection, id: JobId) -> Result<JobState, SvsError> {
    first(tx, "SELECT state FROM jobs WHERE id = ?1", [id.to_string()], |r| parsed(r, "state"))?
        .ok_or_else(|| SvsError::NotFound(format!("job {id}")))
}

/// Writes a state that was found legal, keeping the times true: started once, ended with the end,
/// and the time in progress summed over its stretches.
pub(crate) fn enter(
    tx: &Transaction<'_>,
    id: JobId,
    to: JobState,
    message: Option<&str>,
) -> Result<(), SvsError> {
    let (at, key) = (now(), id.to_string());
    let (since, active_ms): (Option<String>, i64) =
        tx.query_row("SELECT active_since, active_ms FROM jobs WHERE id = ?1", [&key], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let runs = to == JobState::InProgress;
    let stretch = match &since {
        Some(since) if !runs => millis_between(since, &at),
        _ => 0,
    };
    let active_since = runs.then(|| since.unwrap_or_else(|| at.clone()));
    tx.prepare_cached(
        "UPDATE jobs SET state = ?2, message = ?3, updated = ?4,
             started = coalesce(started, ?5), ended = ?6, active_ms = ?7, active_since = ?8
         WHERE id = ?1",
    )?
    .execute(params![
        key,
        to,
        message.map(|text| cut(text, TEXT_MAX)),
        at,
        (!matches!(to, JobState::Pending | JobState::Scheduled)).then_some(&at),
        to.is_final().then_some(&at),
        active_ms.saturating_add(stretch),
        active_since,
    ])?;
    Ok(())
}

/// Makes a [`Job`] of a row of the table.
pub(crate) fn job_from_row(row: &Row<'_>) -> Result<Job, SvsError> {
    Ok(Job {
        id: parsed(row, "id")?,
        kind: parsed(row, "kind")?,
        owner: parsed(row, "owner")?,
        source: row.get("source")?,
        target: row.get("target")?,
        state: parsed(row, "state")?,
        bytes: row.get("bytes")?,
        bytes_total: row.get("bytes_total")?,
        flushed_object: row.get("flushed_object")?,
        flushed_bytes: row.get("flushed_bytes")?,
        cartridge: parsed_opt(row, "cartridge")?,
        generation: parsed_opt(row, "generation")?,
        requested_by: row.get("requested_by")?,
        path: parsed_opt(row, "path")?,
        path_reason: row.get("path_reason")?,
        verified: parsed(row, "verified")?,
        message: row.get("message")?,
        resume: row.get("resume")?,
        created: row.get("created")?,
        started: row.get("started")?,
        ended: row.get("ended")?,
    })
}

fn status_from_row(row: &Row<'_>) -> Result<JobStatus, SvsError> {
    Ok(JobStatus {
        id: parsed(row, "id")?,
        kind: parsed(row, "kind")?,
        source: row.get("source")?,
        target: row.get("target")?,
        state: parsed(row, "state")?,
        percent: row.get("percent")?,
        bytes: row.get("bytes")?,
        rate: row.get("rate")?,
        started: row.get("started")?,
        ended: row.get("ended")?,
        requested_by: row.get("requested_by")?,
        path: parsed_opt(row, "path")?,
        path_reason: row.get("path_reason")?,
        verified: parsed(row, "verified")?,
        message: row.get("message")?,
    })
}
