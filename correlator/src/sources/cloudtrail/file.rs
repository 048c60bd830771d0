//! One file: read to its end and sound, or not taken at all.
//!
//! Two passes: the first only checks that the file is whole (and hashes it), the second takes the
//! records in, in batches. So nothing of a file that is still being written is taken, and memory
//! does not grow with the file. The mark "read to its end" is committed with the last batch.

use std::cell::RefCell;
use std::fs::{File, Metadata};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;
use keytrail_model::consumption::Consumption;
use keytrail_sources::framing::{Cut, FramingError, Records};
use keytrail_sources::{Options, Parser, Rejection, SourceKind};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::{DeadLetters, SOURCE};
use crate::counters::Counters;
use crate::runner::{Handle, RunnerError, UsesBatch, UsesReply};
use crate::store::{FileMark, KnownFile, Reader, StoreError};

/// Uses sent to the runner at once.
const BATCH: usize = 512;
/// Decompressed bytes read of one file at most: a bomb ends here.
const MAX_FILE_BYTES: u64 = 8 << 30;
/// First bytes of a gzip file (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Why a file was not taken.
#[derive(Debug, Error)]
pub enum FileError {
    /// It ends too early or changes while being read.
    #[error("{0}: still being written, or truncated; it is read again when it changes")]
    Incomplete(String),
    /// It is no log file.
    #[error("{0}: not a CloudTrail log; nothing of it was taken, it is read again when it changes")]
    Malformed(String),
    /// It cannot be read.
    #[error("{0}: cannot be read; check its owner and mode")]
    Unreadable(std::io::Error),
    /// The runner did not take its records.
    #[error("{0}; the file is read again")]
    Runner(#[from] RunnerError),
    /// The store cannot say what is known of it.
    #[error("{0}; the file is read again")]
    Store(#[from] StoreError),
}

impl From<FramingError> for FileError {
    fn from(error: FramingError) -> Self {
        match error {
            FramingError::Truncated { .. } => Self::Incomplete(error.to_string()),
            FramingError::Malformed { .. } => Self::Malformed(error.to_string()),
            FramingError::Read(io) => match io.kind() {
                // The decompressor's word for damage.
                std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData => {
                    Self::Malformed(format!("damaged compression ({io})"))
                }
                _ => Self::Unreadable(io),
            },
        }
    }
}

/// What became of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileReport {
    /// It, or a file with its content, had been read before; nothing was read now.
    pub known: bool,
    /// Records in it.
    pub records: u64,
    /// Uses among them that were new.
    pub new: u64,
    /// Uses among them that had been seen.
    pub duplicate: u64,
    /// Records without a credential.
    pub no_credential: u64,
    /// Records refused.
    pub rejected: u64,
    /// Why the first of them was refused.
    pub first_rejection: Option<Rejection>,
}

/// Takes files in. Its calls block.
#[derive(Clone, Debug)]
pub struct Intake {
    handle: Handle,
    dead: DeadLetters,
}

impl Intake {
    /// An intake into `handle`, with notes of refused records in `dead`.
    #[must_use]
    pub fn new(handle: Handle, dead: DeadLetters) -> Self {
        Self { handle, dead }
    }

    pub(super) fn counters(&self) -> &Arc<Counters> {
        self.handle.counters()
    }

    /// Where refused records are noted.
    pub(super) fn dead_letters(&self) -> &Path {
        self.dead.path()
    }

    fn reader(&self) -> &Reader {
        self.handle.reader()
    }

    /// Reads one file.
    ///
    /// # Errors
    /// When it is not taken: nothing of it was, unless it changed during the second pass (then
    /// what was taken is recognised by its record ids the next time).
    pub fn read(&self, path: &Path) -> Result<FileReport, FileError> {
        let known = FileReport {
            known: true,
            ..FileReport::default()
        };
        let name = path.to_string_lossy();
        let file = File::open(path).map_err(FileError::Unreadable)?;
        let before = identify(&file)?;
        if self.reader().known_file(SOURCE, &name)? == Some(before) {
            return Ok(known);
        }
        let hash = check(file, path)?;
        let file = File::open(path).map_err(FileError::Unreadable)?;
        if identify(&file)? != before {
            return Err(changed());
        }
        let mark = FileMark {
            source: SOURCE,
            path: name.clone().into_owned(),
            known: before,
            hash,
        };
        if let Some(earlier) = self.reader().file_with_content(SOURCE, &hash)? {
            tracing::debug!(path = %name, %earlier, "same content as an earlier file; skipped");
            self.counters().cloudtrail_files_duplicate.one();
            self.handle.uses_blocking(UsesBatch {
                uses: Vec::new(),
                file: Some(mark),
            })?;
            return Ok(known);
        }
        let report = self.take(file, path, mark)?;
        self.counters().cloudtrail_files_done.one();
        Ok(report)
    }

    /// The second pass.
    fn take(&self, file: File, path: &Path, mark: FileMark) -> Result<FileReport, FileError> {
        let mut report = FileReport::default();
        let mut batch: Vec<Consumption> = Vec::new();
        let parser = parser();
        let hash = each_record(file, path, |cut| {
            let index = report.records;
            report.records += 1;
            self.counters().cloudtrail_records.one();
            let parsed = match cut {
                Cut::Record(bytes) => parser.parse(bytes, &mut batch).map_err(|why| (why, bytes)),
                Cut::NotObject => Err((Rejection::NotObject, [].as_slice())),
                Cut::TooLarge => Err((Rejection::TooLarge, [].as_slice())),
            };
            match parsed {
                Ok(parsed) if parsed.uses == 0 => {
                    report.no_credential += 1;
                    self.counters().cloudtrail_no_credential.one();
                }
                Ok(parsed) => self.count_use(parsed.derived_id, parsed.unknown_version),
                Err((why, bytes)) => {
                    report.rejected += 1;
                    report.first_rejection.get_or_insert(why);
                    self.refuse(path, index, why, bytes);
                }
            }
            if batch.len() >= BATCH {
                let uses = std::mem::take(&mut batch);
                report.add(self.handle.uses_blocking(UsesBatch { uses, file: None })?);
            }
            Ok(())
        })?;
        let same = hash == mark.hash;
        report.add(self.handle.uses_blocking(UsesBatch {
            uses: batch,
            file: same.then_some(mark),
        })?);
        if same { Ok(report) } else { Err(changed()) }
    }

    fn count_use(&self, derived_id: bool, unknown_version: bool) {
        let counters = self.counters();
        counters.cloudtrail_uses.one();
        if derived_id {
            counters.cloudtrail_derived_id.one();
        }
        if unknown_version {
            counters.cloudtrail_unknown_version.one();
        }
    }

    fn refuse(&self, path: &Path, index: u64, why: Rejection, bytes: &[u8]) {
        let counters = self.counters();
        match why {
            Rejection::NotObject => &counters.cloudtrail_rejected_not_object,
            Rejection::BadJson => &counters.cloudtrail_rejected_bad_json,
            Rejection::BadTime => &counters.cloudtrail_rejected_bad_time,
            Rejection::BadKey => &counters.cloudtrail_rejected_bad_key,
            Rejection::NoEvent | Rejection::BadEnvelope | Rejection::NoMapping => {
                &counters.cloudtrail_rejected_no_event
            }
            Rejection::TooLarge => &counters.cloudtrail_rejected_too_large,
        }
        .one();
        if let Err(error) = self.dead.note(path, index, why, bytes) {
            counters.cloudtrail_dead_letter_failures.one();
            tracing::warn!(%error, "a refused record could not be noted in the dead-letter file");
        }
    }
}

impl FileReport {
    fn add(&mut self, reply: UsesReply) {
        self.new += reply.new;
        self.duplicate += reply.duplicate;
    }
}

fn changed() -> FileError {
    FileError::Incomplete("changed while being read".to_owned())
}

fn identify(file: &File) -> Result<KnownFile, FileError> {
    file.metadata()
        .map(|m| known(&m))
        .map_err(FileError::Unreadable)
}

/// How a file is recognised later.
pub(super) fn known(metadata: &Metadata) -> KnownFile {
    KnownFile {
        size: metadata.len(),
        mtime_ns: metadata
            .mtime()
            .saturating_mul(1_000_000_000)
            .saturating_add(metadata.mtime_nsec()),
        inode: metadata.ino(),
    }
}

fn parser() -> Parser {
    Parser::new(SourceKind::AwsCloudTrail, Options::default())
}

/// The first pass: is it whole, and is it a CloudTrail log at all? Returns its hash.
fn check(file: File, path: &Path) -> Result<[u8; 32], FileError> {
    let mut records = 0_u64;
    // A file without any record of CloudTrail's shape is another kind of file; its first objection.
    let mut strange: Option<Rejection> = None;
    let mut shaped = false;
    let (parser, mut uses) = (parser(), Vec::new());
    let hash = each_record(file, path, |cut| {
        records += 1;
        if shaped {
            return Ok(());
        }
        let objection = match cut {
            Cut::Record(bytes) => parser.parse(bytes, &mut uses).err(),
            Cut::NotObject => Some(Rejection::NotObject),
            Cut::TooLarge => None,
        };
        match objection {
            Some(
                why @ (Rejection::NotObject
                | Rejection::BadJson
                | Rejection::NoEvent
                | Rejection::BadEnvelope
                | Rejection::NoMapping),
            ) => {
                strange.get_or_insert(why);
            }
            Some(Rejection::BadTime | Rejection::BadKey | Rejection::TooLarge) | None => {
                shaped = true;
            }
        }
        Ok(())
    })?;
    match strange {
        Some(why) if !shaped => Err(FileError::Malformed(format!(
            "none of its {records} records is CloudTrail's (the first: {why})"
        ))),
        _ => Ok(hash),
    }
}

/// Hashes what is read through it.
struct Hashing {
    file: File,
    hash: Rc<RefCell<Sha256>>,
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.hash
            .borrow_mut()
            .update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

/// Cuts the file, plain or gzip (by its first bytes, not by its name); returns its hash.
fn each_record(
    file: File,
    path: &Path,
    mut each: impl FnMut(Cut<'_>) -> Result<(), FileError>,
) -> Result<[u8; 32], FileError> {
    let hash = Rc::new(RefCell::new(Sha256::new()));
    let mut raw = BufReader::with_capacity(
        64 << 10,
        Hashing {
            file,
            hash: Rc::clone(&hash),
        },
    );
    let start = raw.fill_buf().map_err(FileError::Unreadable)?;
    if start.is_empty() {
        return Err(FileError::Incomplete("empty".to_owned()));
    }
    if start.len() < GZIP.len() && path.extension().is_some_and(|e| e == "gz") {
        return Err(FileError::Incomplete("one byte long".to_owned()));
    }
    let input: Box<dyn BufRead> = if start.starts_with(&GZIP) {
        let decoder = MultiGzDecoder::new(raw);
        Box::new(BufReader::with_capacity(
            64 << 10,
            decoder.take(MAX_FILE_BYTES),
        ))
    } else {
        Box::new(raw.take(MAX_FILE_BYTES))
    };
    let mut records = Records::new(input);
    while let Some(cut) = records.next_record()? {
        each(cut)?;
    }
    drop(records);
    let hash = hash.borrow().clone();
    Ok(hash.finalize().into())
}
