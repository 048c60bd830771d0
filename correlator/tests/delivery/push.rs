//! Pushed records: every envelope, every way to show the token, and what is refused how.

use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use correlator::sources::config::Via;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::common::{Rig, file, gzip, minutes_ago, record};
use crate::{line, source};

const TOKEN: &str = "made-up-token-made-up-token-0001";

async fn rig(dir: &std::path::Path) -> Rig {
    Rig::start_with(dir, |config| {
        let mut pushed = source("edge", Via::Http);
        let hash = Sha256::digest(TOKEN.as_bytes());
        pushed.token_sha256 = Some(hash.iter().map(|b| format!("{b:02x}")).collect());
        config.source.push(pushed);
    })
    .await
}

/// Sends a request as written; the status and the body of the answer.
fn send(
    rig: &Rig,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> (u16, String) {
    let address = rig.server.push.unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    // A server that refuses early may close before it has read everything.
    drop(stream.write_all(body));
    let mut answer = String::new();
    drop(stream.read_to_string(&mut answer));
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    (status, body)
}

struct Case {
    name: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// New uses.
    new: u64,
    /// A word of the answer.
    says: &'static str,
}

fn cases() -> Vec<Case> {
    let bearer = ("authorization", format!("Bearer {TOKEN}"));
    let splunk = ("authorization", format!("Splunk {TOKEN}"));
    let one = |id: &str| record(id, minutes_ago(10));
    let push = "/v1/push/edge";
    let case = |name, path, headers, body: Vec<u8>, new, says| Case {
        name,
        path,
        headers,
        body,
        new,
        says,
    };
    let text = |value: Value| value.to_string().into_bytes();
    let encoded = |id: &str| STANDARD.encode(one(id).to_string());
    vec![
        case(
            "one object",
            push,
            vec![bearer.clone()],
            text(one("a1")),
            1,
            r#""new":1"#,
        ),
        case(
            "lines",
            push,
            vec![bearer.clone()],
            format!("{}{}", line("b1"), line("b2")).into_bytes(),
            2,
            r#""records":2"#,
        ),
        case(
            "an array",
            push,
            vec![bearer.clone()],
            text(json!([one("c1"), one("c2")])),
            2,
            "new",
        ),
        case(
            "CloudTrail's wrapper",
            push,
            vec![bearer.clone()],
            file(&[one("d1")]),
            1,
            "new",
        ),
        case(
            "gzip",
            push,
            vec![bearer.clone()],
            gzip(&file(&[one("e1")])),
            1,
            "new",
        ),
        case(
            "zstd",
            push,
            vec![bearer.clone()],
            zstd::encode_all(file(&[one("f1")]).as_slice(), 1).unwrap(),
            1,
            "new",
        ),
        case(
            "again",
            push,
            vec![bearer.clone()],
            text(json!([one("a1"), one("g1")])),
            1,
            r#""duplicates":1"#,
        ),
        case(
            "a poison record among good ones",
            push,
            vec![bearer.clone()],
            text(json!([{"eventName": 7}, one("h1"), 3])),
            1,
            r#""rejected":2"#,
        ),
        case(
            "token in the URL",
            "/v1/push/edge?token=made-up-token-made-up-token-0001",
            vec![],
            text(one("i1")),
            1,
            "new",
        ),
        case(
            "structured CloudEvent",
            push,
            vec![
                bearer.clone(),
                ("content-type", "application/cloudevents+json".to_owned()),
            ],
            text(
                json!({"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": one("j1")}),
            ),
            1,
            "new",
        ),
        case(
            "CloudEvents in a batch",
            push,
            vec![
                bearer.clone(),
                (
                    "content-type",
                    "application/cloudevents-batch+json".to_owned(),
                ),
            ],
            text(json!([{"data": one("k1")}, {"data_base64": encoded("k2")}])),
            2,
            "new",
        ),
        case(
            "binary CloudEvent",
            push,
            vec![
                bearer.clone(),
                ("ce-specversion", "1.0".to_owned()),
                ("ce-id", "1".to_owned()),
            ],
            text(one("l1")),
            1,
            "new",
        ),
        case(
            "Firehose",
            push,
            vec![
                ("x-amz-firehose-access-key", TOKEN.to_owned()),
                ("x-amz-firehose-request-id", "r-77".to_owned()),
            ],
            text(json!({"requestId": "r-77", "timestamp": 1, "records": [
                {"data": encoded("m1")},
                {"data": STANDARD.encode(gzip(&file(&[one("m2")])))},
            ]})),
            2,
            r#""requestId":"r-77""#,
        ),
        case(
            "Pub/Sub",
            push,
            vec![bearer.clone()],
            text(
                json!({"message": {"data": encoded("n1"), "messageId": "1"}, "subscription": "s"}),
            ),
            1,
            "new",
        ),
        case(
            "Event Grid",
            push,
            vec![
                bearer.clone(),
                ("aeg-event-type", "Notification".to_owned()),
            ],
            text(json!([{"id": "1", "eventType": "x", "data": one("o1")}])),
            1,
            "new",
        ),
        case(
            "HEC events",
            "/services/collector/event",
            vec![splunk.clone()],
            text(json!({"time": 1, "event": one("p1")})),
            1,
            r#""text":"Success""#,
        ),
        case(
            "HEC raw",
            "/services/collector/raw?channel=x",
            vec![splunk],
            line("q1").into_bytes(),
            1,
            r#""code":0"#,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_envelope_is_taken_and_answered_after_it_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let rig = rig(dir.path()).await;
    for case in cases() {
        let before = rig.counter("uses_new").await;
        let headers: Vec<(&str, &str)> =
            case.headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let (status, body) = send(&rig, "POST", case.path, &headers, &case.body);
        assert_eq!(status, 200, "{}: {body}", case.name);
        assert!(body.contains(case.says), "{}: {body}", case.name);
        // No waiting: the answer came after the commit.
        assert_eq!(
            rig.counter("uses_new").await,
            before + case.new,
            "{}",
            case.name
        );
    }
    let notes = std::fs::read_to_string(rig.data.join("dead-letters/edge.ndjson")).unwrap();
    assert_eq!(notes.lines().count(), 2, "{notes}");
    assert!(
        !notes.contains(crate::common::KEY),
        "a note holds no content: {notes}"
    );
    let source = rig.source("edge").await;
    assert_eq!(source["via"], "http", "{source}");
    assert_eq!(source["duplicates"], 1, "{source}");
    assert!(source["lag_seconds"].as_i64().unwrap() >= 590, "{source}");
    rig.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_taken_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let rig = rig(dir.path()).await;
    let bearer = format!("Bearer {TOKEN}");
    let good = ("authorization", bearer.as_str());
    let wrong = ("authorization", "Bearer made-up-token-made-up-token-0002");
    let splunk = ("authorization", "Splunk nonsense");
    let record = line("x1");
    let torn = &record.as_bytes()[..record.len() - 20];
    let large = vec![b' '; (16 << 20) + 1];
    for (method, path, header, body, status, word) in [
        (
            "POST",
            "/v1/push/edge",
            ("x-a", "b"),
            record.as_bytes(),
            401,
            "Authorization",
        ),
        (
            "POST",
            "/v1/push/edge",
            wrong,
            record.as_bytes(),
            403,
            "not its token",
        ),
        // A source that is not there looks the same.
        (
            "POST",
            "/v1/push/other",
            wrong,
            record.as_bytes(),
            403,
            "not its token",
        ),
        (
            "POST",
            "/v1/push/other",
            good,
            record.as_bytes(),
            403,
            "not its token",
        ),
        (
            "POST",
            "/v1/push/edge",
            good,
            b"hello".as_slice(),
            400,
            "expected",
        ),
        (
            "POST",
            "/v1/push/edge",
            good,
            torn,
            400,
            "ends in the middle",
        ),
        (
            "POST",
            "/v1/push/edge",
            good,
            large.as_slice(),
            413,
            "at most",
        ),
        ("GET", "/v1/push/edge", good, b"", 405, "POST"),
        (
            "POST",
            "/services/collector/event",
            ("x-a", "b"),
            record.as_bytes(),
            401,
            r#""code":2"#,
        ),
        (
            "POST",
            "/services/collector/event",
            splunk,
            record.as_bytes(),
            403,
            r#""code":4"#,
        ),
        (
            "POST",
            "/services/collector/event",
            good,
            b"",
            400,
            r#""code":5"#,
        ),
        (
            "POST",
            "/services/collector/event",
            good,
            b"{\"a\":1}",
            400,
            r#""code":6"#,
        ),
    ] {
        let (got, answer) = send(&rig, method, path, &[header], body);
        assert_eq!(got, status, "{method} {path}: {answer}");
        assert!(answer.contains(word), "{method} {path}: {answer}");
    }
    assert_eq!(rig.counter("uses_new").await, 0);
    assert!(rig.counter("push_unauthorised").await >= 5);
    assert!(rig.counter("edge_requests_refused").await >= 4);
    // And then a good one.
    assert_eq!(
        send(&rig, "POST", "/v1/push/edge", &[good], record.as_bytes()).0,
        200
    );
    assert_eq!(rig.counter("uses_new").await, 1);
    rig.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_handshakes_of_delivery_services_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let rig = rig(dir.path()).await;
    let path = format!("/v1/push/edge?token={TOKEN}");
    let grid = json!([{"id": "1", "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "data": {"validationCode": "512d38b6"}}]);
    let (status, body) = send(
        &rig,
        "POST",
        &path,
        &[("aeg-event-type", "SubscriptionValidation")],
        grid.to_string().as_bytes(),
    );
    assert_eq!(
        (status, body.as_str()),
        (200, r#"{"validationResponse":"512d38b6"}"#)
    );
    let (status, _) = send(
        &rig,
        "OPTIONS",
        &path,
        &[("webhook-request-origin", "e.example")],
        b"",
    );
    assert_eq!(status, 200);
    let (status, body) = send(
        &rig,
        "GET",
        &path,
        &[("x-okta-verification-challenge", "c-1")],
        b"",
    );
    assert_eq!((status, body.as_str()), (200, r#"{"verification":"c-1"}"#));
    let (status, body) = send(&rig, "GET", "/services/collector/health", &[], b"");
    assert!(status == 200 && body.contains("healthy"), "{body}");
    rig.server.stop().await;
}
