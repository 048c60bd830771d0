//! Which objects a queue's message announces.
//!
//! Shapes: S3 "Event message structure"; SNS "Message JSON format"; EventBridge "Amazon S3 events";
//! CloudTrail "Configuring Amazon SNS notifications".

use serde_json::Value;

/// An object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) bucket: String,
    pub(super) key: String,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Announced {
    /// These were created.
    Objects(Vec<Object>),
    /// A test, or something removed.
    Nothing,
    /// Nothing that is known.
    Unknown,
}

/// Reads a message.
pub(super) fn read(body: &str) -> Announced {
    match serde_json::from_str::<Value>(body) {
        Ok(message) => of(&message, 0),
        Err(_) => Announced::Unknown,
    }
}

fn of(message: &Value, depth: u8) -> Announced {
    let text = |value: &Value, pointer: &str| {
        value
            .pointer(pointer)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    if text(message, "/Event").as_deref() == Some("s3:TestEvent") {
        return Announced::Nothing;
    }
    if let Some(records) = message.get("Records").and_then(Value::as_array) {
        let created = records.iter().filter(|record| {
            text(record, "/eventName").is_none_or(|name| name.contains("ObjectCreated"))
        });
        let objects: Option<Vec<Object>> = created
            .map(|record| {
                Some(Object {
                    bucket: text(record, "/s3/bucket/name")?,
                    key: decoded(&text(record, "/s3/object/key")?),
                })
            })
            .collect();
        return match objects {
            Some(objects) if objects.is_empty() => Announced::Nothing,
            Some(objects) => Announced::Objects(objects),
            None => Announced::Unknown,
        };
    }
    if let (Some(bucket), Some(key)) = (
        text(message, "/detail/bucket/name"),
        text(message, "/detail/object/key"),
    ) {
        // EventBridge does not encode keys.
        return Announced::Objects(vec![Object { bucket, key }]);
    }
    if let (Some(bucket), Some(keys)) = (
        text(message, "/s3Bucket"),
        message.get("s3ObjectKey").and_then(Value::as_array),
    ) {
        let objects = keys.iter().filter_map(Value::as_str).map(|key| Object {
            bucket: bucket.clone(),
            key: key.to_owned(),
        });
        return Announced::Objects(objects.collect());
    }
    match text(message, "/Message") {
        Some(inner) if depth == 0 => match serde_json::from_str(&inner) {
            Ok(inner) => of(&inner, 1),
            // CloudTrail's own validation message is plain text.
            Err(_) => Announced::Nothing,
        },
        _ => Announced::Unknown,
    }
}

/// S3 encodes keys as HTML forms do.
fn decoded(key: &str) -> String {
    let mut bytes = key.bytes();
    let mut out = Vec::with_capacity(key.len());
    while let Some(byte) = bytes.next() {
        let digit = |byte: Option<u8>| char::from(byte.unwrap_or(0)).to_digit(16);
        match byte {
            b'+' => out.push(b' '),
            b'%' => match (digit(bytes.next()), digit(bytes.next())) {
                (Some(high), Some(low)) => out.extend(u8::try_from(high * 16 + low)),
                _ => out.push(b'%'),
            },
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_announcement_is_read() {
        let s3 = r#"{"Records":[{"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{"key":"a%2Fx+y.json.gz"}}}]}"#;
        let sns = serde_json::json!({"Type": "Notification", "Message": s3}).to_string();
        for (body, expected) in [
            (s3, "b a/x y.json.gz"),
            (sns.as_str(), "b a/x y.json.gz"),
            (
                r#"{"detail-type":"Object Created","detail":{"bucket":{"name":"b"},"object":{"key":"k+1"}}}"#,
                "b k+1",
            ),
            (
                r#"{"s3Bucket":"b","s3ObjectKey":["k1","k2"]}"#,
                "b k1, b k2",
            ),
            (
                r#"{"Service":"Amazon S3","Event":"s3:TestEvent"}"#,
                "nothing",
            ),
            (
                r#"{"Records":[{"eventName":"ObjectRemoved:Delete","s3":{"bucket":{"name":"b"},"object":{"key":"k"}}}]}"#,
                "nothing",
            ),
            (r#"{"Message":"CloudTrail validation message."}"#, "nothing"),
            (r#"{"Records":[{"s3":{}}]}"#, "unknown"),
            ("{}", "unknown"),
            ("hello", "unknown"),
        ] {
            let said = match read(body) {
                Announced::Objects(all) => all
                    .iter()
                    .map(|o| format!("{} {}", o.bucket, o.key))
                    .collect::<Vec<_>>()
                    .join(", "),
                Announced::Nothing => "nothing".to_owned(),
                Announced::Unknown => "unknown".to_owned(),
            };
            assert_eq!(said, expected, "{body}");
        }
    }
}
