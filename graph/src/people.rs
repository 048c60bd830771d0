//! Who answers for an endpoint and for a credential.
//!
//! People come from directories (SCIM, Okta, Entra, Google, Identity Center), devices and local
//! accounts from inventories, ownership of code from CODEOWNERS, of cloud identities from tags.
//! Every [`Candidate`] says by which method it was found and how sure that is; nobody is "the" owner
//! because a machine said so.

mod code_owners;
mod import;
mod resolve;
pub mod table;

use std::collections::{BTreeMap, BTreeSet};

use keytrail_model::process::Confidence;
use serde::{Deserialize, Serialize};

pub use code_owners::Rule;
pub use import::{DirectoryImport, DirectoryKind, import};
pub use resolve::{Ownership, Question};

/// A person as a directory knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// The directory's id.
    pub id: String,
    /// The name they sign in with.
    pub user_name: String,
    /// The name people call them.
    pub display_name: String,
    /// Addresses, the first one preferred.
    pub emails: Vec<String>,
    /// Other names: local accounts, logins elsewhere.
    pub aliases: Vec<String>,
    /// Number of their account on Unix systems.
    pub uid: Option<u32>,
    /// What they do.
    pub title: Option<String>,
    /// Where they belong.
    pub department: Option<String>,
    /// Their manager: id, address or user name.
    pub manager: Option<String>,
    /// False when they left or are suspended.
    pub active: bool,
}

/// A device and who has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its host name.
    pub host: String,
    /// Address, user name or id of who has it.
    pub owner: String,
}

/// A local account and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalAccount {
    /// On which host; everywhere when absent.
    pub host: Option<String>,
    /// Account name or uid.
    pub account: String,
    /// Address, user name or id of the person.
    pub owner: String,
}

/// A group or team.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Ids of its members.
    pub members: Vec<String>,
}

/// Who owns a resource, as a list says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// The resource or identity, as its provider names it; `*` and `?` are wildcards.
    pub resource: String,
    /// Address, user name, team.
    pub owner: String,
}

/// A person, in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PersonView {
    /// Name.
    pub name: String,
    /// Address, when known.
    pub email: Option<String>,
    /// Title and department, when known.
    pub role: Option<String>,
    /// False when they left or are suspended.
    pub active: bool,
}

/// Somebody who may be the owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Candidate {
    /// The person; a name that no directory knows is shown as it is.
    pub person: PersonView,
    /// How that is known, in words; contains untrusted text.
    pub method: String,
    /// How sure it is.
    pub confidence: Confidence,
    /// False when no directory knows the name.
    pub in_directory: bool,
    /// Their manager.
    pub manager: Option<PersonView>,
}

/// All imports together.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    people: Vec<Person>,
    /// Lower-case key -> people and how exact the key is.
    by_key: BTreeMap<String, BTreeMap<usize, Key>>,
    by_uid: BTreeMap<u32, BTreeSet<usize>>,
    devices: BTreeMap<String, Vec<String>>,
    accounts: Vec<LocalAccount>,
    groups: BTreeMap<String, Group>,
    rules: Vec<Rule>,
    tags: Vec<Tag>,
}

/// How exact a key names a person, the most exact first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Id,
    Address,
    UserName,
    Alias,
    LocalPart,
}

impl Directory {
    /// Puts imports together.
    pub fn of(imports: impl IntoIterator<Item = DirectoryImport>) -> Self {
        let mut all = Self::default();
        for import in imports {
            for person in import.people {
                all.add(person);
            }
            for device in import.devices {
                all.devices
                    .entry(short_host(&device.host))
                    .or_default()
                    .push(device.owner);
            }
            for group in import.groups {
                all.groups.insert(group.name.to_lowercase(), group);
            }
            all.accounts.extend(import.accounts);
            all.rules.extend(import.rules);
            all.tags.extend(import.tags);
        }
        all
    }

    /// How many people are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.people.len()
    }

    /// True when nobody is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.people.is_empty()
    }

    /// Adds a person; one that an earlier import knows under the same address is completed.
    fn add(&mut self, person: Person) {
        let same = person
            .emails
            .first()
            .and_then(|email| self.by_key.get(&email.to_lowercase()))
            .and_then(|found| {
                found
                    .iter()
                    .find(|(_, key)| **key == Key::Address)
                    .map(|(nr, _)| *nr)
            });
        let nr = same.unwrap_or(self.people.len());
        match self.people.get_mut(nr) {
            Some(known) => complete(known, person.clone()),
            None => self.people.push(person.clone()),
        }
        self.index(nr, &person);
    }

    fn index(&mut self, nr: usize, person: &Person) {
        let mut keys = vec![
            (person.id.clone(), Key::Id),
            (person.user_name.clone(), Key::UserName),
        ];
        for email in &person.emails {
            keys.push((email.clone(), Key::Address));
        }
        keys.extend(person.aliases.iter().map(|a| (a.clone(), Key::Alias)));
        for address in person.emails.iter().chain([&person.user_name]) {
            if let Some((local, _)) = address.split_once('@') {
                keys.push((local.to_owned(), Key::LocalPart));
            }
        }
        for (key, kind) in keys {
            if !key.is_empty() {
                let people = self.by_key.entry(key.to_lowercase()).or_default();
                let known = people.entry(nr).or_insert(kind);
                *known = (*known).min(kind);
            }
        }
        if let Some(uid) = person.uid {
            self.by_uid.entry(uid).or_default().insert(nr);
        }
    }

    /// People whom a name may mean, the surest first, and how sure the name is.
    fn find(&self, name: &str) -> Vec<(&Person, Confidence)> {
        let Some(found) = self.by_key.get(&name.trim().to_lowercase()) else {
            return Vec::new();
        };
        let mut all: Vec<(Key, &Person)> = found
            .iter()
            .filter_map(|(nr, key)| Some((*key, self.people.get(*nr)?)))
            .collect();
        all.sort_by_key(|(key, person)| (*key, !person.active, person.user_name.clone()));
        let several = all.len() > 1;
        all.into_iter()
            .map(|(key, person)| {
                let sure = match key {
                    Key::Id | Key::Address | Key::UserName => Confidence::High,
                    Key::Alias if several => Confidence::Low,
                    Key::Alias => Confidence::Medium,
                    Key::LocalPart => Confidence::Low,
                };
                (person, sure)
            })
            .collect()
    }

    /// The person behind a text; `None` when nobody or several may be meant.
    fn manager(&self, of: &Person) -> Option<PersonView> {
        let manager = of.manager.as_deref()?;
        match self.find(manager).first() {
            Some((person, _)) => Some(view(person)),
            None => Some(unknown(manager)),
        }
    }
}

/// A later export completes an earlier one; whether somebody is active is what the later one says.
fn complete(known: &mut Person, other: Person) {
    known.aliases.extend(other.aliases);
    known.aliases.push(other.user_name);
    known.emails.extend(other.emails);
    for list in [&mut known.aliases, &mut known.emails] {
        let mut seen = BTreeSet::new();
        list.retain(|one| !one.is_empty() && seen.insert(one.to_lowercase()));
    }
    known.uid = known.uid.or(other.uid);
    known.title = other.title.or(known.title.take());
    known.department = other.department.or(known.department.take());
    known.manager = other.manager.or(known.manager.take());
    known.active = other.active;
}

fn view(person: &Person) -> PersonView {
    let parts: Vec<&str> = [&person.title, &person.department]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    let name = [&person.display_name, &person.user_name]
        .into_iter()
        .chain(person.emails.first())
        .find(|name| !name.is_empty())
        .unwrap_or(&person.id);
    PersonView {
        name: name.clone(),
        email: person.emails.first().cloned(),
        role: (!parts.is_empty()).then(|| parts.join(", ")),
        active: person.active,
    }
}

/// Somebody that no directory knows.
fn unknown(name: &str) -> PersonView {
    PersonView {
        name: name.to_owned(),
        email: name.contains('@').then(|| name.to_owned()),
        role: None,
        active: true,
    }
}

/// Inventories write host names with and without a domain, in any case.
fn short_host(host: &str) -> String {
    let host = host.trim().to_lowercase();
    match host.split_once('.') {
        Some((short, _)) => short.to_owned(),
        None => host,
    }
}
