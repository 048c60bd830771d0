//! The shape of a scenario file: TOML around a story of one event a line.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use keytrail_model::alert::Verdict;
use serde::Deserialize;
use toml::Spanned;

/// A scenario: a story, what some sensors and some clouds' logs tell of it, and what must be said
/// about it. `tests/scenarios/README.md` describes it with examples.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    /// Short name: `P..` for an incident, `B..` for a benign look-alike.
    pub(crate) name: String,
    /// One line.
    pub(crate) title: String,
    /// Where the story is from.
    #[serde(default)]
    pub(crate) source: String,
    /// RFC 3339 time of `+0s` in the story; default 2026-01-01T00:00:00Z.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub(crate) start: Option<Timestamp>,
    /// Names of scenarios that look alike.
    #[serde(default)]
    pub(crate) pairs: Vec<String>,
    /// How long after its time a cloud record arrives, where its line does not say: `5m`.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub(crate) cloud_delay: Option<Spanned<String>>,
    /// The join's settings, as under `[join]` in the correlator's configuration; a text `${name}` is
    /// the id of that credential.
    #[serde(default)]
    #[cfg_attr(
        test,
        schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")
    )]
    pub(crate) settings: Option<Spanned<toml::Table>>,
    /// Hosts with a sensor.
    #[serde(default)]
    pub(crate) hosts: BTreeMap<String, HostSpec>,
    /// Credentials: a kind (an identifier is made up), or `KIND:VALUE`.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, String>"))]
    pub(crate) credentials: BTreeMap<String, Spanned<String>>,
    /// What happens.
    pub(crate) story: StorySpec,
    /// Providers' own records over many lines.
    #[serde(default)]
    pub(crate) records: Vec<RecordSpec>,
    /// What must be said.
    pub(crate) expect: ExpectSpec,
    /// Variations of which something else is expected.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, VariationSpec>"))]
    pub(crate) variations: BTreeMap<Spanned<String>, VariationSpec>,
}

/// What happens, one event a line.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct StorySpec {
    /// `TIME HOST EVENT ...`, `TIME cloud use|raw ...`, `TIME clock tick`, one a line.
    #[cfg_attr(test, schemars(with = "String"))]
    pub(crate) events: Spanned<String>,
}

/// A host with a sensor.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct HostSpec {
    /// Its own address; default 192.168.1.23.
    pub(crate) address: Option<IpAddr>,
    /// Its address on the outside; without it, it has to be learned.
    pub(crate) egress: Option<IpAddr>,
    /// The account that its processes run as.
    pub(crate) user: Option<String>,
    /// That account's number; default 1000.
    pub(crate) uid: Option<u32>,
    /// Who logged in, where it is another.
    pub(crate) login_uid: Option<u32>,
    /// The host's clock minus the true time: `+10m`.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub(crate) clock_offset: Option<Spanned<String>>,
    /// Whether coverage and watermarks are added; default true.
    #[serde(default = "yes")]
    pub(crate) auto: bool,
}

fn yes() -> bool {
    true
}

/// A provider's own record.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct RecordSpec {
    /// Kind of source: `aws.cloudtrail`, `okta.system-log`, ...
    pub(crate) source: String,
    /// The record, JSON text.
    #[cfg_attr(test, schemars(with = "String"))]
    pub(crate) record: Spanned<String>,
    /// When it arrives, where that is not `cloud_delay` after its time.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub(crate) arrives: Option<Spanned<String>>,
}

/// What is expected. A verdict is `none`, `posture`, `blind-spot`, `exposed-server`, `suspected`,
/// `outside-envelope`, `same-source-misuse`, `unexplained-use` or `confirmed`; `a|b` allows either,
/// `<=a` anything up to it.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpectSpec {
    /// Verdict of each credential.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, String>"))]
    pub(crate) verdicts: BTreeMap<Spanned<String>, Spanned<String>>,
    /// Verdict of every credential that is not named; default `none`.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub(crate) others: Option<Spanned<String>>,
    /// State of each use: `explained`, `declared`, `unexplained`, `undecided`, `unwatched` or
    /// `service-side`.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, String>"))]
    pub(crate) uses: BTreeMap<Spanned<String>, Spanned<String>>,
    /// What the alert about a credential must name.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, Evidence>"))]
    pub(crate) evidence: BTreeMap<Spanned<String>, Evidence>,
    /// Texts that the blind spots of the alert about a credential must contain.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, Vec<String>>"))]
    pub(crate) blind: BTreeMap<Spanned<String>, Vec<String>>,
}

/// Entities that an alert must name. What is absent is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct VariationSpec {
    /// Why it does not apply.
    pub(crate) skip: Option<String>,
    /// Verdicts that differ in it.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, String>"))]
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

    /// `tests/scenarios/schema.json` is what the types say. `UPDATE_EXPECT=1` writes it anew.
    #[test]
    fn schema_is_up_to_date() {
        let schema = schemars::schema_for!(Document);
        let mut text = serde_json::to_string_pretty(&schema).unwrap();
        text.push('\n');
        expect_test::expect_file!["../../tests/scenarios/schema.json"].assert_eq(&text);
    }

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
