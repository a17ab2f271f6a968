//! What is known of a medium that the maps act upon.

use rusqlite::{Row, Transaction, params};
use serde::{Deserialize, Serialize};

use super::MediumRef;
use crate::catalogue::{collect, first};
use crate::text::{now, parsed_opt};
use crate::{Catalogue, SvsError};

/// What a medium holds, counted and not looked at.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MediumFacts {
    /// One more with each stretch of writing; what was read under one version is one content.
    pub version: u64,
    /// Whether early warning or the end was met since it was last written from its beginning.
    pub full: bool,
    /// Records written to it in all.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// In milliseconds since 1970.
    pub last_write: Option<u64>,
    /// Where its content went by migration.
    pub moved_to: Option<MediumRef>,
    /// RFC 3339 UTC: since when it is free.
    pub freed: Option<String>,
}

/// Where the content of a medium can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The medium that is written: itself, or where it was migrated to.
    pub primary: MediumRef,
    /// Media that hold a current copy, each one proven as its row wants it.
    pub copies: Vec<MediumRef>,
}

impl Catalogue {
    /// Notes, durably and before the write is answered, that a medium is written from an object on.
    /// Its copies are stale from here; rows that have it as a target begin anew, except for the one
    /// of `source`, whose copy this write is. `at` is in milliseconds since 1970.
    pub fn touch(
        &self,
        medium: &MediumRef,
        object: u64,
        source: Option<&MediumRef>,
        at: u64,
    ) -> Result<(), SvsError> {
        let (medium, source) = (medium.to_string(), source.map(ToString::to_string));
        self.write(|tx| {
            touch_one(tx, &medium, object, source.as_deref(), at)?;
            // Names whose content lives there by migration.
            let sql = "SELECT medium FROM media WHERE moved_to = ?1 AND freed IS NOT NULL";
            let names = collect(tx, sql, [&medium], |row| Ok(row.get::<_, String>(0)?))?;
            names.iter().try_for_each(|name| touch_one(tx, name, object, None, at))
        })
    }

    /// Counts what was written to a medium. Cheap: it does not wait for the disk.
    pub fn count_written(
        &self,
        medium: &MediumRef,
        records: u64,
        bytes: u64,
    ) -> Result<(), SvsError> {
        self.write_relaxed(|tx| {
            tx.execute(
                "INSERT INTO media (medium, records, bytes) VALUES (?1, ?2, ?3)
                 ON CONFLICT (medium) DO UPDATE SET records = records + ?2, bytes = bytes + ?3",
                params![medium.to_string(), records, bytes],
            )?;
            Ok(())
        })
    }

    /// Notes that a medium is full.
    pub fn set_full(&self, medium: &MediumRef) -> Result<(), SvsError> {
        self.write(|tx| {
            tx.execute(
                "INSERT INTO media (medium, full) VALUES (?1, 1)
                 ON CONFLICT (medium) DO UPDATE SET full = 1",
                [medium.to_string()],
            )?;
            Ok(())
        })
    }

    /// Notes that a medium whose content was moved is free.
    pub fn set_freed(&self, medium: &MediumRef) -> Result<(), SvsError> {
        self.write(|tx| {
            tx.execute(
                "UPDATE media SET freed = ?2, full = 0
                 WHERE medium = ?1 AND moved_to IS NOT NULL",
                params![medium.to_string(), now()],
            )?;
            Ok(())
        })
    }

    /// Media whose content was moved and that are not free yet: what a restart has to go on with.
    pub fn to_be_freed(&self) -> Result<Vec<MediumRef>, SvsError> {
        let sql = "SELECT medium FROM media WHERE moved_to IS NOT NULL AND freed IS NULL";
        self.read(|c| collect(c, sql, [], |row| crate::text::parsed(row, "medium")))
    }

    /// Whether a medium holds what was migrated to it: the only copy of that, perhaps.
    pub fn holds_migrated(&self, medium: &MediumRef) -> Result<bool, SvsError> {
        let sql = "SELECT 1 FROM media WHERE moved_to = ?1";
        self.read(|c| Ok(c.prepare_cached(sql)?.exists([medium.to_string()])?))
    }

    /// What is known of a medium; nothing yet of one that was never written here.
    pub fn medium_facts(&self, medium: &MediumRef) -> Result<MediumFacts, SvsError> {
        let sql = "SELECT * FROM media WHERE medium = ?1";
        let found = self.read(|c| first(c, sql, [medium.to_string()], facts))?;
        Ok(found.unwrap_or_default())
    }

    /// Where the content of a medium can be read. A stale copy is none of them.
    pub fn places(&self, medium: &MediumRef) -> Result<Places, SvsError> {
        let moved = self.medium_facts(medium)?.moved_to;
        let sql = "SELECT target_medium FROM copy_map
                   WHERE source_medium = ?1 AND changed_from IS NULL AND status <> 'in progress'
                   ORDER BY target_medium";
        let mut copies = self.read(|c| {
            collect(c, sql, [medium.to_string()], |row| crate::text::parsed(row, "target_medium"))
        })?;
        copies.retain(|copy| Some(copy) != moved.as_ref());
        Ok(Places { primary: moved.unwrap_or_else(|| medium.clone()), copies })
    }
}

fn touch_one(
    tx: &Transaction<'_>,
    medium: &str,
    object: u64,
    source: Option<&str>,
    at: u64,
) -> Result<(), SvsError> {
    tx.execute(
        "INSERT INTO media (medium, version, last_write) VALUES (?1, 1, ?3)
         ON CONFLICT (medium) DO UPDATE SET version = version + 1, last_write = ?3,
             full = CASE WHEN ?2 = 0 THEN 0 ELSE full END,
             moved_to = CASE WHEN freed IS NULL THEN NULL ELSE moved_to END",
        params![medium, object, at],
    )?;
    tx.execute(
        "UPDATE copy_map SET
             changed_from = min(coalesce(changed_from, ?2), ?2),
             changed_at = coalesce(changed_at, ?3),
             touched_from = CASE WHEN status = 'in progress'
                 THEN min(coalesce(touched_from, ?2), ?2) END,
             status = CASE WHEN status IN ('done', 'failed')
                 THEN 'pending' ELSE status END,
             attempts = 0, next_try = NULL
         WHERE source_medium = ?1",
        params![medium, object, at],
    )?;
    tx.execute(
        "UPDATE copy_map SET changed_from = 0, changed_at = coalesce(changed_at, ?3),
             touched_from = CASE WHEN status = 'in progress' THEN 0 END,
             status = CASE WHEN status = 'done' THEN 'pending' ELSE status END,
             message = 'the target was written by another'
         WHERE target_medium = ?1 AND source_medium IS NOT ?2",
        params![medium, source, at],
    )?;
    tx.execute(
        "UPDATE migration_map SET status = 'pending', attempts = 0, next_try = NULL
         WHERE source_medium = ?1 AND (status = 'failed' OR (status = 'done'
             AND (SELECT moved_to FROM media WHERE medium = ?1) IS NULL))",
        [medium],
    )?;
    Ok(())
}

/// The version of a medium inside of a transaction.
pub(super) fn version(tx: &Transaction<'_>, medium: &str) -> Result<u64, SvsError> {
    let sql = "SELECT coalesce(max(version), 0) FROM media WHERE medium = ?1";
    Ok(tx.query_row(sql, [medium], |row| row.get(0))?)
}

fn facts(row: &Row<'_>) -> Result<MediumFacts, SvsError> {
    Ok(MediumFacts {
        version: row.get("version")?,
        full: row.get("full")?,
        records: row.get("records")?,
        bytes: row.get("bytes")?,
        last_write: row.get("last_write")?,
        moved_to: parsed_opt(row, "moved_to")?,
        freed: row.get("freed")?,
    })
}
