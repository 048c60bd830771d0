//! What it means to reach a socket: a daemon that acts for others, or a store of credentials.

use std::net::SocketAddr;

use keytrail_model::credential::{CredentialId, CredentialKind};
use serde::Deserialize;
use thiserror::Error;

use crate::paths::glob_matches;

const BUILTIN: &str = include_str!("../catalogue/sockets.toml");
/// Where installed programs live. A program elsewhere can have any name.
const INSTALLED: [&str; 7] = [
    "/usr/",
    "/bin/",
    "/sbin/",
    "/lib/",
    "/opt/",
    "/snap/",
    "/nix/store/",
];

/// A table of sockets that cannot be used.
#[derive(Debug, Error)]
pub enum SocketsError {
    /// Not TOML, or not of this shape.
    #[error("{origin}: {source}")]
    Toml {
        /// Which file.
        origin: String,
        /// What is wrong and where.
        source: Box<toml::de::Error>,
    },
    /// A store's name is not fit for an identifier.
    #[error("{origin}: store `{name}`: use lower-case letters, digits, `-`, `.` and `_`")]
    Name {
        /// Which file.
        origin: String,
        /// The name.
        name: String,
    },
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    daemon: Vec<Daemon>,
    #[serde(default)]
    store: Vec<Store>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Daemon {
    name: String,
    paths: Vec<String>,
    #[serde(rename = "source")]
    _source: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Store {
    name: String,
    #[serde(default)]
    paths: Vec<String>,
    #[serde(default)]
    addresses: Vec<SocketAddr>,
    #[serde(default)]
    readers: Vec<String>,
    #[serde(rename = "source")]
    _source: String,
}

/// The known sockets.
#[derive(Clone, Debug)]
pub struct Sockets(Table);

/// What a socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// A daemon that acts on request, of this kind.
    Daemon(String),
    /// A store of credentials.
    Store {
        /// The store, as a credential of its own: which of its secrets was used is not seen.
        credential: CredentialId,
        /// This program is not one that is expected to use it.
        unexpected: bool,
    },
}

impl Sockets {
    /// What comes with the sensor.
    ///
    /// # Errors
    /// Never in a released build (a test reads the same text).
    pub fn builtin() -> Result<Self, SocketsError> {
        Self::parse("sockets.toml", BUILTIN)
    }

    /// Nothing is known.
    #[must_use]
    pub fn none() -> Self {
        Self(Table::default())
    }

    /// Reads a table.
    ///
    /// # Errors
    /// [`SocketsError`] says what is wrong with it.
    pub fn parse(origin: &str, text: &str) -> Result<Self, SocketsError> {
        let table: Table = toml::from_str(text).map_err(|source| SocketsError::Toml {
            origin: origin.to_owned(),
            source: Box::new(source),
        })?;
        if let Some(bad) = table
            .store
            .iter()
            .find(|s| credential(&s.name, "x").is_none())
        {
            return Err(SocketsError::Name {
                origin: origin.to_owned(),
                name: bad.name.clone(),
            });
        }
        Ok(Self(table))
    }

    /// What the unix socket at `path` is, reached by the program `exe`. An abstract name begins
    /// with `@`. A store comes before a daemon where both fit.
    #[must_use]
    pub fn unix(&self, path: &str, exe: &str) -> Option<Meaning> {
        let fits = |globs: &[String]| globs.iter().any(|glob| glob_matches(glob, path));
        let store = self.0.store.iter().find(|store| fits(&store.paths));
        if let Some(store) = store {
            return store.meaning(path, exe);
        }
        let daemon = self.0.daemon.iter().find(|daemon| fits(&daemon.paths))?;
        Some(Meaning::Daemon(daemon.name.clone()))
    }

    /// What the service at an address is, if it hands credentials out.
    #[must_use]
    pub fn address(&self, remote: SocketAddr, exe: &str) -> Option<Meaning> {
        let store = self
            .0
            .store
            .iter()
            .find(|s| s.addresses.contains(&remote))?;
        store.meaning(&remote.ip().to_string(), exe)
    }
}

impl Store {
    fn meaning(&self, place: &str, exe: &str) -> Option<Meaning> {
        let base = exe.rsplit('/').next().unwrap_or(exe);
        let installed = INSTALLED.iter().any(|dir| exe.starts_with(dir));
        Some(Meaning::Store {
            credential: credential(&self.name, place)?,
            unexpected: !(installed && self.readers.iter().any(|reader| reader == base)),
        })
    }
}

fn credential(store: &str, place: &str) -> Option<CredentialId> {
    CredentialId::scoped(CredentialKind::CredentialStore, store, place).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_and_what_they_mean() {
        let sockets = Sockets::builtin().unwrap();
        let shown = |meaning: Option<Meaning>| match meaning {
            None => "-".to_owned(),
            Some(Meaning::Daemon(name)) => name,
            Some(Meaning::Store {
                credential,
                unexpected,
            }) => format!("{credential}{}", if unexpected { " !" } else { "" }),
        };
        for (path, exe, want) in [
            ("/run/docker.sock", "/usr/bin/node", "docker"),
            ("/run/user/1000/docker.sock", "/usr/bin/node", "docker"),
            ("/run/user/1000/bus", "/usr/bin/node", "dbus"),
            ("@/tmp/dbus-x1", "/usr/bin/node", "dbus"),
            ("/run/systemd/private", "/usr/bin/systemctl", "systemd"),
            (
                "/tmp/ssh-XXAbc/agent.123",
                "/usr/bin/ssh",
                "credential-store:ssh-agent//tmp/ssh-XXAbc/agent.123",
            ),
            (
                "/tmp/ssh-XXAbc/agent.123",
                "/tmp/ssh",
                "credential-store:ssh-agent//tmp/ssh-XXAbc/agent.123 !",
            ),
            (
                "/home/ann/.gnupg/S.gpg-agent",
                "/usr/bin/node",
                "credential-store:gpg-agent//home/ann/.gnupg/S.gpg-agent !",
            ),
            (
                "/run/user/1000/keyring/ssh",
                "/usr/bin/git",
                "credential-store:ssh-agent//run/user/1000/keyring/ssh",
            ),
            ("/tmp/mine.sock", "/usr/bin/node", "-"),
        ] {
            assert_eq!(shown(sockets.unix(path, exe)), want, "{path} {exe}");
        }
        for (remote, want) in [
            (
                "169.254.169.254:80",
                "credential-store:instance-metadata/169.254.169.254 !",
            ),
            (
                "[fd00:ec2::23]:80",
                "credential-store:aws-eks-pod-identity/fd00:ec2::23 !",
            ),
            ("169.254.169.254:443", "-"),
            ("192.0.2.1:80", "-"),
        ] {
            let meaning = sockets.address(remote.parse().unwrap(), "/usr/bin/node");
            assert_eq!(shown(meaning), want, "{remote}");
        }
    }

    #[test]
    fn a_bad_table_is_refused_with_its_place() {
        let bad = "[[store]]\nname = \"Big Name\"\nsource = \"x\"\n";
        let error = Sockets::parse("mine.toml", bad).unwrap_err().to_string();
        assert!(
            error.contains("mine.toml") && error.contains("Big Name"),
            "{error}"
        );
        let error = Sockets::parse("mine.toml", "[[daemon]]\nnam = 1").unwrap_err();
        assert!(error.to_string().contains("mine.toml"), "{error}");
    }
}
