//! What a sensor tells: compact facts, already attributed on the host.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::coverage::Coverage;
use crate::credential::CredentialId;
use crate::ids::{BootId, ConnectionId, EventRef, HostId, ProcessKey};
use crate::process::{Actor, ProcessSummary};

/// One fact from one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostEvent {
    /// Its identity; also the key for de-duplication.
    pub id: EventRef,
    /// When it happened, by the host's clock.
    pub time: Timestamp,
    /// What happened.
    pub fact: Fact,
}

/// The closed set of facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Fact {
    /// A process came to hold a credential.
    Exposure(Box<Exposure>),
    /// A tracked process opened a connection.
    ConnectionOpened(ConnectionOpened),
    /// The name that a connection asked for became known.
    ConnectionNamed(ConnectionNamed),
    /// A connection ended.
    ConnectionClosed(ConnectionClosed),
    /// A tracked process began (at exec).
    ProcessStarted(ProcessStarted),
    /// A tracked process ended.
    ProcessExited(ProcessExited),
    /// Something was not seen.
    Gap(Gap),
    /// What this host's sensor can see, at start and whenever it changes.
    Coverage(Coverage),
}

/// A process read a credential, or was started with it in its environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Exposure {
    /// Which credential.
    pub credential: CredentialId,
    /// Where it was.
    pub source: ExposureSource,
    /// Which process (the first of `actor.lineage`).
    pub process: ProcessKey,
    /// Who that is.
    pub actor: Actor,
    /// False when the catalogue expects this kind of reader for this kind of credential (the
    /// provider's own CLI, the agent's own start-up).
    pub unexpected_reader: bool,
}

/// Where a credential was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ExposureSource {
    /// A watched file, decided by (device, inode).
    File {
        /// Path under which the file is watched; untrusted text.
        path: String,
        /// `st_dev` as the kernel's `s_dev`.
        dev: u64,
        /// Inode number.
        ino: u64,
        /// Profile, host or key inside the file that names this credential (`[default]`).
        entry: Option<String>,
        /// False when the file changed between the access and our reading of it: the identifier
        /// is that of the present content.
        version_known: bool,
    },
    /// An environment variable at exec.
    Environment {
        /// Its name.
        variable: String,
    },
}

/// Transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// TCP, from ESTABLISHED.
    Tcp,
    /// UDP, from the first datagram to a peer.
    Udp,
}

/// A connection of a tracked process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConnectionOpened {
    /// The socket, within this boot.
    pub id: ConnectionId,
    /// Who called connect.
    pub process: ProcessKey,
    /// The unit that process belongs to.
    pub unit: ProcessKey,
    /// File name of its executable; untrusted text.
    pub exe: String,
    /// TCP or UDP.
    pub transport: Transport,
    /// Local address.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub local: SocketAddr,
    /// Peer address.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub remote: SocketAddr,
}

/// How a connection's name was learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum NameSource {
    /// Server name in the TLS ClientHello (RFC 6066).
    TlsServerName,
    /// A DNS answer to the same process tree.
    Dns,
}

/// The name of a connection's peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConnectionNamed {
    /// Which connection.
    pub id: ConnectionId,
    /// Lower case, without a final dot; untrusted text.
    pub name: String,
    /// Where the name comes from.
    pub source: NameSource,
    /// Application protocols offered (ALPN); untrusted text.
    pub alpn: Vec<String>,
}

/// The end of a connection, with exact byte counts from the kernel's `tcp_sock`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConnectionClosed {
    /// Which connection.
    pub id: ConnectionId,
    /// Payload bytes sent (retransmissions not counted).
    pub bytes_sent: u64,
    /// Payload bytes received.
    pub bytes_received: u64,
}

/// A tracked process at exec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProcessStarted {
    /// The process.
    pub process: ProcessSummary,
    /// Its parent at fork time.
    pub parent: Option<ProcessKey>,
    /// The unit it belongs to.
    pub unit: ProcessKey,
}

/// The end of a tracked process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProcessExited {
    /// The process.
    pub process: ProcessKey,
    /// `task_struct.exit_code` (wait status).
    pub status: i32,
}

/// What was lost, for a stretch of time: verdicts that need it stay undecided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Gap {
    /// From when.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
    /// What kind of records.
    pub what: GapKind,
    /// How many, when known.
    pub count: Option<u64>,
    /// Why, in words.
    pub reason: String,
}

/// What a gap hides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum GapKind {
    /// Reads of credentials.
    Access,
    /// Connections or their names.
    Network,
    /// Forks, execs, exits.
    Process,
    /// Anything (the agent was down, its spool overflowed).
    All,
}

/// A promise: every fact of this host with an earlier time has been sent before this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Watermark {
    /// Which host.
    pub host: HostId,
    /// In which boot.
    pub boot: BootId,
    /// All facts before this have arrived (host's clock).
    pub time: Timestamp,
    /// Host clock minus correlator clock as measured over the stream, milliseconds.
    pub clock_offset_ms: i64,
    /// Half the round trip of that measurement, milliseconds: its error bound.
    pub clock_error_ms: u32,
    /// The address from which the correlator saw this host's stream come: its egress as seen from
    /// the correlator's network.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub seen_from: Option<IpAddr>,
}
