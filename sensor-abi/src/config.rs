//! Constants that the loader writes into the programs' read-only data before loading them, so that
//! the verifier sees them as constants and removes the branches that they rule out.

use crate::abi_struct;

abi_struct! {
    /// What the loader decides.
    pub struct Config {
        /// Id of the cgroup (v2) that the sensor is limited to; 0: the whole machine.
        pub scope_cgroup_id: u64,
        /// Depth of that cgroup below the root.
        pub scope_level: u32,
        /// Distinguishes this sensor's records from a predecessor's.
        pub generation: u32,
        /// Repeats of an access by a process within this time are left out, ns.
        pub dedupe_ns: u64,
    } size 24;

    /// Offsets in this kernel's structs, bytes, read from its BTF. `signal_live` and the like are
    /// sums over nested structs where the member is not a pointer.
    pub struct Offs {
        /// `task_struct.tgid`.
        pub task_tgid: u32,
        /// `task_struct.pid`.
        pub task_pid: u32,
        /// `task_struct.group_leader`.
        pub task_group_leader: u32,
        /// `task_struct.start_boottime`.
        pub task_start_boottime: u32,
        /// `task_struct.real_parent`.
        pub task_real_parent: u32,
        /// `task_struct.signal`.
        pub task_signal: u32,
        /// `task_struct.exit_code`.
        pub task_exit_code: u32,
        /// `task_struct.mm`.
        pub task_mm: u32,
        /// `task_struct.files`.
        pub task_files: u32,
        /// `signal_struct.live.counter`.
        pub signal_live: u32,
        /// `mm_struct.arg_start`; `arg_end`, `env_start` and `env_end` follow it.
        pub mm_arg_start: u32,
        /// `mm_struct.arg_end`.
        pub mm_arg_end: u32,
        /// `mm_struct.env_start`.
        pub mm_env_start: u32,
        /// `mm_struct.env_end`.
        pub mm_env_end: u32,
        /// `linux_binprm.file`.
        pub bprm_file: u32,
        /// `linux_binprm.filename`.
        pub bprm_filename: u32,
        /// `file.f_inode`.
        pub file_inode: u32,
        /// `file.f_path.dentry`.
        pub file_dentry: u32,
        /// `file.f_mode`.
        pub file_mode: u32,
        /// `file.private_data`.
        pub file_private: u32,
        /// `inode.i_ino`.
        pub inode_ino: u32,
        /// `inode.i_sb`.
        pub inode_sb: u32,
        /// `inode.i_dentry.first`.
        pub inode_alias: u32,
        /// `inode.i_mode`.
        pub inode_mode: u32,
        /// `super_block.s_dev`.
        pub sb_dev: u32,
        /// `super_block.s_magic`.
        pub sb_magic: u32,
        /// `proc_inode.pid`, counted from `proc_inode.vfs_inode`: negative, as two's complement.
        pub inode_to_pid: u32,
        /// `pid.tasks`: the first entry is the task with that id.
        pub pid_tasks: u32,
        /// `task_struct.pid_links`.
        pub task_pid_links: u32,
        /// `task_struct.cred`.
        pub task_cred: u32,
        /// `cred.uid`.
        pub cred_uid: u32,
        /// `task_struct.thread_info.status`.
        pub task_status: u32,
        /// `dentry.d_parent`.
        pub dentry_parent: u32,
        /// `dentry.d_inode`.
        pub dentry_inode: u32,
        /// `dentry.d_name.name`.
        pub dentry_name: u32,
        /// `dentry.d_u.d_alias`.
        pub dentry_alias: u32,
        /// `address_space.host`.
        pub mapping_host: u32,
        /// `files_struct.fdt`.
        pub files_fdt: u32,
        /// `fdtable.fd`.
        pub fdt_fd: u32,
        /// `fdtable.max_fds`.
        pub fdt_max_fds: u32,
        /// `pt_regs.orig_ax`.
        pub regs_orig_ax: u32,
        /// `pt_regs.di`, the first argument of a system call.
        pub regs_di: u32,
        /// `pt_regs.si`, the second.
        pub regs_si: u32,
        /// `pt_regs.dx`, the third.
        pub regs_dx: u32,
        /// `socket.sk`.
        pub socket_sk: u32,
        /// `unix_sock.peer`.
        pub unix_peer: u32,
        /// `unix_sock.addr`.
        pub unix_addr: u32,
        /// `unix_address.len`.
        pub unix_address_len: u32,
        /// `unix_address.name`.
        pub unix_address_name: u32,
        /// `sock_common.skc_family` in `sock`.
        pub sk_family: u32,
        /// `sock_common.skc_state`.
        pub sk_state: u32,
        /// `sock_common.skc_cookie`.
        pub sk_cookie: u32,
        /// `sock_common.skc_net.net`.
        pub sk_net: u32,
        /// `sock_common.skc_num`.
        pub sk_num: u32,
        /// `sock_common.skc_dport`.
        pub sk_dport: u32,
        /// `sock_common.skc_daddr`.
        pub sk_daddr: u32,
        /// `sock_common.skc_rcv_saddr`.
        pub sk_rcv_saddr: u32,
        /// `sock_common.skc_v6_daddr`.
        pub sk_v6_daddr: u32,
        /// `sock_common.skc_v6_rcv_saddr`.
        pub sk_v6_rcv_saddr: u32,
        /// `sock.sk_protocol`.
        pub sk_protocol: u32,
        /// `tcp_sock.bytes_sent`.
        pub tcp_bytes_sent: u32,
        /// `tcp_sock.bytes_received`.
        pub tcp_bytes_received: u32,
        /// `tcp_sock.bytes_acked`.
        pub tcp_bytes_acked: u32,
        /// `io_kiocb.opcode`.
        pub uring_opcode: u32,
        /// `io_kiocb.file`.
        pub uring_file: u32,
    } size 260;
}
