//! What every record starts with.

use crate::abi_struct;

abi_struct! {
    /// The first 48 bytes of every record.
    pub struct Header {
        /// A [`RecordKind`].
        pub kind: u16,
        /// Bytes of the whole record, this header included.
        pub len: u16,
        /// The CPU that wrote the record.
        pub cpu: u32,
        /// Nanoseconds since boot, time asleep included (`CLOCK_BOOTTIME`).
        pub ts_boot_ns: u64,
        /// Process id in the initial pid namespace.
        pub tgid: u32,
        /// Thread id in the initial pid namespace.
        pub tid: u32,
        /// When the process (its thread group leader) started, nanoseconds since boot. With `tgid`
        /// this names a process for as long as the machine is up.
        pub start_boottime_ns: u64,
        /// Real user id.
        pub uid: u32,
        /// Generation of the sensor that wrote the record ([`crate::Config::generation`]).
        pub generation: u32,
        /// Id of the task's cgroup in the unified (v2) hierarchy; 0 where it is not known.
        pub cgroup_id: u64,
    } size 48;
}

/// Declares the closed set of record kinds, so that none can be forgotten.
macro_rules! kinds {
    ($($(#[$meta:meta])* $name:ident = $value:literal => $record:ty,)*) => {
        /// What a record is about. The numbers are the ABI.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum RecordKind { $($(#[$meta])* $name = $value,)* }

        impl RecordKind {
            /// Every kind, in the order of the numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The kind with this number, if this build knows it.
            #[must_use]
            pub const fn from_raw(raw: u16) -> Option<Self> {
                match raw { $($value => Some(Self::$name),)* _ => None }
            }

            /// Bytes of a record of this kind.
            #[must_use]
            pub const fn size(self) -> usize {
                match self { $(Self::$name => size_of::<$record>(),)* }
            }

            /// A short stable name, for metrics and tables.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

kinds! {
    /// A tracked process made a process.
    Fork = 1 => crate::process::Fork,
    /// A process in scope executed a program.
    Exec = 2 => crate::process::Exec,
    /// Up to [`crate::process::CHUNK_SMALL`] bytes of a tracked process's argv or environment.
    ExecChunkSmall = 3 => crate::process::ExecChunkSmall,
    /// Up to [`crate::process::CHUNK_LARGE`] bytes of the same.
    ExecChunkLarge = 4 => crate::process::ExecChunkLarge,
    /// A tracked process ended.
    Exit = 5 => crate::process::Exit,
    /// A watched file was opened, read, mapped, executed or received.
    FileAccess = 6 => crate::file::FileAccess,
    /// A tracked process's TCP connection was established, or failed.
    ConnOpen = 7 => crate::net::ConnOpen,
    /// Bytes of a TLS ClientHello.
    ConnHello = 8 => crate::net::ConnHello,
    /// A tracked process's TCP connection ended.
    ConnClose = 9 => crate::net::ConnClose,
    /// A tracked process connected a datagram socket or sent to an address.
    Datagram = 10 => crate::net::Datagram,
    /// A tracked process waits for TCP connections.
    Listen = 11 => crate::net::Listen,
    /// A tracked process connected a unix socket, or sent a datagram to one.
    UnixPeer = 12 => crate::net::UnixPeer,
    /// A process got at another process's memory or environment.
    ProcessAccess = 13 => crate::process::ProcessAccess,
    /// A tracked process loaded a BPF program.
    BpfLoad = 14 => crate::process::BpfLoad,
    /// A DNS message of a tracked process.
    Dns = 15 => crate::net::Dns,
    /// A tracked process made a socket whose packets no hook sees.
    OpaqueSocket = 16 => crate::net::OpaqueSocket,
}

/// Rows in the table of loss counters: the greatest kind plus one.
pub const KIND_SLOTS: u32 = 17;

/// The greatest record that a reader must be able to hold.
#[allow(
    clippy::indexing_slicing,
    reason = "evaluated at compile time, where it cannot panic later"
)]
pub const MAX_RECORD_SIZE: usize = {
    let mut max = 0;
    let mut i = 0;
    while i < RecordKind::ALL.len() {
        let kind = RecordKind::ALL[i];
        assert!((kind as u32) < KIND_SLOTS, "KIND_SLOTS is too small");
        assert!(kind.size() <= u16::MAX as usize, "Header::len is a u16");
        if kind.size() > max {
            max = kind.size();
        }
        i += 1;
    }
    max
};
