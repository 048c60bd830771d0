//! What is kept of one unit: who it is, what it holds, and what it did beside connecting.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use keytrail_model::credential::CredentialId;
use keytrail_model::fact::{Accepted, Exposure, Listening, NameLookups, RequestEdge};
use keytrail_model::ids::EventRef;
use keytrail_model::process::Actor;
use serde::{Deserialize, Serialize};

use super::UnitKey;
use crate::baseline::profile::AgentKey;
use crate::pairs;

/// Most units kept per host; those longest quiet go first.
const MAX_UNITS: usize = 4_096;
/// Most entries of each list below.
const MAX_LISTED: usize = 64;

/// The units of one host.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Units {
    #[serde(with = "pairs")]
    units: BTreeMap<UnitKey, Unit>,
    by_last: BTreeSet<(Timestamp, UnitKey)>,
    /// Units that wait for connections.
    listeners: BTreeSet<UnitKey>,
    /// Units that asked daemons to act for them.
    askers: BTreeSet<UnitKey>,
}

/// A unit that did something of note.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Unit {
    /// The earliest record that says who it is, and what it says.
    identity: Option<(Timestamp, EventRef, Box<Actor>)>,
    /// Credentials it holds, and whether it was an unexpected reader of each.
    #[serde(with = "pairs")]
    held: BTreeMap<CredentialId, bool>,
    /// Daemons it asked to act for it: daemon, path, since when.
    #[serde(with = "pairs")]
    pub(crate) edges: BTreeMap<(String, String), Timestamp>,
    /// Names it asked a resolver for, by record.
    #[serde(with = "pairs")]
    pub(crate) lookups: BTreeMap<(Timestamp, EventRef), NameLookups>,
    /// Where it waits for connections, by record.
    #[serde(with = "pairs")]
    pub(crate) listening: BTreeMap<(Timestamp, EventRef), Box<Listening>>,
    /// Connections it took in, by record: the first ones.
    #[serde(with = "pairs")]
    pub(crate) accepted: BTreeMap<(Timestamp, EventRef), Accepted>,
    last: Option<Timestamp>,
}

impl Units {
    pub(crate) fn get(&self, key: UnitKey) -> Option<&Unit> {
        self.units.get(&key)
    }

    /// Notes that a unit asked a daemon to act for it.
    pub(crate) fn ask(&mut self, key: UnitKey, edge: &RequestEdge, time: Timestamp) {
        self.askers.insert(key);
        self.entry(key, time).ask(edge, time);
    }

    /// The first daemon, and through what, that a holder of one of `credentials` asked before
    /// `time`.
    pub(crate) fn asked_before(
        &self,
        credentials: &[CredentialId],
        time: Timestamp,
    ) -> Option<(&str, &str)> {
        let units = self.askers.iter().filter_map(|key| self.units.get(key));
        units
            .filter(|unit| credentials.iter().any(|id| unit.held.contains_key(id)))
            .flat_map(|unit| &unit.edges)
            .filter(|(_, since)| **since <= time)
            .map(|((daemon, through), since)| (since, daemon.as_str(), through.as_str()))
            .min()
            .map(|(_, daemon, through)| (daemon, through))
    }

    /// Units that wait for connections.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = (UnitKey, &Unit)> {
        let known = |key: &UnitKey| Some((*key, self.units.get(key)?));
        self.listeners.iter().filter_map(known)
    }

    pub(crate) fn any_listening(&self) -> bool {
        !self.listeners.is_empty()
    }

    /// Notes that a unit waits for connections. True when it says another thing about who it is.
    pub(crate) fn listen(
        &mut self,
        key: UnitKey,
        event: &EventRef,
        listening: &Listening,
        time: Timestamp,
    ) -> bool {
        self.listeners.insert(key);
        self.entry(key, time).listen(event, listening, time)
    }

    /// The unit, to be changed by something that happened at `time`.
    pub(crate) fn entry(&mut self, key: UnitKey, time: Timestamp) -> &mut Unit {
        let last = self.units.get(&key).and_then(|unit| unit.last);
        if last.is_none_or(|last| time > last) {
            if let Some(last) = last {
                self.by_last.remove(&(last, key));
            }
            self.by_last.insert((time, key));
        }
        while self.by_last.len() > MAX_UNITS {
            let quiet = self
                .by_last
                .iter()
                .find(|(_, quiet)| *quiet != key)
                .copied();
            let Some((last, gone)) = quiet else { break };
            self.by_last.remove(&(last, gone));
            self.units.remove(&gone);
            self.listeners.remove(&gone);
            self.askers.remove(&gone);
        }
        let unit = self.units.entry(key).or_default();
        unit.last = unit.last.max(Some(time));
        unit
    }

    pub(crate) fn forget_before(&mut self, horizon: Timestamp) {
        while let Some((last, key)) = self.by_last.first().copied() {
            if last >= horizon {
                break;
            }
            self.by_last.remove(&(last, key));
            self.units.remove(&key);
            self.listeners.remove(&key);
            self.askers.remove(&key);
        }
    }
}

/// Keeps a list bounded: the latest go, so that what came first stays, in any order of arrival.
fn bound<K: Ord, V>(list: &mut BTreeMap<K, V>) {
    while list.len() > MAX_LISTED {
        list.pop_last();
    }
}

impl Unit {
    pub(crate) fn hold(&mut self, event: &EventRef, exposure: &Exposure, time: Timestamp) -> bool {
        let identified = self.identify(event, &exposure.actor, time);
        let delegates = !self.edges.is_empty() && !self.held.contains_key(&exposure.credential);
        let unexpected = self.held.entry(exposure.credential.clone()).or_default();
        let news = delegates || (exposure.unexpected_reader && !*unexpected);
        *unexpected |= exposure.unexpected_reader;
        bound(&mut self.held);
        identified || news
    }

    fn identify(&mut self, event: &EventRef, actor: &Actor, time: Timestamp) -> bool {
        let earlier = self
            .identity
            .as_ref()
            .is_none_or(|(known, by, _)| (time, event) < (*known, by));
        if earlier {
            self.identity = Some((time, event.clone(), Box::new(actor.clone())));
        }
        earlier
    }

    fn listen(&mut self, event: &EventRef, listening: &Listening, time: Timestamp) -> bool {
        self.listening
            .insert((time, event.clone()), Box::new(listening.clone()));
        bound(&mut self.listening);
        self.identify(event, &listening.actor, time)
    }

    pub(crate) fn accept(&mut self, event: &EventRef, accepted: &Accepted, time: Timestamp) {
        self.accepted
            .insert((time, event.clone()), accepted.clone());
        bound(&mut self.accepted);
    }

    pub(crate) fn look_up(&mut self, event: &EventRef, lookups: &NameLookups, time: Timestamp) {
        self.lookups.insert((time, event.clone()), lookups.clone());
        bound(&mut self.lookups);
    }

    fn ask(&mut self, edge: &RequestEdge, time: Timestamp) {
        let key = (edge.daemon.clone(), edge.through.clone());
        let since = self.edges.entry(key).or_insert(time);
        *since = (*since).min(time);
        bound(&mut self.edges);
    }

    pub(crate) fn actor(&self) -> Option<&Actor> {
        self.identity.as_ref().map(|(_, _, actor)| actor.as_ref())
    }

    /// Who it is, in one line.
    pub(crate) fn label(&self) -> Option<String> {
        self.actor().map(Actor::label)
    }

    /// Who it is, over restarts.
    pub(crate) fn agent_key(&self) -> Option<AgentKey> {
        self.actor().map(AgentKey::of)
    }

    pub(crate) fn holds(&self) -> impl Iterator<Item = &CredentialId> {
        self.held.keys()
    }

    /// True when it read `credential` without being one of its expected readers.
    pub(crate) fn unexpected(&self, credential: &CredentialId) -> bool {
        self.held.get(credential).copied().unwrap_or_default()
    }
}
