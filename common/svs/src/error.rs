//! What can go wrong with the catalogue.

use std::path::PathBuf;

use crate::JobState;

/// A catalogue call that changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum SvsError {
    /// The file can not be opened or made; the operator looks at path, owner and disk.
    #[error("the catalogue {path:?} can not be opened: {cause}")]
    Open {
        /// The database file.
        path: PathBuf,
        /// What the system or SQLite said.
        cause: String,
    },
    /// Written by a newer program; the operator upgrades this one. No retry helps.
    #[error("the catalogue {path:?} has version {found}, this program knows up to {known}")]
    Newer {
        /// The database file.
        path: PathBuf,
        /// The version in the file.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// Another process held the write lock for seconds. A retry helps.
    #[error("the catalogue is locked by another process (is a transaction open in sqlite3?)")]
    Busy,
    /// The disk is full or failing; the operator makes room or replaces it, then a retry helps.
    #[error("the catalogue can not be written: {0}")]
    Disk(String),
    /// The catalogue was opened for reading only; the fault of the program.
    #[error("the catalogue was opened for reading only")]
    ReadOnly,
    /// There is no such row; the fault of the caller.
    #[error("the catalogue has no {0}")]
    NotFound(String),
    /// A job may not go from the one state to the other; the fault of the caller.
    #[error("job {job} is {from} and can not become {to}")]
    Transition {
        /// The job.
        job: model::JobId,
        /// Its state.
        from: JobState,
        /// What was asked for.
        to: JobState,
    },
    /// The row would contradict another one (a barcode used twice).
    #[error("the catalogue refuses the row: {0}")]
    Conflict(String),
    /// A row does not hold what this program writes; somebody edited it. Nothing was changed.
    #[error("the catalogue holds {value:?} where {expected} belongs")]
    Corrupt {
        /// What belongs there.
        expected: &'static str,
        /// What is there.
        value: String,
    },
    /// Anything else that SQLite reports.
    #[error("the catalogue reports: {0}")]
    Database(String),
}

impl SvsError {
    /// Whether the same call may succeed later without anything being repaired.
    pub fn retry_helps(&self) -> bool {
        matches!(self, Self::Busy | Self::Disk(_))
    }
}

impl From<rusqlite::Error> for SvsError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        match error.sqlite_error_code() {
            Some(Code::DatabaseBusy | Code::DatabaseLocked) => Self::Busy,
            Some(Code::DiskFull | Code::SystemIoFailure) => Self::Disk(error.to_string()),
            Some(Code::ReadOnly) => Self::ReadOnly,
            Some(Code::ConstraintViolation) => Self::Conflict(error.to_string()),
            _ => Self::Database(error.to_string()),
        }
    }
}
