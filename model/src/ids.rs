//! Names of things: hosts, boots, processes, connections, records, alerts.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The correlator's name for an enrolled endpoint, as its certificate says it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct HostId(pub String);

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One boot of one host (`/proc/sys/kernel/random/boot_id`). Sequence numbers, process keys and
/// socket cookies are unique within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct BootId(pub Uuid);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A process that cannot be confused with a later one of the same pid.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProcessKey {
    /// Thread-group id in the initial pid namespace.
    pub pid: u32,
    /// `task_struct.start_boottime` of the group leader, nanoseconds since boot.
    pub start_ns: u64,
}

impl fmt::Display for ProcessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.pid, self.start_ns)
    }
}

/// The kernel's socket cookie: unique within one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct ConnectionId(pub u64);

/// Where one endpoint fact came from; also what makes it unique for de-duplication.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventRef {
    /// Which host saw it.
    pub host: HostId,
    /// In which boot.
    pub boot: BootId,
    /// Its number in that boot, counted by the agent from 1 without gaps.
    pub seq: u64,
}

impl fmt::Display for EventRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.host, self.boot, self.seq)
    }
}

/// A cloud record's own id, prefixed by its source: `aws.cloudtrail:<eventID>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct RecordId(pub String);

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An alert's id. The same evidence gives the same id on every replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct AlertId(pub Uuid);

impl AlertId {
    /// Namespace of all alert ids (made once at random).
    const NAMESPACE: Uuid = Uuid::from_u128(0x6b65_7974_7261_696c_a1e7_2f1d_9c40_55b3);

    /// The id of the alert that `subject` names (a stable text such as
    /// `aws-access-key:AKIA...|unit host/boot/pid@start`).
    #[must_use]
    pub fn derive(subject: &str) -> Self {
        Self(Uuid::new_v5(&Self::NAMESPACE, subject.as_bytes()))
    }
}

impl fmt::Display for AlertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
