//! Connections.
//!
//! A TCP connection enters `CONN` under its socket's cookie when a tracked process calls `connect`;
//! from then on packets and state changes find their owner there, in whatever context they run.

use core::ptr::{addr_of, addr_of_mut};

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_get_socket_cookie, bpf_skb_load_bytes},
    programs::{SkBuffContext, SockAddrContext},
};
use keytrail_abi::{
    RecordKind,
    maps::{
        Conn, HELLO_DONE, HELLO_NONE, HELLO_PARTIAL, PeerKey, STATE_CONNECTING, STATE_ESTABLISHED,
    },
    net::{
        AF_INET, AF_INET6, Addr, CONN_ESTABLISHED, CONN_FAILED, ConnClose, ConnHello, ConnOpen,
        Datagram, HELLO_CHUNK, HELLO_MAX,
    },
};

use crate::{
    ctx::{
        Outcome, Ptr, Who, as_void, bounded, config, count, count_suppressed, current_tgid, emit,
        fill_header, now, offs, read,
    },
    maps::{CONN, PEERS, RING_NET, TRACKED},
};

const TCP_ESTABLISHED: i32 = 1;
const TCP_SYN_SENT: i32 = 2;
const TCP_CLOSE: i32 = 7;
const IPPROTO_TCP: u16 = 6;
const SOCK_STREAM: u32 = 1;
/// TCP header, flags byte: SYN.
const FLAG_SYN: u8 = 0x02;

/// A socket changes its state.
#[inline(always)]
pub fn on_state(sk: Ptr, old: i32, new: i32) {
    if new != TCP_SYN_SENT && new != TCP_CLOSE && !(new == TCP_ESTABLISHED && old == TCP_SYN_SENT) {
        return;
    }
    if read::<u16>(sk, offs!(sk_protocol)) != Some(IPPROTO_TCP) {
        return;
    }
    // SAFETY: `sk` is the tracepoint's own argument.
    let cookie = unsafe { bpf_get_socket_cookie(as_void(sk)) };
    if new == TCP_SYN_SENT {
        on_connect(sk, cookie);
    } else if let Some(conn) = CONN.get_ptr_mut(cookie) {
        // SAFETY: a map value; only this connection's state changes write these fields.
        unsafe {
            if new == TCP_ESTABLISHED {
                (*conn).state = STATE_ESTABLISHED;
                (*conn).opened_ns = now();
                (*conn).local = local_of(sk);
                emit_open(&*conn, cookie, CONN_ESTABLISHED);
            } else {
                if (*conn).state == STATE_CONNECTING {
                    emit_open(&*conn, cookie, CONN_FAILED);
                } else {
                    emit_close(sk, &*conn, cookie);
                }
                let _ = CONN.remove(cookie);
            }
        }
    }
}

#[inline(always)]
fn on_connect(sk: Ptr, cookie: u64) {
    // SAFETY: map values stay readable in a BPF program.
    let Some(tracked) = (unsafe { TRACKED.get(current_tgid()) }) else {
        return;
    };
    let who = Who::current(tracked.start_ns);
    let conn = Conn {
        start_ns: who.start_ns,
        cgroup_id: who.cgroup_id,
        opened_ns: now(),
        sent: 0,
        received: 0,
        tgid: who.tgid,
        tid: who.tid,
        uid: who.uid,
        state: STATE_CONNECTING,
        hello_state: HELLO_NONE,
        hello_next: 0,
        hello_total: 0,
        first_seq: 0,
        next_seq: 0,
        last_ack: 0,
        local: local_of(sk),
        remote: remote_of(sk),
    };
    if CONN.insert(cookie, conn, 0).is_err() {
        count(RecordKind::ConnOpen, Outcome::MapFull);
    }
}

#[inline(always)]
fn owner(conn: &Conn) -> Who {
    Who {
        tgid: conn.tgid,
        tid: conn.tid,
        start_ns: conn.start_ns,
        uid: conn.uid,
        cgroup_id: conn.cgroup_id,
    }
}

#[inline(always)]
fn emit_open(conn: &Conn, cookie: u64, state: u16) {
    // SAFETY: all fields are written.
    unsafe {
        emit::<ConnOpen>(&RING_NET, RecordKind::ConnOpen, |r| {
            fill_header(
                addr_of_mut!((*r).head),
                RecordKind::ConnOpen,
                &owner(conn),
                now(),
            );
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

#[inline(always)]
fn local_of(sk: Ptr) -> Addr {
    let port = read(sk, offs!(sk_num)).unwrap_or(0);
    address(sk, offs!(sk_rcv_saddr), offs!(sk_v6_rcv_saddr), port)
}

#[inline(always)]
fn remote_of(sk: Ptr) -> Addr {
    let port = u16::from_be(read(sk, offs!(sk_dport)).unwrap_or(0));
    address(sk, offs!(sk_daddr), offs!(sk_v6_daddr), port)
}

/// A segment as far as it matters here.
struct Segment {
    seq: u32,
    ack: u32,
    syn: bool,
    payload: u32,
    payload_len: u32,
}

/// A packet leaves: counts bytes of the connection and records what belongs to a ClientHello.
#[inline(always)]
pub fn on_egress(ctx: &SkBuffContext) {
    // SAFETY: the program's own context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let Some(conn) = CONN.get_ptr_mut(cookie) else {
        return;
    };
    let Some(segment) = parse(ctx) else { return };
    // SAFETY: a map value. TCP sends a connection's segments under its lock, one at a time.
    unsafe {
        if segment.syn {
            (*conn).first_seq = segment.seq.wrapping_add(1);
            (*conn).next_seq = (*conn).first_seq;
        } else if (*conn).last_ack == 0 {
            (*conn).last_ack = segment.ack;
        } else {
            let acked = segment.ack.wrapping_sub((*conn).last_ack);
            if acked != 0 && acked < 1 << 31 {
                (*conn).received += u64::from(acked);
                (*conn).last_ack = segment.ack;
            }
        }
        if segment.payload_len == 0 {
            return;
        }
        let begin = segment.seq.wrapping_add(u32::from(segment.syn));
        let end = begin.wrapping_add(segment.payload_len);
        let fresh = end.wrapping_sub((*conn).next_seq);
        if fresh != 0 && fresh < 1 << 31 {
            (*conn).sent += u64::from(fresh);
            (*conn).next_seq = end;
        }
        if (*conn).hello_state != HELLO_DONE {
            follow_hello(ctx, &mut *conn, cookie, &segment, begin);
        }
    }
}

#[inline(always)]
fn parse(ctx: &SkBuffContext) -> Option<Segment> {
    let first: u8 = ctx.load(0).ok()?;
    let ip_len = match first >> 4 {
        4 if ctx.load::<u8>(9).ok()? == IPPROTO_TCP as u8 => usize::from(first & 0xf) * 4,
        6 if ctx.load::<u8>(6).ok()? == IPPROTO_TCP as u8 => 40,
        _ => return None,
    };
    // seq, ack, data offset and flags lie side by side.
    let tcp: [u8; 10] = ctx.load(ip_len + 4).ok()?;
    let payload = ip_len as u32 + u32::from(tcp[8] >> 4) * 4;
    Some(Segment {
        seq: u32::from_be_bytes([tcp[0], tcp[1], tcp[2], tcp[3]]),
        ack: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
        syn: tcp[9] & FLAG_SYN != 0,
        payload,
        payload_len: ctx.len().saturating_sub(payload),
    })
}

/// Records the part of the segment that belongs to a ClientHello.
#[inline(always)]
fn follow_hello(ctx: &SkBuffContext, conn: &mut Conn, cookie: u64, segment: &Segment, begin: u32) {
    let position = begin.wrapping_sub(conn.first_seq);
    if conn.hello_state == HELLO_NONE {
        match hello_total(ctx, segment) {
            Some(total) if position == 0 => conn.hello_total = total,
            _ => {
                conn.hello_state = HELLO_DONE;
                return;
            }
        }
        conn.hello_state = HELLO_PARTIAL;
    }
    // A retransmission repeats what was recorded.
    if position != conn.hello_next {
        return;
    }
    let left = conn.hello_total.saturating_sub(position);
    let take = if segment.payload_len < left {
        segment.payload_len
    } else {
        left
    };
    let who = owner(conn);
    for i in 0..(HELLO_MAX / HELLO_CHUNK as u32) {
        let offset = i * HELLO_CHUNK as u32;
        if offset >= take {
            break;
        }
        let n = take - offset;
        let n = if n > HELLO_CHUNK as u32 {
            HELLO_CHUNK as u32
        } else {
            n
        };
        // SAFETY: all fields are written.
        unsafe {
            emit::<ConnHello>(&RING_NET, RecordKind::ConnHello, |r| {
                fill_header(addr_of_mut!((*r).head), RecordKind::ConnHello, &who, now());
                addr_of_mut!((*r).cookie).write(cookie);
                addr_of_mut!((*r).offset).write(position + offset);
                addr_of_mut!((*r).total).write(conn.hello_total);
                addr_of_mut!((*r).pad).write(0);
                let n = bounded::<{ HELLO_CHUNK as u32 - 1 }>(n);
                let data = addr_of_mut!((*r).data);
                let ret =
                    bpf_skb_load_bytes(ctx.as_ptr(), segment.payload + offset, data.cast(), n);
                addr_of_mut!((*r).data_len).write(if ret == 0 { n } else { 0 });
            });
        }
    }
    conn.hello_next = position + take;
    if conn.hello_next >= conn.hello_total {
        conn.hello_state = HELLO_DONE;
    }
}

/// Bytes that a ClientHello takes in the stream, if `segment` begins with one: the handshake
/// message and the header of every TLS record that it is spread over (RFC 8446, 4 and 5.1).
#[inline(always)]
fn hello_total(ctx: &SkBuffContext, segment: &Segment) -> Option<u32> {
    const RECORD_HEADER: u32 = 5;
    const MESSAGE_HEADER: u32 = 4;
    let at = segment.payload as usize;
    let start: [u8; 2] = ctx.load(at).ok()?;
    if start != [0x16, 0x03] {
        return None;
    }
    // A first segment too short to tell the length is rare and odd: follow it for a usual length.
    let Ok(head) = ctx.load::<[u8; 9]>(at) else {
        return Some(HELLO_CHUNK as u32);
    };
    if head[5] != 1 {
        return None;
    }
    let record = u32::from(head[3]) << 8 | u32::from(head[4]);
    let message =
        MESSAGE_HEADER + (u32::from(head[6]) << 16 | u32::from(head[7]) << 8 | u32::from(head[8]));
    if record == 0 {
        return None;
    }
    let records = message.div_ceil(record);
    let total = message.saturating_add(records.saturating_mul(RECORD_HEADER));
    Some(if total > HELLO_MAX { HELLO_MAX } else { total })
}

/// A datagram socket is connected, or sends to an address.
#[inline(always)]
pub fn on_sock_addr(ctx: &SockAddrContext, family: u16, sent: bool) {
    let raw = ctx.sock_addr;
    // SAFETY: the program's own context.
    if unsafe { (*raw).type_ } == SOCK_STREAM {
        return;
    }
    let tgid = current_tgid();
    // SAFETY: map values stay readable in a BPF program.
    let Some(tracked) = (unsafe { TRACKED.get(tgid) }) else {
        return;
    };
    let start_ns = tracked.start_ns;
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
    let now = now();
    let key = PeerKey {
        remote,
        tgid,
        protocol,
    };
    // SAFETY: map values stay readable in a BPF program.
    let last = unsafe { PEERS.get(key) }.copied().unwrap_or(0);
    if last != 0 && now.wrapping_sub(last) < config!(dedupe_ns) {
        count_suppressed(RecordKind::Datagram);
        return;
    }
    let _ = PEERS.insert(key, now, 0);
    let who = Who::current(start_ns);
    // SAFETY: all fields are written; the cookie is asked for with the program's own context.
    unsafe {
        let cookie = bpf_get_socket_cookie(ctx.as_ptr());
        emit::<Datagram>(&RING_NET, RecordKind::Datagram, |r| {
            fill_header(addr_of_mut!((*r).head), RecordKind::Datagram, &who, now);
            addr_of_mut!((*r).cookie).write(cookie);
            addr_of_mut!((*r).remote).write(remote);
            addr_of_mut!((*r).protocol).write(protocol);
            addr_of_mut!((*r).sent).write(u32::from(sent));
        });
    }
}
