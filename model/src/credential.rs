//! Credentials, by the identifiers that their providers print in their own logs.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

mod kind;

pub use kind::CredentialKind;
use kind::{Form, MAX_OPAQUE};

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
    #[error("not <kind>:<identifier> with a known kind (aws-access-key, github-token, ...)")]
    Kind,
    /// Not the form of an AWS access key id.
    #[error(
        "not an AWS access key id: expected 16 to 128 upper-case letters and digits, got {0} bytes"
    )]
    AwsAccessKey(usize),
    /// Not base64 of 32 bytes.
    #[error("not a GitHub hashed_token: expected base64 of a SHA-256")]
    GithubToken,
    /// Not so many hex digits.
    #[error("not a {kind} identifier: expected {min} to {max} lower-case hex digits")]
    Hex {
        /// Which kind.
        kind: CredentialKind,
        /// Fewest digits.
        min: usize,
        /// Most digits.
        max: usize,
    },
    /// Not printable ASCII of a sane length.
    #[error("not a {0} identifier: expected 1 to 512 printable ASCII characters without spaces")]
    Opaque(CredentialKind),
    /// Not `<scope>/<id>`.
    #[error(
        "not a {0} identifier: expected <scope>/<id>, the scope in lower case, at most 512 bytes"
    )]
    Scoped(CredentialKind),
}

impl CredentialId {
    /// An identifier of `kind`, checked against that kind's form.
    ///
    /// # Errors
    /// When `value` has another form; the error does not repeat it.
    pub fn new(kind: CredentialKind, value: &str) -> Result<Self, CredentialIdError> {
        check(kind, value)?;
        Ok(Self {
            kind,
            value: value.to_owned(),
        })
    }

    /// An identifier within a scope: `<kind>:<scope>/<id>`.
    ///
    /// # Errors
    /// When scope or id have another form, or `kind` has no scopes.
    pub fn scoped(kind: CredentialKind, scope: &str, id: &str) -> Result<Self, CredentialIdError> {
        Self::new(kind, &format!("{scope}/{id}"))
    }

    /// The scope of an identifier that has one: the provider of a session or principal, the type
    /// of a keyed hash, the issuer of a token.
    #[must_use]
    pub fn scope(&self) -> Option<&str> {
        match self.kind.form() {
            Form::Scoped => self.value.split_once('/').map(|(scope, _)| scope),
            Form::AwsKeyId | Form::Base64Sha256 | Form::Hex(..) | Form::Opaque => None,
        }
    }

    /// An AWS access key id, checked against the form that the IAM API documents
    /// (`AccessKeyId`: 16 to 128 characters of `[\w]`; in practice upper case and digits).
    ///
    /// # Errors
    /// [`CredentialIdError::AwsAccessKey`] for any other text.
    pub fn aws_access_key(key_id: &str) -> Result<Self, CredentialIdError> {
        Self::new(CredentialKind::AwsAccessKey, key_id)
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
        Self::new(CredentialKind::GithubToken, hashed)
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
        let (kind, value) = text.split_once(':').ok_or(CredentialIdError::Kind)?;
        let kind = CredentialKind::named(kind).ok_or(CredentialIdError::Kind)?;
        Self::new(kind, value)
    }
}

/// Checks an identifier against its kind's form.
fn check(kind: CredentialKind, value: &str) -> Result<(), CredentialIdError> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let (fits, error) = match kind.form() {
        Form::AwsKeyId => (
            (16..=128).contains(&value.len())
                && value
                    .bytes()
                    .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()),
            CredentialIdError::AwsAccessKey(value.len()),
        ),
        Form::Base64Sha256 => (
            base64::engine::general_purpose::STANDARD
                .decode(value)
                .is_ok_and(|bytes| bytes.len() == 32),
            CredentialIdError::GithubToken,
        ),
        Form::Hex(min, max) => (
            (min..=max).contains(&value.len()) && value.bytes().all(hex),
            CredentialIdError::Hex { kind, min, max },
        ),
        Form::Opaque => (
            (1..=MAX_OPAQUE).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic()),
            CredentialIdError::Opaque(kind),
        ),
        Form::Scoped => (is_scoped(value), CredentialIdError::Scoped(kind)),
    };
    if fits { Ok(()) } else { Err(error) }
}

fn is_scoped(value: &str) -> bool {
    let Some((scope, id)) = value.split_once('/') else {
        return false;
    };
    let scope_byte =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_');
    value.len() <= MAX_OPAQUE
        && !scope.is_empty()
        && scope.bytes().all(scope_byte)
        && !id.is_empty()
        && !id.chars().any(char::is_control)
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

    #[test]
    fn every_form_takes_its_own_and_nothing_else() {
        for (text, fits) in [
            (
                "gcp-service-account-key:0b1c2d3e4f5061728394a5b6c7d8e9f001122334",
                true,
            ),
            ("gcp-service-account-key:NOTHEX00", false),
            ("x509-certificate:00", false),
            ("entra-token:pYc8rUuG0EqT1y2-AbCdEF", true),
            ("entra-token:with space", false),
            ("entra-token:", false),
            (
                "ssh-key:SHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8",
                true,
            ),
            ("vault-token:hmac-sha256:00ff", true),
            ("gitlab-token:PersonalAccessToken/12", true),
            ("principal:entra/ana@example.com", true),
            ("principal:Entra/ana", false),
            ("principal:entra", false),
            ("principal:entra/", false),
            ("keyed-hash:npm-token/00ff", true),
            ("nonsense:x", false),
        ] {
            let parsed = text.parse::<CredentialId>();
            assert_eq!(parsed.is_ok(), fits, "{text}: {parsed:?}");
            if let Ok(id) = parsed {
                assert_eq!(id.to_string(), text);
            }
        }
        assert_eq!(CredentialKind::ALL.len(), 19);
        for kind in CredentialKind::ALL {
            assert_eq!(CredentialKind::named(kind.as_str()), Some(kind));
        }
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
