//! Packets of sockets in the scope's cgroup: bytes, TLS hellos, DNS messages, raw sockets.

use core::ptr::addr_of_mut;

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_get_socket_cookie, bpf_sk_fullsock, bpf_skb_load_bytes},
    programs::SkBuffContext,
};
use keytrail_abi::{
    RecordKind,
    maps::{Conn, HELLO_DONE, HELLO_NONE, HELLO_PARTIAL, Owner},
    net::{
        AF_INET, AF_INET6, Addr, ConnHello, DNS_ANSWER, DNS_MAX, DNS_TCP, Dns, HELLO_CHUNK,
        HELLO_MAX,
    },
};

use crate::{
    ctx::{Who, bounded, current_task, emit, fill_header, now, offs, read},
    maps::{CONN, RESOLVING, RING_DNS, RING_NET, TRACKED},
    net::{datagram, owner},
};

const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const SOCK_RAW: u32 = 3;
/// TCP header, flags byte: SYN.
const FLAG_SYN: u8 = 0x02;
const UDP_HEADER: u32 = 8;
const PORT_DNS: u16 = 53;
/// [`keytrail_abi::net::Datagram::sent`] of a raw packet.
const SENT_RAW: u32 = 2;

/// A segment as far as it matters here.
struct Segment {
    seq: u32,
    ack: u32,
    syn: bool,
    payload: u32,
    payload_len: u32,
}

/// An IP header as far as it matters here.
struct Ip {
    protocol: u8,
    len: usize,
    remote: Addr,
}

/// Reads the header of a packet that leaves.
#[inline(always)]
fn ip(ctx: &SkBuffContext) -> Option<Ip> {
    let first: u8 = ctx.load(0).ok()?;
    let mut addr = [0; 16];
    let (protocol, len, family) = match first >> 4 {
        4 => {
            [addr[0], addr[1], addr[2], addr[3]] = ctx.load(16).ok()?;
            (ctx.load(9).ok()?, usize::from(first & 0xf) * 4, AF_INET)
        }
        6 => {
            addr = ctx.load(24).ok()?;
            (ctx.load(6).ok()?, 40, AF_INET6)
        }
        _ => return None,
    };
    Some(Ip {
        protocol,
        len,
        remote: Addr {
            addr,
            family,
            port: 0,
            pad: 0,
        },
    })
}

#[inline(always)]
fn owner_of(who: &Who) -> Owner {
    Owner {
        start_ns: who.start_ns,
        cgroup_id: who.cgroup_id,
        tgid: who.tgid,
        tid: who.tid,
        uid: who.uid,
        pad: 0,
    }
}

/// A packet of something else than a known connection leaves: a question to a resolver, or a packet
/// of a raw socket?
#[inline(always)]
fn on_other_egress(ctx: &SkBuffContext, cookie: u64) {
    let task = current_task();
    let tgid = read::<u32>(task, offs!(task_tgid)).unwrap_or(0);
    // SAFETY: map values stay readable in a BPF program.
    let Some(tracked) = (unsafe { TRACKED.get(tgid) }) else {
        return;
    };
    let who = Who::of_task(task, tgid, tracked.start_ns);
    let Some(ip) = ip(ctx) else { return };
    if ip.protocol == IPPROTO_UDP {
        if ctx.load::<[u8; 2]>(ip.len + 2).map(u16::from_be_bytes) != Ok(PORT_DNS) {
            return;
        }
        let _ = RESOLVING.insert(cookie, owner_of(&who), 0);
        let at = ip.len as u32 + UDP_HEADER;
        emit_dns(ctx, &who, cookie, 0, at, ctx.len().saturating_sub(at));
    } else if is_raw(ctx) {
        let protocol = u32::from(ip.protocol);
        datagram(&who, cookie, &ip.remote, protocol, SENT_RAW);
    }
}

/// Whether the packet's socket is a raw one. A reset or a late segment of a TCP connection leaves in
/// whatever process's context, so the protocol alone says nothing.
#[inline(always)]
fn is_raw(ctx: &SkBuffContext) -> bool {
    // SAFETY: the program's own context; the verifier wants both pointers checked before use.
    unsafe {
        let sk = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return false;
        }
        let full = bpf_sk_fullsock(sk);
        !full.is_null() && (*full).type_ == SOCK_RAW
    }
}

/// A packet arrives: the answer of a resolver?
#[inline(always)]
pub fn on_ingress(ctx: &SkBuffContext) {
    // SAFETY: the program's own context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // SAFETY: map values stay readable in a BPF program.
    let Some(owner) = (unsafe { RESOLVING.get(cookie) }) else {
        return;
    };
    let who = Who {
        tgid: owner.tgid,
        tid: owner.tid,
        start_ns: owner.start_ns,
        uid: owner.uid,
        cgroup_id: owner.cgroup_id,
    };
    if let Some(segment) = parse(ctx) {
        if segment.payload_len > 0 {
            let (at, len) = (segment.payload, segment.payload_len);
            emit_dns(ctx, &who, cookie, DNS_ANSWER | DNS_TCP, at, len);
        }
        return;
    }
    let Some(ip) = ip(ctx) else { return };
    if ip.protocol == IPPROTO_UDP
        && ctx.load::<[u8; 2]>(ip.len).map(u16::from_be_bytes) == Ok(PORT_DNS)
    {
        let at = ip.len as u32 + UDP_HEADER;
        let len = ctx.len().saturating_sub(at);
        emit_dns(ctx, &who, cookie, DNS_ANSWER, at, len);
    }
}

#[inline(always)]
fn emit_dns(ctx: &SkBuffContext, who: &Who, cookie: u64, flags: u32, at: u32, len: u32) {
    if len == 0 {
        return;
    }
    let len = if len > DNS_MAX as u32 {
        DNS_MAX as u32
    } else {
        len
    };
    // SAFETY: all fields are written; at most the size of `data` is copied.
    unsafe {
        emit::<Dns>(&RING_DNS, RecordKind::Dns, |r| {
            fill_header(addr_of_mut!((*r).head), RecordKind::Dns, who, now());
            addr_of_mut!((*r).cookie).write(cookie);
            addr_of_mut!((*r).flags).write(flags);
            let n = bounded::<{ DNS_MAX as u32 - 1 }>(len);
            let data = addr_of_mut!((*r).data);
            let ret = bpf_skb_load_bytes(ctx.as_ptr(), at, data.cast(), n);
            addr_of_mut!((*r).data_len).write(if ret == 0 { n } else { 0 });
        });
    }
}

/// A packet leaves: counts bytes of the connection and records what belongs to a ClientHello.
#[inline(always)]
pub fn on_egress(ctx: &SkBuffContext) {
    // SAFETY: the program's own context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let Some(conn) = CONN.get_ptr_mut(cookie) else {
        on_other_egress(ctx, cookie);
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
        // A connection that was found open: what it sent before is not known here.
        if (*conn).next_seq == 0 {
            (*conn).next_seq = begin;
        }
        let fresh = end.wrapping_sub((*conn).next_seq);
        if fresh != 0 && fresh < 1 << 31 {
            (*conn).sent += u64::from(fresh);
            (*conn).next_seq = end;
        }
        if (*conn).remote.port == PORT_DNS {
            let who = owner(&*conn);
            let _ = RESOLVING.insert(cookie, owner_of(&who), 0);
            let (at, len) = (segment.payload, segment.payload_len);
            emit_dns(ctx, &who, cookie, DNS_TCP, at, len);
        } else if (*conn).hello_state != HELLO_DONE {
            follow_hello(ctx, &mut *conn, cookie, &segment, begin);
        }
    }
}

#[inline(always)]
fn parse(ctx: &SkBuffContext) -> Option<Segment> {
    let first: u8 = ctx.load(0).ok()?;
    let ip_len = match first >> 4 {
        4 if ctx.load::<u8>(9).ok()? == IPPROTO_TCP => usize::from(first & 0xf) * 4,
        6 if ctx.load::<u8>(6).ok()? == IPPROTO_TCP => 40,
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
