//! Where a principal is used from, for credentials that no sensor has seen (cloud only).
//!
//! A workload's role is used from few networks and regions, over many sessions. A use from
//! somewhere else, by a principal that is known well enough, is `outside-envelope`. Nothing was seen
//! on an endpoint, so this is never more. As with baselines a use is judged by the uses before it in
//! event time, and what is outside teaches nothing.
//!
//! The name of a network is the one that its record was given when it was taken in. Loading,
//! updating or taking away a table of networks changes names and not places, so it makes no alert:
//! an address next to which the principal has been is never new.

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
/// Most entries of each list of an envelope ...
const MAX_LISTED: usize = 32;
/// ... and of announced routes.
const MAX_ROUTES: usize = 256;

/// The network that a use came from: its autonomous system, or the neighbourhood of its address
/// where no table of networks is loaded.
pub(crate) fn network_of(usage: &Consumption) -> Option<String> {
    if let Some(asn) = usage.network.as_ref().and_then(|network| network.asn) {
        return Some(format!("AS{asn}"));
    }
    address_of(usage).map(area)
}

fn address_of(usage: &Consumption) -> Option<IpAddr> {
    match usage.caller {
        Caller::Address { address } => Some(address),
        Caller::Service { .. } | Caller::Unknown => None,
    }
}

/// The neighbourhood of an address.
fn area(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            format!("{a}.{b}.0.0/16")
        }
        IpAddr::V6(v6) => {
            let [a, b, ..] = v6.segments();
            format!("{a:x}:{b:x}::/32")
        }
    }
}

/// The smallest part of the Internet's routing table that can hold an address: networks filter
/// longer prefixes (RFC 7454, section 6.1.3), so that all of it is in one autonomous system.
fn route(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            format!("{a:x}:{b:x}:{c:x}::/48")
        }
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
    /// The autonomous system, as the use's record names it.
    system: Option<u32>,
    /// The neighbourhood of the address: /16, or /32 for IPv6.
    area: Option<String>,
    /// What is announced as one on the Internet at the least: /24, or /48 for IPv6.
    route: Option<String>,
    /// It is one of the organisation's own egress addresses.
    own: bool,
    country: Option<String>,
    region: Option<String>,
    client: Option<String>,
}

/// How often and for how long something was seen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Tally {
    uses: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

/// What is known of a principal.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Known {
    all: Tally,
    /// Of uses whose network was named: from when on a table was loaded.
    named: Tally,
    /// Of uses whose country was named.
    placed: Tally,
    systems: BTreeSet<u32>,
    areas: BTreeSet<String>,
    routes: BTreeSet<String>,
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

impl Tally {
    fn add(&mut self, time: Timestamp) {
        self.uses += 1;
        self.first = Some(self.first.map_or(time, |first| first.min(time)));
        self.last = self.last.max(Some(time));
    }

    fn warm(&self, (uses, hours): (u64, i64)) -> bool {
        let span = match (self.first, self.last) {
            (Some(first), Some(last)) => last.duration_since(first).as_hours(),
            _ => 0,
        };
        self.uses >= uses && span >= hours
    }
}

/// Adds to a bounded list.
fn list<T: Ord + Clone>(known: &mut BTreeSet<T>, new: Option<&T>, most: usize) {
    if let Some(new) = new
        && known.len() < most
    {
        known.insert(new.clone());
    }
}

/// What is not in a list that holds anything at all.
fn unknown<'a, T: Ord>(known: &BTreeSet<T>, now: Option<&'a T>) -> Option<&'a T> {
    now.filter(|now| !known.contains(*now) && !known.is_empty())
}

/// Whether a list is short enough to say something.
fn narrow<T>(known: &BTreeSet<T>) -> bool {
    known.len() <= MAX_PLACES
}

impl Known {
    fn learn(&mut self, time: Timestamp, place: &Place) {
        self.all.add(time);
        if place.system.is_some() {
            self.named.add(time);
        }
        if place.country.is_some() {
            self.placed.add(time);
        }
        list(&mut self.systems, place.system.as_ref(), MAX_LISTED);
        list(&mut self.areas, place.area.as_ref(), MAX_LISTED);
        list(&mut self.routes, place.route.as_ref(), MAX_ROUTES);
        list(&mut self.countries, place.country.as_ref(), MAX_LISTED);
        list(&mut self.regions, place.region.as_ref(), MAX_LISTED);
        list(&mut self.clients, place.client.as_ref(), MAX_LISTED);
    }

    /// Whether the principal is known at this very place, whatever it was called then: a table's
    /// update gives places other names, and moves nobody.
    fn has_been(&self, place: &Place) -> bool {
        let known = |list: &BTreeSet<String>, one: &Option<String>| {
            one.as_ref().is_some_and(|one| list.contains(one))
        };
        place.own
            || known(&self.routes, &place.route)
            // A principal of more places than are kept is judged by their neighbourhoods.
            || (self.routes.len() >= MAX_ROUTES && known(&self.areas, &place.area))
    }

    /// The network that a use came from, if the principal never was there, and whether that is
    /// certain by itself. Names are compared with names, neighbourhoods with neighbourhoods: that
    /// a table was loaded or taken away is no news of the principal.
    fn new_network(&self, place: &Place) -> Option<(String, bool)> {
        if let Some(system) = place.system
            && self.named.warm(TWO_SIGNS)
        {
            unknown(&self.systems, Some(&system)).filter(|_| narrow(&self.systems))?;
            return Some((format!("AS{system}"), self.named.warm(ONE_SIGN)));
        }
        let area = unknown(&self.areas, place.area.as_ref()).filter(|_| narrow(&self.areas))?;
        // A neighbourhood of addresses is a guess: alone it says nothing.
        Some((area.clone(), false))
    }

    /// What is outside about a use, in words.
    fn judge(&self, place: &Place) -> Option<String> {
        if !self.all.warm(TWO_SIGNS) {
            return None;
        }
        let moved = !self.has_been(place);
        let network = self.new_network(place).filter(|_| moved);
        let country = unknown(&self.countries, place.country.as_ref())
            .filter(|_| moved && narrow(&self.countries) && self.placed.warm(TWO_SIGNS));
        let region = unknown(&self.regions, place.region.as_ref());
        let region = region.filter(|_| narrow(&self.regions));
        let client = unknown(&self.clients, place.client.as_ref());
        let away = network.is_some() || country.is_some();
        let two = away && (region.is_some() || client.is_some());
        let one = self.all.warm(ONE_SIGN)
            && (network.as_ref().is_some_and(|(_, certain)| *certain)
                || (country.is_some() && self.placed.warm(ONE_SIGN))
                || region.is_some());
        if !two && !one {
            return None;
        }
        let words = |what: &str, which: &String| format!("{what} {}", shown(which, 80));
        let signs = [
            network.map(|(network, _)| words("from network", &network)),
            country.map(|country| words("from country", country)),
            region.map(|region| words("in region", region)),
            client.map(|client| words("with client", client)),
        ];
        Some(signs.into_iter().flatten().collect::<Vec<_>>().join(", "))
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
        let address = address_of(&u.usage);
        let network = u.usage.network.as_ref();
        let system = network.and_then(|n| n.asn);
        let counts = u.state == UseState::Unwatched && (address.is_some() || system.is_some());
        let place = Place {
            credential: id.clone(),
            system,
            area: address.map(area),
            route: address.map(route),
            own: self.settings.is_own(&u.usage),
            country: network.and_then(|n| n.country.clone()),
            region: u.usage.region.clone(),
            client: client_of(&u.usage),
        };
        let (before, after) = if counts {
            let envelope = self.envelopes.entry(&principal, key.0);
            let before = envelope.outside.clone();
            envelope.put(key, place);
            (before, envelope.outside.clone())
        } else {
            let Some(envelope) = self.envelopes.principals.get_mut(&principal) else {
                return;
            };
            let before = envelope.outside.clone();
            envelope.take(key);
            (before, envelope.outside.clone())
        };
        if before == after {
            return;
        }
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
    /// Forgets principals that were not used since `horizon`.
    pub(crate) fn forget_before(&mut self, horizon: Timestamp) {
        while let Some((last, principal)) = self.by_last.first() {
            if *last >= horizon {
                break;
            }
            let envelope = self.principals.get(principal);
            let used = envelope.and_then(|envelope| envelope.kept.keys().next_back());
            if used.is_none_or(|(last, _)| *last < horizon) {
                self.principals.remove(principal);
            }
            self.by_last.pop_first();
        }
    }

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
