//! Blast radius: how much harm the loss of one credential can do, as a number with its reasons.
//!
//! The formula is documented in `docs/blast-radius.md`; the weights are here and nowhere else.

use std::collections::BTreeSet;

use keytrail_model::credential::CredentialId;
use serde::{Deserialize, Serialize};

use crate::edge::EdgeKind;
use crate::graph::Graph;
use crate::node::{NodeId, NodeKind};
use crate::permission::privilege::{of_action, sensitivity};
use crate::permission::{Identity, Permissions, Reach};
use crate::query::Walk;

/// How much each factor counts, percent.
const WEIGHTS: [(&str, u8); 4] = [
    ("privilege", 40),
    ("data-sensitivity", 25),
    ("dependents", 15),
    ("exposure", 20),
];
/// What counts when nothing is known: neither harmless nor the worst.
const UNKNOWN: u8 = 50;

/// What the credential was seen to do and to whom it was shown, as far as the graph does not say it.
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    /// Service and action of uses that were seen.
    pub actions: Vec<(&'a str, &'a str)>,
    /// Hosts that hold or held it.
    pub hosts: u64,
    /// True when a reader took it that nothing expects there.
    pub unexpected_reader: bool,
    /// True when its holder went outside its affinity set.
    pub left_the_host: bool,
    /// True when something used it that no holder's connection accounts for.
    pub used_elsewhere: bool,
}

/// One factor of the score.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Factor {
    /// `privilege`, `data-sensitivity`, `dependents` or `exposure`.
    pub name: String,
    /// 0 to 100.
    pub value: u8,
    /// Its share in the score, percent.
    pub weight: u8,
    /// Why it has this value, in one sentence; contains untrusted text.
    pub why: String,
    /// False when nothing is known and the value is the one for the unknown.
    pub known: bool,
}

/// The score with its reasons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BlastRadius {
    /// 0 to 100: the factors' values, weighed.
    pub score: u8,
    /// The factors.
    pub factors: Vec<Factor>,
}

/// The identities that a credential acts as: what imports tie to it, what its uses said, what it
/// descends from.
#[must_use]
pub fn identities<'p>(
    graph: &Graph,
    permissions: &'p Permissions,
    credential: &CredentialId,
) -> Vec<&'p Identity> {
    let mut names: BTreeSet<String> = BTreeSet::new();
    let mut name_of = |id: &CredentialId| {
        if let Some((_, name)) = id.value().split_once('/').filter(|_| !id.kind().is_exact()) {
            names.insert(name.to_owned());
        }
    };
    name_of(credential);
    if let Some(node) = graph.number(&NodeId::credential(credential)) {
        for link in graph.inward(node) {
            let ancestor = (link.kind == EdgeKind::Issued)
                .then(|| graph.id(link.other)?.as_credential())
                .flatten();
            if let Some(ancestor) = ancestor {
                name_of(&ancestor);
            }
        }
        for link in graph.outward(node) {
            if link.kind == EdgeKind::ActsAs
                && let Some(identity) = graph.id(link.other)
            {
                names.insert(identity.name().to_owned());
            }
        }
    }
    let mut found = permissions.of_credential(credential);
    found.extend(names.iter().filter_map(|name| permissions.named(name)));
    let mut seen = BTreeSet::new();
    found.retain(|identity| seen.insert(identity.id.as_str()));
    found
}

/// Scores a credential. `reached` and `dependents` are the graph's answers about it, `permitted`
/// the permissions' answer about its identities.
#[must_use]
pub fn score(
    reached: Option<&Walk>,
    dependents: Option<&Walk>,
    permitted: &Reach,
    facts: &Facts<'_>,
) -> BlastRadius {
    let values = [
        privilege(permitted, facts),
        data(reached, permitted),
        dependent(dependents),
        exposure(facts),
    ];
    let mut sum = 0_u32;
    let mut factors = Vec::new();
    for ((name, weight), (value, why, known)) in WEIGHTS.into_iter().zip(values) {
        sum += u32::from(value) * u32::from(weight);
        factors.push(Factor {
            name: name.to_owned(),
            value,
            weight,
            why,
            known,
        });
    }
    BlastRadius {
        score: u8::try_from((sum + 50) / 100).unwrap_or(100),
        factors,
    }
}

type Value = (u8, String, bool);

/// The most dangerous action that is allowed; four fifths of it when it hangs on a condition, and a
/// tenth less for each identity on the way.
fn privilege(permitted: &Reach, facts: &Facts<'_>) -> Value {
    let worth = |p: &crate::permission::Privilege| {
        let mut worth = u32::from(p.weight);
        let conditional =
            !p.conditions.is_empty() || p.via.iter().any(|s| !s.conditions.is_empty());
        if conditional {
            worth = worth * 4 / 5;
        }
        for _ in &p.via {
            worth = worth * 9 / 10;
        }
        u8::try_from(worth).unwrap_or(100)
    };
    let best = permitted.privileges.iter().max_by_key(|p| worth(p));
    if let Some(best) = best {
        let way = match best.via.len() {
            0 => String::new(),
            1 => format!(", by becoming {}", best.identity),
            n => format!(", by becoming {} in {n} steps", best.identity),
        };
        let hangs = if best.conditions.is_empty() {
            ""
        } else {
            ", under a condition"
        };
        let on = best.resources.first().map_or("*", String::as_str);
        let why = format!(
            "may {} on {on}{way}{hangs} ({}): {}",
            best.action,
            best.class.as_str(),
            best.source
        );
        return (worth(best), why, true);
    }
    if !permitted.identities.is_empty() {
        return (
            5,
            "no dangerous action is allowed by the imported policies".to_owned(),
            true,
        );
    }
    let seen = facts
        .actions
        .iter()
        .filter_map(|(service, action)| of_action(service, action))
        .max_by_key(|known| known.weight);
    match seen {
        Some(known) => (
            known.weight.max(UNKNOWN),
            format!(
                "was used for {} ({}); what else it may do is not known: import its permissions",
                known.action,
                known.class.as_str()
            ),
            true,
        ),
        None => (
            UNKNOWN,
            "its permissions are not known: import them".to_owned(),
            false,
        ),
    }
}

/// The most sensitive thing that was reached, or may be by an action that reads or changes data.
fn data(reached: Option<&Walk>, permitted: &Reach) -> Value {
    let seen = reached
        .into_iter()
        .flat_map(|walk| &walk.found)
        .filter(|found| found.kind == NodeKind::Resource)
        .map(|found| {
            (
                sensitivity(found.node.name()),
                found.node.name(),
                "was used on",
            )
        });
    let allowed = permitted
        .privileges
        .iter()
        .filter(|p| p.weight >= 40)
        .flat_map(|p| p.resources.iter())
        .map(|resource| (sensitivity(resource), resource.as_str(), "may be used on"));
    match seen
        .chain(allowed)
        .max_by_key(|((weight, _), _, _)| *weight)
    {
        Some(((weight, why), resource, how)) => (weight, format!("{how} {resource}: {why}"), true),
        None => (
            UNKNOWN,
            "no resource was seen or imported".to_owned(),
            false,
        ),
    }
}

/// Ten for each doubling of what depends on it.
fn dependent(dependents: Option<&Walk>) -> Value {
    let Some(walk) = dependents else {
        return (0, "nothing was seen to depend on it".to_owned(), true);
    };
    let count = |kind| walk.totals.get(&kind).copied().unwrap_or(0);
    let (programs, workloads, derived, devices) = (
        count(NodeKind::AgentSession) + count(NodeKind::McpServer) + count(NodeKind::Program),
        count(NodeKind::Workload) + count(NodeKind::Address),
        count(NodeKind::Credential),
        count(NodeKind::Device),
    );
    let all = programs + workloads + derived + devices;
    let doublings = u64::BITS - all.leading_zeros();
    let value = u8::try_from(doublings * 10).unwrap_or(100).min(100);
    let why = format!(
        "{devices} devices, {programs} agents, servers and programs, {workloads} workloads and \
         addresses, {derived} other credentials"
    );
    (value, why, true)
}

/// How far it got.
fn exposure(facts: &Facts<'_>) -> Value {
    let spread = u8::try_from(facts.hosts.saturating_sub(1).min(4) * 5).unwrap_or(20);
    let (base, why) = if facts.used_elsewhere {
        (100, "it was used from where none of its holders is")
    } else if facts.left_the_host {
        (80, "its reader sent data outside the credential's services")
    } else if facts.unexpected_reader {
        (60, "a program read it that nothing expects there")
    } else if facts.hosts > 0 {
        (25, "agents hold it, as expected")
    } else {
        (10, "no sensor has seen it")
    };
    let hosts = match facts.hosts {
        0 | 1 => String::new(),
        n => format!("; {n} hosts hold it"),
    };
    ((base + spread).min(100), format!("{why}{hosts}"), true)
}
