//! Alerts and the feed of their changes.
//!
//! The feed is not a second log: every change gives the alert a new, higher revision, and a reader
//! that has seen revision N asks for alerts above N. It gets each alert in its latest state, in
//! the order of their latest changes; a state that was overtaken meanwhile is skipped (its reason
//! is in the alert's `history`).

use keytrail_model::alert::{Alert, Verdict};
use keytrail_model::credential::CredentialId;
use rusqlite::{Connection, OptionalExtension as _, Row, params, params_from_iter};

use super::{Batch, Reader, StoreError, to_i64, to_u64};
use crate::partition::logical_partition;

/// An alert as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAlert {
    /// Rises with every change of any alert.
    pub revision: u64,
    /// The alert.
    pub alert: Alert,
}

/// Which alerts to list.
#[derive(Clone, Debug, Default)]
pub struct AlertFilter {
    /// Only with this verdict.
    pub verdict: Option<Verdict>,
    /// Only about this credential.
    pub credential: Option<CredentialId>,
    /// Only with a revision below this one (the cursor).
    pub below: Option<u64>,
    /// At most so many.
    pub limit: usize,
}

/// A page of alerts, latest change first.
#[derive(Clone, Debug)]
pub struct AlertPage {
    /// The alerts.
    pub alerts: Vec<StoredAlert>,
    /// Pass as `below` for the next page; `None` on the last.
    pub next: Option<u64>,
}

pub(super) fn next_revision(conn: &Connection) -> Result<u64, StoreError> {
    let last: i64 = conn.query_row("SELECT coalesce(max(revision), 0) FROM alerts", [], |row| {
        row.get(0)
    })?;
    Ok(to_u64(last) + 1)
}

impl Batch<'_> {
    /// Stores an alert, whole; returns its new revision, or `None` when nothing changed.
    ///
    /// # Errors
    /// When it cannot be encoded, or SQLite fails.
    pub fn put_alert(&mut self, alert: &Alert) -> Result<Option<u64>, StoreError> {
        let json = serde_json::to_string(alert).map_err(|e| StoreError::Encode {
            what: "an alert",
            detail: e.to_string(),
        })?;
        let id = alert.id.to_string();
        let known: Option<String> = self
            .tx
            .prepare_cached("SELECT json FROM alerts WHERE id = ?1")?
            .query_row([&id], |row| row.get(0))
            .optional()?;
        if known.as_deref() == Some(json.as_str()) {
            return Ok(None);
        }
        let revision = self.next_revision;
        self.tx
            .prepare_cached(
                "INSERT INTO alerts
                    (id, revision, verdict, credential, partition, first_ms, last_ms, changed_ms, json)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                 ON CONFLICT (id) DO UPDATE SET
                    revision = excluded.revision, verdict = excluded.verdict,
                    credential = excluded.credential, partition = excluded.partition,
                    first_ms = excluded.first_ms, last_ms = excluded.last_ms,
                    changed_ms = excluded.changed_ms, json = excluded.json",
            )?
            .execute(params![
                id,
                to_i64(revision),
                alert.verdict.as_str(),
                alert.credential.to_string(),
                logical_partition(&alert.credential),
                alert.first_seen.as_millisecond(),
                alert.last_seen.as_millisecond(),
                self.now_ms,
                json
            ])?;
        self.next_revision += 1;
        Ok(Some(revision))
    }
}

fn stored(row: &Row<'_>) -> rusqlite::Result<(i64, String)> {
    Ok((row.get(0)?, row.get(1)?))
}

fn decode((revision, json): (i64, String)) -> Result<StoredAlert, StoreError> {
    Ok(StoredAlert {
        revision: to_u64(revision),
        alert: serde_json::from_str(&json)
            .map_err(|e| StoreError::value(format!("alert of revision {revision}"), e))?,
    })
}

impl Reader {
    /// One alert by its id.
    ///
    /// # Errors
    /// When SQLite fails or the stored alert is damaged.
    pub fn alert(&self, id: &str) -> Result<Option<StoredAlert>, StoreError> {
        self.with(|conn| {
            conn.prepare_cached("SELECT revision, json FROM alerts WHERE id = ?1")?
                .query_row([id], stored)
                .optional()?
                .map(decode)
                .transpose()
        })
    }

    /// A page of alerts, latest change first.
    ///
    /// # Errors
    /// When SQLite fails or a stored alert is damaged.
    pub fn alerts(&self, filter: &AlertFilter) -> Result<AlertPage, StoreError> {
        let mut sql = "SELECT revision, json FROM alerts WHERE revision < ?1".to_owned();
        let mut values = vec![rusqlite::types::Value::from(
            filter.below.map_or(i64::MAX, to_i64),
        )];
        if let Some(verdict) = filter.verdict {
            values.push(verdict.as_str().to_owned().into());
            sql.push_str(&format!(" AND verdict = ?{}", values.len()));
        }
        if let Some(credential) = &filter.credential {
            values.push(credential.to_string().into());
            sql.push_str(&format!(" AND credential = ?{}", values.len()));
        }
        // One more than asked for tells whether there is another page.
        values.push(to_i64(filter.limit as u64 + 1).into());
        sql.push_str(&format!(" ORDER BY revision DESC LIMIT ?{}", values.len()));
        let mut alerts = self.with(|conn| {
            conn.prepare_cached(&sql)?
                .query_map(params_from_iter(values), stored)?
                .map(|row| decode(row?))
                .collect::<Result<Vec<_>, StoreError>>()
        })?;
        let more = alerts.len() > filter.limit;
        alerts.truncate(filter.limit);
        let next = alerts.last().filter(|_| more).map(|last| last.revision);
        Ok(AlertPage { alerts, next })
    }

    /// Alerts that changed after `revision`, in the order of their changes; at most `limit`.
    ///
    /// # Errors
    /// When SQLite fails or a stored alert is damaged.
    pub fn alerts_after(
        &self,
        revision: u64,
        limit: usize,
    ) -> Result<Vec<StoredAlert>, StoreError> {
        self.with(|conn| {
            conn.prepare_cached(
                "SELECT revision, json FROM alerts WHERE revision > ?1 ORDER BY revision LIMIT ?2",
            )?
            .query_map(params![to_i64(revision), to_i64(limit as u64)], stored)?
            .map(|row| decode(row?))
            .collect()
        })
    }

    /// The highest revision so far; 0 when there is no alert.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn last_revision(&self) -> Result<u64, StoreError> {
        self.with(|conn| Ok(next_revision(conn)? - 1))
    }
}
