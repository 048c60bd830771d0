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
    /// To the scope's cgroup, on packets.
    Egress,
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
        "open by system call, also of files outside the page cache",
    ),
    judges(hook(
        "sock_state",
        Attach::Tracepoint("inet_sock_set_state"),
        None,
        Network,
        "TCP connections with exact bytes",
    )),
    judges(hook(
        "skb_egress",
        Attach::Egress,
        None,
        Network,
        "TLS server names",
    )),
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
        "open through io_uring of files outside the page cache",
        "needs LSM hooks (plan A)",
    ),
    (
        None,
        Access,
        "process_vm_readv and ptrace of a process that holds a secret",
        "not hooked yet",
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
        "connections accepted, or made before tracking began",
        "not hooked yet",
    ),
    (
        None,
        Network,
        "unix sockets, raw sockets, QUIC server names",
        "not hooked yet",
    ),
];
