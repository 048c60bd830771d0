//! The shape of a scenario file: TOML around a story of one event a line.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use keytrail_model::alert::Verdict;
use serde::Deserialize;
use toml::Spanned;

/// A scenario file as it is written. Every field is described in `tests/scenarios/README.md`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    pub(crate) name: String,
    pub(crate) title: String,
    #[serde(default)]
    pub(crate) source: String,
    #[serde(default)]
    pub(crate) start: Option<Timestamp>,
    #[serde(default)]
    pub(crate) pairs: Vec<String>,
    #[serde(default)]
    pub(crate) cloud_delay: Option<Spanned<String>>,
    #[serde(default)]
    pub(crate) settings: Option<Spanned<toml::Table>>,
    #[serde(default)]
    pub(crate) hosts: BTreeMap<String, HostSpec>,
    #[serde(default)]
    pub(crate) credentials: BTreeMap<String, Spanned<String>>,
    pub(crate) story: StorySpec,
    #[serde(default)]
    pub(crate) records: Vec<RecordSpec>,
    pub(crate) expect: ExpectSpec,
    #[serde(default)]
    pub(crate) variations: BTreeMap<Spanned<String>, VariationSpec>,
}

/// What happens, one event a line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StorySpec {
    pub(crate) events: Spanned<String>,
}

/// A host with a sensor.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HostSpec {
    pub(crate) address: Option<IpAddr>,
    pub(crate) egress: Option<IpAddr>,
    pub(crate) user: Option<String>,
    pub(crate) uid: Option<u32>,
    pub(crate) login_uid: Option<u32>,
    pub(crate) clock_offset: Option<Spanned<String>>,
    #[serde(default = "yes")]
    pub(crate) auto: bool,
}

fn yes() -> bool {
    true
}

/// A provider's own record.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecordSpec {
    pub(crate) source: String,
    pub(crate) record: Spanned<String>,
    pub(crate) arrives: Option<Spanned<String>>,
}

/// What is expected.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpectSpec {
    #[serde(default)]
    pub(crate) verdicts: BTreeMap<Spanned<String>, Spanned<String>>,
    #[serde(default)]
    pub(crate) others: Option<Spanned<String>>,
    #[serde(default)]
    pub(crate) uses: BTreeMap<Spanned<String>, Spanned<String>>,
    #[serde(default)]
    pub(crate) evidence: BTreeMap<Spanned<String>, Evidence>,
    #[serde(default)]
    pub(crate) blind: BTreeMap<Spanned<String>, Vec<String>>,
}

/// Entities that an alert must name. What is absent is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The host of the exposure held responsible.
    pub host: Option<String>,
    /// The agent's product id (`claude-code`).
    pub agent: Option<String>,
    /// The MCP server's name in its configuration; `?` for one that none lists.
    pub server: Option<String>,
    /// `name@version` of the MCP server's package.
    pub package: Option<String>,
    /// A person named as owner.
    pub owner: Option<String>,
    /// A name or address that the responsible unit connected to.
    pub destination: Option<String>,
    /// The first use that nothing accounts for, by the story's name for it.
    pub first_misuse: Option<String>,
    /// The path, variable, socket or address that the credential was taken from.
    pub taken_from: Option<String>,
    /// Some executable or argument in the lineage of the reader contains this.
    pub lineage: Option<String>,
    /// Texts that the proposed actions must contain, in this order.
    #[serde(default)]
    pub actions: Vec<String>,
}

/// What is different in a variation.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VariationSpec {
    /// Why it does not apply.
    pub(crate) skip: Option<String>,
    #[serde(default)]
    pub(crate) verdicts: BTreeMap<Spanned<String>, Spanned<String>>,
}

/// Which verdicts are right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    any_of: Vec<Option<Verdict>>,
    at_most: bool,
}

impl Pattern {
    /// Reads `none`, `confirmed`, `suspected|confirmed`, `<=blind-spot`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (at_most, list) = match text.strip_prefix("<=") {
            Some(list) => (true, list),
            None => (false, text),
        };
        let mut any_of = Vec::new();
        for name in list.split('|').map(str::trim) {
            any_of.push(match name {
                "none" => None,
                name => {
                    let value = serde_json::Value::String(name.to_owned());
                    Some(serde_json::from_value(value).ok()?)
                }
            });
        }
        (!at_most || any_of.len() == 1).then(|| Self {
            text: text.to_owned(),
            any_of,
            at_most,
        })
    }

    /// True when `verdict` is right.
    #[must_use]
    pub fn allows(&self, verdict: Option<Verdict>) -> bool {
        if self.at_most {
            self.any_of.iter().any(|most| verdict <= *most)
        } else {
            self.any_of.contains(&verdict)
        }
    }

    /// The verdicts that are named, `None` for `none`.
    #[must_use]
    pub fn named(&self) -> &[Option<Verdict>] {
        &self.any_of
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// What is expected, by the names of the story.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Verdict of each credential.
    pub verdicts: BTreeMap<String, Pattern>,
    /// Verdict of every credential that is not named; `None` stands for `none`.
    pub others: Option<Pattern>,
    /// State of each use.
    pub uses: BTreeMap<String, String>,
    /// Entities that the alert about a credential must name.
    pub evidence: BTreeMap<String, Evidence>,
    /// Blind spots that must be said about a credential.
    pub blind: BTreeMap<String, Vec<String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (text, verdict, allowed) in [
            ("none", None, true),
            ("none", Some(Verdict::Suspected), false),
            ("confirmed", Some(Verdict::Confirmed), true),
            ("suspected|confirmed", Some(Verdict::Suspected), true),
            ("<=blind-spot", None, true),
            ("<=blind-spot", Some(Verdict::BlindSpot), true),
            ("<=blind-spot", Some(Verdict::Suspected), false),
        ] {
            assert_eq!(
                Pattern::parse(text).unwrap().allows(verdict),
                allowed,
                "{text}"
            );
        }
        for bad in ["", "stolen", "<=none|confirmed"] {
            assert!(Pattern::parse(bad).is_none(), "{bad}");
        }
    }
}
