//! Which medium is copied to which, when, and how far that has come.

use model::JobId;
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};

use super::{MapPolicy, MapStatus, MediumRef, media};
use crate::cartridge::found;
use crate::catalogue::{collect, first};
use crate::jobs::insert_job;
use crate::text::{cut, now, parsed, parsed_opt};
use crate::{Catalogue, NewJob, SvsError, Verified};

const MESSAGE_MAX: usize = 2048;

/// When and how an entry is acted upon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CopyRule {
    /// Of a deferred copy: when. The text of a `copy::policy::Schedule`.
    pub schedule: Option<String>,
    /// A copy is also due after so many records were written.
    pub after_records: Option<u64>,
    /// A copy is also due after so many bytes were written.
    pub after_bytes: Option<u64>,
    /// Seconds that a dismount waits for the copy; 0: it does not.
    pub wait: u64,
    /// Seconds that a write to the source waits for the replication of a copy; 0: it does not.
    pub lock_source: u64,
    /// How the target is proven.
    pub verify: Verified,
}

impl Default for CopyRule {
    fn default() -> Self {
        Self {
            schedule: None,
            after_records: None,
            after_bytes: None,
            wait: 0,
            lock_source: 0,
            verify: Verified::Position,
        }
    }
}

/// A row of `copy_map`: both media keep the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyEntry {
    /// What is copied.
    pub source_medium: MediumRef,
    /// Where to.
    pub target_medium: MediumRef,
    /// When.
    pub policy: MapPolicy,
    /// How far it has come.
    pub status: MapStatus,
    /// When and how, in detail.
    pub rule: CopyRule,
    /// Asked for by a command: due now.
    pub asked: bool,
    /// So many objects at the beginning of both media are the same; `None`: all, the target is a
    /// current copy.
    pub changed_from: Option<u64>,
    /// Since when it lacks something, in milliseconds since 1970.
    pub changed_at: Option<u64>,
    /// Records that had been written to the source when it was last copied.
    pub seen_records: u64,
    /// And their bytes.
    pub seen_bytes: u64,
    /// The last job.
    pub job: Option<JobId>,
    /// How the last copy was proven.
    pub proven: Verified,
    /// RFC 3339 UTC: the end of the last copy.
    pub copied: Option<String>,
    /// Failures one after the other.
    pub attempts: u32,
    /// After a failure: not before this time, in milliseconds since 1970.
    pub next_try: Option<u64>,
    /// Why it stands where it stands.
    pub message: Option<String>,
}

impl CopyEntry {
    /// A new entry of which nothing is done.
    pub fn new(source: MediumRef, target: MediumRef, policy: MapPolicy) -> Self {
        Self {
            source_medium: source,
            target_medium: target,
            policy,
            status: MapStatus::Pending,
            rule: CopyRule::default(),
            asked: false,
            changed_from: Some(0),
            changed_at: None,
            seen_records: 0,
            seen_bytes: 0,
            job: None,
            proven: Verified::None,
            copied: None,
            attempts: 0,
            next_try: None,
            message: None,
        }
    }
}

/// The beginning of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyStart<'a> {
    /// Whose entry.
    pub source: &'a MediumRef,
    /// And target.
    pub target: &'a MediumRef,
    /// The version of the source when what is copied was chosen.
    pub version: u64,
    /// From which object on; 0 is all of it.
    pub from: u64,
    /// Records and bytes that had been written to the source in all.
    pub seen: (u64, u64),
}

/// How a copy or a migration ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The target holds it, and that is proven so.
    Done(Verified),
    /// It failed, and why; tried again at a time in milliseconds since 1970, or not by itself.
    Failed {
        /// For the operator.
        message: String,
        /// When it is tried again.
        again: Option<u64>,
    },
}

impl Catalogue {
    /// Writes an entry as an administrator wants it, or changes policy and rule of the one that is
    /// there; what was done stays.
    pub fn put_copy_entry(&self, entry: &CopyEntry) -> Result<(), SvsError> {
        let rule = &entry.rule;
        self.write(|tx| {
            tx.execute(
                "INSERT INTO copy_map (source_medium, target_medium, policy, status, schedule,
                     after_records, after_bytes, wait, lock_source, verify, created, changed_at)
                 VALUES (?1, ?2, ?3, 'pending', ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
                 ON CONFLICT (source_medium, target_medium) DO UPDATE SET policy = ?3,
                     schedule = ?4, after_records = ?5, after_bytes = ?6, wait = ?7,
                     lock_source = ?8, verify = ?9, attempts = 0, next_try = NULL,
                     status = CASE WHEN status IN ('failed', 'scheduled')
                         THEN 'pending' ELSE status END",
                params![
                    entry.source_medium.to_string(),
                    entry.target_medium.to_string(),
                    entry.policy,
                    rule.schedule,
                    rule.after_records,
                    rule.after_bytes,
                    rule.wait,
                    rule.lock_source,
                    rule.verify,
                    now(),
                    entry.changed_at,
                ],
            )?;
            Ok(())
        })
    }

    /// The whole map, by source and target.
    pub fn copy_entries(&self) -> Result<Vec<CopyEntry>, SvsError> {
        let sql = "SELECT * FROM copy_map ORDER BY source_medium, target_medium";
        self.read(|c| collect(c, sql, [], entry_from_row))
    }

    /// The entries of one source.
    pub fn copies_of(&self, source: &MediumRef) -> Result<Vec<CopyEntry>, SvsError> {
        let sql = "SELECT * FROM copy_map WHERE source_medium = ?1 ORDER BY target_medium";
        self.read(|c| collect(c, sql, [source.to_string()], entry_from_row))
    }

    /// One entry.
    pub fn copy_entry(
        &self,
        source: &MediumRef,
        target: &MediumRef,
    ) -> Result<Option<CopyEntry>, SvsError> {
        let sql = "SELECT * FROM copy_map WHERE source_medium = ?1 AND target_medium = ?2";
        self.read(|c| first(c, sql, (source.to_string(), target.to_string()), entry_from_row))
    }

    /// Removes the entry of a source and a target. What was copied stays where it is.
    pub fn remove_copy_entry(
        &self,
        source: &MediumRef,
        target: &MediumRef,
    ) -> Result<(), SvsError> {
        self.write(|tx| {
            let sql = "DELETE FROM copy_map WHERE source_medium = ?1 AND target_medium = ?2";
            let rows = tx.execute(sql, (source.to_string(), target.to_string()))?;
            found(rows, || format!("copy of {source} to {target}"))
        })
    }

    /// Notes that a copy is wanted now, whatever the policy says; the failed are tried again.
    pub fn ask_copy(&self, source: &MediumRef, target: &MediumRef) -> Result<(), SvsError> {
        self.write(|tx| {
            let rows = tx.execute(
                "UPDATE copy_map SET asked = 1, attempts = 0, next_try = NULL,
                     status = CASE WHEN status = 'in progress' THEN status ELSE 'pending' END
                 WHERE source_medium = ?1 AND target_medium = ?2",
                (source.to_string(), target.to_string()),
            )?;
            found(rows, || format!("copy of {source} to {target}"))
        })
    }

    /// Notes that an entry waits, and why. One that is in progress is left alone, and one whose
    /// source was written a moment ago is not done.
    pub fn copy_waits(
        &self,
        source: &MediumRef,
        target: &MediumRef,
        status: MapStatus,
        message: Option<&str>,
    ) -> Result<(), SvsError> {
        self.write(|tx| {
            tx.execute(
                "UPDATE copy_map SET status = ?3, message = ?4
                 WHERE source_medium = ?1 AND target_medium = ?2 AND status <> 'in progress'
                     AND (?3 <> 'done' OR changed_from IS NULL)
                     AND (status <> ?3 OR message IS NOT ?4)",
                params![
                    source.to_string(),
                    target.to_string(),
                    status,
                    message.map(|text| cut(text, MESSAGE_MAX)),
                ],
            )?;
            Ok(())
        })
    }

    /// Writes the job of a copy and that its entry is in progress, both or none. What is written to
    /// the source from here on is told apart from what is copied.
    ///
    /// # Errors
    /// [`SvsError::NotFound`] where the entry is gone or in progress, or its target holds what was
    /// migrated there, or is being migrated; [`SvsError::Conflict`] where the source was written
    /// since its version was looked at: it has to be looked at again.
    pub fn begin_copy(&self, job: &NewJob, start: &CopyStart<'_>) -> Result<(), SvsError> {
        let (source, target) = (start.source.to_string(), start.target.to_string());
        self.write(|tx| {
            if media::version(tx, &source)? != start.version {
                // From where on the two differ may be another place now.
                return Err(SvsError::Conflict(format!("{source} is being written")));
            }
            let rows =
                tx.execute(
                    "UPDATE copy_map SET status = 'in progress', asked = 0, job = ?3,
                     touched_from = NULL, message = NULL, proven = 'none',
                     changed_from = min(coalesce(changed_from, ?4), ?4),
                     seen_records = ?5, seen_bytes = ?6
                 WHERE source_medium = ?1 AND target_medium = ?2 AND status <> 'in progress'
                     AND NOT EXISTS (SELECT 1 FROM media WHERE moved_to = ?2)
                     AND NOT EXISTS (SELECT 1 FROM migration_map
                         WHERE migration_medium = ?2 AND status = 'in progress')",
                    params![
                        source,
                        target,
                        job.id.to_string(),
                        start.from,
                        start.seen.0,
                        start.seen.1,
                    ],
                )?;
            if rows == 0 {
                let gone = format!("copy of {source} to {target} that can begin");
                return Err(SvsError::NotFound(gone));
            }
            insert_job(tx, job)?;
            Ok(())
        })
    }

    /// Ends what [`Catalogue::begin_copy`] began. `false` if another job, or none, is under way.
    pub fn settle_copy(
        &self,
        source: &MediumRef,
        target: &MediumRef,
        job: JobId,
        how: &Settled,
    ) -> Result<bool, SvsError> {
        let key = (source.to_string(), target.to_string(), job.to_string());
        self.write(|tx| {
            let rows = match how {
                Settled::Done(verified) => tx.execute(
                    "UPDATE copy_map SET changed_from = touched_from,
                         status = CASE WHEN touched_from IS NULL THEN 'done' ELSE 'pending' END,
                         changed_at = CASE WHEN touched_from IS NULL THEN NULL ELSE changed_at END,
                         touched_from = NULL, proven = ?4, copied = ?5, attempts = 0,
                         next_try = NULL, message = NULL
                     WHERE source_medium = ?1 AND target_medium = ?2 AND job = ?3
                         AND status = 'in progress'",
                    params![key.0, key.1, key.2, verified, now()],
                )?,
                Settled::Failed { message, again } => tx.execute(
                    "UPDATE copy_map SET touched_from = NULL, attempts = attempts + 1,
                         status = CASE WHEN ?5 IS NULL THEN 'failed' ELSE 'pending' END,
                         next_try = ?5, message = ?4
                     WHERE source_medium = ?1 AND target_medium = ?2 AND job = ?3
                         AND status = 'in progress'",
                    params![key.0, key.1, key.2, cut(message, MESSAGE_MAX), again],
                )?,
            };
            Ok(rows == 1)
        })
    }
}

fn entry_from_row(row: &Row<'_>) -> Result<CopyEntry, SvsError> {
    Ok(CopyEntry {
        source_medium: parsed(row, "source_medium")?,
        target_medium: parsed(row, "target_medium")?,
        policy: parsed(row, "policy")?,
        status: parsed(row, "status")?,
        rule: CopyRule {
            schedule: row.get("schedule")?,
            after_records: row.get("after_records")?,
            after_bytes: row.get("after_bytes")?,
            wait: row.get("wait")?,
            lock_source: row.get("lock_source")?,
            verify: parsed(row, "verify")?,
        },
        asked: row.get("asked")?,
        changed_from: row.get("changed_from")?,
        changed_at: row.get("changed_at")?,
        seen_records: row.get("seen_records")?,
        seen_bytes: row.get("seen_bytes")?,
        job: parsed_opt(row, "job")?,
        proven: parsed(row, "proven")?,
        copied: row.get("copied")?,
        attempts: row.get("attempts")?,
        next_try: row.get("next_try")?,
        message: row.get("message")?,
    })
}
