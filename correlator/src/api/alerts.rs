//! Alerts: list and whole evidence.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use jiff::Timestamp;
use keytrail_model::alert::{Alert, Verdict};
use keytrail_model::credential::CredentialId;
use keytrail_model::ids::AlertId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::imports::aside;
use super::problem::read;
use super::{ApiState, ErrorCode, Problem};
use crate::graph::Index;
use crate::owners::{self, Context};
use crate::store::{AlertFilter, StoredAlert};

/// Alerts on a page unless asked otherwise.
const DEFAULT_LIMIT: usize = 50;
/// Alerts on a page at most.
const MAX_LIMIT: usize = 500;

/// An alert in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AlertSummary {
    /// Its id: ask for the whole with it.
    pub id: AlertId,
    /// Rises with every change of any alert.
    pub revision: u64,
    /// The present verdict.
    pub verdict: Verdict,
    /// OCSF severity caption.
    pub severity: String,
    /// One sentence; contains untrusted text.
    pub title: String,
    /// The credential it is about.
    pub credential: CredentialId,
    /// Event time of the first evidence.
    pub first_seen: Timestamp,
    /// Event time of the latest evidence.
    pub last_seen: Timestamp,
    /// How much harm the loss of the credential can do, 0 to 100, as of now.
    #[serde(default)]
    pub blast_radius: Option<u8>,
}

impl AlertSummary {
    fn of(stored: StoredAlert, index: &Index) -> Self {
        let alert = stored.alert;
        let context = owners::of_alert(index, &alert);
        Self {
            blast_radius: context.blast_radius.map(|radius| radius.score),
            id: alert.id,
            revision: stored.revision,
            verdict: alert.verdict,
            severity: alert.severity,
            title: alert.title,
            credential: alert.credential,
            first_seen: alert.first_seen,
            last_seen: alert.last_seen,
        }
    }
}

/// An alert, and what is known around it now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AlertView {
    /// The alert as it was concluded.
    #[serde(flatten)]
    pub alert: Alert,
    /// Owners and blast radius, as of this reading.
    #[serde(default)]
    pub context: Context,
}

/// In which order alerts are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Sort {
    /// Latest change first.
    #[default]
    Changed,
    /// Largest blast radius first, among the 500 that changed last; one page only.
    BlastRadius,
}

/// A page of alerts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AlertList {
    /// Latest change first.
    pub alerts: Vec<AlertSummary>,
    /// Pass it as `cursor` for the next page; absent on the last. An alert that changes between
    /// two pages moves to the front.
    pub next_cursor: Option<String>,
}

/// How to choose alerts.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only this verdict.
    verdict: Option<Verdict>,
    /// Only this credential (`<kind>:<value>`).
    #[param(value_type = Option<String>)]
    credential: Option<String>,
    /// At most so many (1 to 500, default 50).
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// The order: `changed` (default) or `blast-radius`.
    #[serde(default)]
    #[param(inline)]
    sort: Sort,
}

impl ListQuery {
    fn filter(self) -> Result<AlertFilter, Problem> {
        let bad = |detail: String| Problem::of(ErrorCode::BadRequest, detail);
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(bad(format!("limit must be 1 to {MAX_LIMIT}")));
        }
        let credential = self
            .credential
            .map(|text| text.parse())
            .transpose()
            .map_err(|e: keytrail_model::credential::CredentialIdError| bad(e.to_string()))?;
        let below = self
            .cursor
            .map(|text| text.parse())
            .transpose()
            .map_err(|_| bad("cursor is not one that this API gave".to_owned()))?;
        Ok(AlertFilter {
            verdict: self.verdict,
            credential,
            below,
            limit,
        })
    }
}

/// Alerts, latest change first.
#[utoipa::path(
    get,
    path = "/v1/alerts",
    tag = "alerts",
    params(ListQuery),
    security(("token" = [])),
    responses(
        (status = 200, body = AlertList),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list_alerts(
    State(state): State<ApiState>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<AlertList>, Problem> {
    let Query(query) = query.map_err(|e| Problem::of(ErrorCode::BadRequest, e.body_text()))?;
    let sort = query.sort;
    if sort == Sort::BlastRadius && query.cursor.is_some() {
        return Err(Problem::of(
            ErrorCode::BadRequest,
            "sort=blast-radius gives one page: leave cursor out",
        ));
    }
    let mut filter = query.filter()?;
    let limit = filter.limit;
    if sort == Sort::BlastRadius {
        filter.limit = MAX_LIMIT;
    }
    let reader = state.0.handle.reader().clone();
    let page = read(move || reader.alerts(&filter)).await?;
    let index = state.0.handle.graph().clone();
    aside(move || {
        let stored = page.alerts.into_iter();
        let mut alerts: Vec<AlertSummary> =
            stored.map(|one| AlertSummary::of(one, &index)).collect();
        let next = match sort {
            Sort::Changed => page.next,
            Sort::BlastRadius => {
                alerts.sort_by_key(|a| std::cmp::Reverse((a.blast_radius, a.verdict, a.revision)));
                alerts.truncate(limit);
                None
            }
        };
        Ok(Json(AlertList {
            alerts,
            next_cursor: next.map(|revision| revision.to_string()),
        }))
    })
    .await
}

/// One alert with its whole evidence, its owners and its blast radius. The response's `ETag` is the
/// alert's revision; what is around it (`context`) may change without it.
#[utoipa::path(
    get,
    path = "/v1/alerts/{id}",
    tag = "alerts",
    params(("id" = Uuid, Path, description = "The alert's id")),
    security(("token" = [])),
    responses(
        (status = 200, body = AlertView),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn get_alert(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<([(&'static str, String); 1], Json<AlertView>), Problem> {
    let id: Uuid = id
        .parse()
        .map_err(|_| Problem::of(ErrorCode::BadRequest, "an alert's id is a UUID"))?;
    let reader = state.0.handle.reader().clone();
    let stored = read(move || reader.alert(&id.to_string()))
        .await?
        .ok_or_else(|| Problem::of(ErrorCode::NotFound, format!("there is no alert {id}")))?;
    let index = state.0.handle.graph().clone();
    let etag = format!("\"{}\"", stored.revision);
    let view = aside(move || {
        Ok(AlertView {
            context: owners::of_alert(&index, &stored.alert),
            alert: stored.alert,
        })
    })
    .await?;
    Ok(([("etag", etag)], Json(view)))
}
