//! Unix sockets: who asks a daemon to do something, or an agent of keys to sign.
//!
//! What counts is the address that the other side has bound, from the kernel's own copy; the caller's
//! argument could change after the call.

use core::ptr::addr_of_mut;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use keytrail_abi::{
    RecordKind,
    maps::FileKey,
    net::{UNIX_PATH_MAX, UnixPeer},
};

use crate::{
    ctx::{
        Ptr, Who, as_void, bounded, count_suppressed, current_tgid, emit, fill_header, now, offs,
        read, read_ptr,
    },
    file::{file_of_fd, repeated},
    maps::{RING_NET, TRACKED},
};

const AF_UNIX: u16 = 1;
const S_IFMT: u16 = 0xf000;
const S_IFSOCK: u16 = 0xc000;
/// Bytes of `sockaddr_un.sun_family`, which comes before the path.
const FAMILY_LEN: u32 = 2;
/// Keeps repeats of these apart from those of files.
const ACCESS_UNIX: u16 = 0x101;

/// `connect` returned on this descriptor.
#[inline(always)]
pub fn on_connected(fd: u64) {
    if let Some(file) = file_of_fd(fd) {
        on_connected_file(file);
    }
}

/// The socket behind this file has been connected.
#[inline(always)]
pub fn on_connected_file(file: Ptr) {
    let Some(tracked) = tracked() else { return };
    let peer = socket_of(file)
        .filter(|sk| read::<u16>(*sk, offs!(sk_family)) == Some(AF_UNIX))
        .and_then(|sk| read_ptr(sk, offs!(unix_peer)));
    if let Some(peer) = peer {
        record(peer, tracked);
    }
}

/// A stream socket connects to `other`, which listens.
#[inline(always)]
pub fn on_stream_connect(other: Ptr) {
    if let Some(tracked) = tracked() {
        record(other, tracked);
    }
}

/// A datagram goes to `socket`.
#[inline(always)]
pub fn on_may_send(socket: Ptr) {
    let Some(tracked) = tracked() else { return };
    if let Some(sk) = read_ptr(socket, offs!(socket_sk)) {
        record(sk, tracked);
    }
}

/// Start of the current process, if it is tracked.
#[inline(always)]
fn tracked() -> Option<u64> {
    // SAFETY: map values stay readable in a BPF program.
    unsafe { TRACKED.get(current_tgid()) }.map(|t| t.start_ns)
}

/// The `struct sock` behind an open file, if that is a socket.
#[inline(always)]
pub fn socket_of(file: Ptr) -> Option<Ptr> {
    let inode = read_ptr(file, offs!(file_inode))?;
    if read::<u16>(inode, offs!(inode_mode))? & S_IFMT != S_IFSOCK {
        return None;
    }
    read_ptr(read_ptr(file, offs!(file_private))?, offs!(socket_sk))
}

#[inline(always)]
fn record(peer: Ptr, start_ns: u64) {
    // A socket without a name is the other end of a pair, or of a connection that was accepted.
    let Some(address) = read_ptr(peer, offs!(unix_addr)) else {
        return;
    };
    let len = read::<u32>(address, offs!(unix_address_len)).unwrap_or(0);
    if len <= FAMILY_LEN {
        return;
    }
    let now = now();
    let key = FileKey {
        ino: address.addr() as u64,
        dev: 0,
        pad: 0,
    };
    if repeated(&key, current_tgid(), ACCESS_UNIX, now) {
        count_suppressed(RecordKind::UnixPeer);
        return;
    }
    let who = Who::current(start_ns);
    let path = address
        .wrapping_add(offs!(unix_address_name))
        .wrapping_add(FAMILY_LEN as usize);
    // SAFETY: all fields are written; the tail of `path` is zeroed, and at most its size is copied.
    unsafe {
        emit::<UnixPeer>(&RING_NET, RecordKind::UnixPeer, |r| {
            fill_header(addr_of_mut!((*r).head), RecordKind::UnixPeer, &who, now);
            let data = addr_of_mut!((*r).path);
            data.write_bytes(0, 1);
            let n = bounded::<{ UNIX_PATH_MAX as u32 - 1 }>(len - FAMILY_LEN);
            let ret = bpf_probe_read_kernel(data.cast(), n, as_void(path));
            addr_of_mut!((*r).path_len).write(if ret == 0 { n } else { 0 });
            addr_of_mut!((*r).pad).write(0);
        });
    }
}
