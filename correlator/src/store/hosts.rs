//! What is known about each sensor.

use jiff::Timestamp;
use keytrail_model::coverage::Coverage;
use keytrail_model::fact::{Gap, Watermark};
use keytrail_model::ids::{BootId, HostId};
use rusqlite::params;

use super::{Batch, Reader, StoreError, to_i64, to_u64};

/// Gaps kept per host; older ones are in the log.
const GAPS_KEPT: i64 = 32;
/// Hosts that one listing shows.
const HOSTS_LISTED: i64 = 10_000;

/// One sensor, as stored.
#[derive(Clone, Debug)]
pub struct SensorRow {
    /// Its host.
    pub host: HostId,
    /// The boot it last spoke of.
    pub boot: String,
    /// The last sequence number taken in from that boot.
    pub seq: u64,
    /// When it last spoke, by the correlator's clock.
    pub last_seen: Timestamp,
    /// Facts taken in from it, over all boots.
    pub events: u64,
    /// Its last promise.
    pub watermark: Option<Watermark>,
    /// What it can see.
    pub coverage: Option<Coverage>,
    /// What it lost, latest first; at most 32.
    pub gaps: Vec<Gap>,
}

impl Batch<'_> {
    /// Records that a host spoke.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn put_host(
        &self,
        host: &HostId,
        boot: BootId,
        seq: u64,
        events: u64,
        watermark: Option<&Watermark>,
        coverage: Option<&Coverage>,
    ) -> Result<(), StoreError> {
        self.tx
            .prepare_cached(
                "INSERT INTO hosts (host, boot, seq, last_seen_ms, events, watermark, coverage)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (host) DO UPDATE SET
                    boot = excluded.boot, seq = excluded.seq, last_seen_ms = excluded.last_seen_ms,
                    events = events + excluded.events,
                    watermark = coalesce(excluded.watermark, watermark),
                    coverage = coalesce(excluded.coverage, coverage)",
            )?
            .execute(params![
                host.0,
                boot.to_string(),
                to_i64(seq),
                self.now_ms,
                to_i64(events),
                watermark.map(encode).transpose()?,
                coverage.map(encode).transpose()?,
            ])?;
        Ok(())
    }

    /// Records that a host lost something.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn put_gap(&self, host: &HostId, gap: &Gap) -> Result<(), StoreError> {
        self.tx
            .prepare_cached("INSERT INTO gaps (host, json) VALUES (?1, ?2)")?
            .execute(params![host.0, encode(gap)?])?;
        self.tx
            .prepare_cached(
                "DELETE FROM gaps WHERE host = ?1 AND number <=
                    (SELECT number FROM gaps WHERE host = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute(params![host.0, GAPS_KEPT])?;
        Ok(())
    }
}

fn encode<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::Encode {
        what: "a host's state",
        detail: e.to_string(),
    })
}

fn decode<T: serde::de::DeserializeOwned>(host: &str, json: &str) -> Result<T, StoreError> {
    serde_json::from_str(json).map_err(|e| StoreError::value(format!("state of host {host}"), e))
}

impl Reader {
    /// Every sensor, by name.
    ///
    /// # Errors
    /// When SQLite fails or a stored value is damaged.
    pub fn sensors(&self) -> Result<Vec<SensorRow>, StoreError> {
        self.with(|conn| {
            let mut hosts = conn.prepare_cached(
                "SELECT host, boot, seq, last_seen_ms, events, watermark, coverage
                 FROM hosts ORDER BY host LIMIT ?1",
            )?;
            let mut gaps =
                conn.prepare_cached("SELECT json FROM gaps WHERE host = ?1 ORDER BY number DESC")?;
            let mut rows = hosts.query([HOSTS_LISTED])?;
            let mut sensors = Vec::new();
            while let Some(row) = rows.next()? {
                let host: String = row.get(0)?;
                let watermark: Option<String> = row.get(5)?;
                let coverage: Option<String> = row.get(6)?;
                let gaps = gaps
                    .query_map([&host], |row| row.get::<_, String>(0))?
                    .map(|json| decode(&host, &json?))
                    .collect::<Result<_, StoreError>>()?;
                sensors.push(SensorRow {
                    boot: row.get(1)?,
                    seq: to_u64(row.get(2)?),
                    last_seen: Timestamp::from_millisecond(row.get(3)?)
                        .map_err(|e| StoreError::value(format!("last_seen of host {host}"), e))?,
                    events: to_u64(row.get(4)?),
                    watermark: watermark.map(|json| decode(&host, &json)).transpose()?,
                    coverage: coverage.map(|json| decode(&host, &json)).transpose()?,
                    gaps,
                    host: HostId(host),
                });
            }
            Ok(sensors)
        })
    }
}
