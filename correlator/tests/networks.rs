//! Networks of addresses: given at the door, recorded, and no news when a file changes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: it fails by panicking"
)]

mod common;

use common::{Rig, file, minutes_ago};
use correlator::replay;
use keytrail_join::Settings;
use serde_json::Value;

const ROLE: &str = "arn:aws:sts::123456789012:assumed-role/agent/i-1";

/// A record of a role's session, from one address.
fn session(id: &str, key: &str, address: &str, minutes: i64) -> Value {
    serde_json::json!({
        "eventVersion": "1.11",
        "eventID": id,
        "eventTime": minutes_ago(minutes).strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "eventSource": "s3.amazonaws.com",
        "eventName": "PutObject",
        "awsRegion": "us-east-1",
        "sourceIPAddress": address,
        "userAgent": "made-up/1",
        "userIdentity": {"type": "AssumedRole", "accessKeyId": key, "arn": ROLE, "accountId": "123456789012"},
    })
}

fn replayed(recorded: &[u8]) -> String {
    let mut effects = Vec::new();
    replay::replay(recorded, &mut effects).unwrap();
    String::from_utf8(effects).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_table_is_no_news_and_a_new_network_is() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("files");
    std::fs::create_dir(&folder).unwrap();
    let asn = folder.join("asn.csv");
    let country = folder.join("country.csv");
    std::fs::write(&asn, "192.0.2.0,192.0.2.255,64500,Example Works\n203.0.113.0,203.0.113.255,64510,Example Hosting\n").unwrap();
    std::fs::write(
        &country,
        "192.0.2.0,192.0.2.255,US\n203.0.113.0,203.0.113.255,NL\n",
    )
    .unwrap();
    let rig = Rig::start_with(dir.path(), |config| {
        config.networks.folder = Some(folder.clone());
        config.networks.refresh_seconds = 1;
    })
    .await;
    // A role works from one address for a day and more ...
    let usual: Vec<Value> = (0..40)
        .map(|n| {
            session(
                &format!("u{n}"),
                "ASIAIOSFODNN7USUAL00",
                "192.0.2.40",
                3_000 - n * 60,
            )
        })
        .collect();
    rig.deliver("usual.json", &file(&usual));
    rig.reaches("uses_new", 40).await;
    let shown = rig.get("/v1/networks/192.0.2.40").await;
    assert_eq!(shown["network"]["organisation"], "Example Works");

    // ... its block is sold, renumbered and moved; a bad file beside it changes nothing.
    std::fs::write(&asn, "192.0.2.0,192.0.2.255,64999,Renamed Works\n203.0.113.0,203.0.113.255,64510,Example Hosting\n").unwrap();
    std::fs::write(
        &country,
        "192.0.2.0,192.0.2.255,IE\n192.0.3.0,nonsense,IE\n",
    )
    .unwrap();
    rig.reaches("networks_loaded", 3).await;
    rig.reaches("networks_refused", 1).await;
    let status = rig.get("/v1/status").await;
    let refused = &status["networks"]["files"][1];
    assert!(
        refused["problem"].as_str().unwrap().contains("line 2"),
        "{refused}"
    );
    std::fs::write(
        &country,
        "192.0.2.0,192.0.2.255,IE\n203.0.113.0,203.0.113.255,NL\n",
    )
    .unwrap();
    rig.reaches("networks_loaded", 4).await;
    rig.deliver(
        "moved.json",
        &file(&[session("m1", "ASIAIOSFODNN7NEXT000", "192.0.2.41", 500)]),
    );
    rig.reaches("uses_new", 41).await;
    assert_eq!(rig.get("/v1/alerts").await["alerts"], serde_json::json!([]));
    let lineage = rig
        .get("/v1/credentials/aws-access-key:ASIAIOSFODNN7NEXT000")
        .await;
    let network = &lineage["uses"][0]["usage"]["network"];
    assert_eq!(
        (&network["asn"], &network["country"]),
        (&64_999.into(), &"IE".into())
    );

    // Somebody else's network is news, and is told in words.
    rig.deliver(
        "stolen.json",
        &file(&[session("s1", "ASIAIOSFODNN7STOLEN0", "203.0.113.66", 400)]),
    );
    let alert = rig.alert().await;
    assert_eq!(alert["verdict"], "outside-envelope");
    let reason = alert["reasons"][0]["text"].as_str().unwrap();
    assert!(
        reason.contains("203.0.113.66, AS64510 Example Hosting, NL"),
        "{reason}"
    );

    // Without any table the record gives the same: the names are recorded.
    let mut recorded = Vec::new();
    replay::export(&rig.data, Settings::default(), &mut recorded).unwrap();
    rig.server.stop().await;
    let effects = replayed(&recorded);
    assert_eq!(effects, replayed(&recorded));
    assert!(effects.contains("AS64510 Example Hosting, NL"));
    std::fs::remove_dir_all(&folder).unwrap();
    let rig = Rig::start(dir.path()).await;
    let again = rig.alert().await;
    assert_eq!(again["reasons"], alert["reasons"]);
    assert_eq!(
        rig.get("/v1/alerts").await["alerts"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_asked_for_in_form() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    let unknown = rig.get("/v1/networks/2001:db8::7").await;
    assert_eq!(unknown["network"], Value::Null);
    let bearer = rig.bearer();
    let (status, body) = rig
        .raw("/v1/networks/nonsense", &[("authorization", &bearer)])
        .await;
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("192.0.2.7"), "{body}");
}
