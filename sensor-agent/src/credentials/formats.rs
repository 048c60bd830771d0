//! What is in a credential file, by its format.
//!
//! The line parsers are lenient: what a format's own tool would refuse is skipped, not an error,
//! because half a file can still hold a whole key.

use std::path::Path;
use std::sync::Arc;

use keytrail_model::credential::CredentialId;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use self::json::{aws_json, docker};
use super::keys::{self, Naming};
use super::structured::{self, Field};
use super::{Findings, Recogniser, env, kubeconfig, named, sqlite};
use crate::agents::catalogue::ConfigFormat;
use crate::paths::glob_matches;

/// How a watched file is written. Names are those of `catalogue/watch.toml`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum FileFormat {
    /// `~/.aws/credentials`, `~/.aws/config`: sections are profiles.
    AwsIni,
    /// `~/.aws/cli/cache/*.json`, `~/.aws/sso/cache/*.json`: `Credentials.AccessKeyId`.
    AwsJson,
    /// `key = value` with or without sections: the row's fields, URLs with a password, known forms.
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
    /// `~/.kube/config`.
    Kubeconfig,
    /// gcloud's databases.
    GcloudSqlite,
    /// JSON (with comments, JSON5): the row's fields, then known forms.
    Json,
    /// YAML, likewise.
    Yaml,
    /// TOML, likewise.
    Toml,
    /// XML: the row's fields are names of elements.
    Xml,
    /// An agent's or MCP host's configuration: `env` and `headers` of its servers. JSON.
    McpJson,
    /// The same in TOML.
    McpToml,
    /// The same in YAML.
    McpYaml,
    /// PEM: keys by the SHA-256 of their public half, certificates by their own.
    Pem,
    /// An SSH key: by OpenSSH's fingerprint.
    SshKey,
    /// `host:port:database:user:password` a line (PostgreSQL's password file).
    Pgpass,
    /// The whole file is one secret, of the type of the row's only field.
    Token,
    /// age's key file: the recipient stands in a comment.
    AgeKeys,
    /// Solana's key file: 64 numbers, of which the last 32 are the address.
    SolanaKey,
    /// A store that is only named, never looked into: `credential-store:<store>/<path>`.
    Store,
    /// Not a credential: a daemon (the row's `store`) acts on what is written here.
    Request,
    /// GnuPG's key file, named after its keygrip.
    GpgKey,
    /// An Ethereum key file, named after its address.
    EthereumKey,
    /// Anything else: known token forms are looked for in the whole text.
    #[default]
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
            "config" if within(".kube") => Self::Kubeconfig,
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

    /// True for files that no secret is in, but that have a daemon act on what is written to them.
    #[must_use]
    pub fn is_request(self) -> bool {
        self == Self::Request
    }

    /// True for configurations of agents and MCP hosts.
    #[must_use]
    pub fn is_config(self) -> bool {
        matches!(self, Self::McpJson | Self::McpToml | Self::McpYaml)
    }

    /// False for files that are known by their name alone: their content is not read.
    #[must_use]
    pub fn reads_content(self) -> bool {
        !matches!(
            self,
            Self::Request | Self::Store | Self::GpgKey | Self::EthereumKey
        )
    }
}

/// How a file is read: its format, and what the catalogue's row says about its inside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Form {
    /// How it is written.
    pub format: FileFormat,
    /// Where its secrets stand.
    #[serde(default)]
    pub fields: Arc<[Field]>,
    /// The store that it is, for [`FileFormat::Store`].
    #[serde(default)]
    pub store: Option<String>,
}

impl From<FileFormat> for Form {
    fn from(format: FileFormat) -> Self {
        Self {
            format,
            ..Self::default()
        }
    }
}

/// One credential in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Which.
    pub credential: CredentialId,
    /// Profile, host or key that names it inside the file.
    pub entry: Option<String>,
    /// Server names that the file says it is for.
    pub destinations: Vec<String>,
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identified {
    /// Its credentials, at most [`super::MAX_FOUND`].
    pub found: Vec<Found>,
    /// Texts in the form of a token with a wrong checksum: not reported.
    pub bad_checksums: u32,
    /// Credentials beyond the limit.
    pub dropped: u32,
}

impl Recogniser {
    /// Finds the credentials in `bytes`, the content of `path`. The secret itself is neither
    /// returned nor kept.
    #[must_use]
    pub fn identify_file(&self, form: &Form, path: &Path, bytes: &[u8]) -> Identified {
        let mut findings = Findings::new(self);
        let found = &mut findings;
        let fields = &*form.fields;
        match form.format {
            FileFormat::AwsIni => ini(bytes, true, fields, found),
            FileFormat::Ini => ini(bytes, false, fields, found),
            FileFormat::AwsJson => aws_json(bytes, fields, found),
            FileFormat::GhHosts => gh_hosts(bytes, found),
            FileFormat::GitCredentials => git_credentials(bytes, found),
            FileFormat::Netrc => netrc(bytes, found),
            FileFormat::Npmrc => npmrc(bytes, found),
            FileFormat::Dotenv => dotenv(bytes, found),
            FileFormat::DockerConfig => docker(bytes, found),
            FileFormat::Kubeconfig => kubeconfig::identify(bytes, found),
            FileFormat::GcloudSqlite => sqlite::gcloud(bytes, found),
            FileFormat::Json => structured::identify(ConfigFormat::Json, bytes, fields, found),
            FileFormat::Yaml => structured::identify(ConfigFormat::Yaml, bytes, fields, found),
            FileFormat::Toml => structured::identify(ConfigFormat::Toml, bytes, fields, found),
            FileFormat::Xml => named::xml(bytes, fields, found),
            FileFormat::McpJson => structured::mcp(ConfigFormat::Json, bytes, found),
            FileFormat::McpToml => structured::mcp(ConfigFormat::Toml, bytes, found),
            FileFormat::McpYaml => structured::mcp(ConfigFormat::Yaml, bytes, found),
            FileFormat::Pem => keys::pem(bytes, Naming::Spki, None, found),
            FileFormat::SshKey => keys::pem(bytes, Naming::Ssh, None, found),
            FileFormat::Pgpass => pgpass(bytes, found),
            FileFormat::Token => token(bytes, fields, found),
            FileFormat::AgeKeys => named::age(bytes, found),
            FileFormat::SolanaKey => named::solana(bytes, found),
            FileFormat::Store => named::store(form.store.as_deref(), path, found),
            FileFormat::GpgKey => named::gpg(path, found),
            FileFormat::EthereumKey => named::ethereum(path, found),
            FileFormat::Request => {}
            FileFormat::Text => found.scan(bytes, None),
        }
        findings.finish()
    }
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

/// One `key = value` of a section.
type Pair<'a> = (&'a str, &'a [u8]);

/// Sections and `key = value`. In AWS's own files the key names the access key id whatever its
/// form (MinIO and test servers use others); elsewhere only the AWS form counts.
fn ini(bytes: &[u8], aws: bool, fields: &[Field], findings: &mut Findings<'_>) {
    let mut name: Option<String> = None;
    let mut pairs: Vec<Pair<'_>> = Vec::new();
    for line in lines(bytes) {
        let header = section_name(line);
        if let Some(header) = header {
            section(name.as_deref(), &pairs, aws, fields, findings);
            pairs.clear();
            name = Some(header.to_owned());
            continue;
        }
        if matches!(line.first(), Some(b'#' | b';')) {
            continue;
        }
        if let Some((key, value)) = split_once(line, b'=') {
            pairs.push((text(key), unquoted(value)));
        }
    }
    section(name.as_deref(), &pairs, aws, fields, findings);
}

/// `[name]`, or the `word "name" {` of HCL.
fn section_name(line: &[u8]) -> Option<&str> {
    if let Some(header) = line.strip_prefix(b"[") {
        let end = header
            .iter()
            .position(|b| *b == b']')
            .unwrap_or(header.len());
        return header.get(..end).map(|name| text(name.trim_ascii()));
    }
    let inner = line.strip_suffix(b"{")?;
    let (_, quoted) = split_once(inner, b'"')?;
    split_once(quoted, b'"').map(|(name, _)| text(name))
}

fn section(
    name: Option<&str>,
    pairs: &[Pair<'_>],
    aws: bool,
    fields: &[Field],
    findings: &mut Findings<'_>,
) {
    let of = |wanted: &str| {
        let found = pairs
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(wanted));
        found
            .map(|(_, value)| text(value))
            .filter(|value| !value.is_empty())
    };
    for (key, value) in pairs {
        let entry = name.map_or_else(|| (*key).to_owned(), |name| format!("[{name}]"));
        let entry = Some(entry.as_str());
        if aws && key.eq_ignore_ascii_case("aws_access_key_id") {
            let id = CredentialId::aws_access_key(text(value));
            id.into_iter().for_each(|id| findings.push(id, entry));
            continue;
        }
        let lower = key.to_ascii_lowercase();
        let Some(field) = fields.iter().find(|f| glob_matches(&f.at, &lower)) else {
            env::url_password(value, entry, findings);
            findings.scan(value, entry);
            continue;
        };
        let beside = match field.host.as_deref() {
            Some("key") => name,
            Some(other) => of(other),
            None => None,
        };
        let hosts: Vec<&str> = field
            .hosts
            .iter()
            .map(String::as_str)
            .chain(beside)
            .collect();
        match (field.id, &field.scope) {
            (Some(kind), Some(scope)) => {
                let id = CredentialId::scoped(kind, scope, text(value));
                id.into_iter()
                    .for_each(|id| findings.push_for(id, entry, &hosts));
            }
            (Some(kind), None) => {
                let id = CredentialId::new(kind, text(value));
                id.into_iter()
                    .for_each(|id| findings.push_for(id, entry, &hosts));
            }
            (None, _) => {
                let kind = field.kind.as_deref().unwrap_or("secret");
                findings.secret(kind, value, entry, &hosts);
            }
        }
    }
}

/// The part of YAML that `gh` writes: host names at column 0, `oauth_token:` below.
fn gh_hosts(bytes: &[u8], findings: &mut Findings<'_>) {
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
            findings.github(unquoted(value), host);
        }
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
fn git_credentials(bytes: &[u8], findings: &mut Findings<'_>) {
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
            findings.github(password, entry);
            findings.github(user, entry);
        } else if password.is_empty() {
            findings.scan_for(userinfo, entry, &[text(host)]);
        } else {
            findings.secret("git-password", password, entry, &[text(host)]);
        }
    }
}

/// Words in pairs: `machine HOST login USER password SECRET`, over any number of lines.
fn netrc(bytes: &[u8], findings: &mut Findings<'_>) {
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
                let entry = Some(text(host));
                if is_github(host) {
                    findings.github(value, entry);
                } else if word == b"password" {
                    findings.secret("netrc-password", value, entry, &[text(host)]);
                } else {
                    findings.scan(value, entry);
                }
            }
            _ => {}
        }
    }
}

/// `//registry/:_authToken=VALUE`; GitHub's registry takes GitHub tokens.
fn npmrc(bytes: &[u8], findings: &mut Findings<'_>) {
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
        let (entry, value) = (Some(text(host)), unquoted(value));
        let own = key.starts_with(b"//");
        if is_github(host) && key.ends_with(b":_authToken") {
            findings.github(value, entry);
        } else if own && key.ends_with(b":_authToken") {
            findings.secret("npm-token", value, entry, &[text(host)]);
        } else if own && (key.ends_with(b":_auth") || key.ends_with(b":_password")) {
            findings.secret("npm-password", value, entry, &[text(host)]);
        } else if matches!(key, b"_authToken" | b"_auth" | b"_password") {
            findings.secret("npm-token", value, None, &[registry(bytes)]);
        } else {
            findings.scan(value, entry);
        }
    }
}

/// The registry that the file sets for everything, or nothing.
fn registry(bytes: &[u8]) -> &str {
    let pairs = lines(bytes).filter_map(|line| split_once(line, b'='));
    let found = pairs.into_iter().find(|(key, _)| *key == b"registry");
    found
        .map(|(_, value)| text(unquoted(value)))
        .unwrap_or_default()
}

/// `NAME=value`, with or without `export`.
///
/// Beside the variables and forms that are known, a value under a secret's name (`DB_PASSWORD`)
/// counts; the servers that the same file names are what it is for.
fn dotenv(bytes: &[u8], findings: &mut Findings<'_>) {
    let pairs: Vec<Pair<'_>> = lines(bytes)
        .filter(|line| !line.starts_with(b"#"))
        .filter_map(|line| split_once(line.strip_prefix(b"export ").unwrap_or(line), b'='))
        .map(|(name, value)| (text(name), unquoted(value)))
        .collect();
    let lookup = |other: &str| {
        let found = pairs.iter().find(|(name, _)| *name == other);
        found.map(|(_, value)| text(value).to_owned())
    };
    let servers: Vec<&str> = pairs
        .iter()
        .filter(|(name, value)| {
            text(value).contains("://") || name.ends_with("_HOST") || name.ends_with("_ENDPOINT")
        })
        .map(|(_, value)| text(value))
        .collect();
    for (name, value) in &pairs {
        let before = findings.found.len();
        let known = env::variable(name.as_bytes(), value, findings, &lookup);
        let nothing = !known && findings.found.len() == before;
        // The access key id that stands beside these says which they are.
        let of_aws = name.starts_with("AWS_");
        if nothing && !of_aws && crate::redact::is_secret_name(name) {
            findings.secret("secret", value, Some(name), &servers);
        }
    }
    // Lines that are no assignment, and values that go on over several lines (keys).
    keys::pem(bytes, Naming::Spki, None, findings);
    for line in lines(bytes).filter(|line| !line.contains(&b'=') && !line.starts_with(b"#")) {
        findings.scan(line, None);
    }
}

/// `hostname:port:database:username:password`; a backslash escapes a colon (libpq, password file).
fn pgpass(bytes: &[u8], findings: &mut Findings<'_>) {
    for line in lines(bytes).filter(|line| !line.starts_with(b"#")) {
        let mut fields = vec![Zeroizing::new(Vec::new())];
        let mut rest = line.iter();
        while let Some(byte) = rest.next() {
            match byte {
                b':' if fields.len() < 5 => fields.push(Zeroizing::new(Vec::new())),
                b'\\' => fields
                    .last_mut()
                    .into_iter()
                    .for_each(|f| f.extend(rest.next())),
                _ => fields.last_mut().into_iter().for_each(|f| f.push(*byte)),
            }
        }
        let [host, _, database, user, password] = fields.as_slice() else {
            continue;
        };
        let entry = format!("{}@{}/{}", text(user), text(host), text(database));
        findings.secret("database-password", password, Some(&entry), &[text(host)]);
    }
}

/// A file that is one secret.
fn token(bytes: &[u8], fields: &[Field], findings: &mut Findings<'_>) {
    let field = fields.first();
    let kind = field.and_then(|f| f.kind.as_deref()).unwrap_or("secret");
    let hosts: Vec<&str> = field
        .into_iter()
        .flat_map(|f| &f.hosts)
        .map(String::as_str)
        .collect();
    let value = bytes.trim_ascii();
    // More than a line is something else.
    if value.contains(&b'\n') || value.len() > 16 * 1024 {
        findings.scan_for(value, None, &hosts);
    } else {
        findings.secret(kind, value, None, &hosts);
    }
}

mod json;

#[cfg(test)]
mod tests;
