//! Takes records out of what carried them.
//!
//! | carrier | where the record is |
//! |---|---|
//! | EventBridge | `detail` |
//! | CloudTrail LookupEvents, CloudTrail Lake | `CloudTrailEvent`, `eventJson`, as text |
//! | CloudWatch Logs | `message` of a log event, as text (the batch is cut by `framing`) |
//! | SNS, SQS | `Message`, `Body`, as text |
//! | Firehose | `data` of a record, base64, perhaps compressed |
//! | Pub/Sub push and pull | `message.data`, `data`, base64 |
//! | CloudEvents, Event Grid | `data`, `data_base64` |
//! | Splunk HEC | `event` |
//! | AKS | `properties.log`, as text |
//! | Elastic | `_source`, `event.original` |
//! | container logs, Splunk's export | `log`, `_raw`, as text |
//!
//! It is looked for only when a record is not of its source's own shape.

use std::borrow::Cow;
use std::io::Read as _;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use flate2::bufread::MultiGzDecoder;

use crate::Rejection;
use crate::doc::Doc;
use crate::framing::MAX_RECORD_BYTES;

/// Base64 of either alphabet's padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// First bytes of gzip (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// What was found in a record that is none of its source.
pub(crate) enum Inside {
    /// One record or several, to be cut.
    Records(Vec<u8>),
    /// A message of the delivery itself: a connection test, a subscription's confirmation.
    Control,
}

/// Opens an envelope; `None` when it is none.
pub(crate) fn open(doc: &Doc<'_>) -> Option<Result<Inside, Rejection>> {
    if is_control(doc) {
        return Some(Ok(Inside::Control));
    }
    if let Some(inner) = base64_member(doc) {
        return Some(decoded(inner).map(Inside::Records));
    }
    let candidates: [&[&str]; 15] = [
        &["CloudTrailEvent"],
        &["eventJson"],
        &["detail"],
        &["data"],
        &["event", "original"],
        &["event"],
        &["message"],
        &["Body"],
        &["properties", "log"],
        &["_source"],
        &["_raw"],
        &["log"],
        &["raw"],
        &["record"],
        &["jsonPayload"],
    ];
    let inner = candidates.iter().find_map(|path| {
        let value = doc.at(path);
        as_json(value)
    })?;
    Some(Ok(Inside::Records(inner.into_owned())))
}

/// Messages that carry no record.
fn is_control(doc: &Doc<'_>) -> bool {
    doc.get("messageType").text() == Some("CONTROL_MESSAGE")
        || matches!(
            doc.get("Type").text(),
            Some("SubscriptionConfirmation" | "UnsubscribeConfirmation")
        )
        || doc.get("eventType").text() == Some("Microsoft.EventGrid.SubscriptionValidationEvent")
        || doc.get("Event").text() == Some("s3:TestEvent")
}

/// A member that is an object, or JSON as text.
fn as_json<'a>(value: &'a Doc<'_>) -> Option<Cow<'a, [u8]>> {
    match value {
        Doc::Object(_) => serde_json::to_vec(value).ok().map(Cow::Owned),
        Doc::Text(text) => {
            let text = text.trim();
            text.starts_with(['{', '['])
                .then_some(Cow::Borrowed(text.as_bytes()))
        }
        _ => None,
    }
}

/// The base64 member of a Pub/Sub message, a Firehose record or a CloudEvent.
fn base64_member<'a>(doc: &'a Doc<'_>) -> Option<&'a str> {
    let encoded = |text: &'a str| (!text.starts_with(['{', '['])).then_some(text);
    doc.at(&["message", "data"])
        .text()
        .or_else(|| doc.get("data").text())
        .or_else(|| doc.get("data_base64").text())
        .and_then(encoded)
}

fn decoded(text: &str) -> Result<Vec<u8>, Rejection> {
    if text.len() > MAX_RECORD_BYTES * 2 {
        return Err(Rejection::TooLarge);
    }
    let standard: Cow<'_, str> = if text.contains(['-', '_']) {
        Cow::Owned(text.replace('-', "+").replace('_', "/"))
    } else {
        Cow::Borrowed(text)
    };
    let bytes = LENIENT
        .decode(standard.as_bytes())
        .map_err(|_| Rejection::BadEnvelope)?;
    if !bytes.starts_with(&GZIP) {
        return Ok(bytes);
    }
    let mut plain = Vec::new();
    let limit = u64::try_from(MAX_RECORD_BYTES * 4).unwrap_or(u64::MAX);
    let read = MultiGzDecoder::new(bytes.as_slice())
        .take(limit)
        .read_to_end(&mut plain);
    read.map_err(|_| Rejection::BadEnvelope)?;
    if plain.len() >= MAX_RECORD_BYTES * 4 {
        return Err(Rejection::TooLarge);
    }
    Ok(plain)
}
