//! The lineage graph of a running correlator: fed in the inputs' transaction, there after a kill,
//! rebuilt from the log when it is missing.

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
use serde_json::Value;

fn names(answer: &Value) -> Vec<String> {
    let found = answer["found"].as_array().unwrap();
    let name = |f: &Value| f["node"].as_str().unwrap().to_owned();
    found.iter().map(name).collect()
}

async fn told(rig: &Rig) {
    rig.holder("laptop", minutes_ago(10)).await;
    rig.deliver("a.json", &file(&[record("one", minutes_ago(20))]));
    rig.reaches("uses_new", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_survive_a_kill_and_a_lost_graph() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    told(&rig).await;
    let mut before: Option<Vec<Value>> = None;
    let mut rig = rig;
    for round in 0..3 {
        let mut answers = Vec::new();
        for question in ["reach", "dependents", "origin"] {
            let path = format!("/v1/graph/{question}/aws-access-key:{KEY}");
            answers.push(rig.get(&path).await);
        }
        let reached = names(&answers[0]);
        assert!(
            reached.contains(&"service:sts.amazonaws.com".to_owned()),
            "{reached:?}"
        );
        let dependents = names(&answers[1]);
        for expected in [
            "device:laptop",
            "program:laptop//usr/bin/aws",
            "address:203.0.113.66",
        ] {
            assert!(dependents.contains(&expected.to_owned()), "{dependents:?}");
        }
        let chains = answers[2]["chains"].as_array().unwrap();
        assert!(chains.iter().any(|c| c[0]["from"] == "device:laptop"));
        if let Some(before) = &before {
            assert_eq!(before, &answers, "round {round}");
        }
        before = Some(answers);
        rig.server.crash().await;
        if round == 1 {
            // As a store that an earlier version wrote.
            let db = rusqlite::Connection::open(rig.data.join("keytrail.db")).unwrap();
            db.execute_batch(
                "DELETE FROM graph_edges; DELETE FROM graph_nodes;
                 DELETE FROM meta WHERE key = 'graph_offset'",
            )
            .unwrap();
        }
        rig = Rig::start(dir.path()).await;
    }
    rig.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_questions_are_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    let good = rig.bearer();
    for (path, headers, status) in [
        (
            "/v1/graph/reach/x",
            vec![("authorization", good.as_str())],
            400,
        ),
        (
            "/v1/graph/dependents/credential:x",
            vec![("authorization", good.as_str())],
            400,
        ),
        (
            "/v1/graph/origin/device:nobody",
            vec![("authorization", good.as_str())],
            404,
        ),
        ("/v1/graph/origin/device:nobody", vec![], 401),
    ] {
        let (got, body) = rig.raw(path, &headers).await;
        assert_eq!(got, status, "{path}: {body}");
    }
    rig.server.stop().await;
}

const USER: &str = "arn:aws:iam::581039954779:user/ci";

#[tokio::test(flavor = "multi_thread")]
async fn imported_permissions_tell_what_was_never_seen() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    told(&rig).await;
    let iam = serde_json::json!({"UserDetailList": [{
        "UserName": "ci", "Arn": USER,
        "UserPolicyList": [{"PolicyName": "p", "PolicyDocument": {"Statement": [
            {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": "*"},
        ]}}],
    }]});
    let keys = serde_json::json!({"AccessKeyMetadata": [{"UserName": "ci", "AccessKeyId": KEY}]});
    for (name, kind, file) in [("a", "aws-iam", &iam), ("b", "aws-access-keys", &keys)] {
        let path = format!("/v1/graph/imports/{name}?kind={kind}");
        let (status, body) = rig.send("PUT", &path, file.to_string().as_bytes()).await;
        assert_eq!(status, 200, "{body}");
    }
    let path = format!("/v1/graph/reach/aws-access-key:{KEY}");
    let check = |answer: &Value| {
        let permitted = &answer["permitted"];
        assert_eq!(permitted["identities"][0], USER, "{permitted}");
        let first = &permitted["privileges"][0];
        assert_eq!(
            first["action"], "secretsmanager:GetSecretValue",
            "{permitted}"
        );
        assert_eq!(first["source"], "inline policy p of user ci, statement 1");
    };
    check(&rig.get(&path).await);
    rig.server.crash().await;
    let rig = Rig::start(dir.path()).await;
    check(&rig.get(&path).await);
    let who = rig.get("/v1/graph/dependents/resource:arn%3Aaws%3Ax").await;
    assert_eq!(who["permitted"][0]["identity"], USER);
    for (method, path, body, status, words) in [
        (
            "PUT",
            "/v1/graph/imports/c?kind=aws-iam",
            "{",
            400,
            "line 1, column 1",
        ),
        ("PUT", "/v1/graph/imports/c?kind=x", "{}", 400, "aws-iam"),
        (
            "DELETE",
            "/v1/graph/imports/c",
            "",
            404,
            "nothing was imported as c",
        ),
        ("DELETE", "/v1/graph/imports/b", "", 204, ""),
        ("POST", "/v1/graph/imports/b", "", 405, ""),
    ] {
        let (got, said) = rig.send(method, path, body.as_bytes()).await;
        assert_eq!(got, status, "{method} {path}: {said}");
        assert!(said.contains(words), "{method} {path}: {said}");
    }
    let answer = rig.get(&path).await;
    assert!(
        answer["permitted"]["identities"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert!(!answer["permitted"]["notes"].as_array().unwrap().is_empty());
    rig.server.stop().await;
}
