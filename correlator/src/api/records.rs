//! Records handed in through the API.

use std::path::PathBuf;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use serde::Deserialize;

use super::{ApiState, ErrorCode, Problem};
use crate::sources::import::{self, ImportReport};

/// Largest body: the command line sends a file in parts.
const MAX_BODY: usize = 16 << 20;

/// What the records are.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RecordsQuery {
    /// What the records are: `aws.cloudtrail`, `github.audit`, ...
    kind: String,
    /// For `mapped`: the name of a mapping that comes with Keytrail.
    mapping: Option<String>,
    /// Where they come from, for the notes of refused records.
    place: Option<String>,
    /// Number of the first record there.
    first: Option<u64>,
}

/// Takes records in, in any framing (one a line, an array, a wrapper), plain, gzip or zstd. The
/// answer comes after the uses are durable; importing again changes nothing.
#[utoipa::path(
    post,
    path = "/v1/records",
    tag = "status",
    params(RecordsQuery),
    request_body(content = String, content_type = "application/x-ndjson"),
    security(("token" = [])),
    responses(
        (status = 200, body = ImportReport),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn post_records(
    State(state): State<ApiState>,
    query: Result<Query<RecordsQuery>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<ImportReport>, Problem> {
    let bad = |detail: String| Problem::of(ErrorCode::BadRequest, detail);
    let Query(query) = query.map_err(|e| bad(e.body_text()))?;
    let body = body.map_err(|e| bad(e.body_text()))?;
    if body.len() > MAX_BODY {
        return Err(bad(format!("at most {MAX_BODY} bytes at once; send parts")));
    }
    // A path would be read on this machine: only the mappings that come with Keytrail.
    let mapping = query.mapping.map(|name| name.replace(['/', '\\'], "_"));
    let parser =
        import::parser(&query.kind, mapping.map(PathBuf::from)).map_err(|e| bad(e.problem))?;
    let place = query.place.unwrap_or_else(|| "api".to_owned());
    let first = query.first.unwrap_or(0);
    let handle = state.0.handle.clone();
    let dead_letters = state.0.dead_letters.clone();
    let taken = tokio::task::spawn_blocking(move || {
        import::import(
            &handle,
            parser,
            &dead_letters,
            (&place, first),
            body.as_ref(),
        )
    });
    match taken.await {
        Ok((report, Ok(()))) => Ok(Json(report)),
        Ok((_, Err(import::ImportError::Input(error)))) => Err(bad(error.to_string())),
        Ok((_, Err(import::ImportError::Runner(error)))) => Err(error.into()),
        Err(error) => {
            tracing::error!(%error, "an import panicked");
            Err(Problem::of(
                ErrorCode::Internal,
                "the import failed; see the correlator's log",
            ))
        }
    }
}
