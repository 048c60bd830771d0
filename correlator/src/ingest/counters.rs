//! What ingest counts. Every number here is shown to users.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Running counts since start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) handshakes_failed: AtomicU64,
    pub(super) streams_refused: AtomicU64,
    pub(super) streams_opened: AtomicU64,
    pub(super) events: AtomicU64,
    pub(super) duplicates: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) watermarks: AtomicU64,
    pub(super) watermarks_ignored: AtomicU64,
    pub(super) enrolled: AtomicU64,
    pub(super) renewed: AtomicU64,
    pub(super) enrolments_refused: AtomicU64,
}

/// A snapshot of the counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IngestCounts {
    /// TLS handshakes that failed (wrong or expired certificate, not TLS, time-out).
    pub handshakes_failed: u64,
    /// Streams refused after the handshake (no certificate, revoked, another tenant, too many).
    pub streams_refused: u64,
    /// Streams opened.
    pub streams_opened: u64,
    /// Facts made durable.
    pub events: u64,
    /// Facts that came again and were ignored.
    pub duplicates: u64,
    /// Facts that sensors lost or skipped.
    pub lost: u64,
    /// Messages that did not keep the contract; each ended its stream.
    pub rejected: u64,
    /// Watermarks taken in.
    pub watermarks: u64,
    /// Watermarks that went back in time or lay in the future.
    pub watermarks_ignored: u64,
    /// Hosts enrolled.
    pub enrolled: u64,
    /// Certificates renewed.
    pub renewed: u64,
    /// Enrolments and renewals refused.
    pub enrolments_refused: u64,
}

impl Counters {
    pub(super) fn snapshot(&self) -> IngestCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        IngestCounts {
            handshakes_failed: get(&self.handshakes_failed),
            streams_refused: get(&self.streams_refused),
            streams_opened: get(&self.streams_opened),
            events: get(&self.events),
            duplicates: get(&self.duplicates),
            lost: get(&self.lost),
            rejected: get(&self.rejected),
            watermarks: get(&self.watermarks),
            watermarks_ignored: get(&self.watermarks_ignored),
            enrolled: get(&self.enrolled),
            renewed: get(&self.renewed),
            enrolments_refused: get(&self.enrolments_refused),
        }
    }
}

pub(super) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
