//! Files that people export from a provider, and what is taken from them.

use std::collections::BTreeMap;

use keytrail_model::credential::CredentialId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::{Identity, Provider, aws, gcp, github, kubernetes, vault};

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ImportKind {
    /// `aws iam get-account-authorization-details`
    AwsIam,
    /// `aws iam list-access-keys`: which key belongs to which user.
    AwsAccessKeys,
    /// `aws iam get-service-last-accessed-details` of the identity named with the import.
    AwsLastAccessed,
    /// GitHub tokens with scopes or permissions, and the repositories they reach.
    Github,
    /// `gcloud ... get-iam-policy`, `gcloud asset search-all-iam-policies`, an asset export of IAM
    /// policies, `gcloud iam roles list`.
    GcpIam,
    /// `kubectl get clusterroles,clusterrolebindings,roles,rolebindings -A -o json`
    Kubernetes,
    /// Vault policies (HCL or JSON), or token look-ups.
    Vault,
}

impl ImportKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::AwsIam,
        Self::AwsAccessKeys,
        Self::AwsLastAccessed,
        Self::Github,
        Self::GcpIam,
        Self::Kubernetes,
        Self::Vault,
    ];

    /// Its name on the command line and in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AwsIam => "aws-iam",
            Self::AwsAccessKeys => "aws-access-keys",
            Self::AwsLastAccessed => "aws-last-accessed",
            Self::Github => "github",
            Self::GcpIam => "gcp-iam",
            Self::Kubernetes => "kubernetes",
            Self::Vault => "vault",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Whose file it is.
    #[must_use]
    pub fn provider(self) -> Provider {
        match self {
            Self::AwsIam | Self::AwsAccessKeys | Self::AwsLastAccessed => Provider::Aws,
            Self::Github => Provider::Github,
            Self::GcpIam => Provider::Gcp,
            Self::Kubernetes => Provider::Kubernetes,
            Self::Vault => Provider::Vault,
        }
    }
}

/// What is kept of a file: no document text, no condition's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// What kind of file it was.
    pub kind: ImportKind,
    /// Identities and what they may do.
    #[serde(default)]
    pub identities: Vec<Identity>,
    /// Which credential belongs to which identity.
    #[serde(default)]
    pub links: Vec<(CredentialId, String)>,
    /// Custom roles and what they contain.
    #[serde(default)]
    pub roles: BTreeMap<String, Vec<String>>,
    /// What this file does not tell, in words.
    #[serde(default)]
    pub notes: Vec<String>,
}

impl Import {
    pub(super) fn new(kind: ImportKind) -> Self {
        Self {
            kind,
            identities: Vec::new(),
            links: Vec::new(),
            roles: BTreeMap::new(),
            notes: Vec::new(),
        }
    }

    pub(super) fn note(&mut self, note: String) {
        if !self.notes.contains(&note) && self.notes.len() < MAX_NOTES {
            self.notes.push(note);
        }
    }
}

/// Notes of one file at most.
const MAX_NOTES: usize = 100;

/// Why a file was not taken: nothing of it was.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ImportError {
    /// Not JSON at all.
    #[error("not JSON ({detail}): give the file as the command wrote it ({expected})")]
    Json {
        /// Where and what.
        detail: String,
        /// What the file should be.
        expected: &'static str,
    },
    /// JSON, but not that file.
    #[error("{at}: {what}; {mend}")]
    Shape {
        /// Where in the file (`UserDetailList[3].UserPolicyList[0]`).
        at: String,
        /// What is wrong there.
        what: String,
        /// How to mend it.
        mend: String,
    },
}

impl ImportError {
    pub(crate) fn shape(
        at: impl Into<String>,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self::Shape {
            at: at.into(),
            what: what.into(),
            mend: mend.into(),
        }
    }
}

/// Takes a file apart. `about` names what the file itself does not: the resource of a Google Cloud
/// policy, the identity of a last-accessed report, the login of a repository list, the name of a
/// Vault policy.
///
/// # Errors
/// When the file has another form: where, what, and how to mend it.
pub fn import(kind: ImportKind, about: Option<&str>, file: &[u8]) -> Result<Import, ImportError> {
    match kind {
        ImportKind::AwsIam => aws::authorization_details(&json(
            file,
            "aws iam get-account-authorization-details --output json",
        )?),
        ImportKind::AwsAccessKeys => {
            aws::access_keys(&json(file, "aws iam list-access-keys --output json")?)
        }
        ImportKind::AwsLastAccessed => aws::last_accessed(
            &json(
                file,
                "aws iam get-service-last-accessed-details --output json",
            )?,
            about,
        ),
        ImportKind::Github => github::tokens(
            &json(file, "a list of tokens with scopes and repositories")?,
            about,
        ),
        ImportKind::GcpIam => gcp::policies(&documents(file)?, about),
        ImportKind::Kubernetes => kubernetes::rbac(&json(
            file,
            "kubectl get clusterroles,clusterrolebindings,roles,rolebindings -A -o json",
        )?),
        ImportKind::Vault => vault::policies(file, about),
    }
}

pub(super) fn json(file: &[u8], expected: &'static str) -> Result<Value, ImportError> {
    serde_json::from_slice(file).map_err(|e| ImportError::Json {
        // The position only: the error's words may repeat a piece of the file.
        detail: format!("line {}, column {}", e.line(), e.column()),
        expected,
    })
}

/// One JSON document, or one a line.
fn documents(file: &[u8]) -> Result<Vec<Value>, ImportError> {
    let stream = serde_json::Deserializer::from_slice(file).into_iter::<Value>();
    let documents: Result<Vec<Value>, _> = stream.collect();
    documents.map_err(|e| ImportError::Json {
        detail: format!("line {}, column {}", e.line(), e.column()),
        expected: "gcloud ... --format=json",
    })
}

/// The text of a member.
pub(super) fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str)
}

/// A member's elements; empty when it is absent, an error when it is something else.
pub(super) fn list<'v>(value: &'v Value, key: &str, at: &str) -> Result<&'v [Value], ImportError> {
    match value.get(key) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(_) => Err(ImportError::shape(
            format!("{at}.{key}"),
            "not a list",
            "export the file again, unedited",
        )),
    }
}

/// A text or a list of texts, as policies have them.
pub(super) fn texts(value: &Value, at: &str) -> Result<Vec<String>, ImportError> {
    let wrong = || {
        ImportError::shape(
            at,
            "neither a text nor a list of texts",
            "correct the policy or export it again",
        )
    };
    match value {
        Value::String(one) => Ok(vec![one.clone()]),
        Value::Array(list) => list
            .iter()
            .map(|one| one.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect(),
        _ => Err(wrong()),
    }
}
