//! Reading the rings: decode, put execs together, order by time, say up to when all is delivered.

use std::{os::fd::AsRawFd, time::Duration};

use aya::{
    Ebpf,
    maps::{MapData, MapError, RingBuf},
};
use nix::time::{ClockId, clock_gettime};
use tokio::io::unix::AsyncFd;

use super::{
    decode::{Decoded, decode},
    event::KernelEvent,
    execs::Execs,
};

/// A record is reserved, filled and submitted within microseconds; a program that is preempted in
/// between may take as long as the scheduler lets others run.
const MARGIN: Duration = Duration::from_millis(100);
/// The watermark moves at least this often.
const TICK: Duration = Duration::from_millis(100);
/// Records taken from one ring in one pass.
const MAX_PASS: usize = 16_384;
/// In the order in which they are emptied: an exec's pieces after its announcement.
pub(super) const RINGS: [&str; 5] = [
    "RING_ACCESS",
    "RING_NET",
    "RING_DNS",
    "RING_PROC",
    "RING_BULK",
];

/// What a pass over the rings showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Every event up to this time (nanoseconds since boot) has been handed over.
    pub watermark_boot_ns: u64,
}

/// The rings.
pub(super) struct Rings {
    rings: Vec<AsyncFd<RingBuf<MapData>>>,
    execs: Execs,
    watermark: u64,
    undecodable: u64,
}

#[expect(unsafe_code, reason = "registering a descriptor is part of loading")]
fn register(ring: RingBuf<MapData>) -> std::io::Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: the ring owns its descriptor, gives the same one for as long as it lives, and the
    // registration ends before it is dropped, as `AsyncFd` owns the ring.
    unsafe { AsyncFd::register(ring) }.map_err(Into::into)
}

/// Nanoseconds since boot, time asleep included.
#[must_use]
pub fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

impl Rings {
    /// Takes the rings. Must be called within a tokio runtime.
    pub(super) fn take(bpf: &mut Ebpf) -> Result<Self, MapError> {
        let mut rings = Vec::new();
        for name in RINGS {
            let map = bpf.take_map(name).ok_or_else(|| MapError::InvalidName {
                name: name.to_owned(),
            })?;
            let ring = RingBuf::try_from(map)?;
            let fd = ring.as_raw_fd();
            let ring = register(ring).map_err(|e| MapError::InvalidName {
                name: format!("{name} (descriptor {fd} cannot be polled: {e})"),
            })?;
            rings.push(ring);
        }
        Ok(Self {
            rings,
            execs: Execs::default(),
            watermark: 0,
            undecodable: 0,
        })
    }

    /// Waits until there is something to read, or a tick has passed.
    pub(super) async fn ready(&self) {
        let wait = self.rings.iter().map(|ring| {
            Box::pin(async move {
                if let Ok(mut guard) = ring.readable().await {
                    // Before reading: what arrives from here on makes it ready again.
                    guard.clear_ready();
                }
            })
        });
        // Elapsed or readable: either way it is time for a pass.
        drop(tokio::time::timeout(TICK, futures::future::select_all(wait)).await);
    }

    /// Takes everything that is there and appends it to `out`, ordered by time.
    pub(super) fn drain(&mut self, out: &mut Vec<KernelEvent>) -> Drained {
        let before = boot_ns();
        let first = out.len();
        let Self {
            rings,
            execs,
            undecodable,
            ..
        } = self;
        let mut emptied = true;
        for ring in rings {
            let ring = ring.get_mut();
            let mut taken = 0;
            while let Some(item) = ring.next() {
                match decode(&item) {
                    Ok(Decoded::Event(KernelEvent::Exec(event))) => {
                        out.extend(execs.announce(event).map(KernelEvent::Exec));
                    }
                    Ok(Decoded::Event(event)) => out.push(event),
                    Ok(Decoded::Chunk(chunk)) => {
                        out.extend(execs.piece(chunk).map(KernelEvent::Exec));
                    }
                    Err(error) => {
                        *undecodable += 1;
                        tracing::debug!(%error, "a record from the kernel was refused");
                    }
                }
                taken += 1;
                if taken == MAX_PASS {
                    emptied = false;
                    break;
                }
            }
        }
        if emptied {
            let margin = u64::try_from(MARGIN.as_nanos()).unwrap_or(u64::MAX);
            self.watermark = self.watermark.max(before.saturating_sub(margin));
        }
        out.extend(
            self.execs
                .flush(self.watermark)
                .into_iter()
                .map(KernelEvent::Exec),
        );
        if let Some(fresh) = out.get_mut(first..) {
            fresh.sort_by_key(|event| event.head().ts_boot_ns);
        }
        Drained {
            watermark_boot_ns: self.watermark,
        }
    }

    pub(super) fn undecodable(&self) -> u64 {
        self.undecodable
    }

    pub(super) fn orphans(&self) -> u64 {
        self.execs.orphans()
    }
}
