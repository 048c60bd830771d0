//! Accesses to watched files.
//!
//! Nearly every access on the machine is one of an untracked process to a file that is not watched,
//! so that case comes first and costs least: the inode's key, one word of the filter (an array) and
//! one look-up of the process. The directory, the mode and the name are asked for only afterwards:
//! watched directories concern tracked processes alone.

use core::ptr::addr_of_mut;

use aya_ebpf::helpers::bpf_probe_read_kernel_str_bytes;
use keytrail_abi::{
    RecordKind,
    file::{
        ACCESS_EXEC, ACCESS_NAME, ACCESS_OPEN, ACCESS_READ, FILE_DIR_WATCHED, FILE_HOLDER_NEW,
        FILE_INODE_WATCHED, FILE_WRITE_ONLY, FILE_WRITES, FileAccess, HOOK_IO_URING,
        HOOK_LSM_FILE_OPEN, HOOK_LSM_FILE_PERMISSION, HOOK_SYS_EXIT,
    },
    maps::{FileKey, SeenKey, TRACK_HOLDER, Tracked, filter_bit},
};

use crate::{
    ctx::{
        Outcome, Ptr, Who, config, count, count_suppressed, current_task, current_tgid, emit,
        fill_header, in_scope, is_agent, load, load_ptr, now, offs, read, read_ptr, start_of,
        typed_task,
    },
    found,
    maps::{RING_ACCESS, SEEN, TRACKED, WATCH_FILTER, WATCHED_DIRS, WATCHED_INODES},
    victim,
};

/// `file.f_mode`: open for reading.
const FMODE_READ: u32 = 0x1;
/// `file.f_mode`: open for writing.
const FMODE_WRITE: u32 = 0x2;
/// `file.f_mode`: opened to be executed.
const FMODE_EXEC: u32 = 0x20;
/// `mask` of `file_permission`: reading.
const MAY_READ: i32 = 0x4;

/// What an access is, apart from who does it to which file.
#[derive(Clone, Copy)]
struct How {
    access: u16,
    hook: u16,
    flags: u32,
}

/// How an access came to be known.
#[derive(Clone, Copy)]
struct Via {
    /// `ACCESS_OPEN` stands for whatever the file's mode says.
    access: u16,
    hook: u16,
    /// The open file, where there is one: pages are read without.
    file: Option<Ptr>,
    /// The name that the file is given, where that is what happens.
    name: Option<Ptr>,
}

impl Via {
    /// The name by which the file was reached. Without an open file any of the inode's names stands
    /// for it: a hard link in a watched directory may so be missed, the watched inode itself never.
    #[inline(always)]
    fn dentry(&self, inode: Ptr) -> Option<Ptr> {
        if self.name.is_some() {
            return self.name;
        }
        match self.file {
            Some(file) => read_ptr(file, offs!(file_dentry)),
            None => read_ptr(inode, offs!(inode_alias))
                .map(|alias| alias.wrapping_sub(offs!(dentry_alias))),
        }
    }

    #[inline(always)]
    fn how(&self) -> How {
        match self.file {
            Some(file) if self.access == ACCESS_OPEN => open_how(file, self.hook),
            _ => How {
                access: self.access,
                hook: self.hook,
                flags: if self.name.is_some() {
                    FILE_WRITE_ONLY | FILE_WRITES
                } else {
                    0
                },
            },
        }
    }
}

/// The key of an inode.
#[inline(always)]
pub fn key_of_inode(inode: Ptr) -> Option<FileKey> {
    let ino = read(inode, offs!(inode_ino))?;
    let sb = read_ptr(inode, offs!(inode_sb))?;
    Some(FileKey {
        ino,
        dev: read(sb, offs!(sb_dev))?,
        pad: 0,
    })
}

/// The same, of an inode whose type the verifier knows.
#[inline(always)]
fn key_of_typed(inode: Ptr) -> Option<FileKey> {
    let sb = load_ptr(inode, offs!(inode_sb))?;
    Some(FileKey {
        ino: load(inode, offs!(inode_ino)),
        dev: load(sb, offs!(sb_dev)),
        pad: 0,
    })
}

#[inline(always)]
fn filtered(key: &FileKey) -> bool {
    let bit = filter_bit(key);
    WATCH_FILTER
        .get((bit / 64) as u32)
        .is_some_and(|word| word & (1 << (bit % 64)) != 0)
}

/// A file is opened.
#[inline(always)]
pub fn on_file_open(file: Ptr) {
    on_file(file, ACCESS_OPEN, HOOK_LSM_FILE_OPEN);
}

#[inline(always)]
fn open_how(file: Ptr, hook: u16) -> How {
    let mode: u32 = read(file, offs!(file_mode)).unwrap_or(FMODE_READ);
    let access = if mode & FMODE_EXEC != 0 {
        ACCESS_EXEC
    } else {
        ACCESS_OPEN
    };
    let mut flags = if mode & FMODE_READ == 0 {
        FILE_WRITE_ONLY
    } else {
        0
    };
    if mode & FMODE_WRITE != 0 {
        flags |= FILE_WRITES;
    }
    How {
        access,
        hook,
        flags,
    }
}

/// An open file is read, by whatever system call.
#[inline(always)]
pub fn on_file_permission(file: Ptr, mask: i32) {
    if mask & MAY_READ != 0 {
        on_file(file, ACCESS_READ, HOOK_LSM_FILE_PERMISSION);
    }
}

/// An open file is mapped or received. `file` is null for an anonymous mapping.
#[inline(always)]
pub fn on_file(file: Ptr, access: u16, hook: u16) {
    if file.is_null() {
        return;
    }
    let Some(inode) = load_ptr(file, offs!(file_inode)) else {
        return;
    };
    let via = Via {
        access,
        hook,
        file: Some(file),
        name: None,
    };
    if let Some(key) = key_of_typed(inode) {
        on_inode(inode, &key, via);
    }
}

/// Pages of a file are read or mapped: there is no `struct file` here, only the inode.
#[inline(always)]
pub fn on_mapping(mapping: Ptr, access: u16, hook: u16) {
    let Some(inode) = load_ptr(mapping, offs!(mapping_host)) else {
        return;
    };
    let via = Via {
        access,
        hook,
        file: None,
        name: None,
    };
    if let Some(key) = key_of_typed(inode) {
        on_inode(inode, &key, via);
    }
}

/// An open returned: look at what the new descriptor refers to.
#[inline(always)]
pub fn on_opened(fd: u64) {
    on_descriptor(fd, HOOK_SYS_EXIT);
}

/// An open through `io_uring` is done, with this descriptor.
#[inline(always)]
pub fn on_ring_opened(fd: u64) {
    on_descriptor(fd, HOOK_IO_URING);
}

#[inline(always)]
fn on_descriptor(fd: u64, hook: u16) {
    let Some(file) = file_of_fd(fd) else {
        return;
    };
    let Some(inode) = read_ptr(file, offs!(file_inode)) else {
        return;
    };
    let via = Via {
        access: ACCESS_OPEN,
        hook,
        file: Some(file),
        name: None,
    };
    if let Some(key) = key_of_inode(inode) {
        on_inode(inode, &key, via);
    }
}

/// A file gets a name: it is moved to `dentry`, or `dentry` becomes another name of it. `old` is its
/// name so far. Whoever puts a file in place need not have opened it there.
#[inline(always)]
pub fn on_named(old: Ptr, dentry: Ptr, hook: u16) {
    // SAFETY: map values stay readable in a BPF program.
    if unsafe { TRACKED.get(current_tgid()) }.is_none() {
        return;
    }
    let Some(inode) = read_ptr(old, offs!(dentry_inode)) else {
        return;
    };
    let via = Via {
        access: ACCESS_NAME,
        hook,
        file: None,
        name: Some(dentry),
    };
    if let Some(key) = key_of_inode(inode) {
        on_inode(inode, &key, via);
    }
}

/// The file behind a descriptor of the current task.
#[inline(always)]
pub fn file_of_fd(fd: u64) -> Option<Ptr> {
    let files = load_ptr(typed_task(), offs!(task_files))?;
    let table = load_ptr(files, offs!(files_fdt))?;
    let max: u32 = load(table, offs!(fdt_max_fds));
    if fd >= u64::from(max) {
        return None;
    }
    // A pointer to pointers: no verifier knows what lies behind it.
    let array = load_ptr(table, offs!(fdt_fd))?;
    read_ptr(array, fd as usize * 8)
}

#[inline(always)]
fn on_inode(inode: Ptr, key: &FileKey, via: Via) {
    let inode_maybe = filtered(key);
    let tgid = current_tgid();
    // SAFETY: map values stay readable in a BPF program.
    let tracked = unsafe { TRACKED.get(tgid) };
    if tracked.is_none() && !inode_maybe {
        on_other(inode, key, via);
        return;
    }
    let dentry = via.dentry(inode);
    let dir = dentry.and_then(|d| dir_of(d, key.dev)).unwrap_or(FileKey {
        ino: 0,
        dev: 0,
        pad: 0,
    });
    let dir_maybe = tracked.is_some() && filtered(&dir);
    if !inode_maybe && !dir_maybe {
        on_other(inode, key, via);
        return;
    }
    if is_agent(tgid) {
        return;
    }
    // SAFETY: as above.
    let (inode_hit, dir_hit) = unsafe {
        (
            inode_maybe && WATCHED_INODES.get(key).is_some(),
            dir_maybe && WATCHED_DIRS.get(dir).is_some(),
        )
    };
    match tracked {
        Some(_) if inode_hit || dir_hit => {}
        None if inode_hit && in_scope() => {}
        _ => return,
    }
    let how = via.how();
    let mut flags = how.flags;
    if inode_hit {
        flags |= FILE_INODE_WATCHED;
    }
    if dir_hit {
        flags |= FILE_DIR_WATCHED;
    }
    let now = now();
    if tracked.is_some() && repeated(key, tgid, how.access, now) {
        count_suppressed(RecordKind::FileAccess);
        return;
    }
    let (start_ns, track_flags) = match tracked {
        Some(t) => (t.start_ns, t.flags),
        None => {
            let start_ns = start_of(current_task());
            hold(tgid, start_ns);
            flags |= FILE_HOLDER_NEW;
            let _ = SEEN.insert(seen_key(key, tgid, how.access), now, 0);
            (start_ns, TRACK_HOLDER)
        }
    };
    let who = Who::current(start_ns);
    // SAFETY: all fields are written; the tail of `name` is zeroed.
    unsafe {
        emit::<FileAccess>(&RING_ACCESS, RecordKind::FileAccess, |r| {
            fill_header(addr_of_mut!((*r).head), RecordKind::FileAccess, &who, now);
            addr_of_mut!((*r).ino).write(key.ino);
            addr_of_mut!((*r).dir_ino).write(dir.ino);
            addr_of_mut!((*r).dev).write(key.dev);
            addr_of_mut!((*r).dir_dev).write(dir.dev);
            addr_of_mut!((*r).access).write(how.access);
            addr_of_mut!((*r).hook).write(how.hook);
            addr_of_mut!((*r).flags).write(flags);
            addr_of_mut!((*r).track_flags).write(track_flags);
            let name = addr_of_mut!((*r).name);
            name.write_bytes(0, 1);
            let len = dentry
                .and_then(|d| read_ptr(d, offs!(dentry_name)))
                .and_then(|p| bpf_probe_read_kernel_str_bytes(p, &mut *name).ok())
                .map_or(0, <[u8]>::len);
            addr_of_mut!((*r).name_len).write(len as u32);
        });
    }
    if flags & FILE_HOLDER_NEW != 0 {
        found::connections(&who);
    }
}

/// A file that is not watched was accessed.
#[inline(always)]
fn on_other(inode: Ptr, key: &FileKey, via: Via) {
    if via.access == ACCESS_OPEN && key.dev < victim::FIRST_MAJOR {
        victim::on_opened(inode, via.dentry(inode));
    }
}

/// The key of the directory that `dentry` lies in. A directory is on the device of its files.
#[inline(always)]
fn dir_of(dentry: Ptr, dev: u32) -> Option<FileKey> {
    let parent = read_ptr(dentry, offs!(dentry_parent))?;
    let inode = read_ptr(parent, offs!(dentry_inode))?;
    Some(FileKey {
        ino: read(inode, offs!(inode_ino))?,
        dev,
        pad: 0,
    })
}

/// Makes a process a holder: from now on it and its children are tracked.
#[inline(always)]
pub fn hold(tgid: u32, start_ns: u64) {
    let value = Tracked {
        start_ns,
        root_start_ns: start_ns,
        root_tgid: tgid,
        flags: TRACK_HOLDER,
    };
    if TRACKED.insert(tgid, value, 0).is_err() {
        // The access itself is recorded all the same: it matters more than the children.
        count(RecordKind::Fork, Outcome::MapFull);
    }
}

#[inline(always)]
fn seen_key(key: &FileKey, tgid: u32, access: u16) -> SeenKey {
    SeenKey {
        ino: key.ino,
        dev: key.dev,
        tgid,
        access: u32::from(access),
        pad: 0,
    }
}

/// Whether this process did this to this file a moment ago; if not, notes that it does now.
#[inline(always)]
pub fn repeated(key: &FileKey, tgid: u32, access: u16, now: u64) -> bool {
    let key = seen_key(key, tgid, access);
    // SAFETY: map values stay readable in a BPF program.
    let last = unsafe { SEEN.get(key) }.copied().unwrap_or(0);
    if last != 0 && now.wrapping_sub(last) < config!(dedupe_ns) {
        return true;
    }
    let _ = SEEN.insert(key, now, 0);
    false
}
