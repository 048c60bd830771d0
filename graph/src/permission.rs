//! What identities are allowed to do, from exported policies.
//!
//! Every provider's export is brought to one form: [`Identity`] with [`Statement`]s and [`Trust`]s.
//! [`Permissions`] holds all imports together and answers what an identity may do, along which
//! chain of assumed identities, and why ([`Granted::source`]).
//!
//! What is not in an export is not guessed: resource policies, organisation policies and the values
//! of conditions are unknown here, and an answer that hangs on a condition says so.

mod evaluate;
pub mod import;
pub mod pattern;
pub mod privilege;

mod aws;
mod gcp;
mod github;
mod hcl;
mod kubernetes;
mod sets;
mod vault;

use std::collections::{BTreeMap, BTreeSet};

use keytrail_model::credential::CredentialId;
use serde::{Deserialize, Serialize};

pub use evaluate::{Granted, MAX_CHAIN, Privilege, Reach, Step};
pub use import::{Import, ImportError, ImportKind, import};

/// Whether a statement gives or takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It gives.
    Allow,
    /// It takes, whatever else gives.
    Deny,
}

/// A set of patterns, or everything but that set (`NotAction`, `NotResource`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patterns {
    /// The patterns.
    pub list: Vec<String>,
    /// True for everything that fits none of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub negated: bool,
}

impl Patterns {
    /// These patterns.
    pub fn of<T: Into<String>>(list: impl IntoIterator<Item = T>) -> Self {
        Self {
            list: list.into_iter().map(Into::into).collect(),
            negated: false,
        }
    }
}

/// One statement of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// Whether it gives or takes.
    pub effect: Effect,
    /// Which actions.
    pub actions: Patterns,
    /// On which resources.
    pub resources: Patterns,
    /// Conditions, without their values (`StringEquals aws:SourceVpc`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<String>,
    /// Which statement of which policy, in words.
    pub source: String,
}

/// Who may become an identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// Whether it gives or takes.
    pub effect: Effect,
    /// Names of identities as patterns.
    pub principals: Vec<String>,
    /// True when the one who becomes it needs a permission of its own as well (the trust names an
    /// account, or another account's identity).
    pub needs_own: bool,
    /// Conditions, without their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<String>,
    /// Where it says so.
    pub source: String,
}

/// Which provider's rules apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    /// Amazon Web Services.
    Aws,
    /// GitHub.
    Github,
    /// Google Cloud.
    Gcp,
    /// Kubernetes RBAC.
    Kubernetes,
    /// HashiCorp Vault or OpenBao.
    Vault,
}

impl Provider {
    /// Its name in the data tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Github => "github",
            Self::Gcp => "gcp",
            Self::Kubernetes => "kubernetes",
            Self::Vault => "vault",
        }
    }
}

/// Someone that a provider lets do things: a user, role, service account, token, group, policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The provider's own name (an ARN, an address, a login).
    pub id: String,
    /// Whose rules apply.
    pub provider: Provider,
    /// What it is: `user`, `role`, `group`, `service-account`, `token`, `policy`.
    pub kind: String,
    /// Other names under which logs know it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Identities whose statements count as its own (groups, policies).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inherits: Vec<String>,
    /// Resources that it is, or lies in: who may act on one of them may act on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub within: Vec<String>,
    /// What it is allowed and denied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statements: Vec<Statement>,
    /// What bounds it: nothing outside is allowed (AWS permissions boundary).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boundary: Option<Vec<Statement>>,
    /// Who may become it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusts: Vec<Trust>,
    /// Tags that name an owner: key in lower case, value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub owner_tags: BTreeMap<String, String>,
    /// Services it may use but has never used, where a report says so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub never_used: Vec<String>,
}

impl Identity {
    /// An identity without any statement yet.
    #[must_use]
    pub fn new(provider: Provider, kind: &str, id: &str) -> Self {
        Self {
            id: id.to_owned(),
            provider,
            kind: kind.to_owned(),
            names: Vec::new(),
            inherits: Vec::new(),
            within: vec![id.to_owned()],
            statements: Vec::new(),
            boundary: None,
            trusts: Vec::new(),
            owner_tags: BTreeMap::new(),
            never_used: Vec::new(),
        }
    }
}

/// All imports together.
#[derive(Clone, Debug, Default)]
pub struct Permissions {
    identities: BTreeMap<String, Identity>,
    /// Lower-case name -> id.
    names: BTreeMap<String, String>,
    /// Credential -> ids.
    links: BTreeMap<CredentialId, BTreeSet<String>>,
    /// Custom role -> what it contains (Google Cloud).
    roles: BTreeMap<String, Vec<String>>,
    /// What the imports do not tell, per provider.
    notes: BTreeMap<Provider, BTreeSet<String>>,
}

impl Permissions {
    /// Puts imports together. Later ones complete earlier ones: statements of one identity add up.
    pub fn of(imports: impl IntoIterator<Item = Import>) -> Self {
        let mut all = Self::default();
        for import in imports {
            all.add(import);
        }
        all
    }

    fn add(&mut self, import: Import) {
        let Import {
            kind,
            identities,
            links,
            roles,
            notes,
        } = import;
        let provider = kind.provider();
        self.notes.entry(provider).or_default().extend(notes);
        self.roles.extend(roles);
        for (credential, id) in links {
            self.links.entry(credential).or_default().insert(id);
        }
        for identity in identities {
            for name in identity.names.iter().chain([&identity.id]) {
                self.names.insert(name.to_lowercase(), identity.id.clone());
            }
            match self.identities.get_mut(&identity.id) {
                Some(known) => known.absorb(identity),
                None => {
                    self.identities.insert(identity.id.clone(), identity);
                }
            }
        }
    }

    /// True when nothing was imported.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.identities.is_empty()
    }

    /// How many identities are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.identities.len()
    }

    /// The identity that a log calls so.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Identity> {
        aws::log_names(name)
            .iter()
            .find_map(|name| self.names.get(&name.to_lowercase()))
            .and_then(|id| self.identities.get(id))
    }

    /// Identities that imports tie to this very credential.
    #[must_use]
    pub fn of_credential(&self, credential: &CredentialId) -> Vec<&Identity> {
        let ids = self.links.get(credential).into_iter().flatten();
        ids.filter_map(|id| self.named(id)).collect()
    }

    /// What the imports of this provider do not tell.
    #[must_use]
    pub fn notes(&self, provider: Provider) -> Vec<String> {
        let notes = self.notes.get(&provider).into_iter().flatten();
        notes.cloned().collect()
    }
}

impl Identity {
    fn absorb(&mut self, other: Self) {
        self.names.extend(other.names);
        self.inherits.extend(other.inherits);
        self.within.extend(other.within);
        self.statements.extend(other.statements);
        self.trusts.extend(other.trusts);
        self.owner_tags.extend(other.owner_tags);
        self.never_used.extend(other.never_used);
        self.boundary = self.boundary.take().or(other.boundary);
        for list in [
            &mut self.names,
            &mut self.inherits,
            &mut self.within,
            &mut self.never_used,
        ] {
            list.sort();
            list.dedup();
        }
    }
}
