//! Which medium is migrated where, when, and how far that has come.

use model::JobId;
use rusqlite::{Row, Transaction, params};
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
pub struct MigrationRule {
    /// Of *after days*: since the last write.
    pub days: Option<u32>,
    /// Of a deferred migration: when. The text of a `copy::policy::Schedule`.
    pub schedule: Option<String>,
    /// How the target is proven before the source is freed.
    pub verify: Verified,
}

impl Default for MigrationRule {
    fn default() -> Self {
        Self { days: None, schedule: None, verify: Verified::Readback }
    }
}

/// A row of `migration_map`: the source is freed afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationEntry {
    /// What is migrated; once in the map.
    pub source_medium: MediumRef,
    /// Where to.
    pub migration_medium: MediumRef,
    /// When.
    pub policy: MapPolicy,
    /// How far it has come.
    pub status: MapStatus,
    /// When and how, in detail.
    pub rule: MigrationRule,
    /// Asked for by a command: due now.
    pub asked: bool,
    /// The last job; none where a copy was there already.
    pub job: Option<JobId>,
    /// How the target was proven.
    pub proven: Verified,
    /// RFC 3339 UTC.
    pub moved: Option<String>,
    /// Failures one after the other.
    pub attempts: u32,
    /// After a failure: not before this time, in milliseconds since 1970.
    pub next_try: Option<u64>,
    /// Why it stands where it stands.
    pub message: Option<String>,
}

impl MigrationEntry {
    /// A new entry of which nothing is done.
    pub fn new(source: MediumRef, target: MediumRef, policy: MapPolicy) -> Self {
        Self {
            source_medium: source,
            migration_medium: target,
            policy,
            status: MapStatus::Pending,
            rule: MigrationRule::default(),
            asked: false,
            job: None,
            proven: Verified::None,
            moved: None,
            attempts: 0,
            next_try: None,
            message: None,
        }
    }
}

impl Catalogue {
    /// Writes an entry as an administrator wants it, or changes the one that is there.
    ///
    /// # Errors
    /// [`SvsError::Conflict`] where the source was moved already, or is being moved.
    pub fn put_migration_entry(&self, entry: &MigrationEntry) -> Result<(), SvsError> {
        let source = entry.source_medium.to_string();
        self.write(|tx| {
            let sql = "SELECT status FROM migration_map WHERE source_medium = ?1
                           AND status IN ('in progress', 'done')";
            if tx.prepare(sql)?.exists([&source])? {
                let text = format!("{source} was moved, or is being moved");
                return Err(SvsError::Conflict(text));
            }
            tx.execute(
                "INSERT OR REPLACE INTO migration_map (source_medium, migration_medium, policy,
                     status, days, schedule, verify, created)
                 VALUES (?1, ?2, ?3, 'pending', ?4, ?5, ?6, ?7)",
                params![
                    source,
                    entry.migration_medium.to_string(),
                    entry.policy,
                    entry.rule.days,
                    entry.rule.schedule,
                    entry.rule.verify,
                    now(),
                ],
            )?;
            Ok(())
        })
    }

    /// The whole map, by source.
    pub fn migration_entries(&self) -> Result<Vec<MigrationEntry>, SvsError> {
        let sql = "SELECT * FROM migration_map ORDER BY source_medium";
        self.read(|c| collect(c, sql, [], entry_from_row))
    }

    /// The entry of a source.
    pub fn migration_entry(&self, source: &MediumRef) -> Result<Option<MigrationEntry>, SvsError> {
        let sql = "SELECT * FROM migration_map WHERE source_medium = ?1";
        self.read(|c| first(c, sql, [source.to_string()], entry_from_row))
    }

    /// Removes the entry of a source. Where its content was moved to stays known.
    pub fn remove_migration_entry(&self, source: &MediumRef) -> Result<(), SvsError> {
        self.write(|tx| {
            let sql = "DELETE FROM migration_map WHERE source_medium = ?1";
            found(tx.execute(sql, [source.to_string()])?, || format!("migration of {source}"))
        })
    }

    /// Notes that a migration is wanted now; one that failed is tried again.
    pub fn ask_migration(&self, source: &MediumRef) -> Result<(), SvsError> {
        self.write(|tx| {
            let rows = tx.execute(
                "UPDATE migration_map SET asked = 1, attempts = 0, next_try = NULL,
                     status = CASE WHEN status IN ('in progress', 'done') THEN status
                         ELSE 'pending' END
                 WHERE source_medium = ?1",
                [source.to_string()],
            )?;
            found(rows, || format!("migration of {source}"))
        })
    }

    /// Notes that an entry waits, and why. One that is in progress or done is left alone.
    pub fn migration_waits(
        &self,
        source: &MediumRef,
        status: MapStatus,
        message: Option<&str>,
    ) -> Result<(), SvsError> {
        self.write(|tx| {
            tx.execute(
                "UPDATE migration_map SET status = ?2, message = ?3
                 WHERE source_medium = ?1 AND status NOT IN ('in progress', 'done')
                     AND (status <> ?2 OR message IS NOT ?3)",
                params![source.to_string(), status, message.map(|text| cut(text, MESSAGE_MAX))],
            )?;
            Ok(())
        })
    }

    /// Writes the job of a migration and that its entry is in progress, both or none. `version` is
    /// that of the source when what is moved was chosen.
    ///
    /// # Errors
    /// [`SvsError::NotFound`] where the entry is gone, in progress or done.
    pub fn begin_migration(
        &self,
        job: &NewJob,
        source: &MediumRef,
        version: u64,
    ) -> Result<(), SvsError> {
        self.write(|tx| {
            let rows = tx.execute(
                "UPDATE migration_map SET status = 'in progress', job = ?2, job_version = ?3,
                     message = NULL
                 WHERE source_medium = ?1 AND status NOT IN ('in progress', 'done')
                     AND NOT EXISTS (SELECT 1 FROM copy_map
                         WHERE target_medium = migration_medium AND status = 'in progress')",
                params![source.to_string(), job.id.to_string(), version],
            )?;
            found(rows, || format!("migration of {source} that can begin"))?;
            insert_job(tx, job)?;
            Ok(())
        })
    }

    /// The content of a source is on its migration medium, and proven: from here on it is found
    /// there. `false`, and nothing is changed, where the source was written since `version`, or a
    /// copy is being written to the migration medium.
    /// The source is to be freed now; see [`Catalogue::set_freed`].
    pub fn moved(
        &self,
        source: &MediumRef,
        version: u64,
        proven: Verified,
    ) -> Result<bool, SvsError> {
        let name = source.to_string();
        self.write(|tx| {
            let sql = "SELECT 1 FROM copy_map c, migration_map m WHERE m.source_medium = ?1
                           AND c.target_medium = migration_medium AND c.status = 'in progress'";
            let is_written = tx.prepare(sql)?.exists([&name])?;
            if is_written || media::version(tx, &name)? != version {
                return Ok(false);
            }
            move_to_target(tx, &name, proven)
        })
    }

    /// The same where the migration medium holds a copy of the source already, by the copy map.
    /// `false`, and nothing is changed, where that copy is not current any more.
    pub fn moved_to_copy(&self, source: &MediumRef, proven: Verified) -> Result<bool, SvsError> {
        let name = source.to_string();
        self.write(|tx| {
            let sql = "SELECT 1 FROM copy_map c, migration_map m WHERE m.source_medium = ?1
                           AND c.source_medium = ?1 AND c.target_medium = migration_medium
                           AND c.status = 'done' AND c.changed_from IS NULL";
            match tx.prepare(sql)?.exists([&name])? {
                true => move_to_target(tx, &name, proven),
                false => Ok(false),
            }
        })
    }

    /// Ends what [`Catalogue::begin_migration`] began without having moved.
    pub fn migration_failed(
        &self,
        source: &MediumRef,
        message: &str,
        again: Option<u64>,
    ) -> Result<(), SvsError> {
        self.write(|tx| {
            tx.execute(
                "UPDATE migration_map SET attempts = attempts + 1, next_try = ?3, message = ?2,
                     status = CASE WHEN ?3 IS NULL THEN 'failed' ELSE 'pending' END
                 WHERE source_medium = ?1 AND status <> 'done'",
                params![source.to_string(), cut(message, MESSAGE_MAX), again],
            )?;
            Ok(())
        })
    }

    /// The version of the source that the migration under way moves.
    pub fn migration_version(&self, source: &MediumRef) -> Result<Option<u64>, SvsError> {
        let sql = "SELECT job_version FROM migration_map WHERE source_medium = ?1";
        let found = self.read(|c| {
            first(c, sql, [source.to_string()], |row| Ok(row.get::<_, Option<u64>>(0)?))
        })?;
        Ok(found.flatten())
    }
}

/// The content of a source is found on its migration medium from here on.
fn move_to_target(tx: &Transaction<'_>, name: &str, proven: Verified) -> Result<bool, SvsError> {
    let rows = tx.execute(
        "UPDATE migration_map SET status = 'done', asked = 0, proven = ?2, moved = ?3,
             attempts = 0, next_try = NULL, message = NULL
         WHERE source_medium = ?1",
        params![name, proven, now()],
    )?;
    found(rows, || format!("migration of {name}"))?;
    tx.execute(
        "INSERT INTO media (medium, moved_to) SELECT source_medium, migration_medium
             FROM migration_map WHERE source_medium = ?1
         ON CONFLICT (medium) DO UPDATE SET moved_to = excluded.moved_to, freed = NULL",
        [name],
    )?;
    Ok(true)
}

fn entry_from_row(row: &Row<'_>) -> Result<MigrationEntry, SvsError> {
    Ok(MigrationEntry {
        source_medium: parsed(row, "source_medium")?,
        migration_medium: parsed(row, "migration_medium")?,
        policy: parsed(row, "policy")?,
        status: parsed(row, "status")?,
        rule: MigrationRule {
            days: row.get("days")?,
            schedule: row.get("schedule")?,
            verify: parsed(row, "verify")?,
        },
        asked: row.get("asked")?,
        job: parsed_opt(row, "job")?,
        proven: parsed(row, "proven")?,
        moved: row.get("moved")?,
        attempts: row.get("attempts")?,
        next_try: row.get("next_try")?,
        message: row.get("message")?,
    })
}
