//! Who an agent is, over restarts.

use std::fmt;

use keytrail_model::process::{Actor, UnitKind};
use serde::{Deserialize, Serialize};

/// An agent as baselines know it: what stays the same from one session to the next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentKey {
    /// What kind of unit.
    pub kind: UnitKind,
    /// The agent's product.
    pub agent: Option<String>,
    /// The MCP server's name in the agent's configuration.
    pub server: Option<String>,
    /// The MCP server's package, without its version.
    pub package: Option<String>,
    /// File name of the executable, for what is no MCP server.
    pub program: Option<String>,
    /// The account it runs as.
    pub user: Option<String>,
}

impl AgentKey {
    /// Who `actor` is.
    #[must_use]
    pub fn of(actor: &Actor) -> Self {
        let server = actor.mcp_server.as_ref();
        let program = actor
            .lineage
            .first()
            .filter(|_| server.is_none() && actor.unit_kind != UnitKind::Agent)
            .and_then(|process| process.exe.rsplit('/').next())
            .map(str::to_owned);
        Self {
            kind: actor.unit_kind,
            agent: actor.agent.as_ref().map(|agent| agent.product.clone()),
            server: server.and_then(|server| server.name.clone()),
            package: server
                .and_then(|server| server.package.as_ref())
                .map(|package| format!("{}:{}", package.ecosystem, package.name)),
            program,
            user: actor
                .user
                .as_ref()
                .map(|user| user.name.clone().unwrap_or_else(|| user.uid.to_string())),
        }
    }
}

impl AgentKey {
    /// A program of which nothing else is known.
    pub(crate) fn program(name: &str) -> Self {
        Self {
            kind: UnitKind::Other,
            agent: None,
            server: None,
            package: None,
            program: Some(name.to_owned()),
            user: None,
        }
    }
}

impl fmt::Display for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = match (&self.server, &self.package, &self.program) {
            (Some(server), Some(package), _) => format!("MCP server \"{server}\" ({package})"),
            (Some(server), None, _) => format!("MCP server \"{server}\""),
            (None, Some(package), _) => format!("unlisted MCP server ({package})"),
            (None, None, Some(program)) => program.clone(),
            (None, None, None) => String::new(),
        };
        match (&self.agent, own.is_empty()) {
            (Some(agent), true) => f.write_str(agent),
            (Some(agent), false) => write!(f, "{own} of {agent}"),
            (None, true) => f.write_str("an unknown program"),
            (None, false) => f.write_str(&own),
        }
    }
}
