//! Connections.
//!
//! A TCP connection enters `CONN` under its socket's cookie when a tracked process calls `connect`;
//! from then on packets and state changes find their owner there, in whatever context they run.

use core::ptr::{addr_of, addr_of_mut};

use aya_ebpf::{EbpfContext, helpers::generated::bpf_get_socket_cookie, programs::SockAddrContext};
use keytrail_abi::{
    RecordKind,
    maps::{
        Conn, HELLO_NONE, ListenKey, Owner, PeerKey, STATE_ACCEPTED, STATE_CONNECTING,
        STATE_ESTABLISHED,
    },
    net::{
        AF_INET, AF_INET6, Addr, CONN_ACCEPTED, CONN_ESTABLISHED, CONN_FAILED, ConnClose, ConnOpen,
        Datagram, Listen,
    },
};

use crate::{
    ctx::{
        Outcome, Ptr, Who, as_void, config, count, count_suppressed, current_tgid, emit,
        fill_header, now, offs, read,
    },
    maps::{CONN, LISTENERS, PEERS, RING_NET, TRACKED},
};

pub const TCP_ESTABLISHED: i32 = 1;
const TCP_SYN_SENT: i32 = 2;
const TCP_SYN_RECV: i32 = 3;
const TCP_CLOSE: i32 = 7;
const TCP_LISTEN: i32 = 10;
pub const IPPROTO_TCP: u16 = 6;
const SOCK_STREAM: u32 = 1;

/// A socket changes its state.
#[inline(always)]
pub fn on_state(sk: Ptr, old: i32, new: i32) {
    let accepted = new == TCP_ESTABLISHED && old == TCP_SYN_RECV;
    let established = new == TCP_ESTABLISHED && old == TCP_SYN_SENT;
    if !accepted && !established && new != TCP_SYN_SENT && new != TCP_CLOSE && new != TCP_LISTEN {
        return;
    }
    if read::<u16>(sk, offs!(sk_protocol)) != Some(IPPROTO_TCP) {
        return;
    }
    if new == TCP_LISTEN {
        on_listen(sk);
        return;
    }
    if new == TCP_CLOSE && old == TCP_LISTEN {
        if let Some(key) = listen_key(sk) {
            let _ = LISTENERS.remove(key);
        }
        return;
    }
    // SAFETY: `sk` is the tracepoint's own argument.
    let cookie = unsafe { bpf_get_socket_cookie(as_void(sk)) };
    if new == TCP_SYN_SENT || accepted {
        on_new(sk, cookie, accepted);
    } else if let Some(conn) = CONN.get_ptr_mut(cookie) {
        // SAFETY: a map value; only this connection's state changes write these fields.
        unsafe {
            if new == TCP_ESTABLISHED {
                (*conn).state = STATE_ESTABLISHED;
                (*conn).opened_ns = now();
                (*conn).local = local_of(sk);
                emit_open(&*conn, &owner(&*conn), cookie, CONN_ESTABLISHED);
            } else {
                if (*conn).state == STATE_CONNECTING {
                    emit_open(&*conn, &owner(&*conn), cookie, CONN_FAILED);
                } else {
                    emit_close(sk, &*conn, cookie);
                }
                let _ = CONN.remove(cookie);
            }
        }
    }
}

/// A socket begins to listen.
#[inline(always)]
fn on_listen(sk: Ptr) {
    // SAFETY: map values stay readable in a BPF program.
    let Some(tracked) = (unsafe { TRACKED.get(current_tgid()) }) else {
        return;
    };
    let who = Who::current(tracked.start_ns);
    let Some(key) = listen_key(sk) else { return };
    let owner = Owner {
        start_ns: who.start_ns,
        cgroup_id: who.cgroup_id,
        tgid: who.tgid,
        tid: who.tid,
        uid: who.uid,
        pad: 0,
    };
    if LISTENERS.insert(key, owner, 0).is_err() {
        count(RecordKind::Listen, Outcome::MapFull);
    }
    // SAFETY: all fields are written.
    unsafe {
        emit::<Listen>(&RING_NET, RecordKind::Listen, |r| {
            fill_header(addr_of_mut!((*r).head), RecordKind::Listen, &who, now());
            addr_of_mut!((*r).local).write(local_of(sk));
        });
    }
}

/// Where a socket listens, or would if it did.
#[inline(always)]
fn listen_key(sk: Ptr) -> Option<ListenKey> {
    let mut addr = [0; 16];
    if read(sk, offs!(sk_family)) == Some(AF_INET6) {
        addr = read(sk, offs!(sk_v6_rcv_saddr))?;
    } else {
        let v4: [u8; 4] = read(sk, offs!(sk_rcv_saddr))?;
        if v4 != [0; 4] {
            (addr[10], addr[11]) = (0xff, 0xff);
            [addr[12], addr[13], addr[14], addr[15]] = v4;
        }
    }
    Some(ListenKey {
        addr,
        net: read(sk, offs!(sk_net))?,
        port: u32::from(read::<u16>(sk, offs!(sk_num))?),
        pad: 0,
    })
}

/// Who listens where this connection has come in: on its own address, or on every address.
#[inline(always)]
fn listener(sk: Ptr) -> Option<Who> {
    let mut key = listen_key(sk)?;
    // SAFETY: map values stay readable in a BPF program.
    let found = unsafe {
        match LISTENERS.get(key) {
            Some(owner) => owner,
            None => {
                key.addr = [0; 16];
                LISTENERS.get(key)?
            }
        }
    };
    Some(Who {
        tgid: found.tgid,
        tid: found.tid,
        start_ns: found.start_ns,
        uid: found.uid,
        cgroup_id: found.cgroup_id,
    })
}

/// A connection is asked for by a tracked process, or has come in to one.
#[inline(always)]
fn on_new(sk: Ptr, cookie: u64, accepted: bool) {
    let who = if accepted {
        listener(sk)
    } else {
        // SAFETY: map values stay readable in a BPF program.
        unsafe { TRACKED.get(current_tgid()) }.map(|t| Who::current(t.start_ns))
    };
    let Some(who) = who else { return };
    let conn = Conn {
        start_ns: who.start_ns,
        cgroup_id: who.cgroup_id,
        opened_ns: now(),
        sent: 0,
        received: 0,
        tgid: who.tgid,
        tid: who.tid,
        uid: who.uid,
        state: if accepted {
            STATE_ACCEPTED
        } else {
            STATE_CONNECTING
        },
        hello_state: HELLO_NONE,
        hello_next: 0,
        hello_total: 0,
        first_seq: 0,
        next_seq: 0,
        last_ack: 0,
        local: local_of(sk),
        remote: remote_of(sk),
    };
    if CONN.insert(cookie, &conn, 0).is_err() {
        count(RecordKind::ConnOpen, Outcome::MapFull);
    }
    if accepted {
        emit_open(&conn, &who, cookie, CONN_ACCEPTED);
    }
}

/// The process that a connection belongs to.
#[inline(always)]
pub fn owner(conn: &Conn) -> Who {
    Who {
        tgid: conn.tgid,
        tid: conn.tid,
        start_ns: conn.start_ns,
        uid: conn.uid,
        cgroup_id: conn.cgroup_id,
    }
}

/// Records that a connection is there, or could not be made.
#[inline(always)]
pub fn emit_open(conn: &Conn, who: &Who, cookie: u64, state: u16) {
    // SAFETY: all fields are written.
    unsafe {
        emit::<ConnOpen>(&RING_NET, RecordKind::ConnOpen, |r| {
            fill_header(addr_of_mut!((*r).head), RecordKind::ConnOpen, who, now());
            addr_of_mut!((*r).cookie).write(cookie);
            addr_of_mut!((*r).local).write(conn.local);
            addr_of_mut!((*r).remote).write(conn.remote);
            addr_of_mut!((*r).state).write(state);
            addr_of_mut!((*r).pad).write([0; 3]);
        });
    }
}

#[inline(always)]
fn emit_close(sk: Ptr, conn: &Conn, cookie: u64) {
    // SAFETY: all fields are written.
    unsafe {
        emit::<ConnClose>(&RING_NET, RecordKind::ConnClose, |r| {
            fill_header(
                addr_of_mut!((*r).head),
                RecordKind::ConnClose,
                &owner(conn),
                now(),
            );
            addr_of_mut!((*r).cookie).write(cookie);
            let bytes = |offset| read::<u64>(sk, offset).unwrap_or(0);
            addr_of_mut!((*r).bytes_sent).write(bytes(offs!(tcp_bytes_sent)));
            addr_of_mut!((*r).bytes_received).write(bytes(offs!(tcp_bytes_received)));
            addr_of_mut!((*r).bytes_acked).write(bytes(offs!(tcp_bytes_acked)));
            addr_of_mut!((*r).opened_ns).write(conn.opened_ns);
            addr_of_mut!((*r).local).write(conn.local);
            addr_of_mut!((*r).remote).write(conn.remote);
        });
    }
}

#[inline(always)]
fn address(sk: Ptr, v4: usize, v6: usize, port: u16) -> Addr {
    let family = read(sk, offs!(sk_family)).unwrap_or(0);
    let mut addr = [0; 16];
    if family == AF_INET6 {
        addr = read(sk, v6).unwrap_or(addr);
    } else if let Some(v4) = read::<[u8; 4]>(sk, v4) {
        [addr[0], addr[1], addr[2], addr[3]] = v4;
    }
    Addr {
        addr,
        family,
        port,
        pad: 0,
    }
}

/// This side of a socket.
#[inline(always)]
pub fn local_of(sk: Ptr) -> Addr {
    let port = read(sk, offs!(sk_num)).unwrap_or(0);
    address(sk, offs!(sk_rcv_saddr), offs!(sk_v6_rcv_saddr), port)
}

/// The other side of it.
#[inline(always)]
pub fn remote_of(sk: Ptr) -> Addr {
    let port = u16::from_be(read(sk, offs!(sk_dport)).unwrap_or(0));
    address(sk, offs!(sk_daddr), offs!(sk_v6_daddr), port)
}

/// A datagram socket is connected, or sends to an address.
#[inline(always)]
pub fn on_sock_addr(ctx: &SockAddrContext, family: u16, sent: bool) {
    let raw = ctx.sock_addr;
    // SAFETY: the program's own context.
    if unsafe { (*raw).type_ } == SOCK_STREAM {
        return;
    }
    // SAFETY: map values stay readable in a BPF program.
    let Some(tracked) = (unsafe { TRACKED.get(current_tgid()) }) else {
        return;
    };
    // SAFETY: the program's own context; the kernel allows reads of four bytes.
    let (remote, protocol) = unsafe {
        let mut addr = [0u8; 16];
        if family == AF_INET {
            let ip = core::ptr::read_volatile(addr_of!((*raw).user_ip4)).to_ne_bytes();
            [addr[0], addr[1], addr[2], addr[3]] = ip;
        } else {
            for i in 0..4 {
                let part = core::ptr::read_volatile(addr_of!((*raw).user_ip6[i])).to_ne_bytes();
                addr[i * 4..i * 4 + 4].copy_from_slice(&part);
            }
        }
        let port = u16::from_be(core::ptr::read_volatile(addr_of!((*raw).user_port)) as u16);
        (
            Addr {
                addr,
                family,
                port,
                pad: 0,
            },
            (*raw).protocol,
        )
    };
    // SAFETY: the program's own context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let who = Who::current(tracked.start_ns);
    datagram(&who, cookie, &remote, protocol, u32::from(sent));
}

/// Records that a tracked process talks to `remote`, unless that was recorded a moment ago.
#[inline(always)]
pub fn datagram(who: &Who, cookie: u64, remote: &Addr, protocol: u32, sent: u32) {
    let (now, remote) = (now(), *remote);
    let key = PeerKey {
        remote,
        tgid: who.tgid,
        protocol,
    };
    // SAFETY: map values stay readable in a BPF program.
    let last = unsafe { PEERS.get(key) }.copied().unwrap_or(0);
    if last != 0 && now.wrapping_sub(last) < config!(dedupe_ns) {
        count_suppressed(RecordKind::Datagram);
        return;
    }
    let _ = PEERS.insert(key, now, 0);
    // SAFETY: all fields are written.
    unsafe {
        emit::<Datagram>(&RING_NET, RecordKind::Datagram, |r| {
            fill_header(addr_of_mut!((*r).head), RecordKind::Datagram, who, now);
            addr_of_mut!((*r).cookie).write(cookie);
            addr_of_mut!((*r).remote).write(remote);
            addr_of_mut!((*r).protocol).write(protocol);
            addr_of_mut!((*r).sent).write(sent);
        });
    }
}
