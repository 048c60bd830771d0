//! Where ingest hands over what it has checked: the store's side of the bargain.

use std::future::Future;

use keytrail_model::fact::{HostEvent, Watermark};
use keytrail_model::ids::{BootId, HostId};
use thiserror::Error;

/// Facts of one boot of one host, in sequence order.
///
/// Ingest guarantees, within one `(host, boot)`:
/// - every event's `id.host` and `id.boot` are the batch's;
/// - sequence numbers rise from one batch to the next, across reconnects too, and start after what
///   [`IngestSink::last_seq`] answered;
/// - a stretch that the sensor lost appears as one [`keytrail_model::fact::Fact::Gap`] with the
///   sequence number of the first lost event; the numbers after it stay unused;
/// - only one batch of a host is being submitted at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestBatch {
    /// The host, from the certificate.
    pub host: HostId,
    /// The boot that the events belong to.
    pub boot: BootId,
    /// The facts; empty when only the watermark moved.
    pub events: Vec<HostEvent>,
    /// Everything of this boot up to and including this number is in this batch or in an earlier
    /// one. It can be greater than the last event's number (after a gap).
    pub last_seq: u64,
    /// A promise that holds once the events above have been taken in: apply it after them.
    pub watermark: Option<Watermark>,
}

/// Why a batch was not taken.
#[derive(Debug, Error)]
pub enum SinkError {
    /// The store cannot take it now (disk full, locked, I/O error): the sensor keeps it and tries
    /// again later.
    #[error("the store cannot take events now: {0}")]
    Unavailable(String),
    /// The correlator is stopping.
    #[error("the correlator is stopping")]
    Closed,
}

/// A durable home for facts.
pub trait IngestSink: Send + Sync + 'static {
    /// Takes a batch; returns once the events, `last_seq` and the watermark are durable together,
    /// in one transaction.
    ///
    /// An implementation MUST ignore events whose number is not above the durable `last_seq` of
    /// their `(host, boot)`: a replay changes nothing.
    ///
    /// # Errors
    /// When nothing of the batch was made durable.
    fn submit(&self, batch: IngestBatch) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// The highest durable `last_seq` of this boot of this host; 0 when none.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn last_seq(
        &self,
        host: &HostId,
        boot: BootId,
    ) -> impl Future<Output = Result<u64, SinkError>> + Send;
}
