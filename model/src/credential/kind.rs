//! The kinds of credential, and the form of each kind's identifier.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of credential it is: decides its identifier, its log field and its affinity.
///
/// Sources of the identifiers: the provider documentation named at each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CredentialKind {
    /// AWS access key id (`AKIA` long-term, `ASIA` session): CloudTrail `userIdentity.accessKeyId`.
    AwsAccessKey,
    /// GitHub token: base64(SHA-256(token)), GitHub audit log `hashed_token`.
    /// Source: docs.github.com, "Identifying audit log events performed by an access token".
    GithubToken,
    /// Key of a Google service account: `private_key_id` of the key file, the last part of
    /// `authenticationInfo.serviceAccountKeyName` in Cloud Audit Logs.
    GcpServiceAccountKey,
    /// Entra access token: its `uti` claim, `uniqueTokenIdentifier` in the sign-in logs.
    EntraToken,
    /// Entra session: the `sid` claim of every token of one sign-in, `sessionId` in the logs.
    EntraSession,
    /// Secret or certificate of an Entra application: its key id,
    /// `servicePrincipalCredentialKeyId` in the sign-in logs.
    EntraClientCredential,
    /// Kubernetes service account token: its `jti` claim, `JTI=` in the audit log's
    /// `authentication.kubernetes.io/credential-id`.
    KubernetesToken,
    /// X.509 certificate: SHA-256 of its DER, lower-case hex; `X509SHA256=` in the Kubernetes
    /// audit log's credential id.
    X509Certificate,
    /// SSH key: OpenSSH's fingerprint `SHA256:...` of the public half, as sshd and GitHub print it.
    SshKey,
    /// HashiCorp Vault or OpenBao token: its accessor, plain or as the audit device prints it
    /// (`hmac-sha256:...`).
    VaultToken,
    /// Okta API token: its id, `transaction.detail.requestApiTokenId` in the System Log.
    OktaApiToken,
    /// GitLab token: `<class>/<number>` (`PersonalAccessToken/12`).
    GitlabToken,
    /// PyPI token: the UUID inside its macaroon.
    PypiToken,
    /// Another JSON Web Token: `<issuer's host>/<jti>`.
    Jwt,
    /// Session of one provider, by the id in its log: `<provider>/<id>`.
    Session,
    /// Account at one provider, where the log names nothing closer: `<provider>/<name>`.
    Principal,
    /// Public half or address of a key pair: `<type>/<id>` (GnuPG keygrip, age recipient).
    PublicKey,
    /// A store that hands credentials out, where it is not seen which: `<store>/<name>`
    /// (an SSH agent's socket, an instance metadata service).
    CredentialStore,
    /// A secret whose provider prints no identifier: `<type>/<HMAC-SHA256 with the tenant's key,
    /// lower-case hex>`.
    KeyedHash,
}

/// The form of an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// 16 to 128 upper-case letters and digits (IAM API, `AccessKeyId`).
    AwsKeyId,
    /// Base64 of 32 bytes.
    Base64Sha256,
    /// Lower-case hex digits, this many at least and at most.
    Hex(usize, usize),
    /// Printable ASCII without spaces, at most [`MAX_OPAQUE`] bytes.
    Opaque,
    /// `<scope>/<id>`: scope of lower-case letters, digits, `-` and `.`; id as UTF-8 without
    /// control characters, at most [`MAX_OPAQUE`] bytes.
    Scoped,
}

/// Longest identifier, bytes.
pub(super) const MAX_OPAQUE: usize = 512;

impl CredentialKind {
    /// Every kind, for catalogues and tests.
    pub const ALL: [Self; 19] = [
        Self::AwsAccessKey,
        Self::GithubToken,
        Self::GcpServiceAccountKey,
        Self::EntraToken,
        Self::EntraSession,
        Self::EntraClientCredential,
        Self::KubernetesToken,
        Self::X509Certificate,
        Self::SshKey,
        Self::VaultToken,
        Self::OktaApiToken,
        Self::GitlabToken,
        Self::PypiToken,
        Self::Jwt,
        Self::Session,
        Self::Principal,
        Self::PublicKey,
        Self::CredentialStore,
        Self::KeyedHash,
    ];

    /// The kind's name in identifiers, configuration and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AwsAccessKey => "aws-access-key",
            Self::GithubToken => "github-token",
            Self::GcpServiceAccountKey => "gcp-service-account-key",
            Self::EntraToken => "entra-token",
            Self::EntraSession => "entra-session",
            Self::EntraClientCredential => "entra-client-credential",
            Self::KubernetesToken => "kubernetes-token",
            Self::X509Certificate => "x509-certificate",
            Self::SshKey => "ssh-key",
            Self::VaultToken => "vault-token",
            Self::OktaApiToken => "okta-api-token",
            Self::GitlabToken => "gitlab-token",
            Self::PypiToken => "pypi-token",
            Self::Jwt => "jwt",
            Self::Session => "session",
            Self::Principal => "principal",
            Self::PublicKey => "public-key",
            Self::CredentialStore => "credential-store",
            Self::KeyedHash => "keyed-hash",
        }
    }

    /// What people call it.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::AwsAccessKey => "AWS access key",
            Self::GithubToken => "GitHub token",
            Self::GcpServiceAccountKey => "Google service account key",
            Self::EntraToken => "Entra access token",
            Self::EntraSession => "Entra session",
            Self::EntraClientCredential => "Entra client credential",
            Self::KubernetesToken => "Kubernetes token",
            Self::X509Certificate => "certificate",
            Self::SshKey => "SSH key",
            Self::VaultToken => "Vault token",
            Self::OktaApiToken => "Okta API token",
            Self::GitlabToken => "GitLab token",
            Self::PypiToken => "PyPI token",
            Self::Jwt => "JSON Web Token",
            Self::Session => "session",
            Self::Principal => "account",
            Self::PublicKey => "key",
            Self::CredentialStore => "credential store",
            Self::KeyedHash => "secret",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    pub(super) fn form(self) -> Form {
        match self {
            Self::AwsAccessKey => Form::AwsKeyId,
            Self::GithubToken => Form::Base64Sha256,
            Self::GcpServiceAccountKey => Form::Hex(8, 64),
            Self::X509Certificate => Form::Hex(64, 64),
            Self::EntraToken
            | Self::EntraSession
            | Self::EntraClientCredential
            | Self::KubernetesToken
            | Self::SshKey
            | Self::VaultToken
            | Self::OktaApiToken
            | Self::GitlabToken
            | Self::PypiToken => Form::Opaque,
            Self::Jwt
            | Self::Session
            | Self::Principal
            | Self::PublicKey
            | Self::CredentialStore
            | Self::KeyedHash => Form::Scoped,
        }
    }

    /// True when the identifier belongs to this one credential and to no other: a use that names it
    /// is a use of it. (A principal or a session stands for whatever its holder presented.)
    #[must_use]
    pub fn is_exact(self) -> bool {
        !matches!(
            self,
            Self::Session | Self::Principal | Self::CredentialStore | Self::PublicKey
        )
    }
}

impl fmt::Display for CredentialKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
