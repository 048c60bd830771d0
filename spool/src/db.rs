//! The file: schema, opening, putting aside.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode};

use crate::{EpochId, Opened, SpoolError};

/// In `PRAGMA user_version`; a file of another version is put aside like a damaged one.
const VERSION: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE epoch (
        no INTEGER PRIMARY KEY AUTOINCREMENT,
        id BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
        next_seq INTEGER NOT NULL CHECK (next_seq >= 1),
        acked INTEGER NOT NULL CHECK (acked >= 0 AND acked < next_seq),
        anchored INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE block (
        epoch INTEGER NOT NULL,
        first_seq INTEGER NOT NULL,
        count INTEGER NOT NULL CHECK (count >= 1),
        raw_bytes INTEGER NOT NULL,
        min_stamp INTEGER NOT NULL,
        max_stamp INTEGER NOT NULL,
        mark INTEGER,
        cause INTEGER,
        crc INTEGER NOT NULL,
        zstd BLOB,
        PRIMARY KEY (epoch, first_seq)
    ) STRICT;
";

const NOTE: &str = "
    CREATE TABLE IF NOT EXISTS note (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        epoch INTEGER NOT NULL,
        text BLOB NOT NULL
    ) STRICT;
";

/// True when SQLite says that the file is no longer what it wrote.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    ) || matches!(
        error,
        rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::IntegralValueOutOfRange(..)
    )
}

/// Why a file is not used.
enum Unusable {
    Damaged(String),
    Failed(rusqlite::Error),
}

impl From<rusqlite::Error> for Unusable {
    fn from(error: rusqlite::Error) -> Self {
        if is_damage(&error) {
            Self::Damaged(error.to_string())
        } else {
            Self::Failed(error)
        }
    }
}

/// Opens the file, or begins a new one when there is none or it is damaged (SP-6).
pub(crate) fn open(path: &Path) -> Result<(Connection, Opened), SpoolError> {
    let failed = |source| SpoolError::Sqlite {
        path: path.to_owned(),
        source,
    };
    match open_checked(path) {
        Ok(connection) => Ok((connection, Opened::default())),
        Err(Unusable::Failed(source)) => Err(failed(source)),
        Err(Unusable::Damaged(damage)) => {
            let aside = put_aside(path)?;
            match open_checked(path) {
                Ok(connection) => Ok((
                    connection,
                    Opened {
                        quarantined: Some(aside),
                        damage: Some(damage),
                    },
                )),
                Err(Unusable::Failed(source)) => Err(failed(source)),
                Err(Unusable::Damaged(_)) => Err(SpoolError::Impossible("new file")),
            }
        }
    }
}

fn open_checked(path: &Path) -> Result<Connection, Unusable> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    // Takes effect on a new file only, and must come before anything is written.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", 16 * 1024 * 1024)?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match version {
        0 => {
            let tables: i64 =
                connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
            if tables != 0 {
                return Err(Unusable::Damaged("not a spool".to_owned()));
            }
            connection.execute_batch(&format!(
                "BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;"
            ))?;
        }
        VERSION => {
            let verdict: String =
                connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            if verdict != "ok" {
                return Err(Unusable::Damaged(verdict));
            }
        }
        other => {
            return Err(Unusable::Damaged(format!(
                "format {other}, this version reads {VERSION}"
            )));
        }
    }
    // Came later than the format's number; older files get it here.
    connection.execute_batch(NOTE)?;
    Ok(connection)
}

/// The note that was stored last (see [`crate::Spool::append_noting`]), if that was in this epoch. Looks only:
/// a file that cannot be read is left for [`crate::Spool::open`] to deal with.
#[must_use]
pub fn note(path: &Path, epoch: EpochId) -> Option<Vec<u8>> {
    if !path.exists() {
        return None;
    }
    let connection = Connection::open(path).ok()?;
    connection
        .query_row(
            "SELECT text FROM note JOIN epoch ON epoch.no = note.epoch WHERE epoch.id = ?1",
            [epoch.as_slice()],
            |row| row.get(0),
        )
        .ok()
}

/// Renames the file and its companions. Only the latest damaged file is kept: the name is fixed, so
/// the space it takes is bounded.
pub(crate) fn put_aside(path: &Path) -> Result<PathBuf, SpoolError> {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    for companion in ["-wal", "-shm", ""] {
        match std::fs::rename(with(companion), with(&format!(".damaged{companion}"))) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(SpoolError::Quarantine {
                    path: path.to_owned(),
                    source,
                });
            }
        }
    }
    Ok(with(".damaged"))
}
