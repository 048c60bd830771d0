//! What was learned, as a policy to be edited and imported again, and that policy's way in.

use jiff::Timestamp;
use keytrail_model::credential::CredentialId;

use super::policy::{Pin, Policy};
use super::{BaselineView, score};
use crate::credential::UseKey;
use crate::input::{Effect, UseState};
use crate::settle::Pending;
use crate::verdict::Cause;
use crate::{Join, lineage};

impl Join {
    /// What people allow by [`crate::Input::Policy`], beside the settings.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What is usual, for each credential with a baseline, warm or not, in order; `only` limits it
    /// to one credential.
    pub fn baselines(
        &self,
        only: Option<&CredentialId>,
    ) -> impl Iterator<Item = (&CredentialId, Vec<BaselineView>)> {
        self.credentials
            .iter()
            .filter(move |(id, state)| {
                state.learner.is_some() && only.is_none_or(|only| only == *id)
            })
            .map(|(id, state)| (id, lineage::baseline(&self.settings, state)))
    }

    /// Takes another policy: every use that is kept is learned from anew.
    pub(crate) fn put_policy(
        &mut self,
        time: Timestamp,
        policy: &Policy,
        effects: &mut Vec<Effect>,
    ) {
        // The latest counts, whichever comes last; of two at one time the greater.
        let newer = |(at, known): (Timestamp, &Policy)| (time, policy) > (at, known);
        if self.policy_at.is_some_and(|at| !newer((at, &self.policy))) {
            return;
        }
        self.policy_at = Some(time);
        if self.policy == *policy {
            return;
        }
        self.policy = policy.clone();
        let mut pending = Pending::default();
        let explained: Vec<(CredentialId, Vec<UseKey>)> = self
            .credentials
            .iter()
            .filter(|(_, state)| state.learned_by.is_some())
            .map(|(id, state)| {
                let uses = state.uses.iter();
                let keys = uses
                    .filter(|(_, u)| matches!(u.state, UseState::Explained { .. }))
                    .map(|(key, _)| key.clone());
                (id.clone(), keys.collect())
            })
            .collect();
        for (id, keys) in explained {
            for key in &keys {
                self.learn(&id, key);
            }
            self.tell_answerable(&id, &mut pending);
        }
        self.settle(pending, &Cause { time, record: None }, effects);
    }

    /// What warm baselines have learned, one pinned entry for each credential and agent: to be
    /// edited by a person and put into [`crate::Settings::policy`]. `only` limits it to one
    /// credential.
    #[must_use]
    pub fn learned_policy(&self, only: Option<&CredentialId>) -> Policy {
        let mut pins = Vec::new();
        for (id, state) in &self.credentials {
            if only.is_some_and(|only| only != id) {
                continue;
            }
            let learners = state.learner.iter();
            for (who, behaviour) in learners.flat_map(|learner| learner.profile().agents()) {
                if !score::is_warm(&self.settings.baseline, behaviour) {
                    continue;
                }
                let names = |list: &super::behaviour::List| list.names().cloned().collect();
                let calls = behaviour.calls.names();
                let action = |call: &String| call.split_once(' ').map(|(_, a)| a.to_owned());
                // An action may belong to several services.
                let mut actions: Vec<String> = calls.filter_map(action).collect();
                actions.sort_unstable();
                actions.dedup();
                pins.push(Pin {
                    credential: Some(id.to_string()),
                    agent: who.agent.clone(),
                    server: who.server.clone(),
                    package: who.package.clone(),
                    program: who.program.clone(),
                    user: who.user.clone(),
                    services: names(&behaviour.services),
                    actions,
                    regions: names(&behaviour.regions),
                    resources: Vec::new(),
                    until: None,
                    comment: format!("learned from {} uses", behaviour.learned),
                });
            }
        }
        Policy { pins }
    }
}
