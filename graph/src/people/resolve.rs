//! From accounts, hosts, identities and resources to people.

use std::collections::BTreeSet;

use keytrail_model::process::Confidence;
use serde::{Deserialize, Serialize};

use super::{Candidate, Directory, code_owners, short_host, unknown, view};
use crate::permission::Identity;
use crate::permission::pattern::matches;

/// Candidates of one side at most.
const MAX_CANDIDATES: usize = 16;

/// What is known of one credential and its holders.
#[derive(Clone, Debug, Default)]
pub struct Question<'a> {
    /// Hosts that hold it, the responsible one first.
    pub hosts: Vec<&'a str>,
    /// Accounts that held it: host, account name, uid, audit login uid.
    pub accounts: Vec<(&'a str, Option<&'a str>, u32, Option<u32>)>,
    /// Names that a provider gave to who used it.
    pub principals: Vec<&'a str>,
    /// Imported identities behind it.
    pub identities: Vec<&'a Identity>,
    /// Resources it was used on.
    pub resources: Vec<&'a str>,
}

/// Who answers for what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Ownership {
    /// Who may own the endpoints, surest first.
    pub endpoint: Vec<Candidate>,
    /// Who may own the credential, surest first.
    pub credential: Vec<Candidate>,
    /// True when the surest of both are different people.
    pub differ: bool,
    /// In one sentence; contains untrusted text.
    pub summary: String,
}

impl Directory {
    /// Everybody who may answer for a credential and for the endpoints that hold it.
    #[must_use]
    pub fn owners(&self, question: &Question<'_>) -> Ownership {
        let endpoint = ranked(self.of_endpoints(question));
        let credential = ranked(self.of_credential(question));
        let (one, other) = (endpoint.first(), credential.first());
        let differ = match (one, other) {
            (Some(one), Some(other)) => same(one) != same(other),
            _ => false,
        };
        let said = |candidate: &Candidate| {
            let person = &candidate.person;
            let left = if person.active {
                String::new()
            } else {
                match &candidate.manager {
                    Some(manager) => format!(" (inactive; manager: {})", manager.name),
                    None => " (inactive)".to_owned(),
                }
            };
            format!("{}{left}", person.name)
        };
        let summary = match (one, other) {
            (Some(one), Some(other)) if differ => format!(
                "the endpoint is {}'s, the credential is {}'s: talk to both",
                said(one),
                said(other)
            ),
            (Some(one), Some(_)) => format!("endpoint and credential are {}'s", said(one)),
            (Some(one), None) => format!(
                "the endpoint is {}'s; whose the credential is, is not known",
                said(one)
            ),
            (None, Some(other)) => format!(
                "the credential is {}'s; whose the endpoint is, is not known",
                said(other)
            ),
            (None, None) => "nobody is known; import a directory or a device inventory".to_owned(),
        };
        Ownership {
            endpoint,
            credential,
            differ,
            summary,
        }
    }

    fn of_endpoints(&self, question: &Question<'_>) -> Vec<Candidate> {
        let mut all = Vec::new();
        for host in &question.hosts {
            for owner in self.devices.get(&short_host(host)).into_iter().flatten() {
                let method = format!("device inventory, {host}");
                self.named(&mut all, owner, &method, Confidence::High);
            }
        }
        for (host, name, uid, login) in &question.accounts {
            self.local(&mut all, host, *name, *uid, *login);
        }
        all
    }

    fn local(
        &self,
        all: &mut Vec<Candidate>,
        host: &str,
        name: Option<&str>,
        uid: u32,
        login: Option<u32>,
    ) {
        // Who logged in is meant, not what `sudo` made of them.
        let login_differs = login.filter(|login| *login != uid);
        let number = login.unwrap_or(uid);
        let name = name.filter(|_| login_differs.is_none());
        let here = |known: Option<&str>| known.is_none_or(|h| short_host(h) == short_host(host));
        for known in self.accounts.iter().filter(|known| {
            here(known.host.as_deref())
                && (Some(known.account.as_str()) == name || known.account == number.to_string())
        }) {
            let method = format!("list of local accounts, {} on {host}", known.account);
            let sure = match known.host {
                Some(_) => Confidence::High,
                None => Confidence::Medium,
            };
            self.named(all, &known.owner, &method, sure);
        }
        if let Some(login) = login {
            for nr in self.by_uid.get(&login).into_iter().flatten() {
                if let Some(person) = self.people.get(*nr) {
                    let method = format!("audit login uid {login} on {host}");
                    all.push(self.candidate(person, &method, Confidence::Medium));
                }
            }
        }
        let Some(name) = name else {
            all.push(Candidate {
                person: unknown(&format!("uid {number}")),
                method: format!("account of the process on {host}"),
                confidence: Confidence::Low,
                in_directory: false,
                manager: None,
            });
            return;
        };
        // `root` and service accounts are nobody's name.
        if matches!(name, "root" | "nobody" | "daemon") || uid == 0 {
            return;
        }
        let method = format!("local account {name} on {host}");
        self.named(all, name, &method, Confidence::Medium);
    }

    fn of_credential(&self, question: &Question<'_>) -> Vec<Candidate> {
        let mut all = Vec::new();
        for principal in &question.principals {
            let (name, method, sure) = person_in(principal);
            // A name that no directory knows says nothing here: most principals are machines.
            if !self.find(name).is_empty() || name.contains('@') && !is_machine(name) {
                self.named(&mut all, name, &format!("{method} {principal}"), sure);
            }
        }
        for identity in &question.identities {
            for (tag, owner) in &identity.owner_tags {
                let method = format!("tag {tag} of {}", identity.id);
                self.named(&mut all, owner, &method, Confidence::Medium);
            }
            let last = identity
                .id
                .rsplit(['/', ':'])
                .next()
                .unwrap_or(&identity.id);
            if identity.kind == "user" && !self.find(last).is_empty() {
                let method = format!("name of {}", identity.id);
                self.named(&mut all, last, &method, Confidence::Medium);
            }
            if let Some((login, _)) = identity.id.split_once("/token ") {
                let method = format!("owner of the GitHub token ({login})");
                self.named(&mut all, login, &method, Confidence::High);
            }
        }
        let things = question
            .principals
            .iter()
            .chain(&question.resources)
            .copied()
            .chain(question.identities.iter().map(|i| i.id.as_str()));
        for thing in things {
            for tag in self.tags.iter().filter(|tag| matches(&tag.resource, thing)) {
                let method = format!("list of owners, {}", tag.resource);
                self.named(&mut all, &tag.owner, &method, Confidence::Medium);
            }
        }
        for resource in &question.resources {
            let Some(rule) = code_owners::of_repository(&self.rules, resource) else {
                continue;
            };
            for owner in &rule.owners {
                let method = format!("CODEOWNERS of {resource}, {}", rule.pattern);
                let name = owner.trim_start_matches('@');
                self.named(&mut all, name, &method, Confidence::Low);
            }
        }
        all
    }

    /// Adds whoever a name may mean; a team stands for its members' team.
    fn named(&self, all: &mut Vec<Candidate>, name: &str, method: &str, sure: Confidence) {
        let found = self.find(name);
        for (person, exact) in &found {
            all.push(self.candidate(person, method, sure.min(*exact)));
        }
        if !found.is_empty() {
            return;
        }
        let team = name.rsplit('/').next().unwrap_or(name).to_lowercase();
        if let Some(group) = self.groups.get(&team) {
            let method = format!("{method}, member of {}", group.name);
            for member in group.members.iter().take(MAX_CANDIDATES) {
                if let Some((person, _)) = self.find(member).first() {
                    all.push(self.candidate(person, &method, Confidence::Low));
                }
            }
        }
        all.push(Candidate {
            person: unknown(name),
            method: method.to_owned(),
            confidence: Confidence::Low,
            in_directory: false,
            manager: None,
        });
    }

    fn candidate(&self, person: &super::Person, method: &str, sure: Confidence) -> Candidate {
        Candidate {
            person: view(person),
            method: method.to_owned(),
            confidence: sure,
            in_directory: true,
            manager: self.manager(person),
        }
    }
}

/// The person's name inside a principal, how it is known, how sure.
///
/// Source: IAM Identity Center User Guide (roles are named `AWSReservedSSO_<set>_<hash>`, their
/// sessions by the user name); Google Cloud and Entra print addresses.
fn person_in(principal: &str) -> (&str, &'static str, Confidence) {
    if let Some((_, session)) = principal.split_once(":assumed-role/AWSReservedSSO_") {
        let name = session.split_once('/').map_or(session, |(_, name)| name);
        return (name, "Identity Center session", Confidence::High);
    }
    if let Some((_, session)) = principal.split_once(":assumed-role/") {
        let name = session.split_once('/').map_or(session, |(_, name)| name);
        // Whoever assumes a role chooses the session's name.
        return (name, "session name of", Confidence::Low);
    }
    if let Some((_, user)) = principal.split_once(":user/") {
        let name = user.rsplit('/').next().unwrap_or(user);
        return (name, "name of", Confidence::Medium);
    }
    let name = principal.strip_prefix("user:").unwrap_or(principal);
    (name, "provider's record names", Confidence::High)
}

fn is_machine(name: &str) -> bool {
    name.ends_with("gserviceaccount.com") || name.starts_with("system:")
}

/// What makes two candidates the same person.
fn same(candidate: &Candidate) -> String {
    let person = &candidate.person;
    person.email.as_ref().unwrap_or(&person.name).to_lowercase()
}

/// Surest first; each person once, by the surest method.
fn ranked(mut all: Vec<Candidate>) -> Vec<Candidate> {
    all.sort_by(|a, b| {
        let key = |c: &Candidate| (std::cmp::Reverse(c.confidence), !c.in_directory);
        (key(a), &a.person.name, &a.method).cmp(&(key(b), &b.person.name, &b.method))
    });
    let mut seen = BTreeSet::new();
    all.retain(|candidate| seen.insert(same(candidate)));
    all.truncate(MAX_CANDIDATES);
    all
}
