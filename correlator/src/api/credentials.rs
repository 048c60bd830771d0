//! Credentials and their lineage.

use axum::Json;
use axum::extract::{Path, State};
use keytrail_join::Lineage;
use keytrail_model::credential::{CredentialId, CredentialIdError};
use serde::{Deserialize, Serialize};

use super::{ApiState, ErrorCode, Problem};

/// Credentials listed at most.
const MAX_LISTED: usize = 10_000;

/// A credential in the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CredentialSummary {
    /// Its id.
    pub id: CredentialId,
    /// Account it belongs to, where its id says so.
    pub account: Option<String>,
}

/// Every credential with any state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CredentialList {
    /// By id; at most 10,000.
    pub credentials: Vec<CredentialSummary>,
    /// How many there are in all.
    pub total: u64,
}

/// Credentials that a sensor or a cloud log has named.
#[utoipa::path(
    get,
    path = "/v1/credentials",
    tag = "credentials",
    security(("token" = [])),
    responses(
        (status = 200, body = CredentialList),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list_credentials(
    State(state): State<ApiState>,
) -> Result<Json<CredentialList>, Problem> {
    let mut all = state.0.handle.credentials().await?;
    let total = all.len() as u64;
    all.sort();
    all.truncate(MAX_LISTED);
    Ok(Json(CredentialList {
        credentials: all
            .into_iter()
            .map(|id| CredentialSummary {
                account: id.aws_account(),
                id,
            })
            .collect(),
        total,
    }))
}

/// Who holds a credential, how it was used, what explains each use.
#[utoipa::path(
    get,
    path = "/v1/credentials/{id}",
    tag = "credentials",
    params(("id" = String, Path, description = "`<kind>:<value>`, percent-encoded where needed")),
    security(("token" = [])),
    responses(
        (status = 200, body = Lineage),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn get_credential(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<Lineage>, Problem> {
    let id: CredentialId = id
        .parse()
        .map_err(|e: CredentialIdError| Problem::of(ErrorCode::BadRequest, e.to_string()))?;
    let lineage = state.0.handle.lineage(id.clone()).await?;
    lineage.map(Json).ok_or_else(|| {
        Problem::of(
            ErrorCode::NotFound,
            format!("no sensor and no cloud log has named {id}"),
        )
    })
}
