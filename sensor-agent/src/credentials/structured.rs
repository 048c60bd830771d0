//! JSON, YAML and TOML files whose secrets the catalogue finds by key path.

use keytrail_model::credential::{CredentialId, CredentialKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroize as _;

use super::Findings;
use super::keys::{self, Naming};
use crate::agents::catalogue::ConfigFormat;
use crate::agents::config;

/// Where in a file something stands, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// Key path with dots; `*` stands for any key or list position, `**` for any number of them.
    /// A key that has dots itself cannot be named.
    pub at: String,
    /// The type of secret.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// The value is no secret but an identifier of this kind (`gcp-service-account-key`).
    #[serde(default)]
    pub id: Option<CredentialKind>,
    /// The scope of that identifier, for kinds that have one.
    #[serde(default)]
    pub scope: Option<String>,
    /// Where the server's name is: `key` (the key that the last `*` stands for), or the key of a
    /// value beside this one.
    #[serde(default)]
    pub host: Option<String>,
    /// Server names that it is for.
    #[serde(default)]
    pub hosts: Vec<String>,
}

/// A parsed file. Its texts are overwritten when it is dropped.
pub(super) struct Document(Value);

impl Document {
    /// `None` when the text is not in this format.
    pub(super) fn parse(format: ConfigFormat, bytes: &[u8]) -> Option<Self> {
        config::parse(format, bytes).ok().map(Self)
    }

    pub(super) fn value(&self) -> &Value {
        &self.0
    }
}

impl Drop for Document {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(list) => list.iter_mut().for_each(wipe),
        Value::Object(map) => map.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The named fields first, then every other text that has the form of a credential. Text that does
/// not parse (half a file can hold a whole key) is scanned as it is.
pub(super) fn identify(
    format: ConfigFormat,
    bytes: &[u8],
    fields: &[Field],
    findings: &mut Findings<'_>,
) {
    let Some(document) = Document::parse(format, bytes) else {
        findings.scan(bytes, None);
        return;
    };
    for field in fields {
        let path: Vec<&str> = field.at.split('.').collect();
        let mut at = At {
            field,
            key: None,
            entry: Vec::new(),
        };
        at.walk(document.value(), None, &path, findings);
    }
    rest(document.value(), &mut Vec::new(), findings);
}

/// Looking for one field.
struct At<'f> {
    field: &'f Field,
    /// The key that the last `*` stood for.
    key: Option<String>,
    /// Keys on the way.
    entry: Vec<String>,
}

impl At<'_> {
    fn walk(
        &mut self,
        value: &Value,
        parent: Option<&Value>,
        path: &[&str],
        findings: &mut Findings<'_>,
    ) {
        let Some((first, rest)) = path.split_first() else {
            self.found(value, parent, findings);
            return;
        };
        if *first == "**" {
            self.walk(value, parent, rest, findings);
            self.each(value, path, findings);
        } else if *first == "*" {
            self.each(value, rest, findings);
        } else if let Some(inner) = value.get(*first) {
            self.entry.push((*first).to_owned());
            self.walk(inner, Some(value), rest, findings);
            self.entry.pop();
        }
    }

    fn each(&mut self, value: &Value, path: &[&str], findings: &mut Findings<'_>) {
        match value {
            Value::Object(map) => {
                for (key, inner) in map {
                    let before = self.key.replace(key.clone());
                    self.entry.push(key.clone());
                    self.walk(inner, Some(value), path, findings);
                    self.entry.pop();
                    self.key = before;
                }
            }
            Value::Array(list) => {
                for inner in list {
                    self.walk(inner, Some(value), path, findings);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn found(&self, value: &Value, parent: Option<&Value>, findings: &mut Findings<'_>) {
        let Some(text) = value.as_str() else { return };
        let entry = self.entry.join(".");
        let beside = match self.field.host.as_deref() {
            None => None,
            Some("key") => self.key.as_deref(),
            Some(key) => parent.and_then(|p| p.get(key)).and_then(Value::as_str),
        };
        let hosts: Vec<&str> = self
            .field
            .hosts
            .iter()
            .map(String::as_str)
            .chain(beside)
            .collect();
        if let Some(kind) = self.field.id {
            let id = match &self.field.scope {
                // Addresses are written in any case; ids are not.
                Some(scope) if text.contains('@') => {
                    CredentialId::scoped(kind, scope, &text.to_lowercase())
                }
                Some(scope) => CredentialId::scoped(kind, scope, text),
                None => CredentialId::new(kind, text),
            };
            if let Ok(id) = id {
                findings.push_for(id, Some(&entry), &hosts);
            }
        } else if text.contains("-----BEGIN ") {
            keys::pem(text.as_bytes(), Naming::Spki, Some(&entry), findings);
        } else {
            let kind = self.field.kind.as_deref().unwrap_or("secret");
            findings.secret(kind, text.as_bytes(), Some(&entry), &hosts);
        }
    }
}

/// Deepest nesting that is followed: [`config::parse`] refuses what is deeper.
const MAX_DEPTH: usize = 100;

fn rest(value: &Value, entry: &mut Vec<String>, findings: &mut Findings<'_>) {
    if entry.len() > MAX_DEPTH {
        return;
    }
    match value {
        Value::String(text) => {
            let name = entry.join(".");
            let known = findings
                .found
                .iter()
                .any(|f| f.entry.as_deref() == Some(name.as_str()));
            // What a field has identified is not identified again by its form.
            if !known {
                findings.scan_new(text.as_bytes(), Some(&name));
            }
        }
        Value::Array(list) => {
            for inner in list {
                rest(inner, entry, findings);
            }
        }
        Value::Object(map) => {
            for (key, inner) in map {
                entry.push(key.clone());
                rest(inner, entry, findings);
                entry.pop();
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Values that MCP servers are given: every `env` and `headers` of the configuration, each under
/// the server's name, for the server's own address if it is a remote one.
pub(super) fn mcp(format: ConfigFormat, bytes: &[u8], findings: &mut Findings<'_>) {
    let Some(document) = Document::parse(format, bytes) else {
        findings.scan(bytes, None);
        return;
    };
    given(document.value(), &mut Vec::new(), findings);
    rest(document.value(), &mut Vec::new(), findings);
}

fn given(value: &Value, entry: &mut Vec<String>, findings: &mut Findings<'_>) {
    const BLOCKS: [&str; 6] = [
        "env",
        "environment",
        "envs",
        "headers",
        "http_headers",
        "requestInit",
    ];
    if entry.len() > MAX_DEPTH {
        return;
    }
    match value {
        Value::Object(map) => {
            let url = ["url", "serverUrl", "httpUrl", "uri"]
                .iter()
                .find_map(|key| map.get(*key)?.as_str());
            for (key, inner) in map {
                entry.push(key.clone());
                match inner.as_object().filter(|_| BLOCKS.contains(&key.as_str())) {
                    Some(block) => given_block(block, entry, url, findings),
                    None => given(inner, entry, findings),
                }
                entry.pop();
            }
        }
        Value::Array(list) => list.iter().for_each(|inner| given(inner, entry, findings)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn given_block(
    block: &serde_json::Map<String, Value>,
    entry: &[String],
    url: Option<&str>,
    findings: &mut Findings<'_>,
) {
    let lookup = |other: &str| block.get(other)?.as_str().map(str::to_owned);
    // `mcpServers.files.env`: the server's name and the variable's are what people look for.
    let server = entry.len().checked_sub(2).and_then(|at| entry.get(at));
    for (name, value) in block {
        let Some(text) = value.as_str() else { continue };
        let before = findings.found.len();
        let known = super::env::variable(name.as_bytes(), text.as_bytes(), findings, &lookup);
        if known || findings.found.len() > before {
            continue;
        }
        let header = name.eq_ignore_ascii_case("authorization")
            || name.to_ascii_lowercase().ends_with("api-key");
        if header || crate::redact::is_secret_name(name) {
            // `Bearer X`: the scheme is no part of the secret.
            let secret = text.rsplit(' ').next().unwrap_or(text);
            let entry = server.map_or_else(|| name.clone(), |server| format!("{server}.{name}"));
            let hosts: Vec<&str> = url.into_iter().collect();
            findings.secret("mcp-secret", secret.as_bytes(), Some(&entry), &hosts);
        }
    }
}
