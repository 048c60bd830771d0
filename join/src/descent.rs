//! Which credential comes from which, and what follows from it.
//!
//! A session minted from a key, a token of a sign-in session: a use of the descendant is a use of
//! what its ancestor gave. Edges come from the cloud records themselves: the record of the minting
//! names the child (`minted`), or the record of a use names the ancestors (`descends`).
//!
//! - Minted by a use that host H's connection accounts for: the child is held on H.
//! - Minted by a use that nothing accounts for: the child is the thief's, and so are all its uses.
//! - Minted by a use that is not judged yet: nothing is known of the child's uses yet.
//! - An ancestor named by the record of a use: every holder of the ancestor may hold the child.
//!
//! Everything here is a function of the graph and of what is thought of the minting uses, so the
//! order of arrival does not matter (JN-2). An edge that lies on a cycle is ignored.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use keytrail_model::credential::CredentialId;
use keytrail_model::ids::{HostId, RecordId};
use serde::{Deserialize, Serialize};

use crate::credential::Credential;
use crate::input::UseState;

/// Longest chain followed.
const MAX_DEPTH: usize = 8;
/// Most ancestors named for one credential.
pub(crate) const MAX_PARENTS: usize = 16;
/// Most children followed down from one credential.
pub(crate) const MAX_CHILDREN: usize = 4_096;

type Credentials = BTreeMap<CredentialId, Credential>;

/// How a credential descends from a parent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Edge {
    /// The uses of the parent that minted it.
    pub(crate) minted: BTreeSet<(Timestamp, RecordId)>,
    /// A record of the child's own use names the parent.
    pub(crate) stated: bool,
}

/// Whether a credential was minted by somebody who had no right to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Theft {
    /// The use that minted it.
    pub(crate) record: RecordId,
    /// Of which credential.
    pub(crate) parent: CredentialId,
}

/// Who holds a credential, by its own exposures and by descent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    /// Hosts, and since when.
    pub(crate) holders: BTreeMap<HostId, Timestamp>,
    /// Hosts that hold it only if the person behind an account is the same: they can account for
    /// a use, but their silence says nothing.
    pub(crate) weak: BTreeMap<HostId, Timestamp>,
    /// It was minted by a use that nothing accounts for.
    pub(crate) stolen: Option<Theft>,
    /// It was minted by a use that is not judged yet.
    pub(crate) waiting: Option<RecordId>,
    /// The credential itself and what it descends from.
    pub(crate) line: Vec<CredentialId>,
}

impl Standing {
    fn add(&mut self, host: &HostId, since: Timestamp, strong: bool) {
        let list = if strong {
            &mut self.holders
        } else {
            &mut self.weak
        };
        let known = list.entry(host.clone()).or_insert(since);
        *known = (*known).min(since);
    }

    /// From when on uses are judged.
    pub(crate) fn judged_from(&self) -> Option<Timestamp> {
        self.holders.values().min().copied()
    }
}

/// Parents by edges that lie on no cycle, in order.
fn parents<'a>(
    credentials: &'a Credentials,
    id: &'a CredentialId,
) -> impl Iterator<Item = (&'a CredentialId, &'a Edge, &'a Credential)> {
    credentials
        .get(id)
        .into_iter()
        .flat_map(|state| &state.parents)
        .filter_map(|(parent, edge)| Some((parent, edge, credentials.get(parent)?)))
        .filter(move |(parent, ..)| !ancestors(credentials, parent).contains(&id))
}

/// Everything that `id` descends from, nearest first, cycles cut.
pub(crate) fn ancestors<'a>(
    credentials: &'a Credentials,
    id: &'a CredentialId,
) -> Vec<&'a CredentialId> {
    let mut found: Vec<&CredentialId> = Vec::new();
    let mut level = vec![id];
    for _ in 0..MAX_DEPTH {
        let mut next: Vec<&CredentialId> = Vec::new();
        for one in level {
            let Some(state) = credentials.get(one) else {
                continue;
            };
            for parent in state.parents.keys() {
                if !found.contains(&parent) {
                    found.push(parent);
                    next.push(parent);
                }
            }
        }
        level = next;
    }
    found
}

/// Everything that descends from `id`, nearest first; at most [`MAX_CHILDREN`].
pub(crate) fn descendants(credentials: &Credentials, id: &CredentialId) -> Vec<CredentialId> {
    let mut found: Vec<CredentialId> = Vec::new();
    let mut seen: BTreeSet<&CredentialId> = BTreeSet::from([id]);
    let mut level = vec![id];
    for _ in 0..MAX_DEPTH {
        let mut next = Vec::new();
        for child in level
            .iter()
            .filter_map(|one| credentials.get(*one))
            .flat_map(|state| &state.children)
        {
            if found.len() < MAX_CHILDREN && seen.insert(child) {
                found.push(child.clone());
                next.push(child);
            }
        }
        level = next;
    }
    found
}

/// Hosts whose connections might account for uses of `id`, whatever is thought of its minting.
pub(crate) fn reach(credentials: &Credentials, id: &CredentialId) -> BTreeSet<HostId> {
    let mut hosts = BTreeSet::new();
    for one in std::iter::once(id).chain(ancestors(credentials, id)) {
        if let Some(state) = credentials.get(one) {
            hosts.extend(state.holders.keys().cloned());
        }
    }
    hosts
}

/// Who holds `id`.
pub(crate) fn standing(credentials: &Credentials, id: &CredentialId) -> Standing {
    let line = std::iter::once(id).chain(ancestors(credentials, id));
    let mut standing = Standing {
        line: line.cloned().collect(),
        ..Standing::default()
    };
    collect(credentials, id, MAX_DEPTH, &mut standing);
    standing
}

fn collect(credentials: &Credentials, id: &CredentialId, depth: usize, into: &mut Standing) {
    let Some(state) = credentials.get(id) else {
        return;
    };
    for host in state.holders.keys() {
        if let Some(since) = state.first_exposure_on(host) {
            into.add(host, since, true);
        }
    }
    if depth == 0 {
        return;
    }
    for (parent, edge, parent_state) in parents(credentials, id) {
        let strong = parent.kind().is_exact();
        let mut known = false;
        for key in &edge.minted {
            let Some(minting) = parent_state.uses.get(key) else {
                continue;
            };
            known = true;
            match (&minting.state, &minting.via) {
                (UseState::Explained { .. }, Some(via)) => into.add(&via.host, key.0, strong),
                (UseState::Unexplained { .. }, _) if strong => {
                    into.stolen.get_or_insert_with(|| Theft {
                        record: key.1.clone(),
                        parent: parent.clone(),
                    });
                }
                (UseState::Undecided { .. }, _) if strong => {
                    into.waiting.get_or_insert_with(|| key.1.clone());
                }
                _ => {}
            }
        }
        if known {
            continue;
        }
        // Named by the child's record, or the minting is no longer kept: as the parent stands.
        let mut above = Standing::default();
        collect(credentials, parent, depth - 1, &mut above);
        for (host, since) in &above.holders {
            into.add(host, *since, strong);
        }
        for (host, since) in &above.weak {
            into.add(host, *since, false);
        }
        if strong {
            into.stolen = into.stolen.take().or(above.stolen);
            into.waiting = into.waiting.take().or(above.waiting);
        }
    }
}

/// The credential whose alert carries the uses of `id`, with the way down from it: `id` itself
/// (an empty way) when a sensor saw it, else its nearest ancestor that one saw.
pub(crate) fn answerable(
    credentials: &Credentials,
    id: &CredentialId,
) -> Option<(CredentialId, Vec<CredentialId>)> {
    let seen = |id: &CredentialId| credentials.get(id).is_some_and(|s| !s.holders.is_empty());
    if seen(id) {
        return Some((id.clone(), Vec::new()));
    }
    let mut level: Vec<Vec<CredentialId>> = vec![vec![id.clone()]];
    for _ in 0..MAX_DEPTH {
        let mut next = Vec::new();
        for way in level {
            let Some(top) = way.first() else { continue };
            for (parent, ..) in parents(credentials, top) {
                if !parent.kind().is_exact() || way.contains(parent) {
                    continue;
                }
                let mut longer = vec![parent.clone()];
                longer.extend(way.iter().cloned());
                if seen(parent) {
                    return Some((parent.clone(), longer));
                }
                next.push(longer);
            }
        }
        next.truncate(MAX_PARENTS);
        level = next;
    }
    None
}
