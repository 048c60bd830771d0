//! What the join keeps about one host: how far its facts reach, its connections, its addresses.

mod index;
pub(crate) mod unit;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use jiff::{SignedDuration, Timestamp};
use keytrail_model::alert::Alert;
use keytrail_model::coverage::Coverage;
use keytrail_model::credential::CredentialId;
use keytrail_model::fact::{
    ConfigChanged, Exposure, Gap, GapKind, NameSource, TamperKind, Tampering, Transport, Watermark,
};
use keytrail_model::ids::{BootId, ConnectionId, EventRef, ProcessKey};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::index::{Lifetime, OpenAt};
use self::unit::{Unit, Units};
use crate::egress::{POOLED, STREAM, Sighting};
use crate::pairs;

/// Most connections kept per host; older ones are forgotten first and the horizon is remembered.
pub(crate) const MAX_CONNECTIONS: usize = 65_536;
/// How long a local address is believed to be the host's own after a connection from it.
pub(crate) const LOCAL_REACH: SignedDuration = SignedDuration::from_hours(1);
/// Most changes of configurations kept per host.
const MAX_CONFIG: usize = 256;
/// Most signs of tampering kept per host.
const MAX_TAMPERING: usize = 64;
/// Most gaps kept per host.
const MAX_GAPS: usize = 1_024;
/// Error added to every measured clock error: scheduling, rounding of a record's time.
const CLOCK_SLACK: SignedDuration = SignedDuration::from_millis(250);

/// A connection's name within one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ConnKey {
    pub(crate) boot: BootId,
    pub(crate) id: ConnectionId,
}

impl ConnKey {
    /// The least key.
    pub(crate) const FIRST: Self = Self {
        boot: BootId(Uuid::nil()),
        id: ConnectionId(0),
    };
}

/// A unit's name within one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct UnitKey {
    pub(crate) boot: BootId,
    pub(crate) root: ProcessKey,
}

/// The three facts about a connection, in whatever order they came.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Connection {
    pub(crate) opened: Option<Opened>,
    pub(crate) name: Option<String>,
    pub(crate) name_source: Option<NameSource>,
    pub(crate) closed: Option<Closed>,
}

/// How a connection began. Times are corrected to the correlator's clock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Opened {
    pub(crate) time: Timestamp,
    pub(crate) event: EventRef,
    pub(crate) unit: UnitKey,
    pub(crate) exe: String,
    pub(crate) transport: Transport,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Closed {
    pub(crate) time: Timestamp,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// State of one host.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Host {
    /// All earlier facts have arrived.
    pub(crate) watermark: Option<Timestamp>,
    /// Host clock minus correlator clock, from the latest watermark.
    clock_offset_ms: i64,
    clock_error_ms: u32,
    /// From where the correlator sees this host, and when.
    #[serde(with = "pairs")]
    pub(crate) seen_from: BTreeMap<IpAddr, Span>,
    pub(crate) coverage: Option<(Timestamp, Coverage)>,
    pub(crate) gaps: Vec<Gap>,
    #[serde(with = "pairs")]
    connections: BTreeMap<ConnKey, Connection>,
    open_at: OpenAt,
    /// Connections of each unit by name (unknown: empty), in order of opening.
    #[serde(with = "pairs")]
    by_unit: BTreeMap<UnitKey, BTreeMap<String, BTreeSet<(Timestamp, ConnKey)>>>,
    by_time: BTreeSet<(Timestamp, ConnKey)>,
    /// Connections that opened before this may have been forgotten.
    pub(crate) forgotten_before: Option<Timestamp>,
    pub(crate) sightings: BTreeSet<Sighting>,
    /// Credentials seen here.
    pub(crate) holds: BTreeSet<CredentialId>,
    /// Times of uses that connections of this host may account for, and of which credentials.
    #[serde(with = "pairs")]
    used: BTreeMap<Timestamp, BTreeSet<CredentialId>>,
    /// The coarsest time of those uses' records.
    coarsest_ms: u32,
    /// Credentials with uses that wait for this host's facts.
    waiting: BTreeSet<CredentialId>,
    /// Units that did something of note.
    pub(crate) units: Units,
    /// Signs that the sensor was tampered with: the first ones.
    #[serde(with = "pairs")]
    pub(crate) tampering: BTreeMap<(Timestamp, EventRef), (TamperKind, String)>,
    /// Changes of what agents start or trust: the first ones.
    #[serde(with = "pairs")]
    pub(crate) config: BTreeMap<(Timestamp, EventRef), Box<ConfigChanged>>,
    /// Alerts about the host itself, as last told, by their subject.
    #[serde(with = "pairs")]
    pub(crate) alerts: BTreeMap<CredentialId, Box<Alert>>,
}

/// A stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
}

impl Span {
    pub(crate) fn at(time: Timestamp) -> Self {
        Self {
            first: time,
            last: time,
        }
    }

    pub(crate) fn include(&mut self, time: Timestamp) {
        self.first = self.first.min(time);
        self.last = self.last.max(time);
    }
}

impl Host {
    /// A host's time on the correlator's clock. Out of range stays as it is: it is then refused
    /// by every window.
    pub(crate) fn corrected(&self, time: Timestamp) -> Timestamp {
        time.checked_sub(SignedDuration::from_millis(self.clock_offset_ms))
            .unwrap_or(time)
    }

    /// How far a corrected time may be off.
    pub(crate) fn clock_error(&self) -> SignedDuration {
        SignedDuration::from_millis(i64::from(self.clock_error_ms)).saturating_add(CLOCK_SLACK)
    }

    /// Takes a watermark in. True when it moved.
    pub(crate) fn advance(&mut self, watermark: &Watermark) -> bool {
        // The clock is measured anew with every watermark; the newest measurement counts.
        let newer = self
            .watermark
            .is_none_or(|seen| self.corrected(watermark.time) >= seen);
        if newer {
            self.clock_offset_ms = watermark.clock_offset_ms;
            self.clock_error_ms = watermark.clock_error_ms;
        }
        let reached = self.corrected(watermark.time);
        let moved = self.watermark.is_none_or(|seen| reached > seen);
        if moved {
            self.watermark = Some(reached);
        }
        moved
    }

    /// Notes from where the correlator saw this host at `reached`. Returns the stretches of time for
    /// which more is believed of that address than before.
    pub(crate) fn seen_at(
        &mut self,
        address: IpAddr,
        reached: Timestamp,
    ) -> Vec<(Timestamp, Timestamp)> {
        let before = self.seen_from.get(&address).copied();
        let now = self.seen_from.entry(address).or_insert(Span::at(reached));
        now.include(reached);
        let earlier = |time: Timestamp, by: SignedDuration| time.checked_sub(by).unwrap_or(time);
        let later = |time: Timestamp, by: SignedDuration| time.checked_add(by).unwrap_or(time);
        match before {
            None => vec![(earlier(now.first, POOLED), later(now.last, POOLED))],
            Some(before) if before == *now => Vec::new(),
            // What is newly believed near either end is kept for a day by connections open then.
            Some(before) => [
                (before.first > now.first).then(|| {
                    let from = earlier(now.first, POOLED);
                    (from, later(before.first, POOLED))
                }),
                (before.last < now.last)
                    .then(|| (later(before.last, STREAM), later(now.last, POOLED))),
            ]
            .into_iter()
            .flatten()
            .collect(),
        }
    }

    pub(crate) fn cover(&mut self, time: Timestamp, coverage: &Coverage) {
        if self.coverage.as_ref().is_none_or(|(seen, _)| time >= *seen) {
            self.coverage = Some((time, coverage.clone()));
        }
    }

    pub(crate) fn add_gap(&mut self, gap: &Gap) {
        if self.gaps.contains(gap) {
            return;
        }
        let at = self.gaps.partition_point(|known| known.to <= gap.to);
        self.gaps.insert(at, gap.clone());
        if self.gaps.len() > MAX_GAPS {
            // Joining the two oldest claims too much blindness rather than too little.
            let oldest = self.gaps.remove(0);
            if let Some(next) = self.gaps.first_mut() {
                next.from = next.from.min(oldest.from);
                next.what = GapKind::All;
            }
        }
    }

    /// The gap that hides connections between `from` and `to`, if any.
    pub(crate) fn blind_between(&self, from: Timestamp, to: Timestamp) -> Option<&Gap> {
        self.gaps.iter().find(|gap| {
            matches!(gap.what, GapKind::Network | GapKind::Process | GapKind::All)
                && self.corrected(gap.from) <= to
                && self.corrected(gap.to) >= from
        })
    }

    pub(crate) fn connection(&self, key: ConnKey) -> Option<&Connection> {
        self.connections.get(&key)
    }

    /// Notes that a connection opened.
    pub(crate) fn open(&mut self, key: ConnKey, opened: Opened) {
        let time = opened.time;
        let connection = self.connections.entry(key).or_default();
        if connection.opened.is_some() {
            return;
        }
        connection.opened = Some(opened);
        self.list(key, true);
        self.by_time.insert((time, key));
        while self.by_time.len() > MAX_CONNECTIONS {
            self.forget_oldest();
        }
    }

    /// Notes a connection's name.
    pub(crate) fn name(&mut self, key: ConnKey, name: &str, source: NameSource) {
        let connection = self.connections.entry(key).or_default();
        // A name from the handshake is worth more than one from DNS; the first of a kind stays.
        if connection.name_source.is_some_and(|known| known <= source) {
            return;
        }
        self.list(key, false);
        if let Some(connection) = self.connections.get_mut(&key) {
            connection.name = Some(name.to_owned());
            connection.name_source = Some(source);
        }
        self.list(key, true);
    }

    /// Notes that a connection closed.
    pub(crate) fn close(&mut self, key: ConnKey, closed: Closed) {
        if self
            .connections
            .get(&key)
            .is_some_and(|c| c.closed.is_some())
        {
            return;
        }
        self.list(key, false);
        self.connections.entry(key).or_default().closed = Some(closed);
        self.list(key, true);
    }

    /// Lists a connection by its present name and lifetime, or takes it off that list.
    fn list(&mut self, key: ConnKey, on: bool) {
        let Some(connection) = self.connections.get(&key) else {
            return;
        };
        let Some(opened) = &connection.opened else {
            return;
        };
        let life = Lifetime {
            opened: opened.time,
            closed: connection.closed.map(|closed| closed.time),
        };
        let name = connection.name.as_deref().unwrap_or_default();
        let names = self.by_unit.entry(opened.unit).or_default();
        if on {
            self.open_at.insert(key, name, life);
            names
                .entry(name.to_owned())
                .or_default()
                .insert((opened.time, key));
            return;
        }
        self.open_at.remove(key, name, life);
        if let Some(keys) = names.get_mut(name) {
            keys.remove(&(opened.time, key));
            if keys.is_empty() {
                names.remove(name);
            }
        }
        if names.is_empty() {
            self.by_unit.remove(&opened.unit);
        }
    }

    /// Connections that may have been open between `from` and `to` and whose name `fits`; `None`:
    /// the name is not known.
    pub(crate) fn open_between(
        &self,
        from: Timestamp,
        to: Timestamp,
        fits: impl Fn(Option<&str>) -> bool,
    ) -> BTreeMap<ConnKey, &Connection> {
        self.open_at
            .between(from, to)
            .filter(|(name, _)| fits((!name.is_empty()).then_some(*name)))
            .flat_map(|(_, keys)| keys)
            .filter_map(|key| Some((*key, self.connections.get(key)?)))
            .collect()
    }

    /// Units with connections without a name that opened after `from` and not after `to`.
    pub(crate) fn unnamed_units(
        &self,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
    ) -> BTreeSet<UnitKey> {
        let from = from.unwrap_or(Timestamp::MIN);
        let to = to.unwrap_or(Timestamp::MAX);
        self.by_time
            .range((from, ConnKey::FIRST)..)
            .take_while(|(time, _)| *time <= to)
            .filter_map(|(_, key)| self.connections.get(key))
            .filter(|connection| connection.name.is_none())
            .filter_map(|connection| connection.opened.as_ref())
            .map(|opened| opened.unit)
            .collect()
    }

    /// Connections of one unit whose name (`None`: unknown) `fits`: of each name the first ones,
    /// in order of opening.
    pub(crate) fn of_unit(
        &self,
        unit: UnitKey,
        fits: impl Fn(Option<&str>) -> bool,
        leaves: impl Fn(&Connection) -> bool,
        most: usize,
    ) -> Vec<&Connection> {
        let mut found: Vec<(Timestamp, ConnKey, &Connection)> = Vec::new();
        let names = self.by_unit.get(&unit).into_iter().flatten();
        for (_, keys) in names.filter(|(name, _)| fits((!name.is_empty()).then_some(name.as_str())))
        {
            let all = keys
                .iter()
                .filter_map(|(time, key)| Some((*time, *key, self.connections.get(key)?)));
            found.extend(all.filter(|(.., connection)| leaves(connection)).take(most));
        }
        found.sort_by_key(|(time, key, _)| (*time, *key));
        found.truncate(most);
        found
            .into_iter()
            .map(|(.., connection)| connection)
            .collect()
    }

    /// True when a connection around `time` had this local address.
    pub(crate) fn has_local(&self, address: IpAddr, time: Timestamp) -> bool {
        let from = time.checked_sub(LOCAL_REACH).unwrap_or(time);
        self.by_time
            .range((from, ConnKey::FIRST)..)
            .take_while(|(opened, _)| *opened <= time)
            .filter_map(|(_, key)| self.connections.get(key))
            .filter_map(|connection| connection.opened.as_ref())
            .any(|opened| opened.local.ip() == address)
    }

    /// Notes a sign that the sensor was tampered with.
    pub(crate) fn tamper(&mut self, event: &EventRef, tampering: &Tampering, time: Timestamp) {
        let entry = (tampering.what, tampering.detail.clone());
        self.tampering.insert((time, event.clone()), entry);
        while self.tampering.len() > MAX_TAMPERING {
            self.tampering.pop_last();
        }
    }

    /// True when something here talks over a socket that cannot be seen into.
    pub(crate) fn made_opaque_socket(&self) -> bool {
        let opaque = |(what, _): &(TamperKind, String)| *what == TamperKind::OpaqueSocket;
        self.tampering.values().any(opaque)
    }

    /// Notes a change of what agents start or trust.
    pub(crate) fn configure(&mut self, event: &EventRef, change: &ConfigChanged, time: Timestamp) {
        self.config
            .insert((time, event.clone()), Box::new(change.clone()));
        while self.config.len() > MAX_CONFIG {
            self.config.pop_last();
        }
    }

    /// True when there is nothing to say about the host itself.
    pub(crate) fn is_quiet(&self) -> bool {
        self.config.is_empty()
            && self.tampering.is_empty()
            && self.alerts.is_empty()
            && !self.units.any_listening()
    }

    /// When a unit first connected.
    pub(crate) fn first_connection(&self, unit: UnitKey) -> Option<Timestamp> {
        let names = self.by_unit.get(&unit)?.values();
        names
            .filter_map(|keys| keys.first())
            .map(|(time, _)| *time)
            .min()
    }

    /// Notes a use that connections of this host may account for.
    pub(crate) fn note_use(
        &mut self,
        time: Timestamp,
        granularity_ms: u32,
        credential: &CredentialId,
    ) {
        self.coarsest_ms = self.coarsest_ms.max(granularity_ms);
        let entry = self.used.entry(time).or_default();
        if !entry.contains(credential) {
            entry.insert(credential.clone());
        }
        // Beyond the bound, the oldest are not looked at again when late facts come.
        while self.used.len() > MAX_CONNECTIONS {
            self.used.pop_first();
        }
    }

    /// How much before a connection the recorded time of a use may lie that it carried.
    pub(crate) fn before_connection(&self) -> SignedDuration {
        SignedDuration::from_millis(i64::from(self.coarsest_ms)).saturating_add(self.clock_error())
    }

    /// Credentials with uses between `from` and `to` that connections here may account for.
    pub(crate) fn used_between(&self, from: Timestamp, to: Timestamp) -> BTreeSet<CredentialId> {
        self.used
            .range(from..=to.max(from))
            .flat_map(|(_, ids)| ids)
            .cloned()
            .collect()
    }

    /// Notes that uses of `credential` wait for facts of this host.
    pub(crate) fn wait(&mut self, credential: &CredentialId) {
        if !self.waiting.contains(credential) {
            self.waiting.insert(credential.clone());
        }
    }

    /// Takes the credentials with uses that wait for facts of this host.
    pub(crate) fn take_waiting(&mut self) -> BTreeSet<CredentialId> {
        std::mem::take(&mut self.waiting)
    }

    /// Notes that a unit came to hold a credential.
    /// True when it says another thing about who the unit is, or what it may do.
    pub(crate) fn hold(
        &mut self,
        unit: UnitKey,
        event: &EventRef,
        exposure: &Exposure,
        at: Timestamp,
    ) -> bool {
        self.holds.insert(exposure.credential.clone());
        self.units.entry(unit, at).hold(event, exposure, at)
    }

    /// Credentials in the hands of one unit.
    pub(crate) fn held_by(&self, unit: UnitKey) -> impl Iterator<Item = &CredentialId> {
        self.units.get(unit).into_iter().flat_map(Unit::holds)
    }

    /// Drops what ended before `horizon`.
    pub(crate) fn forget_before(&mut self, horizon: Timestamp) {
        while let Some((time, key)) = self.by_time.first().copied() {
            let ended = self
                .connections
                .get(&key)
                .and_then(|c| c.closed)
                .map(|c| c.time);
            // An old connection that is still open is rare; it is kept by not going past it.
            if time >= horizon || ended.is_none_or(|ended| ended >= horizon) {
                break;
            }
            self.remove(time, key);
        }
        self.gaps.retain(|gap| gap.to >= horizon);
        self.tampering.retain(|(time, _), _| *time >= horizon);
        self.config.retain(|(time, _), _| *time >= horizon);
        self.sightings.retain(|sighting| sighting.time >= horizon);
        self.seen_from.retain(|_, span| span.last >= horizon);
        self.units.forget_before(horizon);
        self.used = self.used.split_off(&horizon);
    }

    fn forget_oldest(&mut self) {
        if let Some((time, key)) = self.by_time.first().copied() {
            self.remove(time, key);
            self.forgotten_before = Some(self.forgotten_before.map_or(time, |t| t.max(time)));
        }
    }

    fn remove(&mut self, time: Timestamp, key: ConnKey) {
        self.list(key, false);
        self.by_time.remove(&(time, key));
        self.connections.remove(&key);
    }
}
