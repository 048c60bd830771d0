//! Processes, and who they are: agent, MCP server, package, human.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::ProcessKey;

/// One process as it was at its last exec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProcessSummary {
    /// Which process.
    pub key: ProcessKey,
    /// Path of its executable as the kernel resolved it; untrusted text.
    pub exe: String,
    /// Arguments at exec, secrets masked, capped; untrusted text.
    pub argv: Vec<String>,
    /// When it started.
    pub started: Timestamp,
}

/// A published package, as its own manifest names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Package {
    /// `npm`, `pypi`, `oci` ...: the type of a package URL (purl).
    pub ecosystem: String,
    /// Name with scope, e.g. `@modelcontextprotocol/server-filesystem`; untrusted text.
    pub name: String,
    /// Version, when the manifest says it.
    pub version: Option<String>,
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{}@{version}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// How sure an attribution is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// A marker that anyone can set.
    Low,
    /// Two weak signs that agree.
    Medium,
    /// The kernel or a signed record says so.
    High,
}

/// A recognised AI agent: the product and the process at the root of this session of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentIdentity {
    /// The catalogue's id, e.g. `codex-cli`.
    pub product: String,
    /// The name people use, e.g. `Codex CLI`.
    pub name: String,
    /// Version, where the executable's package says it.
    pub version: Option<String>,
    /// The root process of the session.
    pub root: ProcessKey,
    /// How it was recognised, in words (`executable inside @openai/codex`).
    pub method: String,
    /// How sure that is.
    pub confidence: Confidence,
}

/// A stdio MCP server started by an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct McpServer {
    /// Its name in the agent's configuration; `None` when no configuration lists it.
    pub name: Option<String>,
    /// The configuration file that lists it.
    pub config: Option<String>,
    /// `user`, `project`, `managed` or `argv`.
    pub scope: Option<String>,
    /// The package that provides it.
    pub package: Option<Package>,
}

/// The person behind a process, who may use other accounts (`sudo`, a service's).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Person {
    /// Uid of the person's own account.
    pub uid: u32,
    /// Its name, when the user database has one.
    pub name: Option<String>,
    /// Id of the logind session, when the process is in one.
    pub session: Option<String>,
    /// How that is known, in words (`audit login uid`, `user slice`, `uid`).
    pub method: String,
    /// How sure that is.
    pub confidence: Confidence,
}

/// The container that a process runs in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Container {
    /// Its id, as the runtime prints it: 64 hex digits.
    pub id: String,
    /// The runtime, when the control group's name says it (`docker`, `containerd`, `crio`,
    /// `podman`).
    pub runtime: Option<String>,
    /// Uid of the Kubernetes pod.
    pub pod: Option<String>,
}

/// The person a process runs for, as far as the kernel says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct User {
    /// Real uid.
    pub uid: u32,
    /// Account name, when the user database has one.
    pub name: Option<String>,
    /// Audit login uid, when set: who logged in before any `sudo`.
    pub login_uid: Option<u32>,
    /// The person behind it, as far as that can be told.
    #[serde(default)]
    pub person: Option<Person>,
    /// The container that it runs in.
    #[serde(default)]
    pub container: Option<Container>,
}

/// What kind of unit of work a process belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum UnitKind {
    /// A stdio MCP server and its descendants.
    McpServer,
    /// One command that an agent ran through its shell tool, and its descendants.
    ShellTool,
    /// The agent's own processes.
    Agent,
    /// Any other process that touched a watched credential, and its descendants.
    Other,
}

/// Who did something on an endpoint.
///
/// A *unit* is the smallest subtree that can be held responsible on its own. A credential read in
/// a unit is in the hands of that unit: what the unit then connects to is judged, what its parent
/// agent connects to is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Actor {
    /// Root process of the unit.
    pub unit: ProcessKey,
    /// What kind of unit it is.
    pub unit_kind: UnitKind,
    /// The agent above it.
    pub agent: Option<AgentIdentity>,
    /// The MCP server it is, or is part of.
    pub mcp_server: Option<McpServer>,
    /// The account it runs as.
    pub user: Option<User>,
    /// The process itself, then its ancestors up to the agent's root; at most 16.
    pub lineage: Vec<ProcessSummary>,
}

impl Actor {
    /// One line for people: `mcp-server-x 1.0.2 (MCP server "files") of Codex CLI`.
    #[must_use]
    pub fn label(&self) -> String {
        let own = match (&self.mcp_server, self.lineage.first()) {
            (Some(server), _) => {
                let package = server.package.as_ref().map(ToString::to_string);
                match (package, &server.name) {
                    (Some(package), Some(name)) => format!("MCP server \"{name}\" ({package})"),
                    (Some(package), None) => format!("unlisted MCP server ({package})"),
                    (None, Some(name)) => format!("MCP server \"{name}\""),
                    (None, None) => "unlisted MCP server".to_owned(),
                }
            }
            (None, Some(process)) => process
                .exe
                .rsplit('/')
                .next()
                .unwrap_or(&process.exe)
                .to_owned(),
            (None, None) => format!("process {}", self.unit.pid),
        };
        match &self.agent {
            Some(agent) if self.unit_kind == UnitKind::Agent => agent.name.clone(),
            Some(agent) => format!("{own} of {}", agent.name),
            None => own,
        }
    }
}
