//! Cloud-side use of a credential, whatever system recorded it.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::credential::CredentialId;
use crate::ids::RecordId;

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
