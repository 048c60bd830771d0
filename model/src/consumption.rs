//! Cloud-side use of a credential, whatever system recorded it.

use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::credential::CredentialId;
use crate::ids::RecordId;
use crate::text::shown;

/// One use of one credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Consumption {
    /// The record's own id: duplicates have the same.
    pub id: RecordId,
    /// Which credential.
    pub credential: CredentialId,
    /// How the record was tied to that credential.
    pub strength: JoinStrength,
    /// When, by the provider's clock.
    pub time: Timestamp,
    /// The provider truncates its times to this many milliseconds (CloudTrail: 1,000).
    pub granularity_ms: u32,
    /// From where.
    pub caller: Caller,
    /// With which client; untrusted text.
    pub user_agent: Option<String>,
    /// Against which service, in the provider's words (`s3.amazonaws.com`).
    pub service: String,
    /// In which region.
    pub region: Option<String>,
    /// Doing what, in the provider's words (`ListBuckets`).
    pub action: String,
    /// On which resources.
    pub resources: Vec<String>,
    /// The server name that the client asked for, where the provider repeats it (CloudTrail
    /// `tlsDetails.clientProvidedHostHeader`), lower case, without port.
    pub server_name: Option<String>,
    /// With what result.
    pub outcome: Outcome,
    /// As whom, in the provider's words (an ARN).
    pub principal: Option<String>,
    /// In which account or organisation.
    pub account: Option<String>,
    /// A credential that this use minted (AssumeRole and its like).
    pub minted: Option<CredentialId>,
    /// Credentials that this one descends from, as the record itself says, nearest first: the
    /// session of a token, the principal of a session.
    #[serde(default)]
    pub descends: Vec<CredentialId>,
    /// A credential that this use revoked, disabled or deleted.
    #[serde(default)]
    pub revoked: Option<CredentialId>,
    /// A credential that this use made valid again after it was disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<CredentialId>,
    /// What kind of act it is, as far as detections care.
    #[serde(default)]
    pub class: ActionClass,
    /// Server names under which the service is reached, as suffixes on a label boundary; empty
    /// where `service` and `region` say it (AWS).
    #[serde(default)]
    pub endpoints: Vec<String>,
    /// Whose network the address belongs to, where a table of networks is loaded.
    #[serde(default)]
    pub network: Option<Network>,
}

impl Consumption {
    /// A use of which only the least is known; the rest is to be filled in.
    #[must_use]
    pub fn new(id: RecordId, credential: CredentialId, time: Timestamp) -> Self {
        let strength = if credential.kind().is_exact() {
            JoinStrength::ExactId
        } else {
            JoinStrength::PrincipalAddressTime
        };
        Self {
            id,
            credential,
            strength,
            time,
            granularity_ms: if time.subsec_nanosecond() == 0 {
                1_000
            } else {
                1
            },
            caller: Caller::Unknown,
            user_agent: None,
            service: String::new(),
            region: None,
            action: String::new(),
            resources: Vec::new(),
            server_name: None,
            outcome: Outcome::Success,
            principal: None,
            account: None,
            minted: None,
            descends: Vec::new(),
            revoked: None,
            restored: None,
            class: ActionClass::Other,
            endpoints: Vec::new(),
            network: None,
        }
    }
}

/// What kind of act a use is, as far as detections care. The source decides, because only it knows
/// the vendor's words.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ActionClass {
    /// Anything else.
    #[default]
    Other,
    /// Asks who it is (`GetCallerIdentity`, `GET /user`).
    IdentityCheck,
    /// Lists what there is (`ListBuckets`).
    List,
    /// Reads a secret's value out of a vault (`GetSecretValue`, `AccessSecretVersion`).
    SecretRead,
    /// Makes a credential.
    Mint,
    /// Revokes, disables or deletes a credential.
    Revoke,
    /// Changes who may do what, or how that is logged.
    PermissionChange,
    /// Calls a model.
    ModelCall,
}

/// The network that an address belongs to, as it was known when the use was taken in.
///
/// It is part of the recorded use: a later table says nothing about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Network {
    /// Autonomous system number.
    pub asn: Option<u32>,
    /// Who runs it; untrusted text.
    pub organisation: Option<String>,
    /// ISO 3166 country code.
    pub country: Option<String>,
    /// The provider's published range that holds the address (`AWS EC2 eu-west-1`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The organisation's own egress pool that holds the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
}

impl Network {
    /// True when nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// `AS64500 Example Hosting (AWS EC2 eu-west-1), NL`, untrusted text escaped.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let organisation = self.organisation.as_deref().map(|name| shown(name, 80));
        let system = match (self.asn, organisation) {
            (Some(asn), Some(name)) => Some(format!("AS{asn} {name}")),
            (Some(asn), None) => Some(format!("AS{asn}")),
            (None, Some(name)) => Some(name.to_string()),
            (None, None) => None,
        };
        let provider = self.provider.as_deref().map(|name| shown(name, 80));
        let place = match (system, provider) {
            (Some(system), Some(provider)) => Some(format!("{system} ({provider})")),
            (Some(system), None) => Some(system),
            (None, Some(provider)) => Some(provider.to_string()),
            (None, None) => None,
        };
        let country = self
            .country
            .as_deref()
            .map(|code| shown(code, 8).to_string());
        let pool = self.pool.as_deref();
        let pool = pool.map(|name| format!("own egress pool {}", shown(name, 80)));
        let parts: Vec<String> = [place, country, pool].into_iter().flatten().collect();
        f.write_str(&parts.join(", "))
    }
}

/// How a record names its credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum JoinStrength {
    /// Principal, address and time only.
    PrincipalAddressTime,
    /// The identifier, through a look-up.
    IdThroughLookup,
    /// The identifier itself.
    ExactId,
}

/// Where a use came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Caller {
    /// An address.
    Address {
        /// The address, as the provider saw it.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        address: IpAddr,
    },
    /// The provider itself on the principal's behalf (`cloudformation.amazonaws.com`): never a
    /// thief's address, never judged.
    Service {
        /// Which service.
        service: String,
    },
    /// The record does not say.
    Unknown,
}

/// How a use ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", content = "code", rename_all = "kebab-case")]
pub enum Outcome {
    /// It was done.
    Success,
    /// It was refused or failed, with the provider's error code.
    Failure(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_told_in_words() {
        let network = |asn, organisation: &str, provider: &str, country: &str, pool: &str| {
            let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            Network {
                asn,
                organisation: text(organisation),
                country: text(country),
                provider: text(provider),
                pool: text(pool),
            }
        };
        for (network, words) in [
            (network(None, "", "", "", ""), ""),
            (
                network(Some(64_500), "Example Hosting", "", "NL", ""),
                "AS64500 Example Hosting, NL",
            ),
            (
                network(Some(64_500), "", "AWS EC2 eu-west-1", "IE", ""),
                "AS64500 (AWS EC2 eu-west-1), IE",
            ),
            (
                network(None, "", "GitHub actions", "", ""),
                "GitHub actions",
            ),
            (
                network(Some(64_500), "Office", "", "", "vpn"),
                "AS64500 Office, own egress pool vpn",
            ),
            (
                network(Some(64_500), "a\nb", "", "", ""),
                "AS64500 a\\u{a}b",
            ),
        ] {
            assert_eq!(network.to_string(), words);
        }
    }
}
