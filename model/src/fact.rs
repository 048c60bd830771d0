//! What a sensor tells: compact facts, already attributed on the host.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::consumption::Network;
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
    /// A tracked process waits for connections.
    Listening(Box<Listening>),
    /// A tracked process took a connection in.
    Accepted(Accepted),
    /// A tracked process asked a daemon outside its tree to act for it.
    RequestEdge(RequestEdge),
    /// Names that a unit asked a resolver for, added up.
    NameLookups(NameLookups),
    /// A configuration of agents or MCP servers changed.
    ConfigChanged(Box<ConfigChanged>),
    /// Something was done to the sensor, or could blind it.
    Tampering(Tampering),
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
    /// Server names that the place where it was found says it is for (the registry of an npm
    /// token's line, a kubeconfig's server), beside what its kind says; untrusted text.
    #[serde(default)]
    pub destinations: Vec<String>,
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
    /// A socket behind which a process hands credentials out (an SSH agent, a keyring).
    Socket {
        /// Its path; untrusted text.
        path: String,
    },
    /// A metadata service that hands credentials out.
    Metadata {
        /// Its address.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        address: SocketAddr,
    },
    /// Another process's memory or environment.
    Process {
        /// That process.
        victim: ProcessKey,
        /// Its executable; untrusted text.
        exe: String,
        /// How it was read: `environ`, `mem`, `ptrace`, `process_vm_readv`.
        via: String,
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
    /// Another protocol over a raw IP socket, from the first packet to a peer; ports are 0.
    Raw,
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

/// A socket of a tracked process that waits for connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Listening {
    /// Which process.
    pub process: ProcessKey,
    /// Who that is.
    pub actor: Actor,
    /// On which address; an unspecified one means every address of the host.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub local: SocketAddr,
}

/// A connection that a tracked process took in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Accepted {
    /// The socket, within this boot. Its end is told by `ConnectionClosed`.
    pub id: ConnectionId,
    /// Which process took it.
    pub process: ProcessKey,
    /// The unit that process belongs to.
    pub unit: ProcessKey,
    /// Own address.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub local: SocketAddr,
    /// The caller's address.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub remote: SocketAddr,
    /// Whether the caller showed that it may call, as far as can be seen; `None`: cannot be seen.
    pub authenticated: Option<bool>,
}

/// Work handed to a daemon outside the tree: what it does there is not seen as the tree's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RequestEdge {
    /// Who asked.
    pub process: ProcessKey,
    /// The unit that process belongs to.
    pub unit: ProcessKey,
    /// What kind of daemon: `docker`, `containerd`, `podman`, `dbus`, `systemd`, `cron`, `at`,
    /// `local-proxy`, `other`.
    pub daemon: String,
    /// Through which socket or file; untrusted text.
    pub through: String,
}

/// Names under one domain that a unit asked a resolver for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NameLookups {
    /// Who asked first.
    pub process: ProcessKey,
    /// The unit that process belongs to.
    pub unit: ProcessKey,
    /// The last two labels of the names; untrusted text.
    pub domain: String,
    /// Since when.
    pub since: Timestamp,
    /// How many questions.
    pub questions: u64,
    /// How many different names.
    pub names: u64,
    /// Bytes of all names together: what can have left inside them.
    pub bytes: u64,
}

/// A change of what agents start or trust.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConfigChanged {
    /// Which file; untrusted text.
    pub path: String,
    /// Which agent reads it (the catalogue's id).
    pub product: String,
    /// Who wrote it, when that was seen.
    pub actor: Option<Actor>,
    /// What changed: `mcp-server-added`, `mcp-server-changed`, `mcp-server-removed`, `hook-added`,
    /// `hook-changed`, `trust-changed`.
    pub change: String,
    /// Which entry; untrusted text.
    pub entry: String,
    /// True when the agent itself wrote it.
    pub by_agent: bool,
}

/// What was done to a sensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum TamperKind {
    /// One of its BPF programs no longer fires.
    ProgramSilent,
    /// A pinned object is gone.
    PinRemoved,
    /// The agent did not run for a while although the machine did.
    AgentStopped,
    /// The wall clock jumped.
    ClockMoved,
    /// A tracked tree loaded a BPF program.
    BpfLoaded,
    /// A tracked tree made a socket over which nothing can be seen (packets, vsock).
    OpaqueSocket,
}

/// A sign that the sensor was tampered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Tampering {
    /// What.
    pub what: TamperKind,
    /// In words.
    pub detail: String,
    /// By whom, when that was seen.
    pub process: Option<ProcessKey>,
    /// The unit of that process.
    pub unit: Option<ProcessKey>,
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
    /// Whose network that is, where a table of networks was loaded when it arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_network: Option<Network>,
}
