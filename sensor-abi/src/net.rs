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

    /// A connection was established or failed. The header names the process that called `connect`.
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
        /// 1: `sendmsg` to the address; 0: `connect`.
        pub sent: u32,
    } size 88;
}
