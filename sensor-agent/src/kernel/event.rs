//! What the kernel side reports, as the rest of the agent sees it.

use std::{fmt, net::SocketAddr};

use zeroize::Zeroizing;

/// A process for as long as the machine is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcKey {
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// Its start, nanoseconds since boot.
    pub start_ns: u64,
}

/// A file: device as the kernel numbers it (major << 20 | minor), and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// Device.
    pub dev: u32,
    /// Inode.
    pub ino: u64,
}

/// Who did it, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Nanoseconds since boot, time asleep included.
    pub ts_boot_ns: u64,
    /// The process.
    pub process: ProcKey,
    /// Its thread.
    pub tid: u32,
    /// Real user id.
    pub uid: u32,
    /// Cgroup (v2) id; 0 when not known.
    pub cgroup_id: u64,
}

/// Bytes that may hold secrets: never shown, wiped when dropped.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Sensitive(pub Zeroizing<Vec<u8>>);

impl fmt::Debug for Sensitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

impl Sensitive {
    /// The NUL-terminated strings in it; an unterminated last one too.
    pub fn strings(&self) -> impl Iterator<Item = &[u8]> {
        let text = self.0.strip_suffix(&[0]).unwrap_or(&self.0);
        let some = !self.0.is_empty();
        text.split(|b| *b == 0).filter(move |_| some)
    }
}

/// argv and environment of a tracked process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecArgs {
    /// argv, each argument NUL-terminated. Arguments may hold secrets too.
    pub argv: Sensitive,
    /// The environment, each variable NUL-terminated.
    pub env: Sensitive,
    /// argv was longer than what is carried (16 KiB).
    pub argv_truncated: bool,
    /// The environment was longer than what is carried (64 KiB).
    pub env_truncated: bool,
    /// A piece was lost on the way (counted as such) or unreadable: what is here has a gap or an
    /// early end.
    pub incomplete: bool,
}

/// A program was executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecEvent {
    /// The process, after the exec.
    pub head: Head,
    /// The executable that runs (the interpreter, for a script).
    pub exe: FileId,
    /// The name given to `execve`, up to 255 bytes, as given: untrusted text.
    pub filename: Vec<u8>,
    /// Its parent.
    pub parent: ProcKey,
    /// `TRACK_*` flags of `keytrail_abi::maps`; 0: not tracked.
    pub track_flags: u32,
    /// The program is in the watch list of executables.
    pub matched: bool,
    /// argv and environment; `None` for a process that is not tracked.
    pub args: Option<ExecArgs>,
}

/// How a file was touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Opened.
    Open,
    /// Read.
    Read,
    /// Mapped.
    Map,
    /// Executed.
    Exec,
    /// Its descriptor was received from another process.
    Receive,
    /// It was put in place under this name: moved or linked.
    Name,
}

/// A watched file was touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEvent {
    /// Who, when.
    pub head: Head,
    /// The file.
    pub file: FileId,
    /// The directory that it was found in, if known.
    pub dir: Option<FileId>,
    /// How.
    pub access: Access,
    /// The hook that saw it (`lsm/file_open`).
    pub hook: &'static str,
    /// The inode is in the watch list.
    pub inode_watched: bool,
    /// The directory is in the watch list.
    pub dir_watched: bool,
    /// This access made the process tracked.
    pub new_holder: bool,
    /// Opened for writing only: no content was read.
    pub write_only: bool,
    /// Opened for writing (and reading, unless `write_only`), or put in place.
    pub writes: bool,
    /// `TRACK_*`.
    pub track_flags: u32,
    /// Last component of a name of the file, up to 63 bytes: untrusted text.
    pub name: Vec<u8>,
}

/// A TCP connection of a tracked process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnEvent {
    /// The process that connected.
    pub head: Head,
    /// The socket, unique while the machine is up.
    pub cookie: u64,
    /// This side.
    pub local: SocketAddr,
    /// The other side.
    pub remote: SocketAddr,
}

/// A piece of a TLS ClientHello.
#[derive(Clone, PartialEq, Eq)]
pub struct HelloEvent {
    /// The owner of the connection.
    pub head: Head,
    /// The connection.
    pub cookie: u64,
    /// Position in the stream, bytes.
    pub offset: u32,
    /// Bytes of the whole hello in the stream, as it claims; at most 16 KiB.
    pub total: u32,
    /// The bytes.
    pub data: Vec<u8>,
}

impl fmt::Debug for HelloEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "HelloEvent({}: {}+{} of {})",
            self.cookie,
            self.offset,
            self.data.len(),
            self.total
        )
    }
}

/// A DNS message.
#[derive(Clone, PartialEq, Eq)]
pub struct DnsEvent {
    /// The process that asked.
    pub head: Head,
    /// The socket.
    pub cookie: u64,
    /// It came in.
    pub answer: bool,
    /// Over TCP: two bytes of length come first.
    pub tcp: bool,
    /// The message, up to 1,024 bytes of it.
    pub data: Vec<u8>,
}

impl fmt::Debug for DnsEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.answer { "answer" } else { "question" };
        write!(
            f,
            "DnsEvent({}: {what}, {} bytes)",
            self.cookie,
            self.data.len()
        )
    }
}

/// How a process got at another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// `/proc/PID/environ`.
    Environ,
    /// `/proc/PID/mem`.
    Mem,
    /// `ptrace`.
    Ptrace,
    /// `process_vm_readv`.
    VmReadv,
    /// One of the calls that need the right to attach; which one is not known.
    Attach,
}

impl Via {
    /// The word for it in facts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Environ => "environ",
            Self::Mem => "mem",
            Self::VmReadv => "process_vm_readv",
            // All calls behind `Attach` ask for the right that `ptrace` needs.
            Self::Ptrace | Self::Attach => "ptrace",
        }
    }
}

/// A process got at another's memory or environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessAccessEvent {
    /// Who, when.
    pub head: Head,
    /// The other process. With a start of 0 only an id is known, which may be a thread's.
    pub victim: ProcKey,
    /// How.
    pub via: Via,
    /// This access made the process tracked.
    pub new_holder: bool,
}

/// Payload bytes of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnBytes {
    /// Sent, retransmissions included.
    pub sent: u64,
    /// Received.
    pub received: u64,
    /// Acknowledged by the other side.
    pub acked: u64,
}

/// Everything that the kernel side reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelEvent {
    /// A tracked process made a process. The head names the parent.
    Fork {
        /// The parent, when.
        head: Head,
        /// The child, tracked as well.
        child: ProcKey,
        /// `TRACK_*`.
        track_flags: u32,
    },
    /// A process in scope executed a program.
    Exec(Box<ExecEvent>),
    /// A tracked process ended.
    Exit {
        /// Who, when.
        head: Head,
        /// As `wait` reports it: exit code << 8, or the signal.
        status: i32,
    },
    /// A watched file was touched.
    File(FileEvent),
    /// A connection was established.
    ConnOpen(ConnEvent),
    /// A connection that its process had open when it became a holder. The time is that of finding it.
    ConnFound(ConnEvent),
    /// A connection could not be made.
    ConnFailed(ConnEvent),
    /// Part of a TLS ClientHello.
    ConnHello(HelloEvent),
    /// A connection ended.
    ConnClose {
        /// Which.
        conn: ConnEvent,
        /// Exact counts from the kernel's socket.
        bytes: ConnBytes,
        /// When it was established, nanoseconds since boot.
        opened_ns: u64,
    },
    /// A datagram socket was connected, or sent to an address. Repeats within a second are left out.
    Datagram {
        /// Who, when.
        head: Head,
        /// The socket.
        cookie: u64,
        /// The other side.
        remote: SocketAddr,
        /// IP protocol number.
        protocol: u32,
        /// A packet of a raw socket: no ports.
        raw: bool,
    },
    /// A tracked process waits for TCP connections.
    Listening {
        /// Who, when.
        head: Head,
        /// Where; an unspecified address means every one.
        local: SocketAddr,
    },
    /// A connection came in. The head names the process that listens.
    Accepted(ConnEvent),
    /// A unix socket was connected, or a datagram sent to one. Repeats within a second are left out.
    UnixPeer {
        /// Who, when.
        head: Head,
        /// The other side as it was bound: a path as given, or a NUL and an abstract name.
        path: Vec<u8>,
    },
    /// Another process's memory or environment.
    ProcessAccess(ProcessAccessEvent),
    /// A tracked process loaded a BPF program.
    BpfLoad {
        /// Who, when.
        head: Head,
    },
    /// A DNS message of a tracked process.
    Dns(DnsEvent),
    /// A packet or vsock socket of a tracked process: what goes over it is not seen.
    OpaqueSocket {
        /// Who, when.
        head: Head,
        /// `AF_*`.
        family: u32,
        /// `SOCK_*`.
        kind: u32,
    },
}

impl KernelEvent {
    /// Who, when.
    #[must_use]
    pub fn head(&self) -> &Head {
        match self {
            Self::Fork { head, .. }
            | Self::Exit { head, .. }
            | Self::Datagram { head, .. }
            | Self::Listening { head, .. }
            | Self::UnixPeer { head, .. }
            | Self::BpfLoad { head }
            | Self::OpaqueSocket { head, .. } => head,
            Self::ProcessAccess(e) => &e.head,
            Self::Dns(e) => &e.head,
            Self::Exec(e) => &e.head,
            Self::File(e) => &e.head,
            Self::ConnOpen(e)
            | Self::ConnFound(e)
            | Self::ConnFailed(e)
            | Self::Accepted(e)
            | Self::ConnClose { conn: e, .. } => &e.head,
            Self::ConnHello(e) => &e.head,
        }
    }

    /// The same, as if it had happened at another time.
    #[must_use]
    pub(super) fn at(mut self, ts_boot_ns: u64) -> Self {
        self.head_mut().ts_boot_ns = ts_boot_ns;
        self
    }

    fn head_mut(&mut self) -> &mut Head {
        match self {
            Self::Fork { head, .. }
            | Self::Exit { head, .. }
            | Self::Datagram { head, .. }
            | Self::Listening { head, .. }
            | Self::UnixPeer { head, .. }
            | Self::BpfLoad { head }
            | Self::OpaqueSocket { head, .. } => head,
            Self::ProcessAccess(e) => &mut e.head,
            Self::Dns(e) => &mut e.head,
            Self::Exec(e) => &mut e.head,
            Self::File(e) => &mut e.head,
            Self::ConnOpen(e)
            | Self::ConnFound(e)
            | Self::ConnFailed(e)
            | Self::Accepted(e)
            | Self::ConnClose { conn: e, .. } => &mut e.head,
            Self::ConnHello(e) => &mut e.head,
        }
    }
}
