//! What agents are allowed to do, beside what is learned: to be exported, edited and imported.

use jiff::Timestamp;
use keytrail_model::consumption::Consumption;
use keytrail_model::credential::CredentialId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::profile::AgentKey;
use crate::pattern::fits;

/// Most entries of a policy.
const MAX_PINS: usize = 10_000;
/// Longest text of an entry, and most texts of one of its lists.
const MAX_TEXT: usize = 2_048;
const MAX_PATTERNS: usize = 256;

/// Why a policy is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// It has too many entries.
    #[error("{0} entries; at most {MAX_PINS} are taken: write wider patterns")]
    Entries(usize),
    /// An entry would allow everything to everybody.
    #[error(
        "entry {0} names neither a credential nor an agent, server, package or program: it would \
         allow everything"
    )]
    Boundless(usize),
    /// A text or a list is too long.
    #[error(
        "entry {0} has a text of more than {MAX_TEXT} bytes or a list of more than {MAX_PATTERNS}"
    )]
    Long(usize),
}

/// The policy: pinned behaviour that never counts as a deviation.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Pinned entries.
    pub pins: Vec<Pin>,
}

/// One pinned entry. Every pattern that is given must fit; `*` stands for any run of characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Pin {
    /// Id of the credential, or of the one whose baseline learns from it: what it descends from.
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
    fn allows(&self, who: &AgentKey, usage: &Consumption, owner: &CredentialId) -> bool {
        let named = || {
            let ids = [usage.credential.to_string(), owner.to_string()];
            let pattern = self.credential.as_ref();
            ids.iter().any(|id| one(pattern, Some(id)))
        };
        self.until.is_none_or(|until| usage.time < until)
            && named()
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
    /// True when a pinned entry allows this use, from which the baseline of `owner` learns.
    #[must_use]
    pub fn allows(&self, who: &AgentKey, usage: &Consumption, owner: &CredentialId) -> bool {
        self.pins.iter().any(|pin| pin.allows(who, usage, owner))
    }

    /// Whether it can be taken.
    ///
    /// # Errors
    /// When it is too large, or an entry would allow everything; entries are counted from 1.
    pub fn check(&self) -> Result<(), PolicyError> {
        if self.pins.len() > MAX_PINS {
            return Err(PolicyError::Entries(self.pins.len()));
        }
        for (at, pin) in (1..).zip(&self.pins) {
            if pin.is_boundless() {
                return Err(PolicyError::Boundless(at));
            }
            if pin.is_too_long() {
                return Err(PolicyError::Long(at));
            }
        }
        Ok(())
    }
}

impl Pin {
    fn names(&self) -> [&Option<String>; 5] {
        [
            &self.credential,
            &self.agent,
            &self.server,
            &self.package,
            &self.program,
        ]
    }

    fn is_boundless(&self) -> bool {
        // `*:*` fits every credential's id.
        let any = |n: &String| n.chars().all(|c| matches!(c, '*' | ':'));
        let all = |name: &&Option<String>| name.as_ref().is_none_or(any);
        self.names().iter().all(all)
    }

    fn is_too_long(&self) -> bool {
        let lists = [
            &self.services,
            &self.actions,
            &self.regions,
            &self.resources,
        ];
        let texts = self.names().into_iter().chain([&self.user]).flatten();
        lists.iter().any(|list| list.len() > MAX_PATTERNS)
            || texts
                .chain(lists.into_iter().flatten())
                .chain([&self.comment])
                .any(|text| text.len() > MAX_TEXT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken() {
        let name = |text: &str| Some(text.to_owned());
        for (pin, expected) in [
            (
                Pin {
                    credential: name("aws-access-key:*"),
                    ..Pin::default()
                },
                Ok(()),
            ),
            (
                Pin {
                    program: name("terraform"),
                    ..Pin::default()
                },
                Ok(()),
            ),
            (Pin::default(), Err(PolicyError::Boundless(1))),
            (
                Pin {
                    agent: name("*"),
                    ..Pin::default()
                },
                Err(PolicyError::Boundless(1)),
            ),
            (
                Pin {
                    user: name("ana"),
                    ..Pin::default()
                },
                Err(PolicyError::Boundless(1)),
            ),
            (
                Pin {
                    agent: name("codex-cli"),
                    comment: "x".repeat(3_000),
                    ..Pin::default()
                },
                Err(PolicyError::Long(1)),
            ),
        ] {
            let policy = Policy { pins: vec![pin] };
            assert_eq!(policy.check(), expected, "{policy:?}");
        }
    }
}
