//! A SCIM 2.0 service provider: the organisation's directory keeps people and groups up to date.
//!
//! Sources: RFC 7643 (schemas), RFC 7644 (protocol: section 3.4.2 filters, 3.5.2 PATCH, 3.12
//! errors). Kept of a resource is what the client sends, without `password`, which is dropped
//! before anything else happens. A token of its own (`scim-token` in the data directory) lets a
//! directory write people without reading alerts.

mod filter;
pub(crate) mod fuzz;
mod patch;
mod schema;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::ApiState;
use crate::runner::RunnerError;
use crate::store::{Collection, Document};

/// Name of the token's file inside the data directory.
pub const TOKEN_FILE: &str = "scim-token";
/// Resources of one kind at most.
const MAX_RESOURCES: usize = 200_000;
/// Resources on a page at most, and unless asked otherwise.
const MAX_PAGE: usize = 500;
const DEFAULT_PAGE: usize = 100;
/// Largest body, bytes.
const MAX_BODY: usize = 8 << 20;

/// An error in the protocol's own form.
#[derive(Debug)]
pub(super) struct ScimError {
    status: StatusCode,
    scim_type: Option<&'static str>,
    detail: String,
}

impl ScimError {
    fn new(status: StatusCode, scim_type: Option<&'static str>, detail: impl Into<String>) -> Self {
        Self {
            status,
            scim_type,
            detail: detail.into(),
        }
    }

    /// 400 with a `scimType` of RFC 7644 table 9.
    fn bad(scim_type: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Some(scim_type), detail)
    }
}

impl From<RunnerError> for ScimError {
    fn from(error: RunnerError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, None, error.to_string())
    }
}

impl IntoResponse for ScimError {
    fn into_response(self) -> Response {
        let mut body = json!({
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"],
            "status": self.status.as_u16().to_string(),
            "detail": self.detail,
        });
        if let (Some(scim_type), Some(members)) = (self.scim_type, body.as_object_mut()) {
            members.insert("scimType".to_owned(), json!(scim_type));
        }
        answer(self.status, &body)
    }
}

fn answer(status: StatusCode, body: &Value) -> Response {
    let mut response = (status, body.to_string()).into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/scim+json"),
    );
    if status == StatusCode::UNAUTHORIZED {
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// One of the two kinds of resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    User,
    Group,
}

impl Kind {
    fn of(endpoint: &str) -> Result<Self, ScimError> {
        match endpoint {
            "Users" => Ok(Self::User),
            "Groups" => Ok(Self::Group),
            _ => Err(ScimError::new(
                StatusCode::NOT_FOUND,
                None,
                "there are Users and Groups",
            )),
        }
    }

    fn collection(self) -> Collection {
        match self {
            Self::User => Collection::ScimUsers,
            Self::Group => Collection::ScimGroups,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::User => "User",
            Self::Group => "Group",
        }
    }

    /// The attribute that every resource must have; of users it is unique.
    fn required(self) -> &'static str {
        match self {
            Self::User => "userName",
            Self::Group => "displayName",
        }
    }
}

/// The routes under `/scim/v2`.
pub(super) fn router(state: &ApiState) -> Router<ApiState> {
    Router::new()
        .route("/scim/v2/ServiceProviderConfig", get(schema::provider))
        .route("/scim/v2/ResourceTypes", get(schema::resource_types))
        .route("/scim/v2/Schemas", get(schema::schemas))
        .route("/scim/v2/{kind}", get(list).post(create))
        .route(
            "/scim/v2/{kind}/{id}",
            get(show).put(replace).patch(modify).delete(remove),
        )
        .route_layer(middleware::from_fn_with_state(state.clone(), require_token))
        .layer(DefaultBodyLimit::max(MAX_BODY))
}

async fn require_token(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let given = super::guard::bearer(request.headers());
    let known = state.0.scim.as_ref();
    if given.is_some_and(|token| known.is_some_and(|known| known.matches(token))) {
        return next.run(request).await;
    }
    state.0.handle.counters().api_unauthorised.one();
    ScimError::new(
        StatusCode::UNAUTHORIZED,
        None,
        "send `Authorization: Bearer <token>` with the content of the file scim-token in the \
         correlator's data directory",
    )
    .into_response()
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListQuery {
    filter: Option<String>,
    start_index: Option<i64>,
    count: Option<i64>,
    attributes: Option<String>,
    excluded_attributes: Option<String>,
}

async fn list(
    State(state): State<ApiState>,
    Path(kind): Path<String>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, ScimError> {
    let kind = Kind::of(&kind)?;
    let Query(query) = query.map_err(|e| ScimError::bad("invalidValue", e.body_text()))?;
    let filter = query
        .filter
        .as_deref()
        .map(filter::parse)
        .transpose()
        .map_err(|e| ScimError::bad("invalidFilter", e.to_string()))?;
    let knowledge = state.0.handle.graph().knowledge();
    let documents = match filter.as_ref().and_then(filter::Filter::user_name) {
        // What directories ask before every change: answered without a look at everybody.
        Some(name) if kind == Kind::User => knowledge
            .user_named(name)
            .and_then(|id| Some((knowledge.document(kind.collection(), &id)?, id)))
            .map(|(body, id)| (id, body))
            .into_iter()
            .collect(),
        _ => knowledge.documents(kind.collection()),
    };
    let fitting: Vec<Value> = documents
        .values()
        .filter_map(|body| serde_json::from_str(body).ok())
        .filter(|resource| filter.as_ref().is_none_or(|f| f.holds(resource)))
        .collect();
    // RFC 7644 section 3.4.2.4: an index below 1 is 1, a negative count is 0.
    let start = usize::try_from(query.start_index.unwrap_or(1).max(1)).unwrap_or(1);
    let count = query.count.map_or(DEFAULT_PAGE, |count| {
        usize::try_from(count.max(0))
            .unwrap_or(MAX_PAGE)
            .min(MAX_PAGE)
    });
    let total = fitting.len();
    let page: Vec<Value> = fitting
        .into_iter()
        .skip(start - 1)
        .take(count)
        .map(|resource| shown(resource, &query))
        .collect();
    Ok(answer(
        StatusCode::OK,
        &json!({
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
            "totalResults": total,
            "startIndex": start,
            "itemsPerPage": page.len(),
            "Resources": page,
        }),
    ))
}

/// Leaves out what was not asked for; `id` and `schemas` always stay.
fn shown(resource: Value, query: &ListQuery) -> Value {
    let Value::Object(members) = resource else {
        return resource;
    };
    let named = |list: &Option<String>, key: &str| {
        list.as_ref().map(|list| {
            list.split(',').any(|name| {
                name.trim()
                    .split('.')
                    .next()
                    .unwrap_or("")
                    .eq_ignore_ascii_case(key)
            })
        })
    };
    let kept = members.into_iter().filter(|(key, _)| {
        matches!(key.as_str(), "id" | "schemas")
            || (named(&query.attributes, key).unwrap_or(true)
                && !named(&query.excluded_attributes, key).unwrap_or(false))
    });
    Value::Object(kept.collect())
}

fn object(body: &[u8]) -> Result<Map<String, Value>, ScimError> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(ScimError::bad("invalidSyntax", "the body is no object")),
        Err(e) => Err(ScimError::bad(
            "invalidSyntax",
            format!("not JSON: line {}, column {}", e.line(), e.column()),
        )),
    }
}

/// Members by their canonical names: attribute names do not distinguish case.
fn tidy(mut members: Map<String, Value>, kind: Kind) -> Result<Map<String, Value>, ScimError> {
    members.retain(|key, _| !key.eq_ignore_ascii_case("password"));
    patch::canonical(&mut members);
    let name = kind.required();
    let text = members.get(name).and_then(Value::as_str).map(str::trim);
    if text.is_none_or(str::is_empty) {
        return Err(ScimError::bad(
            "invalidValue",
            format!("{name} is missing or empty"),
        ));
    }
    Ok(members)
}

fn unique(state: &ApiState, kind: Kind, own: &str, name: &str) -> Result<(), ScimError> {
    let knowledge = state.0.handle.graph().knowledge();
    let new = knowledge.document(kind.collection(), own).is_none();
    if new && knowledge.count(kind.collection()) >= MAX_RESOURCES {
        return Err(ScimError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            Some("tooMany"),
            format!("there are {MAX_RESOURCES} already"),
        ));
    }
    let taken = kind == Kind::User && knowledge.user_named(name).is_some_and(|id| id != own);
    if taken {
        return Err(ScimError::new(
            StatusCode::CONFLICT,
            Some("uniqueness"),
            "another user has this userName",
        ));
    }
    Ok(())
}

/// Stores a resource and answers with it.
async fn store(
    state: &ApiState,
    kind: Kind,
    id: &str,
    created: Option<Value>,
    members: Map<String, Value>,
    status: StatusCode,
) -> Result<Response, ScimError> {
    let mut members = tidy(members, kind)?;
    let name = members
        .get(kind.required())
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    unique(state, kind, id, &name)?;
    let now = json!(
        crate::clock::now()
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string()
    );
    let location = format!("/scim/v2/{}s/{id}", kind.name());
    members.insert("id".to_owned(), json!(id));
    members.remove("meta");
    let schemas = members.entry("schemas").or_insert_with(|| json!([]));
    if schemas.as_array().is_none_or(Vec::is_empty) {
        *schemas = json!([format!(
            "urn:ietf:params:scim:schemas:core:2.0:{}",
            kind.name()
        )]);
    }
    let digest = Sha256::digest(Value::Object(members.clone()).to_string().as_bytes());
    let hex: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
    let version = format!("W/\"{hex}\"");
    members.insert(
        "meta".to_owned(),
        json!({
            "resourceType": kind.name(),
            "created": created.unwrap_or_else(|| now.clone()),
            "lastModified": now,
            "location": location,
            "version": version,
        }),
    );
    let body = Value::Object(members);
    let document = Document {
        collection: kind.collection(),
        id: id.to_owned(),
        body: Some(body.to_string()),
    };
    state.0.handle.put_document(document).await?;
    let mut response = answer(status, &body);
    if let Ok(location) = location.parse() {
        response.headers_mut().insert(header::LOCATION, location);
    }
    if let Ok(version) = version.parse() {
        response.headers_mut().insert(header::ETAG, version);
    }
    Ok(response)
}

fn known(state: &ApiState, kind: Kind, id: &str) -> Result<Map<String, Value>, ScimError> {
    let knowledge = state.0.handle.graph().knowledge();
    let body = knowledge.document(kind.collection(), id);
    let members = body.and_then(|body| serde_json::from_str(&body).ok());
    members.ok_or_else(|| {
        ScimError::new(
            StatusCode::NOT_FOUND,
            None,
            format!("there is no {} with this id", kind.name()),
        )
    })
}

async fn create(
    State(state): State<ApiState>,
    Path(kind): Path<String>,
    body: Bytes,
) -> Result<Response, ScimError> {
    let kind = Kind::of(&kind)?;
    let members = object(&body)?;
    let _one = state.0.scim_writes.lock().await;
    let id = Uuid::new_v4().to_string();
    store(&state, kind, &id, None, members, StatusCode::CREATED).await
}

async fn show(
    State(state): State<ApiState>,
    Path((kind, id)): Path<(String, String)>,
) -> Result<Response, ScimError> {
    let members = known(&state, Kind::of(&kind)?, &id)?;
    Ok(answer(StatusCode::OK, &Value::Object(members)))
}

async fn replace(
    State(state): State<ApiState>,
    Path((kind, id)): Path<(String, String)>,
    body: Bytes,
) -> Result<Response, ScimError> {
    let kind = Kind::of(&kind)?;
    let members = object(&body)?;
    let _one = state.0.scim_writes.lock().await;
    let created = created(&known(&state, kind, &id)?);
    store(&state, kind, &id, created, members, StatusCode::OK).await
}

fn created(members: &Map<String, Value>) -> Option<Value> {
    members.get("meta")?.get("created").cloned()
}

async fn modify(
    State(state): State<ApiState>,
    Path((kind, id)): Path<(String, String)>,
    body: Bytes,
) -> Result<Response, ScimError> {
    let kind = Kind::of(&kind)?;
    let request = object(&body)?;
    let _one = state.0.scim_writes.lock().await;
    let mut members = known(&state, kind, &id)?;
    let created = created(&members);
    patch::apply(&mut members, &request)?;
    store(&state, kind, &id, created, members, StatusCode::OK).await
}

async fn remove(
    State(state): State<ApiState>,
    Path((kind, id)): Path<(String, String)>,
) -> Result<StatusCode, ScimError> {
    let kind = Kind::of(&kind)?;
    let _one = state.0.scim_writes.lock().await;
    known(&state, kind, &id)?;
    let document = Document {
        collection: kind.collection(),
        id,
        body: None,
    };
    state.0.handle.put_document(document).await?;
    Ok(StatusCode::NO_CONTENT)
}
