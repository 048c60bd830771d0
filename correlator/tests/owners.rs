//! Owners and blast radius beside an alert: read now, never stored with it.

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

use common::{KEY, Rig, file, minutes_ago, record};

const OKTA: &str = "id,login,email,displayName,managerId,status\n\
    1,ana@acme.example,ana@acme.example,Ana Ruiz,2,ACTIVE\n\
    2,bo@acme.example,bo@acme.example,Bo Lind,,ACTIVE\n";

#[tokio::test(flavor = "multi_thread")]
async fn alerts_name_owners_and_are_ranked_as_of_now() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    rig.holder("laptop", minutes_ago(10)).await;
    rig.deliver("a.json", &file(&[record("one", minutes_ago(20))]));
    let alert = rig.alert().await;
    let revision = alert["history"].clone();
    let context = &alert["context"];
    assert!(
        context["ownership"]["summary"]
            .as_str()
            .unwrap()
            .contains("nobody is known")
    );
    let before = context["blast_radius"]["score"].as_u64().unwrap();

    for (name, kind, text) in [
        ("people", "okta", OKTA),
        (
            "devices",
            "devices",
            "host,owner\nLaptop.corp.example,ana@acme.example\n",
        ),
        (
            "owners",
            "tags",
            "resource,owner\narn:aws:iam::581039954779:user/*,bo@acme.example\n",
        ),
    ] {
        let path = format!("/v1/owners/imports/{name}?kind={kind}");
        let (status, said) = rig.send("PUT", &path, text.as_bytes()).await;
        assert_eq!(status, 200, "{said}");
    }
    let admin = r#"{"UserDetailList":[{"UserName":"ci","Arn":"arn:aws:iam::581039954779:user/ci",
        "UserPolicyList":[{"PolicyName":"p","PolicyDocument":{"Statement":
            {"Effect":"Allow","Action":"*","Resource":"*"}}}]}]}"#;
    let keys = format!(r#"{{"AccessKeyMetadata":[{{"UserName":"ci","AccessKeyId":"{KEY}"}}]}}"#);
    for (name, kind, text) in [
        ("iam", "aws-iam", admin),
        ("keys", "aws-access-keys", &keys),
    ] {
        let path = format!("/v1/graph/imports/{name}?kind={kind}");
        assert_eq!(rig.send("PUT", &path, text.as_bytes()).await.0, 200);
    }

    let alert = rig.alert().await;
    assert_eq!(
        alert["history"], revision,
        "the alert itself did not change"
    );
    let ownership = &alert["context"]["ownership"];
    assert_eq!(ownership["endpoint"][0]["person"]["name"], "Ana Ruiz");
    assert_eq!(
        ownership["endpoint"][0]["method"],
        "device inventory, laptop"
    );
    assert_eq!(ownership["endpoint"][0]["manager"]["name"], "Bo Lind");
    assert_eq!(ownership["credential"][0]["person"]["name"], "Bo Lind");
    assert_eq!(ownership["differ"], true);
    let radius = &alert["context"]["blast_radius"];
    let factor = &radius["factors"][0];
    assert_eq!(
        (factor["name"].as_str(), factor["value"].as_u64()),
        (Some("privilege"), Some(100))
    );
    let after = radius["score"].as_u64().unwrap();
    assert!(after > before, "{before} {after}");

    let list = rig.get("/v1/alerts?sort=blast-radius&limit=1").await;
    assert_eq!(list["alerts"][0]["blast_radius"].as_u64(), Some(after));
    assert!(list["next_cursor"].is_null());
    let (status, _) = rig
        .send("GET", "/v1/alerts?sort=blast-radius&cursor=3", b"")
        .await;
    assert_eq!(status, 400);

    // A reorganisation takes effect at once.
    let path = "/v1/owners/imports/devices?kind=devices";
    let text = "host,owner\nlaptop,bo@acme.example\n";
    assert_eq!(rig.send("PUT", path, text.as_bytes()).await.0, 200);
    let of = rig
        .get(&format!("/v1/owners/of/aws-access-key:{KEY}"))
        .await;
    assert_eq!(of["ownership"]["endpoint"][0]["person"]["name"], "Bo Lind");
    assert_eq!(of["ownership"]["differ"], false);
    for (path, status) in [
        ("/v1/owners/of/device:laptop", 200),
        ("/v1/owners/of/device:nobody", 404),
        ("/v1/owners/of/x", 400),
        ("/v1/owners/imports", 200),
    ] {
        assert_eq!(rig.send("GET", path, b"").await.0, status, "{path}");
    }
    let (status, said) = rig
        .send("PUT", "/v1/owners/imports/x?kind=okta", b"a\n1\n")
        .await;
    assert!(
        status == 400 && said.contains("no entry has the columns"),
        "{said}"
    );
    rig.server.stop().await;
}
