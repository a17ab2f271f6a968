//! Leases of ghost devices and the results of their operations: what makes a ghost operation happen
//! exactly once, kept by the engine that owns the device.
//!
//! The holder numbers its operations from 1. The owner executes number n, records it with its
//! result, and only then answers; asked for n again it gives the recorded answer. If it crashed
//! between executing and recording, `last_number` is still n - 1 and `engine` is another run: then
//! the position of the medium tells whether n was done.

use model::{DeviceName, EngineId, JobId, LeaseId, ObjectNumber, SiteName};
use rusqlite::{Connection, Row, params};

use crate::cartridge::found;
use crate::catalogue::{collect, first};
use crate::text::{cut, now, parsed, parsed_opt};
use crate::{Catalogue, SvsError};

/// Results kept for each lease. The holder has one operation under way at a time, so one would do.
const RESULTS_KEPT: u64 = 16;
/// The largest result: one record of the largest size, and what surrounds it.
const RESULT_MAX: usize = 20 << 20;
/// Closed leases that are kept for people to look at.
const CLOSED_KEPT: u32 = 1000;

/// The right to one open device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Made by the holder.
    pub id: LeaseId,
    /// The site of the holder.
    pub peer: SiteName,
    /// Counts up each time the holder takes it up again; an older one is refused.
    pub epoch: u64,
    /// The device; one open lease each.
    pub device: DeviceName,
    /// The job it serves.
    pub job: Option<JobId>,
    /// The run of this engine that recorded last.
    pub engine: EngineId,
    /// The last operation on record; 0 before the first.
    pub last_number: u64,
    /// Where the medium stands after it; `None` without a medium, or if nobody knows.
    pub position: Option<ObjectNumber>,
    /// Why it was closed; `None` while it is open.
    pub closed: Option<String>,
}

/// An executed operation with its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its number: that of the last one plus one.
    pub number: u64,
    /// The answer as it goes to the holder; at most 20 MiB.
    pub result: Vec<u8>,
    /// Where the medium stands after it.
    pub position: Option<ObjectNumber>,
}

impl Catalogue {
    /// Writes a new lease; `last_number` and `closed` of the argument are not used.
    ///
    /// # Errors
    /// [`SvsError::Conflict`] if the device has an open lease, or the id was used before.
    pub fn open_lease(&self, lease: &Lease) -> Result<(), SvsError> {
        self.write(|tx| {
            tx.execute(
                "DELETE FROM leases WHERE closed IS NOT NULL AND id NOT IN (SELECT id FROM leases
                     WHERE closed IS NOT NULL ORDER BY id DESC LIMIT ?1)",
                [CLOSED_KEPT],
            )?;
            tx.execute(
                "INSERT INTO leases (id, peer, epoch, device, job, engine, position, opened,
                     renewed) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)",
                params![
                    lease.id.to_string(),
                    lease.peer.as_str(),
                    lease.epoch,
                    lease.device.to_string(),
                    lease.job.map(String::from),
                    lease.engine.to_string(),
                    lease.position,
                    now(),
                ],
            )?;
            Ok(())
        })
    }

    /// Lets the holder take up its lease with a newer epoch; the same epoch again is `Ok`. The run
    /// on record stays, so that the caller still sees whether the position must be proven.
    ///
    /// # Errors
    /// [`SvsError::NotFound`], [`SvsError::StaleLease`] for an older epoch or a closed lease.
    pub fn renew_lease(&self, id: LeaseId, epoch: u64) -> Result<Lease, SvsError> {
        self.write(|tx| {
            let mut lease = find(tx, id)?;
            if epoch < lease.epoch || lease.closed.is_some() {
                return Err(stale(&lease, epoch));
            }
            let sql = "UPDATE leases SET epoch = ?2, renewed = ?3 WHERE id = ?1";
            tx.execute(sql, params![id.to_string(), epoch, now()])?;
            lease.epoch = epoch;
            Ok(lease)
        })
    }

    /// Records an executed operation, durably, before its answer may leave.
    ///
    /// # Errors
    /// [`SvsError::StaleLease`] if somebody took the lease up since, [`SvsError::OutOfOrder`] if
    /// the number is not the next one.
    pub fn record_operation(
        &self,
        id: LeaseId,
        epoch: u64,
        engine: EngineId,
        operation: &Operation,
    ) -> Result<(), SvsError> {
        if operation.result.len() > RESULT_MAX {
            return Err(SvsError::Conflict("a recorded result has at most 20 MiB".to_owned()));
        }
        let number = operation.number;
        self.write(|tx| {
            let lease = find(tx, id)?;
            if epoch != lease.epoch || lease.closed.is_some() {
                return Err(stale(&lease, epoch));
            }
            let expected = lease.last_number.saturating_add(1);
            if number != expected {
                return Err(SvsError::OutOfOrder { lease: id, expected, number });
            }
            let key = id.to_string();
            tx.prepare_cached(
                "INSERT INTO operations (lease, number, result, at) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![key, number, operation.result, now()])?;
            tx.prepare_cached("DELETE FROM operations WHERE lease = ?1 AND number <= ?2")?
                .execute(params![key, number.saturating_sub(RESULTS_KEPT)])?;
            tx.prepare_cached(
                "UPDATE leases SET last_number = ?2, position = ?3, engine = ?4 WHERE id = ?1",
            )?
            .execute(params![key, number, operation.position, engine.to_string()])?;
            Ok(())
        })
    }

    /// The recorded result of an operation: what is answered when it is asked for again. `None` if
    /// it was never recorded, or longer ago than the newest sixteen.
    pub fn recorded_result(&self, id: LeaseId, number: u64) -> Result<Option<Vec<u8>>, SvsError> {
        let sql = "SELECT result FROM operations WHERE lease = ?1 AND number = ?2";
        self.read(|c| first(c, sql, params![id.to_string(), number], |row| Ok(row.get(0)?)))
    }

    /// One lease, open or closed.
    pub fn lease(&self, id: LeaseId) -> Result<Option<Lease>, SvsError> {
        let sql = "SELECT * FROM leases WHERE id = ?1";
        self.read(|c| first(c, sql, [id.to_string()], lease_from_row))
    }

    /// The open leases, oldest first: after a start these wait for their holders.
    pub fn open_leases(&self) -> Result<Vec<Lease>, SvsError> {
        let sql = "SELECT * FROM leases WHERE closed IS NULL ORDER BY id";
        self.read(|c| collect(c, sql, [], lease_from_row))
    }

    /// Closes a lease for good; the results of its operations stay for a late question. Closing it
    /// again changes nothing.
    ///
    /// # Errors
    /// [`SvsError::NotFound`].
    pub fn close_lease(&self, id: LeaseId, cause: &str) -> Result<(), SvsError> {
        self.write(|tx| {
            let rows = tx.execute(
                "UPDATE leases SET cause = CASE WHEN closed IS NULL THEN ?2 ELSE cause END,
                     closed = coalesce(closed, ?3) WHERE id = ?1",
                params![id.to_string(), cut(cause, 2048), now()],
            )?;
            found(rows, || format!("lease {id}"))
        })
    }
}

fn find(tx: &Connection, id: LeaseId) -> Result<Lease, SvsError> {
    first(tx, "SELECT * FROM leases WHERE id = ?1", [id.to_string()], lease_from_row)?
        .ok_or_else(|| SvsError::NotFound(format!("lease {id}")))
}

fn stale(lease: &Lease, epoch: u64) -> SvsError {
    let closed = lease.closed.is_some();
    SvsError::StaleLease { lease: lease.id, epoch, current: lease.epoch, closed }
}

fn lease_from_row(row: &Row<'_>) -> Result<Lease, SvsError> {
    let ended: Option<String> = row.get("closed")?;
    let cause: Option<String> = row.get("cause")?;
    Ok(Lease {
        id: parsed(row, "id")?,
        peer: parsed(row, "peer")?,
        epoch: row.get("epoch")?,
        device: parsed(row, "device")?,
        job: parsed_opt(row, "job")?,
        engine: parsed(row, "engine")?,
        last_number: row.get("last_number")?,
        position: row.get("position")?,
        closed: ended.map(|_| cause.unwrap_or_default()),
    })
}
