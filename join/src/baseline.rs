//! What is usual for an agent, learned from explained uses only.
//!
//! A use is judged by what was learned from uses *before* it in event time, so that the order of
//! arrival does not matter (JN-2). What is out of the ordinary teaches nothing: a thief cannot make
//! his ways usual by repeating them, a person makes them usual by pinning them
//! ([`policy::Policy`]). What was learned lately is told apart, so that slow drift is seen.

pub(crate) mod behaviour;
mod export;
pub(crate) mod learner;
pub mod policy;
pub mod profile;
pub(crate) mod score;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use self::profile::AgentKey;

/// What is usual for one agent with one credential, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BaselineView {
    /// Who.
    pub agent: AgentKey,
    /// Whether it may speak yet.
    pub warm: bool,
    /// Hours between the first and the last use learned from.
    pub hours: i64,
    /// Uses learned from.
    pub learned: u64,
    /// First use learned from.
    pub first: Option<Timestamp>,
    /// Last use learned from.
    pub last: Option<Timestamp>,
    /// Services and actions, `service action`.
    pub actions: Vec<String>,
    /// Regions.
    pub regions: Vec<String>,
    /// Resources, up to their last `/`.
    pub resources: Vec<String>,
    /// Networks, as addresses of their pools or as autonomous systems.
    pub networks: Vec<String>,
    /// Share of this that was learned within the last `drift_days`, percent.
    pub recent_percent: u64,
}

/// A use that is out of the ordinary, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviationView {
    /// The cloud record.
    pub record: String,
    /// Who made it.
    pub agent: AgentKey,
    /// How far out of the ordinary.
    pub score: u32,
    /// In what, in words.
    pub reasons: Vec<String>,
}
