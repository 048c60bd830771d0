//! `~/.kube/config` and its kin: users' certificates and tokens, with the servers of their contexts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use zeroize::Zeroizing;

use super::keys::{self, Naming};
use super::{Findings, structured};
use crate::agents::catalogue::ConfigFormat;

/// Users, each with the servers of the clusters that a context joins it with. Falls back to a scan
/// for known forms when the text is no YAML.
pub(super) fn identify(bytes: &[u8], findings: &mut Findings<'_>) {
    let Some(config) = structured::Document::parse(ConfigFormat::Yaml, bytes) else {
        findings.scan(bytes, None);
        return;
    };
    let config = config.value();
    for user in list(config, "users") {
        let Some(name) = user.get("name").and_then(Value::as_str) else {
            continue;
        };
        let Some(held) = user.get("user") else {
            continue;
        };
        let servers = servers(config, name);
        let hosts: Vec<&str> = servers.iter().map(String::as_str).collect();
        let text = |key: &str| held.get(key).and_then(Value::as_str);
        if let Some(data) = text("client-certificate-data") {
            let plain: Zeroizing<String> =
                Zeroizing::new(data.chars().filter(|c| !c.is_whitespace()).collect());
            if let Ok(pem) = STANDARD.decode(plain.as_bytes()).map(Zeroizing::new) {
                // The first certificate is the client's own; those behind it are its issuers.
                let mut own = Findings::new(findings.know);
                keys::pem(&pem, Naming::Spki, Some(name), &mut own);
                if let Some(first) = own.finish().found.into_iter().next() {
                    findings.push_for(first.credential, Some(name), &hosts);
                }
            }
        }
        if let Some(token) = text("token") {
            findings.secret("kubernetes-token", token.as_bytes(), Some(name), &hosts);
        }
        if let Some(password) = text("password") {
            findings.secret(
                "kubernetes-password",
                password.as_bytes(),
                Some(name),
                &hosts,
            );
        }
        let provider = held.get("auth-provider").and_then(|p| p.get("config"));
        for key in ["access-token", "id-token", "refresh-token"] {
            if let Some(token) = provider.and_then(|p| p.get(key)).and_then(Value::as_str) {
                findings.secret(
                    "kubernetes-oidc-token",
                    token.as_bytes(),
                    Some(name),
                    &hosts,
                );
            }
        }
        for variable in held.get("exec").map(|e| list(e, "env")).unwrap_or_default() {
            if let Some(value) = variable.get("value").and_then(Value::as_str) {
                findings.scan_for(value.as_bytes(), Some(name), &hosts);
            }
        }
    }
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// The servers that a user is used with; every server of the file when no context names the user.
fn servers(config: &Value, user: &str) -> Vec<String> {
    let of = |entry: &Value, key: &str| entry.get("context")?.get(key)?.as_str().map(str::to_owned);
    let clusters: Vec<String> = list(config, "contexts")
        .iter()
        .filter(|context| of(context, "user").as_deref() == Some(user))
        .filter_map(|context| of(context, "cluster"))
        .collect();
    list(config, "clusters")
        .iter()
        .filter(|cluster| {
            let name = cluster
                .get("name")
                .and_then(Value::as_str)
                .unwrap_or_default();
            clusters.is_empty() || clusters.iter().any(|known| known == name)
        })
        .filter_map(|cluster| {
            cluster
                .get("cluster")?
                .get("server")?
                .as_str()
                .map(str::to_owned)
        })
        .take(8)
        .collect()
}
