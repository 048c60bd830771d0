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

use keytrail_model::consumption::Consumption;
use keytrail_sources::Rejection;
use keytrail_sources::framing::{Cut, FramingError};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::runner::RunnerError;
use crate::sources::input;
use crate::sources::intake::{BATCH, Intake, Origin, Progress, Taken};
use crate::store::{FileMark, KnownFile, StoreError};

/// Why a file was not taken.
#[derive(Debug, Error)]
pub enum FileError {
    /// It ends too early or changes while being read.
    #[error("{0}: still being written, or truncated; it is read again when it changes")]
    Incomplete(String),
    /// It is no log file.
    #[error(
        "{0}: not a log of this kind; nothing of it was taken, it is read again when it changes"
    )]
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

/// Reads one file; `None` when it, or a file with its content, had been read before. Blocks.
///
/// # Errors
/// When it is not taken: nothing of it was, unless it changed during the second pass (then what
/// was taken is recognised by its record ids the next time).
pub(super) fn read(intake: &Intake, path: &Path) -> Result<Option<Taken>, FileError> {
    let name = path.to_string_lossy();
    let file = File::open(path).map_err(FileError::Unreadable)?;
    let before = identify(&file)?;
    if intake.reader().known_file(intake.name(), &name)? == Some(before) {
        return Ok(None);
    }
    let hash = check(intake, file, path)?;
    let file = File::open(path).map_err(FileError::Unreadable)?;
    if identify(&file)? != before {
        return Err(changed());
    }
    let mark = FileMark {
        source: intake.name().to_owned(),
        path: name.clone().into_owned(),
        known: before,
        hash,
    };
    if let Some(earlier) = intake.reader().file_with_content(intake.name(), &hash)? {
        tracing::debug!(path = %name, %earlier, "same content as an earlier file; skipped");
        intake.tally().files_duplicate.one();
        intake.commit_blocking(Vec::new(), file_done(Some(mark)))?;
        return Ok(None);
    }
    let taken = take(intake, file, path, mark)?;
    intake.tally().files_done.one();
    Ok(Some(taken))
}

/// The second pass.
fn take(intake: &Intake, file: File, path: &Path, mark: FileMark) -> Result<Taken, FileError> {
    let mut taken = Taken::default();
    let mut batch: Vec<Consumption> = Vec::new();
    let place = mark.path.clone();
    let hash = each_record(intake, file, path, |cut| {
        let index = taken.records;
        let place = &place;
        intake.take(Origin { place, index }, &cut, &mut batch, &mut taken);
        if batch.len() >= BATCH {
            let uses = std::mem::take(&mut batch);
            taken.add(intake.commit_blocking(uses, Progress::default())?);
        }
        Ok(())
    })?;
    let same = hash == mark.hash;
    taken.add(intake.commit_blocking(batch, file_done(same.then_some(mark)))?);
    if same { Ok(taken) } else { Err(changed()) }
}

fn file_done(file: Option<FileMark>) -> Progress {
    Progress {
        file,
        ..Progress::default()
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

/// The first pass: is it whole, and is it a log of this kind at all? Returns its hash.
fn check(intake: &Intake, file: File, path: &Path) -> Result<[u8; 32], FileError> {
    let mut records = 0_u64;
    // A file without any record of the source's shape is another kind of file; its first objection.
    let mut strange: Option<Rejection> = None;
    let mut shaped = false;
    let hash = each_record(intake, file, path, |cut| {
        records += 1;
        if shaped {
            return Ok(());
        }
        match intake.objection(&cut) {
            Some(why @ (Rejection::NotObject | Rejection::BadJson | Rejection::NoEvent)) => {
                strange.get_or_insert(why);
            }
            Some(_) | None => shaped = true,
        }
        Ok(())
    })?;
    match strange {
        Some(why) if !shaped => Err(FileError::Malformed(format!(
            "none of its {records} records is one of {} (the first: {why})",
            intake.kind().as_str()
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
    intake: &Intake,
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
    if start.len() < input::GZIP.len() && path.extension().is_some_and(|e| e == "gz") {
        return Err(FileError::Incomplete("one byte long".to_owned()));
    }
    let mut records = intake.records(input::plain(raw).map_err(FileError::Unreadable)?);
    while let Some(cut) = records.next_record()? {
        each(cut)?;
    }
    drop(records);
    let hash = hash.borrow().clone();
    Ok(hash.finalize().into())
}
