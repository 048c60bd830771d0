//! Units: the smallest subtrees that can be held responsible on their own.
//!
//! The rules were observed on seven agents: a shell tool's command leads a session of its own and
//! reads from `/dev/null` or a terminal; a stdio MCP server stays in the agent's session and has
//! both standard input and output connected to the agent. The environment plays no part: markers
//! are inherited and can be set by anyone.

use std::collections::HashSet;
use std::sync::Arc;

use keytrail_model::credential::CredentialId;
use keytrail_model::ids::ProcessKey;
use keytrail_model::process::{AgentIdentity, McpServer, UnitKind};

use super::input::FdKind;
use crate::agents::servers::Session;

/// One unit.
#[derive(Clone, Debug)]
pub struct Unit {
    /// Its first process.
    pub root: ProcessKey,
    /// What kind.
    pub kind: UnitKind,
    /// The agent above it, or that it is.
    pub agent: Option<Arc<AgentIdentity>>,
    /// The MCP server that it is.
    pub server: Option<McpServer>,
    /// Variables that the server's configuration gives it.
    pub granted: Vec<String>,
    /// The server's package was read from its own manifest, not only from the launcher's words.
    pub manifest_seen: bool,
    /// The agent's session, for an agent and for the units directly below it.
    pub session: Option<Arc<Session>>,
    /// The agent's own session id and standard descriptors.
    pub agent_sid: Option<u32>,
    /// See `agent_sid`.
    pub agent_stdio: [FdKind; 2],
    /// Credentials already reported as held in this unit's environment.
    pub held: HashSet<(CredentialId, String)>,
    /// Processes that belong to it.
    pub members: u32,
}

impl Unit {
    /// A unit without agent.
    #[must_use]
    pub fn new(root: ProcessKey, kind: UnitKind) -> Self {
        Self {
            root,
            kind,
            agent: None,
            server: None,
            granted: Vec::new(),
            manifest_seen: false,
            session: None,
            agent_sid: None,
            agent_stdio: [FdKind::Unknown; 2],
            held: HashSet::new(),
            members: 0,
        }
    }

    /// A unit below this (an agent's) one.
    #[must_use]
    pub fn below(&self, root: ProcessKey, kind: UnitKind) -> Self {
        Self {
            agent: self.agent.clone(),
            session: self.session.clone(),
            agent_sid: self.agent_sid,
            agent_stdio: self.agent_stdio,
            ..Self::new(root, kind)
        }
    }
}

/// What is known of a process that an agent started, at its exec.
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent observations, not states"
)]
pub struct Signs {
    /// Descriptors 0 and 1 are both channels, and not the agent's own; `None` when not read in time.
    pub talks_to_agent: Option<bool>,
    /// It left the agent's session; `None` when unknown.
    pub own_session: Option<bool>,
    /// Its command line is one that a configuration of the agent lists.
    pub configured: bool,
    /// A package launcher (`npx`, `uvx`, `docker run` ...).
    pub launcher: bool,
    /// A runtime with a script or module that is not part of the agent's own package.
    pub foreign_script: bool,
    /// It names itself after MCP, or builds on its SDK.
    pub mcp_named: bool,
    /// A shell with a command.
    pub shell: bool,
    /// The agent's shell tool starts commands directly (catalogue).
    pub shell_in_process: bool,
}

/// Where a process belongs that an agent's own process started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Part of the agent.
    Agent,
    /// The root of a shell-tool command.
    ShellTool,
    /// The root of an MCP server.
    McpServer,
}

/// The decision, at each exec below an agent.
#[must_use]
pub fn place(signs: Signs) -> Placement {
    let own_session = signs.own_session == Some(true);
    if signs.configured && (signs.talks_to_agent == Some(true) || !own_session) {
        // Stdio that was not read in time does not speak against a listed server; stdio that
        // leads elsewhere does (the user runs the same command through the shell tool).
        if signs.talks_to_agent != Some(false) {
            return Placement::McpServer;
        }
    }
    if own_session {
        return Placement::ShellTool;
    }
    if signs.talks_to_agent == Some(true) {
        let script = signs.foreign_script && !signs.shell;
        if signs.mcp_named || script || (signs.launcher && !signs.shell) {
            return Placement::McpServer;
        }
    }
    if signs.shell || (signs.shell_in_process && signs.talks_to_agent != Some(true)) {
        return Placement::ShellTool;
    }
    Placement::Agent
}

/// Whether both standard descriptors lead to the agent: channels that the agent does not itself
/// have as its standard input and output (those it would only pass on).
#[must_use]
pub fn talks_to_agent(stdio: [FdKind; 2], agent: [FdKind; 2]) -> Option<bool> {
    if stdio == [FdKind::Unknown; 2] {
        return None;
    }
    let inherited: Vec<u64> = agent.iter().filter_map(|fd| fd.channel()).collect();
    let own = |fd: FdKind| fd.channel().is_some_and(|ino| !inherited.contains(&ino));
    let [stdin, stdout] = stdio;
    Some(own(stdin) && own(stdout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inherited_channels_are_not_a_conversation() {
        let agent = [FdKind::Pipe(1), FdKind::Pipe(2)];
        for (stdio, expected) in [
            ([FdKind::Socket(5), FdKind::Socket(6)], Some(true)),
            ([FdKind::Pipe(5), FdKind::Pipe(6)], Some(true)),
            ([FdKind::Pipe(1), FdKind::Pipe(2)], Some(false)),
            ([FdKind::Null, FdKind::Pipe(6)], Some(false)),
            ([FdKind::Terminal, FdKind::Terminal], Some(false)),
            ([FdKind::Unknown, FdKind::Unknown], None),
        ] {
            assert_eq!(talks_to_agent(stdio, agent), expected, "{stdio:?}");
        }
    }

    #[test]
    fn children_of_an_agent_are_placed() {
        let base = Signs {
            talks_to_agent: Some(true),
            own_session: Some(false),
            ..Signs::default()
        };
        let shell_tool = Signs {
            talks_to_agent: Some(false),
            own_session: Some(true),
            ..base
        };
        for (what, signs, expected) in [
            (
                "a listed server",
                Signs {
                    configured: true,
                    ..base
                },
                Placement::McpServer,
            ),
            (
                "a listed server behind sh -c",
                Signs {
                    configured: true,
                    shell: true,
                    ..base
                },
                Placement::McpServer,
            ),
            (
                "a listed server that detached itself",
                Signs {
                    configured: true,
                    own_session: Some(true),
                    ..base
                },
                Placement::McpServer,
            ),
            (
                "a listed server that was gone before we looked",
                Signs {
                    configured: true,
                    talks_to_agent: None,
                    own_session: None,
                    ..base
                },
                Placement::McpServer,
            ),
            (
                "the same command through the shell tool",
                Signs {
                    configured: true,
                    ..shell_tool
                },
                Placement::ShellTool,
            ),
            (
                "an unlisted script",
                Signs {
                    foreign_script: true,
                    ..base
                },
                Placement::McpServer,
            ),
            (
                "an unlisted npx",
                Signs {
                    launcher: true,
                    ..base
                },
                Placement::McpServer,
            ),
            ("git with pipes", base, Placement::Agent),
            (
                "a hook run by sh -c",
                Signs {
                    shell: true,
                    foreign_script: true,
                    ..base
                },
                Placement::ShellTool,
            ),
            (
                "the shell tool",
                Signs {
                    shell: true,
                    ..shell_tool
                },
                Placement::ShellTool,
            ),
            (
                "ripgrep",
                Signs {
                    talks_to_agent: Some(false),
                    ..base
                },
                Placement::Agent,
            ),
            (
                "a direct child of a shell-less tool",
                Signs {
                    talks_to_agent: Some(false),
                    shell_in_process: true,
                    ..base
                },
                Placement::ShellTool,
            ),
        ] {
            assert_eq!(place(signs), expected, "{what}");
        }
    }
}
