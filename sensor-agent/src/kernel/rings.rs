//! Reading the rings: decode, put execs together, order by time, say up to when all is delivered.

use std::time::Duration;

use aya::maps::{Map, MapError};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

use super::{
    decode::{Decoded, decode},
    event::KernelEvent,
    execs::Execs,
    pins::Source,
    ring::Ring,
};

/// A record is reserved, filled and submitted within microseconds; a program that is preempted in
/// between may take as long as the scheduler lets others run.
pub(super) const MARGIN: Duration = Duration::from_millis(100);
/// The watermark moves at least this often.
const TICK: Duration = Duration::from_millis(100);
/// While room is held back, it is looked at least this often whether there is more.
const HELD: Duration = Duration::from_millis(10);
/// When there is more already.
const SOON: Duration = Duration::from_millis(1);
/// Records taken from one ring in one pass.
const MAX_PASS: usize = 16_384;
/// Most events set aside: more than all rings hold.
const MAX_EARLY: usize = 131_072;
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

/// How far each ring has been read, with the kernel's numbers of the rings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Positions(Vec<(u32, u64)>);

impl Positions {
    /// As text, to be stored beside what came of the records.
    #[must_use]
    pub fn to_note(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// From such a text; nothing when it is none.
    #[must_use]
    pub fn from_note(note: &[u8]) -> Self {
        serde_json::from_slice(note).unwrap_or_default()
    }
}

/// The rings.
pub(super) struct Rings {
    rings: Vec<AsyncFd<Ring>>,
    execs: Execs,
    watermark: u64,
    undecodable: u64,
    /// Room is given back only by [`Rings::release`], not as soon as a record was read.
    hold: bool,
    /// Taken while something else was looked for; goes out first.
    early: Vec<KernelEvent>,
}

#[expect(unsafe_code, reason = "registering a descriptor is part of loading")]
fn register(ring: Ring) -> std::io::Result<AsyncFd<Ring>> {
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
    pub(super) fn take(source: &mut Source, hold: bool) -> Result<Self, MapError> {
        let mut rings = Vec::new();
        for name in RINGS {
            let Map::RingBuf(data) = source.take(name)? else {
                return Err(MapError::InvalidName {
                    name: format!("{name} (it is no ring)"),
                });
            };
            let ring = Ring::open(data).and_then(register);
            let ring = ring.map_err(|error| MapError::InvalidName {
                name: format!("{name} (it cannot be read: {error})"),
            })?;
            rings.push(ring);
        }
        Ok(Self {
            rings,
            execs: Execs::default(),
            watermark: 0,
            undecodable: 0,
            hold,
            early: Vec::new(),
        })
    }

    /// Waits until there is something to read, or a tick has passed.
    pub(super) async fn ready(&self) {
        if !self.early.is_empty() {
            return;
        }
        let any = |test: fn(&Ring) -> bool| self.rings.iter().any(|ring| test(ring.get_ref()));
        // The kernel wakes us only for a record that follows what was given back: while room is
        // held, or when something came just before it was given back, we look by ourselves.
        let patience = if any(Ring::has_more) {
            SOON
        } else if any(|ring| ring.held() > 0) {
            HELD
        } else {
            TICK
        };
        let wait = self.rings.iter().map(|ring| {
            Box::pin(async move {
                if let Ok(mut guard) = ring.readable().await {
                    // Before reading: what arrives from here on makes it ready again.
                    guard.clear_ready();
                }
            })
        });
        // Elapsed or readable: either way it is time for a pass.
        drop(tokio::time::timeout(patience, futures::future::select_all(wait)).await);
    }

    /// Takes everything that is there and appends it to `out`, ordered by time.
    pub(super) fn drain(&mut self, out: &mut Vec<KernelEvent>) -> Drained {
        let before = boot_ns();
        let first = out.len();
        out.append(&mut self.early);
        let mut emptied = true;
        for index in 0..self.rings.len() {
            emptied &= self.pass(index, out);
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

    /// Reads one ring; false when there was more than a pass takes.
    fn pass(&mut self, index: usize, out: &mut Vec<KernelEvent>) -> bool {
        let Some(ring) = self.rings.get_mut(index).map(AsyncFd::get_mut) else {
            return true;
        };
        let room = if self.hold { 2 } else { 8 };
        let mut taken = 0;
        while taken < MAX_PASS {
            let Some(record) = ring.next() else {
                // What came while the last room was given back is for this pass still.
                if !self.hold {
                    ring.release(ring.position());
                    if ring.has_more() && taken < MAX_PASS {
                        taken += 1;
                        continue;
                    }
                }
                return true;
            };
            taken += 1;
            match decode(record) {
                Ok(Decoded::Event(KernelEvent::Exec(event))) => {
                    out.extend(self.execs.announce(event).map(KernelEvent::Exec));
                }
                Ok(Decoded::Event(event)) => out.push(event),
                Ok(Decoded::Chunk(chunk)) => {
                    out.extend(self.execs.piece(chunk).map(KernelEvent::Exec));
                }
                Err(error) => {
                    self.undecodable += 1;
                    tracing::debug!(%error, "a record from the kernel was refused");
                }
            }
            // Losing new records for want of room is worse than losing, should the agent be killed
            // this very moment, some that are not durable yet.
            if ring.held() > ring.size() / room {
                ring.release(ring.position());
            }
        }
        if !self.hold {
            ring.release(ring.position());
        }
        false
    }

    /// Takes everything out, looks at it, and keeps what `other` says for the next [`Rings::drain`].
    pub(super) fn sift(&mut self, mut other: impl FnMut(&KernelEvent) -> bool) {
        let mut events = Vec::new();
        loop {
            let before = events.len();
            self.drain(&mut events);
            if events.len() == before || events.len() > MAX_EARLY {
                break;
            }
        }
        events.retain(|event| other(event));
        events.sort_by_key(|event| event.head().ts_boot_ns);
        self.early = events;
    }

    /// Hands these out before anything else: a predecessor's.
    pub(super) fn put_first(&mut self, mut events: Vec<KernelEvent>) {
        events.append(&mut self.early);
        self.early = events;
    }

    /// Up to where everything has been handed over.
    pub(super) fn positions(&self) -> Positions {
        let rings = self.rings.iter().map(AsyncFd::get_ref);
        Positions(rings.map(|ring| (ring.id(), ring.position())).collect())
    }

    /// Gives the room back of what lies before these positions.
    pub(super) fn release(&mut self, positions: &Positions) {
        self.each(positions, Ring::release);
    }

    /// Goes on behind what had become durable before.
    pub(super) fn resume(&mut self, positions: &Positions) {
        self.each(positions, |ring, at| {
            let _told_by_the_ring = ring.skip_to(at);
        });
    }

    fn each(&mut self, positions: &Positions, act: impl Fn(&mut Ring, u64)) {
        for ring in self.rings.iter_mut().map(AsyncFd::get_mut) {
            let id = ring.id();
            if let Some((_, at)) = positions.0.iter().find(|(known, _)| *known == id) {
                act(ring, *at);
            }
        }
    }

    pub(super) fn undecodable(&self) -> u64 {
        self.undecodable
    }

    pub(super) fn orphans(&self) -> u64 {
        self.execs.orphans()
    }
}
