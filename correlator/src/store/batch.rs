//! One transaction.

use jiff::Timestamp;
use keytrail_join::{Input, UseDecision, UseState};
use keytrail_model::ids::{BootId, HostId, RecordId};
use rusqlite::{OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::{Store, StoreError, log, to_i64, to_u64};
use crate::partition::logical_partition;

/// Everything that one group of inputs changes. Dropped without [`Batch::commit`], nothing of it
/// happened.
#[derive(Debug)]
pub struct Batch<'a> {
    pub(super) tx: Transaction<'a>,
    pub(super) next_offset: u64,
    pub(super) next_revision: u64,
    pub(super) now_ms: i64,
    after: (&'a mut u64, &'a mut u64),
}

impl Store {
    /// Begins a transaction at the time `now`.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn begin(&mut self, now: Timestamp) -> Result<Batch<'_>, StoreError> {
        let tx = Transaction::new(&mut self.conn, TransactionBehavior::Immediate)?;
        Ok(Batch {
            tx,
            next_offset: self.next_offset,
            next_revision: self.next_revision,
            now_ms: now.as_millisecond(),
            after: (&mut self.next_offset, &mut self.next_revision),
        })
    }
}

impl Batch<'_> {
    /// The highest sequence number taken in from this boot of this host; 0 when none.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn position(&self, host: &HostId, boot: BootId) -> Result<u64, StoreError> {
        let seq: Option<i64> = self
            .tx
            .prepare_cached("SELECT seq FROM positions WHERE host = ?1 AND boot = ?2")?
            .query_row(params![host.0, boot.to_string()], |row| row.get(0))
            .optional()?;
        Ok(to_u64(seq.unwrap_or(0)))
    }

    /// Raises that number; it never falls.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn set_position(&self, host: &HostId, boot: BootId, seq: u64) -> Result<(), StoreError> {
        self.tx
            .prepare_cached(
                "INSERT INTO positions (host, boot, seq) VALUES (?1, ?2, ?3)
                 ON CONFLICT (host, boot) DO UPDATE SET seq = max(seq, excluded.seq)",
            )?
            .execute(params![host.0, boot.to_string(), to_i64(seq)])?;
        Ok(())
    }

    /// Remembers a cloud record; false when it had been seen before.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn remember_record(&self, record: &RecordId) -> Result<bool, StoreError> {
        let inserted = self
            .tx
            .prepare_cached("INSERT OR IGNORE INTO records (record, seen_ms) VALUES (?1, ?2)")?
            .execute(params![record.0, self.now_ms])?;
        Ok(inserted > 0)
    }

    /// Appends inputs to the log.
    ///
    /// # Errors
    /// When an input cannot be encoded, or SQLite fails.
    pub fn append(&mut self, inputs: &[Input]) -> Result<(), StoreError> {
        self.next_offset = log::append(&self.tx, self.next_offset, inputs, self.now_ms)?;
        Ok(())
    }

    /// Stores what is thought of a use now.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn put_use(&self, decision: &UseDecision) -> Result<(), StoreError> {
        let json = serde_json::to_string(decision).map_err(|e| StoreError::Encode {
            what: "a use decision",
            detail: e.to_string(),
        })?;
        self.tx
            .prepare_cached(
                "INSERT INTO uses (record, credential, partition, state, decided_ms, json)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (record) DO UPDATE SET
                    state = excluded.state, decided_ms = excluded.decided_ms, json = excluded.json",
            )?
            .execute(params![
                decision.record.0,
                decision.credential.to_string(),
                logical_partition(&decision.credential),
                state_name(&decision.state),
                self.now_ms,
                json
            ])?;
        Ok(())
    }

    /// Makes it all durable.
    ///
    /// # Errors
    /// When SQLite fails: then nothing of it happened.
    pub fn commit(self) -> Result<(), StoreError> {
        let Self {
            tx,
            next_offset,
            next_revision,
            now_ms: _,
            after,
        } = self;
        tx.commit()?;
        *after.0 = next_offset;
        *after.1 = next_revision;
        Ok(())
    }
}

/// The state's name in the API and in the store.
fn state_name(state: &UseState) -> &'static str {
    match state {
        UseState::Unwatched => "unwatched",
        UseState::Undecided { .. } => "undecided",
        UseState::ServiceSide { .. } => "service-side",
        UseState::Explained { .. } => "explained",
        UseState::Declared { .. } => "declared",
        UseState::Unexplained { .. } => "unexplained",
    }
}
