//! JSON files whose meaning is not in the catalogue's fields: caches of `aws`, Docker's settings.

use keytrail_model::credential::CredentialId;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{is_github, split_once};
use crate::agents::catalogue::ConfigFormat;
use crate::credentials::Findings;
use crate::credentials::structured::{self, Field};

#[derive(Deserialize)]
struct AwsCache<'a> {
    #[serde(rename = "Credentials", alias = "credentials", borrow, default)]
    credentials: Option<AwsCredentials<'a>>,
    #[serde(rename = "accessToken", borrow, default)]
    login: Option<AwsLogin<'a>>,
    #[serde(rename = "AccessKeyId", alias = "accessKeyId", default)]
    access_key_id: Option<&'a str>,
}

#[derive(Deserialize)]
struct AwsCredentials<'a> {
    #[serde(rename = "AccessKeyId", alias = "accessKeyId", default)]
    access_key_id: Option<&'a str>,
}

/// `aws login` keeps the key under `accessToken`, `aws sso login` a bearer token as text there.
#[derive(Deserialize)]
#[serde(untagged)]
enum AwsLogin<'a> {
    #[serde(borrow)]
    Key(AwsCredentials<'a>),
    Other(serde::de::IgnoredAny),
}

/// Caches of `aws`: access keys of roles, or the bearer token of a log-in.
pub(super) fn aws_json(bytes: &[u8], fields: &[Field], findings: &mut Findings<'_>) {
    // Only the identifier is taken out; serde skips the rest without copying it.
    let Ok(cache) = serde_json::from_slice::<AwsCache<'_>>(bytes) else {
        findings.scan(bytes, None);
        return;
    };
    let login = match &cache.login {
        Some(AwsLogin::Key(key)) => key.access_key_id,
        Some(AwsLogin::Other(_)) | None => None,
    };
    let nested = cache.credentials.and_then(|c| c.access_key_id);
    let mut any = false;
    for id in [nested, cache.access_key_id, login].into_iter().flatten() {
        if let Ok(id) = CredentialId::aws_access_key(id) {
            findings.push(id, None);
            any = true;
        }
    }
    // A log-in at Identity Center has no access key: its bearer token is what can be stolen.
    if !any {
        structured::identify(ConfigFormat::Json, bytes, fields, findings);
    }
}

#[derive(Deserialize)]
struct DockerConfig<'a> {
    #[serde(borrow, default)]
    auths: std::collections::BTreeMap<String, DockerAuth<'a>>,
}

#[derive(Deserialize)]
struct DockerAuth<'a> {
    #[serde(default)]
    auth: Option<&'a str>,
    #[serde(default)]
    identitytoken: Option<&'a str>,
    #[serde(default)]
    registrytoken: Option<&'a str>,
}

/// `auths.<registry>.auth` is base64 of `user:password`.
pub(super) fn docker(bytes: &[u8], findings: &mut Findings<'_>) {
    use base64::Engine as _;
    let Ok(config) = serde_json::from_slice::<DockerConfig<'_>>(bytes) else {
        findings.scan(bytes, None);
        return;
    };
    for (registry, auth) in &config.auths {
        let decoded = auth
            .auth
            .and_then(|a| base64::engine::general_purpose::STANDARD.decode(a).ok())
            .map(Zeroizing::new);
        let password = decoded
            .as_ref()
            .and_then(|d| split_once(d, b':'))
            .map(|(_, p)| p);
        let tokens = [auth.identitytoken, auth.registrytoken]
            .into_iter()
            .flatten();
        for value in password.into_iter().chain(tokens.map(str::as_bytes)) {
            let host = registry.split("://").last().unwrap_or(registry);
            if is_github(host.as_bytes()) {
                findings.github(value, Some(host));
            } else {
                findings.secret("docker-token", value, Some(host), &[host]);
            }
        }
    }
}
