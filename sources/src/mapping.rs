//! Mapping files: how any JSON log becomes uses, without a line of Rust.
//!
//! A mapping is TOML. Paths are dotted (`context.ip_address`), with numbers for places in a list
//! (`events.0.name`), `*` for the first member that has the rest, and several may be given: the
//! first that holds something counts. `sources/mappings/` has examples, `README.md` there every key.

mod read;
mod shipped;

use std::collections::BTreeSet;

use keytrail_model::consumption::ActionClass;
use keytrail_model::credential::CredentialKind;
use serde::Deserialize;
use thiserror::Error;

use crate::framing::Framing;

/// Entries of one list in a mapping.
const MAX_ENTRIES: usize = 256;

/// Why a mapping is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MappingError {
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("not a mapping: {0}")]
    Syntax(String),
    /// A value that cannot be.
    #[error("{key}: {why}")]
    Value {
        /// Which key.
        key: String,
        /// What is wrong, and what would be right.
        why: String,
    },
}

/// A mapping, read and checked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// Prefix of record ids: `vendor.log`.
    source: String,
    /// What people call it.
    title: String,
    /// Where the field names come from.
    documentation: String,
    /// Names of the member that holds the records, where they are wrapped.
    #[serde(default)]
    wrappers: Vec<String>,
    /// The record is taken when one of these holds (or none is given).
    #[serde(default)]
    keep: Vec<Condition>,
    /// Left out when one of these holds.
    #[serde(default)]
    skip: Vec<Condition>,
    /// No use when one of these holds: a refused sign-in.
    #[serde(default)]
    unauthenticated: Vec<Condition>,
    /// The event's own id.
    #[serde(default)]
    id: Vec<String>,
    /// When.
    time: Vec<String>,
    /// How the time is written (`strptime`), where it is none of the usual forms.
    time_format: Option<String>,
    /// The credential, then what it descends from: the first that the record holds is the one used.
    credential: Vec<Credential>,
    /// Doing what.
    action: Vec<String>,
    #[serde(default)]
    address: Vec<String>,
    #[serde(default)]
    user_agent: Vec<String>,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    principal: Vec<String>,
    #[serde(default)]
    account: Vec<String>,
    #[serde(default)]
    region: Vec<String>,
    service: Service,
    #[serde(default)]
    outcome: Outcome,
    /// What kind of act, by the action's name; the first that fits.
    #[serde(default)]
    class: Vec<Class>,
    /// A credential that the event made.
    minted: Option<Event>,
    /// A credential that the event ended.
    revoked: Option<Event>,
}

/// Which credential.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Credential {
    kind: CredentialKind,
    /// The scope of a kind that has one (`principal`, `session`, `keyed-hash`, ...).
    scope: Option<String>,
    path: Vec<String>,
    /// Text to be taken off the front.
    #[serde(default)]
    strip: String,
}

/// What must hold of a record.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    path: String,
    /// Patterns, of which one must fit the value; `*` at either end stands for anything.
    #[serde(default)]
    matches: Vec<String>,
    /// Whether there must be a value at all.
    present: Option<bool>,
}

/// Against which service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    name: String,
    /// Server names under which it is reached, as suffixes; empty where every organisation has its
    /// own, which the source's settings name.
    #[serde(default)]
    endpoints: Vec<String>,
    /// Members that hold the server's name or address.
    #[serde(default)]
    host: Vec<String>,
}

/// With what result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Outcome {
    /// Members that say it.
    #[serde(default)]
    path: Vec<String>,
    /// Patterns of failure.
    #[serde(default)]
    failure: Vec<String>,
    /// Members that hold an HTTP status.
    #[serde(default)]
    status: Vec<String>,
}

/// Actions of one class.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Class {
    class: ActionClass,
    action: Vec<String>,
}

/// A credential that some actions make or end.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Event {
    action: Vec<String>,
    kind: CredentialKind,
    scope: Option<String>,
    path: Vec<String>,
}

impl Mapping {
    /// Reads and checks a mapping.
    ///
    /// # Errors
    /// What is wrong, at which key.
    pub fn from_toml(text: &str) -> Result<Self, MappingError> {
        let mapping: Self =
            toml::from_str(text).map_err(|error| MappingError::Syntax(error.to_string()))?;
        mapping.check()?;
        Ok(mapping)
    }

    /// A mapping that comes with Keytrail, by its `source`.
    #[must_use]
    pub fn shipped(source: &str) -> Option<Self> {
        let file = shipped::FILES.iter().find(|(name, _)| *name == source)?;
        Self::from_toml(file.1).ok()
    }

    /// The `source` of every mapping that comes with Keytrail, in order.
    pub fn shipped_names() -> impl Iterator<Item = &'static str> {
        shipped::FILES.iter().map(|(name, _)| *name)
    }

    /// The prefix of its record ids.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What people call the source.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Where its field names come from.
    #[must_use]
    pub fn documentation(&self) -> &str {
        &self.documentation
    }

    /// How its files are cut.
    #[must_use]
    pub fn framing(&self) -> Framing {
        Framing::wrapped_in(self.wrappers.iter().cloned())
    }

    fn check(&self) -> Result<(), MappingError> {
        let name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-');
        if self.source.is_empty() || self.source.len() > 64 || !self.source.bytes().all(name) {
            return fault(
                "source",
                "use lower-case letters, digits, `.` and `-`, as in `slack.audit`",
            );
        }
        if self.title.trim().is_empty() {
            return fault("title", "say what people call this log");
        }
        for (key, paths) in [("time", &self.time), ("action", &self.action)] {
            if paths.is_empty() {
                return fault(key, "name at least one");
            }
        }
        self.check_paths()?;
        if self.credential.is_empty() {
            return fault(
                "credential",
                "say by `[[credential]]` which member names the credential or account",
            );
        }
        for (at, credential) in self.credential.iter().enumerate() {
            let key = format!("credential[{at}]");
            check_kind(&key, credential.kind, credential.scope.as_deref())?;
            if credential.path.is_empty() {
                return fault(&format!("{key}.path"), "name at least one");
            }
        }
        for (key, event) in [("minted", &self.minted), ("revoked", &self.revoked)] {
            if let Some(event) = event {
                check_kind(key, event.kind, event.scope.as_deref())?;
            }
        }
        let conditions = [
            ("keep", &self.keep),
            ("skip", &self.skip),
            ("unauthenticated", &self.unauthenticated),
        ];
        for (key, list) in conditions {
            for (at, condition) in list.iter().enumerate() {
                if condition.matches.is_empty() == condition.present.is_none() {
                    return fault(
                        &format!("{key}[{at}]"),
                        "give either `matches` or `present`",
                    );
                }
            }
        }
        self.check_outcome()
    }

    fn check_outcome(&self) -> Result<(), MappingError> {
        if self.outcome.path.is_empty() != self.outcome.failure.is_empty() {
            return fault(
                "outcome",
                "`path` needs `failure`, the values that mean failure, and the other way round",
            );
        }
        let mut seen = BTreeSet::new();
        for class in &self.class {
            for pattern in &class.action {
                if !seen.insert(pattern.to_ascii_lowercase()) {
                    return fault("class", &format!("`{pattern}` is given twice"));
                }
            }
        }
        Ok(())
    }

    /// Every path, and every list's length.
    fn check_paths(&self) -> Result<(), MappingError> {
        let lists = [
            ("wrappers", &self.wrappers),
            ("id", &self.id),
            ("time", &self.time),
            ("action", &self.action),
            ("address", &self.address),
            ("user_agent", &self.user_agent),
            ("resources", &self.resources),
            ("principal", &self.principal),
            ("account", &self.account),
            ("region", &self.region),
            ("service.host", &self.service.host),
            ("outcome.path", &self.outcome.path),
            ("outcome.status", &self.outcome.status),
        ];
        for (key, paths) in lists {
            if paths.len() > MAX_ENTRIES {
                return fault(key, "at most 256");
            }
            for path in paths {
                let parts = path.split('.');
                if path.len() > 256 || parts.into_iter().any(|part| part.trim().is_empty()) {
                    return fault(
                        key,
                        &format!("`{path}` is no dotted path, such as `actor.email`"),
                    );
                }
            }
        }
        Ok(())
    }
}

fn fault<T>(key: &str, why: &str) -> Result<T, MappingError> {
    Err(MappingError::Value {
        key: key.to_owned(),
        why: why.to_owned(),
    })
}

/// A kind that is scoped needs a scope, any other must have none.
fn check_kind(key: &str, kind: CredentialKind, scope: Option<&str>) -> Result<(), MappingError> {
    use keytrail_model::credential::CredentialId;
    let scoped = matches!(
        kind,
        CredentialKind::Jwt
            | CredentialKind::Session
            | CredentialKind::Principal
            | CredentialKind::PublicKey
            | CredentialKind::CredentialStore
            | CredentialKind::KeyedHash
    );
    let key = format!("{key}.scope");
    match scope {
        None if scoped => fault(
            &key,
            &format!("a {kind} needs one: the provider's name, as in `slack`"),
        ),
        Some(_) if !scoped => fault(&key, &format!("a {kind} has none; leave it out")),
        Some(scope) if CredentialId::scoped(kind, scope, "x").is_err() => {
            fault(&key, "use lower-case letters, digits, `-`, `.` and `_`")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
