//! Credentials, by the identifiers that their providers print in their own logs.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// What kind of credential it is: decides its identifier, its log field and its affinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CredentialKind {
    /// AWS access key id (`AKIA` long-term, `ASIA` session): CloudTrail `userIdentity.accessKeyId`.
    AwsAccessKey,
    /// GitHub token: base64(SHA-256(token)), GitHub audit log `hashed_token`.
    /// Source: docs.github.com, "Identifying audit log events performed by an access token".
    GithubToken,
}

impl CredentialKind {
    /// Every kind, for catalogues and tests.
    pub const ALL: [Self; 2] = [Self::AwsAccessKey, Self::GithubToken];

    /// The kind's name in identifiers, configuration and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AwsAccessKey => "aws-access-key",
            Self::GithubToken => "github-token",
        }
    }
}

impl fmt::Display for CredentialKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A credential's identity: never the secret, always what the provider's log can be joined on.
///
/// Text form: `<kind>:<value>`, e.g. `aws-access-key:AKIAIOSFODNN7EXAMPLE`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CredentialId {
    kind: CredentialKind,
    value: String,
}

/// Why a text is no credential id.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CredentialIdError {
    /// No `kind:` in front, or an unknown one.
    #[error("`{0}` is not <kind>:<value> with a known kind (aws-access-key, github-token)")]
    Kind(String),
    /// Not the form of an AWS access key id.
    #[error(
        "not an AWS access key id: expected 16 to 128 upper-case letters and digits, got {0} bytes"
    )]
    AwsAccessKey(usize),
    /// Not base64 of 32 bytes.
    #[error("not a GitHub hashed_token: expected base64 of a SHA-256")]
    GithubToken,
}

impl CredentialId {
    /// An AWS access key id, checked against the form that the IAM API documents
    /// (`AccessKeyId`: 16 to 128 characters of `[\w]`; in practice upper case and digits).
    ///
    /// # Errors
    /// [`CredentialIdError::AwsAccessKey`] for any other text.
    pub fn aws_access_key(key_id: &str) -> Result<Self, CredentialIdError> {
        let fits = (16..=128).contains(&key_id.len())
            && key_id
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        if !fits {
            return Err(CredentialIdError::AwsAccessKey(key_id.len()));
        }
        Ok(Self {
            kind: CredentialKind::AwsAccessKey,
            value: key_id.to_owned(),
        })
    }

    /// Hashes a GitHub token as GitHub's audit log does. The token itself is not kept.
    #[must_use]
    pub fn github_token(token: &[u8]) -> Self {
        let value = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(token));
        Self {
            kind: CredentialKind::GithubToken,
            value,
        }
    }

    /// A GitHub `hashed_token` as the audit log prints it.
    ///
    /// # Errors
    /// [`CredentialIdError::GithubToken`] unless it is base64 of 32 bytes.
    pub fn github_hashed_token(hashed: &str) -> Result<Self, CredentialIdError> {
        match base64::engine::general_purpose::STANDARD.decode(hashed) {
            Ok(bytes) if bytes.len() == 32 => Ok(Self {
                kind: CredentialKind::GithubToken,
                value: hashed.to_owned(),
            }),
            Ok(_) | Err(_) => Err(CredentialIdError::GithubToken),
        }
    }

    /// What kind of credential this is.
    #[must_use]
    pub fn kind(&self) -> CredentialKind {
        self.kind
    }

    /// The identifier alone, as the provider prints it.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The AWS account that an access key id belongs to, decoded from the id itself.
    ///
    /// Characters 5.. are base32; of the first 48 bits, bits 7..46 are the account number.
    /// Source: published reverse engineering of the key id, checked against a known pair below.
    /// `None` for other kinds and for the pre-2018 form that carries no account.
    #[must_use]
    pub fn aws_account(&self) -> Option<String> {
        if self.kind != CredentialKind::AwsAccessKey {
            return None;
        }
        let mut bits: u64 = 0;
        for byte in self.value.bytes().skip(4).take(10) {
            let digit = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'2'..=b'7' => byte - b'2' + 26,
                _ => return None,
            };
            bits = (bits << 5) | u64::from(digit);
        }
        // Ten base32 digits are 50 bits; the account sits in the first 48.
        let account = ((bits >> 2) & 0x7fff_ffff_ff80) >> 7;
        Some(format!("{account:012}"))
    }
}

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.value)
    }
}

impl FromStr for CredentialId {
    type Err = CredentialIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("aws-access-key", value)) => Self::aws_access_key(value),
            Some(("github-token", value)) => Self::github_hashed_token(value),
            _ => Err(CredentialIdError::Kind(text.chars().take(40).collect())),
        }
    }
}

impl Serialize for CredentialId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CredentialId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for CredentialId {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        String::schema()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for CredentialId {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn account_is_decoded_from_the_key_id() {
        // A pair published by researchers, not a live key.
        let id = CredentialId::aws_access_key("ASIAQNZGKIQY56JQ7WML").unwrap();
        assert_eq!(id.aws_account().as_deref(), Some("029608264753"));
    }

    #[test]
    fn github_hash_is_the_published_construction() {
        // `printf ghp_test | openssl dgst -sha256 -binary | base64`
        let id = CredentialId::github_token(b"ghp_test");
        assert_eq!(id, CredentialId::github_hashed_token(id.value()).unwrap());
        assert_eq!(id.value().len(), 44);
    }

    #[test]
    fn refuses_what_is_no_identifier() {
        for bad in ["", "AKIA", "akiaiosfodnn7example", "AKIAIOSFODNN7EXAMPL\n"] {
            assert!(CredentialId::aws_access_key(bad).is_err(), "{bad:?}");
        }
        assert!("aws:AKIAIOSFODNN7EXAMPLE".parse::<CredentialId>().is_err());
    }

    proptest! {
        #[test]
        fn text_form_round_trips(value in "[A-Z0-9]{16,32}") {
            let id = CredentialId::aws_access_key(&value).unwrap();
            prop_assert_eq!(id.to_string().parse::<CredentialId>().unwrap(), id);
        }

        #[test]
        fn any_text_is_refused_or_parsed_without_panic(text in ".{0,80}") {
            if let Ok(id) = text.parse::<CredentialId>() {
                let account = id.aws_account();
                prop_assert!(account.is_none_or(|a| a.len() == 12));
            }
        }
    }
}
