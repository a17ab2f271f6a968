//! Events: what happened, for the operator.

use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};

use crate::catalogue::collect;
use crate::text::{cut, now, parsed, words};
use crate::{Catalogue, SvsError};

/// The newest events that are kept; older ones are dropped as new ones come.
const KEPT: i64 = 100_000;
const TEXT_MAX: usize = 2048;

words! {
    /// How much an event matters.
    Severity ("a severity") {
        /// Worth knowing.
        Info = "info",
        /// Somebody should look at it.
        Warning = "warning",
        /// Something was not done.
        Error = "error",
    }
}

words! {
    /// What an event is about.
    EventKind ("a kind of event") {
        /// The engine itself: started, stopped, recovered.
        Engine = "engine",
        /// The link to a peer: up, down, refused.
        Link = "link",
        /// A job: begun, ended.
        Job = "job",
        /// A library, a drive or a medium.
        Device = "device",
        /// The store: damage, adoption, collection.
        Store = "store",
        /// Who came in, or did not.
        Security = "security",
        /// What an administrator changed.
        Audit = "audit",
    }
}

/// An event to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent<'a> {
    /// What it is about.
    pub kind: EventKind,
    /// How much it matters.
    pub severity: Severity,
    /// The number of the message in `schemas/messages.toml`: `TWR-1001-I`.
    pub message_id: &'a str,
    /// The message, filled in.
    pub text: &'a str,
    /// The job, device or cartridge it is about, as its own listing names it.
    pub subject: Option<&'a str>,
}

/// An event as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Ascending, never used twice.
    pub id: u64,
    /// RFC 3339 UTC.
    pub at: String,
    /// What it is about.
    pub kind: EventKind,
    /// How much it matters.
    pub severity: Severity,
    /// The number of the message.
    pub message_id: String,
    /// The message.
    pub text: String,
    /// What it is about, by name.
    pub subject: Option<String>,
}

/// Which events a listing shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventFilter {
    /// Only those with a greater id: what came since the last look.
    pub after: u64,
    /// Only those about this subject.
    pub subject: Option<String>,
    /// At most so many, the newest of them; listed oldest first.
    pub limit: u32,
}

impl Default for EventFilter {
    /// The newest hundred.
    fn default() -> Self {
        Self { after: 0, subject: None, limit: 100 }
    }
}

impl Catalogue {
    /// Writes an event and returns its id. The newest hundred thousand are kept.
    pub fn event(&self, event: &NewEvent<'_>) -> Result<u64, SvsError> {
        self.write(|tx| {
            tx.execute(
                "INSERT INTO events (at, kind, severity, message_id, text, subject)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    now(),
                    event.kind,
                    event.severity,
                    cut(event.message_id, TEXT_MAX),
                    cut(event.text, TEXT_MAX),
                    event.subject.map(|text| cut(text, TEXT_MAX)),
                ],
            )?;
            let id = tx.last_insert_rowid();
            tx.execute("DELETE FROM events WHERE id <= ?1", [id - KEPT])?;
            Ok(id.unsigned_abs())
        })
    }

    /// Events, oldest first.
    pub fn events(&self, filter: &EventFilter) -> Result<Vec<Event>, SvsError> {
        let sql = "SELECT * FROM (
                SELECT * FROM events WHERE id > ?1 AND (?2 IS NULL OR subject = ?2)
                ORDER BY id DESC LIMIT ?3
            ) ORDER BY id";
        let params = params![filter.after, filter.subject, filter.limit];
        self.read(|c| collect(c, sql, params, event_from_row))
    }
}

fn event_from_row(row: &Row<'_>) -> Result<Event, SvsError> {
    Ok(Event {
        id: row.get("id")?,
        at: row.get("at")?,
        kind: parsed(row, "kind")?,
        severity: parsed(row, "severity")?,
        message_id: row.get("message_id")?,
        text: row.get("text")?,
        subject: row.get("subject")?,
    })
}
