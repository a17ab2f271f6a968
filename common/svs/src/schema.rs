//! Migrations: the SQL files of `schemas/svs/`, counted by `PRAGMA user_version`.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::SvsError;

/// Step n leads from version n to n + 1. A step that has been released is never edited.
const STEPS: [&str; 6] = [
    include_str!("../../../schemas/svs/0001_catalogue.sql"),
    include_str!("../../../schemas/svs/0002_leases.sql"),
    include_str!("../../../schemas/svs/0003_maps.sql"),
    include_str!("../../../schemas/svs/0004_frontends.sql"),
    include_str!("../../../schemas/svs/0005_health.sql"),
    include_str!("../../../schemas/svs/0006_mounts.sql"),
];

const VIEWS: &str = include_str!("../../../schemas/svs/views.sql");

/// The version of the catalogue that this program writes.
pub const VERSION: i64 = STEPS.len() as i64;

/// The version of an open database; 0 for an empty one.
pub(crate) fn version(connection: &Connection) -> Result<i64, SvsError> {
    Ok(connection.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

/// Refuses a database that a newer program wrote.
pub(crate) fn check_known(path: &Path, found: i64) -> Result<(), SvsError> {
    match (0..=VERSION).contains(&found) {
        true => Ok(()),
        false => Err(SvsError::Newer { path: path.to_owned(), found, known: VERSION }),
    }
}

/// Brings the database to [`VERSION`] in one transaction: after a crash it has the old version or
/// the new one. The version is read inside of it, because two processes may open at once.
pub(crate) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), SvsError> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&tx)?;
    check_known(path, found)?;
    for step in STEPS.iter().skip(usize::try_from(found).unwrap_or(STEPS.len())) {
        tx.execute_batch(step)?;
    }
    if found != VERSION {
        tx.execute_batch(VIEWS)?;
        tx.pragma_update(None, "user_version", VERSION)?;
    }
    Ok(tx.commit()?)
}
