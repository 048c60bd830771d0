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
    cloudtrail_files_done: "CloudTrail files read to their end and recorded.",
    cloudtrail_files_duplicate: "Files with the content of an earlier file under another name; skipped.",
    cloudtrail_files_incomplete: "Times a file ended too early (still being written, or truncated); read again when it changes.",
    cloudtrail_files_malformed: "Files that are not JSON records; read again when they change.",
    cloudtrail_files_unreadable: "Files that could not be opened or read.",
    cloudtrail_files_ignored: "Files in the folder that are no CloudTrail logs (digests, other names).",
    cloudtrail_records: "Records read from CloudTrail files.",
    cloudtrail_uses: "Records that name an access key and became uses.",
    cloudtrail_no_credential: "Records without an access key (console logins, AWS services): normal, nothing to join on.",
    cloudtrail_unknown_version: "Records of an eventVersion newer than known; used, since their fields parsed. Look for a new release.",
    cloudtrail_derived_id: "Records without an eventID; known by the hash of their content instead.",
    cloudtrail_rejected_not_object: "Records refused: not a JSON object.",
    cloudtrail_rejected_bad_json: "Records refused: damaged JSON inside an otherwise whole file.",
    cloudtrail_rejected_bad_time: "Records refused: eventTime missing or no time.",
    cloudtrail_rejected_bad_key: "Records refused: accessKeyId is no access key id (masked or damaged).",
    cloudtrail_rejected_no_event: "Records refused: no eventName or eventSource, so no CloudTrail record.",
    cloudtrail_rejected_too_large: "Records refused: larger than the limit for one record.",
    cloudtrail_dead_letter_failures: "Rejections that could not be written to the dead-letter file; still counted by reason.",
    cloudtrail_rescans: "Complete scans of the folder (at start, as a safety net, after lost notifications).",
    cloudtrail_notify_overflows: "Times the kernel dropped notifications; a rescan followed.",
    cloudtrail_pending_dropped: "Unfinished files forgotten because too many wait; the next rescan finds them again.",
    api_requests: "API requests answered.",
    api_unauthorised: "API requests refused for a missing or wrong token.",
    api_bad_host: "API requests refused for a foreign Host header (DNS rebinding).",
    api_overloaded: "API requests refused because too many were in progress, or stopped for taking too long.",
}
