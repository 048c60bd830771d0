//! Dangerous actions, and how sensitive a resource's name says it is: two data tables.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::Provider;
use super::pattern::matches;

/// What an attacker gains, in the words of MITRE ATT&CK's tactics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Gives itself more rights (TA0004).
    PrivilegeEscalation,
    /// Reads secrets or makes credentials (TA0006).
    CredentialAccess,
    /// Stays after the credential is gone (TA0003).
    Persistence,
    /// Switches off what would see it (TA0005).
    DefenseEvasion,
    /// Runs code (TA0002).
    Execution,
    /// Goes on to other systems (TA0008).
    LateralMovement,
    /// Destroys or encrypts (TA0040).
    Impact,
    /// Reads or copies data (TA0009, TA0010).
    Collection,
    /// Lists what there is (TA0007).
    Discovery,
}

impl Class {
    const ALL: [Self; 9] = [
        Self::PrivilegeEscalation,
        Self::CredentialAccess,
        Self::Persistence,
        Self::DefenseEvasion,
        Self::Execution,
        Self::LateralMovement,
        Self::Impact,
        Self::Collection,
        Self::Discovery,
    ];

    /// Its name in the table and in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PrivilegeEscalation => "privilege-escalation",
            Self::CredentialAccess => "credential-access",
            Self::Persistence => "persistence",
            Self::DefenseEvasion => "defense-evasion",
            Self::Execution => "execution",
            Self::LateralMovement => "lateral-movement",
            Self::Impact => "impact",
            Self::Collection => "collection",
            Self::Discovery => "discovery",
        }
    }
}

/// A row of the table of dangerous actions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Whose action.
    pub provider: Provider,
    /// The action in the provider's words.
    pub action: String,
    /// What it gains.
    pub class: Class,
    /// How much of the way to everything, 0 to 100.
    pub weight: u8,
}

/// A row of the table of sensitive names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sensitive {
    pattern: String,
    weight: u8,
    why: String,
}

/// `data/privileges.tsv`: provider, action, class, weight.
pub static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| {
    rows(include_str!("../../data/privileges.tsv"))
        .filter_map(|row| {
            let mut cells = row.split('\t');
            let provider = cells.next()?;
            let provider = [
                Provider::Aws,
                Provider::Github,
                Provider::Gcp,
                Provider::Kubernetes,
                Provider::Vault,
            ]
            .into_iter()
            .find(|p| p.as_str() == provider)?;
            let action = cells.next()?.to_owned();
            let class = cells.next()?;
            Some(Known {
                provider,
                action,
                class: Class::ALL.into_iter().find(|c| c.as_str() == class)?,
                weight: cells.next()?.parse().ok().filter(|w| *w <= 100)?,
            })
        })
        .collect()
});

/// `data/sensitivity.tsv`: pattern on the lower-case name, weight, why.
static SENSITIVE: LazyLock<Vec<Sensitive>> = LazyLock::new(|| {
    rows(include_str!("../../data/sensitivity.tsv"))
        .filter_map(|row| {
            let mut cells = row.split('\t');
            Some(Sensitive {
                pattern: cells.next()?.to_owned(),
                weight: cells.next()?.parse().ok().filter(|w| *w <= 100)?,
                why: cells.next()?.to_owned(),
            })
        })
        .collect()
});

fn rows(table: &str) -> impl Iterator<Item = &str> {
    table
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// What an observed action is worth to an attacker, when the table knows it: CloudTrail's service
/// and action become `service:Action`, others are taken as they are.
#[must_use]
pub fn of_action(service: &str, action: &str) -> Option<&'static Known> {
    let service = service.strip_suffix(".amazonaws.com").unwrap_or(service);
    let full = format!("{service}:{action}");
    KNOWN
        .iter()
        .find(|known| known.action.eq_ignore_ascii_case(&full) || known.action == action)
}

/// How sensitive a resource is by its name, 0 to 100, and why.
#[must_use]
pub fn sensitivity(resource: &str) -> (u8, &'static str) {
    if resource == "*" {
        return (100, "every resource");
    }
    let name = resource.to_lowercase();
    let words: Vec<&str> = name.split(|c: char| !c.is_alphanumeric()).collect();
    let fits = |pattern: &str| {
        if pattern.contains(['*', '?']) {
            return matches(pattern, &name);
        }
        words
            .iter()
            .any(|word| *word == pattern || word.strip_suffix('s') == Some(pattern))
    };
    SENSITIVE
        .iter()
        .filter(|row| fits(&row.pattern))
        .map(|row| (row.weight, row.why.as_str()))
        .max_by_key(|(weight, _)| *weight)
        .unwrap_or((20, "nothing in its name says what it holds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_tables_is_read() {
        let count = |table: &str| rows(table).count();
        assert_eq!(
            KNOWN.len(),
            count(include_str!("../../data/privileges.tsv"))
        );
        assert_eq!(
            SENSITIVE.len(),
            count(include_str!("../../data/sensitivity.tsv"))
        );
        let mut seen = std::collections::BTreeSet::new();
        for known in KNOWN.iter() {
            assert!(seen.insert((known.provider, &known.action)), "{known:?}");
        }
    }

    #[test]
    fn names_are_weighed() {
        for (name, at_least, at_most) in [
            ("arn:aws:secretsmanager:us-east-1:1:secret:db", 90, 100),
            ("arn:aws:s3:::prod-customers/list.csv", 80, 100),
            ("arn:aws:s3:::website-public", 0, 10),
            ("arn:aws:s3:::x", 20, 20),
            ("arn:aws:s3:::delphi-catalog-deliveries", 20, 20),
            ("*", 100, 100),
            ("terraform-state/prod.tfstate", 90, 100),
        ] {
            let (weight, why) = sensitivity(name);
            assert!(
                (at_least..=at_most).contains(&weight),
                "{name}: {weight} {why}"
            );
        }
        assert_eq!(
            of_action("secretsmanager.amazonaws.com", "GetSecretValue").map(|k| k.class),
            Some(Class::CredentialAccess)
        );
        assert!(of_action("s3.amazonaws.com", "Nonsense").is_none());
    }
}
