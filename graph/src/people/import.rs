//! Which column of which export says what. Only these columns are kept.
//!
//! Sources: Okta API, `User` (`profile`); Microsoft Graph, `user`; Google Admin SDK, `User`, and the
//! columns of its CSV download; RFC 7643 section 4.1 (SCIM `User`); AWS Identity Store API, `User`.

use serde::{Deserialize, Serialize};

use super::code_owners::{self, Rule};
use super::table::{Row, rows};
use super::{Device, Group, LocalAccount, Person, Tag};
use crate::permission::ImportError;

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum DirectoryKind {
    /// SCIM users, as a list response or one by one.
    Scim,
    /// Okta users: API JSON or CSV.
    Okta,
    /// Entra users: Graph JSON, `az ad user list`, or the portal's CSV.
    Entra,
    /// Google Workspace users: Directory API JSON or the admin console's CSV.
    Google,
    /// `aws identitystore list-users`
    IdentityCenter,
    /// Device inventory: a host name and an owner a line.
    Devices,
    /// Local accounts: an account (or uid), perhaps a host, and an owner a line.
    Accounts,
    /// Owners of resources and identities: a name (with wildcards) and an owner a line.
    Tags,
    /// A CODEOWNERS file of the repository named with the import.
    Codeowners,
}

impl DirectoryKind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Scim,
        Self::Okta,
        Self::Entra,
        Self::Google,
        Self::IdentityCenter,
        Self::Devices,
        Self::Accounts,
        Self::Tags,
        Self::Codeowners,
    ];
}

/// What is kept of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DirectoryImport {
    /// People.
    pub people: Vec<Person>,
    /// Devices.
    pub devices: Vec<Device>,
    /// Local accounts.
    pub accounts: Vec<LocalAccount>,
    /// Groups.
    pub groups: Vec<Group>,
    /// Rules of CODEOWNERS files.
    pub rules: Vec<Rule>,
    /// Owners of resources.
    pub tags: Vec<Tag>,
    /// What was passed over, in words.
    pub notes: Vec<String>,
}

impl DirectoryImport {
    /// How many entries it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.people.len()
            + self.devices.len()
            + self.accounts.len()
            + self.groups.len()
            + self.rules.len()
            + self.tags.len()
    }

    /// True when it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Columns, the best first; `*` at the end stands for every column that begins so.
type Columns = &'static [&'static str];

const ID: Columns = &[
    "id",
    "objectid",
    "object id",
    "userid",
    "user id",
    "employeenumber",
];
const USER_NAME: Columns = &[
    "username",
    "profile.login",
    "userprincipalname",
    "user principal name",
    "primaryemail",
    "login",
    "email address [required]",
    "email address",
    "profile.email",
    "email",
];
const EMAILS: Columns = &[
    "profile.email",
    "mail",
    "primaryemail",
    "email address [required]",
    "email address",
    "email",
    "primary email",
    "emails.*",
    "profile.secondemail",
    "othermails.*",
    "aliases.*",
    "recovery email",
    "proxyaddresses.*",
    "userprincipalname",
    "user principal name",
];
const DISPLAY: Columns = &[
    "displayname",
    "display name",
    "profile.displayname",
    "name.formatted",
    "name.fullname",
    "full name",
    "name",
];
const FIRST: Columns = &[
    "profile.firstname",
    "givenname",
    "name.givenname",
    "first name [required]",
    "first name",
    "firstname",
];
const LAST: Columns = &[
    "profile.lastname",
    "surname",
    "name.familyname",
    "last name [required]",
    "last name",
    "lastname",
];
const ALIASES: Columns = &[
    "onpremisessamaccountname",
    "samaccountname",
    "mailnickname",
    "nickname",
    "profile.nickname",
    "posixaccounts.*",
    "externalid",
    "profile.githubusername",
    "profile.github",
    "github",
    "github username",
    "githublogin",
    "unix",
    "unixname",
    "profile.unixname",
    "linux username",
    "urn:ietf:params:scim:schemas:extension:keytrail:2.0:user.aliases.*",
];
const UID: Columns = &[
    "uidnumber",
    "profile.uidnumber",
    "posixaccounts.0.uid",
    "uid",
];
const TITLE: Columns = &[
    "title",
    "jobtitle",
    "job title",
    "profile.title",
    "organizations.0.title",
    "employee title",
];
const DEPARTMENT: Columns = &[
    "department",
    "profile.department",
    "organizations.0.department",
    "urn:ietf:params:scim:schemas:extension:enterprise:2.0:user.department",
];
const MANAGER: Columns = &[
    "urn:ietf:params:scim:schemas:extension:enterprise:2.0:user.manager.value",
    "profile.managerid",
    "managerid",
    "manager id",
    "manager user id",
    "manager.mail",
    "manager.userprincipalname",
    "manager.id",
    "manager email",
    "profile.manager",
    "manager",
];
const ACTIVE: Columns = &[
    "active",
    "status",
    "accountenabled",
    "account enabled",
    "suspended",
    "status [read only]",
];
const HOST: Columns = &[
    "hostname",
    "host name",
    "host",
    "device name",
    "devicename",
    "computer name",
    "computername",
    "general.name",
    "displayname",
    "name",
    "device",
];
const OWNER: Columns = &[
    "owner",
    "owner email",
    "owneremail",
    "assigned to",
    "assigned_to",
    "assignee",
    "primary user",
    "primaryuser",
    "userprincipalname",
    "primary user upn",
    "user email",
    "useremail",
    "email",
    "userandlocation.email",
    "location.email_address",
    "user",
    "username",
];
const ACCOUNT: Columns = &[
    "account",
    "local user",
    "localuser",
    "login",
    "unix",
    "user",
    "uid",
];
const RESOURCE: Columns = &[
    "resource",
    "arn",
    "identity",
    "repository",
    "name",
    "pattern",
];

/// Takes a file apart. `about` names the repository of a CODEOWNERS file.
///
/// # Errors
/// When the file has another form: where, what, and how to mend it.
pub fn import(
    kind: DirectoryKind,
    about: Option<&str>,
    file: &[u8],
) -> Result<DirectoryImport, ImportError> {
    let mut import = DirectoryImport::default();
    match kind {
        DirectoryKind::Codeowners => {
            let repository = about.ok_or_else(|| {
                ImportError::shape(
                    "file",
                    "a CODEOWNERS file does not say which repository it is of",
                    "name it: --about OWNER/REPOSITORY",
                )
            })?;
            import.rules = code_owners::rules(repository, file)?;
            return Ok(import);
        }
        DirectoryKind::Devices => {
            pairs(&mut import, file, HOST, OWNER, |import, host, owner, _| {
                import.devices.push(Device { host, owner });
            })?;
        }
        DirectoryKind::Accounts => {
            pairs(
                &mut import,
                file,
                ACCOUNT,
                OWNER,
                |import, account, owner, row| {
                    let host = first(row, &["host", "hostname", "host name", "device"]);
                    import.accounts.push(LocalAccount {
                        host,
                        account,
                        owner,
                    });
                },
            )?;
        }
        DirectoryKind::Tags => {
            pairs(
                &mut import,
                file,
                RESOURCE,
                OWNER,
                |import, resource, owner, _| {
                    import.tags.push(Tag { resource, owner });
                },
            )?;
        }
        DirectoryKind::Scim
        | DirectoryKind::Okta
        | DirectoryKind::Entra
        | DirectoryKind::Google
        | DirectoryKind::IdentityCenter => {
            for row in rows(file)? {
                match (group(&row), person(&row)) {
                    (Some(group), _) => import.groups.push(group),
                    (None, Some(person)) => import.people.push(person),
                    (None, None) => skipped(&mut import, "entries without a user name or address"),
                }
            }
        }
    }
    if import.is_empty() {
        return Err(ImportError::shape(
            "file",
            "no entry has the columns that are needed",
            "give the export unedited, with its head line",
        ));
    }
    Ok(import)
}

fn pairs(
    import: &mut DirectoryImport,
    file: &[u8],
    left: Columns,
    right: Columns,
    put: impl Fn(&mut DirectoryImport, String, String, &Row),
) -> Result<(), ImportError> {
    for row in rows(file)? {
        // The same column cannot be both.
        let one = left.iter().find(|c| row.contains_key(**c));
        let other = right
            .iter()
            .find(|c| row.contains_key(**c) && one != Some(*c));
        match (
            one.and_then(|c| row.get(*c)),
            other.and_then(|c| row.get(*c)),
        ) {
            (Some(one), Some(other)) if !one.is_empty() && !other.is_empty() => {
                put(import, one.clone(), other.clone(), &row);
            }
            _ => skipped(import, "entries without an owner or a name"),
        }
    }
    Ok(())
}

/// Counts what was passed over: one note a kind.
fn skipped(import: &mut DirectoryImport, what: &str) {
    let before = import
        .notes
        .iter()
        .find_map(|note| note.strip_suffix(what)?.trim().parse::<u64>().ok());
    import.notes.retain(|note| !note.ends_with(what));
    import
        .notes
        .push(format!("{} {what}", before.unwrap_or(0) + 1));
}

/// A person out of a row; `None` without any name.
pub(super) fn person(row: &Row) -> Option<Person> {
    let user_name = first(row, USER_NAME)?;
    let given = [first(row, FIRST), first(row, LAST)];
    let full: Vec<String> = given.into_iter().flatten().collect();
    let emails: Vec<String> = all(row, EMAILS)
        .into_iter()
        .map(|address| {
            // Exchange writes `SMTP:` before an address.
            let plain = address.split_once(':').map_or(address.as_str(), |(_, a)| a);
            plain.to_owned()
        })
        .filter(|address| address.contains('@'))
        .collect();
    Some(Person {
        id: first(row, ID).unwrap_or_default(),
        display_name: first(row, DISPLAY).unwrap_or_else(|| full.join(" ")),
        aliases: all(row, ALIASES)
            .into_iter()
            .filter(|alias| !alias.contains(['/', ' ']) && alias.len() <= 128)
            .collect(),
        uid: first(row, UID).and_then(|uid| uid.parse().ok()),
        title: first(row, TITLE),
        department: first(row, DEPARTMENT),
        manager: manager(row),
        active: active(row),
        emails: unique(emails),
        user_name,
    })
}

/// Google lists a manager among other relations.
fn manager(row: &Row) -> Option<String> {
    first(row, MANAGER).or_else(|| {
        let relation = row
            .iter()
            .find(|(key, value)| key.starts_with("relations.") && *value == "manager")?;
        let at = relation.0.strip_suffix(".type")?;
        row.get(&format!("{at}.value")).cloned()
    })
}

fn active(row: &Row) -> bool {
    let suspended = row
        .get("suspended")
        .is_some_and(|s| s.eq_ignore_ascii_case("true"));
    let Some(state) = first(row, ACTIVE).filter(|_| !suspended) else {
        return !suspended;
    };
    let inactive = [
        "false",
        "no",
        "disabled",
        "suspended",
        "deprovisioned",
        "inactive",
        "archived",
        "deleted",
        "terminated",
    ];
    row.contains_key("suspended") || !inactive.contains(&state.to_lowercase().as_str())
}

fn group(row: &Row) -> Option<Group> {
    let is_group = row.keys().any(|key| key.starts_with("members."))
        || row.get("schemas.0").is_some_and(|s| s.ends_with(":Group"));
    let members = all(row, &["members.*"]);
    is_group.then(|| Group {
        name: first(row, &["displayname", "name"]).unwrap_or_default(),
        members,
    })
}

fn first(row: &Row, columns: &[&str]) -> Option<String> {
    columns
        .iter()
        .filter(|column| !column.ends_with('*'))
        .find_map(|column| row.get(*column).filter(|v| !v.is_empty()))
        .cloned()
}

fn all(row: &Row, columns: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for column in columns {
        match column.strip_suffix('*') {
            Some(prefix) => {
                let under = row.range(prefix.to_owned()..);
                let under = under.take_while(|(key, _)| key.starts_with(prefix));
                found.extend(
                    under
                        .filter(|(key, _)| {
                            // The value itself or a member that holds one.
                            let rest = key.strip_prefix(prefix).unwrap_or_default();
                            let last = rest.rsplit('.').next().unwrap_or_default();
                            matches!(last, "value" | "address" | "username")
                                || last.bytes().all(|b| b.is_ascii_digit())
                        })
                        .map(|(_, value)| value.clone()),
                );
            }
            None => found.extend(row.get(*column).cloned()),
        }
    }
    unique(found)
}

fn unique(mut list: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    list.retain(|one| !one.is_empty() && seen.insert(one.to_lowercase()));
    list
}
