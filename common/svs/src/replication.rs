//! Replication: where each generation is on its way to a peer, or from one.

use model::{GenerationId, JobId, SiteName};
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};

use crate::catalogue::{collect, first};
use crate::text::{cut, now, parsed, parsed_opt, words};
use crate::{Catalogue, SvsError};

const TEXT_MAX: usize = 2048;

words! {
    /// How far a generation has come.
    ReplicationState ("a state of a replication") {
        /// Wanted, not begun, or interrupted.
        Pending = "pending",
        /// Chunks move.
        InProgress = "in_progress",
        /// The recipe is committed at the receiver, and every chunk is durable there.
        Done = "done",
        /// Given up; the message has the cause.
        Failed = "failed",
    }
}

/// The replication of one generation to (at the sender) or from (at the receiver) one site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replication {
    /// The generation, whose row must be there.
    pub generation: GenerationId,
    /// The peer.
    pub site: SiteName,
    /// How far it has come.
    pub state: ReplicationState,
    /// The job that moves it.
    pub job: Option<JobId>,
    /// Bytes of all records.
    pub bytes_logical: u64,
    /// Bytes of the chunks that the receiver lacked, before compression.
    pub bytes_unique: u64,
    /// Bytes on the wire, with everything that the protocol adds.
    pub bytes_wire: u64,
    /// The cause of a failure or a wait.
    pub message: Option<String>,
}

impl Catalogue {
    /// Writes the state of a replication, or replaces it. While it is in progress the numbers may
    /// be behind by the last call; the call that says done has the final ones.
    ///
    /// # Errors
    /// [`SvsError::Conflict`] if the generation has no row.
    pub fn put_replication(&self, replication: &Replication) -> Result<(), SvsError> {
        let at = now();
        let ended = matches!(replication.state, ReplicationState::Done | ReplicationState::Failed);
        let begun = replication.state != ReplicationState::Pending;
        self.write(|tx| {
            tx.execute(
                "INSERT INTO replication (generation, site, state, job, bytes_logical,
                     bytes_unique, bytes_wire, message, started, updated, ended)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
                 ON CONFLICT (generation, site) DO UPDATE SET state = excluded.state,
                     job = excluded.job, bytes_logical = excluded.bytes_logical,
                     bytes_unique = excluded.bytes_unique, bytes_wire = excluded.bytes_wire,
                     message = excluded.message, started = coalesce(started, excluded.started),
                     updated = excluded.updated, ended = excluded.ended",
                params![
                    replication.generation.to_string(),
                    replication.site.as_str(),
                    replication.state,
                    replication.job.map(String::from),
                    replication.bytes_logical,
                    replication.bytes_unique,
                    replication.bytes_wire,
                    replication.message.as_deref().map(|text| cut(text, TEXT_MAX)),
                    begun.then_some(&at),
                    at,
                    ended.then_some(&at),
                ],
            )?;
            Ok(())
        })
    }

    /// The replication of a generation to or from a site.
    pub fn replication(
        &self,
        generation: GenerationId,
        site: &SiteName,
    ) -> Result<Option<Replication>, SvsError> {
        let sql = "SELECT * FROM replication WHERE generation = ?1 AND site = ?2";
        self.read(|c| first(c, sql, (generation.to_string(), site.as_str()), from_row))
    }

    /// The replications in these states, oldest generation first; all of them for an empty list.
    pub fn replications(&self, states: &[ReplicationState]) -> Result<Vec<Replication>, SvsError> {
        let sql = "SELECT * FROM replication ORDER BY generation, site";
        let mut all = self.read(|c| collect(c, sql, [], from_row))?;
        all.retain(|row| states.is_empty() || states.contains(&row.state));
        Ok(all)
    }
}

fn from_row(row: &Row<'_>) -> Result<Replication, SvsError> {
    Ok(Replication {
        generation: parsed(row, "generation")?,
        site: parsed(row, "site")?,
        state: parsed(row, "state")?,
        job: parsed_opt(row, "job")?,
        bytes_logical: row.get("bytes_logical")?,
        bytes_unique: row.get("bytes_unique")?,
        bytes_wire: row.get("bytes_wire")?,
        message: row.get("message")?,
    })
}
