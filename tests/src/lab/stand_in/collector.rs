//! The thief's collector. To prove the theft without writing a secret anywhere, it is told what it
//! should receive, compares in memory, and reports only what matched and how much came.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::http::Message;
use super::{Peer, Service, report};

/// The collector's configuration.
#[derive(Serialize, Deserialize)]
pub struct Collector {
    /// Name and value of each secret that it looks for.
    pub secrets: Vec<(String, String)>,
}

/// What one POST brought.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Loot {
    /// Who sent it, as the collector saw it.
    pub peer: Peer,
    /// The `Host` header.
    pub host: String,
    /// The body's size in bytes.
    pub bytes: usize,
    /// The names of the secrets that were in it.
    pub found: Vec<String>,
}

impl Service for Collector {
    fn answer(&self, peer: &Peer, request: &Message) -> Result<Message> {
        let body = String::from_utf8_lossy(&request.body);
        let found = self
            .secrets
            .iter()
            .filter(|(_, value)| body.contains(value.as_str()));
        report(&Loot {
            peer: peer.clone(),
            host: request.header("host").unwrap_or_default().to_owned(),
            bytes: request.body.len(),
            found: found.map(|(name, _)| name.clone()).collect(),
        });
        Ok(Message::response(204, "text/plain", Vec::new()))
    }
}
