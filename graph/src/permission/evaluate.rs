//! What an identity may do, and whom it may become.
//!
//! Sources: IAM User Guide, "Policy evaluation logic" (an explicit deny wins; a boundary bounds what
//! identity policies give) and "How to use a role across accounts"; Kubernetes, "Using RBAC
//! Authorization" (there is no deny); Google Cloud, "Policy inheritance".

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::pattern::{matches, overlap};
use super::privilege::{Class, KNOWN};
use super::sets::{
    has_resource, patterns_cover, patterns_overlap, resource_covered, resource_overlaps,
};
use super::{Effect, Identity, Patterns, Permissions, Provider, Statement, Trust, aws};

/// Longest chain of assumed identities.
pub const MAX_CHAIN: usize = 6;
/// Identities looked at in one answer.
const MAX_IDENTITIES: usize = 100;
/// Rows of an answer.
const MAX_ROWS: usize = 500;
/// Statements shown for one action of one identity.
const MAX_STATEMENTS: usize = 4;
/// The action that becomes a role.
const ASSUME: &str = "sts:assumerole";
/// Resources shown of one such statement.
const MAX_RESOURCES: usize = 8;

/// One step from an identity to another that it may become.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Step {
    /// From whom.
    pub from: String,
    /// To whom.
    pub to: String,
    /// By which action.
    pub how: String,
    /// The policies that allow it, in words.
    pub source: String,
    /// Conditions it hangs on; their values are not known here.
    pub conditions: Vec<String>,
}

/// A dangerous action that is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Privilege {
    /// What an attacker gains.
    pub class: Class,
    /// How much of the way to everything it is, 0 to 100.
    pub weight: u8,
    /// The action.
    pub action: String,
    /// On what; patterns in the provider's form.
    pub resources: Vec<String>,
    /// What is taken out again by a deny, in words.
    pub except: Vec<String>,
    /// Whose permission it is.
    pub identity: String,
    /// How the credential's own identity becomes that one; empty when it is it.
    pub via: Vec<Step>,
    /// Conditions it hangs on.
    pub conditions: Vec<String>,
    /// The policy that allows it, in words.
    pub source: String,
}

/// One statement that gives, with what others take from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Granted {
    /// Whose permission it is.
    pub identity: String,
    /// How the credential's own identity becomes that one.
    pub via: Vec<Step>,
    /// Actions, as patterns; after `!`, the ones not meant.
    pub actions: Vec<String>,
    /// Resources, as patterns; after `!`, the ones not meant.
    pub resources: Vec<String>,
    /// What is taken out again by a deny, in words.
    pub except: Vec<String>,
    /// Conditions it hangs on.
    pub conditions: Vec<String>,
    /// The policy that allows it, in words.
    pub source: String,
}

/// What an identity may do, itself and as others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reach {
    /// The identities it starts from.
    pub identities: Vec<String>,
    /// Identities it may become, with the way there.
    pub becomes: Vec<Step>,
    /// Dangerous actions, most dangerous first; at most 500.
    pub privileges: Vec<Privilege>,
    /// Every statement that gives; at most 500.
    pub granted: Vec<Granted>,
    /// Services that are allowed and were never used, where a report says so.
    pub never_used: Vec<String>,
    /// What is not known, in words.
    pub notes: Vec<String>,
    /// True when bounds cut the answer.
    pub truncated: bool,
}

/// Why something is allowed.
struct Allowed<'p> {
    statement: &'p Statement,
    resources: Vec<String>,
    except: Vec<String>,
}

/// Actions that make their holder another identity, beside a role's trust.
/// Source: published privilege escalation paths of each provider, as the data table says.
fn takeovers(provider: Provider) -> &'static [(&'static str, &'static str)] {
    match provider {
        Provider::Aws => &[
            ("iam:createaccesskey", "user"),
            ("iam:createloginprofile", "user"),
            ("iam:updateloginprofile", "user"),
            ("iam:updateassumerolepolicy", "role"),
        ],
        Provider::Gcp => &[
            ("roles/iam.serviceAccountTokenCreator", "service-account"),
            ("iam.serviceAccounts.getAccessToken", "service-account"),
            ("roles/iam.serviceAccountKeyAdmin", "service-account"),
            ("iam.serviceAccountKeys.create", "service-account"),
        ],
        Provider::Kubernetes => &[
            ("core/serviceaccounts/token:create", "service-account"),
            ("core/serviceaccounts:impersonate", "service-account"),
            ("core/pods:create", "service-account"),
        ],
        Provider::Github | Provider::Vault => &[],
    }
}

impl Permissions {
    /// What these identities may do together.
    #[must_use]
    pub fn reach(&self, starts: &[&Identity]) -> Reach {
        let mut reach = Reach {
            identities: starts.iter().map(|identity| identity.id.clone()).collect(),
            ..Reach::default()
        };
        let (order, ways, cut) = self.becomes(starts);
        reach.truncated = cut;
        let mut providers = BTreeSet::new();
        for identity in order {
            let via = ways.get(&identity.id).cloned().unwrap_or_default();
            reach.becomes.extend(via.last().cloned());
            providers.insert(identity.provider);
            self.privileges(identity, &via, &mut reach);
            self.granted(identity, &via, &mut reach);
            reach.never_used.extend(identity.never_used.iter().cloned());
        }
        reach.privileges.sort_by(|a, b| {
            let key = |p: &Privilege| (std::cmp::Reverse(p.weight), p.via.len(), p.class);
            (key(a), &a.action, &a.identity).cmp(&(key(b), &b.action, &b.identity))
        });
        for rows in [reach.privileges.len(), reach.granted.len()] {
            reach.truncated |= rows > MAX_ROWS;
        }
        reach.privileges.truncate(MAX_ROWS);
        reach.granted.truncate(MAX_ROWS);
        reach.never_used.sort();
        reach.never_used.dedup();
        for provider in providers {
            reach.notes.extend(self.notes(provider));
        }
        reach
    }

    /// Identities that may act on this resource, with the statement that lets them; by name.
    #[must_use]
    pub fn who_can(&self, resource: &str) -> Vec<Granted> {
        let mut all = Vec::new();
        for identity in self.identities.values() {
            if all.len() >= MAX_ROWS {
                break;
            }
            let mut own = Reach::default();
            self.granted(identity, &[], &mut own);
            all.extend(own.granted.into_iter().filter(|granted| {
                let (not, is): (Vec<&String>, Vec<&String>) =
                    granted.resources.iter().partition(|r| r.starts_with('!'));
                let fits = |list: &[&String]| {
                    list.iter()
                        .any(|r| matches(r.trim_start_matches('!'), resource))
                };
                (is.is_empty() || fits(&is)) && !fits(&not)
            }));
        }
        all
    }

    /// Whether an identity may do exactly this on exactly that, conditions taken as met.
    #[must_use]
    pub fn may(&self, identity: &Identity, action: &str, resource: &str) -> bool {
        let says = |statement: &Statement, effect| {
            statement.effect == effect
                && self.has_action(&statement.actions, action)
                && has_resource(&statement.resources, resource)
        };
        let decides = |all: &[&Statement]| {
            all.iter().any(|s| says(s, Effect::Allow))
                && !all
                    .iter()
                    .any(|s| says(s, Effect::Deny) && s.conditions.is_empty())
        };
        let boundary: Option<Vec<&Statement>> =
            identity.boundary.as_ref().map(|b| b.iter().collect());
        decides(&self.statements(identity)) && boundary.is_none_or(|b| decides(&b))
    }

    /// Breadth first over everyone that may be become.
    fn becomes<'p>(
        &'p self,
        starts: &[&'p Identity],
    ) -> (Vec<&'p Identity>, BTreeMap<String, Vec<Step>>, bool) {
        let mut order: Vec<&Identity> = Vec::new();
        let mut ways: BTreeMap<String, Vec<Step>> = BTreeMap::new();
        let mut queue: VecDeque<&Identity> = VecDeque::new();
        for start in starts {
            if ways.insert(start.id.clone(), Vec::new()).is_none() {
                queue.push_back(start);
            }
        }
        let mut cut = false;
        while let Some(identity) = queue.pop_front() {
            order.push(identity);
            let way = ways.get(&identity.id).cloned().unwrap_or_default();
            if way.len() >= MAX_CHAIN {
                cut = true;
                continue;
            }
            for (next, step) in self.steps(identity) {
                if ways.contains_key(&next.id) {
                    continue;
                }
                if ways.len() >= MAX_IDENTITIES {
                    cut = true;
                    break;
                }
                let mut longer = way.clone();
                longer.push(step);
                ways.insert(next.id.clone(), longer);
                queue.push_back(next);
            }
        }
        (order, ways, cut)
    }

    fn steps<'p>(&'p self, identity: &Identity) -> Vec<(&'p Identity, Step)> {
        let all = self.statements(identity);
        let mut steps = Vec::new();
        // Asked once: it does not depend on whom it is about.
        let own = self.allowed(identity, &all, ASSUME);
        for target in self.identities.values() {
            if target.provider == identity.provider
                && target.id != identity.id
                && let Some(step) = self.trusted(identity, &all, &own, target)
            {
                steps.push((target, step));
            }
        }
        // Who may do everything gains nothing by becoming somebody.
        if self.is_administrator(identity, &all) {
            return steps;
        }
        for (action, kind) in takeovers(identity.provider) {
            let allowed = self.allowed(identity, &all, action);
            for target in self.identities.values().filter(|t| {
                t.kind == *kind && t.provider == identity.provider && t.id != identity.id
            }) {
                let fits = |a: &&Allowed<'_>| {
                    target
                        .within
                        .iter()
                        .any(|name| a.resources.iter().any(|r| matches(r, name)))
                };
                if let Some(found) = allowed.iter().find(fits) {
                    steps.push((target, step(identity, target, action, found.statement)));
                }
            }
        }
        steps
    }

    fn is_administrator(&self, identity: &Identity, all: &[&Statement]) -> bool {
        let anything = match identity.provider {
            Provider::Gcp => return false,
            _ => "\u{1}:\u{1}",
        };
        self.allowed(identity, all, anything)
            .iter()
            .any(|a| a.statement.conditions.is_empty() && a.resources.iter().any(|r| r == "*"))
    }

    /// A step over a trust policy.
    fn trusted(
        &self,
        identity: &Identity,
        all: &[&Statement],
        own: &[Allowed<'_>],
        target: &Identity,
    ) -> Option<Step> {
        let is_meant = |pattern: &str| {
            matches(pattern, &identity.id) || identity.names.iter().any(|n| matches(pattern, n))
        };
        let names = |trust: &Trust| {
            trust.principals.iter().any(|principal| {
                is_meant(principal)
                    // A trust may name a session: that is its role.
                    || (principal.contains(":assumed-role/")
                        && aws::log_names(principal).iter().any(|name| is_meant(name)))
            })
        };
        let own = own
            .iter()
            .find(|a| a.resources.iter().any(|r| matches(r, &target.id)));
        let trust = target
            .trusts
            .iter()
            .filter(|t| t.effect == Effect::Allow && names(t))
            .find(|t| !t.needs_own || own.is_some())?;
        let refused = target
            .trusts
            .iter()
            .any(|t| t.effect == Effect::Deny && t.conditions.is_empty() && names(t));
        let denied = all.iter().any(|s| {
            s.effect == Effect::Deny
                && s.conditions.is_empty()
                && self.has_action(&s.actions, ASSUME)
                && has_resource(&s.resources, &target.id)
        });
        if refused || denied {
            return None;
        }
        let mut found = Step {
            from: identity.id.clone(),
            to: target.id.clone(),
            how: "sts:AssumeRole".to_owned(),
            source: trust.source.clone(),
            conditions: trust.conditions.clone(),
        };
        if let Some(own) = own.filter(|_| trust.needs_own) {
            found.source = format!("{} and {}", own.statement.source, trust.source);
            found
                .conditions
                .extend(own.statement.conditions.iter().cloned());
        }
        Some(found)
    }

    /// Own statements and inherited ones.
    fn statements<'p>(&'p self, identity: &'p Identity) -> Vec<&'p Statement> {
        let mut all = Vec::new();
        let mut seen = BTreeSet::new();
        let mut queue = vec![identity];
        while let Some(one) = queue.pop() {
            if !seen.insert(one.id.as_str()) {
                continue;
            }
            all.extend(one.statements.iter());
            queue.extend(one.inherits.iter().filter_map(|name| self.named(name)));
        }
        all
    }

    /// The statements that allow this very action, and on what.
    fn allowed<'p>(
        &self,
        identity: &Identity,
        all: &[&'p Statement],
        action: &str,
    ) -> Vec<Allowed<'p>> {
        all.iter()
            .filter(|s| s.effect == Effect::Allow && self.has_action(&s.actions, action))
            .filter_map(|s| self.left(identity, all, s, Some(action)))
            .collect()
    }

    /// What denies and the boundary leave of one statement, for one action or (`None`) for all.
    fn left<'p>(
        &self,
        identity: &Identity,
        all: &[&'p Statement],
        statement: &'p Statement,
        action: Option<&str>,
    ) -> Option<Allowed<'p>> {
        let mut resources: Vec<String> = if statement.resources.negated {
            vec!["*".to_owned()]
        } else {
            statement.resources.list.clone()
        };
        if let Some(user) = identity
            .id
            .rsplit('/')
            .next()
            .filter(|_| identity.kind == "user")
        {
            for resource in &mut resources {
                *resource = resource.replace("${aws:username}", user);
            }
        }
        let mut except = BTreeSet::new();
        if statement.resources.negated {
            except.insert(format!("not {}", statement.resources.list.join(", ")));
        }
        for deny in all.iter().filter(|s| s.effect == Effect::Deny) {
            let (whole, part) = match action {
                Some(action) => {
                    let hit = self.has_action(&deny.actions, action);
                    (hit, hit)
                }
                None => (
                    patterns_cover(&deny.actions, &statement.actions),
                    patterns_overlap(&deny.actions, &statement.actions),
                ),
            };
            if !part {
                continue;
            }
            if whole && deny.conditions.is_empty() {
                resources.retain(|r| !resource_covered(&deny.resources, r));
            }
            if resources
                .iter()
                .any(|r| resource_overlaps(&deny.resources, r))
            {
                except.insert(format!("denied by {}", deny.source));
            }
        }
        if let Some(boundary) = &identity.boundary {
            resources = self.bounded(boundary, statement, action, &resources);
            except.insert("within the permissions boundary".to_owned());
        }
        (!resources.is_empty()).then(|| Allowed {
            statement,
            resources,
            except: except.into_iter().collect(),
        })
    }

    /// The part of `resources` that a boundary lets through.
    fn bounded(
        &self,
        boundary: &[Statement],
        statement: &Statement,
        action: Option<&str>,
        resources: &[String],
    ) -> Vec<String> {
        let mut inside = BTreeSet::new();
        let fits = |s: &Statement| match action {
            Some(action) => self.has_action(&s.actions, action),
            None => patterns_overlap(&s.actions, &statement.actions),
        };
        for allow in boundary
            .iter()
            .filter(|s| s.effect == Effect::Allow && fits(s))
        {
            for resource in resources {
                if resource_covered(&allow.resources, resource) {
                    inside.insert(resource.clone());
                } else if !allow.resources.negated {
                    inside.extend(
                        allow
                            .resources
                            .list
                            .iter()
                            .filter(|bound| overlap(bound, resource))
                            // The narrower of the two; where they cross, the boundary's own words.
                            .map(|bound| (*bound).clone()),
                    );
                } else if resource_overlaps(&allow.resources, resource) {
                    inside.insert(resource.clone());
                }
            }
        }
        for deny in boundary.iter().filter(|s| {
            s.effect == Effect::Deny
                && s.conditions.is_empty()
                && match action {
                    Some(action) => self.has_action(&s.actions, action),
                    None => patterns_cover(&s.actions, &statement.actions),
                }
        }) {
            inside.retain(|r| !resource_covered(&deny.resources, r));
        }
        inside.into_iter().collect()
    }

    /// True when the patterns, or a custom role among them, contain this action.
    fn has_action(&self, patterns: &Patterns, action: &str) -> bool {
        let hit = patterns.list.iter().any(|pattern| {
            matches(pattern, action)
                || self
                    .roles
                    .get(pattern)
                    .is_some_and(|contained| contained.iter().any(|a| a == action))
        });
        hit != patterns.negated
    }

    fn privileges(&self, identity: &Identity, via: &[Step], reach: &mut Reach) {
        let all = self.statements(identity);
        for known in KNOWN.iter().filter(|k| k.provider == identity.provider) {
            let action = match identity.provider {
                Provider::Aws => known.action.to_lowercase(),
                _ => known.action.clone(),
            };
            let mut allowed = self.allowed(identity, &all, &action);
            // The least conditional and widest first; one that is neither bounded nor conditional
            // says it all.
            allowed.sort_by_key(|a| (a.statement.conditions.len(), !everything(a)));
            let rows = match allowed.first() {
                Some(first) if everything(first) && first.statement.conditions.is_empty() => 1,
                _ => MAX_STATEMENTS,
            };
            reach.truncated |= rows > 1 && allowed.len() > rows;
            for found in allowed.into_iter().take(rows) {
                reach.truncated |= found.resources.len() > MAX_RESOURCES;
                reach.privileges.push(Privilege {
                    class: known.class,
                    weight: known.weight,
                    action: known.action.clone(),
                    resources: found.resources.into_iter().take(MAX_RESOURCES).collect(),
                    except: found.except,
                    identity: identity.id.clone(),
                    via: via.to_vec(),
                    conditions: found.statement.conditions.clone(),
                    source: found.statement.source.clone(),
                });
            }
        }
    }

    fn granted(&self, identity: &Identity, via: &[Step], reach: &mut Reach) {
        let all = self.statements(identity);
        for statement in all.iter().filter(|s| s.effect == Effect::Allow) {
            let Some(left) = self.left(identity, &all, statement, None) else {
                continue;
            };
            let signed = |patterns: &Patterns| -> Vec<String> {
                let sign = if patterns.negated { "!" } else { "" };
                let shown = patterns.list.iter().map(|p| format!("{sign}{p}"));
                shown.collect()
            };
            reach.granted.push(Granted {
                identity: identity.id.clone(),
                via: via.to_vec(),
                actions: signed(&statement.actions),
                resources: if statement.resources.negated {
                    signed(&statement.resources)
                } else {
                    left.resources
                },
                except: left.except,
                conditions: statement.conditions.clone(),
                source: statement.source.clone(),
            });
        }
    }
}

fn step(from: &Identity, to: &Identity, how: &str, statement: &Statement) -> Step {
    Step {
        from: from.id.clone(),
        to: to.id.clone(),
        how: how.to_owned(),
        source: statement.source.clone(),
        conditions: statement.conditions.clone(),
    }
}

fn everything(allowed: &Allowed<'_>) -> bool {
    allowed.resources.iter().any(|r| r == "*") && allowed.except.is_empty()
}

#[cfg(test)]
#[path = "evaluate_tests.rs"]
mod tests;
