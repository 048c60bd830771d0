//! What agents are allowed to do, beside what is learned: to be exported, edited and imported.

use jiff::Timestamp;
use keytrail_model::consumption::Consumption;
use serde::{Deserialize, Serialize};

use super::profile::AgentKey;
use crate::pattern::fits;

/// The policy: pinned behaviour that never counts as a deviation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Pinned entries.
    pub pins: Vec<Pin>,
}

/// One pinned entry. Every pattern that is given must fit; `*` stands for any run of characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pin {
    /// Credential id.
    pub credential: Option<String>,
    /// Agent's product (`codex-cli`).
    pub agent: Option<String>,
    /// MCP server's name in the agent's configuration.
    pub server: Option<String>,
    /// Package (`npm:name`).
    pub package: Option<String>,
    /// Executable's file name.
    pub program: Option<String>,
    /// Account on the endpoint.
    pub user: Option<String>,
    /// Services, in the provider's words.
    pub services: Vec<String>,
    /// Actions, in the provider's words.
    pub actions: Vec<String>,
    /// Regions.
    pub regions: Vec<String>,
    /// Resources.
    pub resources: Vec<String>,
    /// When the entry ends; absent: never.
    pub until: Option<Timestamp>,
    /// Why it is there.
    pub comment: String,
}

/// True when there is no pattern, or one fits.
fn any(patterns: &[String], text: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| fits(pattern, text))
}

/// True when no pattern is given, or there is a text that fits it.
fn one(pattern: Option<&String>, text: Option<&String>) -> bool {
    pattern.is_none_or(|pattern| text.is_some_and(|text| fits(pattern, text)))
}

impl Pin {
    fn allows(&self, who: &AgentKey, usage: &Consumption) -> bool {
        let credential = usage.credential.to_string();
        self.until.is_none_or(|until| usage.time < until)
            && one(self.credential.as_ref(), Some(&credential))
            && one(self.agent.as_ref(), who.agent.as_ref())
            && one(self.server.as_ref(), who.server.as_ref())
            && one(self.package.as_ref(), who.package.as_ref())
            && one(self.program.as_ref(), who.program.as_ref())
            && one(self.user.as_ref(), who.user.as_ref())
            && any(&self.services, &usage.service)
            && any(&self.actions, &usage.action)
            && any(&self.regions, usage.region.as_deref().unwrap_or_default())
            && (self.resources.is_empty()
                || (!usage.resources.is_empty()
                    && usage.resources.iter().all(|r| any(&self.resources, r))))
    }
}

impl Policy {
    /// True when a pinned entry allows this use.
    #[must_use]
    pub fn allows(&self, who: &AgentKey, usage: &Consumption) -> bool {
        self.pins.iter().any(|pin| pin.allows(who, usage))
    }
}
