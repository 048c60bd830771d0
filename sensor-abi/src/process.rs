//! Records of the process tree: fork, exec with its arguments, exit.

use crate::{Header, abi_struct};

/// Bytes of text in an [`ExecChunkSmall`].
pub const CHUNK_SMALL: usize = 512;
/// Bytes of text in an [`ExecChunkLarge`].
pub const CHUNK_LARGE: usize = 4096;
/// At most this much of argv is carried.
pub const ARGV_MAX: u32 = 16 * 1024;
/// At most this much of the environment is carried.
pub const ENV_MAX: u32 = 64 * 1024;
/// Bytes of the file name given to `execve`.
pub const FILENAME_MAX: usize = 256;

/// [`Exec::flags`]: the process is tracked, so chunks of argv and environment follow.
pub const EXEC_TRACKED: u32 = 1;
/// [`Exec::flags`]: this exec made it tracked, because its program is in `EXE_WATCH`.
pub const EXEC_MATCHED: u32 = 2;
/// [`Exec::flags`]: argv was longer than [`ARGV_MAX`].
pub const EXEC_ARGV_TRUNCATED: u32 = 4;
/// [`Exec::flags`]: the environment was longer than [`ENV_MAX`].
pub const EXEC_ENV_TRUNCATED: u32 = 8;

/// [`ChunkHead::stream`]: argv, NUL-separated.
pub const STREAM_ARGV: u16 = 1;
/// [`ChunkHead::stream`]: the environment, NUL-separated.
pub const STREAM_ENV: u16 = 2;

/// [`ProcessAccess::via`]: `/proc/PID/environ` was opened.
pub const VIA_ENVIRON: u32 = 1;
/// [`ProcessAccess::via`]: `/proc/PID/mem` was opened.
pub const VIA_MEM: u32 = 2;
/// [`ProcessAccess::via`]: `ptrace`.
pub const VIA_PTRACE: u32 = 3;
/// [`ProcessAccess::via`]: `process_vm_readv`.
pub const VIA_VM_READV: u32 = 4;
/// [`ProcessAccess::via`]: any call that needs the right to attach (`ptrace`, `process_vm_readv`,
/// `pidfd_getfd`).
pub const VIA_ATTACH: u32 = 5;

abi_struct! {
    /// A tracked process made a process (not a thread). The header names the parent.
    pub struct Fork {
        /// Who, when.
        pub head: Header,
        /// The child's start, nanoseconds since boot.
        pub child_start_ns: u64,
        /// The child's process id.
        pub child_tgid: u32,
        /// `TRACK_*` flags that the child inherited.
        pub track_flags: u32,
    } size 64;

    /// A process in scope executed a program. The header names the process after the exec.
    pub struct Exec {
        /// Who, when. `ts_boot_ns` is repeated by the chunks and so identifies this exec.
        pub head: Header,
        /// Inode of the executable that runs (the interpreter, for a script).
        pub exe_ino: u64,
        /// Device of it, as the kernel numbers it (major << 20 | minor).
        pub exe_dev: u32,
        /// `EXEC_*`.
        pub flags: u32,
        /// Bytes of argv in the process, before truncation.
        pub argv_len: u32,
        /// Bytes of the environment in the process, before truncation.
        pub env_len: u32,
        /// `TRACK_*`, 0 when the process is not tracked.
        pub track_flags: u32,
        /// Parent's process id.
        pub ppid: u32,
        /// Parent's start, nanoseconds since boot.
        pub parent_start_ns: u64,
        /// Bytes used in `filename`, without the NUL.
        pub filename_len: u32,
        /// Padding.
        pub pad: u32,
        /// The name given to `execve`, as given.
        pub filename: [u8; FILENAME_MAX],
    } size 352;

    /// What both chunk records start with.
    pub struct ChunkHead {
        /// Who, when.
        pub head: Header,
        /// `ts_boot_ns` of the [`Exec`] that this belongs to.
        pub exec_ts_ns: u64,
        /// Position in the stream, bytes.
        pub offset: u32,
        /// Bytes used in `data`. 0 when the process's memory could not be read.
        pub data_len: u32,
        /// `STREAM_*`.
        pub stream: u16,
        /// 1 for the last chunk of the stream.
        pub last: u16,
        /// Padding.
        pub pad: u32,
    } size 72;

    /// A short piece of argv or environment.
    pub struct ExecChunkSmall {
        /// Where it belongs.
        pub chunk: ChunkHead,
        /// The bytes; whatever lies after `data_len` means nothing.
        pub data: [u8; CHUNK_SMALL],
    } size 584;

    /// A long piece of argv or environment.
    pub struct ExecChunkLarge {
        /// Where it belongs.
        pub chunk: ChunkHead,
        /// The bytes; whatever lies after `data_len` means nothing.
        pub data: [u8; CHUNK_LARGE],
    } size 4168;

    /// A tracked process ended: its last thread is gone.
    pub struct Exit {
        /// Who, when.
        pub head: Header,
        /// As `wait` reports it: exit code << 8, or the signal.
        pub exit_code: i32,
        /// Padding.
        pub pad: u32,
    } size 56;

    /// A process got at another's memory or environment.
    pub struct ProcessAccess {
        /// Who, when.
        pub head: Header,
        /// Start of the victim, nanoseconds since boot; 0 when only an id is known.
        pub victim_start_ns: u64,
        /// The victim: its process id, or the id of one of its threads when the start is not known.
        pub victim: u32,
        /// `VIA_*`.
        pub via: u32,
        /// 1: this access made the process tracked.
        pub new_holder: u32,
        /// Padding.
        pub pad: u32,
    } size 72;

    /// A BPF program was loaded.
    pub struct BpfLoad {
        /// Who, when.
        pub head: Header,
    } size 48;
}
