//! Rare things that tracked processes have little reason for: loading BPF programs, packet sockets.

use core::ptr::addr_of_mut;

use keytrail_abi::{RecordKind, net::OpaqueSocket, process::BpfLoad};

use crate::{
    ctx::{Who, current_tgid, emit, fill_header, now},
    maps::{RING_PROC, TRACKED},
};

/// `AF_PACKET`, `AF_VSOCK`: what goes over these passes no hook of ours.
const AF_PACKET: u32 = 17;
const AF_VSOCK: u32 = 40;
/// `type` of a socket without `SOCK_NONBLOCK` and the like.
const TYPE_MASK: u32 = 0xf;

/// A socket was made.
#[inline(always)]
pub fn on_socket(family: u32, kind: u32) {
    if family != AF_PACKET && family != AF_VSOCK {
        return;
    }
    // SAFETY: map values stay readable in a BPF program.
    let Some(tracked) = (unsafe { TRACKED.get(current_tgid()) }) else {
        return;
    };
    let who = Who::current(tracked.start_ns);
    // SAFETY: all fields are written.
    unsafe {
        emit::<OpaqueSocket>(&RING_PROC, RecordKind::OpaqueSocket, |r| {
            fill_header(
                addr_of_mut!((*r).head),
                RecordKind::OpaqueSocket,
                &who,
                now(),
            );
            addr_of_mut!((*r).family).write(family);
            addr_of_mut!((*r).kind).write(kind & TYPE_MASK);
        });
    }
}

/// A BPF program was loaded.
#[inline(always)]
pub fn on_bpf_load() {
    // SAFETY: map values stay readable in a BPF program.
    let Some(tracked) = (unsafe { TRACKED.get(current_tgid()) }) else {
        return;
    };
    let who = Who::current(tracked.start_ns);
    // SAFETY: all fields are written.
    unsafe {
        emit::<BpfLoad>(&RING_PROC, RecordKind::BpfLoad, |r| {
            fill_header(addr_of_mut!((*r).head), RecordKind::BpfLoad, &who, now());
        });
    }
}
