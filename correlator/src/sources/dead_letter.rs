//! Notes of refused records: where each is and why, never its content.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use keytrail_sources::Rejection;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::intake::Origin;
use crate::clock;

/// The file is set aside (`.1`, one generation) when it reaches this size.
const MAX_BYTES: u64 = 16 << 20;

/// The dead-letter file of one source; cheap to clone.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    path: Arc<PathBuf>,
    writing: Arc<Mutex<()>>,
}

/// One line. The hash finds the record again where its sender still has it.
#[derive(Debug, Serialize)]
struct Note<'a> {
    time: jiff::Timestamp,
    path: &'a str,
    index: u64,
    reason: &'static str,
    why: String,
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

impl DeadLetters {
    /// Notes of the source `name` go to `folder/<name>.ndjson`.
    #[must_use]
    pub fn new(folder: &Path, name: &str) -> Self {
        Self {
            path: Arc::new(folder.join(format!("{name}.ndjson"))),
            writing: Arc::default(),
        }
    }

    /// Where the notes are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes that the record at `origin` was refused; `record` may be empty when it was too large
    /// to be kept.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn note(&self, origin: Origin<'_>, why: Rejection, record: &[u8]) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(&Note {
            time: clock::now(),
            path: origin.place,
            index: origin.index,
            reason: why.as_str(),
            why: why.to_string(),
            bytes: record.len(),
            sha256: (!record.is_empty()).then(|| crate::hex::encode(&Sha256::digest(record))),
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
