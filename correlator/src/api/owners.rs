//! Owners: imported directories and inventories, and who answers for a node.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use keytrail_graph::people::{self, DirectoryImport, DirectoryKind};
use serde::Deserialize;

use super::imports::{ImportList, Imported, aside, encoded, forget, keep};
use super::{ApiState, ErrorCode, Problem};
use crate::owners::{self, Context};
use crate::store::Collection;

/// How a directory's file is to be read.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DirectoryQuery {
    /// What kind of file it is.
    kind: DirectoryKind,
    /// The repository of a CODEOWNERS file.
    about: Option<String>,
}

/// Takes a file of people, devices or ownership, in place of the one of the same name.
#[utoipa::path(
    put,
    path = "/v1/owners/imports/{name}",
    tag = "owners",
    params(("name" = String, Path, description = "A name of your choice: the file's"), DirectoryQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The file as it was exported; at most 64 MiB"),
    security(("token" = [])),
    responses(
        (status = 200, body = Imported),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn import_directory(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    query: Result<Query<DirectoryQuery>, QueryRejection>,
    file: Bytes,
) -> Result<Json<Imported>, Problem> {
    let Query(query) = query.map_err(|e| Problem::of(ErrorCode::BadRequest, e.body_text()))?;
    let (taken, body) = aside(move || {
        let import = people::import(query.kind, query.about.as_deref(), &file)
            .map_err(|e| Problem::of(ErrorCode::BadRequest, e.to_string()))?;
        let body = encoded(&import)?;
        Ok((import, body))
    })
    .await?;
    keep(&state, Collection::Directory, &name, body).await?;
    Ok(Json(view(name, &taken)))
}

fn view(name: String, import: &DirectoryImport) -> Imported {
    Imported {
        name,
        taken: import.len() as u64,
        notes: import.notes.clone(),
    }
}

/// The imported files of people, devices and ownership.
#[utoipa::path(
    get,
    path = "/v1/owners/imports",
    tag = "owners",
    security(("token" = [])),
    responses(
        (status = 200, body = ImportList),
        (status = 401, body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list_directories(
    State(state): State<ApiState>,
) -> Result<Json<ImportList>, Problem> {
    let documents = state
        .0
        .handle
        .graph()
        .knowledge()
        .documents(Collection::Directory);
    let imports = documents.into_iter().filter_map(|(name, body)| {
        let import: DirectoryImport = serde_json::from_str(&body).ok()?;
        Some(view(name, &import))
    });
    Ok(Json(ImportList {
        imports: imports.collect(),
    }))
}

/// Forgets a file of people, devices or ownership.
#[utoipa::path(
    delete,
    path = "/v1/owners/imports/{name}",
    tag = "owners",
    params(("name" = String, Path, description = "The import's name")),
    security(("token" = [])),
    responses(
        (status = 204),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn forget_directory(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<axum::http::StatusCode, Problem> {
    forget(&state, Collection::Directory, name).await
}

/// Who answers for a node, and for a credential its blast radius.
#[utoipa::path(
    get,
    path = "/v1/owners/of/{node}",
    tag = "owners",
    params(("node" = String, Path, description = "A credential's id, or `<kind>:<name>` of another node; percent-encoded")),
    security(("token" = [])),
    responses(
        (status = 200, body = Context),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn owners_of(
    State(state): State<ApiState>,
    Path(node): Path<String>,
) -> Result<Json<Context>, Problem> {
    let node = super::graph::parse(&node)?;
    let index = state.0.handle.graph().clone();
    aside(move || {
        owners::of_node(&index, &node)
            .map(Json)
            .ok_or_else(|| super::graph::unknown(&node))
    })
    .await
}
