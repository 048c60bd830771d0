//! Looking at uses again, and saying what changed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::{SignedDuration, Timestamp};
use keytrail_model::credential::CredentialId;
use keytrail_model::ids::HostId;

use crate::baseline::behaviour::Observation;
use crate::baseline::profile::AgentKey;
use crate::credential::{Again, Use, UseKey};
use crate::decide::{Anew, Decision};
use crate::host::Span;
use crate::host::unit::Unit;
use crate::input::{Effect, UseDecision, UseState};
use crate::timers::Due;
use crate::verdict::{self, Cause};
use crate::{Join, decide, descent, egress, lifecycle};

/// Most looks that one input may cause; a graph without cycles needs far fewer.
const MAX_LOOKS: usize = 100_000;

/// What is to be looked at again because of an input.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    looks: VecDeque<(CredentialId, Again, Option<HostId>)>,
    tell: BTreeSet<CredentialId>,
    hosts: BTreeSet<HostId>,
}

impl Pending {
    /// Uses of `id` are to be decided anew.
    pub(crate) fn again(&mut self, id: &CredentialId, again: Again) {
        self.looks.push_back((id.clone(), again, None));
    }

    /// The same, because of what `host` saw: what other holders say about them stays as it is.
    pub(crate) fn again_on(&mut self, host: &HostId, id: &CredentialId, again: Again) {
        self.looks
            .push_back((id.clone(), again, Some(host.clone())));
    }

    /// What is said about a host itself may change.
    pub(crate) fn tell_host(&mut self, id: &HostId) {
        if !self.hosts.contains(id) {
            self.hosts.insert(id.clone());
        }
    }

    /// What is said about `id` may change.
    pub(crate) fn tell(&mut self, id: &CredentialId) {
        if !self.tell.contains(id) {
            self.tell.insert(id.clone());
        }
    }
}

impl Join {
    /// Looks at everything pending, and at what follows from that, then tells what changed.
    pub(crate) fn settle(
        &mut self,
        mut pending: Pending,
        cause: &Cause,
        effects: &mut Vec<Effect>,
    ) {
        for _ in 0..MAX_LOOKS {
            let Some((id, again, host)) = pending.looks.pop_front() else {
                break;
            };
            self.redecide(&id, again, host.as_ref(), &mut pending, effects);
        }
        for id in pending.tell {
            if self.tell(&id, cause, effects)
                && let Some(state) = self.credentials.get(&id)
            {
                pending.hosts.extend(state.holders.keys().cloned());
            }
        }
        for id in pending.hosts {
            self.tell_host(&id, cause, effects);
        }
    }

    /// Decides uses of `id` anew; `on`: because of what this host saw.
    fn redecide(
        &mut self,
        id: &CredentialId,
        again: Again,
        on: Option<&HostId>,
        pending: &mut Pending,
        effects: &mut Vec<Effect>,
    ) {
        let Some(state) = self.credentials.get(id) else {
            return;
        };
        let keys = state.wanted(again);
        pending.tell(id);
        self.sight(id, &keys, on, pending);
        let standing = descent::standing(&self.credentials, id);
        let Some(state) = self.credentials.get(id) else {
            return;
        };
        let relearn = matches!(again, Again::Relearn(..));
        let wanted = if relearn { keys.clone() } else { Vec::new() };
        let decided: Vec<(UseKey, Decision)> = keys
            .into_iter()
            .filter_map(|key| {
                let u = state.uses.get(&key)?;
                let host = on.and_then(|on| self.hosts.get_key_value(on));
                let anew =
                    host.and_then(|host| decide::decide_on(&self.settings, host, &standing, u));
                let decision = match anew {
                    Some(Anew::Same) => return None,
                    Some(Anew::Other(decision)) => decision,
                    None => decide::decide(&self.settings, &self.hosts, &standing, &u.usage),
                };
                Some((key, decision))
            })
            .collect();
        let mut keys = wanted;
        for (key, decision) in decided {
            if self.apply_decision(id, &key, decision, pending, effects) && !relearn {
                keys.push(key);
            }
        }
        self.answer(id, pending);
        self.follow_answer(id);
        for key in &keys {
            self.learn(id, key);
            self.note_place(id, key, pending);
        }
        if let Some(state) = self.credentials.get_mut(id) {
            state.bound();
        }
    }

    /// When another credential answers for the uses of `id` by now, its baseline learns from them.
    fn follow_answer(&mut self, id: &CredentialId) {
        let Some(state) = self.credentials.get(id) else {
            return;
        };
        let owner = state.answers_to.clone().unwrap_or_else(|| id.clone());
        let moved = state.learned_by.clone().filter(|by| *by != owner);
        if let Some(before) = moved {
            self.move_lessons(id, &before, &owner);
        }
        if let Some(state) = self.credentials.get_mut(id) {
            state.learned_by = Some(owner);
        }
    }

    /// Has the baseline learn from a use, if it is explained, or forget it.
    pub(crate) fn learn(&mut self, id: &CredentialId, key: &UseKey) {
        let Some(state) = self.credentials.get(id) else {
            return;
        };
        let Some(u) = state.uses.get(key) else {
            return;
        };
        let owner = state.answers_to.clone().unwrap_or_else(|| id.clone());
        let seen = self.observe(&owner, u);
        if let Some(state) = self.credentials.get_mut(&owner) {
            state.learn(key, seen);
        }
    }

    /// Another credential answers for the uses of `id` now: its baseline learns from them instead.
    fn move_lessons(&mut self, id: &CredentialId, before: &CredentialId, now: &CredentialId) {
        let Some(state) = self.credentials.get(id) else {
            return;
        };
        let lessons: Vec<(UseKey, Option<Observation>)> = state
            .uses
            .iter()
            .map(|(key, u)| (key.clone(), self.observe(now, u)))
            .collect();
        for (key, seen) in lessons {
            if let Some(state) = self.credentials.get_mut(before) {
                state.learn(&key, None);
            }
            if let (Some(state), Some(seen)) = (self.credentials.get_mut(now), seen) {
                state.learn(&key, Some(seen));
            }
        }
    }

    /// An explained use as the baseline of `owner` sees it.
    fn observe(&self, owner: &CredentialId, u: &Use) -> Option<Observation> {
        let UseState::Explained { by, .. } = &u.state else {
            return None;
        };
        let via = u.via.as_ref()?;
        let unit = self.hosts.get(&via.host)?.units.get(via.unit);
        let who = unit
            .and_then(Unit::agent_key)
            .unwrap_or_else(|| AgentKey::program(by));
        let allowed = [&self.settings.policy, &self.policy]
            .iter()
            .any(|policy| policy.allows(&who, &u.usage, owner));
        let mut seen = Observation::new(&u.usage, who);
        seen.allowed = allowed;
        if let Some(unit) = unit {
            seen.unexpected = unit.unexpected(&u.usage.credential) || unit.unexpected(owner);
            seen.install = unit.actor().and_then(lifecycle::of);
        }
        Some(seen)
    }

    fn apply_decision(
        &mut self,
        id: &CredentialId,
        key: &UseKey,
        decision: Decision,
        pending: &mut Pending,
        effects: &mut Vec<Effect>,
    ) -> bool {
        for host in &decision.waits_for {
            if let Some(host) = self.hosts.get_mut(host) {
                host.wait(id);
            }
        }
        let undecided = matches!(decision.state, UseState::Undecided { .. });
        let Some(state) = self.credentials.get_mut(id) else {
            return false;
        };
        if !state.settle(key, decision.state, decision.via) {
            return false;
        }
        let Some(u) = state.uses.get(key) else {
            return false;
        };
        effects.push(Effect::Use(UseDecision {
            record: u.usage.id.clone(),
            credential: id.clone(),
            state: u.state.clone(),
        }));
        // What is thought of a minting decides whose the child is.
        if let Some(child) = &u.usage.minted {
            pending.again(child, Again::All);
        }
        if undecided {
            let patience = SignedDuration::from_hours(i64::from(self.settings.undecided_hours));
            let patience = patience.saturating_add(SignedDuration::from_secs(1));
            let at = key.0.checked_add(patience).unwrap_or(key.0);
            self.timers.set(at, Due::Tell(id.clone()));
        }
        true
    }

    /// Collects what uses of `id` show about the addresses of the hosts that may have made them.
    /// A sighting changes what is believed about uses around it and, over pooled connections,
    /// after it: of every credential of that host.
    fn sight(
        &mut self,
        id: &CredentialId,
        keys: &[UseKey],
        on: Option<&HostId>,
        pending: &mut Pending,
    ) {
        let mut new: BTreeMap<HostId, Span> = BTreeMap::new();
        let mut reach = descent::reach(&self.credentials, id);
        if let Some(on) = on {
            reach.retain(|host| host == on);
        }
        let Some(state) = self.credentials.get(id) else {
            return;
        };
        for host_id in reach {
            let Some(host) = self.hosts.get_mut(&host_id) else {
                continue;
            };
            for key in keys {
                let Some(u) = state.uses.get(key) else {
                    continue;
                };
                if on.is_none() {
                    host.note_use(key.0, u.usage.granularity_ms, id);
                }
                for sighting in decide::sightings(&self.settings, host, &u.usage) {
                    if host.sight(sighting) {
                        let span = new.entry(host_id.clone()).or_insert(Span::at(key.0));
                        span.include(key.0);
                    }
                }
            }
        }
        for (host, Span { first, last }) in new {
            let from = first.checked_sub(egress::NEAR).unwrap_or(first);
            // A connection keeps for a day the address that it had when that was believed, and that is
            // believed for a day after the sighting.
            let to = last
                .checked_add(egress::POOLED * 2)
                .unwrap_or(Timestamp::MAX);
            let Some((host_id, host)) = self.hosts.get_key_value(&host) else {
                continue;
            };
            for other in host.used_between(from, to) {
                pending.again_on(host_id, &other, Again::Between(from, to));
            }
        }
    }

    /// Finds out whose alert carries the uses of `id`, and has it told.
    fn answer(&mut self, id: &CredentialId, pending: &mut Pending) {
        let answers_to = descent::answerable(&self.credentials, id)
            .map(|(owner, _)| owner)
            .filter(|owner| owner != id);
        let Some(state) = self.credentials.get_mut(id) else {
            return;
        };
        let before = std::mem::replace(&mut state.answers_to, answers_to.clone());
        let open = !state.open.is_empty();
        if before != answers_to
            && let Some(before) = before
        {
            if let Some(owner) = self.credentials.get_mut(&before) {
                owner.troubled.remove(id);
            }
            pending.tell(&before);
        }
        if let Some(owner_id) = answers_to {
            if let Some(owner) = self.credentials.get_mut(&owner_id) {
                if open {
                    owner.troubled.insert(id.clone());
                } else {
                    owner.troubled.remove(id);
                }
            }
            pending.tell(&owner_id);
        }
    }

    /// Has told what is said about `id`, and by whoever answers for it.
    pub(crate) fn tell_answerable(&self, id: &CredentialId, pending: &mut Pending) {
        pending.tell(id);
        if let Some(owner) = self.credentials.get(id).and_then(|s| s.answers_to.as_ref()) {
            pending.tell(owner);
        }
    }

    /// Weighs everything about `id` and tells the alert if it is not what was told before. True
    /// when there was something to tell.
    fn tell(&mut self, id: &CredentialId, cause: &Cause, effects: &mut Vec<Effect>) -> bool {
        let learner = self
            .credentials
            .get_mut(id)
            .and_then(|s| s.learner.as_mut());
        if let Some(learner) = learner {
            learner.fold(&self.settings.baseline);
        }
        let Some(state) = self.credentials.get(id) else {
            return false;
        };
        let view = verdict::View {
            settings: &self.settings,
            hosts: &self.hosts,
            credentials: &self.credentials,
            now: self.now,
        };
        let Some(weighed) = verdict::weigh(view, id, state) else {
            return false;
        };
        let alert = weighed.alert(cause);
        if state.alert.as_deref() == Some(&alert) {
            return false;
        }
        let alert = Box::new(alert);
        if let Some(suppressed) = &alert.suppressed {
            self.timers.set(suppressed.until, Due::Tell(id.clone()));
        }
        effects.push(Effect::Alert(alert.clone()));
        if let Some(state) = self.credentials.get_mut(id) {
            state.alert = Some(alert);
        }
        true
    }
}
