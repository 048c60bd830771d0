//! CloudTrail files of every kind, good and bad, through the whole correlator.

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

use std::time::Duration;

use common::{Rig, file, gzip, minutes_ago, record};
use serde_json::{Value, json};

/// One file: what it holds, which counter it raises, how many uses it gives.
struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    counter: &'static str,
    uses: u64,
}

fn with(id: &str, field: &str, value: Value) -> Value {
    let mut one = record(id, minutes_ago(10));
    *one.pointer_mut(field).unwrap() = value;
    one
}

fn good(id: &str) -> Value {
    record(id, minutes_ago(10))
}

fn cases() -> Vec<Case> {
    let case = |name, bytes, counter, uses| Case {
        name,
        bytes,
        counter,
        uses,
    };
    let whole = file(&[good("t1"), good("t2")]);
    let zipped = gzip(&whole);
    let mut broken_gzip = gzip(&file(&[good("g1")]));
    let middle = broken_gzip.len() / 2;
    broken_gzip[middle] ^= 0xff;
    let incomplete = "cloudtrail_files_incomplete";
    let malformed = "cloudtrail_files_malformed";
    vec![
        case(
            "plain.json",
            file(&[good("p1")]),
            "cloudtrail_files_done",
            1,
        ),
        case(
            "zipped.json.gz",
            gzip(&file(&[good("z1")])),
            "cloudtrail_files_done",
            1,
        ),
        case(
            "lines.ndjson",
            format!("{}\n{}\n", good("n1"), good("n2")).into_bytes(),
            "cloudtrail_files_done",
            2,
        ),
        case(
            "array.json",
            json!([good("a1")]).to_string().into_bytes(),
            "cloudtrail_files_done",
            1,
        ),
        case(
            "truncated.json",
            whole[..whole.len() / 2].to_vec(),
            incomplete,
            0,
        ),
        case(
            "truncated.json.gz",
            zipped[..zipped.len() - 9].to_vec(),
            incomplete,
            0,
        ),
        case("empty.json", Vec::new(), incomplete, 0),
        case("damaged.json.gz", broken_gzip, malformed, 0),
        case("text.json", b"hello".to_vec(), malformed, 0),
        case(
            "other.json",
            br#"{"digestStartTime":"2026-11-23T20:00:00Z"}"#.to_vec(),
            malformed,
            0,
        ),
        case(
            "version.json",
            file(&[with("v1", "/eventVersion", json!("9.99"))]),
            "cloudtrail_unknown_version",
            1,
        ),
        case(
            "keyless.json",
            file(&[
                with("k1", "/userIdentity", json!({"type":"AWSService"})),
                good("k2"),
            ]),
            "cloudtrail_no_credential",
            1,
        ),
        case(
            "badkey.json",
            file(&[
                with("b1", "/userIdentity/accessKeyId", json!("****")),
                good("b2"),
            ]),
            "cloudtrail_rejected_bad_key",
            1,
        ),
        case(
            "badtime.json",
            file(&[with("m1", "/eventTime", json!("soon")), good("m2")]),
            "cloudtrail_rejected_bad_time",
            1,
        ),
        case(
            "noevent.json",
            file(&[with("e1", "/eventName", Value::Null), good("e2")]),
            "cloudtrail_rejected_no_event",
            1,
        ),
        case(
            "number.json",
            file(&[json!(7), good("o2")]),
            "cloudtrail_rejected_not_object",
            1,
        ),
        case(
            "damaged-record.json",
            format!(r#"{{"Records":[{{"a":}},{}]}}"#, good("d2")).into_bytes(),
            "cloudtrail_rejected_bad_json",
            1,
        ),
        case(
            "huge.json",
            format!(
                r#"{{"Records":[{{"a":"{}"}},{}]}}"#,
                "x".repeat(3 << 20),
                good("h2")
            )
            .into_bytes(),
            "cloudtrail_rejected_too_large",
            1,
        ),
        // The same record in another file, as after a replayed delivery.
        case(
            "again.json",
            file(&[good("p1"), good("p9")]),
            "uses_duplicate",
            1,
        ),
        case(
            "copy-of-zipped.json.gz",
            gzip(&file(&[good("z1")])),
            "cloudtrail_files_duplicate",
            0,
        ),
        case(
            "digest_CloudTrail-Digest_x.json",
            b"{}".to_vec(),
            "cloudtrail_files_ignored",
            0,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_file_is_counted_and_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    // The copies must be byte for byte those of the first delivery.
    let mut seen: std::collections::HashMap<String, Vec<u8>> = std::collections::HashMap::new();
    for mut case in cases() {
        if let Some(original) = case.name.strip_prefix("copy-of-")
            && case.counter == "cloudtrail_files_duplicate"
        {
            case.bytes = seen[original].clone();
        }
        seen.insert(case.name.to_owned(), case.bytes.clone());
        let (counted, uses) = (
            rig.counter(case.counter).await,
            rig.counter("uses_new").await,
        );
        rig.deliver(case.name, &case.bytes);
        rig.reaches(case.counter, counted + 1).await;
        rig.reaches("uses_new", uses + case.uses).await;
        let after = format!("after-{}", case.name.replace("CloudTrail-Digest", "digest"));
        let after = format!("{}.json", after.replace('.', "-"));
        rig.deliver(&after, &file(&[good(&after)]));
        rig.reaches("uses_new", uses + case.uses + 1).await;
    }
    let notes = std::fs::read_to_string(rig.data.join("dead-letters/cloudtrail.ndjson")).unwrap();
    assert!(notes.lines().count() >= 6, "{notes}");
    assert!(
        notes.contains("bad-key") && notes.contains("badkey.json"),
        "{notes}"
    );
    assert!(
        !notes.contains(common::KEY),
        "a note holds no content: {notes}"
    );
    let status = rig.get("/v1/status").await;
    assert_eq!(status["sources"][0]["pending"], 6, "{status}");
    rig.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_still_being_written_is_taken_once_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    let bytes = gzip(&file(&[good("w1"), good("w2")]));
    let path = rig.trail.join("slow.json.gz");
    for end in [bytes.len() / 3, bytes.len() / 2] {
        let before = rig.counter("cloudtrail_files_incomplete").await;
        std::fs::write(&path, &bytes[..end]).unwrap();
        rig.reaches("cloudtrail_files_incomplete", before + 1).await;
        assert_eq!(rig.counter("uses_new").await, 0);
    }
    std::fs::write(&path, &bytes).unwrap();
    rig.reaches("uses_new", 2).await;
    assert_eq!(rig.counter("uses_duplicate").await, 0);
    assert_eq!(rig.get("/v1/status").await["sources"][0]["pending"], 0);
    rig.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_folders_and_files_from_before_the_start_are_found_and_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let early = dir
        .path()
        .join("trail/AWSLogs/1/CloudTrail/us-east-1/2026/11/23");
    std::fs::create_dir_all(&early).unwrap();
    std::fs::write(early.join("early.json"), file(&[good("f1")])).unwrap();
    let rig = Rig::start(dir.path()).await;
    rig.reaches("uses_new", 1).await;
    let late = rig.trail.join("AWSLogs/1/CloudTrail/us-east-1/2026/11/24");
    std::fs::create_dir_all(&late).unwrap();
    std::fs::write(late.join("late.json"), file(&[good("f2")])).unwrap();
    rig.reaches("uses_new", 2).await;
    rig.server.stop().await;
    let rig = Rig::start(dir.path()).await;
    rig.reaches("cloudtrail_rescans", 3).await;
    for counter in ["uses_new", "uses_duplicate", "cloudtrail_records"] {
        assert_eq!(rig.counter(counter).await, 0, "{counter}");
    }
    rig.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_use_is_an_alert_within_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    rig.holder("laptop", minutes_ago(0)).await;
    let start = std::time::Instant::now();
    rig.deliver("theft.json.gz", &gzip(&file(&[good("u1")])));
    let alert = rig.alert().await;
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(alert["verdict"], "unexplained-use");
    assert_eq!(alert["unexplained"][0]["usage"]["id"], "aws.cloudtrail:u1");
    rig.server.stop().await;
}
