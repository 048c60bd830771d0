//! What was learned, as a policy to be edited and imported again.

use keytrail_model::credential::CredentialId;

use super::policy::{Pin, Policy};
use super::score;
use crate::Join;

impl Join {
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
