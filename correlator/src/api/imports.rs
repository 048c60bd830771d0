//! Imported files: permissions now, people beside them.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use keytrail_graph::permission::{self, ImportKind};
use serde::{Deserialize, Serialize};

use super::{ApiState, ErrorCode, Problem};
use crate::store::{Collection, Document};

/// Largest file, bytes.
pub(super) const MAX_FILE: usize = 64 << 20;
/// Imported files at most, per collection.
const MAX_FILES: usize = 1_000;
/// Longest name of an import, bytes.
const MAX_NAME: usize = 200;

/// What became of an import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Imported {
    /// The name that a later import replaces it under.
    pub name: String,
    /// Identities (or people, devices, rules) taken from it.
    pub taken: u64,
    /// What the file does not tell, in words.
    pub notes: Vec<String>,
}

/// The imports of one kind of knowledge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImportList {
    /// By name.
    pub imports: Vec<Imported>,
}

/// How a permissions file is to be read.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PermissionsQuery {
    /// What kind of file it is.
    kind: ImportKind,
    /// What the file itself does not say: a resource, an identity, a login, a policy's name.
    about: Option<String>,
}

/// Takes a file of permissions, in place of the one of the same name.
#[utoipa::path(
    put,
    path = "/v1/graph/imports/{name}",
    tag = "graph",
    params(("name" = String, Path, description = "A name of your choice: the file's"), PermissionsQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The file as the provider's command wrote it; at most 64 MiB"),
    security(("token" = [])),
    responses(
        (status = 200, body = Imported),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn import_permissions(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    query: Result<Query<PermissionsQuery>, QueryRejection>,
    file: Bytes,
) -> Result<Json<Imported>, Problem> {
    let Query(query) = query.map_err(|e| Problem::of(ErrorCode::BadRequest, e.body_text()))?;
    let (taken, body) = aside(move || {
        let import = permission::import(query.kind, query.about.as_deref(), &file)
            .map_err(|e| Problem::of(ErrorCode::BadRequest, e.to_string()))?;
        let body = encoded(&import)?;
        Ok((import, body))
    })
    .await?;
    keep(&state, Collection::Permissions, &name, body).await?;
    Ok(Json(permissions_view(name, &taken)))
}

fn permissions_view(name: String, import: &permission::Import) -> Imported {
    let taken = import.identities.len() + import.links.len() + import.roles.len();
    Imported {
        name,
        taken: taken as u64,
        notes: import.notes.clone(),
    }
}

/// The imported files of permissions.
#[utoipa::path(
    get,
    path = "/v1/graph/imports",
    tag = "graph",
    security(("token" = [])),
    responses(
        (status = 200, body = ImportList),
        (status = 401, body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list_permissions(
    State(state): State<ApiState>,
) -> Result<Json<ImportList>, Problem> {
    let knowledge = state.0.handle.graph().knowledge();
    let imports = knowledge
        .documents(Collection::Permissions)
        .into_iter()
        .filter_map(|(name, body)| {
            let import: permission::Import = serde_json::from_str(&body).ok()?;
            Some(permissions_view(name, &import))
        })
        .collect();
    Ok(Json(ImportList { imports }))
}

/// Forgets a file of permissions.
#[utoipa::path(
    delete,
    path = "/v1/graph/imports/{name}",
    tag = "graph",
    params(("name" = String, Path, description = "The import's name")),
    security(("token" = [])),
    responses(
        (status = 204),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn forget_permissions(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<axum::http::StatusCode, Problem> {
    forget(&state, Collection::Permissions, name).await
}

/// Work that takes a while, beside the async threads.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => {
            tracing::error!(%error, "an import panicked");
            Err(Problem::of(
                ErrorCode::Internal,
                "the file could not be read; see the correlator's log",
            ))
        }
    }
}

pub(super) fn encoded(value: &impl Serialize) -> Result<String, Problem> {
    serde_json::to_string(value).map_err(|e| Problem::of(ErrorCode::Internal, e.to_string()))
}

/// Stores an import under its name.
pub(super) async fn keep(
    state: &ApiState,
    collection: Collection,
    name: &str,
    body: String,
) -> Result<(), Problem> {
    let bad = |detail: String| Problem::of(ErrorCode::BadRequest, detail);
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(bad(format!(
            "an import's name is 1 to {MAX_NAME} bytes without control characters"
        )));
    }
    let known = state.0.handle.graph().knowledge().documents(collection);
    if known.len() >= MAX_FILES && !known.contains_key(name) {
        return Err(bad(format!(
            "there are {MAX_FILES} imports already: import under a known name, or forget some"
        )));
    }
    let document = Document {
        collection,
        id: name.to_owned(),
        body: Some(body),
    };
    Ok(state.0.handle.put_document(document).await?)
}

/// Removes an import.
pub(super) async fn forget(
    state: &ApiState,
    collection: Collection,
    name: String,
) -> Result<axum::http::StatusCode, Problem> {
    let knowledge = state.0.handle.graph().knowledge();
    if !knowledge.documents(collection).contains_key(&name) {
        return Err(Problem::of(
            ErrorCode::NotFound,
            format!("nothing was imported as {name}"),
        ));
    }
    let document = Document {
        collection,
        id: name,
        body: None,
    };
    state.0.handle.put_document(document).await?;
    Ok(axum::http::StatusCode::NO_CONTENT)
}
