//! The package registry: it serves the packages that the lab packed, in the two requests that npm
//! needs (the package's document and its tarball).

use std::path::PathBuf;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha512};

use super::http::Message;
use super::{Peer, Service, report};

/// The registry's configuration.
#[derive(Serialize, Deserialize)]
pub struct Registry {
    /// Its own name, for the tarballs' addresses.
    pub host: String,
    /// What it has.
    pub packages: Vec<Offer>,
}

/// One package, one version.
#[derive(Serialize, Deserialize)]
pub struct Offer {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its manifest: the contents of `package.json`.
    pub manifest: serde_json::Value,
    /// The tarball.
    pub tarball: PathBuf,
}

/// A request that the registry answered.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Fetched {
    /// Who asked.
    pub peer: Peer,
    /// For what.
    pub target: String,
    /// The answer's status.
    pub status: u16,
}

impl Service for Registry {
    fn answer(&self, peer: &Peer, request: &Message) -> Result<Message> {
        let (_, target) = request.request_line();
        let answer = self.find(target)?;
        report(&Fetched {
            peer: peer.clone(),
            target: target.to_owned(),
            status: answer.status(),
        });
        Ok(answer)
    }
}

impl Registry {
    fn find(&self, target: &str) -> Result<Message> {
        let path = target
            .trim_start_matches('/')
            .split('?')
            .next()
            .unwrap_or_default();
        let path = path.replace("%2f", "/").replace("%2F", "/");
        for offer in &self.packages {
            if path == offer.name {
                let document = offer.document(&self.host)?;
                return Ok(Message::response(200, "application/json", document));
            }
            if path == offer.tarball_path() {
                let bytes = std::fs::read(&offer.tarball)
                    .with_context(|| format!("reading {}", offer.tarball.display()))?;
                return Ok(Message::response(200, "application/octet-stream", bytes));
            }
        }
        Ok(Message::response(
            404,
            "application/json",
            "{\"error\":\"not_found\"}",
        ))
    }
}

impl Offer {
    fn tarball_path(&self) -> String {
        format!("{0}/-/{0}-{1}.tgz", self.name, self.version)
    }

    /// The package's document ("packument"): its versions with their manifests and digests.
    fn document(&self, host: &str) -> Result<Vec<u8>> {
        let bytes = std::fs::read(&self.tarball)
            .with_context(|| format!("reading {}", self.tarball.display()))?;
        let mut manifest = self.manifest.clone();
        let integrity = format!("sha512-{}", STANDARD.encode(Sha512::digest(&bytes)));
        if let Some(fields) = manifest.as_object_mut() {
            let tarball = format!("https://{host}/{}", self.tarball_path());
            fields.insert(
                "dist".into(),
                serde_json::json!({"tarball": tarball, "integrity": integrity}),
            );
            fields.insert(
                "_id".into(),
                format!("{}@{}", self.name, self.version).into(),
            );
        }
        let document = serde_json::json!({
            "_id": self.name,
            "name": self.name,
            "dist-tags": {"latest": self.version},
            "versions": {self.version.as_str(): manifest},
        });
        Ok(serde_json::to_vec(&document)?)
    }
}
