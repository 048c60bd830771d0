//! Connections that a process had open before it became a holder: what it reads can leave over them.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use keytrail_abi::{
    RecordKind,
    maps::{Conn, HELLO_DONE, STATE_ESTABLISHED},
    net::{AF_INET, AF_INET6, Addr, CONN_FOUND},
};

use crate::{
    ctx::{Outcome, Ptr, Who, count, current_task, now, offs, read, read_ptr},
    maps::CONN,
    net::{IPPROTO_TCP, TCP_ESTABLISHED, emit_open, local_of, remote_of},
    unix::socket_of,
};

/// Descriptors looked at. A process with more of them open has its later ones missed.
const MAX_FDS: u32 = 4_096;

/// What a walk over the descriptors carries.
struct Walk {
    who: *const Who,
    /// `fdtable.fd`.
    files: Ptr,
}

/// Looks at every descriptor of the current task.
#[inline(always)]
pub fn connections(who: &Who) {
    let table = read_ptr(current_task(), offs!(task_files))
        .and_then(|files| read_ptr(files, offs!(files_fdt)));
    let Some(table) = table else { return };
    let Some(files) = read_ptr(table, offs!(fdt_fd)) else {
        return;
    };
    let max: u32 = read(table, offs!(fdt_max_fds)).unwrap_or(0);
    let turns = if max > MAX_FDS { MAX_FDS } else { max };
    let mut walk = Walk { who, files };
    let callback: extern "C" fn(u64, *mut Walk) -> i64 = visit;
    // SAFETY: the callback outlives the call, and `walk` is on this program's stack.
    unsafe {
        bpf_loop(turns, callback as *mut c_void, (&raw mut walk).cast(), 0);
    }
}

extern "C" fn visit(fd: u64, walk: *mut Walk) -> i64 {
    // SAFETY: `connections` passes its own, which points to its caller's `who`.
    let (walk, who) = unsafe { (&*walk, &*(*walk).who) };
    if let Some(sk) = read_ptr(walk.files, fd as usize * 8).and_then(socket_of) {
        found(sk, who);
    }
    0
}

#[inline(always)]
fn found(sk: Ptr, who: &Who) {
    let family = read::<u16>(sk, offs!(sk_family)).unwrap_or(0);
    if (family != AF_INET && family != AF_INET6)
        || read::<u16>(sk, offs!(sk_protocol)) != Some(IPPROTO_TCP)
        || read::<u8>(sk, offs!(sk_state)).map(i32::from) != Some(TCP_ESTABLISHED)
    {
        return;
    }
    // A socket gets its cookie when something first asks for it, as the program on packets does.
    let cookie = read::<u64>(sk, offs!(sk_cookie)).unwrap_or(0);
    if cookie == 0 || CONN.get_ptr(cookie).is_some() {
        return;
    }
    // Filled in place: a whole `Conn` on this stack, under that of the program that walks, is more
    // than the verifier of 6.1 allows.
    let inserted = CONN.insert(&cookie, &EMPTY, 0).is_ok();
    let Some(conn) = CONN.get_ptr_mut(cookie).filter(|_| inserted) else {
        count(RecordKind::ConnOpen, Outcome::MapFull);
        return;
    };
    // SAFETY: a map value; the connection's state changes come after this.
    unsafe {
        (*conn).start_ns = who.start_ns;
        (*conn).cgroup_id = who.cgroup_id;
        (*conn).opened_ns = now();
        (*conn).tgid = who.tgid;
        (*conn).tid = who.tid;
        (*conn).uid = who.uid;
        (*conn).local = local_of(sk);
        (*conn).remote = remote_of(sk);
        emit_open(&*conn, who, cookie, CONN_FOUND);
    }
}

/// A connection about which nothing but this is known yet.
static EMPTY: Conn = Conn {
    start_ns: 0,
    cgroup_id: 0,
    opened_ns: 0,
    sent: 0,
    received: 0,
    tgid: 0,
    tid: 0,
    uid: 0,
    state: STATE_ESTABLISHED,
    hello_state: HELLO_DONE,
    hello_next: 0,
    hello_total: 0,
    first_seq: 0,
    next_seq: 0,
    last_ack: 0,
    local: NOWHERE,
    remote: NOWHERE,
};
const NOWHERE: Addr = Addr {
    addr: [0; 16],
    family: 0,
    port: 0,
    pad: 0,
};
