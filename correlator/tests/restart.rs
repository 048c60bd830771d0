//! Kills and restarts: the same facts give the same verdicts, and nothing is taken twice.

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

use common::{Rig, file, holder, minutes_ago, record};
use correlator::replay;
use keytrail_join::Settings;

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    rig.holder("laptop", minutes_ago(0)).await;
    rig.deliver("one.json", &file(&[record("u1", minutes_ago(10))]));
    let before = rig.alert().await;
    rig.server.crash().await;

    let rig = Rig::start(dir.path()).await;
    assert_eq!(rig.alert().await, before, "restored from the log");
    // The sensor did not hear the acknowledgement and sends everything again.
    rig.holder("laptop", minutes_ago(0)).await;
    assert_eq!(rig.counter("ingest_duplicates").await, 2);
    assert_eq!(rig.counter("ingest_events").await, 0);
    rig.deliver(
        "again.json",
        &file(&[record("u1", minutes_ago(10)), record("u2", minutes_ago(9))]),
    );
    rig.reaches("uses_new", 1).await;
    assert_eq!(rig.counter("uses_duplicate").await, 1);
    assert_eq!(
        rig.alert().await["unexplained_total"],
        2,
        "one alert, grown"
    );
    rig.server.stop().await;

    // After a proper stop the snapshot is used, with the same result.
    let rig = Rig::start(dir.path()).await;
    let lineage = rig
        .get("/v1/credentials/aws-access-key:AKIAIOSFODNN7EXAMPLE")
        .await;
    assert_eq!(lineage["totals"]["unexplained"], 2, "{lineage}");
    rig.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recorded_inputs_replay_to_the_same_alert_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    rig.holder("laptop", minutes_ago(0)).await;
    rig.deliver("one.json", &file(&[record("u1", minutes_ago(10))]));
    let mut served = rig.alert().await;
    // What is said beside the alert is of the moment that it is read.
    assert!(served.as_object_mut().unwrap().remove("context").is_some());
    // Out of the store of a correlator that is running.
    let mut recorded = Vec::new();
    replay::export(&rig.data, Settings::default(), &mut recorded).unwrap();
    rig.server.stop().await;
    let run = || {
        let mut effects = Vec::new();
        replay::replay(recorded.as_slice(), &mut effects).unwrap();
        String::from_utf8(effects).unwrap()
    };
    let effects = run();
    assert_eq!(effects, run());
    let last = effects
        .lines()
        .rfind(|l| l.contains("\"effect\":\"alert\""))
        .unwrap();
    let mut alert: serde_json::Value = serde_json::from_str(last).unwrap();
    alert.as_object_mut().unwrap().remove("effect");
    assert_eq!(alert, served);
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_of_an_earlier_boot_do_not_hide_those_of_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    rig.holder("laptop", minutes_ago(5)).await;
    let mut next = holder("laptop", minutes_ago(0));
    next.boot = keytrail_model::ids::BootId(uuid::Uuid::from_u128(8));
    for event in &mut next.events {
        event.id.boot = next.boot;
    }
    if let Some(watermark) = &mut next.watermark {
        watermark.boot = next.boot;
    }
    rig.server.handle().ingest(next).await.unwrap();
    assert_eq!(rig.counter("ingest_events").await, 4);
    let sensors = rig.get("/v1/sensors").await;
    assert_eq!(sensors["sensors"][0]["events"], 4, "{sensors}");
    assert_eq!(sensors["sensors"][0]["can_judge"], true);
    rig.server.stop().await;
}

/// What people allow is an input: it outlives a kill and a stop, and a replay sees it.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_recorded_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    for (body, complaint) in [
        (r#"{"pins":[{"user":"ana"}]}"#, "allow everything"),
        (r#"{"pins":[{"agnet":"codex-cli"}]}"#, "unknown field"),
        ("[[pins]]\nprogram = 7\n", "TOML"),
    ] {
        let (status, answer) = rig.send("PUT", "/v1/baseline", body.as_bytes()).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer.contains(complaint), "{complaint}: {answer}");
    }
    let toml = "[[pins]]\nprogram = \"terraform\"\nactions = [\"Get*\"]\ncomment = \"plan\"\n";
    let (status, answer) = rig.send("PUT", "/v1/baseline", toml.as_bytes()).await;
    assert_eq!(status, 200, "{answer}");
    rig.server.crash().await;

    let rig = Rig::start(dir.path()).await;
    let pins = rig.get("/v1/baseline").await["policy"]["pins"].clone();
    assert_eq!(pins[0]["program"], "terraform", "from the log: {pins}");
    assert_eq!(pins[0]["actions"][0], "Get*");
    let mut recorded = Vec::new();
    replay::export(&rig.data, Settings::default(), &mut recorded).unwrap();
    let recorded = String::from_utf8(recorded).unwrap();
    assert_eq!(recorded.matches(r#""input":"policy""#).count(), 1);
    replay::replay(recorded.as_bytes(), Vec::new()).unwrap();
    rig.server.stop().await;

    // Other settings: the log is replayed under them, the policy stays.
    let rig = Rig::start_with(dir.path(), |config| config.join.posture_alerts = true).await;
    let kept = rig.get("/v1/baseline").await["policy"]["pins"].clone();
    assert_eq!(kept, pins);
    let (status, _) = rig.send("PUT", "/v1/baseline", b"pins = []").await;
    assert_eq!(status, 200);
    let none = rig.get("/v1/baseline").await["policy"]["pins"].clone();
    assert_eq!(none.as_array().map(Vec::len), Some(0));
    rig.server.stop().await;
}
