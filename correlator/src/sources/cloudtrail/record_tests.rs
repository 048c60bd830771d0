//! One record a case.

use proptest::prelude::*;

use super::*;

const KEY: &str = "AKIAIOSFODNN7EXAMPLE";

/// A sound record, changed by `patch` (a merge patch: null removes).
fn record(patch: &str) -> Vec<u8> {
    let mut record = serde_json::json!({
        "eventVersion": "1.11",
        "eventID": "875240ac-e821-4fc6-a311-8c352a1d20f5",
        "eventTime": "2026-11-23T20:14:03Z",
        "eventSource": "s3.amazonaws.com",
        "eventName": "ListBuckets",
        "awsRegion": "us-east-1",
        "sourceIPAddress": "203.0.113.9",
        "userAgent": "aws-cli/2",
        "recipientAccountId": "123456789012",
        "userIdentity": {"accessKeyId": KEY, "accountId": "123456789012",
                         "arn": "arn:aws:iam::123456789012:user/dev"},
        "tlsDetails": {"clientProvidedHostHeader": "S3.us-east-1.amazonaws.com:443"},
    });
    merge(&mut record, serde_json::from_str(patch).unwrap());
    serde_json::to_vec(&record).unwrap()
}

/// RFC 7396.
fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    target.remove(&key);
                } else {
                    merge(target.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (target, patch) => *target = patch,
    }
}

fn used(patch: &str) -> Consumption {
    match parse_record(&record(patch)) {
        Ok(Parsed::Use { usage, .. }) => *usage,
        other => panic!("{patch}: {other:?}"),
    }
}

#[test]
fn a_sound_record_becomes_a_use() {
    let usage = used("{}");
    assert_eq!(
        usage.id.0,
        "aws.cloudtrail:875240ac-e821-4fc6-a311-8c352a1d20f5"
    );
    assert_eq!(usage.credential.value(), KEY);
    assert_eq!(usage.time.to_string(), "2026-11-23T20:14:03Z");
    assert_eq!(usage.granularity_ms, 1000);
    assert_eq!(
        usage.server_name.as_deref(),
        Some("s3.us-east-1.amazonaws.com")
    );
    assert_eq!(usage.account.as_deref(), Some("123456789012"));
    assert_eq!(usage.outcome, Outcome::Success);
    assert_eq!(usage.minted, None);
}

#[test]
fn refusals_have_a_reason() {
    for (patch, expected) in [
        (r#"{"eventTime":null}"#, Err(Rejection::BadTime)),
        (r#"{"eventTime":"yesterday"}"#, Err(Rejection::BadTime)),
        (r#"{"eventTime":1732392843}"#, Err(Rejection::BadTime)),
        (r#"{"eventName":null}"#, Err(Rejection::NoEvent)),
        (r#"{"eventSource":7}"#, Err(Rejection::NoEvent)),
        (
            r#"{"userIdentity":{"accessKeyId":"***"}}"#,
            Err(Rejection::BadKey),
        ),
        (r#"{"userIdentity":null}"#, Ok(Parsed::NoCredential)),
        (
            r#"{"userIdentity":{"accessKeyId":null}}"#,
            Ok(Parsed::NoCredential),
        ),
        (
            r#"{"userIdentity":{"accessKeyId":""}}"#,
            Ok(Parsed::NoCredential),
        ),
    ] {
        assert_eq!(parse_record(&record(patch)), expected, "{patch}");
    }
    assert_eq!(parse_record(b"{\"a\":}"), Err(Rejection::BadJson));
    assert_eq!(parse_record(b"[]"), Err(Rejection::NotObject));
}

#[test]
fn callers() {
    let service = |name: &str| Caller::Service {
        service: name.to_owned(),
    };
    let address = |text: &str| Caller::Address {
        address: text.parse().unwrap(),
    };
    for (patch, expected) in [
        ("{}", address("203.0.113.9")),
        (
            r#"{"sourceIPAddress":"2001:db8::1"}"#,
            address("2001:db8::1"),
        ),
        (
            r#"{"sourceIPAddress":"::ffff:203.0.113.9"}"#,
            address("203.0.113.9"),
        ),
        (
            r#"{"sourceIPAddress":"075.050.255.67"}"#,
            address("75.50.255.67"),
        ),
        (
            r#"{"sourceIPAddress":"cloudformation.amazonaws.com"}"#,
            service("cloudformation.amazonaws.com"),
        ),
        (
            r#"{"sourceIPAddress":"AWS Internal"}"#,
            service("AWS Internal"),
        ),
        (
            r#"{"userIdentity":{"invokedBy":"athena.amazonaws.com"}}"#,
            service("athena.amazonaws.com"),
        ),
        // What is no address and no AWS name must not pass for the provider.
        (r#"{"sourceIPAddress":"evil.example"}"#, Caller::Unknown),
        (
            r#"{"sourceIPAddress":"evilamazonaws.com"}"#,
            Caller::Unknown,
        ),
        (r#"{"sourceIPAddress":"999.1.1.1"}"#, Caller::Unknown),
        (
            r#"{"userIdentity":{"invokedBy":"evil.example"}}"#,
            address("203.0.113.9"),
        ),
        (r#"{"sourceIPAddress":null}"#, Caller::Unknown),
    ] {
        assert_eq!(used(patch).caller, expected, "{patch}");
    }
}

#[test]
fn times_and_server_names() {
    for (patch, time) in [
        (
            r#"{"eventTime":"2025-01-21 17:49:47.000000000"}"#,
            "2025-01-21T17:49:47Z",
        ),
        (
            r#"{"eventTime":"2025-01-21T18:49:47+01:00"}"#,
            "2025-01-21T17:49:47Z",
        ),
    ] {
        assert_eq!(used(patch).time.to_string(), time, "{patch}");
    }
    for (header, expected) in [
        ("STS.amazonaws.com", Some("sts.amazonaws.com")),
        ("sts.amazonaws.com.:443", Some("sts.amazonaws.com")),
        ("", None),
    ] {
        let patch = format!(r#"{{"tlsDetails":{{"clientProvidedHostHeader":"{header}"}}}}"#);
        assert_eq!(used(&patch).server_name.as_deref(), expected, "{header}");
    }
}

#[test]
fn minted_keys_resources_and_shapes() {
    let child = "ASIAIOSFODNN7EXAMPLE";
    for holder in ["credentials", "accessKey"] {
        let patch = format!(r#"{{"responseElements":{{"{holder}":{{"accessKeyId":"{child}"}}}}}}"#);
        assert_eq!(used(&patch).minted.unwrap().value(), child);
    }
    let patch = r#"{"resources":[{"ARN":"arn:aws:s3:::b"}, {"arn":"arn:aws:s3:::c"}, 7],
        "requestParameters":{"bucketName":"b","policy":"{\"secret\":1}","secretIdList":["x","y"]}}"#;
    assert_eq!(
        used(patch).resources,
        ["arn:aws:s3:::b", "arn:aws:s3:::c", "b", "x", "y"]
    );
    // Lower-cased names, as other tools write them.
    let lower = String::from_utf8(record("{}"))
        .unwrap()
        .replace("userIdentity", "useridentity")
        .replace("eventName", "eventname");
    assert!(matches!(
        parse_record(lower.as_bytes()),
        Ok(Parsed::Use { .. })
    ));
    // Envelopes: EventBridge, LookupEvents.
    let inner = String::from_utf8(record("{}")).unwrap();
    for text in [
        format!(r#"{{"detail-type":"AWS API Call via CloudTrail","detail":{inner}}}"#),
        serde_json::json!({"EventId": "x", "EventSource": "s3.amazonaws.com", "CloudTrailEvent": inner}).to_string(),
    ] {
        assert!(matches!(parse_record(text.as_bytes()), Ok(Parsed::Use { .. })), "{text}");
    }
}

#[test]
fn odd_but_usable_records_are_counted() {
    let flags = |patch: &str| match parse_record(&record(patch)) {
        Ok(Parsed::Use {
            derived_id,
            unknown_version,
            usage,
        }) => (derived_id, unknown_version, usage.id.0.len()),
        other => panic!("{other:?}"),
    };
    assert_eq!(flags(r#"{"eventVersion":"2.0"}"#), (false, true, 51));
    assert_eq!(flags(r#"{"eventID":null}"#), (true, false, 15 + 7 + 64));
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_parsed(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        drop(parse_record(&bytes));
    }

    /// Whatever stands in a field, parsing ends and nothing of the request is kept.
    #[test]
    fn any_field_value(field in "eventTime|userIdentity|sourceIPAddress|tlsDetails|resources|responseElements|eventVersion",
                       value in "null|7|\"\"|\"x\"|\\[\\]|\\[1\\]|\\{\\}|\\{\"accessKeyId\":1\\}|true") {
        let patch = format!(r#"{{"{field}":{value},"requestParameters":{{"password":"hunter2"}}}}"#);
        if let Ok(Parsed::Use { usage, .. }) = parse_record(&record(&patch)) {
            prop_assert!(!serde_json::to_string(&usage).unwrap().contains("hunter2"));
        }
    }
}
