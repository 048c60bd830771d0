//! Getting at another process: its environment, its memory.

use core::ptr::addr_of_mut;

use keytrail_abi::{
    RecordKind,
    maps::FileKey,
    process::{ProcessAccess, VIA_ATTACH, VIA_ENVIRON, VIA_MEM},
};

use crate::{
    ctx::{
        Ptr, Who, count_suppressed, current_task, current_tgid, emit, fill_header, in_scope,
        is_agent, now, offs, read, read_ptr, start_of,
    },
    file::{hold, repeated},
    found,
    maps::{RING_ACCESS, TRACKED},
};

/// `PROC_SUPER_MAGIC` (`include/uapi/linux/magic.h`).
const PROC_MAGIC: u64 = 0x9fa0;
/// `PTRACE_MODE_ATTACH` and `PTRACE_MODE_REALCREDS` (`include/linux/ptrace.h`): what `ptrace`,
/// `process_vm_readv` and `pidfd_getfd` ask for, and `/proc` does not.
const MODE_ATTACH: u32 = 0x2;
const MODE_REALCREDS: u32 = 0x10;
/// Devices below this have no major number: procfs, tmpfs and the like.
pub const FIRST_MAJOR: u32 = 1 << 20;
/// Keeps repeats of these apart from those of files.
const ACCESS_PROCESS: u16 = 0x100;

/// Another process.
struct Victim {
    tgid: u32,
    start_ns: u64,
}

/// A file that is not watched, on a device below [`FIRST_MAJOR`], was opened: is it another
/// process's environment or memory?
#[inline(always)]
pub fn on_opened(inode: Ptr, dentry: Option<Ptr>) {
    let Some(name) = dentry.and_then(|d| read_ptr(d, offs!(dentry_name))) else {
        return;
    };
    let Some(name) = read::<[u8; 8]>(name, 0) else {
        return;
    };
    let via = if name == *b"environ\0" {
        VIA_ENVIRON
    } else if name[0] == b'm' && name[1] == b'e' && name[2] == b'm' && name[3] == 0 {
        VIA_MEM
    } else {
        return;
    };
    let magic = read_ptr(inode, offs!(inode_sb)).and_then(|sb| read::<u64>(sb, offs!(sb_magic)));
    if magic != Some(PROC_MAGIC) {
        return;
    }
    let to_pid = offs!(inode_to_pid) as i32;
    let victim = read_ptr(inode.wrapping_offset(to_pid as isize), 0)
        .and_then(|pid| read_ptr(pid, offs!(pid_tasks)))
        .map(|link| link.wrapping_sub(offs!(task_pid_links)))
        .and_then(victim_of);
    if let Some(victim) = victim {
        on_access(&victim, via);
    }
}

#[inline(always)]
fn victim_of(task: Ptr) -> Option<Victim> {
    Some(Victim {
        tgid: read(task, offs!(task_tgid))?,
        start_ns: start_of(task),
    })
}

/// The kernel has been asked, and has allowed, to look into `task`.
#[inline(always)]
pub fn on_access_check(task: Ptr, mode: u32) {
    if mode & MODE_ATTACH == 0 || mode & MODE_REALCREDS == 0 {
        return;
    }
    if let Some(victim) = victim_of(task) {
        on_access(&victim, VIA_ATTACH);
    }
}

/// A system call looked into the process, or one of its threads, with this id.
#[inline(always)]
pub fn on_call(id: u32, via: u32) {
    on_access(
        &Victim {
            tgid: id,
            start_ns: 0,
        },
        via,
    );
}

#[inline(always)]
fn on_access(victim: &Victim, via: u32) {
    let tgid = current_tgid();
    if victim.tgid == tgid || is_agent(tgid) {
        return;
    }
    // SAFETY: map values stay readable in a BPF program.
    let (own, theirs) = unsafe { (TRACKED.get(tgid), TRACKED.get(victim.tgid)) };
    // Whoever looks into a holder becomes one; what others do to others is none of our business.
    if own.is_none() && (theirs.is_none() || !in_scope()) {
        return;
    }
    let now = now();
    let seen = FileKey {
        ino: u64::from(victim.tgid),
        dev: via,
        pad: 0,
    };
    if repeated(&seen, tgid, ACCESS_PROCESS, now) {
        count_suppressed(RecordKind::ProcessAccess);
        return;
    }
    let victim_start_ns = match theirs {
        Some(t) if victim.start_ns == 0 => t.start_ns,
        _ => victim.start_ns,
    };
    let start_ns = match own {
        Some(t) => t.start_ns,
        None => {
            let start_ns = start_of(current_task());
            hold(tgid, start_ns);
            start_ns
        }
    };
    let who = Who::current(start_ns);
    let new_holder = u32::from(own.is_none());
    // SAFETY: all fields are written.
    unsafe {
        emit::<ProcessAccess>(&RING_ACCESS, RecordKind::ProcessAccess, |r| {
            fill_header(
                addr_of_mut!((*r).head),
                RecordKind::ProcessAccess,
                &who,
                now,
            );
            addr_of_mut!((*r).victim_start_ns).write(victim_start_ns);
            addr_of_mut!((*r).victim).write(victim.tgid);
            addr_of_mut!((*r).via).write(via);
            addr_of_mut!((*r).new_holder).write(new_holder);
            addr_of_mut!((*r).pad).write(0);
        });
    }
    if own.is_none() {
        found::connections(&who);
    }
}
