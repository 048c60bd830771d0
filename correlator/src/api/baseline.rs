//! Baselines: what is usual for agents, and what people allow them beside.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use keytrail_join::baseline::policy::Policy;
use keytrail_model::credential::CredentialId;
use serde::Deserialize;

use super::{ApiState, ErrorCode, Problem};
use crate::partition::Baselines;

/// Largest policy taken, bytes.
const MAX_POLICY: usize = 16 << 20;

/// Of what.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct BaselineQuery {
    /// Only of the credential with this id.
    credential: Option<String>,
}

/// What is usual, with warm-up and drift, and the policy in force.
#[utoipa::path(
    get,
    path = "/v1/baseline",
    tag = "baseline",
    params(BaselineQuery),
    security(("token" = [])),
    responses(
        (status = 200, body = Baselines),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn get_baseline(
    State(state): State<ApiState>,
    query: Result<Query<BaselineQuery>, QueryRejection>,
) -> Result<Json<Baselines>, Problem> {
    let Query(query) = query.map_err(|e| Problem::of(ErrorCode::BadRequest, e.body_text()))?;
    let only: Option<CredentialId> = query
        .credential
        .map(|id| id.parse())
        .transpose()
        .map_err(|e| Problem::of(ErrorCode::BadRequest, format!("credential: {e}")))?;
    Ok(Json(state.0.handle.baselines(only).await?))
}

/// Allows agents what the policy says, in place of what was put here before. What was learned is
/// learned anew under it; alerts about what it allows are closed.
#[utoipa::path(
    put,
    path = "/v1/baseline",
    tag = "baseline",
    request_body(content = Policy, description = "The policy: JSON, or the TOML that `correlator baseline export` writes; at most 16 MiB"),
    security(("token" = [])),
    responses(
        (status = 200, body = Policy, description = "The policy as it was understood"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn put_baseline(
    State(state): State<ApiState>,
    file: Bytes,
) -> Result<Json<Policy>, Problem> {
    let bad = |detail: String| Problem::of(ErrorCode::BadRequest, detail);
    if file.len() > MAX_POLICY {
        return Err(bad(format!(
            "{} bytes; at most {MAX_POLICY} are taken",
            file.len()
        )));
    }
    let text = str::from_utf8(&file).map_err(|e| bad(format!("not UTF-8: {e}")))?;
    let policy: Policy = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|e| bad(format!("not a policy (JSON): {e}")))?
    } else {
        toml::from_str(text).map_err(|e| bad(format!("not a policy (TOML): {e}")))?
    };
    policy.check().map_err(|e| bad(e.to_string()))?;
    state.0.handle.put_policy(policy.clone()).await?;
    Ok(Json(policy))
}
