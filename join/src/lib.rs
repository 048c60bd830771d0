//! The explained-use join.
//!
//! Every cloud-side use of a credential must be accounted for by a connection that a sensor saw
//! on a host that holds the credential. [`Join`] decides that, on event time, from recorded input
//! alone: [`Join::apply`] is the only way in, [`Effect`]s are the only way out.
//!
//! Architecture invariant (JN-1): no I/O, no clock, no randomness. The same inputs give the same
//! effects, and any arrival order of the same inputs ends in the same verdicts (JN-2).

pub mod input;
pub mod lineage;

pub use input::{Effect, Input, Settings, UseDecision, UseState};
pub use lineage::{HolderView, Lineage, UseView};

use keytrail_model::credential::CredentialId;
use serde::{Deserialize, Serialize};

/// The operator: one value holds the state of every credential of its partition.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Join {}

impl Join {
    /// An empty operator.
    #[must_use]
    pub fn new(_settings: Settings) -> Self {
        Self::default()
    }

    /// Takes one input in, appends what follows from it to `effects`.
    pub fn apply(&mut self, _input: &Input, _effects: &mut Vec<Effect>) {}

    /// Every credential with any state, for listings.
    pub fn credentials(&self) -> impl Iterator<Item = &CredentialId> {
        std::iter::empty()
    }

    /// Holders, uses and what explains them, for one credential.
    #[must_use]
    pub fn lineage(&self, _credential: &CredentialId) -> Option<Lineage> {
        None
    }
}
