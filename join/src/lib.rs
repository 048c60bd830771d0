//! The explained-use join.
//!
//! Every cloud-side use of a credential must be accounted for by a connection that a sensor saw
//! on a host that holds the credential. [`Join`] decides that, on event time, from recorded input
//! alone: [`Join::apply`] is the only way in, [`Effect`]s are the only way out.
//!
//! How a use is judged: `decide`. Which outside addresses belong to a host: `egress`. What it all
//! amounts to: `verdict`, and what to do about it: `advice`.
//!
//! Architecture invariants, tested in `tests/`:
//! - JN-1: no I/O, no clock, no randomness. The same inputs give the same effects.
//! - JN-2: any arrival order of the same inputs ends in the same verdicts with the same evidence
//!   (only an alert's history tells the order).
//! - JN-3: a duplicate changes nothing.
//! - JN-4: a snapshot restored goes on as if nothing had happened.
//! - JN-5: every collection is bounded; what is dropped is counted or remembered as blindness.

mod advice;
mod credential;
mod decide;
mod egress;
mod host;
pub mod input;
pub mod lineage;
mod pairs;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use keytrail_model::consumption::Consumption;
use keytrail_model::credential::CredentialId;
use keytrail_model::fact::{Exposure, Fact, HostEvent, Watermark};
use keytrail_model::ids::{HostId, RecordId};
use serde::{Deserialize, Serialize};

use crate::credential::{Credential, Use};
use crate::host::{Closed, ConnKey, Host, Opened, Span, UnitKey};
pub use crate::input::{Effect, Input, Settings, UseDecision, UseState};
pub use crate::lineage::{HolderView, Lineage, Totals, UseView};
use crate::verdict::Cause;

/// Most credentials kept that no sensor has ever seen. Beyond it, the one longest unused goes.
const MAX_UNWATCHED: usize = 100_000;

/// The operator: one value holds the state of every credential of its partition.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Join {
    settings: Settings,
    #[serde(with = "pairs")]
    hosts: BTreeMap<HostId, Host>,
    #[serde(with = "pairs")]
    credentials: BTreeMap<CredentialId, Credential>,
    /// Credentials no sensor has seen, by their last use.
    unwatched: BTreeSet<(Timestamp, CredentialId)>,
    /// Unwatched credentials dropped for want of room.
    dropped_unwatched: u64,
    /// The latest tick.
    now: Option<Timestamp>,
}

/// Which uses of a credential to look at again.
#[derive(Clone, Copy)]
enum Again {
    /// All that are kept.
    All,
    /// Those that no connection explains so far.
    Unsettled,
    /// Those within this stretch of time.
    Between(Timestamp, Timestamp),
}

impl Join {
    /// An empty operator.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// The settings it was made with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes one input in, appends what follows from it to `effects`.
    pub fn apply(&mut self, input: &Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Host(event) => self.host_event(event, effects),
            Input::Use(usage) => self.usage(usage, effects),
            Input::Watermark(watermark) => self.watermark(watermark, effects),
            Input::Tick { time } => self.tick(*time, effects),
        }
    }

    /// Every credential with any state, for listings.
    pub fn credentials(&self) -> impl Iterator<Item = &CredentialId> {
        self.credentials.keys()
    }

    /// Unwatched credentials dropped for want of room so far.
    #[must_use]
    pub fn dropped_unwatched(&self) -> u64 {
        self.dropped_unwatched
    }

    fn host_event(&mut self, event: &HostEvent, effects: &mut Vec<Effect>) {
        let host_id = &event.id.host;
        let boot = event.id.boot;
        let host = self.hosts.entry(host_id.clone()).or_default();
        let time = host.corrected(event.time);
        let touched = match &event.fact {
            Fact::Exposure(exposure) => {
                let unit = UnitKey {
                    boot,
                    root: exposure.actor.unit,
                };
                host.hold(unit, exposure.actor.label(), &exposure.credential, time);
                return self.exposure(event, time, unit, exposure, effects);
            }
            Fact::ConnectionOpened(opened) => {
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
            Fact::ConnectionNamed(named) => {
                let key = ConnKey { boot, id: named.id };
                host.name(key, &named.name, named.source);
                key
            }
            Fact::ConnectionClosed(closed) => {
                let key = ConnKey {
                    boot,
                    id: closed.id,
                };
                let (sent, received) = (closed.bytes_sent, closed.bytes_received);
                host.close(
                    key,
                    Closed {
                        time,
                        sent,
                        received,
                    },
                );
                key
            }
            Fact::Gap(gap) => {
                host.add_gap(gap);
                return self.look_again(host_id, Again::Unsettled, time, effects);
            }
            Fact::Coverage(coverage) => {
                host.cover(time, coverage);
                return self.look_again(host_id, Again::Unsettled, time, effects);
            }
            // Lineage travels inside exposures; the store keeps these for people.
            Fact::ProcessStarted(_)
            | Fact::ProcessExited(_)
            | Fact::Listening(_)
            | Fact::Accepted(_)
            | Fact::RequestEdge(_)
            | Fact::NameLookups(_)
            | Fact::ConfigChanged(_)
            | Fact::Tampering(_) => return,
        };
        self.connection_changed(host_id, touched, time, effects);
    }

    fn exposure(
        &mut self,
        event: &HostEvent,
        time: Timestamp,
        unit: UnitKey,
        exposure: &Exposure,
        effects: &mut Vec<Effect>,
    ) {
        let id = &exposure.credential;
        let state = self.credentials.entry(id.clone()).or_default();
        if state.holders.is_empty()
            && let Some(((last, _), _)) = state.uses.last_key_value()
        {
            self.unwatched.remove(&(*last, id.clone()));
        }
        state.expose(&event.id, time, unit, exposure);
        // Uses that came before this host was known to hold the credential have one more holder
        // to ask, and its connections one more use to explain.
        let seen = self.sight(id, &event.id.host, Timestamp::MIN, Timestamp::MAX);
        let cause = Cause { time, record: None };
        self.redecide(id, Again::All, &cause, effects);
        self.after_sightings(&event.id.host, seen, &cause, effects);
        self.tell_neighbours(&event.id.host, unit, id, &cause, effects);
    }

    /// Alerts about other credentials in the same hands list this one.
    fn tell_neighbours(
        &mut self,
        host: &HostId,
        unit: UnitKey,
        id: &CredentialId,
        cause: &Cause,
        effects: &mut Vec<Effect>,
    ) {
        let others: Vec<CredentialId> = self
            .hosts
            .get(host)
            .into_iter()
            .flat_map(|host| host.held_by(unit))
            .filter(|other| *other != id)
            .cloned()
            .collect();
        for other in others {
            self.tell(&other, cause, effects);
        }
    }

    /// A connection of `host_id` began, got its name or ended.
    fn connection_changed(
        &mut self,
        host_id: &HostId,
        key: ConnKey,
        time: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(host) = self.hosts.get(host_id) else {
            return;
        };
        let Some(connection) = host.connection(key) else {
            return;
        };
        let Some(opened) = &connection.opened else {
            return;
        };
        let from = opened.time.checked_sub(egress::NEAR).unwrap_or(opened.time);
        let to = connection.closed.map_or(Timestamp::MAX, |closed| {
            closed.time.checked_add(egress::NEAR).unwrap_or(closed.time)
        });
        let cause = Cause { time, record: None };
        let holds: Vec<CredentialId> = host.holds.iter().cloned().collect();
        for id in &holds {
            let seen = self.sight(id, host_id, from, to);
            self.after_sightings(host_id, seen, &cause, effects);
        }
        for id in &holds {
            self.redecide(id, Again::Between(from, to), &cause, effects);
        }
    }

    fn usage(&mut self, usage: &Consumption, effects: &mut Vec<Effect>) {
        let id = usage.credential.clone();
        if let Some(child) = &usage.minted {
            self.minted(&id, child);
        }
        let state = self.credentials.entry(id.clone()).or_default();
        let key = (usage.time, usage.id.clone());
        if state.uses.contains_key(&key) {
            return;
        }
        let last_use = |state: &Credential| state.uses.keys().next_back().map(|(time, _)| *time);
        if state.holders.is_empty()
            && let Some(last) = last_use(state)
        {
            self.unwatched.remove(&(last, id.clone()));
        }
        let undecided = Use {
            usage: usage.clone(),
            state: UseState::Unwatched,
            via: None,
        };
        state.uses.insert(key, undecided);
        if state.holders.is_empty()
            && let Some(last) = last_use(state)
        {
            self.unwatched.insert((last, id.clone()));
        }
        self.bound_unwatched();
        let holders: Vec<HostId> = match self.credentials.get(&id) {
            Some(state) => state.holders.keys().cloned().collect(),
            None => return,
        };
        let cause = Cause {
            time: usage.time,
            record: Some(usage.id.clone()),
        };
        for host in &holders {
            let seen = self.sight(&id, host, usage.time, usage.time);
            self.after_sightings(host, seen, &cause, effects);
        }
        self.redecide(&id, Again::Between(usage.time, usage.time), &cause, effects);
        // Every use is told about once, even if nothing can be said of it.
        if self.use_state(&id, &usage.id) == Some(&UseState::Unwatched) {
            effects.push(Effect::Use(UseDecision {
                record: usage.id.clone(),
                credential: id,
                state: UseState::Unwatched,
            }));
        }
    }

    fn minted(&mut self, parent: &CredentialId, child: &CredentialId) {
        if parent == child {
            return;
        }
        let state = self.credentials.entry(child.clone()).or_default();
        state.parent.get_or_insert_with(|| parent.clone());
        let state = self.credentials.entry(parent.clone()).or_default();
        state.children.insert(child.clone());
    }

    fn watermark(&mut self, watermark: &Watermark, effects: &mut Vec<Effect>) {
        let host = self.hosts.entry(watermark.host.clone()).or_default();
        if host.advance(watermark) {
            self.look_again(&watermark.host, Again::Unsettled, watermark.time, effects);
        }
    }

    fn tick(&mut self, time: Timestamp, effects: &mut Vec<Effect>) {
        if self.now.is_some_and(|now| now >= time) {
            return;
        }
        // Ageing is cheap but not free: once an hour is enough, and so is the look at indecision.
        let hour = |t: Timestamp| t.as_second().div_euclid(3_600);
        let new_hour = self.now.is_none_or(|now| hour(now) != hour(time));
        self.now = Some(time);
        if !new_hour {
            return;
        }
        let kept = SignedDuration::from_hours(24 * i64::from(self.settings.retention_days));
        if let Ok(horizon) = time.checked_sub(kept) {
            self.age_out(horizon);
        }
        let ids: Vec<CredentialId> = self.credentials.keys().cloned().collect();
        for id in ids {
            self.tell(&id, &Cause { time, record: None }, effects);
        }
    }

    fn age_out(&mut self, horizon: Timestamp) {
        self.credentials.retain(|_, state| {
            !state.forget_before(horizon) || state.alert.is_some() || !state.children.is_empty()
        });
        let credentials = &self.credentials;
        self.unwatched
            .retain(|(_, id)| credentials.contains_key(id));
        for host in self.hosts.values_mut() {
            host.forget_before(horizon);
            host.holds.retain(|id| credentials.contains_key(id));
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

    /// Looks at the uses of everything that `host` holds again.
    fn look_again(
        &mut self,
        host: &HostId,
        again: Again,
        time: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let holds: Vec<CredentialId> = match self.hosts.get(host) {
            Some(host) => host.holds.iter().cloned().collect(),
            None => return,
        };
        for id in holds {
            self.redecide(&id, again, &Cause { time, record: None }, effects);
        }
    }

    /// Collects what the uses of `id` within a stretch of time show about the addresses of `host`.
    /// Returns the stretch of time of what is new.
    fn sight(
        &mut self,
        id: &CredentialId,
        host: &HostId,
        from: Timestamp,
        to: Timestamp,
    ) -> Option<Span> {
        let state = self.credentials.get(id)?;
        let host = self.hosts.get_mut(host)?;
        let mut new: Option<Span> = None;
        for ((time, _), u) in &state.uses {
            if *time < from || *time > to {
                continue;
            }
            for sighting in decide::sightings(host, &u.usage) {
                if host.sight(sighting) {
                    new.get_or_insert(Span::at(*time)).include(*time);
                }
            }
        }
        new
    }

    /// A sighting changes what is believed about uses around it and, over pooled connections,
    /// after it: of every credential of that host.
    fn after_sightings(
        &mut self,
        host: &HostId,
        seen: Option<Span>,
        cause: &Cause,
        effects: &mut Vec<Effect>,
    ) {
        let Some(Span { first, last }) = seen else {
            return;
        };
        let from = first.checked_sub(egress::NEAR).unwrap_or(first);
        let to = last.checked_add(egress::POOLED).unwrap_or(last);
        let holds: Vec<CredentialId> = match self.hosts.get(host) {
            Some(host) => host.holds.iter().cloned().collect(),
            None => return,
        };
        for id in holds {
            self.redecide(&id, Again::Between(from, to), cause, effects);
        }
    }

    /// Decides uses of `id` anew and tells what changed.
    fn redecide(
        &mut self,
        id: &CredentialId,
        again: Again,
        cause: &Cause,
        effects: &mut Vec<Effect>,
    ) {
        let Some(state) = self.credentials.get(id) else {
            return;
        };
        let mut changed = Vec::new();
        for (key, u) in &state.uses {
            let wanted = match again {
                Again::All => true,
                Again::Unsettled => !matches!(
                    u.state,
                    UseState::Explained { .. } | UseState::ServiceSide { .. }
                ),
                Again::Between(from, to) => key.0 >= from && key.0 <= to,
            };
            if !wanted {
                continue;
            }
            let decided = decide::decide(&self.settings, &self.hosts, state, &u.usage);
            if decided.0 != u.state || decided.1 != u.via {
                changed.push((key.clone(), decided));
            }
        }
        let Some(state) = self.credentials.get_mut(id) else {
            return;
        };
        for (key, decided) in changed {
            let Some(u) = state.uses.get_mut(&key) else {
                continue;
            };
            if u.redecide(decided) {
                effects.push(Effect::Use(UseDecision {
                    record: u.usage.id.clone(),
                    credential: id.clone(),
                    state: u.state.clone(),
                }));
            }
        }
        state.bound();
        self.tell(id, cause, effects);
    }

    /// Weighs everything about `id` and tells the alert if it is not what was told before.
    fn tell(&mut self, id: &CredentialId, cause: &Cause, effects: &mut Vec<Effect>) {
        let Some(state) = self.credentials.get(id) else {
            return;
        };
        if state.holders.is_empty() && state.alert.is_none() {
            return;
        }
        let Some(weighed) = verdict::weigh(&self.settings, &self.hosts, id, state, self.now) else {
            return;
        };
        let alert = weighed.alert(cause);
        if state.alert.as_deref() == Some(&alert) {
            return;
        }
        let alert = Box::new(alert);
        effects.push(Effect::Alert(alert.clone()));
        if let Some(state) = self.credentials.get_mut(id) {
            state.alert = Some(alert);
        }
    }

    /// Holders, uses and what explains them, for one credential.
    #[must_use]
    pub fn lineage(&self, credential: &CredentialId) -> Option<Lineage> {
        let state = self.credentials.get(credential)?;
        Some(lineage::of(credential, state, &self.hosts))
    }

    /// Records kept about a use, for tests and tools: what is thought of it now.
    #[must_use]
    pub fn use_state(&self, credential: &CredentialId, record: &RecordId) -> Option<&UseState> {
        let state = self.credentials.get(credential)?;
        state
            .uses
            .iter()
            .find(|((_, id), _)| id == record)
            .map(|(_, u)| &u.state)
    }
}
