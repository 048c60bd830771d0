//! What one fact or use says about the graph.

use jiff::Timestamp;
use keytrail_model::consumption::{Caller, Consumption};
use keytrail_model::credential::CredentialId;
use keytrail_model::fact::{Exposure, ExposureSource, Fact, HostEvent};
use keytrail_model::ids::{EventRef, HostId, RecordId};
use keytrail_model::process::{Actor, McpServer, UnitKind, User};

use crate::edge::EdgeKind;
use crate::node::{NodeId, NodeKind};

/// Resources taken from one record at most.
const MAX_RESOURCES: usize = 32;

/// One record showed one relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// From where.
    pub from: NodeId,
    /// What kind.
    pub kind: EdgeKind,
    /// To where.
    pub to: NodeId,
    /// When, event time.
    pub time: Timestamp,
    /// The record's id.
    pub record: String,
}

/// Collects the observations of one record.
struct Seen {
    time: Timestamp,
    record: String,
    all: Vec<Observation>,
}

impl Seen {
    fn new(time: Timestamp, record: String) -> Self {
        Self {
            time,
            record,
            all: Vec::new(),
        }
    }

    fn edge(&mut self, from: &NodeId, kind: EdgeKind, to: &NodeId) {
        if from != to {
            self.all.push(Observation {
                from: from.clone(),
                kind,
                to: to.clone(),
                time: self.time,
                record: self.record.clone(),
            });
        }
    }
}

/// What a host's fact shows: who holds which credential, started by whom.
#[must_use]
pub fn fact(event: &HostEvent) -> Vec<Observation> {
    let mut seen = Seen::new(event.time, event.id.to_string());
    let host = &event.id.host;
    match &event.fact {
        Fact::Exposure(exposure) => exposed(&mut seen, &event.id, exposure),
        Fact::Listening(listening) => {
            actor(&mut seen, &event.id, &listening.actor);
        }
        Fact::ConfigChanged(changed) => {
            if let Some(by) = &changed.actor {
                actor(&mut seen, &event.id, by);
            }
        }
        Fact::ConnectionOpened(_)
        | Fact::ConnectionNamed(_)
        | Fact::ConnectionClosed(_)
        | Fact::ProcessStarted(_)
        | Fact::ProcessExited(_)
        | Fact::Gap(_)
        | Fact::Coverage(_)
        | Fact::Accepted(_)
        | Fact::RequestEdge(_)
        | Fact::NameLookups(_)
        | Fact::Tampering(_) => {}
    }
    debug_assert!(
        seen.all
            .iter()
            .all(|o| o.from.host().is_none_or(|h| h == host.0))
    );
    seen.all
}

fn exposed(seen: &mut Seen, id: &EventRef, exposure: &Exposure) {
    let credential = NodeId::credential(&exposure.credential);
    let holder = actor(seen, id, &exposure.actor);
    seen.edge(&holder, EdgeKind::Holds, &credential);
    let place = match &exposure.source {
        ExposureSource::File { path, .. } | ExposureSource::Socket { path } => path.clone(),
        // The same variable in every process is one place; whose environment is the holder's edge.
        ExposureSource::Environment { variable } => format!("environment {variable}"),
        ExposureSource::Metadata { address } => format!("metadata service {address}"),
        ExposureSource::Process { exe, via, .. } => format!("process {exe} ({via})"),
    };
    let place = NodeId::new(NodeKind::Location, &format!("{}/{place}", id.host));
    seen.edge(&device(&id.host), EdgeKind::Hosts, &place);
    seen.edge(&place, EdgeKind::Contains, &credential);
}

/// The chain above a unit, and the unit's own node.
fn actor(seen: &mut Seen, id: &EventRef, actor: &Actor) -> NodeId {
    let host = &id.host;
    let device = device(host);
    let account = actor.user.as_ref().map(|user| account(host, user));
    if let Some(account) = &account {
        seen.edge(account, EdgeKind::WorksOn, &device);
    }
    let session = actor.agent.as_ref().map(|agent| {
        let name = format!("{host}/{}/{}/{}", agent.product, id.boot, agent.root);
        NodeId::new(NodeKind::AgentSession, &name)
    });
    if let Some(session) = &session {
        seen.edge(&device, EdgeKind::Hosts, session);
        if let Some(account) = &account {
            seen.edge(account, EdgeKind::Runs, session);
        }
    }
    let own = match (&actor.mcp_server, &session) {
        (Some(server), _) => mcp_server(seen, host, server),
        (None, Some(session)) if actor.unit_kind == UnitKind::Agent => return session.clone(),
        (None, _) => program(host, actor),
    };
    match (&session, &account) {
        (Some(session), _) => seen.edge(session, EdgeKind::Started, &own),
        (None, account) => {
            seen.edge(&device, EdgeKind::Hosts, &own);
            if let Some(account) = account {
                seen.edge(account, EdgeKind::Runs, &own);
            }
        }
    }
    own
}

fn mcp_server(seen: &mut Seen, host: &HostId, server: &McpServer) -> NodeId {
    let package = server.package.as_ref();
    let name = server
        .name
        .clone()
        .or_else(|| package.map(|package| format!("unlisted {}", package.name)))
        .unwrap_or_else(|| "unlisted".to_owned());
    let node = NodeId::new(NodeKind::McpServer, &format!("{host}/{name}"));
    if let Some(package) = package {
        let name = format!("{}/{package}", package.ecosystem);
        seen.edge(
            &NodeId::new(NodeKind::Package, &name),
            EdgeKind::Provides,
            &node,
        );
    }
    node
}

fn device(host: &HostId) -> NodeId {
    NodeId::new(NodeKind::Device, &host.0)
}

/// The account, by the login behind it where that differs (`sudo` changes the uid only).
fn account(host: &HostId, user: &User) -> NodeId {
    let name = match (&user.name, user.login_uid) {
        (_, Some(login)) if login != user.uid => format!("uid {login}"),
        (Some(name), _) => name.clone(),
        (None, _) => format!("uid {}", user.uid),
    };
    NodeId::new(NodeKind::Account, &format!("{host}/{name}"))
}

fn program(host: &HostId, actor: &Actor) -> NodeId {
    // The unit's root is the program that is held responsible; it is the last of the lineage that
    // belongs to it.
    let unit = actor.lineage.iter().find(|p| p.key == actor.unit);
    let exe = unit
        .or(actor.lineage.first())
        .map_or("unknown program", |process| process.exe.as_str());
    NodeId::new(NodeKind::Program, &format!("{host}/{exe}"))
}

/// What a use shows: descent, identity, services, resources, and where it was presented from.
#[must_use]
pub fn usage(usage: &Consumption) -> Vec<Observation> {
    let mut seen = Seen::new(usage.time, usage.id.to_string());
    let credential = NodeId::credential(&usage.credential);
    // Nearest first: each descends from the next.
    let mut child = credential.clone();
    for ancestor in &usage.descends {
        let ancestor = NodeId::credential(ancestor);
        seen.edge(&ancestor, EdgeKind::Issued, &child);
        child = ancestor;
    }
    if let Some(minted) = &usage.minted {
        seen.edge(&credential, EdgeKind::Minted, &NodeId::credential(minted));
    }
    if let Some(principal) = &usage.principal {
        let identity = NodeId::new(NodeKind::Identity, principal);
        seen.edge(&credential, EdgeKind::ActsAs, &identity);
        if let Some(workload) = workload_of(principal) {
            seen.edge(&workload, EdgeKind::Presented, &credential);
        }
    }
    if !usage.service.is_empty() {
        let service = NodeId::new(NodeKind::Service, &usage.service);
        seen.edge(&credential, EdgeKind::Used, &service);
    }
    for resource in usage.resources.iter().take(MAX_RESOURCES) {
        let resource = NodeId::new(NodeKind::Resource, resource);
        seen.edge(&credential, EdgeKind::Accessed, &resource);
    }
    let caller = match &usage.caller {
        Caller::Address { address } => NodeId::new(NodeKind::Address, &address.to_string()),
        Caller::Service { service } => {
            NodeId::new(NodeKind::Workload, &format!("provider/{service}"))
        }
        Caller::Unknown => return seen.all,
    };
    seen.edge(&caller, EdgeKind::Presented, &credential);
    seen.all
}

/// A decision of the join: a connection of `connection`'s host accounts for a use.
#[must_use]
pub fn explained(
    credential: &CredentialId,
    record: &RecordId,
    time: Timestamp,
    connection: &EventRef,
) -> Observation {
    Observation {
        from: device(&connection.host),
        kind: EdgeKind::Carried,
        to: NodeId::credential(credential),
        time,
        record: record.to_string(),
    }
}

/// The workload that an identity's name gives away.
///
/// Sources: IAM User Guide, "IAM identifiers" (an EC2 instance's role session is named by the
/// instance id; other sessions by their creator); Kubernetes, "Authenticating" (the user name of a
/// service account).
fn workload_of(principal: &str) -> Option<NodeId> {
    let name = if let Some((_, role_and_session)) = principal.split_once(":assumed-role/") {
        let (role, session) = role_and_session.split_once('/')?;
        // Identity Center names the session after the person: that is a human, not a workload.
        if role.starts_with("AWSReservedSSO_") {
            return None;
        }
        format!("aws/{role}/{session}")
    } else {
        let account = principal.strip_prefix("system:serviceaccount:")?;
        let (namespace, account) = account.split_once(':')?;
        format!("kubernetes/{namespace}/{account}")
    };
    Some(NodeId::new(NodeKind::Workload, &name))
}
