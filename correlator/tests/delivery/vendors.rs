//! Polling, against what the vendors publish of their APIs: Prism (a mock server that others wrote)
//! plays GitHub's and Okta's OpenAPI descriptions, and refuses a request that they do not allow.

use std::path::Path;
use std::process::Command;

use correlator::sources::config::{SourceConfig, Via};
use correlator::sources::poll::PollConfig;

use crate::common::Rig;
use crate::parts::{self, Part, Python};

/// Cuts one path out of a description, with everything that it refers to: the whole is large, and
/// misses a reference elsewhere.
const CUT: &str = r##"
import json, sys
whole, path = json.load(open(sys.argv[1])), sys.argv[3]
def references(value):
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from [inner] if name == "$ref" else references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)
part = {name: whole[name] for name in ["openapi", "swagger", "info", "securityDefinitions"] if name in whole}
part["paths"] = {path: {"get": whole["paths"][path]["get"]}}
left, seen = list(references(part["paths"])), set()
while left:
    reference = left.pop()
    if reference in seen:
        continue
    seen.add(reference)
    *folders, last = reference.removeprefix("#/").split("/")
    found, into = whole, part
    for folder in folders:
        found, into = found[folder], into.setdefault(folder, {})
    into[last] = found[last]
    left += references(found[last])
json.dump(part, open(sys.argv[2], "w"))
"##;

struct Vendor {
    kind: &'static str,
    /// The description, below `node_modules`.
    description: &'static str,
    path: &'static str,
    scope: Option<&'static str>,
    /// A request that the description does not allow.
    wrong: String,
    /// Records of the description's example.
    records: u64,
}

async fn asks_as_described(name: &str, vendor: &Vendor) {
    let (Some(python), Some(prism)) = (parts::python(name), parts::npm(name, "prism")) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let port = parts::port();
    let _server = play(vendor, &python, &prism, dir.path(), port);
    let url = format!("http://127.0.0.1:{port}");
    // The mock does refuse what the vendor would: else its acceptance would say nothing.
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into();
    let refused = agent
        .get(format!("{url}{}", vendor.wrong))
        .header("authorization", "made-up")
        .call()
        .unwrap();
    assert_eq!(refused.status().as_u16(), 422, "{}", vendor.wrong);
    let token = dir.path().join("token");
    std::fs::write(&token, "made-up").unwrap();
    let rig = Rig::start_with(dir.path(), |config| {
        let mut source = SourceConfig::of("vendor", vendor.kind, Via::Poll);
        source.poll = Some(PollConfig {
            url,
            scope: vendor.scope.map(str::to_owned),
            token_file: Some(token),
            oauth: None,
            interval_seconds: Some(60),
            overlap_seconds: None,
            start_hours: None,
            page_size: None,
            ca_file: None,
        });
        config.source.push(source);
    })
    .await;
    rig.reaches("vendor_records", vendor.records).await;
    let source = rig.source("vendor").await;
    assert_eq!(source["problem"], serde_json::Value::Null, "{source}");
    assert_eq!(rig.counter("vendor_requests_failed").await, 0, "{source}");
    rig.server.stop().await;
}

fn play(vendor: &Vendor, python: &Python, prism: &Path, dir: &Path, port: u16) -> Part {
    let modules = prism.parent().unwrap().parent().unwrap();
    let whole = modules.join(vendor.description);
    let part = dir.join("description.json");
    let files = [whole.to_str().unwrap(), part.to_str().unwrap()];
    python.run(CUT, &[files[0], files[1], vendor.path]);
    Part::start(
        Command::new(prism)
            .args(["mock", "--errors", "--host", "127.0.0.1", "--port"])
            .arg(port.to_string())
            .arg(&part),
        port,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn github_is_asked_as_its_own_description_says() {
    for (path, scope) in [
        ("/orgs/{org}/audit-log", "orgs/acme"),
        ("/enterprises/{enterprise}/audit-log", "enterprises/acme"),
    ] {
        let vendor = Vendor {
            kind: "github.audit",
            description: "@octokit/openapi/generated/ghec.json",
            path,
            scope: Some(scope),
            wrong: format!("/{scope}/audit-log?order=sideways"),
            records: 3,
        };
        asks_as_described("github_is_asked_as_its_own_description_says", &vendor).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn okta_is_asked_as_its_own_description_says() {
    let vendor = Vendor {
        kind: "okta.system-log",
        description: "@okta/openapi/dist/spec.json",
        path: "/api/v1/logs",
        scope: None,
        wrong: "/api/v1/logs?since=yesterday".to_owned(),
        records: 1,
    };
    asks_as_described("okta_is_asked_as_its_own_description_says", &vendor).await;
}
