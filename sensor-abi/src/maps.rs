//! Keys and values of the maps.

use crate::{abi_struct, net::Addr};

/// [`Tracked::flags`]: runs or descends from a program that is an agent.
pub const TRACK_AGENT: u32 = 1;
/// [`Tracked::flags`]: provisional, an interpreter that may run an agent; the agent decides.
pub const TRACK_INTERPRETER: u32 = 2;
/// [`Tracked::flags`]: provisional, a program that uses credentials (an `aws` CLI).
pub const TRACK_CLIENT: u32 = 4;
/// [`Tracked::flags`]: it touched a watched credential.
pub const TRACK_HOLDER: u32 = 8;
/// [`Tracked::flags`]: put there by userspace.
pub const TRACK_USER: u32 = 16;

/// Bits in the filter that stands before `WATCHED_INODES` and `WATCHED_DIRS`.
pub const FILTER_BITS: u64 = 1 << 16;
/// 64-bit words in that filter.
pub const FILTER_WORDS: u32 = 1024;

/// [`Conn::state`]: `connect` was called.
pub const STATE_CONNECTING: u32 = 1;
/// [`Conn::state`]: established.
pub const STATE_ESTABLISHED: u32 = 2;

/// [`Conn::state`]: taken in from a listening socket.
pub const STATE_ACCEPTED: u32 = 3;

/// [`Conn::hello_state`]: nothing was sent yet.
pub const HELLO_NONE: u32 = 0;
/// [`Conn::hello_state`]: part of a hello was sent.
pub const HELLO_PARTIAL: u32 = 1;
/// [`Conn::hello_state`]: complete, or the stream does not begin with one.
pub const HELLO_DONE: u32 = 2;

/// Nanoseconds in one of the units in which `/proc/PID/stat` gives times (`USER_HZ` is 100).
pub const TICK_NS: u64 = 10_000_000;

abi_struct! {
    /// A file: the only thing that decisions about files rest on.
    pub struct FileKey {
        /// Inode number.
        pub ino: u64,
        /// Device, as the kernel numbers it (major << 20 | minor), not as `stat` encodes it.
        pub dev: u32,
        /// Padding, 0.
        pub pad: u32,
    } size 16;

    /// The agent that reads the rings: what it does itself is never recorded. In a map and not a
    /// constant, because programs can outlive their agent.
    pub struct Agent {
        /// Its start in units of [`TICK_NS`], as `/proc` shows it.
        pub start_tick: u64,
        /// Its process id.
        pub tgid: u32,
        /// Padding, 0.
        pub pad: u32,
    } size 16;

    /// A tracked process, under its tgid.
    pub struct Tracked {
        /// Its start, nanoseconds since boot.
        pub start_ns: u64,
        /// Start of the process that the tracking began with.
        pub root_start_ns: u64,
        /// Id of that process.
        pub root_tgid: u32,
        /// `TRACK_*`.
        pub flags: u32,
    } size 24;

    /// A TCP connection of a tracked process, under its socket cookie.
    pub struct Conn {
        /// Start of the owner.
        pub start_ns: u64,
        /// The owner's cgroup.
        pub cgroup_id: u64,
        /// When `connect` was called; from then on when it was established.
        pub opened_ns: u64,
        /// Payload bytes sent so far, as counted from sequence numbers on the way out.
        pub sent: u64,
        /// Payload bytes received so far, as counted from what this side acknowledged.
        pub received: u64,
        /// Owner.
        pub tgid: u32,
        /// The owner's thread that called `connect`.
        pub tid: u32,
        /// The owner's user.
        pub uid: u32,
        /// `STATE_*`.
        pub state: u32,
        /// `HELLO_*`.
        pub hello_state: u32,
        /// Bytes of the hello already recorded.
        pub hello_next: u32,
        /// Bytes that the hello takes in the stream.
        pub hello_total: u32,
        /// Sequence number of the first payload byte.
        pub first_seq: u32,
        /// Next sequence number to send, as last seen.
        pub next_seq: u32,
        /// Acknowledgement number as last seen.
        pub last_ack: u32,
        /// This side.
        pub local: Addr,
        /// The other side.
        pub remote: Addr,
    } size 128;

    /// Where a socket listens.
    pub struct ListenKey {
        /// IPv6, or IPv4 mapped into it; all zeros: every address of both families.
        pub addr: [u8; 16],
        /// The network namespace: the kernel's address of it, never shown.
        pub net: u64,
        /// Host byte order.
        pub port: u32,
        /// Padding, 0.
        pub pad: u32,
    } size 32;

    /// The process that a socket belongs to.
    pub struct Owner {
        /// Its start, nanoseconds since boot.
        pub start_ns: u64,
        /// Its cgroup.
        pub cgroup_id: u64,
        /// Its id.
        pub tgid: u32,
        /// The thread.
        pub tid: u32,
        /// Its user.
        pub uid: u32,
        /// Padding, 0.
        pub pad: u32,
    } size 32;

    /// One access by one process, to leave out repeats.
    pub struct SeenKey {
        /// Inode.
        pub ino: u64,
        /// Device.
        pub dev: u32,
        /// Process.
        pub tgid: u32,
        /// `ACCESS_*`.
        pub access: u32,
        /// Padding, 0.
        pub pad: u32,
    } size 24;

    /// One destination of datagrams of one process, to leave out repeats.
    pub struct PeerKey {
        /// Destination.
        pub remote: Addr,
        /// Process.
        pub tgid: u32,
        /// IP protocol number.
        pub protocol: u32,
    } size 32;
}

/// The bit of the filter for a file.
#[must_use]
pub const fn filter_bit(key: &FileKey) -> u64 {
    // Fibonacci hashing: the product's upper bits depend on every bit of the inode number.
    let mixed = (key.ino ^ ((key.dev as u64) << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 40) & (FILTER_BITS - 1)
}
