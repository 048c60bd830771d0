//! The API's contract: who may ask, what is refused how, where a stream goes on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    missing_docs,
    dead_code,
    reason = "test code: it fails by panicking and has no public interface"
)]

mod common;

use std::io::{BufRead as _, BufReader};
use std::path::Path;

use common::{Rig, file, minutes_ago, record};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn refusals() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    let good = rig.bearer();
    let good = good.as_str();
    for (path, headers, status, code) in [
        ("/v1/alerts", vec![], 401, "unauthorised"),
        (
            "/v1/alerts",
            vec![("authorization", "Bearer wrong")],
            401,
            "unauthorised",
        ),
        (
            "/v1/alerts",
            vec![("authorization", "Basic eDp5")],
            401,
            "unauthorised",
        ),
        ("/v1/alerts/stream", vec![], 401, "unauthorised"),
        (
            "/v1/status",
            vec![("authorization", good), ("host", "evil.example")],
            421,
            "foreign-host",
        ),
        (
            "/healthz",
            vec![("host", "evil.example:80")],
            421,
            "foreign-host",
        ),
        (
            "/v1/alerts?limit=0",
            vec![("authorization", good)],
            400,
            "bad-request",
        ),
        (
            "/v1/alerts?limit=9999",
            vec![("authorization", good)],
            400,
            "bad-request",
        ),
        (
            "/v1/alerts?verdict=guilty",
            vec![("authorization", good)],
            400,
            "bad-request",
        ),
        (
            "/v1/alerts?cursor=x",
            vec![("authorization", good)],
            400,
            "bad-request",
        ),
        (
            "/v1/alerts?credential=x",
            vec![("authorization", good)],
            400,
            "bad-request",
        ),
        (
            "/v1/alerts?typo=1",
            vec![("authorization", good)],
            400,
            "bad-request",
        ),
        (
            "/v1/alerts/x",
            vec![("authorization", good)],
            400,
            "bad-request",
        ),
        (
            "/v1/alerts/0b7f6a52-5d4e-5c31-9d7e-2f6d3b1a8c44",
            vec![("authorization", good)],
            404,
            "not-found",
        ),
        (
            "/v1/credentials/aws-access-key:AKIAIOSFODNN7EXAMPLE",
            vec![("authorization", good)],
            404,
            "not-found",
        ),
        (
            "/v1/credentials/x",
            vec![("authorization", good)],
            400,
            "bad-request",
        ),
        ("/nowhere", vec![], 404, "not-found"),
        (
            "/v1/alerts/stream",
            vec![("authorization", good), ("last-event-id", "x")],
            400,
            "bad-request",
        ),
    ] {
        let (got, body) = rig.raw(path, &headers).await;
        let problem: Value =
            serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {body}"));
        assert_eq!(
            (got, problem["code"].as_str().unwrap()),
            (status, code),
            "{path} {headers:?}"
        );
        assert!(!problem["detail"].as_str().unwrap().is_empty());
    }
    assert_eq!(rig.raw("/healthz", &[]).await, (200, "ok\n".to_owned()));
    assert_eq!(rig.raw("/openapi.json", &[]).await.0, 200);
    assert!(rig.counter("api_unauthorised").await >= 4);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(rig.data.join("api-token"))
            .unwrap()
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    rig.server.stop().await;
}

/// The ids and alert ids of the first `count` events of a stream.
async fn stream(rig: &Rig, last: Option<&str>, count: usize) -> Vec<(u64, String)> {
    let (url, bearer, last) = (
        rig.url("/v1/alerts/stream"),
        rig.bearer(),
        last.map(str::to_owned),
    );
    tokio::task::spawn_blocking(move || {
        let mut request = ureq::get(&url).header("authorization", bearer);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let body = request.call().unwrap().into_body().into_reader();
        let mut events = Vec::new();
        let (mut id, mut alert) = (None, None);
        for line in BufReader::new(body).lines() {
            let line = line.unwrap();
            if let Some(text) = line.strip_prefix("id:") {
                id = text.trim().parse().ok();
            } else if let Some(text) = line.strip_prefix("data:") {
                let value: Value = serde_json::from_str(text).unwrap();
                alert = value["id"].as_str().map(str::to_owned);
            } else if line.is_empty()
                && let (Some(id), Some(alert)) = (id.take(), alert.take())
            {
                events.push((id, alert));
                if events.len() == count {
                    break;
                }
            }
        }
        events
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    rig.holder("laptop", minutes_ago(0)).await;
    rig.deliver("one.json", &file(&[record("u1", minutes_ago(10))]));
    rig.alert().await;
    let all = stream(&rig, Some("0"), 1).await;
    assert_eq!(all.len(), 1);
    let last = all[0].0.to_string();
    let (next, ()) = tokio::join!(stream(&rig, Some(&last), 1), async {
        rig.deliver("two.json", &file(&[record("u2", minutes_ago(9))]));
    });
    assert!(next[0].0 > all[0].0, "{next:?} after {all:?}");
    assert_eq!(next[0].1, all[0].1, "the same alert, changed");
    // Over a restart too: revisions go on.
    rig.server.stop().await;
    let rig = Rig::start(dir.path()).await;
    let resumed = stream(&rig, Some(&last), 1).await;
    assert_eq!(resumed[0], next[0]);
    rig.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    rig.holder("laptop", minutes_ago(0)).await;
    rig.deliver("one.json", &file(&[record("u1", minutes_ago(10))]));
    rig.alert().await;
    let page = rig.get("/v1/alerts?limit=1&verdict=unexplained-use").await;
    assert_eq!(page["alerts"].as_array().unwrap().len(), 1);
    let revision = page["alerts"][0]["revision"].as_u64().unwrap();
    let rest = rig.get(&format!("/v1/alerts?cursor={revision}")).await;
    assert_eq!(rest["alerts"].as_array().unwrap().len(), 0);
    let none = rig.get("/v1/alerts?verdict=confirmed").await;
    assert_eq!(none["alerts"].as_array().unwrap().len(), 0);
    rig.server.stop().await;
}

/// `docs/openapi.json` is what the code says; `UPDATE_EXPECT=1` writes it anew.
#[test]
fn the_committed_document_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let mut text = correlator::api::document().to_pretty_json().unwrap();
    text.push('\n');
    expect_test::expect_file![path].assert_eq(&text);
}
