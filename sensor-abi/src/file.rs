//! Records of accesses to watched files.

use crate::{Header, abi_struct};

/// Bytes of a file name: more than any credential file's; longer names are cut.
pub const NAME_MAX: usize = 64;

/// [`FileAccess::access`]: the file was opened.
pub const ACCESS_OPEN: u16 = 1;
/// [`FileAccess::access`]: its content was read.
pub const ACCESS_READ: u16 = 2;
/// [`FileAccess::access`]: it was mapped, or a mapping of it was touched.
pub const ACCESS_MAP: u16 = 3;
/// [`FileAccess::access`]: it was executed.
pub const ACCESS_EXEC: u16 = 4;
/// [`FileAccess::access`]: an open descriptor for it arrived from another process.
pub const ACCESS_RECEIVE: u16 = 5;
/// [`FileAccess::access`]: it was put in place under this name (moved, linked).
pub const ACCESS_NAME: u16 = 6;

/// [`FileAccess::hook`]: `lsm/file_open`.
pub const HOOK_LSM_FILE_OPEN: u16 = 1;
/// [`FileAccess::hook`]: `lsm/file_permission`.
pub const HOOK_LSM_FILE_PERMISSION: u16 = 2;
/// [`FileAccess::hook`]: `lsm/mmap_file`.
pub const HOOK_LSM_MMAP_FILE: u16 = 3;
/// [`FileAccess::hook`]: `lsm/file_receive`.
pub const HOOK_LSM_FILE_RECEIVE: u16 = 4;
/// [`FileAccess::hook`]: `mm_filemap_get_pages`.
pub const HOOK_FILEMAP_GET_PAGES: u16 = 5;
/// [`FileAccess::hook`]: `mm_filemap_map_pages`.
pub const HOOK_FILEMAP_MAP_PAGES: u16 = 6;
/// [`FileAccess::hook`]: `mm_filemap_fault`.
pub const HOOK_FILEMAP_FAULT: u16 = 7;
/// [`FileAccess::hook`]: `sys_exit` of an open.
pub const HOOK_SYS_EXIT: u16 = 8;
/// [`FileAccess::hook`]: `lsm/inode_rename`.
pub const HOOK_LSM_RENAME: u16 = 9;
/// [`FileAccess::hook`]: `lsm/inode_link`.
pub const HOOK_LSM_LINK: u16 = 10;
/// [`FileAccess::hook`]: `io_uring_complete` of an open.
pub const HOOK_IO_URING: u16 = 11;

/// [`FileAccess::flags`]: the inode itself is watched.
pub const FILE_INODE_WATCHED: u32 = 1;
/// [`FileAccess::flags`]: its directory is watched (so the file may be new).
pub const FILE_DIR_WATCHED: u32 = 2;
/// [`FileAccess::flags`]: this access made the process tracked.
pub const FILE_HOLDER_NEW: u32 = 4;
/// [`FileAccess::flags`]: opened for writing only, where the hook can tell.
pub const FILE_WRITE_ONLY: u32 = 8;
/// [`FileAccess::flags`]: opened for writing, whether or not for reading too, or put in place under
/// this name.
pub const FILE_WRITES: u32 = 16;

abi_struct! {
    /// A watched file was touched.
    pub struct FileAccess {
        /// Who, when.
        pub head: Header,
        /// The file's inode.
        pub ino: u64,
        /// Inode of the directory it was found in; 0 when not known.
        pub dir_ino: u64,
        /// The file's device, as the kernel numbers it (major << 20 | minor).
        pub dev: u32,
        /// The directory's device.
        pub dir_dev: u32,
        /// `ACCESS_*`.
        pub access: u16,
        /// `HOOK_*`.
        pub hook: u16,
        /// `FILE_*`.
        pub flags: u32,
        /// The process's `TRACK_*`.
        pub track_flags: u32,
        /// Bytes used in `name`.
        pub name_len: u32,
        /// Last component of the name that the kernel found it under.
        pub name: [u8; NAME_MAX],
    } size 152;
}
