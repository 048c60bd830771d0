//! Readers: connections of their own, so that the API never waits for the writer nor the writer
//! for the API.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use keytrail_join::{Input, UseDecision};
use keytrail_model::ids::{BootId, HostId};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};

use super::{FILE_NAME, StoreError, classify, log, to_u64};

/// Idle connections kept.
const IDLE: usize = 4;

/// Reads the store; cheap to clone. Its calls block: use a blocking thread in async code.
#[derive(Clone, Debug)]
pub struct Reader {
    path: Arc<PathBuf>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

/// Counts from the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Alerts by verdict.
    pub alerts: BTreeMap<String, u64>,
    /// Uses by state.
    pub uses: BTreeMap<String, u64>,
    /// Inputs in the log.
    pub log_inputs: u64,
    /// Their size as JSON, bytes.
    pub log_raw_bytes: u64,
    /// Their size in the store, bytes.
    pub log_stored_bytes: u64,
    /// Source files read to their end.
    pub files: u64,
    /// Size of the database file, bytes.
    pub database_bytes: u64,
    /// Size of its write-ahead log, bytes.
    pub wal_bytes: u64,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let reader = Self {
            path: Arc::new(path.to_owned()),
            idle: Arc::default(),
        };
        reader.with(|_| Ok(()))?;
        Ok(reader)
    }

    /// A reader of the store in `dir`, which a running correlator may be writing.
    ///
    /// # Errors
    /// When there is none, or it cannot be opened.
    pub fn of_dir(dir: &Path) -> Result<Self, StoreError> {
        Self::open(&dir.join(FILE_NAME))
    }

    /// Every input in the log, oldest first, as of now: what is recorded meanwhile is left out.
    ///
    /// # Errors
    /// When SQLite fails or the log is damaged, and those of `each`.
    pub fn inputs<E: From<StoreError>>(
        &self,
        mut each: impl FnMut(Input) -> Result<(), E>,
    ) -> Result<(), E> {
        // One statement is one snapshot of the write-ahead log.
        let conn = self.connect().map_err(E::from)?;
        log::replay(&conn, 0, |_, input| each(input))
    }

    fn connect(&self) -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(self.path.as_path(), flags)
            .map_err(|e| classify(&self.path, e))?;
        conn.busy_timeout(Duration::from_secs(5))?;
        Ok(conn)
    }

    /// Runs `read` on a connection that nobody else uses meanwhile.
    pub(super) fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let conn = match idle {
            Some(conn) => conn,
            None => self.connect()?,
        };
        let result = read(&conn);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(conn);
        }
        result
    }

    /// The highest sequence number taken in from this boot of this host; 0 when none.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn position(&self, host: &HostId, boot: BootId) -> Result<u64, StoreError> {
        self.with(|conn| {
            let seq: Option<i64> = conn
                .prepare_cached("SELECT seq FROM positions WHERE host = ?1 AND boot = ?2")?
                .query_row(params![host.0, boot.to_string()], |row| row.get(0))
                .optional()?;
            Ok(to_u64(seq.unwrap_or(0)))
        })
    }

    /// What is thought of one use.
    ///
    /// # Errors
    /// When SQLite fails or the stored value is damaged.
    pub fn use_decision(&self, record: &str) -> Result<Option<UseDecision>, StoreError> {
        self.with(|conn| {
            conn.prepare_cached("SELECT json FROM uses WHERE record = ?1")?
                .query_row([record], |row| row.get::<_, String>(0))
                .optional()?
                .map(|json| {
                    serde_json::from_str(&json)
                        .map_err(|e| StoreError::value(format!("use {record}"), e))
                })
                .transpose()
        })
    }

    /// Counts for the status page.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn totals(&self) -> Result<Totals, StoreError> {
        let mut totals = self.with(|conn| {
            let (inputs, raw, stored): (i64, i64, i64) = conn.query_row(
                "SELECT coalesce(sum(count), 0), coalesce(sum(raw_bytes), 0),
                        coalesce(sum(length(block)), 0) FROM log",
                [],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )?;
            let files: i64 = conn.query_row("SELECT count(*) FROM files", [], |row| row.get(0))?;
            Ok(Totals {
                alerts: counts(
                    conn,
                    "SELECT verdict, count(*) FROM alerts GROUP BY verdict",
                )?,
                uses: counts(conn, "SELECT state, count(*) FROM uses GROUP BY state")?,
                log_inputs: to_u64(inputs),
                log_raw_bytes: to_u64(raw),
                log_stored_bytes: to_u64(stored),
                files: to_u64(files),
                database_bytes: 0,
                wal_bytes: 0,
            })
        })?;
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.len());
        totals.database_bytes = size(&self.path);
        let mut wal = self.path.as_os_str().to_owned();
        wal.push("-wal");
        totals.wal_bytes = size(Path::new(&wal));
        Ok(totals)
    }
}

fn counts(conn: &Connection, sql: &str) -> Result<BTreeMap<String, u64>, StoreError> {
    conn.prepare_cached(sql)?
        .query_map([], |row| Ok((row.get(0)?, to_u64(row.get(1)?))))?
        .map(|row| row.map_err(StoreError::from))
        .collect()
}
