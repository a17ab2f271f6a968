//! Media that entries may take as targets.

use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::MediumRef;
use crate::catalogue::{collect, first};
use crate::text::parsed;
use crate::{Catalogue, SvsError};

/// The longest name of a pool.
const NAME_MAX: usize = 64;

/// A medium of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pooled {
    /// The pool.
    pub pool: String,
    /// The medium; in one pool at most.
    pub medium: MediumRef,
    /// Whether an entry of a map has it.
    pub taken: bool,
}

const TAKEN: &str = "EXISTS (SELECT 1 FROM copy_map WHERE target_medium = medium)
    OR EXISTS (SELECT 1 FROM migration_map WHERE migration_medium = medium)";

impl Catalogue {
    /// Puts media into a pool, or moves them there.
    ///
    /// # Errors
    /// [`SvsError::Conflict`] for a name that is empty, too long or has blanks.
    pub fn put_in_pool(&self, pool: &str, media: &[MediumRef]) -> Result<(), SvsError> {
        if pool.is_empty() || pool.len() > NAME_MAX || pool.contains(char::is_whitespace) {
            return Err(SvsError::Conflict(format!("{pool:?} is no name of a pool")));
        }
        self.write(|tx| {
            for medium in media {
                let sql = "INSERT OR REPLACE INTO media_pools (medium, pool) VALUES (?1, ?2)";
                tx.execute(sql, params![medium.to_string(), pool])?;
            }
            Ok(())
        })
    }

    /// Takes media out of their pools; entries that have them keep them.
    pub fn take_out_of_pools(&self, media: &[MediumRef]) -> Result<(), SvsError> {
        self.write(|tx| {
            for medium in media {
                tx.execute("DELETE FROM media_pools WHERE medium = ?1", [medium.to_string()])?;
            }
            Ok(())
        })
    }

    /// All pools and their media.
    pub fn pools(&self) -> Result<Vec<Pooled>, SvsError> {
        let sql = format!("SELECT pool, medium, {TAKEN} AS taken FROM media_pools ORDER BY 1, 2");
        self.read(|c| {
            collect(c, &sql, [], |row| {
                Ok(Pooled {
                    pool: row.get("pool")?,
                    medium: parsed(row, "medium")?,
                    taken: row.get("taken")?,
                })
            })
        })
    }

    /// The first medium of a pool that no entry has.
    pub fn free_in_pool(&self, pool: &str) -> Result<Option<MediumRef>, SvsError> {
        let sql = format!(
            "SELECT medium FROM media_pools WHERE pool = ?1 AND NOT ({TAKEN}) ORDER BY medium"
        );
        self.read(|c| first(c, &sql, [pool], |row| parsed(row, "medium")))
    }
}
