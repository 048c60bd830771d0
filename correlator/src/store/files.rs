//! Which source files have been read to their end.

use rusqlite::{OptionalExtension as _, params};

use super::{Batch, Reader, StoreError, to_i64, to_u64};

/// A file as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMark {
    /// The configured source that read it.
    pub source: String,
    /// Its path.
    pub path: String,
    /// What it was.
    pub known: KnownFile,
    /// SHA-256 of its bytes.
    pub hash: [u8; 32],
}

/// How a file is recognised without reading it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownFile {
    /// Bytes.
    pub size: u64,
    /// `st_mtime` in nanoseconds.
    pub mtime_ns: i64,
    /// `st_ino`.
    pub inode: u64,
}

impl Batch<'_> {
    /// Remembers that a file was read to its end.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn mark_file(&self, mark: &FileMark) -> Result<(), StoreError> {
        self.tx
            .prepare_cached(
                "INSERT INTO files (source, path, size, mtime_ns, inode, hash, done_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (source, path) DO UPDATE SET
                    size = excluded.size, mtime_ns = excluded.mtime_ns, inode = excluded.inode,
                    hash = excluded.hash, done_ms = excluded.done_ms",
            )?
            .execute(params![
                mark.source,
                mark.path,
                to_i64(mark.known.size),
                mark.known.mtime_ns,
                to_i64(mark.known.inode),
                mark.hash,
                self.now_ms
            ])?;
        Ok(())
    }
}

impl Reader {
    /// What a file was when it was last read to its end.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn known_file(&self, source: &str, path: &str) -> Result<Option<KnownFile>, StoreError> {
        self.with(|conn| {
            Ok(conn
                .prepare_cached(
                    "SELECT size, mtime_ns, inode FROM files WHERE source = ?1 AND path = ?2",
                )?
                .query_row(params![source, path], |row| {
                    Ok(KnownFile {
                        size: to_u64(row.get(0)?),
                        mtime_ns: row.get(1)?,
                        inode: to_u64(row.get(2)?),
                    })
                })
                .optional()?)
        })
    }

    /// The path of a file with this content that was read before.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn file_with_content(
        &self,
        source: &str,
        hash: &[u8; 32],
    ) -> Result<Option<String>, StoreError> {
        self.with(|conn| {
            Ok(conn
                .prepare_cached("SELECT path FROM files WHERE source = ?1 AND hash = ?2 LIMIT 1")?
                .query_row(params![source, hash], |row| row.get(0))
                .optional()?)
        })
    }
}
