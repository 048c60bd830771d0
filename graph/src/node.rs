//! Nodes: what the graph is about.

use std::fmt;
use std::str::FromStr;

use keytrail_model::credential::CredentialId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest name, bytes. A longer one is cut, and told apart by a hash of the whole.
const MAX_NAME: usize = 512;

/// What kind of thing a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum NodeKind {
    /// An account on a device: `<host>/<name or uid>`.
    Account,
    /// An enrolled endpoint: its host name in the certificate.
    Device,
    /// One session of an agent: `<host>/<product>/<boot>/<root process>`.
    AgentSession,
    /// An MCP server on a device: `<host>/<name in the configuration, or package>`.
    McpServer,
    /// A published package: `<ecosystem>/<name>@<version>`.
    Package,
    /// Another program on a device: `<host>/<executable>`.
    Program,
    /// Where a credential is kept on a device: `<host>/<path, variable or socket>`.
    Location,
    /// A credential; its text is the credential's own id.
    Credential,
    /// Whom a provider takes the caller for: an ARN, a service account, a login.
    Identity,
    /// A provider's service, in its own words.
    Service,
    /// A provider's resource, in its own words.
    Resource,
    /// A workload that presented a credential: `<provider>/<name>`.
    Workload,
    /// A network address that a credential was presented from.
    Address,
}

impl NodeKind {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::Account,
        Self::Device,
        Self::AgentSession,
        Self::McpServer,
        Self::Package,
        Self::Program,
        Self::Location,
        Self::Credential,
        Self::Identity,
        Self::Service,
        Self::Resource,
        Self::Workload,
        Self::Address,
    ];

    /// The kind's name in ids and in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Device => "device",
            Self::AgentSession => "agent-session",
            Self::McpServer => "mcp-server",
            Self::Package => "package",
            Self::Program => "program",
            Self::Location => "location",
            Self::Credential => "credential",
            Self::Identity => "identity",
            Self::Service => "service",
            Self::Resource => "resource",
            Self::Workload => "workload",
            Self::Address => "address",
        }
    }
}

impl fmt::Display for NodeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A node's identity. Text form: `<kind>:<name>`; a credential's is its [`CredentialId`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    kind: NodeKind,
    name: Box<str>,
}

/// Why a text names no node.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "not a node: expected a credential (aws-access-key:AKIA...) or <kind>:<name> with kind one of \
     account, device, agent-session, mcp-server, package, program, location, identity, service, \
     resource, workload, address"
)]
pub struct NodeIdError;

impl NodeId {
    /// A node that is no credential. Over-long names are cut and marked with a hash.
    #[must_use]
    pub fn new(kind: NodeKind, name: &str) -> Self {
        Self {
            kind,
            name: bounded(name),
        }
    }

    /// A credential.
    #[must_use]
    pub fn credential(id: &CredentialId) -> Self {
        Self {
            kind: NodeKind::Credential,
            name: id.to_string().into(),
        }
    }

    /// What kind of node.
    #[must_use]
    pub fn kind(&self) -> NodeKind {
        self.kind
    }

    /// Its name within the kind; untrusted text.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The credential that it is.
    #[must_use]
    pub fn as_credential(&self) -> Option<CredentialId> {
        if self.kind == NodeKind::Credential {
            self.name.parse().ok()
        } else {
            None
        }
    }

    /// The host that an endpoint's node belongs to.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match self.kind {
            NodeKind::Device => Some(&self.name),
            NodeKind::Account
            | NodeKind::AgentSession
            | NodeKind::McpServer
            | NodeKind::Program
            | NodeKind::Location => self.name.split_once('/').map(|(host, _)| host),
            NodeKind::Package
            | NodeKind::Credential
            | NodeKind::Identity
            | NodeKind::Service
            | NodeKind::Resource
            | NodeKind::Workload
            | NodeKind::Address => None,
        }
    }
}

fn bounded(name: &str) -> Box<str> {
    if name.len() <= MAX_NAME {
        return name.into();
    }
    let mut end = MAX_NAME - 17;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let kept = name.get(..end).unwrap_or_default();
    format!("{kept}#{:016x}", fnv1a(name.as_bytes())).into()
}

/// FNV-1a, 64 bits: stable over versions, unlike the standard library's hasher.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == NodeKind::Credential {
            return f.write_str(&self.name);
        }
        write!(f, "{}:{}", self.kind, self.name)
    }
}

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        if let Ok(credential) = text.parse::<CredentialId>() {
            return Ok(Self::credential(&credential));
        }
        let (kind, name) = text.split_once(':').ok_or(NodeIdError)?;
        let kind = NodeKind::ALL
            .into_iter()
            .find(|k| k.as_str() == kind && *k != NodeKind::Credential)
            .ok_or(NodeIdError)?;
        if name.is_empty() {
            return Err(NodeIdError);
        }
        Ok(Self::new(kind, name))
    }
}

impl Serialize for NodeId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for NodeId {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        String::schema()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for NodeId {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_the_rest_is_refused() {
        for (text, kind) in [
            ("aws-access-key:AKIAIOSFODNN7EXAMPLE", NodeKind::Credential),
            ("principal:github/ana", NodeKind::Credential),
            ("session:aws/x", NodeKind::Credential),
            ("device:laptop-7", NodeKind::Device),
            ("resource:arn:aws:s3:::customers", NodeKind::Resource),
            (
                "agent-session:laptop/codex-cli/b/1@2",
                NodeKind::AgentSession,
            ),
        ] {
            let node: NodeId = text.parse().unwrap();
            assert_eq!((node.kind(), node.to_string().as_str()), (kind, text));
        }
        for bad in ["", "device", "device:", "credential:x", "nonsense:x"] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn long_names_are_cut_and_stay_different() {
        let long = "ä".repeat(600);
        let (a, b) = (format!("{long}a"), format!("{long}b"));
        let (a, b) = (
            NodeId::new(NodeKind::Resource, &a),
            NodeId::new(NodeKind::Resource, &b),
        );
        assert!(a != b && a.name().len() <= MAX_NAME);
        assert_eq!(a.to_string().parse::<NodeId>().unwrap(), a);
    }
}
