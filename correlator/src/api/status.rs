//! Status: every count with what it means.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::problem::read;
use super::{ApiState, Problem};
use crate::clock;
use crate::counters::CounterView;
use crate::networks::NetworksView;
use crate::sources::SourceStatus;

/// How the correlator is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Status {
    /// Version of the correlator.
    pub version: String,
    /// When this process began.
    pub started: Timestamp,
    /// How long ago that is, seconds.
    pub uptime_seconds: i64,
    /// What is stored.
    pub store: StoreStatus,
    /// Where cloud-side uses come from.
    pub sources: Vec<SourceStatus>,
    /// Files that networks of addresses are looked up in, with their ages.
    #[serde(default)]
    pub networks: NetworksView,
    /// Everything counted since this process began.
    pub counters: Vec<CounterView>,
}

/// What is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StoreStatus {
    /// Alerts by verdict.
    pub alerts: BTreeMap<String, u64>,
    /// Cloud-side uses by state.
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

/// Counts, sizes, sources.
#[utoipa::path(
    get,
    path = "/v1/status",
    tag = "status",
    security(("token" = [])),
    responses(
        (status = 200, body = Status),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn get_status(State(state): State<ApiState>) -> Result<Json<Status>, Problem> {
    let reader = state.0.handle.reader().clone();
    let totals = read(move || reader.totals()).await?;
    let now = clock::now();
    let mut counters = state.0.handle.counters().view();
    counters.extend((state.0.more.0)());
    counters.extend(state.0.handle.graph().view());
    counters.extend(state.0.handle.networks().counters());
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: state.0.started,
        uptime_seconds: now.duration_since(state.0.started).as_secs(),
        store: StoreStatus {
            alerts: totals.alerts,
            uses: totals.uses,
            log_inputs: totals.log_inputs,
            log_raw_bytes: totals.log_raw_bytes,
            log_stored_bytes: totals.log_stored_bytes,
            files: totals.files,
            database_bytes: totals.database_bytes,
            wal_bytes: totals.wal_bytes,
        },
        sources: state.0.sources.iter().map(|source| source.view()).collect(),
        networks: state.0.handle.networks().view(),
        counters,
    }))
}
