//! Errors as `application/problem+json` (RFC 9457), from one list of codes.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::runner::RunnerError;
use crate::store::StoreError;

/// Everything that can go wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// A parameter has no valid value.
    BadRequest,
    /// The token is missing or wrong.
    Unauthorised,
    /// The Host header names another host.
    ForeignHost,
    /// There is no such thing.
    NotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// Too many requests or streams at once.
    Overloaded,
    /// The store or the runner cannot answer now.
    Unavailable,
    /// A fault of the correlator's.
    Internal,
}

impl ErrorCode {
    fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorised => StatusCode::UNAUTHORIZED,
            Self::ForeignHost => StatusCode::MISDIRECTED_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Overloaded | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "A parameter has no valid value",
            Self::Unauthorised => "The API token is missing or wrong",
            Self::ForeignHost => "The request is addressed to another host",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "Method not allowed",
            Self::Overloaded => "Too many requests at once",
            Self::Unavailable => "Not available now",
            Self::Internal => "A fault of the correlator's",
        }
    }
}

/// An error's body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// `about:blank`: the code says it all.
    pub r#type: String,
    /// What kind of problem, for people.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What kind of problem, for programs.
    pub code: ErrorCode,
    /// What exactly, and how to mend it.
    pub detail: String,
}

impl Problem {
    /// A problem with its detail.
    pub fn of(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            r#type: "about:blank".to_owned(),
            title: code.title().to_owned(),
            status: code.status().as_u16(),
            code,
            detail: detail.into(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (self.code.status(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        match self.code {
            ErrorCode::Unauthorised => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            ErrorCode::Overloaded | ErrorCode::Unavailable => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            ErrorCode::BadRequest
            | ErrorCode::ForeignHost
            | ErrorCode::NotFound
            | ErrorCode::MethodNotAllowed
            | ErrorCode::Internal => {}
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store could not answer a request");
        Self::of(ErrorCode::Unavailable, error.to_string())
    }
}

impl From<RunnerError> for Problem {
    fn from(error: RunnerError) -> Self {
        Self::of(ErrorCode::Unavailable, error.to_string())
    }
}

/// Runs a blocking read.
pub(super) async fn read<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(read).await {
        Ok(result) => Ok(result?),
        Err(error) => {
            tracing::error!(%error, "a read panicked");
            Err(Problem::of(
                ErrorCode::Internal,
                "the read failed; see the correlator's log",
            ))
        }
    }
}
