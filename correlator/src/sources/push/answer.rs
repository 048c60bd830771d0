//! What senders are told.

use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use crate::sources::intake::Taken;

/// A delivery that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// What is wrong, and how to mend it.
    pub(super) detail: String,
}

impl Refusal {
    pub(super) fn bad(detail: String) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            detail,
        }
    }

    pub(super) fn too_large(detail: String) -> Self {
        Self {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            detail,
        }
    }

    /// No token (`shown` is false), or a wrong one.
    pub(super) fn token(shown: bool) -> Self {
        Self {
            status: if shown {
                StatusCode::FORBIDDEN
            } else {
                StatusCode::UNAUTHORIZED
            },
            detail: if shown {
                "there is no such source, or this is not its token"
            } else {
                "show the source's token: `Authorization: Bearer <token>`, or as your sender does \
                 (Splunk, X-Amz-Firehose-Access-Key, X-Gitlab-Event-Streaming-Token, ?token=)"
            }
            .to_owned(),
        }
    }

    /// To be tried again.
    pub(super) fn busy(detail: &str) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            detail: format!("{detail}; send it again"),
        }
    }

    pub(super) fn fault() -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            detail: "a fault of the correlator's; see its log".to_owned(),
        }
    }

    pub(super) fn method(method: &Method) -> Self {
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            detail: format!("{method} means nothing here: POST records"),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = json(
            self.status,
            &json!({ "status": self.status.as_u16(), "detail": self.detail }),
        );
        let headers = response.headers_mut();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A JSON answer.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).unwrap_or_default();
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (status, kind, body).into_response()
}

/// What became of a delivery.
pub(super) fn taken(taken: &Taken) -> Response {
    json(
        StatusCode::OK,
        &json!({
            "records": taken.records,
            "uses": taken.uses,
            "new": taken.new,
            "duplicates": taken.duplicates,
            "skipped": taken.skipped,
            "rejected": taken.rejected,
            "first_rejection": taken.first_rejection.map(|why| why.to_string()),
        }),
    )
}
