//! The lineage graph: reach, dependents, origin.

use axum::Json;
use axum::extract::{Path, State};
use keytrail_graph::blast::identities;
use keytrail_graph::permission::{Granted, Reach};
use keytrail_graph::query::{Origin, Walk};
use keytrail_graph::{Graph, NodeId, NodeIdError, NodeKind};
use serde::{Deserialize, Serialize};

use super::{ApiState, ErrorCode, Problem};

/// What a node reaches: what was seen, and what imported permissions allow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReachView {
    /// What was seen.
    #[serde(flatten)]
    pub observed: Walk,
    /// What imported permissions allow its identities.
    pub permitted: Reach,
}

/// Who depends on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DependentsView {
    /// Who was seen to.
    #[serde(flatten)]
    pub observed: Walk,
    /// For a resource: identities that imported permissions let act on it, and why.
    pub permitted: Vec<Granted>,
}

/// What this node reaches: a credential's derived credentials, identities, services and resources,
/// each with the path that was observed.
#[utoipa::path(
    get,
    path = "/v1/graph/reach/{node}",
    tag = "graph",
    params(("node" = String, Path, description = "A credential's id, or `<kind>:<name>` of another node; percent-encoded")),
    security(("token" = [])),
    responses(
        (status = 200, body = ReachView),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn reach(
    State(state): State<ApiState>,
    Path(node): Path<String>,
) -> Result<Json<ReachView>, Problem> {
    let permissions = state.0.handle.graph().knowledge().permissions();
    ask(&state, &node, move |graph, node| {
        let mut permitted = Reach::default();
        if let Some(credential) = node.as_credential() {
            permitted = permissions.reach(&identities(graph, &permissions, &credential));
            if permitted.identities.is_empty() {
                let note = if permissions.is_empty() {
                    "no permissions are imported: correlator graph import"
                } else {
                    "no imported identity is known to be behind this credential"
                };
                permitted.notes.push(note.to_owned());
            }
        } else if node.kind() == NodeKind::Identity
            && let Some(identity) = permissions.named(node.name())
        {
            permitted = permissions.reach(&[identity]);
        }
        let seen = graph.reached(node);
        // A credential that nobody used yet may be known from an import alone.
        let known = seen.is_some() || !permitted.identities.is_empty();
        known.then(|| ReachView {
            observed: seen.unwrap_or_else(|| Walk::empty(node)),
            permitted,
        })
    })
    .await
}

/// Who depends on this node: what holds, keeps, presents or carries it or what was minted from it.
#[utoipa::path(
    get,
    path = "/v1/graph/dependents/{node}",
    tag = "graph",
    params(("node" = String, Path, description = "A credential's id, or `<kind>:<name>` of another node; percent-encoded")),
    security(("token" = [])),
    responses(
        (status = 200, body = DependentsView),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn dependents(
    State(state): State<ApiState>,
    Path(node): Path<String>,
) -> Result<Json<DependentsView>, Problem> {
    let permissions = state.0.handle.graph().knowledge().permissions();
    ask(&state, &node, move |graph, node| {
        let permitted = match node.kind() {
            NodeKind::Resource => permissions.who_can(node.name()),
            _ => Vec::new(),
        };
        let seen = graph.dependents(node);
        let known = seen.is_some() || !permitted.is_empty();
        known.then(|| DependentsView {
            observed: seen.unwrap_or_else(|| Walk::empty(node)),
            permitted,
        })
    })
    .await
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
