//! What one agent does with one credential.

use std::collections::BTreeMap;

use jiff::Timestamp;
use keytrail_model::consumption::{ActionClass, Consumption, Outcome};
use keytrail_model::credential::CredentialId;
use serde::{Deserialize, Serialize};

use super::profile::AgentKey;
use crate::envelope;
use crate::settings::hour_of_day;

/// Most entries of each list; what was not seen for longest goes.
const MAX_LISTED: usize = 128;
/// Most agents per credential.
const MAX_AGENTS: usize = 64;
/// Most secrets remembered for the count within a short time.
const MAX_SECRETS: usize = 256;
/// Most resources looked at of one use.
const MAX_RESOURCES: usize = 64;
/// Weight of the newest hour in the average rate: 1 / 8.
const RATE_SHIFT: u32 = 3;

/// One explained use, as far as baselines care.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Observation {
    pub(crate) credential: CredentialId,
    pub(crate) who: AgentKey,
    /// It read the credential without being one of its expected readers.
    pub(crate) unexpected: bool,
    /// It runs because a package is being installed: by which command.
    pub(crate) install: Option<String>,
    /// A pinned entry of the policy allows it.
    pub(crate) allowed: bool,
    pub(crate) service: String,
    pub(crate) action: String,
    pub(crate) class: ActionClass,
    pub(crate) region: Option<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) network: Option<String>,
    pub(crate) failed: bool,
}

impl Observation {
    pub(crate) fn new(usage: &Consumption, who: AgentKey) -> Self {
        Self {
            credential: usage.credential.clone(),
            who,
            unexpected: false,
            install: None,
            allowed: false,
            service: usage.service.clone(),
            action: usage.action.clone(),
            class: usage.class,
            region: usage.region.clone(),
            resources: usage
                .resources
                .iter()
                .take(MAX_RESOURCES)
                .cloned()
                .collect(),
            network: envelope::network_of(usage),
            failed: matches!(usage.outcome, Outcome::Failure(_)),
        }
    }

    /// `service action`.
    pub(crate) fn call(&self) -> String {
        format!("{} {}", self.service, self.action)
    }
}

/// A resource up to its last `/` (or the whole of it): the folder, vault path or namespace.
pub(crate) fn parent(resource: &str) -> &str {
    resource
        .rsplit_once('/')
        .map_or(resource, |(front, _)| front)
}

/// When something was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
    pub(crate) count: u64,
}

/// A bounded list of things seen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct List(BTreeMap<String, Seen>);

impl List {
    fn add(&mut self, what: &str, time: Timestamp) {
        if let Some(seen) = self.0.get_mut(what) {
            seen.first = seen.first.min(time);
            seen.last = seen.last.max(time);
            seen.count += 1;
            return;
        }
        if self.0.len() >= MAX_LISTED {
            let stale = self.0.iter().min_by_key(|(name, seen)| (seen.last, *name));
            if let Some(stale) = stale.map(|(name, _)| name.clone()) {
                self.0.remove(&stale);
            }
        }
        let seen = Seen {
            first: time,
            last: time,
            count: 1,
        };
        self.0.insert(what.to_owned(), seen);
    }

    pub(crate) fn has(&self, what: &str) -> bool {
        self.0.contains_key(what)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn forget_before(&mut self, horizon: Timestamp) {
        self.0.retain(|_, seen| seen.last >= horizon);
    }

    /// How many are known, and how many of them only since `since`.
    pub(crate) fn recent(&self, since: Timestamp) -> (u64, u64) {
        let recent = self.0.values().filter(|seen| seen.first >= since).count();
        (self.0.len() as u64, recent as u64)
    }
}

/// What one agent does with one credential.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Behaviour {
    pub(crate) learned: u64,
    pub(crate) first: Option<Timestamp>,
    pub(crate) last: Option<Timestamp>,
    pub(crate) services: List,
    pub(crate) calls: List,
    pub(crate) classes: List,
    pub(crate) regions: List,
    pub(crate) networks: List,
    /// Resources by parent.
    pub(crate) resources: List,
    /// Secrets read, whole names.
    pub(crate) secrets: List,
    /// Uses per hour of the day, UTC.
    pub(crate) by_hour: BTreeMap<u8, u64>,
    /// The running hour and its uses.
    hour: Option<(i64, u64)>,
    /// Average uses in an hour with any, in thousandths, exponentially weighted; and of how many
    /// hours.
    rate_milli: u64,
    pub(crate) hours: u64,
}

/// The name of a class in a list.
pub(crate) fn class_name(class: ActionClass) -> &'static str {
    match class {
        ActionClass::Other => "other",
        ActionClass::IdentityCheck => "identity-check",
        ActionClass::List => "list",
        ActionClass::SecretRead => "secret-read",
        ActionClass::Mint => "mint",
        ActionClass::Revoke => "revoke",
        ActionClass::PermissionChange => "permission-change",
        ActionClass::ModelCall => "model-call",
    }
}

impl Behaviour {
    fn learn(&mut self, time: Timestamp, seen: &Observation) {
        self.learned += 1;
        self.first = Some(self.first.map_or(time, |first| first.min(time)));
        self.last = self.last.max(Some(time));
        self.services.add(&seen.service, time);
        self.calls.add(&seen.call(), time);
        self.classes.add(class_name(seen.class), time);
        if let Some(region) = &seen.region {
            self.regions.add(region, time);
        }
        if let Some(network) = &seen.network {
            self.networks.add(network, time);
        }
        for resource in &seen.resources {
            self.resources.add(parent(resource), time);
            if seen.class == ActionClass::SecretRead {
                self.secrets.add(resource, time);
            }
        }
        *self.by_hour.entry(hour_of_day(time)).or_default() += 1;
        let hour = time.as_second().div_euclid(3_600);
        match &mut self.hour {
            Some((running, count)) if *running == hour => *count += 1,
            running => {
                if let Some((_, count)) = running.replace((hour, 1)) {
                    self.finish_hour(count);
                }
            }
        }
    }

    /// An hour ended with so many uses: an exponentially weighted moving average takes it in.
    fn finish_hour(&mut self, count: u64) {
        let new = count.saturating_mul(1_000);
        self.rate_milli = if self.hours == 0 {
            new
        } else {
            (self.rate_milli - (self.rate_milli >> RATE_SHIFT)).saturating_add(new >> RATE_SHIFT)
        };
        self.hours += 1;
    }

    /// Average uses in an hour with any, in thousandths.
    pub(crate) fn rate_milli(&self) -> u64 {
        self.rate_milli
    }

    /// Uses so far in the hour of `time`.
    pub(crate) fn in_hour_of(&self, time: Timestamp) -> u64 {
        let hour = time.as_second().div_euclid(3_600);
        self.hour
            .filter(|(running, _)| *running == hour)
            .map_or(0, |(_, count)| count)
    }

    /// Hours between the first and the last use learned from.
    pub(crate) fn span_hours(&self) -> i64 {
        match (self.first, self.last) {
            (Some(first), Some(last)) => last.duration_since(first).as_hours(),
            _ => 0,
        }
    }

    fn lists(&self) -> [&List; 6] {
        [
            &self.calls,
            &self.regions,
            &self.networks,
            &self.resources,
            &self.secrets,
            &self.classes,
        ]
    }

    /// Share of what is known that was first seen since `since`, percent.
    pub(crate) fn recent_percent(&self, since: Timestamp) -> u64 {
        let (all, recent) = self
            .lists()
            .iter()
            .map(|list| list.recent(since))
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        (recent * 100).checked_div(all).unwrap_or(0)
    }

    fn forget_before(&mut self, horizon: Timestamp) {
        for list in [
            &mut self.services,
            &mut self.calls,
            &mut self.classes,
            &mut self.regions,
            &mut self.networks,
            &mut self.resources,
            &mut self.secrets,
        ] {
            list.forget_before(horizon);
        }
    }
}

/// What every agent does with one credential.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Profile {
    /// Boxed, as most credentials have one agent and a node of the tree has room for eleven.
    #[serde(with = "crate::pairs")]
    agents: BTreeMap<AgentKey, Box<Behaviour>>,
    /// Secrets read lately, whoever learned from it: (time, secret) by agent.
    #[serde(with = "crate::pairs")]
    reads: BTreeMap<AgentKey, Vec<(Timestamp, String)>>,
}

impl Profile {
    pub(crate) fn agents(&self) -> impl Iterator<Item = (&AgentKey, &Behaviour)> {
        self.agents.iter().map(|(who, known)| (who, known.as_ref()))
    }

    pub(crate) fn agent(&self, who: &AgentKey) -> Option<&Behaviour> {
        self.agents.get(who).map(Box::as_ref)
    }

    pub(crate) fn learn(&mut self, time: Timestamp, seen: &Observation) {
        if !self.agents.contains_key(&seen.who) && self.agents.len() >= MAX_AGENTS {
            let stale = self.agents.iter().min_by_key(|(who, b)| (b.last, *who));
            if let Some(stale) = stale.map(|(who, _)| who.clone()) {
                self.agents.remove(&stale);
            }
        }
        self.agents
            .entry(seen.who.clone())
            .or_default()
            .learn(time, seen);
    }

    /// Notes the secrets that a use read; returns how many different ones this agent read since
    /// `since`, these included.
    pub(crate) fn note_reads(
        &mut self,
        time: Timestamp,
        seen: &Observation,
        since: Timestamp,
    ) -> u32 {
        if seen.class != ActionClass::SecretRead {
            return 0;
        }
        if !self.reads.contains_key(&seen.who) && self.reads.len() >= MAX_AGENTS {
            self.reads.pop_first();
        }
        let reads = self.reads.entry(seen.who.clone()).or_default();
        reads.retain(|(at, _)| *at >= since);
        reads.extend(seen.resources.iter().map(|name| (time, name.clone())));
        let over = reads.len().saturating_sub(MAX_SECRETS);
        reads.drain(..over);
        let names: std::collections::BTreeSet<&String> = reads.iter().map(|(_, n)| n).collect();
        u32::try_from(names.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn forget_before(&mut self, horizon: Timestamp) {
        self.agents
            .retain(|_, behaviour| behaviour.last.is_some_and(|last| last >= horizon));
        for behaviour in self.agents.values_mut() {
            behaviour.forget_before(horizon);
        }
        self.reads
            .retain(|_, reads| reads.last().is_some_and(|(at, _)| *at >= horizon));
    }
}
