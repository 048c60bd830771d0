//! Snapshots of the operator: a cache in front of the log, never the truth.

use keytrail_join::Settings;
use rusqlite::{OptionalExtension as _, params};

use super::{Batch, Store, StoreError, log, to_i64, to_u64};

/// A stored state of the operator.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// It contains every input before this offset.
    pub next_offset: u64,
    /// The settings it was made with.
    pub settings: Settings,
    /// The operator, as JSON.
    pub state: Vec<u8>,
}

/// A snapshot never decompresses to more than this.
const MAX_STATE_BYTES: usize = 4 << 30;

impl Store {
    /// The latest snapshot; `None` when there is none, or it is unreadable (the log is replayed).
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn snapshot(&self) -> Result<Option<Snapshot>, StoreError> {
        let row: Option<(i64, String, Vec<u8>)> = self
            .conn
            .query_row(
                "SELECT next_offset, settings, state FROM snapshot",
                [],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .optional()?;
        let Some((next_offset, settings, state)) = row else {
            return Ok(None);
        };
        let size = zstd::zstd_safe::get_frame_content_size(&state)
            .ok()
            .flatten()
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| *n <= MAX_STATE_BYTES);
        let state = size.and_then(|size| zstd::bulk::decompress(&state, size).ok());
        Ok(match (serde_json::from_str(&settings), state) {
            (Ok(settings), Some(state)) => Some(Snapshot {
                next_offset: to_u64(next_offset),
                settings,
                state,
            }),
            _ => None,
        })
    }
}

impl Batch<'_> {
    /// Replaces the snapshot by `state`, which contains every input up to the log's end.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn put_snapshot(&self, settings: &Settings, state: &[u8]) -> Result<(), StoreError> {
        let settings = serde_json::to_string(settings).map_err(|e| StoreError::Encode {
            what: "the settings",
            detail: e.to_string(),
        })?;
        self.tx.execute(
            "INSERT INTO snapshot (id, next_offset, settings, state) VALUES (1, ?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET
                next_offset = excluded.next_offset, settings = excluded.settings, state = excluded.state",
            params![to_i64(self.next_offset), settings, log::compress(state)?],
        )?;
        Ok(())
    }
}
