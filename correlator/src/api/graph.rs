//! The lineage graph: reach, dependents, origin.

use axum::Json;
use axum::extract::{Path, State};
use keytrail_graph::query::{Origin, Walk};
use keytrail_graph::{Graph, NodeId, NodeIdError};

use super::{ApiState, ErrorCode, Problem};

/// What this node reaches: a credential's derived credentials, identities, services and resources,
/// each with the path that was observed.
#[utoipa::path(
    get,
    path = "/v1/graph/reach/{node}",
    tag = "graph",
    params(("node" = String, Path, description = "A credential's id, or `<kind>:<name>` of another node; percent-encoded")),
    security(("token" = [])),
    responses(
        (status = 200, body = Walk),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn reach(
    State(state): State<ApiState>,
    Path(node): Path<String>,
) -> Result<Json<Walk>, Problem> {
    ask(&state, &node, Graph::reached).await
}

/// Who depends on this node: what holds, keeps, presents or carries it or what was minted from it.
#[utoipa::path(
    get,
    path = "/v1/graph/dependents/{node}",
    tag = "graph",
    params(("node" = String, Path, description = "A credential's id, or `<kind>:<name>` of another node; percent-encoded")),
    security(("token" = [])),
    responses(
        (status = 200, body = Walk),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn dependents(
    State(state): State<ApiState>,
    Path(node): Path<String>,
) -> Result<Json<Walk>, Problem> {
    ask(&state, &node, Graph::dependents).await
}

/// How this node came to where it is: chains from the account, package, place or parent credential.
#[utoipa::path(
    get,
    path = "/v1/graph/origin/{node}",
    tag = "graph",
    params(("node" = String, Path, description = "A credential's id, or `<kind>:<name>` of another node; percent-encoded")),
    security(("token" = [])),
    responses(
        (status = 200, body = Origin),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn origin(
    State(state): State<ApiState>,
    Path(node): Path<String>,
) -> Result<Json<Origin>, Problem> {
    ask(&state, &node, Graph::origin).await
}

/// The node that a text names.
pub(super) fn parse(node: &str) -> Result<NodeId, Problem> {
    node.parse()
        .map_err(|e: NodeIdError| Problem::of(ErrorCode::BadRequest, e.to_string()))
}

/// A node that the graph has not seen.
pub(super) fn unknown(node: &NodeId) -> Problem {
    Problem::of(
        ErrorCode::NotFound,
        format!("no sensor and no cloud log has named {node}"),
    )
}

async fn ask<T: Send + 'static>(
    state: &ApiState,
    node: &str,
    question: impl FnOnce(&Graph, &NodeId) -> Option<T> + Send + 'static,
) -> Result<Json<T>, Problem> {
    let node = parse(node)?;
    let index = state.0.handle.graph().clone();
    super::problem::read(move || Ok(question(&index.read(), &node).ok_or(node)))
        .await?
        .map(Json)
        .map_err(|node| unknown(&node))
}
