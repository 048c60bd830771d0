//! Which credential a file or an environment holds, by identifier only; which files to watch; who
//! is expected to read them.
//!
//! Architecture invariant: nothing here returns, prints or keeps a secret. Buffers with file
//! content are overwritten when dropped, parsers borrow from them, and what comes out is a
//! [`CredentialId`]: an identifier that the provider itself prints, or a keyed hash.

pub mod catalogue;
pub mod env;
pub mod file;
pub mod formats;
pub mod hasher;
mod jwt;
mod keys;
mod kubeconfig;
mod macaroon;
mod named;
pub mod readers;
pub mod sandbox;
mod sqlite;
mod structured;
pub mod tokens;
pub mod watch;

use keytrail_model::credential::CredentialId;

pub use catalogue::{TokenCatalogue, TokensError};
pub use env::FoundInEnv;
pub use file::{ReadError, WatchedContent, open_watched, read_watched};
pub use formats::{FileFormat, Form, Found, Identified};
pub use hasher::{Hasher, HasherError};
pub use readers::{Reader, Readers};
pub use sandbox::{Sandbox, SandboxCounters};
pub use structured::Field;
pub use watch::{WatchCatalogue, WatchTarget};

use tokens::{Known, Token};

/// Most credentials that one file or environment may yield.
pub const MAX_FOUND: usize = 64;
/// Most server names kept of one finding.
const MAX_HOSTS: usize = 8;

/// Everything that recognises a credential: the forms of tokens, and the key for hashing those
/// that have no identifier.
#[derive(Clone, Debug)]
pub struct Recogniser {
    tokens: TokenCatalogue,
    hasher: Hasher,
}

impl Recogniser {
    /// With these forms and this key.
    #[must_use]
    pub fn new(tokens: TokenCatalogue, hasher: Hasher) -> Self {
        Self { tokens, hasher }
    }

    /// The key.
    #[must_use]
    pub fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// The built-in forms and a fixed key.
    #[cfg(test)]
    pub(crate) fn for_tests() -> &'static Self {
        static ONE: std::sync::OnceLock<Recogniser> = std::sync::OnceLock::new();
        ONE.get_or_init(|| {
            let tokens = TokenCatalogue::builtin().unwrap();
            Self::new(
                tokens,
                Hasher::new(b"the key of the tests, thirty-two", true),
            )
        })
    }
}

/// Collects findings without duplicates, up to [`MAX_FOUND`], and counts what it refused.
#[derive(Debug)]
pub(crate) struct Findings<'a> {
    know: &'a Recogniser,
    found: Vec<Found>,
    bad_checksums: u32,
    dropped: u32,
}

impl<'a> Findings<'a> {
    pub(crate) fn new(know: &'a Recogniser) -> Self {
        Self {
            know,
            found: Vec::new(),
            bad_checksums: 0,
            dropped: 0,
        }
    }

    pub(crate) fn push(&mut self, credential: CredentialId, entry: Option<&str>) {
        self.push_for(credential, entry, &[]);
    }

    /// Adds a credential that is for these servers (host names or addresses as configurations
    /// write them).
    pub(crate) fn push_for(
        &mut self,
        credential: CredentialId,
        entry: Option<&str>,
        hosts: &[&str],
    ) {
        let entry = entry.map(label).filter(|entry| !entry.is_empty());
        let hosts = hosts.iter().filter_map(|host| host_of(host));
        let known = self
            .found
            .iter_mut()
            .find(|f| f.credential == credential && f.entry == entry);
        if let Some(found) = known {
            add_hosts(&mut found.destinations, hosts);
            return;
        }
        if self.found.len() >= MAX_FOUND {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        let mut destinations = Vec::new();
        add_hosts(&mut destinations, hosts);
        self.found.push(Found {
            credential,
            entry,
            destinations,
        });
    }

    fn take(&mut self, token: Token, entry: Option<&str>, hosts: &[&str]) {
        match token {
            Token::Credential(Known { ids, hosts: own }) => {
                let all: Vec<&str> = own
                    .iter()
                    .map(String::as_str)
                    .chain(hosts.iter().copied())
                    .collect();
                for id in ids {
                    self.push_for(id, entry, &all);
                }
            }
            Token::BadChecksum => self.bad_checksums = self.bad_checksums.saturating_add(1),
        }
    }

    /// Adds every token of `text` under `entry`.
    pub(crate) fn scan(&mut self, text: &[u8], entry: Option<&str>) {
        self.scan_for(text, entry, &[]);
    }

    /// Adds every token of `text`, all of them for these servers.
    pub(crate) fn scan_for(&mut self, text: &[u8], entry: Option<&str>, hosts: &[&str]) {
        for token in self.know.scan(text) {
            self.take(token, entry, hosts);
        }
    }

    /// Adds the tokens of `text` that were not found before, under whatever entry.
    pub(crate) fn scan_new(&mut self, text: &[u8], entry: Option<&str>) {
        for token in self.know.scan(text) {
            let known = match &token {
                Token::Credential(Known { ids, .. }) => ids
                    .iter()
                    .all(|id| self.found.iter().any(|f| f.credential == *id)),
                Token::BadChecksum => false,
            };
            if !known {
                self.take(token, entry, &[]);
            }
        }
    }

    /// Adds a value that is a secret because of where it stands: by the identifier of its form if
    /// it has one, else as a keyed hash of type `kind`.
    pub(crate) fn secret(&mut self, kind: &str, value: &[u8], entry: Option<&str>, hosts: &[&str]) {
        let value = value.trim_ascii();
        if is_placeholder(value) {
            return;
        }
        match self.know.whole(value) {
            Some(token) => self.take(token, entry, hosts),
            None => {
                if let Some(id) = self.know.hasher.identify(kind, value) {
                    self.push_for(id, entry, hosts);
                }
            }
        }
    }

    /// Adds a GitHub token of any age; what has no form of theirs is hashed with the key.
    pub(crate) fn github(&mut self, value: &[u8], entry: Option<&str>) {
        if let Some(token) = self.know.github_field(value) {
            self.take(token, entry, &[]);
        }
    }

    pub(crate) fn finish(self) -> Identified {
        Identified {
            found: self.found,
            bad_checksums: self.bad_checksums,
            dropped: self.dropped,
        }
    }
}

fn add_hosts(to: &mut Vec<String>, hosts: impl Iterator<Item = String>) {
    for host in hosts {
        if to.len() < MAX_HOSTS && !to.contains(&host) {
            to.push(host);
        }
    }
}

/// The host in `https://user@host:port/path`, `host:port`, `host`; lower case. `None` for what is
/// no host name or address.
pub(crate) fn host_of(text: &str) -> Option<String> {
    let text = text.trim();
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next()?,
        None => host.split(':').next()?,
    };
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let fits = !host.is_empty()
        && host.len() <= 253
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':'));
    fits.then_some(host)
}

/// A value that stands for a secret rather than being one: a variable's name, a form to fill in,
/// something too short to be one.
fn is_placeholder(value: &[u8]) -> bool {
    const WORDS: [&str; 8] = [
        "changeme",
        "password",
        "secret",
        "example",
        "your-",
        "your_",
        "redacted",
        "placeholder",
    ];
    let text = String::from_utf8_lossy(value).to_ascii_lowercase();
    let filled_in = text.starts_with("${")
        || text.starts_with("$(")
        || text.starts_with("{{")
        || text.starts_with('<')
        || text.starts_with("op://")
        || text.starts_with("env:")
        || text.starts_with('!')
        || (text.starts_with('$')
            && text
                .bytes()
                .skip(1)
                .all(|b| b.is_ascii_alphanumeric() || b == b'_'));
    let same = text.bytes().all(|b| Some(b) == text.bytes().next());
    text.len() < 4
        || filled_in
        || same
        || WORDS
            .iter()
            .any(|word| text == *word || (word.ends_with(['-', '_']) && text.starts_with(word)))
}

/// An entry's name for people: one short line, without anything that looks like a secret.
fn label(text: &str) -> String {
    let short: String = text
        .trim()
        .chars()
        .filter(|c| !c.is_control())
        .take(96)
        .collect();
    crate::redact::redact_text(&short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_configurations_write_them() {
        for (text, expected) in [
            (
                "https://Registry.Example.com/v1/",
                Some("registry.example.com"),
            ),
            ("//npm.example.com/path/", Some("npm.example.com")),
            (
                "postgres://app:pw@db.example.com:5432/x",
                Some("db.example.com"),
            ),
            ("host:6443", Some("host")),
            ("https://[fd00::1]:6443", Some("fd00::1")),
            ("not a host", None),
            ("", None),
        ] {
            assert_eq!(host_of(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn placeholders_are_no_secrets() {
        for (text, expected) in [
            ("${NPM_TOKEN}", true),
            ("$TOKEN", true),
            ("<your token>", true),
            ("your-api-key-here", true),
            ("op://vault/item/field", true),
            ("xxxxxxxxxxxx", true),
            ("abc", true),
            ("hunter2!", false),
            ("$ecret!with-dollar", false),
        ] {
            assert_eq!(is_placeholder(text.as_bytes()), expected, "{text}");
        }
    }
}
