//! One input: what it adds to the state, and what must be looked at again because of it.

use jiff::{SignedDuration, Timestamp};
use keytrail_model::consumption::{Consumption, Outcome};
use keytrail_model::credential::CredentialId;
use keytrail_model::fact::{ConnectionOpened, Exposure, Fact, HostEvent, Watermark};
use keytrail_model::ids::{BootId, HostId, ProcessKey};

use crate::credential::Again;
use crate::decide::{CLOSE_SLACK, GAP_REACH};
use crate::host::{Closed, ConnKey, Host, LOCAL_REACH, Opened, UnitKey};
use crate::input::{Effect, UseDecision, UseState};
use crate::settle::Pending;
use crate::timers::Due;
use crate::verdict::Cause;
use crate::{Join, descent, egress};

/// Most credentials kept that no sensor has ever seen. Beyond it, the one longest unused goes.
const MAX_UNWATCHED: usize = 100_000;

/// Most revocations of one credential that are remembered, and most of their opposites: the first
/// ones.
const MAX_REVOCATIONS: usize = 32;

impl Join {
    fn host(&mut self, id: &HostId, time: Timestamp) -> &mut Host {
        if !self.hosts.contains_key(id) {
            let at = time.checked_add(self.retention()).unwrap_or(time);
            self.timers.set(at, Due::AgeHost(id.clone()));
        }
        self.hosts.entry(id.clone()).or_default()
    }

    /// Makes a credential known.
    fn know(&mut self, id: &CredentialId, time: Timestamp) {
        if !self.credentials.contains_key(id) {
            self.credentials.entry(id.clone()).or_default();
            let at = time.checked_add(self.retention()).unwrap_or(time);
            self.timers.set(at, Due::AgeCredential(id.clone()));
        }
    }

    /// A fact from a host.
    pub(crate) fn host_event(&mut self, event: &HostEvent, effects: &mut Vec<Effect>) {
        let host_id = &event.id.host;
        let boot = event.id.boot;
        let host = self.host(host_id, event.time);
        let time = host.corrected(event.time);
        let unit = |root: ProcessKey| UnitKey { boot, root };
        let cause = Cause { time, record: None };
        let mut pending = Pending::default();
        match &event.fact {
            Fact::Exposure(exposure) => {
                self.exposure(event, time, exposure, &mut pending);
            }
            Fact::ConnectionOpened(opened) => {
                let key = open(host, event, time, opened);
                self.connection_changed(host_id, key, &mut pending);
            }
            Fact::ConnectionNamed(named) => {
                let key = ConnKey { boot, id: named.id };
                host.name(key, &named.name, named.source);
                self.connection_changed(host_id, key, &mut pending);
            }
            Fact::ConnectionClosed(closed) => {
                let key = ConnKey {
                    boot,
                    id: closed.id,
                };
                let end = Closed {
                    time,
                    sent: closed.bytes_sent,
                    received: closed.bytes_received,
                };
                host.close(key, end);
                self.connection_ended(host_id, key, &mut pending);
            }
            Fact::Gap(gap) => {
                host.add_gap(gap);
                let from = host.corrected(gap.from);
                let to = host.corrected(gap.to);
                let from = from.checked_sub(GAP_REACH).unwrap_or(from);
                let to = to.checked_add(GAP_REACH).unwrap_or(to);
                for id in host.used_between(from, to) {
                    pending.again_on(host_id, &id, Again::Between(from, to));
                }
            }
            Fact::Coverage(coverage) => {
                host.cover(time, coverage);
                for id in host.used_between(Timestamp::MIN, Timestamp::MAX) {
                    pending.again_on(host_id, &id, Again::Unsettled);
                }
            }
            Fact::Listening(listening) => {
                let key = unit(listening.actor.unit);
                let news = host.units.listen(key, &event.id, listening, time);
                if news {
                    self.identified(host_id, key, &mut pending);
                }
                self.unit_changed(host_id, key, &mut pending);
            }
            Fact::Accepted(accepted) => {
                let key = unit(accepted.unit);
                host.units
                    .entry(key, time)
                    .accept(&event.id, accepted, time);
                self.unit_changed(host_id, key, &mut pending);
            }
            Fact::RequestEdge(edge) => {
                let key = unit(edge.unit);
                host.units.ask(key, edge, time);
                let from = time.checked_sub(egress::NEAR).unwrap_or(time);
                for id in host.used_between(from, Timestamp::MAX) {
                    pending.again_on(host_id, &id, Again::Between(from, Timestamp::MAX));
                }
                self.unit_changed(host_id, key, &mut pending);
            }
            Fact::NameLookups(lookups) => {
                let key = unit(lookups.unit);
                host.units
                    .entry(key, time)
                    .look_up(&event.id, lookups, time);
                self.unit_changed(host_id, key, &mut pending);
            }
            Fact::Tampering(tampering) => {
                host.tamper(&event.id, tampering, time);
                for id in &host.holds {
                    pending.tell(id);
                }
                pending.tell_host(host_id);
            }
            Fact::ConfigChanged(change) => {
                host.configure(&event.id, change, time);
                for id in &host.holds {
                    pending.tell(id);
                }
                pending.tell_host(host_id);
            }
            // Lineage travels inside exposures; the store keeps these for people.
            Fact::ProcessStarted(_) | Fact::ProcessExited(_) => return,
        }
        self.settle(pending, &cause, effects);
    }

    fn exposure(
        &mut self,
        event: &HostEvent,
        time: Timestamp,
        exposure: &Exposure,
        pending: &mut Pending,
    ) {
        let id = &exposure.credential;
        let host_id = &event.id.host;
        let unit = UnitKey {
            boot: event.id.boot,
            root: exposure.actor.unit,
        };
        let news = self
            .host(host_id, time)
            .hold(unit, &event.id, exposure, time);
        if news {
            self.identified(host_id, unit, pending);
        }
        self.know(id, time);
        let Some(state) = self.credentials.get_mut(id) else {
            return;
        };
        if let Some(listed) = state.listed.take() {
            self.unwatched.remove(&(listed, id.clone()));
        }
        let before = state.first_exposure_on(host_id);
        state.expose(&event.id, time, unit, exposure);
        let news = before.is_none_or(|before| time < before);
        self.unit_changed(host_id, unit, pending);
        if !news {
            return;
        }
        // Uses that came before this host was known to hold the credential have one more holder
        // to ask, and its connections one more use to explain. So have those of its descendants.
        pending.again(id, Again::All);
        for child in descent::descendants(&self.credentials, id) {
            pending.again(&child, Again::All);
        }
    }

    /// What a unit's connections account for is now somebody's by name.
    fn identified(&self, host_id: &HostId, unit: UnitKey, pending: &mut Pending) {
        let Some(host) = self.hosts.get(host_id) else {
            return;
        };
        let edges = host.units.get(unit).map(|unit| unit.edges.values());
        let asked = edges.and_then(|edges| edges.min()).copied();
        let Some(first) = host.first_connection(unit).into_iter().chain(asked).min() else {
            return;
        };
        let from = first.checked_sub(egress::NEAR).unwrap_or(first);
        for id in host.used_between(from, Timestamp::MAX) {
            pending.again_on(host_id, &id, Again::Relearn(from, Timestamp::MAX));
        }
    }

    /// What a unit did changed: alerts about what it holds may say another thing.
    fn unit_changed(&self, host: &HostId, unit: UnitKey, pending: &mut Pending) {
        pending.tell_host(host);
        for id in self
            .hosts
            .get(host)
            .into_iter()
            .flat_map(|h| h.held_by(unit))
        {
            pending.tell(id);
            let Some(state) = self.credentials.get(id) else {
                continue;
            };
            for child in &state.children {
                let told = |s: &crate::credential::Credential| s.alert.is_some();
                if self.credentials.get(child).is_some_and(told) {
                    pending.tell(child);
                }
            }
        }
    }

    /// A connection of `host_id` began, got its name or ended.
    fn connection_changed(&self, host_id: &HostId, key: ConnKey, pending: &mut Pending) {
        let Some(host) = self.hosts.get(host_id) else {
            return;
        };
        let Some(connection) = host.connection(key) else {
            return;
        };
        let Some(opened) = connection.opened.as_ref() else {
            return;
        };
        let early = host.before_connection();
        let from = opened.time.checked_sub(early).unwrap_or(opened.time);
        // Later ones were looked at when it became known to have ended.
        let to = connection.closed.map_or(Timestamp::MAX, |closed| {
            let late = CLOSE_SLACK.saturating_add(host.clock_error());
            let ended = closed.time.checked_add(late).unwrap_or(Timestamp::MAX);
            // Its local address counts as the host's for longer.
            let local = opened.time.checked_add(LOCAL_REACH);
            ended.max(local.unwrap_or(Timestamp::MAX))
        });
        for id in host.used_between(from, to) {
            pending.again_on(host_id, &id, Again::Between(from, to));
        }
        self.unit_changed(host_id, opened.unit, pending);
    }

    /// A connection of `host_id` ended: uses long after its end, too, were decided while it seemed
    /// to be open.
    fn connection_ended(&self, host_id: &HostId, key: ConnKey, pending: &mut Pending) {
        let Some(host) = self.hosts.get(host_id) else {
            return;
        };
        let known = host
            .connection(key)
            .and_then(|c| Some((c.opened.as_ref()?, c.closed?)));
        let Some((opened, closed)) = known else {
            return;
        };
        let (from, to) = (closed.time, Timestamp::MAX);
        for id in host.used_between(from, to) {
            pending.again_on(host_id, &id, Again::Between(from, to));
        }
        self.unit_changed(host_id, opened.unit, pending);
    }

    /// A cloud-side use.
    pub(crate) fn usage(&mut self, usage: &Consumption, effects: &mut Vec<Effect>) {
        let id = &usage.credential;
        self.know(id, usage.time);
        let key = (usage.time, usage.id.clone());
        let Some(state) = self.credentials.get_mut(id) else {
            return;
        };
        if state.uses.contains_key(&key) {
            return;
        }
        state.add_use(usage);
        let mut pending = Pending::default();
        pending.again(id, Again::Relearn(usage.time, usage.time));
        self.descend(usage, &mut pending);
        self.revoke(usage, &mut pending);
        self.list_unwatched(id);
        self.bound_unwatched();
        let cause = Cause {
            time: usage.time,
            record: Some(usage.id.clone()),
        };
        self.settle(pending, &cause, effects);
        // Every use is told about once, even if nothing can be said of it.
        if self.use_state(id, &usage.id) == Some(&UseState::Unwatched) {
            effects.push(Effect::Use(UseDecision {
                record: usage.id.clone(),
                credential: id.clone(),
                state: UseState::Unwatched,
            }));
        }
    }

    /// Notes what a record says about descent.
    fn descend(&mut self, usage: &Consumption, pending: &mut Pending) {
        let key = (usage.time, usage.id.clone());
        let mut edges: Vec<(&CredentialId, &CredentialId, bool)> = Vec::new();
        if let Some(child) = &usage.minted {
            edges.push((&usage.credential, child, true));
        }
        let mut below = &usage.credential;
        for ancestor in &usage.descends {
            edges.push((ancestor, below, false));
            below = ancestor;
        }
        for (parent, child, minted) in edges {
            if parent == child {
                continue;
            }
            self.know(parent, usage.time);
            self.know(child, usage.time);
            let new = self
                .credentials
                .get_mut(child)
                .is_some_and(|state| state.descend(parent, minted.then_some(&key)));
            if !new {
                continue;
            }
            if let Some(state) = self.credentials.get_mut(parent) {
                state.beget(child);
            }
            self.list_unwatched(child);
            pending.tell(parent);
            pending.again(child, Again::All);
            for lower in descent::descendants(&self.credentials, child) {
                pending.again(&lower, Again::All);
            }
        }
    }

    /// Notes that a record revoked a credential, or made it valid again.
    fn revoke(&mut self, usage: &Consumption, pending: &mut Pending) {
        if usage.outcome != Outcome::Success {
            return;
        }
        for (id, revoked) in [(&usage.revoked, true), (&usage.restored, false)] {
            let Some(id) = id else { continue };
            self.know(id, usage.time);
            if let Some(state) = self.credentials.get_mut(id) {
                let list = if revoked {
                    &mut state.revoked
                } else {
                    &mut state.restored
                };
                list.insert((usage.time, usage.id.clone()));
                while list.len() > MAX_REVOCATIONS {
                    list.pop_last();
                }
            }
            pending.tell(id);
        }
    }

    /// Lists a credential that no sensor has seen under its last use.
    fn list_unwatched(&mut self, id: &CredentialId) {
        let Some(state) = self.credentials.get_mut(id) else {
            return;
        };
        let last = state.uses.keys().next_back().map(|(time, _)| *time);
        if let (true, Some(last)) = (state.holders.is_empty(), last) {
            if let Some(listed) = state.listed.replace(last) {
                self.unwatched.remove(&(listed, id.clone()));
            }
            self.unwatched.insert((last, id.clone()));
        }
    }

    fn bound_unwatched(&mut self) {
        while self.unwatched.len() > MAX_UNWATCHED {
            if let Some((_, id)) = self.unwatched.pop_first() {
                self.credentials.remove(&id);
                self.dropped_unwatched += 1;
            }
        }
    }

    /// A host's promise that its earlier facts are in.
    pub(crate) fn watermark(&mut self, watermark: &Watermark, effects: &mut Vec<Effect>) {
        let host = self.host(&watermark.host, watermark.time);
        let before = host.watermark;
        let moved = host.advance(watermark);
        let mut pending = Pending::default();
        if let Some(address) = watermark.seen_from {
            let reached = host.corrected(watermark.time);
            for (from, to) in host.seen_at(address, reached) {
                for id in host.used_between(from, to) {
                    pending.again_on(&watermark.host, &id, Again::Between(from, to));
                }
            }
        }
        let reached = host.watermark;
        if moved {
            for id in host.take_waiting() {
                pending.again_on(&watermark.host, &id, Again::Unsettled);
            }
        }
        // A connection without a name counts once its name can no longer come.
        let from = before.and_then(|t| t.checked_sub(SignedDuration::from_secs(10)).ok());
        for unit in host.unnamed_units(from, reached) {
            self.unit_changed(&watermark.host, unit, &mut pending);
        }
        let cause = Cause {
            time: watermark.time,
            record: None,
        };
        self.settle(pending, &cause, effects);
    }
}

fn open(host: &mut Host, event: &HostEvent, time: Timestamp, opened: &ConnectionOpened) -> ConnKey {
    let boot: BootId = event.id.boot;
    let key = ConnKey {
        boot,
        id: opened.id,
    };
    host.open(
        key,
        Opened {
            time,
            event: event.id.clone(),
            unit: UnitKey {
                boot,
                root: opened.unit,
            },
            exe: opened.exe.clone(),
            transport: opened.transport,
            local: opened.local,
            remote: opened.remote,
        },
    );
    key
}
