//! Takes the records out of what a delivery service wraps them in.
//!
//! Shapes: CloudEvents 1.0 "JSON Event Format" and "HTTP Protocol Binding"; Amazon Data Firehose
//! "HTTP endpoint delivery request and response specifications"; Google Cloud "Push subscriptions";
//! Azure Event Grid "Event schema" and "Endpoint validation".

use std::borrow::Cow;
use std::io::Read as _;

use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::response::IntoResponse as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::MAX_PLAIN;
use super::answer::{self, Refusal};
use crate::clock;
use crate::sources::input;
use crate::sources::intake::Taken;

/// Parts of one envelope taken at most.
const MAX_PARTS: usize = 100_000;

/// What a body is.
#[derive(Debug)]
pub(super) enum Envelope {
    /// A question whether this endpoint wants deliveries; the answer.
    Handshake(Value),
    /// Pieces of bytes, each with records in some framing.
    Records(Vec<Vec<u8>>),
}

/// Who sends, where the answer depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// Amazon Data Firehose.
    Firehose,
    /// Anyone else.
    Other,
}

const FIREHOSE_ID: &str = "x-amz-firehose-request-id";

impl Sender {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        if headers.contains_key(FIREHOSE_ID) {
            Self::Firehose
        } else {
            Self::Other
        }
    }

    /// The answer after the uses are durable.
    pub(super) fn accepted(self, headers: &HeaderMap, taken: &Taken) -> Response<axum::body::Body> {
        match self {
            Self::Firehose => answer::json(StatusCode::OK, &firehose(headers, None)),
            Self::Other => answer::taken(taken),
        }
    }

    /// The answer when they are not.
    pub(super) fn refused(
        self,
        headers: &HeaderMap,
        refusal: Refusal,
    ) -> Response<axum::body::Body> {
        match self {
            Self::Firehose => {
                let body = firehose(headers, Some(&refusal.detail));
                answer::json(refusal.status, &body)
            }
            Self::Other => refusal.into_response(),
        }
    }
}

/// Firehose wants its request id and a time in every answer.
fn firehose(headers: &HeaderMap, error: Option<&str>) -> Value {
    let id = headers.get(FIREHOSE_ID).and_then(|id| id.to_str().ok());
    let mut body = serde_json::json!({
        "requestId": id.unwrap_or_default(),
        "timestamp": clock::now().as_millisecond(),
    });
    if let (Some(error), Some(object)) = (error, body.as_object_mut()) {
        object.insert("errorMessage".to_owned(), Value::from(error));
    }
    body
}

#[derive(Deserialize)]
struct FirehoseRequest<'a> {
    #[serde(borrow)]
    records: Vec<FirehoseRecord<'a>>,
}

#[derive(Deserialize)]
struct FirehoseRecord<'a> {
    #[serde(borrow)]
    data: Cow<'a, str>,
}

#[derive(Deserialize)]
struct PubSub<'a> {
    #[serde(borrow)]
    message: PubSubMessage<'a>,
    #[serde(rename = "subscription")]
    _subscription: Cow<'a, str>,
}

#[derive(Deserialize)]
struct PubSubMessage<'a> {
    #[serde(default, borrow)]
    data: Cow<'a, str>,
}

/// A CloudEvent or an Event Grid event: only its payload matters.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
    #[serde(default, borrow)]
    data_base64: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct GridEvent<'a> {
    #[serde(borrow, rename = "eventType")]
    event_type: Cow<'a, str>,
    data: GridValidation,
}

#[derive(Deserialize)]
struct GridValidation {
    #[serde(rename = "validationCode")]
    code: String,
}

/// Opens `body`, told by its headers and, for Pub/Sub, by its members what it is.
///
/// # Errors
/// When the envelope is damaged; says how.
pub(super) fn open(headers: &HeaderMap, body: &[u8]) -> Result<Envelope, String> {
    let is = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let content_type = is(header::CONTENT_TYPE.as_str())
        .unwrap_or_default()
        .to_ascii_lowercase();
    if headers.contains_key(FIREHOSE_ID) {
        let body = plain(body)?;
        return firehose_records(&body).map(Envelope::Records);
    }
    if let Some(event_type) = is("aeg-event-type") {
        let body = plain(body)?;
        if event_type.eq_ignore_ascii_case("SubscriptionValidation") {
            return grid_handshake(&body);
        }
        return events(&body, "Event Grid").map(Envelope::Records);
    }
    if content_type.starts_with("application/cloudevents") {
        let body = plain(body)?;
        return events(&body, "CloudEvents").map(Envelope::Records);
    }
    // A binary CloudEvent's body is its data; so is any other body, but for Pub/Sub's.
    if !headers.contains_key("ce-specversion")
        && body.trim_ascii_start().starts_with(b"{")
        && let Ok(push) = serde_json::from_slice::<PubSub<'_>>(body)
    {
        let data = base64(&push.message.data).map_err(|e| format!("Pub/Sub message: {e}"))?;
        return Ok(Envelope::Records(vec![data]));
    }
    Ok(Envelope::Records(vec![body.to_vec()]))
}

/// The body decompressed, for envelopes that are parsed whole.
fn plain(body: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    input::plain_up_to(body, MAX_PLAIN)
        .and_then(|mut plain| plain.read_to_end(&mut out))
        .map_err(|e| format!("the body cannot be decompressed: {e}"))?;
    Ok(out)
}

fn base64(text: &str) -> Result<Vec<u8>, String> {
    STANDARD
        .decode(text)
        .map_err(|e| format!("`data` is no base64 ({e})"))
}

fn firehose_records(body: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let request: FirehoseRequest<'_> =
        serde_json::from_slice(body).map_err(|e| format!("no Firehose request: {e}"))?;
    bounded(request.records.len())?;
    request
        .records
        .iter()
        .enumerate()
        .map(|(at, record)| base64(&record.data).map_err(|e| format!("Firehose record {at}: {e}")))
        .collect()
}

fn grid_handshake(body: &[u8]) -> Result<Envelope, String> {
    let events: Vec<GridEvent<'_>> =
        serde_json::from_slice(body).map_err(|e| format!("no Event Grid validation: {e}"))?;
    events
        .iter()
        .find(|event| event.event_type == "Microsoft.EventGrid.SubscriptionValidationEvent")
        .map(|event| {
            Envelope::Handshake(serde_json::json!({ "validationResponse": event.data.code }))
        })
        .ok_or_else(|| "no SubscriptionValidationEvent in an Event Grid validation".to_owned())
}

/// One event, or an array of them: the payloads.
fn events(body: &[u8], what: &str) -> Result<Vec<Vec<u8>>, String> {
    let damaged = |e: serde_json::Error| format!("no {what}: {e}");
    let events: Vec<Event<'_>> = if body.trim_ascii_start().starts_with(b"[") {
        serde_json::from_slice(body).map_err(damaged)?
    } else {
        vec![serde_json::from_slice(body).map_err(damaged)?]
    };
    bounded(events.len())?;
    events
        .into_iter()
        .enumerate()
        .map(|(at, event)| payload(event).map_err(|e| format!("{what}, event {at}: {e}")))
        .collect()
}

fn payload(event: Event<'_>) -> Result<Vec<u8>, String> {
    if let Some(data) = event.data_base64 {
        return base64(&data);
    }
    let data = event
        .data
        .ok_or("it has neither `data` nor `data_base64`")?
        .get();
    // Data of another content type is a string: its text is the payload.
    match serde_json::from_str::<String>(data) {
        Ok(text) => Ok(text.into_bytes()),
        Err(_) => Ok(data.as_bytes().to_vec()),
    }
}

fn bounded(parts: usize) -> Result<(), String> {
    if parts > MAX_PARTS {
        return Err(format!(
            "{parts} parts in one delivery; at most {MAX_PARTS}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(headers: &[(&'static str, &str)], body: &str) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        match open(&map, body.as_bytes()) {
            Ok(Envelope::Handshake(answer)) => answer.to_string(),
            Ok(Envelope::Records(pieces)) => pieces
                .iter()
                .map(|p| String::from_utf8_lossy(p).into_owned())
                .collect::<Vec<_>>()
                .join(" | "),
            Err(why) => format!("ERROR {why}"),
        }
    }

    #[test]
    fn every_envelope_is_opened() {
        let structured = (
            "content-type",
            "application/cloudevents+json; charset=UTF-8",
        );
        let batch = ("content-type", "application/cloudevents-batch+json");
        let firehose = (FIREHOSE_ID, "r-1");
        let validation = ("aeg-event-type", "SubscriptionValidation");
        let notification = ("aeg-event-type", "Notification");
        for (headers, body, expected) in [
            (vec![], r#"{"a":1}"#, r#"{"a":1}"#),
            (vec![("ce-specversion", "1.0")], r#"{"a":1}"#, r#"{"a":1}"#),
            (
                vec![structured],
                r#"{"specversion":"1.0","id":"1","data":{"a":1}}"#,
                r#"{"a":1}"#,
            ),
            (
                vec![structured],
                r#"{"specversion":"1.0","id":"1","data_base64":"eyJhIjoxfQ=="}"#,
                r#"{"a":1}"#,
            ),
            (
                vec![structured],
                r#"{"specversion":"1.0","datacontenttype":"text/plain","data":"{\"a\":1}"}"#,
                r#"{"a":1}"#,
            ),
            (
                vec![structured],
                r#"{"specversion":"1.0","id":"1"}"#,
                "ERROR CloudEvents, event 0: it has neither `data` nor `data_base64`",
            ),
            (
                vec![batch],
                r#"[{"data":{"a":1}},{"data":[2]}]"#,
                r#"{"a":1} | [2]"#,
            ),
            (vec![batch], "[]", ""),
            (
                vec![firehose],
                r#"{"requestId":"r-1","timestamp":1,"records":[{"data":"eyJhIjoxfQ=="},{"data":"eyJhIjoyfQ=="}]}"#,
                r#"{"a":1} | {"a":2}"#,
            ),
            (
                vec![firehose],
                r#"{"records":[{"data":"?"}]}"#,
                "ERROR Firehose record 0: `data` is no base64 (Invalid symbol 63, offset 0.)",
            ),
            (
                vec![],
                r#"{"message":{"data":"eyJhIjoxfQ==","messageId":"1"},"subscription":"projects/p/subscriptions/s"}"#,
                r#"{"a":1}"#,
            ),
            // A record that has a message is no Pub/Sub envelope.
            (
                vec![],
                r#"{"message":"x","a":1}"#,
                r#"{"message":"x","a":1}"#,
            ),
            (
                vec![validation],
                r#"[{"id":"1","eventType":"Microsoft.EventGrid.SubscriptionValidationEvent","data":{"validationCode":"C-1","validationUrl":"https://x"}}]"#,
                r#"{"validationResponse":"C-1"}"#,
            ),
            (
                vec![validation],
                "[]",
                "ERROR no SubscriptionValidationEvent in an Event Grid validation",
            ),
            (
                vec![notification],
                r#"[{"eventType":"x","data":{"a":1}}]"#,
                r#"{"a":1}"#,
            ),
        ] {
            assert_eq!(opened(&headers, body), expected, "{headers:?} {body}");
        }
        assert!(opened(&[firehose], "{").starts_with("ERROR no Firehose request"));
    }
}
