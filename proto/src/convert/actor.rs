//! Processes and who they are.

use keytrail_model::process::{
    Actor, AgentIdentity, Confidence, Container, McpServer, Package, Person, ProcessSummary,
    UnitKind, User,
};

use super::{MAX_LINEAGE, WireError, choice, list, optional, optional_text, required, text, texts};
use crate::wire;

impl From<ProcessSummary> for wire::ProcessSummary {
    fn from(model: ProcessSummary) -> Self {
        let ProcessSummary {
            key,
            exe,
            argv,
            started,
        } = model;
        Self {
            key: Some(key.into()),
            exe,
            argv,
            started: Some(started.into()),
        }
    }
}

impl TryFrom<wire::ProcessSummary> for ProcessSummary {
    type Error = WireError;

    fn try_from(wire: wire::ProcessSummary) -> Result<Self, WireError> {
        let wire::ProcessSummary {
            key,
            exe,
            argv,
            started,
        } = wire;
        Ok(Self {
            key: required(key, "key")?,
            exe: text(exe, "exe")?,
            argv: texts(argv, "argv")?,
            started: required(started, "started")?,
        })
    }
}

impl From<Actor> for wire::Actor {
    fn from(model: Actor) -> Self {
        let Actor {
            unit,
            unit_kind,
            agent,
            mcp_server,
            user,
            lineage,
        } = model;
        Self {
            unit: Some(unit.into()),
            unit_kind: wire::UnitKind::from(unit_kind).into(),
            agent: agent.map(Into::into),
            mcp_server: mcp_server.map(Into::into),
            user: user.map(Into::into),
            lineage: lineage.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::Actor> for Actor {
    type Error = WireError;

    fn try_from(wire: wire::Actor) -> Result<Self, WireError> {
        let wire::Actor {
            unit,
            unit_kind,
            agent,
            mcp_server,
            user,
            lineage,
        } = wire;
        Ok(Self {
            unit: required(unit, "unit")?,
            unit_kind: choice(unit_kind, "unit_kind", |kind| match kind {
                wire::UnitKind::Unspecified => None,
                wire::UnitKind::McpServer => Some(UnitKind::McpServer),
                wire::UnitKind::ShellTool => Some(UnitKind::ShellTool),
                wire::UnitKind::Agent => Some(UnitKind::Agent),
                wire::UnitKind::Other => Some(UnitKind::Other),
            })?,
            agent: optional(agent, "agent")?,
            mcp_server: optional(mcp_server, "mcp_server")?,
            user: optional(user, "user")?,
            lineage: list(lineage, MAX_LINEAGE, "lineage")?,
        })
    }
}

impl From<UnitKind> for wire::UnitKind {
    fn from(model: UnitKind) -> Self {
        match model {
            UnitKind::McpServer => Self::McpServer,
            UnitKind::ShellTool => Self::ShellTool,
            UnitKind::Agent => Self::Agent,
            UnitKind::Other => Self::Other,
        }
    }
}

impl From<Confidence> for wire::Confidence {
    fn from(model: Confidence) -> Self {
        match model {
            Confidence::Low => Self::Low,
            Confidence::Medium => Self::Medium,
            Confidence::High => Self::High,
        }
    }
}

impl From<AgentIdentity> for wire::AgentIdentity {
    fn from(model: AgentIdentity) -> Self {
        let AgentIdentity {
            product,
            name,
            version,
            root,
            method,
            confidence,
        } = model;
        Self {
            product,
            name,
            version,
            root: Some(root.into()),
            method,
            confidence: wire::Confidence::from(confidence).into(),
        }
    }
}

impl TryFrom<wire::AgentIdentity> for AgentIdentity {
    type Error = WireError;

    fn try_from(wire: wire::AgentIdentity) -> Result<Self, WireError> {
        let wire::AgentIdentity {
            product,
            name,
            version,
            root,
            method,
            confidence: sure,
        } = wire;
        Ok(Self {
            product: text(product, "product")?,
            name: text(name, "name")?,
            version: optional_text(version, "version")?,
            root: required(root, "root")?,
            method: text(method, "method")?,
            confidence: confidence(sure)?,
        })
    }
}

impl From<McpServer> for wire::McpServer {
    fn from(model: McpServer) -> Self {
        let McpServer {
            name,
            config,
            scope,
            package,
        } = model;
        Self {
            name,
            config,
            scope,
            package: package.map(Into::into),
        }
    }
}

impl TryFrom<wire::McpServer> for McpServer {
    type Error = WireError;

    fn try_from(wire: wire::McpServer) -> Result<Self, WireError> {
        let wire::McpServer {
            name,
            config,
            scope,
            package,
        } = wire;
        Ok(Self {
            name: optional_text(name, "name")?,
            config: optional_text(config, "config")?,
            scope: optional_text(scope, "scope")?,
            package: optional(package, "package")?,
        })
    }
}

impl From<Package> for wire::Package {
    fn from(model: Package) -> Self {
        let Package {
            ecosystem,
            name,
            version,
        } = model;
        Self {
            ecosystem,
            name,
            version,
        }
    }
}

impl TryFrom<wire::Package> for Package {
    type Error = WireError;

    fn try_from(wire: wire::Package) -> Result<Self, WireError> {
        let wire::Package {
            ecosystem,
            name,
            version,
        } = wire;
        Ok(Self {
            ecosystem: text(ecosystem, "ecosystem")?,
            name: text(name, "name")?,
            version: optional_text(version, "version")?,
        })
    }
}

impl From<User> for wire::User {
    fn from(model: User) -> Self {
        let User {
            uid,
            name,
            login_uid,
            person,
            container,
        } = model;
        Self {
            uid,
            name,
            login_uid,
            person: person.map(Into::into),
            container: container.map(Into::into),
        }
    }
}

impl TryFrom<wire::User> for User {
    type Error = WireError;

    fn try_from(wire: wire::User) -> Result<Self, WireError> {
        let wire::User {
            uid,
            name,
            login_uid,
            person,
            container,
        } = wire;
        Ok(Self {
            uid,
            name: optional_text(name, "name")?,
            login_uid,
            person: optional(person, "person")?,
            container: optional(container, "container")?,
        })
    }
}

impl From<Person> for wire::Person {
    fn from(model: Person) -> Self {
        let Person {
            uid,
            name,
            session,
            method,
            confidence,
        } = model;
        Self {
            uid,
            name,
            session,
            method,
            confidence: wire::Confidence::from(confidence).into(),
        }
    }
}

impl TryFrom<wire::Person> for Person {
    type Error = WireError;

    fn try_from(wire: wire::Person) -> Result<Self, WireError> {
        let wire::Person {
            uid,
            name,
            session,
            method,
            confidence: sure,
        } = wire;
        Ok(Self {
            uid,
            name: optional_text(name, "name")?,
            session: optional_text(session, "session")?,
            method: text(method, "method")?,
            confidence: confidence(sure)?,
        })
    }
}

impl From<Container> for wire::Container {
    fn from(model: Container) -> Self {
        let Container { id, runtime, pod } = model;
        Self { id, runtime, pod }
    }
}

impl TryFrom<wire::Container> for Container {
    type Error = WireError;

    fn try_from(wire: wire::Container) -> Result<Self, WireError> {
        let wire::Container { id, runtime, pod } = wire;
        Ok(Self {
            id: text(id, "id")?,
            runtime: optional_text(runtime, "runtime")?,
            pod: optional_text(pod, "pod")?,
        })
    }
}

fn confidence(wire: i32) -> Result<Confidence, WireError> {
    choice(wire, "confidence", |confidence| match confidence {
        wire::Confidence::Unspecified => None,
        wire::Confidence::Low => Some(Confidence::Low),
        wire::Confidence::Medium => Some(Confidence::Medium),
        wire::Confidence::High => Some(Confidence::High),
    })
}
