//! The connections: one writer, readers on demand.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::{SvsError, schema};

/// How long a call waits for another process that holds the write lock.
const BUSY: Duration = Duration::from_secs(10);
/// Read-only connections that are kept open for the next reader.
const READERS_KEPT: usize = 4;

/// The catalogue of one engine: the file `svs.db` and the connections to it.
///
/// Shared by reference between threads. Another process may read the same file at any time, with
/// this type ([`Catalogue::open_read_only`]) or with `sqlite3`.
pub struct Catalogue {
    path: PathBuf,
    writer: Option<Mutex<Writer>>,
    readers: Mutex<Vec<Connection>>,
    /// Called behind every commit of this process.
    written: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// Two connections to one file, never used at once, so that neither can forget to switch
/// `synchronous` back.
struct Writer {
    /// `synchronous=FULL`: a commit is on the disk.
    durable: Connection,
    /// `synchronous=NORMAL`: a commit is in order, and on the disk with the next durable one.
    relaxed: Connection,
}

impl Catalogue {
    /// Opens the catalogue for writing, makes it if it is not there, and migrates it.
    ///
    /// # Errors
    /// [`SvsError::Open`], [`SvsError::Newer`], [`SvsError::Busy`].
    pub fn open(path: &Path) -> Result<Self, SvsError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let mut durable = connect(path, flags, "FULL")?;
        schema::migrate(&mut durable, path)?;
        let relaxed = connect(path, flags, "NORMAL")?;
        let writer = Some(Mutex::new(Writer { durable, relaxed }));
        let readers = Mutex::default();
        Ok(Self { path: path.to_owned(), writer, readers, written: OnceLock::new() })
    }

    /// Opens an existing catalogue for reading, for example while its engine runs.
    ///
    /// # Errors
    /// [`SvsError::Open`] if it is not there, [`SvsError::Newer`], and [`SvsError::Corrupt`] for an
    /// older version that no engine has migrated yet.
    pub fn open_read_only(path: &Path) -> Result<Self, SvsError> {
        let (readers, written) = Default::default();
        let catalogue = Self { path: path.to_owned(), writer: None, readers, written };
        let found = catalogue.read(schema::version)?;
        schema::check_known(path, found)?;
        match found == schema::VERSION {
            true => Ok(catalogue),
            false => Err(SvsError::Corrupt {
                expected: "a catalogue of the current version (start its engine once)",
                value: format!("version {found}"),
            }),
        }
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks SQLite to check the whole file: structure, indexes, references. Reads everything.
    ///
    /// # Errors
    /// [`SvsError::Corrupt`] with the first finding.
    pub fn check(&self) -> Result<(), SvsError> {
        self.read(|connection| {
            let verdict: String =
                connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
            let orphans: i64 = connection.query_row(
                "SELECT count(*) FROM pragma_foreign_key_check",
                [],
                |row| row.get(0),
            )?;
            match verdict == "ok" && orphans == 0 {
                true => Ok(()),
                false => Err(SvsError::Corrupt {
                    expected: "a consistent database",
                    value: format!("{verdict}; {orphans} rows refer to nothing"),
                }),
            }
        })
    }

    /// A value kept under a key, for example the identity of the store beside this catalogue.
    pub fn meta(&self, key: &str) -> Result<Option<String>, SvsError> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT value FROM meta WHERE key = ?")?;
            optional(statement.query_row([key], |row| row.get(0)))
        })
    }

    /// Keeps a value under a key.
    pub fn set_meta(&self, key: &str, value: &str) -> Result<(), SvsError> {
        self.write(|tx| {
            tx.execute(
                "INSERT INTO meta (key, value) VALUES (?1, ?2)
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (key, value),
            )?;
            Ok(())
        })
    }

    /// Runs one durable transaction; an error rolls all of it back.
    pub(crate) fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, SvsError>,
    ) -> Result<T, SvsError> {
        let done = transact(&mut self.writer()?.durable, work);
        self.tell(done)
    }

    /// Lets `told` be called behind every commit of this process, on the thread that made it; it
    /// must be quick, and not write. Only the first call counts.
    pub fn on_write(&self, told: impl Fn() + Send + Sync + 'static) {
        // A second one has nothing to say that the first does not.
        let _ = self.written.set(Box::new(told));
    }

    fn tell<T>(&self, done: Result<T, SvsError>) -> Result<T, SvsError> {
        if let (Ok(_), Some(told)) = (&done, self.written.get()) {
            told();
        }
        done
    }

    /// Like [`Self::write`], without waiting for the disk: a power failure may undo it, together
    /// with everything after it.
    pub(crate) fn write_relaxed<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, SvsError>,
    ) -> Result<T, SvsError> {
        let done = transact(&mut self.writer()?.relaxed, work);
        self.tell(done)
    }

    /// Runs a read on a connection that can not write. It never waits for the writer.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, SvsError>,
    ) -> Result<T, SvsError> {
        let kept = lock(&self.readers).pop();
        let connection = match kept {
            Some(connection) => connection,
            None => connect(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY, "FULL")?,
        };
        let result = work(&connection);
        // After an error the connection is given up, whatever state it is in.
        if result.is_ok() {
            let mut readers = lock(&self.readers);
            if readers.len() < READERS_KEPT {
                readers.push(connection);
            }
        }
        result
    }

    fn writer(&self) -> Result<MutexGuard<'_, Writer>, SvsError> {
        Ok(lock(self.writer.as_ref().ok_or(SvsError::ReadOnly)?))
    }
}

/// A thread that panicked inside a transaction rolled it back as it unwound, so a poisoned lock
/// protects nothing broken.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn transact<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, SvsError>,
) -> Result<T, SvsError> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let value = work(&tx)?;
    tx.commit()?;
    Ok(value)
}

fn connect(path: &Path, flags: OpenFlags, synchronous: &str) -> Result<Connection, SvsError> {
    let prepare = || -> rusqlite::Result<Connection> {
        let connection =
            Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(BUSY)?;
        if flags.contains(OpenFlags::SQLITE_OPEN_READ_WRITE) {
            connection.pragma_update(None, "journal_mode", "WAL")?;
        }
        connection.pragma_update(None, "synchronous", synchronous)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    };
    prepare().map_err(|error| SvsError::Open { path: path.to_owned(), cause: error.to_string() })
}

/// Turns "no row" into `None`.
pub(crate) fn optional<T>(result: rusqlite::Result<T>) -> Result<Option<T>, SvsError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(rusqlite::Error::QueryReturnedNoRows) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Collects the rows of a statement, each made into a `T`.
pub(crate) fn collect<T>(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    make: impl Fn(&rusqlite::Row<'_>) -> Result<T, SvsError>,
) -> Result<Vec<T>, SvsError> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(make(row)?);
    }
    Ok(all)
}

/// The first row of a statement, made into a `T`, if there is one.
pub(crate) fn first<T>(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    make: impl Fn(&rusqlite::Row<'_>) -> Result<T, SvsError>,
) -> Result<Option<T>, SvsError> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    rows.next()?.map(make).transpose()
}
