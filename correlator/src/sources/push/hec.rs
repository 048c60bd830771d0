//! The part of Splunk's HTTP Event Collector that senders use: `event`, `raw`, `health`. Paths,
//! answers and codes: Splunk, "HTTP Event Collector REST API endpoints".

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::answer::{self, Refusal};
use super::{MAX_PLAIN, Push, blocking, read, take_pieces};
use crate::sources::input;

/// Events of one request at most.
const MAX_EVENTS: usize = 100_000;

pub(super) fn routes() -> Router<Push> {
    let mut router = Router::new();
    for path in ["", "/event", "/event/1.0"] {
        router = router.route(&format!("/services/collector{path}"), post(event));
    }
    for path in ["/raw", "/raw/1.0"] {
        router = router.route(&format!("/services/collector{path}"), post(raw));
    }
    for path in ["/health", "/health/1.0"] {
        router = router.route(&format!("/services/collector{path}"), get(health));
    }
    router
}

async fn health() -> Response {
    answer::json(
        StatusCode::OK,
        &json!({"text": "HEC is healthy", "code": 17}),
    )
}

/// `{"event": ...}` objects, one after another.
async fn event(State(push): State<Push>, headers: HeaderMap, uri: Uri, body: Body) -> Response {
    answered(take(&push, &headers, &uri, body, true).await)
}

/// Records as they are.
async fn raw(State(push): State<Push>, headers: HeaderMap, uri: Uri, body: Body) -> Response {
    answered(take(&push, &headers, &uri, body, false).await)
}

async fn take(
    push: &Push,
    headers: &HeaderMap,
    uri: &Uri,
    body: Body,
    wrapped: bool,
) -> Result<(), (Refusal, u8)> {
    let target = push.target_of_token(headers, uri).map_err(|refusal| {
        let code = if refusal.status == StatusCode::UNAUTHORIZED {
            2
        } else {
            4
        };
        (refusal, code)
    })?;
    let intake = &target.intake;
    intake.tally().requests.one();
    let body = read(body, intake).await.map_err(|refusal| (refusal, 6))?;
    if body.is_empty() {
        return Err((Refusal::bad("No data".to_owned()), 5));
    }
    let pieces = if wrapped {
        blocking(move || events(&body))
            .await
            .map_err(|refusal| (refusal, 8))?
            .map_err(|problem| {
                intake.tally().requests_refused.one();
                (Refusal::bad(problem), 6)
            })?
    } else {
        vec![body.to_vec()]
    };
    let place = format!("hec:{}", intake.name());
    let busy = |refusal: Refusal| {
        let code = if refusal.status == StatusCode::BAD_REQUEST {
            6
        } else {
            9
        };
        (refusal, code)
    };
    take_pieces(intake, place, pieces).await.map_err(busy)?;
    Ok(())
}

fn answered(taken: Result<(), (Refusal, u8)>) -> Response {
    match taken {
        Ok(()) => answer::json(StatusCode::OK, &json!({"text": "Success", "code": 0})),
        Err((refusal, code)) => {
            let text = match code {
                2 => "Token is required".to_owned(),
                4 => "Invalid token".to_owned(),
                9 => format!("Server is busy: {}", refusal.detail),
                _ => refusal.detail.clone(),
            };
            answer::json(refusal.status, &json!({"text": text, "code": code}))
        }
    }
}

#[derive(Deserialize)]
struct Wrapper<'a> {
    #[serde(borrow)]
    event: &'a RawValue,
}

/// The events in a body: each an object, or a string that is one.
fn events(body: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let plain = input::plain_up_to(body, MAX_PLAIN).map_err(|e| e.to_string())?;
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut { plain }, &mut text).map_err(|e| e.to_string())?;
    let mut out = Vec::new();
    for (at, wrapper) in serde_json::Deserializer::from_slice(&text)
        .into_iter::<Wrapper<'_>>()
        .enumerate()
    {
        let event = wrapper
            .map_err(|e| format!("Invalid data format: event {at}: {e}"))?
            .event
            .get();
        out.push(match serde_json::from_str::<String>(event) {
            Ok(text) => text.into_bytes(),
            Err(_) => event.as_bytes().to_vec(),
        });
        if out.len() > MAX_EVENTS {
            return Err(format!("more than {MAX_EVENTS} events in one request"));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::events;

    #[test]
    fn events_are_taken_out() {
        for (body, expected) in [
            (r#"{"event":{"a":1}}"#, Ok(r#"{"a":1}"#)),
            (
                r#"{"time":1,"host":"h","event":{"a":1}}{"event":"{\"a\":2}"}"#,
                Ok(r#"{"a":1} | {"a":2}"#),
            ),
            (
                "{\"event\":{\"a\":1}}\n{\"event\":{\"a\":2}}\n",
                Ok(r#"{"a":1} | {"a":2}"#),
            ),
            (r#"{"a":1}"#, Err("event 0")),
            (r#"{"event":{"a":1}}x"#, Err("event 1")),
        ] {
            let got = events(body.as_bytes()).map(|all| {
                let all: Vec<String> = all
                    .iter()
                    .map(|e| String::from_utf8_lossy(e).into_owned())
                    .collect();
                all.join(" | ")
            });
            match expected {
                Ok(expected) => assert_eq!(got.as_deref(), Ok(expected), "{body}"),
                Err(word) => assert!(got.unwrap_err().contains(word), "{body}"),
            }
        }
    }
}
