//! How drives and cartridges are.

use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};

use crate::catalogue::collect;
use crate::text::{now, parsed, words};
use crate::{Catalogue, SvsError};

words! {
    /// What a row of health is about.
    HealthKind ("a kind of subject") {
        /// A drive.
        Drive = "drive",
        /// A cartridge.
        Cartridge = "cartridge",
    }
}

words! {
    /// How a drive or a cartridge is.
    Condition ("a condition") {
        /// Well, as far as is known.
        Ok = "ok",
        /// The drive wants a cleaning cartridge.
        Clean = "clean",
        /// The drive is not used until somebody says otherwise.
        Down = "down",
        /// The cartridge is not written on until somebody says otherwise.
        Frozen = "frozen",
    }
}

/// How a drive or a cartridge is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `ptl0/drive0` or `ptl0/PTA001L8`.
    pub subject: String,
    /// Which of both.
    pub kind: HealthKind,
    /// How it is.
    pub condition: Condition,
    /// TapeAlert flags raised last, separated by commas.
    pub alerts: String,
    /// How often it was loaded, where that is known.
    pub loads: Option<u64>,
    /// Bytes written by hosts since power-on, of a drive.
    pub bytes_written: Option<u64>,
    /// Bytes read by hosts since power-on, of a drive.
    pub bytes_read: Option<u64>,
    /// Why its condition is what it is.
    pub message: Option<String>,
}

impl Catalogue {
    /// Writes how a drive or a cartridge is, replacing what was known.
    pub fn put_health(&self, health: &Health) -> Result<(), SvsError> {
        self.write(|tx| {
            tx.execute(
                "INSERT INTO health (subject, kind, condition, alerts, loads, bytes_written,
                                     bytes_read, message, updated)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                 ON CONFLICT (subject) DO UPDATE SET kind = excluded.kind,
                     condition = excluded.condition, alerts = excluded.alerts,
                     loads = excluded.loads, bytes_written = excluded.bytes_written,
                     bytes_read = excluded.bytes_read, message = excluded.message,
                     updated = excluded.updated",
                params![
                    health.subject,
                    health.kind,
                    health.condition,
                    health.alerts,
                    health.loads,
                    health.bytes_written,
                    health.bytes_read,
                    health.message,
                    now()
                ],
            )?;
            Ok(())
        })
    }

    /// How every drive and cartridge is that was looked at, drives first.
    pub fn health(&self) -> Result<Vec<Health>, SvsError> {
        let sql = "SELECT * FROM health ORDER BY kind DESC, subject";
        self.read(|c| collect(c, sql, [], from_row))
    }
}

fn from_row(row: &Row<'_>) -> Result<Health, SvsError> {
    Ok(Health {
        subject: row.get("subject")?,
        kind: parsed(row, "kind")?,
        condition: parsed(row, "condition")?,
        alerts: row.get("alerts")?,
        loads: row.get("loads")?,
        bytes_written: row.get("bytes_written")?,
        bytes_read: row.get("bytes_read")?,
        message: row.get("message")?,
    })
}
