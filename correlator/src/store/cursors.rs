//! How far each stream of each source has been taken in.

use rusqlite::{OptionalExtension as _, params};

use super::{Batch, Reader, StoreError};

/// A position in a stream of records, committed with the uses before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The configured source.
    pub source: String,
    /// Which of its streams: a path, a URL; empty where there is only one.
    pub stream: String,
    /// The position as JSON; its form is the delivery's own.
    pub position: String,
}

impl Batch<'_> {
    /// Remembers a position, in place of the stream's earlier one.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn put_cursor(&self, cursor: &Cursor) -> Result<(), StoreError> {
        self.tx
            .prepare_cached(
                "INSERT INTO cursors (source, stream, position, moved_ms) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (source, stream) DO UPDATE SET
                    position = excluded.position, moved_ms = excluded.moved_ms",
            )?
            .execute(params![
                cursor.source,
                cursor.stream,
                cursor.position,
                self.now_ms
            ])?;
        Ok(())
    }
}

impl Batch<'_> {
    /// Forgets the positions of streams that are not read any more.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn forget_cursors(&self, source: &str, streams: &[String]) -> Result<(), StoreError> {
        let mut forget = self
            .tx
            .prepare_cached("DELETE FROM cursors WHERE source = ?1 AND stream = ?2")?;
        for stream in streams {
            forget.execute([source, stream.as_str()])?;
        }
        Ok(())
    }
}

impl Reader {
    /// Every stream of a source with its position, in the streams' order.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn cursors(&self, source: &str) -> Result<Vec<(String, String)>, StoreError> {
        self.with(|conn| {
            Ok(conn
                .prepare_cached(
                    "SELECT stream, position FROM cursors WHERE source = ?1 ORDER BY stream",
                )?
                .query_map([source], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?)
        })
    }

    /// The position of a stream, when it has one.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn cursor(&self, source: &str, stream: &str) -> Result<Option<String>, StoreError> {
        self.with(|conn| {
            Ok(conn
                .prepare_cached("SELECT position FROM cursors WHERE source = ?1 AND stream = ?2")?
                .query_row([source, stream], |row| row.get(0))
                .optional()?)
        })
    }
}
