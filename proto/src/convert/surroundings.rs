//! What happens around the credentials: listeners, callers, daemons, resolvers, configurations,
//! tampering.

use keytrail_model::fact::{
    Accepted, ConfigChanged, Listening, NameLookups, RequestEdge, TamperKind, Tampering,
};
use keytrail_model::ids::ConnectionId;

use super::{WireError, choice, optional, required, text};
use crate::wire;

impl From<Listening> for wire::Listening {
    fn from(model: Listening) -> Self {
        let Listening {
            process,
            actor,
            local,
        } = model;
        Self {
            process: Some(process.into()),
            actor: Some(actor.into()),
            local: Some(local.into()),
        }
    }
}

impl TryFrom<wire::Listening> for Listening {
    type Error = WireError;

    fn try_from(wire: wire::Listening) -> Result<Self, WireError> {
        let wire::Listening {
            process,
            actor,
            local,
        } = wire;
        Ok(Self {
            process: required(process, "process")?,
            actor: required(actor, "actor")?,
            local: required(local, "local")?,
        })
    }
}

impl From<Accepted> for wire::Accepted {
    fn from(model: Accepted) -> Self {
        let Accepted {
            id,
            process,
            unit,
            local,
            remote,
            authenticated,
        } = model;
        Self {
            id: id.0,
            process: Some(process.into()),
            unit: Some(unit.into()),
            local: Some(local.into()),
            remote: Some(remote.into()),
            authenticated,
        }
    }
}

impl TryFrom<wire::Accepted> for Accepted {
    type Error = WireError;

    fn try_from(wire: wire::Accepted) -> Result<Self, WireError> {
        let wire::Accepted {
            id,
            process,
            unit,
            local,
            remote,
            authenticated,
        } = wire;
        Ok(Self {
            id: ConnectionId(id),
            process: required(process, "process")?,
            unit: required(unit, "unit")?,
            local: required(local, "local")?,
            remote: required(remote, "remote")?,
            authenticated,
        })
    }
}

impl From<RequestEdge> for wire::RequestEdge {
    fn from(model: RequestEdge) -> Self {
        let RequestEdge {
            process,
            unit,
            daemon,
            through,
        } = model;
        Self {
            process: Some(process.into()),
            unit: Some(unit.into()),
            daemon,
            through,
        }
    }
}

impl TryFrom<wire::RequestEdge> for RequestEdge {
    type Error = WireError;

    fn try_from(wire: wire::RequestEdge) -> Result<Self, WireError> {
        let wire::RequestEdge {
            process,
            unit,
            daemon,
            through,
        } = wire;
        Ok(Self {
            process: required(process, "process")?,
            unit: required(unit, "unit")?,
            daemon: text(daemon, "daemon")?,
            through: text(through, "through")?,
        })
    }
}

impl From<NameLookups> for wire::NameLookups {
    fn from(model: NameLookups) -> Self {
        let NameLookups {
            process,
            unit,
            domain,
            since,
            questions,
            names,
            bytes,
        } = model;
        Self {
            process: Some(process.into()),
            unit: Some(unit.into()),
            domain,
            since: Some(since.into()),
            questions,
            names,
            bytes,
        }
    }
}

impl TryFrom<wire::NameLookups> for NameLookups {
    type Error = WireError;

    fn try_from(wire: wire::NameLookups) -> Result<Self, WireError> {
        let wire::NameLookups {
            process,
            unit,
            domain,
            since,
            questions,
            names,
            bytes,
        } = wire;
        Ok(Self {
            process: required(process, "process")?,
            unit: required(unit, "unit")?,
            domain: text(domain, "domain")?,
            since: required(since, "since")?,
            questions,
            names,
            bytes,
        })
    }
}

impl From<ConfigChanged> for wire::ConfigChanged {
    fn from(model: ConfigChanged) -> Self {
        let ConfigChanged {
            path,
            product,
            actor,
            change,
            entry,
            by_agent,
        } = model;
        Self {
            path,
            product,
            actor: actor.map(Into::into),
            change,
            entry,
            by_agent,
        }
    }
}

impl TryFrom<wire::ConfigChanged> for ConfigChanged {
    type Error = WireError;

    fn try_from(wire: wire::ConfigChanged) -> Result<Self, WireError> {
        let wire::ConfigChanged {
            path,
            product,
            actor,
            change,
            entry,
            by_agent,
        } = wire;
        Ok(Self {
            path: text(path, "path")?,
            product: text(product, "product")?,
            actor: optional(actor, "actor")?,
            change: text(change, "change")?,
            entry: text(entry, "entry")?,
            by_agent,
        })
    }
}

impl From<Tampering> for wire::Tampering {
    fn from(model: Tampering) -> Self {
        let Tampering {
            what,
            detail,
            process,
            unit,
        } = model;
        let what = match what {
            TamperKind::ProgramSilent => wire::TamperKind::ProgramSilent,
            TamperKind::PinRemoved => wire::TamperKind::PinRemoved,
            TamperKind::AgentStopped => wire::TamperKind::AgentStopped,
            TamperKind::ClockMoved => wire::TamperKind::ClockMoved,
            TamperKind::BpfLoaded => wire::TamperKind::BpfLoaded,
            TamperKind::OpaqueSocket => wire::TamperKind::OpaqueSocket,
        };
        Self {
            what: what.into(),
            detail,
            process: process.map(Into::into),
            unit: unit.map(Into::into),
        }
    }
}

impl TryFrom<wire::Tampering> for Tampering {
    type Error = WireError;

    fn try_from(wire: wire::Tampering) -> Result<Self, WireError> {
        let wire::Tampering {
            what,
            detail,
            process,
            unit,
        } = wire;
        Ok(Self {
            what: choice(what, "what", |what| match what {
                wire::TamperKind::Unspecified => None,
                wire::TamperKind::ProgramSilent => Some(TamperKind::ProgramSilent),
                wire::TamperKind::PinRemoved => Some(TamperKind::PinRemoved),
                wire::TamperKind::AgentStopped => Some(TamperKind::AgentStopped),
                wire::TamperKind::ClockMoved => Some(TamperKind::ClockMoved),
                wire::TamperKind::BpfLoaded => Some(TamperKind::BpfLoaded),
                wire::TamperKind::OpaqueSocket => Some(TamperKind::OpaqueSocket),
            })?,
            detail: text(detail, "detail")?,
            process: optional(process, "process")?,
            unit: optional(unit, "unit")?,
        })
    }
}
