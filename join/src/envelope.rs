//! Where a principal is used from, for credentials that no sensor has seen (cloud only).
//!
//! A workload's role is used from few networks and regions, over many sessions. A use from
//! somewhere else, by a principal that is known well enough, is `outside-envelope`. Nothing was seen
//! on an endpoint, so this is never more. As with baselines a use is judged by the uses before it in
//! event time, and what is outside teaches nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use keytrail_model::consumption::{Caller, Consumption};
use keytrail_model::credential::{CredentialId, CredentialKind};
use keytrail_model::text::shown;
use serde::{Deserialize, Serialize};

use crate::Join;
use crate::credential::UseKey;
use crate::input::UseState;
use crate::settle::Pending;

/// Most uses kept per principal; older ones are in its envelope for good.
const MAX_KEPT: usize = 512;
/// Most principals; the one longest unused goes.
const MAX_PRINCIPALS: usize = 100_000;
/// Uses and hours before two signs together say something, and before one alone does.
const TWO_SIGNS: (u64, i64) = (8, 2);
const ONE_SIGN: (u64, i64) = (24, 12);
/// A principal used from more networks or regions than this has no envelope to speak of.
const MAX_PLACES: usize = 4;
/// Most entries of each list of an envelope.
const MAX_LISTED: usize = 32;

/// The network that a use came from: its autonomous system, or the neighbourhood of its address
/// where no table of networks is loaded.
pub(crate) fn network_of(usage: &Consumption) -> Option<String> {
    if let Some(asn) = usage.network.as_ref().and_then(|network| network.asn) {
        return Some(format!("AS{asn}"));
    }
    match usage.caller {
        Caller::Address {
            address: IpAddr::V4(v4),
        } => {
            let [a, b, ..] = v4.octets();
            Some(format!("{a}.{b}.0.0/16"))
        }
        Caller::Address {
            address: IpAddr::V6(v6),
        } => {
            let [a, b, ..] = v6.segments();
            Some(format!("{a:x}:{b:x}::/32"))
        }
        Caller::Service { .. } | Caller::Unknown => None,
    }
}

/// Whose envelope a use belongs to: the account that its record says it descends from, else the
/// principal without the name of its session, else the credential itself.
fn principal_of(usage: &Consumption) -> String {
    let account = usage
        .descends
        .iter()
        .find(|id| id.kind() == CredentialKind::Principal);
    if let Some(account) = account {
        return account.to_string();
    }
    match &usage.principal {
        // The last part of an assumed role's name is the session's own.
        Some(name) if name.contains(":assumed-role/") => name
            .rsplit_once('/')
            .map_or(name.as_str(), |(role, _)| role)
            .to_owned(),
        Some(name) => name.clone(),
        None => usage.credential.to_string(),
    }
}

/// The client without its version.
fn client_of(usage: &Consumption) -> Option<String> {
    let agent = usage.user_agent.as_ref()?;
    let family = agent.split(['/', ' ']).next().unwrap_or(agent);
    Some(shown(family, 80).to_string())
}

/// One use, as far as envelopes care.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    credential: CredentialId,
    network: Option<String>,
    /// The network is an autonomous system, not a guess by address.
    named: bool,
    country: Option<String>,
    region: Option<String>,
    client: Option<String>,
}

/// What is known of a principal.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Known {
    uses: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    networks: BTreeSet<String>,
    countries: BTreeSet<String>,
    regions: BTreeSet<String>,
    clients: BTreeSet<String>,
}

/// A principal's envelope, and the uses it rests on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Envelope {
    #[serde(with = "crate::pairs")]
    kept: BTreeMap<UseKey, Place>,
    base: Known,
    base_to: Option<UseKey>,
    live: Known,
    live_to: Option<UseKey>,
    #[serde(with = "crate::pairs")]
    outside: BTreeMap<UseKey, (CredentialId, String)>,
}

/// Envelopes of all principals.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Envelopes {
    principals: BTreeMap<String, Envelope>,
    by_last: BTreeSet<(Timestamp, String)>,
}

impl Known {
    fn learn(&mut self, time: Timestamp, place: &Place) {
        self.uses += 1;
        self.first = Some(self.first.map_or(time, |first| first.min(time)));
        self.last = self.last.max(Some(time));
        for (list, new) in [
            (&mut self.networks, &place.network),
            (&mut self.countries, &place.country),
            (&mut self.regions, &place.region),
            (&mut self.clients, &place.client),
        ] {
            if let Some(new) = new
                && list.len() < MAX_LISTED
            {
                list.insert(new.clone());
            }
        }
    }

    fn warm(&self, (uses, hours): (u64, i64)) -> bool {
        let span = match (self.first, self.last) {
            (Some(first), Some(last)) => last.duration_since(first).as_hours(),
            _ => 0,
        };
        self.uses >= uses && span >= hours
    }

    /// What is outside about a use, in words.
    fn judge(&self, place: &Place) -> Option<String> {
        if !self.warm(TWO_SIGNS) {
            return None;
        }
        let new = |known: &BTreeSet<String>, now: &Option<String>| {
            now.as_ref()
                .filter(|now| !known.contains(*now) && !known.is_empty())
                .map(|now| shown(now, 80).to_string())
        };
        let narrow = |known: &BTreeSet<String>| known.len() <= MAX_PLACES;
        let network = new(&self.networks, &place.network).filter(|_| narrow(&self.networks));
        let country = new(&self.countries, &place.country).filter(|_| narrow(&self.countries));
        let region = new(&self.regions, &place.region).filter(|_| narrow(&self.regions));
        let client = new(&self.clients, &place.client);
        let away = network.is_some() || country.is_some();
        let mut signs: Vec<String> = Vec::new();
        signs.extend(network.as_ref().map(|n| format!("from network {n}")));
        signs.extend(country.as_ref().map(|c| format!("from country {c}")));
        signs.extend(region.as_ref().map(|r| format!("in region {r}")));
        let enough = if away && (region.is_some() || client.is_some()) {
            true
        } else if self.warm(ONE_SIGN) {
            // A neighbourhood of addresses is a guess: alone it says nothing.
            (network.is_some() && place.named) || country.is_some() || region.is_some()
        } else {
            false
        };
        if !enough || signs.is_empty() {
            return None;
        }
        signs.extend(client.map(|c| format!("with client {c}")));
        Some(signs.join(", "))
    }
}

impl Envelope {
    fn put(&mut self, key: &UseKey, place: Place) -> bool {
        let late = self.base_to.as_ref().is_some_and(|to| key <= to);
        if late || self.kept.get(key) == Some(&place) {
            return false;
        }
        self.kept.insert(key.clone(), place);
        self.fold(key);
        true
    }

    fn take(&mut self, key: &UseKey) -> bool {
        let had = self.kept.remove(key).is_some();
        if had {
            self.fold(key);
        }
        had
    }

    /// Judges and learns from `changed` on.
    fn fold(&mut self, changed: &UseKey) {
        if self.live_to.as_ref().is_some_and(|to| changed <= to) {
            self.live = self.base.clone();
            self.live_to = self.base_to.clone();
            self.outside.clear();
        }
        let from = match &self.live_to {
            Some(to) => std::ops::Bound::Excluded(to.clone()),
            None => std::ops::Bound::Unbounded,
        };
        for (key, place) in self.kept.range((from, std::ops::Bound::Unbounded)) {
            match self.live.judge(place) {
                Some(text) => {
                    let found = (place.credential.clone(), text);
                    self.outside.insert(key.clone(), found);
                }
                None => self.live.learn(key.0, place),
            }
            self.live_to = Some(key.clone());
        }
        while self.kept.len() > MAX_KEPT {
            let Some((key, place)) = self.kept.pop_first() else {
                return;
            };
            if self.outside.remove(&key).is_none() {
                self.base.learn(key.0, &place);
            }
            self.base_to = Some(key);
        }
    }
}

impl Join {
    /// Notes what is thought of a use, as far as envelopes care: only what no sensor can judge
    /// teaches, and is judged.
    pub(crate) fn note_place(&mut self, id: &CredentialId, key: &UseKey, pending: &mut Pending) {
        let Some(u) = self.credentials.get(id).and_then(|s| s.uses.get(key)) else {
            return;
        };
        let principal = principal_of(&u.usage);
        let network = network_of(&u.usage);
        let counts = u.state == UseState::Unwatched && network.is_some();
        let place = Place {
            credential: id.clone(),
            named: network.as_ref().is_some_and(|n| n.starts_with("AS")),
            network,
            country: u.usage.network.as_ref().and_then(|n| n.country.clone()),
            region: u.usage.region.clone(),
            client: client_of(&u.usage),
        };
        if !counts && !self.envelopes.principals.contains_key(&principal) {
            return;
        }
        let envelope = self.envelopes.entry(&principal, key.0);
        let before = envelope.outside.clone();
        let changed = if counts {
            envelope.put(key, place)
        } else {
            envelope.take(key)
        };
        if !changed || before == envelope.outside {
            return;
        }
        let after = envelope.outside.clone();
        for (key, (credential, _)) in before.iter().filter(|(key, _)| !after.contains_key(*key)) {
            if let Some(state) = self.credentials.get_mut(credential) {
                state.outside.remove(key);
            }
            pending.tell(credential);
        }
        for (key, (credential, text)) in after {
            if let Some(state) = self.credentials.get_mut(&credential) {
                state.outside.insert(key, text);
            }
            pending.tell(&credential);
        }
    }
}

impl Envelopes {
    fn entry(&mut self, principal: &str, time: Timestamp) -> &mut Envelope {
        let last = self
            .principals
            .get(principal)
            .and_then(|envelope| envelope.kept.keys().next_back())
            .map(|(last, _)| *last);
        if last.is_none_or(|last| time > last) {
            if let Some(last) = last {
                self.by_last.remove(&(last, principal.to_owned()));
            }
            self.by_last.insert((time, principal.to_owned()));
        }
        while self.by_last.len() > MAX_PRINCIPALS {
            let Some((_, gone)) = self.by_last.pop_first() else {
                break;
            };
            self.principals.remove(&gone);
        }
        self.principals.entry(principal.to_owned()).or_default()
    }
}
