//! The store: one SQLite file that survives a kill at any moment.
//!
//! What is kept, and what it is for:
//! - `log`: every input of the join in arrival order, as compressed blocks of JSON lines. **The log
//!   is the truth**; everything else but `documents` and `cursors` can be derived from it.
//! - `positions`, `records`, `files`, `cursors`: what has been taken in already, so that a replay changes nothing.
//! - `alerts`, `uses`, `hosts`, `gaps`: what the API serves.
//! - `graph_nodes`, `graph_edges`: the lineage graph, up to the log offset `graph_offset` in `meta`.
//! - `documents`: what people imported or a directory provisioned; not derived from the log.
//! - `snapshot`: the operator's state at one log offset, so that a restart replays only the tail.
//!
//! Architecture invariants:
//! - ST-1: everything that follows from one batch of inputs (log block, positions, alerts, use
//!   decisions) is committed in one transaction; a reply leaves after the commit.
//! - ST-2: one writer ([`Store`], on the runner's thread); readers ([`Reader`]) have connections
//!   of their own and can never block it (WAL).
//! - ST-3: an alert's revision only rises; the feed of changes is "alerts with a revision above N".

mod alerts;
mod batch;
mod cursors;
mod documents;
mod files;
mod graph;
mod hosts;
mod log;
mod reader;
mod retention;
mod schema;
mod snapshot;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use thiserror::Error;

pub use alerts::{AlertFilter, AlertPage, StoredAlert};
pub use batch::Batch;
pub use cursors::Cursor;
pub use documents::{Collection, Document};
pub use files::{FileMark, KnownFile};
pub use hosts::SensorRow;
pub use reader::{Reader, Totals};
pub use retention::Pruned;
pub use snapshot::Snapshot;

/// Name of the database file inside the data directory.
pub const FILE_NAME: &str = "keytrail.db";

/// Why the store failed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The data directory cannot be used.
    #[error("data directory {path}: {source}; it must exist or be creatable, and be writable")]
    Directory {
        /// Which directory or file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another correlator has it open.
    #[error("{path} is in use by another correlator; stop that one or choose another --data-dir")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// Written by a newer version.
    #[error(
        "{path} has schema version {found}, this correlator knows up to {known}: \
         it was written by a newer correlator; start that version, or choose another --data-dir"
    )]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// SQLite says the file is damaged, or it is no database.
    #[error(
        "{path} is damaged ({detail}): move it away together with its -wal and -shm files and \
         restart; sensors send again what was not acknowledged, deliver log files again to have them read"
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// SQLite's words.
        detail: String,
    },
    /// A stored value cannot be read back.
    #[error(
        "{what} in the store cannot be read ({detail}): the database was altered or is damaged"
    )]
    Value {
        /// Which value.
        what: String,
        /// Why.
        detail: String,
    },
    /// A value cannot be written.
    #[error("{what} cannot be stored: {detail}")]
    Encode {
        /// Which value.
        what: &'static str,
        /// Why.
        detail: String,
    },
    /// Any other failure: disk full, I/O.
    #[error("SQLite: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

impl StoreError {
    fn value(what: impl Into<String>, detail: impl ToString) -> Self {
        Self::Value {
            what: what.into(),
            detail: detail.to_string(),
        }
    }
}

/// The writer's end of the store. One per data directory, guarded by a lock file.
#[derive(Debug)]
pub struct Store {
    conn: Connection,
    path: PathBuf,
    next_offset: u64,
    next_revision: u64,
    _lock: File,
}

impl Store {
    /// Opens the store in `dir`, creates it when absent.
    ///
    /// # Errors
    /// When the directory is unusable or locked, the schema is newer, or the file is damaged.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE_NAME);
        let lock = lock(dir)?;
        let conn = Connection::open(&path).map_err(|e| classify(&path, e))?;
        schema::prepare(&conn, &path)?;
        let mut store = Self {
            conn,
            path,
            next_offset: 0,
            next_revision: 1,
            _lock: lock,
        };
        store.next_offset = log::next_offset(&store.conn)?;
        store.next_revision = alerts::next_revision(&store.conn)?;
        Ok(store)
    }

    /// A reader of the same file.
    ///
    /// # Errors
    /// When the file cannot be opened again.
    pub fn reader(&self) -> Result<Reader, StoreError> {
        Reader::open(&self.path)
    }

    /// The offset that the next input gets: the number of inputs ever recorded.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// Moves the write-ahead log into the database and truncates it.
    ///
    /// # Errors
    /// When SQLite fails; a busy reader is no error, the next call finishes the job.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        self.conn
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    }

    /// Size of the write-ahead log, bytes.
    #[must_use]
    pub fn wal_bytes(&self) -> u64 {
        let mut wal = self.path.clone().into_os_string();
        wal.push("-wal");
        std::fs::metadata(wal).map_or(0, |m| m.len())
    }
}

/// Takes the data directory for this process. The lock goes with the process.
fn lock(dir: &Path) -> Result<File, StoreError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::Directory { path, source }
    };
    create_private_dir(dir).map_err(at(dir))?;
    let path = dir.join("lock");
    let file = File::create(&path).map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path }),
        Err(TryLockError::Error(source)) => Err(StoreError::Directory { path, source }),
    }
}

/// Creates a directory that only its owner can enter.
fn create_private_dir(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

/// Tells damage from other failures.
fn classify(path: &Path, error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            StoreError::Damaged {
                path: path.to_owned(),
                detail: error.to_string(),
            }
        }
        _ => StoreError::Sqlite(error),
    }
}

/// SQLite's integers are signed; ours never reach the sign bit.
fn to_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Back again; a negative number in the store is damage and reads as 0.
fn to_u64(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests;
