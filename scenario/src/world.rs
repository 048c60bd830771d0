//! Who and what a story is about: hosts, processes, connections, credentials.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use jiff::{SignedDuration, Timestamp};
use keytrail_model::credential::{CredentialId, CredentialKind};
use keytrail_model::ids::{BootId, ConnectionId, HostId, ProcessKey};
use keytrail_model::process::{
    Actor, AgentIdentity, Confidence, McpServer, ProcessSummary, UnitKind, User,
};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::error::{Fault, known};
use crate::file::HostSpec;

/// Most ancestors told with an actor, as the sensor does.
const MAX_LINEAGE: usize = 16;

/// A process of the story.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) summary: ProcessSummary,
    pub(crate) parent: Option<String>,
    pub(crate) unit: ProcessKey,
    pub(crate) unit_kind: UnitKind,
    pub(crate) agent: Option<AgentIdentity>,
    pub(crate) mcp_server: Option<McpServer>,
    pub(crate) user: User,
}

impl Process {
    /// File name of its executable.
    pub(crate) fn exe_name(&self) -> String {
        let exe = &self.summary.exe;
        exe.rsplit('/').next().unwrap_or(exe).to_owned()
    }
}

/// A host of the story.
#[derive(Debug)]
pub(crate) struct HostWorld {
    pub(crate) id: HostId,
    pub(crate) boot: BootId,
    pub(crate) spec: HostSpec,
    /// Its clock minus the true time.
    pub(crate) offset: SignedDuration,
    pub(crate) seq: u64,
    pub(crate) processes: BTreeMap<String, Process>,
    pub(crate) connections: BTreeMap<String, ConnectionId>,
    next: u32,
}

impl HostWorld {
    pub(crate) fn new(id: HostId, spec: HostSpec, offset: SignedDuration) -> Self {
        let boot = BootId(Uuid::new_v5(&Uuid::NAMESPACE_OID, id.0.as_bytes()));
        Self {
            id,
            boot,
            spec,
            offset,
            seq: 0,
            processes: BTreeMap::new(),
            connections: BTreeMap::new(),
            next: 0,
        }
    }

    /// The machine starts again, or another takes its name: nothing that ran does any more, and
    /// events are counted from the start.
    pub(crate) fn boot_anew(&mut self) {
        self.boot = BootId(Uuid::new_v5(&self.boot.0, b"next"));
        self.seq = 0;
        self.processes.clear();
        self.connections.clear();
    }

    pub(crate) fn process(&self, name: &str) -> Result<&Process, Fault> {
        self.processes.get(name).ok_or_else(|| Fault::Unknown {
            kind: "process of this host",
            name: name.to_owned(),
            known: known(self.processes.keys()),
        })
    }

    pub(crate) fn connection(&self, name: &str) -> Result<ConnectionId, Fault> {
        self.connections
            .get(name)
            .copied()
            .ok_or_else(|| Fault::Unknown {
                kind: "connection of this host",
                name: name.to_owned(),
                known: known(self.connections.keys()),
            })
    }

    /// A number that no process or connection of this host has.
    pub(crate) fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// The host's own address.
    pub(crate) fn address(&self) -> IpAddr {
        self.spec
            .address
            .unwrap_or(IpAddr::V4(Ipv4Addr::new(192, 168, 1, 23)))
    }

    /// The account that the host's processes run as, where a line does not say otherwise.
    pub(crate) fn user(&self) -> User {
        User {
            uid: self.spec.uid.unwrap_or(1000),
            name: self.spec.user.clone(),
            login_uid: self.spec.login_uid,
            ..User::default()
        }
    }

    /// Who a process is, with its ancestors up to the agent.
    pub(crate) fn actor(&self, name: &str) -> Result<Actor, Fault> {
        let process = self.process(name)?;
        let mut lineage = Vec::new();
        let mut next = Some(process);
        while let Some(ancestor) = next {
            lineage.push(ancestor.summary.clone());
            let root = ancestor.agent.as_ref().map(|agent| agent.root);
            if root == Some(ancestor.summary.key) || lineage.len() == MAX_LINEAGE {
                break;
            }
            let parent = ancestor.parent.as_ref();
            next = parent.and_then(|parent| self.processes.get(parent));
        }
        Ok(Actor {
            unit: process.unit,
            unit_kind: process.unit_kind,
            agent: process.agent.clone(),
            mcp_server: process.mcp_server.clone(),
            user: Some(process.user.clone()),
            lineage,
        })
    }
}

/// Everything that the lines of a story can name.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) start: Timestamp,
    pub(crate) hosts: BTreeMap<String, HostWorld>,
    pub(crate) credentials: BTreeMap<String, CredentialId>,
    /// Marks the copy of another tenant; empty for the story itself.
    pub(crate) tenant: String,
}

impl World {
    pub(crate) fn host(&mut self, name: &str) -> Result<&mut HostWorld, Fault> {
        let names = known(self.hosts.keys());
        self.hosts.get_mut(name).ok_or_else(|| Fault::Unknown {
            kind: "host",
            name: name.to_owned(),
            known: format!("{names}, and `cloud` and `clock`"),
        })
    }

    pub(crate) fn credential(&self, name: &str) -> Result<&CredentialId, Fault> {
        self.credentials.get(name).ok_or_else(|| Fault::Unknown {
            kind: "credential",
            name: name.to_owned(),
            known: known(self.credentials.keys()),
        })
    }
}

/// The identity that an agent's product id stands for.
pub(crate) fn agent(
    product: &str,
    name: Option<String>,
    version: Option<String>,
    root: ProcessKey,
) -> AgentIdentity {
    let known = match product {
        "claude-code" => "Claude Code",
        "claude-desktop" => "Claude Desktop",
        "codex-cli" => "Codex CLI",
        "gemini-cli" => "Gemini CLI",
        "qwen-code" => "Qwen Code",
        "copilot-cli" => "GitHub Copilot CLI",
        "cline-cli" => "Cline CLI",
        "cursor" => "Cursor",
        "cursor-agent" => "Cursor CLI",
        "windsurf" => "Windsurf",
        "vscode" => "VS Code",
        "amazon-q-cli" => "Amazon Q CLI",
        "openclaw" => "OpenClaw",
        other => other,
    };
    AgentIdentity {
        product: product.to_owned(),
        name: name.unwrap_or_else(|| known.to_owned()),
        version,
        root,
        method: "told by the scenario".to_owned(),
        confidence: Confidence::High,
    }
}

/// A credential's id: as written, or made up from its kind, where only that is written.
///
/// `aws-access-key`, `aws-session-key`, `github-token`, ... and `keyed-hash:npm-token/` with a
/// scope and nothing behind it are made up, from `seed`; `<kind>:<value>` is taken as it is.
pub(crate) fn credential(spec: &str, seed: &str) -> Result<(CredentialId, bool), Fault> {
    let digest = Sha256::digest(format!("{spec}|{seed}").as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let base32: String = digest
        .iter()
        .take(16)
        .map(|byte| char::from(BASE32.get(usize::from(byte % 32)).copied().unwrap_or(b'A')))
        .collect();
    let short = |length: usize| hex.get(..length).unwrap_or(&hex).to_owned();
    let kind = match spec {
        "aws-access-key" => {
            return Ok((
                CredentialId::aws_access_key(&format!("AKIA{base32}"))?,
                true,
            ));
        }
        "aws-session-key" => {
            return Ok((
                CredentialId::aws_access_key(&format!("ASIA{base32}"))?,
                true,
            ));
        }
        "github-token" => return Ok((CredentialId::github_token(hex.as_bytes()), true)),
        "gcp-service-account-key" => {
            let kind = CredentialKind::GcpServiceAccountKey;
            return Ok((CredentialId::new(kind, &short(40))?, true));
        }
        "ssh-key" => {
            let value = format!("SHA256:{base32}{base32}{}", short(11));
            return Ok((CredentialId::new(CredentialKind::SshKey, &value)?, true));
        }
        other => CredentialKind::named(other),
    };
    if let Some(kind) = kind {
        return Ok((CredentialId::new(kind, &hex)?, true));
    }
    if spec.contains(':') && spec.ends_with('/') {
        return Ok((format!("{spec}{}", short(32)).parse()?, true));
    }
    Ok((spec.parse()?, false))
}

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// The address behind a name, where the story gives none: one of RFC 2544's test network,
/// always the same for the same name.
pub(crate) fn address_of(name: &str) -> IpAddr {
    let digest = Sha256::digest(name.as_bytes());
    let octet = |at: usize| digest.get(at).copied().unwrap_or(1);
    IpAddr::V4(Ipv4Addr::new(198, 18 + octet(0) % 2, octet(1), octet(2)))
}

/// An inode number for a path, always the same for the same path.
pub(crate) fn inode_of(path: &str) -> u64 {
    let digest = Sha256::digest(path.as_bytes());
    digest
        .iter()
        .take(6)
        .fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

/// `address`, with `port` where it has none.
pub(crate) fn socket(text: &str, port: u16) -> Result<SocketAddr, Fault> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(SocketAddr::new(address, port)),
        Err(_) => Err(Fault::Form {
            found: text.to_owned(),
            wanted: "IP address, with or without a port",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_can_be_made_up_or_written() {
        for kind in CredentialKind::ALL {
            let scoped = format!("{kind}:somewhere/");
            let made = credential(kind.as_str(), "s").or_else(|_| credential(&scoped, "s"));
            assert!(
                made.is_ok_and(|(id, made)| made && id.kind() == kind),
                "{kind}"
            );
        }
        let (written, made) = credential("aws-access-key:AKIAIOSFODNN7EXAMPLE", "s").unwrap();
        assert!(!made && written.value() == "AKIAIOSFODNN7EXAMPLE");
        assert_ne!(
            credential("aws-access-key", "a").unwrap(),
            credential("aws-access-key", "b").unwrap()
        );
        assert!(credential("nonsense", "s").is_err());
    }
}
