//! The explained-use join.
//!
//! Every cloud-side use of a credential must be accounted for by a connection that a sensor saw
//! on a host that holds the credential. [`Join`] decides that, on event time, from recorded input
//! alone: [`Join::apply`] is the only way in, [`Effect`]s are the only way out.
//!
//! How a use is judged: `decide`. Which outside addresses belong to a host: `egress`. Which
//! credential comes from which: `descent`. What is usual for an agent: `baseline`. What it all
//! amounts to: `verdict` and `findings`, and what to do about it: `advice`. What an input makes us
//! look at again, and nothing else: `intake` and `settle`.
//!
//! Architecture invariants, tested in `tests/`:
//! - JN-1: no I/O, no clock, no randomness. The same inputs give the same effects.
//! - JN-2: any arrival order of the same inputs ends in the same verdicts with the same evidence
//!   (only an alert's history tells the order).
//! - JN-3: a duplicate changes nothing.
//! - JN-4: a snapshot restored goes on as if nothing had happened.
//! - JN-5: every collection is bounded; what is dropped is counted or remembered as blindness.

mod advice;
pub mod baseline;
mod credential;
mod decide;
mod descent;
mod egress;
mod envelope;
mod findings;
mod host;
pub mod input;
mod intake;
mod lifecycle;
pub mod lineage;
mod pairs;
mod pattern;
pub mod settings;
mod settle;
mod subjects;
mod suppress;
mod surroundings;
mod timers;
mod verdict;
mod weigh;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use keytrail_model::credential::CredentialId;
use keytrail_model::ids::{HostId, RecordId};
use serde::{Deserialize, Serialize};

use crate::baseline::policy::Policy;
use crate::credential::Credential;
use crate::envelope::Envelopes;
use crate::host::Host;
pub use crate::input::{Effect, Input, UseDecision, UseState};
pub use crate::lineage::{HolderView, Lineage, Totals, UseView};
pub use crate::settings::Settings;
use crate::timers::Timers;

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
    /// Where principals that no sensor sees are used from.
    envelopes: Envelopes,
    /// What is to be looked at when its time comes.
    timers: Timers,
    /// The latest tick.
    now: Option<Timestamp>,
    /// What people allow beside the settings.
    #[serde(default)]
    policy: Policy,
    /// Of when it is.
    #[serde(default)]
    policy_at: Option<Timestamp>,
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
            Input::Policy { time, policy } => self.put_policy(*time, policy, effects),
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

    /// Holders, uses and what explains them, for one credential.
    #[must_use]
    pub fn lineage(&self, credential: &CredentialId) -> Option<Lineage> {
        let state = self.credentials.get(credential)?;
        Some(lineage::of(&self.settings, credential, state, &self.hosts))
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
