//! Which source addresses a host's calls come from, as the provider sees them.
//!
//! A host behind NAT, a VPN or a hotel's Wi-Fi does not know its own public address. It is learned
//! from *sightings*: a use that a freshly opened connection to the very endpoint accounts for in
//! time shows the address that this connection has on the outside.
//!
//! A thief who happens to call the same endpoint in the same seconds leaves a sighting too. So an
//! address is only believed when it is what most connections from the same local address showed
//! around that time. Everything here is a function of the *set* of sightings, never of their order
//! of arrival (JN-2).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use jiff::{SignedDuration, Timestamp};
use keytrail_model::alert::AddressMatch;
use serde::{Deserialize, Serialize};

use crate::host::{ConnKey, Host};
use crate::settings::Settings;

/// Sightings this close to a use decide whether its address is believed.
pub(crate) const NEAR: SignedDuration = SignedDuration::from_mins(30);
/// A pooled connection is believed to keep the address last sighted within this time.
pub(crate) const POOLED: SignedDuration = SignedDuration::from_hours(24);
/// How long the address of the sensor's own stream is believed on either side of being seen.
pub(crate) const STREAM: SignedDuration = SignedDuration::from_mins(30);
/// Records so close to each other tell of calls over the same fresh connection.
const TOGETHER: SignedDuration = SignedDuration::from_secs(6);
/// Most sightings kept per host.
const MAX_SIGHTINGS: usize = 4_096;

/// One observation: a connection from `local` was, on the outside, `outside`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Sighting {
    pub(crate) local: IpAddr,
    pub(crate) time: Timestamp,
    pub(crate) outside: IpAddr,
    pub(crate) connection: ConnKey,
    /// The record's address is one of the organisation's own.
    pub(crate) own: bool,
}

impl Sighting {
    /// The least sighting of `local` at `time`.
    fn first(local: IpAddr, time: Timestamp) -> Self {
        Self {
            local,
            time,
            outside: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            connection: ConnKey::FIRST,
            own: false,
        }
    }
}

/// Addresses that a translator (NAT) must stand in front of, so that the outside address differs.
/// Sources: RFC 1918, RFC 6598, RFC 3927, RFC 4193, RFC 4291.
fn is_translated(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || is_carriers(address)
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// Addresses between a carrier's translator and its customers. Source: RFC 6598.
fn is_carriers(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            a == 100 && b & 0xc0 == 64
        }
        IpAddr::V6(_) => false,
    }
}

/// Addresses of one NAT pool are taken as one: the /24, or the /48 for IPv6.
fn pool(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            IpAddr::from([a, b, c, 0])
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            IpAddr::from([a, b, c, 0, 0, 0, 0, 0])
        }
    }
}

/// True when the sightings around `time` look like a change of address (another Wi-Fi, a VPN) and not
/// like two parties: the connection showed this address only, and all that showed others came
/// before, or all came after.
fn changed(near: &[&Sighting], key: ConnKey, outside: IpAddr, time: Timestamp) -> bool {
    let other = |s: &&&Sighting| pool(s.outside) != pool(outside);
    let mut others = near.iter().filter(other);
    let exclusive = !near.iter().filter(other).any(|s| s.connection == key);
    let before = near.iter().filter(other).all(|s| s.time < time);
    exclusive && (before || others.all(|s| s.time > time))
}

/// True when two IPv6 addresses are of one link: temporary addresses (RFC 8981) change the lower
/// half.
fn same_network(a: IpAddr, b: IpAddr) -> bool {
    match (a, b) {
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            !is_translated(IpAddr::V6(a)) && a.segments().get(..4) == b.segments().get(..4)
        }
        (IpAddr::V4(_) | IpAddr::V6(_), _) => false,
    }
}

impl Host {
    /// Notes a sighting. True when it is new and may change what is believed.
    pub(crate) fn sight(&mut self, sighting: Sighting) -> bool {
        if sighting.outside == sighting.local || !is_translated(sighting.local) {
            return false;
        }
        let new = self.sightings.insert(sighting);
        if self.sightings.len() > MAX_SIGHTINGS {
            let oldest = self.sightings.iter().min_by_key(|s| s.time).copied();
            if let Some(oldest) = oldest {
                self.sightings.remove(&oldest);
            }
        }
        new
    }

    /// Why a use at `time` from `outside` can have come over the connection `key` from `local`, or
    /// `None` when it cannot. `fresh` says that the connection had just opened.
    pub(crate) fn address_match(
        &self,
        settings: &Settings,
        (key, local): (ConnKey, IpAddr),
        outside: IpAddr,
        time: Timestamp,
        fresh: bool,
    ) -> Option<AddressMatch> {
        if outside == local {
            return Some(AddressMatch::Local);
        }
        if same_network(outside, local) {
            return Some(AddressMatch::SameNetwork);
        }
        if settings.is_declared(outside) {
            return Some(AddressMatch::Declared);
        }
        if self.streams_from(outside, time) {
            return Some(AddressMatch::SeenFrom);
        }
        if !is_translated(local) || self.contradicted(settings, (key, local), outside, time) {
            return None;
        }
        self.learned(settings, (key, local), outside, time, fresh)
    }

    /// True when the correlator saw this host's stream come from `outside` around `time`.
    fn streams_from(&self, outside: IpAddr, time: Timestamp) -> bool {
        self.seen_from.iter().any(|(address, span)| {
            (*address == outside || same_network(*address, outside))
                && within(time, span.first, span.last, STREAM)
        })
    }

    /// True when `outside` is an address of this host around `time` whatever its sightings say.
    fn is_sure(&self, settings: &Settings, outside: IpAddr, time: Timestamp) -> bool {
        settings.is_declared(outside) || self.streams_from(outside, time)
    }

    /// True when the connection is known to have had another address in those seconds: a record
    /// shows a sure one, and no other way out of the host can have carried that. Two parties then
    /// called in the same seconds, and the other address is not the host's.
    fn contradicted(
        &self,
        settings: &Settings,
        (key, local): (ConnKey, IpAddr),
        outside: IpAddr,
        time: Timestamp,
    ) -> bool {
        let from = time.checked_sub(TOGETHER).unwrap_or(time);
        let to = time.checked_add(TOGETHER).unwrap_or(time);
        self.of_local(local, from, to)
            .filter(|s| s.connection == key && pool(s.outside) != pool(outside))
            .filter(|s| s.own || self.is_sure(settings, s.outside, time))
            .any(|sure| self.ways_to(sure.outside, time).0 < 2)
    }

    /// Ways out of the host that showed `outside` in the seconds around `time`, and how many
    /// different networks these showed. A way is a local address: what leaves by the same one has one
    /// address outside, but behind a carrier's translator, where each connection has its own.
    fn ways_to(&self, outside: IpAddr, time: Timestamp) -> (usize, usize) {
        // Rare enough to look at all of them.
        let together = || {
            let close = |s: &&Sighting| within(s.time, time, time, TOGETHER);
            self.sightings.iter().filter(close)
        };
        let way = |s: &Sighting| (s.local, is_carriers(s.local).then_some(s.connection));
        let ways: BTreeSet<_> = together()
            .filter(|s| pool(s.outside) == pool(outside))
            .map(way)
            .collect();
        let networks: BTreeSet<IpAddr> = together()
            .filter(|s| ways.contains(&way(s)))
            .map(|s| pool(s.outside))
            .collect();
        (ways.len(), networks.len())
    }

    fn of_local(
        &self,
        local: IpAddr,
        from: Timestamp,
        to: Timestamp,
    ) -> impl Iterator<Item = &Sighting> {
        self.sightings
            .range(Sighting::first(local, from)..)
            .take_while(move |s| s.local == local && s.time <= to)
    }

    /// True when records that are still on their way may tell that the connection `key`, whose own
    /// outside address no record shows, has the address `outside`: what is known of the host does
    /// not speak against it.
    pub(crate) fn may_turn_out(
        &self,
        (key, local): (ConnKey, IpAddr),
        outside: IpAddr,
        time: Timestamp,
    ) -> bool {
        if !is_translated(local) {
            return false;
        }
        let reach = |back: SignedDuration, ahead: SignedDuration| {
            let from = time.checked_sub(back).unwrap_or(Timestamp::MIN);
            let to = time.checked_add(ahead).unwrap_or(Timestamp::MAX);
            self.of_local(local, from, to)
        };
        let mut near = reach(NEAR, NEAR).peekable();
        if near.peek().is_some() {
            // Another connection shows an address of the same network: one alone is not enough to
            // believe it of this one, and too much to deny it.
            return near.all(|s| s.connection != key && pool(s.outside) == pool(outside));
        }
        if reach(POOLED, SignedDuration::ZERO).next().is_some() {
            return false;
        }
        let streams = self
            .seen_from
            .values()
            .any(|span| within(time, span.first, span.last, STREAM));
        // A carrier's translator gives each connection an address of its own choice, the stream's
        // says nothing about others.
        !streams || is_carriers(local)
    }

    /// True when this very connection was seen to have this address within the day before, was
    /// never seen to have another, and that was believed then.
    fn kept_address(
        &self,
        settings: &Settings,
        (key, local): (ConnKey, IpAddr),
        outside: IpAddr,
        time: Timestamp,
    ) -> bool {
        let from = time.checked_sub(POOLED).unwrap_or(Timestamp::MIN);
        let own: Vec<&Sighting> = self
            .of_local(local, from, time)
            .filter(|s| s.connection == key)
            .collect();
        let Some(first) = own.first() else {
            return false;
        };
        own.iter().all(|s| s.outside == outside)
            && self
                .learned(settings, (key, local), outside, first.time, true)
                .is_some()
    }

    fn learned(
        &self,
        settings: &Settings,
        (key, local): (ConnKey, IpAddr),
        outside: IpAddr,
        time: Timestamp,
        fresh: bool,
    ) -> Option<AddressMatch> {
        let reach = |back: SignedDuration, ahead: SignedDuration| {
            let from = time.checked_sub(back).unwrap_or(Timestamp::MIN);
            let to = time.checked_add(ahead).unwrap_or(Timestamp::MAX);
            self.of_local(local, from, to)
        };
        // A connection keeps its outside address for as long as it lasts: what was believed of it
        // when it was fresh holds.
        if !fresh && self.kept_address(settings, (key, local), outside, time) {
            return Some(AddressMatch::Learned);
        }
        let near: Vec<&Sighting> = reach(NEAR, NEAR).collect();
        // Per pool: how many connections showed it, and since when.
        let mut votes: BTreeMap<IpAddr, (Vec<ConnKey>, Timestamp, IpAddr)> = BTreeMap::new();
        for sighting in &near {
            let (connections, since, _) = votes.entry(pool(sighting.outside)).or_insert((
                Vec::new(),
                sighting.time,
                sighting.outside,
            ));
            *since = (*since).min(sighting.time);
            if !connections.contains(&sighting.connection) {
                connections.push(sighting.connection);
            }
        }
        // A draw is decided by what else is known: a sure address, or one of the day before.
        let known = |address: IpAddr| {
            let own = near.iter().any(|s| s.own && s.outside == address);
            let sure = own || self.is_sure(settings, address, time);
            sure || reach(POOLED, -NEAR).any(|s| pool(s.outside) == pool(address))
        };
        let winner = votes
            .iter()
            .min_by_key(|(address, (connections, since, first))| {
                let unknown = votes.len() > 1 && !known(*first);
                let most = std::cmp::Reverse(connections.len());
                (most, unknown, *since, **address)
            });
        match winner {
            Some((address, (connections, ..))) if *address == pool(outside) => {
                if connections.len() > 1 {
                    Some(AddressMatch::Learned)
                } else {
                    fresh.then_some(AddressMatch::FirstSeen)
                }
            }
            Some((_, (connections, ..))) => {
                let draw = votes
                    .get(&pool(outside))
                    .is_some_and(|(own, ..)| own.len() == connections.len());
                let fits = || {
                    let (ways, networks) = self.ways_to(outside, time);
                    draw && ways >= networks
                };
                (fresh && (changed(&near, key, outside, time) || fits()))
                    .then_some(AddressMatch::FirstSeen)
            }
            None => {
                let last =
                    reach(POOLED, SignedDuration::ZERO).max_by_key(|s| (s.time, s.outside))?;
                (pool(last.outside) == pool(outside)).then_some(AddressMatch::Learned)
            }
        }
    }

    /// True when `outside` was one of this host's outside addresses around `time`, whichever
    /// connection showed it.
    pub(crate) fn is_own_address(
        &self,
        settings: &Settings,
        outside: IpAddr,
        time: Timestamp,
    ) -> bool {
        let near = |at: Timestamp| {
            let since = time.duration_since(at);
            -NEAR <= since && since <= POOLED
        };
        settings.is_declared(outside)
            || self.seen_from.iter().any(|(address, span)| {
                pool(*address) == pool(outside) && within(time, span.first, span.last, POOLED)
            })
            || self
                .sightings
                .iter()
                .any(|s| near(s.time) && pool(s.outside) == pool(outside))
            || self.has_local(outside, time)
    }

    /// Every outside address this host is known by, for people.
    pub(crate) fn known_egress(&self) -> Vec<IpAddr> {
        let mut all: Vec<IpAddr> = self.seen_from.keys().copied().collect();
        all.extend(self.sightings.iter().map(|sighting| sighting.outside));
        all.sort_unstable();
        all.dedup();
        all.truncate(16);
        all
    }
}

/// True when `time` lies between `first` and `last`, `margin` allowed on either side.
fn within(time: Timestamp, first: Timestamp, last: Timestamp, margin: SignedDuration) -> bool {
    time.duration_since(first) >= -margin && time.duration_since(last) <= margin
}
