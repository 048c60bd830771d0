//! What a source is doing, for the status page.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Unfinished files shown at most.
const SHOWN: usize = 50;

/// The state of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SourceStatus {
    /// Its configured name.
    #[serde(default)]
    pub name: String,
    /// What its records are (`aws.cloudtrail`).
    pub source: String,
    /// How they arrive (`folder`, `file-tail`, `http`, ...).
    #[serde(default)]
    pub via: String,
    /// The folder, file, address or URL that they come from.
    pub folder: String,
    /// False when nothing can arrive (see `problem`).
    pub watching: bool,
    /// What is wrong, and what to do.
    pub problem: Option<String>,
    /// When a file was last read to its end.
    pub last_file: Option<Timestamp>,
    /// Files that wait for their rest.
    pub pending: u64,
    /// Those among them that have not changed for long: probably truncated for good.
    pub stuck: u64,
    /// The longest-waiting of them.
    pub unfinished: Vec<PendingFile>,
    /// Records read since this process began.
    #[serde(default)]
    pub records: u64,
    /// Uses found in them.
    #[serde(default)]
    pub uses: u64,
    /// Uses that had been taken in before.
    #[serde(default)]
    pub duplicates: u64,
    /// Records that are no use of a credential, by reason.
    #[serde(default)]
    pub skipped: BTreeMap<String, u64>,
    /// Records refused, by reason; the dead-letter file has a note of each.
    #[serde(default)]
    pub rejected: BTreeMap<String, u64>,
    /// When uses were last taken in.
    #[serde(default)]
    pub last_delivery: Option<Timestamp>,
    /// Event time of the newest record.
    #[serde(default)]
    pub newest_event: Option<Timestamp>,
    /// How far that is behind the present, seconds. Rises while nothing happens, too.
    #[serde(default)]
    pub lag_seconds: Option<i64>,
}

/// A file that could not be read to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PendingFile {
    /// Its path.
    pub path: String,
    /// Why.
    pub reason: String,
    /// Since when it waits.
    pub since: Timestamp,
    /// Whether it waits for too long.
    pub stuck: bool,
}

/// A shared [`SourceStatus`]: the part of it that deliveries write.
#[derive(Clone, Debug, Default)]
pub struct StatusCell(Arc<Mutex<SourceStatus>>);

impl StatusCell {
    /// As it is now.
    #[must_use]
    pub fn get(&self) -> SourceStatus {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Changes it.
    pub fn update(&self, change: impl FnOnce(&mut SourceStatus)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Records arrive, or can.
    pub fn works(&self) {
        self.update(|status| {
            status.watching = true;
            status.problem = None;
        });
    }

    /// Nothing arrives, for this reason; true when that is news.
    #[must_use]
    pub fn fails(&self, problem: &str) -> bool {
        let mut news = false;
        self.update(|status| {
            news = status.problem.as_deref() != Some(problem);
            status.watching = false;
            status.problem = Some(problem.to_owned());
        });
        news
    }

    /// Replaces the list of unfinished files.
    pub(super) fn set_pending(&self, mut files: Vec<PendingFile>) {
        files.sort_by_key(|file| file.since);
        self.update(|status| {
            status.pending = files.len() as u64;
            status.stuck = files.iter().filter(|file| file.stuck).count() as u64;
            files.truncate(SHOWN);
            status.unfinished = files;
        });
    }
}
