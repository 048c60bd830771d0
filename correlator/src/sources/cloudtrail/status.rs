//! What the source is doing, for the status page.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Unfinished files shown at most.
const SHOWN: usize = 50;

/// The state of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SourceStatus {
    /// Its name.
    pub source: String,
    /// The folder it watches.
    pub folder: String,
    /// False when the folder cannot be watched (see `problem`).
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

/// A shared [`SourceStatus`].
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
