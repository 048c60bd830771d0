//! What is said beside an alert when it is read: who answers for it, how much harm it can do.
//!
//! Nothing of this is stored with the alert: people move and permissions change, and an alert read
//! tomorrow must name tomorrow's owner.

use std::collections::BTreeSet;

use keytrail_graph::blast::{self, BlastRadius, Facts, identities};
use keytrail_graph::people::{Ownership, Question};
use keytrail_graph::query::Walk;
use keytrail_graph::{EdgeKind, Graph, NodeId, NodeKind};
use keytrail_model::alert::Alert;
use keytrail_model::consumption::Consumption;
use keytrail_model::credential::CredentialId;
use serde::{Deserialize, Serialize};

use crate::graph::Index;

/// What is known around one alert or credential, as of now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Context {
    /// How much harm its loss can do.
    pub blast_radius: Option<BlastRadius>,
    /// Who answers for the endpoints and for the credential.
    pub ownership: Ownership,
}

/// What the graph says about a credential, taken once.
struct Surroundings {
    reached: Option<Walk>,
    dependents: Option<Walk>,
}

impl Surroundings {
    fn of(graph: &Graph, credential: &CredentialId) -> Self {
        let node = NodeId::credential(credential);
        Self {
            reached: graph.reached(&node),
            dependents: graph.dependents(&node),
        }
    }

    fn names(walk: Option<&Walk>, kind: NodeKind) -> impl Iterator<Item = &str> {
        let found = walk.into_iter().flat_map(|walk| &walk.found);
        found
            .filter(move |found| found.kind == kind)
            .map(|found| found.node.name())
    }

    /// Devices that hold or held it. One that runs what holds it is one; one that a caller's
    /// address was seen from is none.
    fn hosts(&self) -> Vec<&str> {
        Self::names(self.dependents.as_ref(), NodeKind::Device).collect()
    }

    /// Accounts that held it: host, name, uid, login uid.
    fn accounts(&self) -> Vec<(&str, Option<&str>, u32, Option<u32>)> {
        Self::names(self.dependents.as_ref(), NodeKind::Account)
            .filter_map(|name| name.split_once('/'))
            .map(|(host, account)| match account.strip_prefix("uid ") {
                Some(uid) => (host, None, uid.parse().unwrap_or(u32::MAX), None),
                // The graph keeps the name only; no uid that a directory could know.
                None => (host, Some(account), u32::MAX, None),
            })
            .collect()
    }

    fn principals(&self) -> Vec<&str> {
        let found = self.reached.iter().flat_map(|walk| &walk.found);
        let own = found.filter(|found| {
            // Of what was minted from it, the identity is another one's.
            found
                .path
                .last()
                .is_some_and(|hop| hop.kind == EdgeKind::ActsAs)
                && found.path.len() == 1
        });
        own.map(|found| found.node.name()).collect()
    }

    fn resources(&self) -> Vec<&str> {
        Self::names(self.reached.as_ref(), NodeKind::Resource).collect()
    }
}

/// The context of an alert.
#[must_use]
pub fn of_alert(index: &Index, alert: &Alert) -> Context {
    let (permissions, directory) = (
        index.knowledge().permissions(),
        index.knowledge().directory(),
    );
    let graph = index.read();
    let around = Surroundings::of(&graph, &alert.credential);
    let identities = identities(&graph, &permissions, &alert.credential);
    drop(graph);
    let permitted = permissions.reach(&identities);
    let uses: Vec<&Consumption> = alert
        .explained
        .iter()
        .map(|one| &one.usage)
        .chain(alert.unexplained.iter().map(|one| &one.usage))
        .collect();
    let facts = Facts {
        actions: uses
            .iter()
            .map(|usage| (usage.service.as_str(), usage.action.as_str()))
            .collect(),
        hosts: alert.holders.len() as u64,
        unexpected_reader: alert.exposure.as_ref().is_some_and(|e| e.unexpected_reader),
        left_the_host: !alert.egress.is_empty(),
        used_elsewhere: alert.unexplained_total > 0,
    };
    let mut principals: BTreeSet<&str> = around.principals().into_iter().collect();
    principals.extend(uses.iter().filter_map(|usage| usage.principal.as_deref()));
    // Where somebody is held responsible, it is their endpoint that counts.
    let (hosts, accounts) = match &alert.exposure {
        Some(exposure) => {
            let host = exposure.event.host.0.as_str();
            let user = exposure.actor.user.as_ref();
            let account = user.map(|u| (host, u.name.as_deref(), u.uid, u.login_uid));
            (vec![host], account.into_iter().collect())
        }
        None => (
            alert.holders.iter().map(|h| h.host.0.as_str()).collect(),
            around.accounts(),
        ),
    };
    let ownership = directory.owners(&Question {
        hosts,
        accounts,
        principals: principals.into_iter().collect(),
        identities,
        resources: around.resources(),
    });
    Context {
        blast_radius: Some(blast::score(
            around.reached.as_ref(),
            around.dependents.as_ref(),
            &permitted,
            &facts,
        )),
        ownership,
    }
}

/// The context of a credential, or (people only) of another node; `None` when nothing knows it.
#[must_use]
pub fn of_node(index: &Index, node: &NodeId) -> Option<Context> {
    let (permissions, directory) = (
        index.knowledge().permissions(),
        index.knowledge().directory(),
    );
    let graph = index.read();
    let Some(credential) = node.as_credential() else {
        let known = graph.contains(node);
        drop(graph);
        let mut question = Question::default();
        let identity = permissions.named(node.name());
        match node.kind() {
            NodeKind::Device => question.hosts.push(node.name()),
            NodeKind::Identity => question.principals.push(node.name()),
            NodeKind::Resource => question.resources.push(node.name()),
            _ => question.hosts.extend(node.host()),
        }
        if node.kind() == NodeKind::Account
            && let Some((host, account)) = node.name().split_once('/')
        {
            question
                .accounts
                .push((host, Some(account), u32::MAX, None));
        }
        question.identities.extend(identity);
        let ownership = directory.owners(&question);
        let found = !ownership.endpoint.is_empty() || !ownership.credential.is_empty();
        return (known || found).then_some(Context {
            blast_radius: None,
            ownership,
        });
    };
    let around = Surroundings::of(&graph, &credential);
    let identities = identities(&graph, &permissions, &credential);
    drop(graph);
    if around.reached.is_none() && identities.is_empty() {
        return None;
    }
    let permitted = permissions.reach(&identities);
    let hosts = around.hosts();
    let facts = Facts {
        hosts: hosts.len() as u64,
        ..Facts::default()
    };
    let blast_radius = Some(blast::score(
        around.reached.as_ref(),
        around.dependents.as_ref(),
        &permitted,
        &facts,
    ));
    let ownership = directory.owners(&Question {
        hosts,
        accounts: around.accounts(),
        principals: around.principals(),
        identities,
        resources: around.resources(),
    });
    Some(Context {
        blast_radius,
        ownership,
    })
}
