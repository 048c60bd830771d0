//! Sensors: what each sees, how far behind it is, what it lost.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use keytrail_model::coverage::Coverage;
use keytrail_model::fact::Gap;
use keytrail_model::ids::HostId;
use serde::{Deserialize, Serialize};

use super::problem::read;
use super::{ApiState, Problem};
use crate::clock;
use crate::store::SensorRow;

/// Every sensor that ever spoke.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SensorList {
    /// By host; at most 10,000.
    pub sensors: Vec<SensorView>,
}

/// One sensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SensorView {
    /// Its host.
    pub host: HostId,
    /// The boot it last spoke of.
    pub boot: String,
    /// When it last spoke, by the correlator's clock.
    pub last_seen: Timestamp,
    /// The last sequence number taken in from that boot.
    pub last_seq: u64,
    /// Facts taken in from it.
    pub events: u64,
    /// Every fact before this has arrived. Uses after it are undecided.
    pub watermark: Option<Timestamp>,
    /// How far that is behind now, milliseconds (the host's clock offset taken out).
    pub watermark_lag_ms: Option<i64>,
    /// Host clock minus correlator clock, milliseconds.
    pub clock_offset_ms: Option<i64>,
    /// The address its stream comes from.
    pub seen_from: Option<String>,
    /// What it can see; absent until it has said so.
    pub coverage: Option<Coverage>,
    /// Whether nothing that verdicts depend on is missing.
    pub can_judge: bool,
    /// What it lost, latest first; at most 32.
    pub gaps: Vec<Gap>,
}

impl SensorView {
    fn of(row: SensorRow, now: Timestamp) -> Self {
        let watermark = row.watermark.as_ref();
        Self {
            host: row.host,
            boot: row.boot,
            last_seen: row.last_seen,
            last_seq: row.seq,
            events: row.events,
            watermark: watermark.map(|w| w.time),
            watermark_lag_ms: watermark.map(|w| {
                now.as_millisecond() + w.clock_offset_ms.clamp(-MAX_OFFSET_MS, MAX_OFFSET_MS)
                    - w.time.as_millisecond()
            }),
            clock_offset_ms: watermark.map(|w| w.clock_offset_ms),
            seen_from: watermark.and_then(|w| w.seen_from.map(|a| a.to_string())),
            can_judge: row.coverage.as_ref().is_some_and(Coverage::can_judge),
            coverage: row.coverage,
            gaps: row.gaps,
        }
    }
}

/// A clock further off than a century is no clock; keeps the sum above from overflowing.
const MAX_OFFSET_MS: i64 = 100 * 365 * 86_400_000;

/// Sensors, their watermarks, coverage and gaps.
#[utoipa::path(
    get,
    path = "/v1/sensors",
    tag = "sensors",
    security(("token" = [])),
    responses(
        (status = 200, body = SensorList),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list_sensors(
    State(state): State<ApiState>,
) -> Result<Json<SensorList>, Problem> {
    let reader = state.0.handle.reader().clone();
    let rows = read(move || reader.sensors()).await?;
    let now = clock::now();
    Ok(Json(SensorList {
        sensors: rows
            .into_iter()
            .map(|row| SensorView::of(row, now))
            .collect(),
    }))
}
