//! Logical partitions: how the join can leave this process.
//!
//! The join's stage two is keyed by root credential. Every credential belongs to one of
//! [`PARTITIONS`] logical partitions; rows that depend on a credential carry its number, so that a
//! scaled runner (Kafka partitions, one operator each) can take a partition over without re-keying.
//! The embedded runner drives all partitions with one operator: [`Engine`] is the seam.

use jiff::Timestamp;
use keytrail_join::baseline::BaselineView;
use keytrail_join::baseline::policy::Policy;
use keytrail_join::{Effect, Input, Join, Lineage, Settings};
use keytrail_model::credential::CredentialId;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Number of logical partitions; part of the stored format, never to be changed in place.
pub const PARTITIONS: u8 = 64;

/// The partition of a root credential: the same on every machine and in every version.
///
/// A minted credential belongs to its root's partition; until the minting is seen it is its own
/// root.
#[must_use]
pub fn logical_partition(root: &CredentialId) -> u8 {
    let digest = Sha256::digest(root.to_string().as_bytes());
    digest.first().map_or(0, |byte| byte % PARTITIONS)
}

/// The operator as the runner sees it.
#[derive(Debug)]
pub struct Engine {
    join: Join,
    settings: Settings,
}

impl Engine {
    /// An empty one.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            join: Join::new(settings.clone()),
            settings,
        }
    }

    /// One from a snapshot's bytes.
    ///
    /// # Errors
    /// When the state has another form (an older version's): replay the log instead.
    pub fn restore(settings: Settings, state: &[u8]) -> Result<Self, serde_json::Error> {
        Ok(Self {
            join: serde_json::from_slice(state)?,
            settings,
        })
    }

    /// The whole state, for a snapshot.
    ///
    /// # Errors
    /// When the state has no JSON form.
    pub fn snapshot(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&self.join)
    }

    /// The settings it runs with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes one input in.
    pub fn apply(&mut self, input: &Input, effects: &mut Vec<Effect>) {
        self.join.apply(input, effects);
    }

    /// What is usual, and what is allowed beside; `only` limits it to one credential.
    #[must_use]
    pub fn baselines(&self, only: Option<&CredentialId>) -> Baselines {
        let baselines = self.join.baselines(only);
        Baselines {
            policy: self.join.policy().clone(),
            configured: self.settings.policy.clone(),
            learned: self.join.learned_policy(only),
            credentials: baselines
                .map(|(credential, agents)| CredentialBaseline {
                    credential: credential.clone(),
                    agents,
                })
                .collect(),
        }
    }

    /// The policy in a snapshot's bytes, of this version or another that has one.
    #[must_use]
    pub fn policy_in(state: &[u8]) -> Option<Policy> {
        #[derive(serde::Deserialize)]
        struct Part {
            policy: Policy,
        }
        let part: Part = serde_json::from_slice(state).ok()?;
        Some(part.policy)
    }

    /// Takes the time in.
    pub fn tick(&mut self, time: Timestamp, effects: &mut Vec<Effect>) {
        self.join.apply(&Input::Tick { time }, effects);
    }

    /// Every credential with state.
    #[must_use]
    pub fn credentials(&self) -> Vec<CredentialId> {
        self.join.credentials().cloned().collect()
    }

    /// Everything about one credential.
    #[must_use]
    pub fn lineage(&self, credential: &CredentialId) -> Option<Lineage> {
        self.join.lineage(credential)
    }
}

/// What is usual for agents, and what people allow them beside.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Baselines {
    /// What was allowed by `PUT /v1/baseline`.
    pub policy: Policy,
    /// What the settings allow.
    pub configured: Policy,
    /// What warm baselines have learned, as entries to be edited.
    pub learned: Policy,
    /// Every baseline, warm or not.
    pub credentials: Vec<CredentialBaseline>,
}

/// What is usual with one credential and its descendants.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CredentialBaseline {
    /// Which.
    pub credential: CredentialId,
    /// For each agent that uses it.
    pub agents: Vec<BaselineView>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partition_of_a_credential_never_changes() {
        // Golden values: a change here would orphan every stored row.
        for (id, expected) in [
            ("aws-access-key:AKIAIOSFODNN7EXAMPLE", 35),
            ("aws-access-key:ASIAQNZGKIQY56JQ7WML", 29),
        ] {
            let credential: CredentialId = id.parse().unwrap();
            assert_eq!(logical_partition(&credential), expected, "{id}");
        }
    }
}
