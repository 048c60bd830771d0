//! What is in a credential file, by its format.
//!
//! The line parsers are lenient: what a format's own tool would refuse is skipped, not an error,
//! because half a file can still hold a whole key.

use std::path::Path;

use keytrail_model::credential::CredentialId;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::Findings;
use super::tokens::{self, Token};

/// How a watched file is written. Names are those of `catalogue/watch.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileFormat {
    /// `~/.aws/credentials`, `~/.aws/config`: sections are profiles.
    AwsIni,
    /// `~/.aws/cli/cache/*.json`, `~/.aws/sso/cache/*.json`: `Credentials.AccessKeyId`.
    AwsJson,
    /// Any INI (rclone, s3cmd, boto): only values in the form of a credential count.
    Ini,
    /// `~/.config/gh/hosts.yml`.
    GhHosts,
    /// `~/.git-credentials`: one URL a line.
    GitCredentials,
    /// `~/.netrc`.
    Netrc,
    /// `.npmrc`.
    Npmrc,
    /// `.env` and its kin.
    Dotenv,
    /// `~/.docker/config.json`: `auths.<registry>.auth`.
    DockerConfig,
    /// Anything else: known token forms are looked for in the whole text.
    Text,
}

impl FileFormat {
    /// A format for a file that no catalogue entry describes, by its name.
    #[must_use]
    pub fn guess(path: &Path) -> Self {
        let name = path
            .file_name()
            .map(|n| n.to_string_lossy())
            .unwrap_or_default();
        let within = |dir: &str| path.parent().is_some_and(|p| p.ends_with(dir));
        match name.as_ref() {
            "credentials" | "config" if within(".aws") => Self::AwsIni,
            "hosts.yml" if within("gh") => Self::GhHosts,
            ".git-credentials" => Self::GitCredentials,
            "credentials" if within("git") => Self::GitCredentials,
            ".netrc" | ".authinfo" => Self::Netrc,
            ".npmrc" | "npmrc" => Self::Npmrc,
            ".envrc" => Self::Dotenv,
            name if name == ".env" || name.starts_with(".env.") => Self::Dotenv,
            _ => Self::Text,
        }
    }
}

/// One credential in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub credential: CredentialId,
    /// Profile, host or key that names it inside the file.
    pub entry: Option<String>,
    /// Server names that the file says it is for.
    pub destinations: Vec<String>,
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identified {
    /// Its credentials, at most [`super::MAX_FOUND`].
    pub found: Vec<Found>,
    /// Texts in the form of a classic GitHub token with a wrong checksum: not reported.
    pub bad_checksums: u32,
    /// Credentials beyond the limit.
    pub dropped: u32,
}

/// Finds the credentials in `bytes`. The secret itself is neither returned nor kept.
#[must_use]
pub fn identify_file(format: FileFormat, bytes: &[u8]) -> Identified {
    let mut findings = Findings::default();
    match format {
        FileFormat::AwsIni => ini(bytes, true, &mut findings),
        FileFormat::Ini => ini(bytes, false, &mut findings),
        FileFormat::AwsJson => aws_json(bytes, &mut findings),
        FileFormat::GhHosts => gh_hosts(bytes, &mut findings),
        FileFormat::GitCredentials => git_credentials(bytes, &mut findings),
        FileFormat::Netrc => netrc(bytes, &mut findings),
        FileFormat::Npmrc => npmrc(bytes, &mut findings),
        FileFormat::Dotenv => dotenv(bytes, &mut findings),
        FileFormat::DockerConfig => docker(bytes, &mut findings),
        FileFormat::Text => findings.scan(bytes, None),
    }
    findings.finish()
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes
        .split(|b| *b == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|l| !l.is_empty())
}

fn split_once(line: &[u8], by: u8) -> Option<(&[u8], &[u8])> {
    let at = line.iter().position(|b| *b == by)?;
    Some((
        line.get(..at)?.trim_ascii(),
        line.get(at + 1..)?.trim_ascii(),
    ))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

fn unquoted(value: &[u8]) -> &[u8] {
    let value = value.trim_ascii();
    for quote in [b'"', b'\''] {
        if let Some(inner) = value.strip_prefix(&[quote])
            && let Some(end) = inner.iter().position(|b| *b == quote)
        {
            return inner.get(..end).unwrap_or(inner);
        }
    }
    value
}

/// Sections and `key = value`. In AWS's own files the key names the access key id whatever its
/// form (MinIO and test servers use others); elsewhere only the AWS form counts.
fn ini(bytes: &[u8], aws: bool, findings: &mut Findings) {
    let mut section: Option<String> = None;
    for line in lines(bytes) {
        if let Some(header) = line.strip_prefix(b"[") {
            let end = header
                .iter()
                .position(|b| *b == b']')
                .unwrap_or(header.len());
            section = header
                .get(..end)
                .map(|name| format!("[{}]", text(name.trim_ascii())));
            continue;
        }
        if matches!(line.first(), Some(b'#' | b';')) {
            continue;
        }
        let Some((key, value)) = split_once(line, b'=') else {
            continue;
        };
        let entry = section.as_deref();
        if aws && key.eq_ignore_ascii_case(b"aws_access_key_id") {
            if let Ok(id) = CredentialId::aws_access_key(text(unquoted(value))) {
                findings.push(id, entry);
            }
        } else {
            findings.scan(value, entry.or(Some(text(key))));
        }
    }
}

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

fn aws_json(bytes: &[u8], findings: &mut Findings) {
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
    for id in [nested, cache.access_key_id, login].into_iter().flatten() {
        if let Ok(id) = CredentialId::aws_access_key(id) {
            findings.push(id, None);
        }
    }
}

/// The part of YAML that `gh` writes: host names at column 0, `oauth_token:` below.
fn gh_hosts(bytes: &[u8], findings: &mut Findings) {
    let mut host: Option<&str> = None;
    for line in bytes.split(|b| *b == b'\n') {
        let top = line
            .first()
            .is_some_and(|b| !b.is_ascii_whitespace() && *b != b'#');
        let Some((key, value)) = split_once(line, b':') else {
            continue;
        };
        if top {
            host = Some(text(unquoted(key)));
        }
        if key == b"oauth_token" {
            push_github(unquoted(value), host, findings);
        }
    }
}

fn push_github(value: &[u8], entry: Option<&str>, findings: &mut Findings) {
    match tokens::github_field(value) {
        Some(Token::Credential(id)) => findings.push(id, entry),
        Some(Token::BadChecksum) => {
            findings.bad_checksums = findings.bad_checksums.saturating_add(1)
        }
        None => {}
    }
}

fn is_github(host: &[u8]) -> bool {
    let host = host
        .split(|b| matches!(b, b':' | b'/'))
        .next()
        .unwrap_or_default();
    let host = host.to_ascii_lowercase();
    [
        &b"github.com"[..],
        b"ghcr.io",
        b"npm.pkg.github.com",
        b"githubusercontent.com",
    ]
    .iter()
    .any(|known| {
        host == *known
            || host
                .strip_suffix(*known)
                .is_some_and(|sub| sub.ends_with(b"."))
    })
}

/// `https://user:token@host`.
fn git_credentials(bytes: &[u8], findings: &mut Findings) {
    for line in lines(bytes) {
        let Some(at) = line.windows(3).position(|w| w == b"://") else {
            continue;
        };
        let rest = line.get(at + 3..).unwrap_or_default();
        let Some(split) = rest.iter().rposition(|b| *b == b'@') else {
            continue;
        };
        let (userinfo, host) = rest.split_at(split);
        let host = host.strip_prefix(b"@").unwrap_or(host);
        let (user, password) = split_once(userinfo, b':').unwrap_or((userinfo, b""));
        let entry = Some(text(host));
        if is_github(host) {
            // Either place may hold the token: `https://TOKEN@...`, `https://TOKEN:x-oauth-basic@`.
            push_github(password, entry, findings);
            push_github(user, entry, findings);
        } else {
            findings.scan(userinfo, entry);
        }
    }
}

/// Words in pairs: `machine HOST login USER password SECRET`, over any number of lines.
fn netrc(bytes: &[u8], findings: &mut Findings) {
    let mut words = bytes
        .split(|b| *b == b'\n')
        .map(|line| line.trim_ascii_start())
        .filter(|line| !line.starts_with(b"#"))
        .flat_map(|line| line.split(u8::is_ascii_whitespace))
        .filter(|w| !w.is_empty());
    let mut host: &[u8] = b"";
    while let Some(word) = words.next() {
        match word {
            b"machine" => host = words.next().unwrap_or_default(),
            b"default" => host = b"default",
            b"login" | b"password" | b"account" => {
                let value = words.next().unwrap_or_default();
                if is_github(host) {
                    push_github(value, Some(text(host)), findings);
                } else {
                    findings.scan(value, Some(text(host)));
                }
            }
            _ => {}
        }
    }
}

/// `//registry/:_authToken=VALUE`; GitHub's registry takes GitHub tokens.
fn npmrc(bytes: &[u8], findings: &mut Findings) {
    for line in lines(bytes).filter(|l| !matches!(l.first(), Some(b'#' | b';'))) {
        let Some((key, value)) = split_once(line, b'=') else {
            continue;
        };
        let host = key.strip_prefix(b"//").unwrap_or(key);
        let end = host
            .iter()
            .position(|b| matches!(b, b'/' | b':'))
            .unwrap_or(host.len());
        let host = host.get(..end).unwrap_or(host);
        if is_github(host) && key.ends_with(b":_authToken") {
            push_github(unquoted(value), Some(text(host)), findings);
        } else {
            findings.scan(value, Some(text(host)));
        }
    }
}

/// `NAME=value`, with or without `export`.
fn dotenv(bytes: &[u8], findings: &mut Findings) {
    for line in lines(bytes).filter(|l| !l.starts_with(b"#")) {
        let line = line.strip_prefix(b"export ").unwrap_or(line);
        match split_once(line, b'=') {
            Some((name, value)) => super::env::variable(name, unquoted(value), findings),
            None => findings.scan(line, None),
        }
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
fn docker(bytes: &[u8], findings: &mut Findings) {
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
                push_github(value, Some(host), findings);
            } else {
                findings.scan(value, Some(host));
            }
        }
    }
}

#[cfg(test)]
mod tests;
