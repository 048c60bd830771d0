//! Notes of refused records: where each is and why, never its content.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use keytrail_sources::Rejection;
use serde::Serialize;

use crate::clock;

/// The file is set aside (`.1`, one generation) when it reaches this size.
const MAX_BYTES: u64 = 16 << 20;
/// Characters kept of the names that identify a record.
const MAX_TEXT: usize = 128;

/// The dead-letter file; cheap to clone.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    path: Arc<PathBuf>,
    writing: Arc<Mutex<()>>,
}

/// One line.
#[derive(Debug, Serialize)]
struct Note<'a> {
    time: jiff::Timestamp,
    path: &'a str,
    index: u64,
    reason: &'static str,
    #[serde(rename = "eventID", skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    #[serde(rename = "eventName", skip_serializing_if = "Option::is_none")]
    event_name: Option<String>,
    #[serde(rename = "eventSource", skip_serializing_if = "Option::is_none")]
    event_source: Option<String>,
}

impl DeadLetters {
    /// Notes go to `folder/cloudtrail.ndjson`.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self {
            path: Arc::new(folder.join("cloudtrail.ndjson")),
            writing: Arc::default(),
        }
    }

    /// Where the notes are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes that record number `index` of `file` was refused.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn note(
        &self,
        file: &Path,
        index: u64,
        why: Rejection,
        record: &[u8],
    ) -> std::io::Result<()> {
        let value: serde_json::Value = serde_json::from_slice(record).unwrap_or_default();
        let name = |key: &str| {
            value
                .get(key)
                .and_then(|v| v.as_str())
                .map(|text| text.chars().take(MAX_TEXT).collect())
        };
        let mut line = serde_json::to_vec(&Note {
            time: clock::now(),
            path: &file.to_string_lossy(),
            index,
            reason: why.as_str(),
            event_id: name("eventID"),
            event_name: name("eventName"),
            event_source: name("eventSource"),
        })?;
        line.push(b'\n');
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.open()?.write_all(&line)
    }

    fn open(&self) -> std::io::Result<File> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        if std::fs::metadata(self.path.as_path()).is_ok_and(|m| m.len() >= MAX_BYTES) {
            std::fs::rename(self.path.as_path(), self.path.with_extension("ndjson.1"))?;
        }
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(self.path.as_path())
    }
}
