//! The BPF programs of the Keytrail sensor.
//!
//! Every program is thin: it takes its arguments, asks a module ([`process`], [`file`],
//! [`net`], [`packet`] and the smaller ones) what the event means, and returns. Four rules hold everywhere:
//!
//! - a record is reserved in its ring, filled in place and submitted. There is no per-CPU scratch:
//!   LSM programs can be preempted and would find another process's data in it;
//! - decisions about files rest on (device, inode), never on a path;
//! - an event that has to be recorded ends in exactly one counter besides `seen`;
//! - offsets in kernel structs come from [`ctx::OFFS`], which the loader fills from BTF.
//!
//! This is the one crate where `unsafe` is normal: nearly every line reads kernel memory, and the
//! verifier checks each of them when the object is loaded. Reads go through
//! `bpf_probe_read_kernel`, so that a stale pointer yields an error and never a fault.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod ctx;
mod file;
mod found;
mod maps;
mod net;
mod odd;
mod packet;
mod process;
mod ring;
mod syscall;
mod unix;
mod victim;

use aya_ebpf::{
    macros::{btf_tracepoint, cgroup_skb, cgroup_sock_addr, lsm},
    programs::{BtfTracePointContext, LsmContext, SkBuffContext, SockAddrContext},
};
use keytrail_abi::{
    file as abi_file,
    net::{AF_INET, AF_INET6},
};

/// `sched_process_fork(struct task_struct *parent, struct task_struct *child)`
#[btf_tracepoint(function = "sched_process_fork")]
pub fn process_fork(ctx: BtfTracePointContext) -> i32 {
    process::on_fork(ctx.arg(1));
    0
}

/// `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`
#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(ctx: BtfTracePointContext) -> i32 {
    process::on_exec(ctx.arg(0), ctx.arg(2));
    0
}

/// `sched_process_exit(struct task_struct *p)`
#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit(ctx: BtfTracePointContext) -> i32 {
    process::on_exit(ctx.arg(0));
    0
}

/// `int file_open(struct file *file)`
#[lsm(hook = "file_open")]
pub fn lsm_file_open(ctx: LsmContext) -> i32 {
    file::on_file_open(ctx.arg(0));
    0
}

/// `int file_permission(struct file *file, int mask)`
#[lsm(hook = "file_permission")]
pub fn lsm_file_permission(ctx: LsmContext) -> i32 {
    file::on_file_permission(ctx.arg(0), ctx.arg(1));
    0
}

/// `int mmap_file(struct file *file, unsigned long reqprot, unsigned long prot, unsigned long flags)`
#[lsm(hook = "mmap_file")]
pub fn lsm_mmap_file(ctx: LsmContext) -> i32 {
    file::on_file(
        ctx.arg(0),
        abi_file::ACCESS_MAP,
        abi_file::HOOK_LSM_MMAP_FILE,
    );
    0
}

/// `int file_receive(struct file *file)`
#[lsm(hook = "file_receive")]
pub fn lsm_file_receive(ctx: LsmContext) -> i32 {
    file::on_file(
        ctx.arg(0),
        abi_file::ACCESS_RECEIVE,
        abi_file::HOOK_LSM_FILE_RECEIVE,
    );
    0
}

/// `int inode_rename(struct inode *old_dir, struct dentry *old_dentry, struct inode *new_dir, struct
/// dentry *new_dentry)`
#[lsm(hook = "inode_rename")]
pub fn lsm_rename(ctx: LsmContext) -> i32 {
    file::on_named(ctx.arg(1), ctx.arg(3), abi_file::HOOK_LSM_RENAME);
    0
}

/// `int inode_link(struct dentry *old_dentry, struct inode *dir, struct dentry *new_dentry)`
#[lsm(hook = "inode_link")]
pub fn lsm_link(ctx: LsmContext) -> i32 {
    file::on_named(ctx.arg(0), ctx.arg(2), abi_file::HOOK_LSM_LINK);
    0
}

/// `io_uring_complete(void *ctx, void *req, u64 user_data, int res, unsigned cflags, ...)`, up to
/// 6.14. The verifier refuses the fourth argument where there is none.
#[btf_tracepoint(function = "io_uring_complete")]
pub fn uring_complete(ctx: BtfTracePointContext) -> i32 {
    ring::on_complete(ctx.arg(1), ctx.arg(3));
    0
}

/// `io_uring_complete(struct io_ring_ctx *ctx, void *req, struct io_uring_cqe *cqe)`, since then.
#[btf_tracepoint(function = "io_uring_complete")]
pub fn uring_complete_entry(ctx: BtfTracePointContext) -> i32 {
    ring::on_entry(ctx.arg(1), ctx.arg(2));
    0
}

/// `mm_filemap_get_pages(struct address_space *mapping, pgoff_t index, pgoff_t last_index)`
#[btf_tracepoint(function = "mm_filemap_get_pages")]
pub fn filemap_get_pages(ctx: BtfTracePointContext) -> i32 {
    file::on_mapping(
        ctx.arg(0),
        abi_file::ACCESS_READ,
        abi_file::HOOK_FILEMAP_GET_PAGES,
    );
    0
}

/// `mm_filemap_map_pages(struct address_space *mapping, pgoff_t start, pgoff_t end)`
#[btf_tracepoint(function = "mm_filemap_map_pages")]
pub fn filemap_map_pages(ctx: BtfTracePointContext) -> i32 {
    file::on_mapping(
        ctx.arg(0),
        abi_file::ACCESS_MAP,
        abi_file::HOOK_FILEMAP_MAP_PAGES,
    );
    0
}

/// `mm_filemap_fault(struct address_space *mapping, pgoff_t index)`
#[btf_tracepoint(function = "mm_filemap_fault")]
pub fn filemap_fault(ctx: BtfTracePointContext) -> i32 {
    file::on_mapping(
        ctx.arg(0),
        abi_file::ACCESS_MAP,
        abi_file::HOOK_FILEMAP_FAULT,
    );
    0
}

/// `sys_exit(struct pt_regs *regs, long ret)`
#[btf_tracepoint(function = "sys_exit")]
pub fn syscall_exit(ctx: BtfTracePointContext) -> i32 {
    syscall::on_exit(ctx.arg(0), ctx.arg(1));
    0
}

/// `int ptrace_access_check(struct task_struct *child, unsigned int mode)`
#[lsm(hook = "ptrace_access_check")]
pub fn lsm_ptrace(ctx: LsmContext) -> i32 {
    victim::on_access_check(ctx.arg(0), ctx.arg(1));
    0
}

/// `int unix_stream_connect(struct sock *sock, struct sock *other, struct sock *newsk)`
#[lsm(hook = "unix_stream_connect")]
pub fn lsm_unix_stream(ctx: LsmContext) -> i32 {
    unix::on_stream_connect(ctx.arg(1));
    0
}

/// `int unix_may_send(struct socket *sock, struct socket *other)`
#[lsm(hook = "unix_may_send")]
pub fn lsm_unix_send(ctx: LsmContext) -> i32 {
    unix::on_may_send(ctx.arg(1));
    0
}

/// `int socket_create(int family, int type, int protocol, int kern)`
#[lsm(hook = "socket_create")]
pub fn lsm_socket_create(ctx: LsmContext) -> i32 {
    odd::on_socket(ctx.arg(0), ctx.arg(1));
    0
}

/// `int bpf(int cmd, union bpf_attr *attr, unsigned int size)`
#[lsm(hook = "bpf")]
pub fn lsm_bpf(ctx: LsmContext) -> i32 {
    const BPF_PROG_LOAD: i32 = 5;
    if ctx.arg::<i32>(0) == BPF_PROG_LOAD {
        odd::on_bpf_load();
    }
    0
}

/// `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn sock_state(ctx: BtfTracePointContext) -> i32 {
    net::on_state(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// Every packet that leaves a socket of the scope's cgroup.
#[cgroup_skb]
pub fn skb_egress(ctx: SkBuffContext) -> i32 {
    packet::on_egress(&ctx);
    ALLOW
}

/// Every packet that reaches a socket of the scope's cgroup.
#[cgroup_skb]
pub fn skb_ingress(ctx: SkBuffContext) -> i32 {
    packet::on_ingress(&ctx);
    ALLOW
}

/// `connect` of an IPv4 socket.
#[cgroup_sock_addr(connect4)]
pub fn sock_connect4(ctx: SockAddrContext) -> i32 {
    net::on_sock_addr(&ctx, AF_INET, false);
    ALLOW
}

/// `connect` of an IPv6 socket.
#[cgroup_sock_addr(connect6)]
pub fn sock_connect6(ctx: SockAddrContext) -> i32 {
    net::on_sock_addr(&ctx, AF_INET6, false);
    ALLOW
}

/// `sendmsg` to an IPv4 address on a datagram socket.
#[cgroup_sock_addr(sendmsg4)]
pub fn sock_sendmsg4(ctx: SockAddrContext) -> i32 {
    net::on_sock_addr(&ctx, AF_INET, true);
    ALLOW
}

/// `sendmsg` to an IPv6 address on a datagram socket.
#[cgroup_sock_addr(sendmsg6)]
pub fn sock_sendmsg6(ctx: SockAddrContext) -> i32 {
    net::on_sock_addr(&ctx, AF_INET6, true);
    ALLOW
}

/// What a cgroup program returns to let the operation go on; 0 would forbid it.
const ALLOW: i32 = 1;

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // No path leads here: the verifier refuses an endless loop, so an object with a reachable
    // panic would not load.
    loop {}
}
