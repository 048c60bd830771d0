//! Records of connections.

use crate::{Header, abi_struct};

/// Bytes of a ClientHello in one record.
pub const HELLO_CHUNK: usize = 2048;
/// A ClientHello is followed up to this many bytes.
pub const HELLO_MAX: u32 = 16 * 1024;

/// [`ConnOpen::state`]: the connection is established.
pub const CONN_ESTABLISHED: u16 = 1;
/// [`ConnOpen::state`]: the attempt failed.
pub const CONN_FAILED: u16 = 2;

/// [`ConnOpen::state`]: the connection was taken in from a listening socket.
pub const CONN_ACCEPTED: u16 = 3;

/// [`ConnOpen::state`]: the connection was open already when its process became a holder.
pub const CONN_FOUND: u16 = 4;

/// Bytes of a unix socket's address: `sun_path` has 108, rounded up for the verifier.
pub const UNIX_PATH_MAX: usize = 128;
/// Bytes of a DNS message in one record; longer ones are cut.
pub const DNS_MAX: usize = 1024;

/// [`Dns::flags`]: it came in.
pub const DNS_ANSWER: u32 = 1;
/// [`Dns::flags`]: over TCP, so that two bytes of length come first (RFC 1035, 4.2.2).
pub const DNS_TCP: u32 = 2;

/// [`Addr::family`]: IPv4, in the first four bytes of `addr`.
pub const AF_INET: u16 = 2;
/// [`Addr::family`]: IPv6.
pub const AF_INET6: u16 = 10;

abi_struct! {
    /// An address and port.
    pub struct Addr {
        /// Network byte order.
        pub addr: [u8; 16],
        /// [`AF_INET`] or [`AF_INET6`].
        pub family: u16,
        /// Host byte order.
        pub port: u16,
        /// Padding.
        pub pad: u32,
    } size 24;

    /// A connection was established, taken in, or failed. The header names the process that called
    /// `connect`; for one that was taken in, the process that called `listen`.
    pub struct ConnOpen {
        /// Who, when.
        pub head: Header,
        /// The kernel's cookie of the socket: unique while the machine is up.
        pub cookie: u64,
        /// This side.
        pub local: Addr,
        /// The other side.
        pub remote: Addr,
        /// `CONN_*`.
        pub state: u16,
        /// Padding.
        pub pad: [u16; 3],
    } size 112;

    /// Bytes of a TLS ClientHello as sent. Only written for streams that begin like one.
    pub struct ConnHello {
        /// Who, when (the process that owns the connection).
        pub head: Header,
        /// The connection.
        pub cookie: u64,
        /// Position in the stream, bytes.
        pub offset: u32,
        /// Bytes used in `data`.
        pub data_len: u32,
        /// Bytes that the whole hello takes in the stream, as its first segment claims.
        pub total: u32,
        /// Padding.
        pub pad: u32,
        /// The bytes; whatever lies after `data_len` means nothing.
        pub data: [u8; HELLO_CHUNK],
    } size 2120;

    /// A connection ended.
    pub struct ConnClose {
        /// Who, when (the process that owns the connection).
        pub head: Header,
        /// The connection.
        pub cookie: u64,
        /// Payload bytes sent, retransmissions included.
        pub bytes_sent: u64,
        /// Payload bytes received.
        pub bytes_received: u64,
        /// Payload bytes that the other side acknowledged.
        pub bytes_acked: u64,
        /// When it was established, nanoseconds since boot.
        pub opened_ns: u64,
        /// This side.
        pub local: Addr,
        /// The other side.
        pub remote: Addr,
    } size 136;

    /// A datagram socket was connected, or sent to an address.
    pub struct Datagram {
        /// Who, when.
        pub head: Header,
        /// The kernel's cookie of the socket.
        pub cookie: u64,
        /// The other side.
        pub remote: Addr,
        /// IP protocol number.
        pub protocol: u32,
        /// 1: `sendmsg` to the address; 0: `connect`; 2: a packet of a raw socket.
        pub sent: u32,
    } size 88;

    /// A socket waits for connections.
    pub struct Listen {
        /// Who, when.
        pub head: Header,
        /// This side; all zeros mean every address.
        pub local: Addr,
    } size 72;

    /// A unix socket was connected, or a datagram sent to one.
    pub struct UnixPeer {
        /// Who, when.
        pub head: Header,
        /// Bytes used in `path`.
        pub path_len: u32,
        /// Padding.
        pub pad: u32,
        /// The other side's address as it was bound: a path as given, or a NUL and an abstract name.
        pub path: [u8; UNIX_PATH_MAX],
    } size 184;

    /// A DNS message to or from port 53. The header names the process that asked.
    pub struct Dns {
        /// Who, when.
        pub head: Header,
        /// The kernel's cookie of the socket.
        pub cookie: u64,
        /// `DNS_*`.
        pub flags: u32,
        /// Bytes used in `data`.
        pub data_len: u32,
        /// The message; whatever lies after `data_len` means nothing.
        pub data: [u8; DNS_MAX],
    } size 1088;

    /// A packet socket, or one of a family that no hook follows (vsock).
    pub struct OpaqueSocket {
        /// Who, when.
        pub head: Header,
        /// `AF_*`.
        pub family: u32,
        /// `SOCK_*`, without flags.
        pub kind: u32,
    } size 56;
}
