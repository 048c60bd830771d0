//! Tables, pragmas, versions.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _};

use super::{StoreError, classify};

/// The version that this code writes.
pub(super) const VERSION: i64 = 1;

/// Files up to this size are checked page by page when opened.
const QUICK_CHECK_BYTES: u64 = 128 << 20;

const TABLES: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- One row per block of consecutive inputs; `first` is the offset of the block's first input.
CREATE TABLE log (
    first INTEGER PRIMARY KEY,
    count INTEGER NOT NULL,
    written_ms INTEGER NOT NULL,
    raw_bytes INTEGER NOT NULL,
    block BLOB NOT NULL
) STRICT;

CREATE TABLE snapshot (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    next_offset INTEGER NOT NULL,
    settings TEXT NOT NULL,
    state BLOB NOT NULL
) STRICT;

CREATE TABLE positions (
    host TEXT NOT NULL,
    boot TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (host, boot)
) STRICT, WITHOUT ROWID;

CREATE TABLE records (
    record TEXT PRIMARY KEY,
    seen_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX records_by_time ON records (seen_ms);

CREATE TABLE alerts (
    id TEXT PRIMARY KEY,
    revision INTEGER NOT NULL UNIQUE,
    verdict TEXT NOT NULL,
    credential TEXT NOT NULL,
    partition INTEGER NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    changed_ms INTEGER NOT NULL,
    json TEXT NOT NULL
) STRICT;
CREATE INDEX alerts_by_credential ON alerts (credential, revision);
CREATE INDEX alerts_by_verdict ON alerts (verdict, revision);

CREATE TABLE uses (
    record TEXT PRIMARY KEY,
    credential TEXT NOT NULL,
    partition INTEGER NOT NULL,
    state TEXT NOT NULL,
    decided_ms INTEGER NOT NULL,
    json TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX uses_by_state ON uses (state);
CREATE INDEX uses_by_time ON uses (decided_ms);

CREATE TABLE hosts (
    host TEXT PRIMARY KEY,
    boot TEXT NOT NULL,
    seq INTEGER NOT NULL,
    last_seen_ms INTEGER NOT NULL,
    events INTEGER NOT NULL,
    watermark TEXT,
    coverage TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE gaps (
    number INTEGER PRIMARY KEY,
    host TEXT NOT NULL,
    json TEXT NOT NULL
) STRICT;
CREATE INDEX gaps_by_host ON gaps (host, number);

CREATE TABLE files (
    source TEXT NOT NULL,
    path TEXT NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    hash BLOB NOT NULL,
    done_ms INTEGER NOT NULL,
    PRIMARY KEY (source, path)
) STRICT, WITHOUT ROWID;
CREATE INDEX files_by_hash ON files (source, hash);
";

/// Tables that came after the first release of this version. Older correlators of the version do
/// not look at them, so they need no new version: they are made wherever they are missing.
const ADDED: &str = "
CREATE TABLE IF NOT EXISTS graph_nodes (id INTEGER PRIMARY KEY, node TEXT NOT NULL UNIQUE) STRICT;

-- One row per edge of the lineage graph; `kind` is EdgeKind's number, times are microseconds.
CREATE TABLE IF NOT EXISTS graph_edges (
    source INTEGER NOT NULL REFERENCES graph_nodes (id),
    kind INTEGER NOT NULL,
    target INTEGER NOT NULL REFERENCES graph_nodes (id),
    first_us INTEGER NOT NULL,
    last_us INTEGER NOT NULL,
    count INTEGER NOT NULL,
    evidence TEXT NOT NULL,
    PRIMARY KEY (source, kind, target)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS graph_edges_by_target ON graph_edges (target);

-- What was imported: permissions, people, devices; and what a directory provisioned.
CREATE TABLE IF NOT EXISTS documents (
    collection TEXT NOT NULL,
    id TEXT NOT NULL,
    changed_ms INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (collection, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS cursors (
    source TEXT NOT NULL,
    stream TEXT NOT NULL,
    position TEXT NOT NULL,
    moved_ms INTEGER NOT NULL,
    PRIMARY KEY (source, stream)
) STRICT, WITHOUT ROWID;
";

/// Sets the connection up; creates or checks the schema.
pub(super) fn prepare(conn: &Connection, path: &Path) -> Result<(), StoreError> {
    let damaged = |e| classify(path, e);
    conn.busy_timeout(std::time::Duration::from_secs(5))
        .map_err(damaged)?;
    // FULL: a commit is on the disk before the acknowledgement leaves, also after a power cut.
    for (pragma, value) in [("journal_mode", "WAL"), ("synchronous", "FULL")] {
        conn.pragma_update(None, pragma, value).map_err(damaged)?;
    }
    let has_meta: bool = conn
        .query_row(
            "SELECT count(*) FROM sqlite_schema WHERE name = 'meta'",
            [],
            |row| row.get::<_, i64>(0),
        )
        .map_err(damaged)?
        > 0;
    if has_meta {
        quick_check(conn, path)?;
        check_version(conn, path)?;
    } else {
        create(conn).map_err(damaged)?;
    }
    conn.execute_batch(ADDED).map_err(damaged)
}

fn create(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch("BEGIN IMMEDIATE")?;
    conn.execute_batch(TABLES)?;
    conn.execute(
        "INSERT INTO meta (key, value) VALUES ('schema_version', ?1)",
        [VERSION],
    )?;
    conn.execute_batch("COMMIT")
}

fn check_version(conn: &Connection, path: &Path) -> Result<(), StoreError> {
    let found: Option<i64> = conn
        .query_row(
            "SELECT value FROM meta WHERE key = 'schema_version'",
            [],
            |row| row.get(0),
        )
        .optional()
        .map_err(|e| classify(path, e))?;
    match found {
        Some(VERSION) => Ok(()),
        Some(found) if found > VERSION => Err(StoreError::NewerSchema {
            path: path.to_owned(),
            found,
            known: VERSION,
        }),
        Some(_) | None => Err(StoreError::Damaged {
            path: path.to_owned(),
            detail: "no valid schema version".to_owned(),
        }),
    }
}

/// Looks at every page of a small database; a large one is checked as its pages are read.
fn quick_check(conn: &Connection, path: &Path) -> Result<(), StoreError> {
    if std::fs::metadata(path).map_or(0, |m| m.len()) > QUICK_CHECK_BYTES {
        return Ok(());
    }
    let verdict: String = conn
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|e| classify(path, e))?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(StoreError::Damaged {
        path: path.to_owned(),
        detail: verdict,
    })
}
