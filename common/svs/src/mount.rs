//! The mount queue as people look at it: who waits for which tape, who has one, and why.

use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};

use crate::catalogue::collect;
use crate::text::{parsed, words};
use crate::{Catalogue, SvsError};

words! {
    /// What a tape is wanted for; the first is the most urgent.
    MountPriority ("a priority of mounts") {
        /// An application reads or writes the tape itself.
        Restore = "restore",
        /// A copy that an application or an administrator asked for.
        Copy = "copy",
        /// A copy that the copy map wants.
        Policy = "policy",
        /// A migration.
        Migration = "migration",
        /// Reading what is there, to compare it.
        Verify = "verify",
    }
}

words! {
    /// Where somebody stands in the mount queue.
    MountState ("a state of mounts") {
        /// Waits.
        Waiting = "waiting",
        /// Has the drives.
        Mounted = "mounted",
    }
}

/// Somebody in the mount queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Its number, which names it; not used again while the engine runs.
    pub ticket: u64,
    /// The job, if it is one.
    pub job: Option<String>,
    /// Who, for people.
    pub who: String,
    /// The tapes, separated by ", ".
    pub tapes: String,
    /// What they are wanted for.
    pub priority: MountPriority,
    /// Since when, in milliseconds since 1970.
    pub since: u64,
    /// The smaller the sooner.
    pub rank: u64,
    /// Whether it waits.
    pub state: MountState,
    /// The drives that it has, separated by ", ".
    pub drives: String,
    /// What it waits for.
    pub reason: Option<String>,
}

impl Catalogue {
    /// Replaces the rows of these numbers, and removes the rows of those.
    pub fn put_mounts(&self, rows: &[Mount], gone: &[u64]) -> Result<(), SvsError> {
        if rows.is_empty() && gone.is_empty() {
            return Ok(());
        }
        self.write(|tx| {
            for ticket in gone {
                tx.execute("DELETE FROM mounts WHERE ticket = ?1", [ticket])?;
            }
            for row in rows {
                tx.execute(
                    "INSERT OR REPLACE INTO mounts (ticket, job, who, tapes, priority, since,
                                                    rank, state, drives, reason)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                    params![
                        row.ticket,
                        row.job,
                        row.who,
                        row.tapes,
                        row.priority,
                        row.since,
                        row.rank,
                        row.state,
                        row.drives,
                        row.reason
                    ],
                )?;
            }
            Ok(())
        })
    }

    /// Nobody waits: the engine starts.
    pub fn clear_mounts(&self) -> Result<(), SvsError> {
        self.write(|tx| Ok(tx.execute("DELETE FROM mounts", []).map(drop)?))
    }

    /// The queue: those that have drives first, then those that wait in their order.
    pub fn mounts(&self) -> Result<Vec<Mount>, SvsError> {
        self.read(|c| collect(c, "SELECT * FROM mount_queue", [], from_row))
    }
}

fn from_row(row: &Row<'_>) -> Result<Mount, SvsError> {
    Ok(Mount {
        ticket: row.get("ticket")?,
        job: row.get("job")?,
        who: row.get("who")?,
        tapes: row.get("tapes")?,
        priority: parsed(row, "priority")?,
        since: row.get("since")?,
        rank: row.get("rank")?,
        state: parsed(row, "state")?,
        drives: row.get("drives")?,
        reason: row.get("reason")?,
    })
}
