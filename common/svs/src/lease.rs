//! What is kept of leases over a restart: one opaque row each, written before an answer leaves.

use model::LeaseId;
use rusqlite::params;

use crate::catalogue::collect;
use crate::text::{now, parsed};
use crate::{Catalogue, SvsError};

/// The largest row: one answer without bulky data, and what surrounds it.
const ROW_MAX: usize = 1 << 20;

impl Catalogue {
    /// Writes the row of a lease, in place of its earlier one.
    ///
    /// # Errors
    /// [`SvsError::Conflict`] above 1 MiB.
    pub fn put_lease_row(&self, id: LeaseId, row: &[u8]) -> Result<(), SvsError> {
        if row.len() > ROW_MAX {
            return Err(SvsError::Conflict(format!("the row of lease {id} exceeds 1 MiB")));
        }
        self.write(|tx| {
            tx.prepare_cached(
                "INSERT INTO lease_rows (id, row, updated) VALUES (?1, ?2, ?3)
                 ON CONFLICT (id) DO UPDATE SET row = excluded.row, updated = excluded.updated",
            )?
            .execute(params![id.to_string(), row, now()])?;
            Ok(())
        })
    }

    /// The rows of all leases, oldest first: what a start rebuilds them from.
    pub fn lease_rows(&self) -> Result<Vec<(LeaseId, Vec<u8>)>, SvsError> {
        let sql = "SELECT id, row FROM lease_rows ORDER BY id";
        self.read(|c| collect(c, sql, [], |row| Ok((parsed(row, "id")?, row.get("row")?))))
    }

    /// Forgets a lease; one that has no row is forgotten already.
    pub fn remove_lease_row(&self, id: LeaseId) -> Result<(), SvsError> {
        self.write(|tx| {
            tx.execute("DELETE FROM lease_rows WHERE id = ?1", [id.to_string()])?;
            Ok(())
        })
    }
}
