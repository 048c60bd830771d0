//! Verdicts and the alerts that carry them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::consumption::{Consumption, JoinStrength};
use crate::credential::CredentialId;
use crate::fact::{ExposureSource, NameSource};
use crate::ids::{AlertId, EventRef, HostId, RecordId};
use crate::process::{Actor, Confidence};

/// What the evidence carries, never more. In rising order of what a person should do first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Later evidence explained everything: kept for its history.
    Closed,
    /// Nothing happened, but something makes a theft easier or worse than it need be.
    Posture,
    /// What cannot be seen for this credential.
    BlindSpot,
    /// An MCP server takes calls from where it should not.
    ExposedServer,
    /// Exposure to an unexpected reader, then egress outside the affinity set; no use yet.
    Suspected,
    /// Cloud-only: a use from a region, network or workload that this principal never used, or
    /// after the credential's end. Nothing was seen on an endpoint.
    OutsideEnvelope,
    /// A use that a holder's connection accounts for, but that its agent never made before, or
    /// that nobody should make.
    SameSourceMisuse,
    /// A use that no holder's connection explains; no suspicious exposure seen.
    UnexplainedUse,
    /// An unexplained use of a credential that a tree exposed and then reached a destination
    /// outside its affinity set.
    Confirmed,
}

impl Verdict {
    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Posture => "posture",
            Self::BlindSpot => "blind-spot",
            Self::ExposedServer => "exposed-server",
            Self::Suspected => "suspected",
            Self::OutsideEnvelope => "outside-envelope",
            Self::SameSourceMisuse => "same-source-misuse",
            Self::UnexplainedUse => "unexplained-use",
            Self::Confirmed => "confirmed",
        }
    }

    /// OCSF 1.8 `severity` caption that goes with the verdict.
    #[must_use]
    pub fn severity(self) -> &'static str {
        match self {
            Self::Closed | Self::Posture | Self::BlindSpot => "Informational",
            Self::ExposedServer | Self::Suspected | Self::OutsideEnvelope => "Medium",
            Self::SameSourceMisuse | Self::UnexplainedUse => "High",
            Self::Confirmed => "Critical",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One finding about one credential, with everything that led to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Alert {
    /// Stable over replays.
    pub id: AlertId,
    /// The present verdict.
    pub verdict: Verdict,
    /// OCSF severity caption.
    pub severity: String,
    /// One sentence.
    pub title: String,
    /// The credential it is about.
    pub credential: CredentialId,
    /// Account that the credential belongs to, where its id says so.
    pub account: Option<String>,
    /// How cloud records were tied to the credential.
    pub strength: Option<JoinStrength>,
    /// Event time of the first evidence.
    pub first_seen: Timestamp,
    /// Event time of the latest evidence.
    pub last_seen: Timestamp,
    /// The exposure that is held responsible, if any.
    pub exposure: Option<ExposureEvidence>,
    /// Where the exposed credential's holder went outside the affinity set; at most 16.
    pub egress: Vec<EgressEvidence>,
    /// Other credentials in the same hands.
    pub also_exposed: Vec<CredentialId>,
    /// Uses that connections account for; the latest 8.
    pub explained: Vec<ExplainedUse>,
    /// How many there are in all.
    pub explained_total: u64,
    /// Uses that nothing accounts for; the first 16.
    pub unexplained: Vec<UnexplainedUse>,
    /// How many there are in all.
    pub unexplained_total: u64,
    /// Uses still waiting for a sensor.
    pub undecided_total: u64,
    /// Hosts that hold or held the credential.
    pub holders: Vec<Holder>,
    /// People to talk to, surest first.
    pub owners: Vec<Owner>,
    /// What could not be seen, said plainly.
    pub blind_spots: Vec<String>,
    /// What to do, in this order.
    pub actions: Vec<ProposedAction>,
    /// MITRE ATT&CK (`T...`) and ATLAS (`AML.T...`) technique ids.
    pub techniques: Vec<String>,
    /// Every reason for the verdict, the gravest first; at most 16.
    #[serde(default)]
    pub reasons: Vec<Reason>,
    /// Explained uses that are out of the ordinary; the first 16.
    #[serde(default)]
    pub misuse: Vec<ExplainedUse>,
    /// Credentials that this one descends from, nearest first.
    #[serde(default)]
    pub ancestors: Vec<CredentialId>,
    /// The rule that keeps this alert quiet, if one does.
    #[serde(default)]
    pub suppressed: Option<Suppressed>,
    /// How the verdict came to be what it is, oldest first.
    pub history: Vec<Change>,
}

/// One reason for a verdict.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reason {
    /// What this reason alone amounts to.
    pub verdict: Verdict,
    /// Its stable name: `unexplained`, `mass-secret-read`, `honeytoken-use` ...
    pub code: String,
    /// In words; contains untrusted text.
    pub text: String,
    /// Event time of its first evidence.
    pub first: Timestamp,
    /// Ids of the records it rests on; at most 16.
    pub records: Vec<String>,
}

/// A rule of the settings that keeps an alert quiet. The alert itself is kept and shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Suppressed {
    /// The rule's name.
    pub rule: String,
    /// Who answers for it.
    pub owner: String,
    /// Why.
    pub why: String,
    /// When it ends.
    pub until: Timestamp,
}

/// An exposure, as evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExposureEvidence {
    /// The sensor's record of it.
    pub event: EventRef,
    /// When.
    pub time: Timestamp,
    /// Where the credential was.
    pub source: ExposureSource,
    /// Who took it.
    pub actor: Actor,
    /// Whether this reader was unexpected for this kind of credential.
    pub unexpected_reader: bool,
    /// Server names that the place where it was found says it is for; untrusted text.
    #[serde(default)]
    pub destinations: Vec<String>,
}

/// A connection outside the affinity set, as evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EgressEvidence {
    /// The sensor's record of its opening.
    pub event: EventRef,
    /// When it opened.
    pub time: Timestamp,
    /// The name it asked for; untrusted text.
    pub name: Option<String>,
    /// Where the name comes from.
    pub name_source: Option<NameSource>,
    /// Peer address.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub remote: SocketAddr,
    /// Payload bytes sent, once it closed.
    pub bytes_sent: Option<u64>,
    /// Payload bytes received, once it closed.
    pub bytes_received: Option<u64>,
    /// The process that connected.
    pub exe: String,
}

/// A use, and the connection that carried it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExplainedUse {
    /// The cloud record.
    pub usage: Consumption,
    /// The host it came from.
    pub host: HostId,
    /// The sensor's record of the connection.
    pub connection: EventRef,
    /// The name that connection asked for.
    pub name: Option<String>,
    /// Who made it, in one line.
    pub by: String,
    /// Why the source address fits.
    pub address_match: AddressMatch,
}

/// Why a use's source address belongs to the holder whose connection explains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum AddressMatch {
    /// It is the connection's own local address.
    Local,
    /// It lies in the /64 of the connection's own IPv6 address (RFC 8981 makes hosts change the
    /// rest of it).
    SameNetwork,
    /// The correlator sees the host's stream come from it.
    SeenFrom,
    /// The operator declared it an egress of the organisation.
    Declared,
    /// Earlier explained uses over the same local address came from it.
    Learned,
    /// First seen: nothing contradicts it, and the connection fits tightly.
    FirstSeen,
    /// The record carries no address.
    NotRecorded,
}

/// A use that nothing accounts for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UnexplainedUse {
    /// The cloud record.
    pub usage: Consumption,
    /// Why no connection explains it, one line a holder.
    pub because: Vec<String>,
    /// When the use is one of a descendant: the way from the alert's credential down to it.
    #[serde(default)]
    pub via: Vec<CredentialId>,
}

/// A host that holds or held the credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Holder {
    /// Which host.
    pub host: HostId,
    /// First exposure seen there.
    pub first: Timestamp,
    /// Latest exposure seen there.
    pub last: Timestamp,
    /// Who held it, in one line each; at most 16.
    pub actors: Vec<String>,
    /// Known egress addresses of that host.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub egress: Vec<IpAddr>,
}

/// Something to do. Nothing is done without a policy that says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProposedAction {
    /// What, in one sentence.
    pub what: String,
    /// The call or command that does it, to be reviewed and run by a person.
    pub how: Option<String>,
    /// What it may break.
    pub risk: Option<String>,
}

/// A step in the alert's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Change {
    /// Event time of the evidence that caused it.
    pub time: Timestamp,
    /// From which verdict; `None` when the alert began.
    pub from: Option<Verdict>,
    /// To which.
    pub to: Verdict,
    /// Why, in words.
    pub reason: String,
    /// The cloud record that caused it, if one did.
    pub record: Option<RecordId>,
}

/// Who to talk to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Owner {
    /// Name or address.
    pub name: String,
    /// How that is known.
    pub method: String,
    /// How sure it is.
    pub confidence: Confidence,
}
