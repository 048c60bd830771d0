//! What one source counts, each number with what it means for the user.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use keytrail_model::consumption::Consumption;
use keytrail_sources::{Rejection, Skip};

use crate::counters::{Counter, CounterView};
use crate::runner::UsesReply;

/// Defines counters, their names and their meanings in one table.
macro_rules! tally {
    ($($name:ident $shown:ident $meaning:literal,)*) => {
        /// Counts of one source since the process began.
        #[derive(Debug, Default)]
        pub struct Tally {
            $(#[doc = $meaning] pub $name: Counter,)*
            skipped: Reasons,
            rejected: Reasons,
            newest: Mutex<Newest>,
        }

        impl Tally {
            fn rows(&self) -> Vec<(&'static str, Shown, u64, &'static str)> {
                vec![$((stringify!($name), Shown::$shown, self.$name.get(), $meaning),)*]
            }
        }
    };
}

/// When a count is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// Always.
    Always,
    /// By sources that read the files of a folder or a bucket.
    Folder,
    /// Once it is not zero.
    Used,
}

/// The latest of what arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Newest {
    /// When uses were last committed.
    pub delivered: Option<Timestamp>,
    /// Event time of the newest record.
    pub event: Option<Timestamp>,
}

tally! {
    records Always "Records read.",
    uses Always "Uses of credentials found in the records.",
    duplicates Always "Uses delivered again (same record id); ignored.",
    unknown_version Always "Records of a newer version than known; used, since their fields parsed. Look for a new release.",
    masked_id Always "Records whose credential is masked or damaged; the use is joined by session or account instead.",
    derived_id Always "Records without an id of their own; known by the hash of their content instead.",
    dead_letter_failures Always "Refused records that could not be noted in the dead-letter file; still counted by reason.",
    files_done Folder "Files read to their end and recorded.",
    files_duplicate Folder "Files with the content of an earlier file under another name; skipped.",
    files_incomplete Folder "Times a file ended too early (still being written, or truncated); read again when it changes.",
    files_malformed Folder "Files that are no log of this kind; read again when they change.",
    files_unreadable Folder "Files that could not be opened or read.",
    files_ignored Folder "Files in the folder that are no logs by their name (digests, notes).",
    rescans Folder "Complete scans of the folder (at start, as a safety net, after lost notifications).",
    notify_overflows Folder "Times the kernel dropped notifications; a rescan followed.",
    pending_dropped Folder "Unfinished files forgotten because too many wait; the next rescan finds them again.",
    requests Used "Requests made to the provider, or taken from it.",
    requests_failed Used "Requests that failed; tried again with growing pauses.",
    requests_refused Used "Deliveries refused: wrong token, damaged body, too large. The sender was told why.",
    rate_limited Used "Times the provider said to slow down; it was obeyed.",
    cursor_expired Used "Times the provider no longer knew the position; reading went back by the overlap.",
    offsets_lost Used "Times the broker no longer had the records at the position (its retention passed them); reading went on at the oldest: records may be missing.",
    offsets_empty Used "Positions in a topic that hold no record (marks of transactions); passed over.",
    datagrams_lost Used "Datagrams that the kernel dropped before they were taken (too many at once, or damaged): records are missing.",
    connections Used "Connections taken from senders.",
    connections_failed Used "Connections that ended by an error or were one too many.",
    frames_damaged Used "Messages whose framing was damaged; the connection was closed, senders connect again.",
    refused_inside Used "Records refused inside envelopes of several; the others in the envelope were used.",
    rotations Used "Times the file was replaced by a new one; the old one was read to its end first.",
    truncations Used "Times the file was cut to start anew (copy and truncate); the copy beside it was read to its end first.",
    tail_lost Used "Times the file was rotated away or cut, and the old content was not found beside it: records may be missing.",
}

impl Tally {
    /// Counts a record that was left out with a reason that is no fault.
    pub fn skipped(&self, why: Skip) {
        add(&self.skipped, why.as_str());
    }

    /// Counts a record that was refused.
    pub fn rejected(&self, why: Rejection) {
        add(&self.rejected, why.as_str());
    }

    /// Counts what the runner said of `uses`, whose newest event time is `event`.
    pub fn committed(&self, reply: UsesReply, now: Timestamp, event: Option<Timestamp>) {
        self.duplicates.add(reply.duplicate);
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.delivered = Some(now);
        newest.event = newest.event.max(event);
    }

    /// The latest of what arrived.
    #[must_use]
    pub fn newest(&self) -> Newest {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records left out, by reason.
    #[must_use]
    pub fn skipped_by_reason(&self) -> BTreeMap<String, u64> {
        by_reason(&self.skipped)
    }

    /// Records refused, by reason.
    #[must_use]
    pub fn rejected_by_reason(&self) -> BTreeMap<String, u64> {
        by_reason(&self.rejected)
    }

    /// All counts for the status page; their names begin with that of the source.
    #[must_use]
    pub fn view(&self, source: &str, folder: bool) -> Vec<CounterView> {
        let prefix = source.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let count = |name: &str, value, meaning: String| CounterView {
            name: format!("{prefix}_{}", name.replace('-', "_")),
            value,
            meaning,
        };
        let mut all: Vec<CounterView> = self
            .rows()
            .into_iter()
            .filter(|(_, shown, value, _)| match shown {
                Shown::Always => true,
                Shown::Folder => folder,
                Shown::Used => *value > 0,
            })
            .map(|(name, _, value, meaning)| count(name, value, meaning.to_owned()))
            .collect();
        let skipped = self.skipped_by_reason();
        for why in Skip::ALL {
            let value = skipped.get(why.as_str()).copied().unwrap_or(0);
            all.push(count(
                why.as_str(),
                value,
                format!("Records left out: {}.", why.sentence()),
            ));
        }
        let rejected = self.rejected_by_reason();
        for why in Rejection::ALL {
            let value = rejected.get(why.as_str()).copied().unwrap_or(0);
            all.push(count(
                &format!("rejected_{}", why.as_str()),
                value,
                format!("Records refused: {why}."),
            ));
        }
        all
    }
}

type Reasons = Mutex<BTreeMap<&'static str, u64>>;

fn add(reasons: &Reasons, name: &'static str) {
    let mut reasons = reasons.lock().unwrap_or_else(PoisonError::into_inner);
    *reasons.entry(name).or_insert(0) += 1;
}

fn by_reason(reasons: &Reasons) -> BTreeMap<String, u64> {
    let reasons = reasons.lock().unwrap_or_else(PoisonError::into_inner);
    reasons
        .iter()
        .map(|(name, n)| ((*name).to_owned(), *n))
        .collect()
}

/// Newest event time in a batch.
#[must_use]
pub fn newest_of(uses: &[Consumption]) -> Option<Timestamp> {
    uses.iter().map(|usage| usage.time).max()
}
