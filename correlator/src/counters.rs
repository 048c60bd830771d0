//! Everything that is counted, each with what the number means for the user.
//!
//! Counts start at zero with the process; what must outlive it (alerts, uses, positions) is counted
//! from the store.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn one(&self) {
        self.add(1);
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// How many so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One count, as users see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CounterView {
    /// Its name: `<part>_<what>`.
    pub name: String,
    /// How many since this process began.
    pub value: u64,
    /// What it means, and what to do about it where something can be done.
    pub meaning: String,
}

/// Defines the counters, their public names and their meanings in one table, so that none can be
/// counted and not shown.
macro_rules! counters {
    ($($name:ident: $meaning:literal,)*) => {
        /// Every counter of the process.
        #[derive(Debug, Default)]
        pub struct Counters {
            $(#[doc = $meaning] pub $name: Counter,)*
        }

        impl Counters {
            /// All of them, for the status page.
            #[must_use]
            pub fn view(&self) -> Vec<CounterView> {
                vec![$(CounterView {
                    name: stringify!($name).to_owned(),
                    value: self.$name.get(),
                    meaning: $meaning.to_owned(),
                },)*]
            }
        }
    };
}

counters! {
    runner_commits: "Transactions committed; one covers everything that was waiting.",
    runner_commit_failures: "Transactions that failed and were rolled back; senders keep their data and try again. Look at the disk.",
    runner_inputs: "Inputs recorded and applied.",
    ingest_events: "Facts from sensors, taken in.",
    ingest_duplicates: "Facts that a sensor sent again after a reconnect; ignored.",
    ingest_watermarks: "Watermarks applied; several of one host in one transaction count once.",
    uses_new: "Cloud-side uses taken in.",
    uses_duplicate: "Cloud-side uses delivered again (same record id); ignored.",
    alerts_changed: "Alerts that began or changed.",
    alert_stream_lag: "Times a slow reader of the alert stream had to catch up from the store; nothing was lost.",
    alert_streams_refused: "Alert streams refused because too many were open.",
    snapshots: "Snapshots of the join's state; they make a restart fast.",
    snapshot_failures: "Snapshots that failed; the next start replays more of the log.",
    log_blocks_pruned: "Blocks of recorded inputs removed after the retention time.",
    graph_expired: "Edges of the lineage graph forgotten after the retention time.",
    push_requests: "Deliveries of pushed records, and questions about them.",
    push_unauthorised: "Deliveries refused for a missing or wrong token.",
    push_overloaded: "Deliveries refused because too many were in progress, or stopped for taking too long; senders send them again.",
    api_requests: "API requests answered.",
    api_unauthorised: "API requests refused for a missing or wrong token.",
    api_bad_host: "API requests refused for a foreign Host header (DNS rebinding).",
    api_overloaded: "API requests refused because too many were in progress, or stopped for taking too long.",
}
