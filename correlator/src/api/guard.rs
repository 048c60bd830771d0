//! What stands before every handler: host, load, token.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::{ApiState, ErrorCode, Problem};

/// A request takes at most this long (streams: until their first byte).
const TIMEOUT: Duration = Duration::from_secs(20);

/// Refuses requests without the token.
pub(super) async fn require_token(
    State(state): State<ApiState>,
    request: Request,
    next: Next,
) -> Response {
    let given = bearer(request.headers());
    if given.is_some_and(|token| state.0.token.matches(token)) {
        return next.run(request).await;
    }
    state.0.handle.counters().api_unauthorised.one();
    Problem::of(
        ErrorCode::Unauthorised,
        "send `Authorization: Bearer <token>` with the content of the file api-token in the \
         correlator's data directory",
    )
    .into_response()
}

/// The bearer token that a request carries.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
}

/// Refuses requests that are addressed to another host.
pub(super) async fn check_host(
    State(state): State<ApiState>,
    request: Request,
    next: Next,
) -> Response {
    let host = request
        .uri()
        .host()
        .map(str::to_owned)
        .or_else(|| {
            let header = request.headers().get(header::HOST)?.to_str().ok()?;
            let uri: Uri = format!("http://{header}/").parse().ok()?;
            uri.host().map(str::to_owned)
        })
        .unwrap_or_default();
    let known = ["127.0.0.1", "localhost", "[::1]"].contains(&host.as_str())
        || state.0.hosts.iter().any(|h| h.eq_ignore_ascii_case(&host));
    if known {
        return next.run(request).await;
    }
    state.0.handle.counters().api_bad_host.one();
    Problem::of(
        ErrorCode::ForeignHost,
        "the Host header names a host that is not this API's; add it to `api_hosts` in the \
         configuration if it is meant",
    )
    .into_response()
}

/// Bounds how many requests run and how long each takes.
pub(super) async fn bound(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let counters = state.0.handle.counters();
    counters.api_requests.one();
    let Ok(_permit) = state.0.requests.try_acquire() else {
        counters.api_overloaded.one();
        return Problem::of(ErrorCode::Overloaded, "try again in a second").into_response();
    };
    match tokio::time::timeout(TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            counters.api_overloaded.one();
            Problem::of(ErrorCode::Overloaded, "the request took too long").into_response()
        }
    }
}
