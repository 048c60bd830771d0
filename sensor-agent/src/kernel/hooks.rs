//! Which program serves what, in which plan.
//!
//! Plan A: LSM hooks, one for each way to get at a file's content. They need trampolines and `bpf`
//! in the kernel's list of LSMs.
//!
//! Plan B: the page cache's tracepoints (kernel 6.12 and later) see every read and mapping of a
//! watched inode, by whatever name or descriptor, at almost no cost to others; opens seen on return
//! from the system call add what never passes the page cache (procfs, tmpfs, direct I/O) and
//! kernels without those tracepoints.

use keytrail_model::coverage::CoverageArea::{self, Access, Network, Process};

/// Set of programs for file accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// LSM hooks.
    A,
    /// Tracepoints.
    B,
}

impl Plan {
    /// `A` or `B`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
        }
    }
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// BTF tracepoint of this name.
    Tracepoint(&'static str),
    /// LSM hook of this name.
    Lsm(&'static str),
    /// To the scope's cgroup, on packets that leave.
    Egress,
    /// To the scope's cgroup, on packets that arrive.
    Ingress,
    /// To the scope's cgroup, on socket addresses.
    SockAddr,
}

/// One program.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// Its name in the object.
    pub program: &'static str,
    /// How it is attached.
    pub attach: Attach,
    /// `None`: in both plans.
    pub plan: Option<Plan>,
    /// What it serves.
    pub area: CoverageArea,
    /// What it sees, in words.
    pub what: &'static str,
    /// Explained use cannot be judged without it.
    pub judges: bool,
    /// The sensor is useless without it.
    pub vital: bool,
    /// The same for kernels on which the hook has another signature, tried when `program` is refused.
    pub instead: Option<&'static str>,
}

const fn hook(
    program: &'static str,
    attach: Attach,
    plan: Option<Plan>,
    area: CoverageArea,
    what: &'static str,
) -> Hook {
    Hook {
        program,
        attach,
        plan,
        area,
        what,
        judges: false,
        vital: false,
        instead: None,
    }
}

const fn vital(hook: Hook) -> Hook {
    Hook {
        vital: true,
        judges: true,
        ..hook
    }
}

const fn judges(hook: Hook) -> Hook {
    Hook {
        judges: true,
        ..hook
    }
}

const A: Option<Plan> = Some(Plan::A);
const B: Option<Plan> = Some(Plan::B);

/// Every program.
pub const HOOKS: &[Hook] = &[
    vital(hook(
        "process_fork",
        Attach::Tracepoint("sched_process_fork"),
        None,
        Process,
        "fork",
    )),
    vital(hook(
        "process_exec",
        Attach::Tracepoint("sched_process_exec"),
        None,
        Process,
        "exec with arguments and environment",
    )),
    vital(hook(
        "process_exit",
        Attach::Tracepoint("sched_process_exit"),
        None,
        Process,
        "exit",
    )),
    hook(
        "lsm_file_open",
        Attach::Lsm("file_open"),
        A,
        Access,
        "open by any name or call",
    ),
    hook(
        "lsm_file_permission",
        Attach::Lsm("file_permission"),
        A,
        Access,
        "read through a descriptor opened earlier or inherited",
    ),
    hook(
        "lsm_mmap_file",
        Attach::Lsm("mmap_file"),
        A,
        Access,
        "mapping",
    ),
    hook(
        "lsm_file_receive",
        Attach::Lsm("file_receive"),
        A,
        Access,
        "descriptor received from another process",
    ),
    hook(
        "lsm_ptrace",
        Attach::Lsm("ptrace_access_check"),
        A,
        Access,
        "memory of another process: ptrace, process_vm_readv, pidfd_getfd",
    ),
    hook(
        "lsm_unix_stream",
        Attach::Lsm("unix_stream_connect"),
        A,
        Network,
        "unix stream sockets: key agents, keyrings, container and system daemons",
    ),
    hook(
        "lsm_unix_send",
        Attach::Lsm("unix_may_send"),
        A,
        Network,
        "unix datagram sockets",
    ),
    hook(
        "lsm_socket_create",
        Attach::Lsm("socket_create"),
        A,
        Network,
        "packet and vsock sockets being made",
    ),
    hook(
        "lsm_bpf",
        Attach::Lsm("bpf"),
        A,
        Process,
        "BPF programs loaded by a tracked tree",
    ),
    hook(
        "lsm_rename",
        Attach::Lsm("inode_rename"),
        A,
        Access,
        "files moved to a watched place",
    ),
    hook(
        "lsm_link",
        Attach::Lsm("inode_link"),
        A,
        Access,
        "files linked into a watched place",
    ),
    hook(
        "filemap_get_pages",
        Attach::Tracepoint("mm_filemap_get_pages"),
        B,
        Access,
        "read of file content by any name, call or descriptor",
    ),
    hook(
        "filemap_map_pages",
        Attach::Tracepoint("mm_filemap_map_pages"),
        B,
        Access,
        "touch of a mapping",
    ),
    hook(
        "filemap_fault",
        Attach::Tracepoint("mm_filemap_fault"),
        B,
        Access,
        "touch of a mapping that is not in memory",
    ),
    hook(
        "syscall_exit",
        Attach::Tracepoint("sys_exit"),
        B,
        Access,
        "open outside the page cache, other processes' memory, unix sockets, bpf: by system call",
    ),
    Hook {
        instead: Some("uring_complete_entry"),
        ..hook(
            "uring_complete",
            Attach::Tracepoint("io_uring_complete"),
            B,
            Access,
            "open outside the page cache, unix sockets: through io_uring",
        )
    },
    judges(hook(
        "sock_state",
        Attach::Tracepoint("inet_sock_set_state"),
        None,
        Network,
        "TCP connections out and in, listening sockets, exact bytes",
    )),
    judges(hook(
        "skb_egress",
        Attach::Egress,
        None,
        Network,
        "TLS server names, questions to resolvers, raw IP sockets",
    )),
    hook(
        "skb_ingress",
        Attach::Ingress,
        None,
        Network,
        "answers of resolvers: names of addresses",
    ),
    hook(
        "sock_connect4",
        Attach::SockAddr,
        None,
        Network,
        "UDP over IPv4, connected",
    ),
    hook(
        "sock_connect6",
        Attach::SockAddr,
        None,
        Network,
        "UDP over IPv6, connected",
    ),
    hook(
        "sock_sendmsg4",
        Attach::SockAddr,
        None,
        Network,
        "UDP over IPv4, unconnected",
    ),
    hook(
        "sock_sendmsg6",
        Attach::SockAddr,
        None,
        Network,
        "UDP over IPv6, unconnected",
    ),
];

/// What no program sees yet, or none can in plan B; said to the user as it is.
pub const UNSEEN: &[(Option<Plan>, CoverageArea, &str, &str)] = &[
    (
        B,
        Access,
        "files moved or linked to a watched place by another name's owner",
        "needs LSM hooks (plan A); a file that is written there is seen",
    ),
    (
        B,
        Access,
        "files outside the page cache, opened through io_uring into the ring's own table of descriptors",
        "needs LSM hooks (plan A)",
    ),
    (
        B,
        Network,
        "unix datagrams sent without connect",
        "needs LSM hooks (plan A)",
    ),
    (
        None,
        Access,
        "raw reads of a block device",
        "no hook sees which file a block belongs to",
    ),
    (
        None,
        Access,
        "memory mapped before tracking began",
        "the content is already in the process",
    ),
    (
        None,
        Network,
        "connections of an agent that ran before the sensor, and names of connections found open",
        "their handshake was before; what is sent over a found connection is seen",
    ),
    (
        None,
        Network,
        "connections that come in on a socket inherited as listening",
        "the process that made it is not tracked",
    ),
    (
        None,
        Network,
        "QUIC server names, names asked over HTTPS or a resolver's unix socket",
        "encrypted, or asked by another process; the connection itself is seen",
    ),
    (
        None,
        Network,
        "what goes over packet and vsock sockets",
        "no hook sees the packets; that the socket is made is seen",
    ),
];
