//! Follows a growing file of one record a line over its rotations.
//!
//! The position (which file, how far) is committed in the same transaction as the uses before it,
//! so a crash at any moment neither loses nor repeats a use. Which file: (device, inode), and a
//! hash of its first bytes, since inodes are used again.
//!
//! - rename and create (logrotate's default): the old file is read to its end, then the new one
//!   from its start; files that were rotated away while nobody read are looked for beside it and
//!   read in their order;
//! - copy and truncate: a file that became shorter, or whose first bytes changed, is read from its
//!   start, after the rest of its copy where that lies beside it.
//!
//! What is not found there (removed, or compressed already) is counted (`tail_lost`).

mod position;

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keytrail_model::consumption::Consumption;
use keytrail_sources::framing::Cut;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::frames::MAX_MESSAGE;
use super::intake::{Intake, Origin, Progress, Taken};
use crate::runner::RunnerError;
use crate::store::{Cursor, StoreError};
use position::{FileId, Position, rotated_after};

/// Time between two looks at a quiet file.
const LOOK: Duration = Duration::from_millis(200);
/// Pause after a failure.
const AGAIN: Duration = Duration::from_secs(2);
/// Files remembered as read to their end.
const DONE: usize = 1000;
/// Bytes read at once.
const CHUNK: usize = 1 << 20;

/// Why a file cannot be followed at the moment.
#[derive(Debug, Error)]
pub enum TailError {
    /// It is not there, or cannot be read.
    #[error("{path}: {source}; it is tried again until it works")]
    File {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The store does not take its records.
    #[error(transparent)]
    Runner(#[from] RunnerError),
    /// The store does not tell the position.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Follows `path` until `stop`.
pub async fn follow(path: PathBuf, intake: Intake, stop: CancellationToken) {
    let mut tail: Option<Tail> = None;
    while !stop.is_cancelled() {
        let (path, of) = (path.clone(), intake.clone());
        let taken_out = tail.take();
        let looked = tokio::task::spawn_blocking(move || {
            let mut tail = match taken_out {
                Some(tail) => tail,
                None => Tail::open(&path, of)?,
            };
            let more = tail.look()?;
            Ok::<_, TailError>((tail, more))
        })
        .await;
        let pause = match looked {
            Ok(Ok((again, more))) => {
                tail = Some(again);
                intake.status().works();
                if more { Duration::ZERO } else { LOOK }
            }
            // The next look begins at the committed position.
            Ok(Err(TailError::Runner(RunnerError::Stopping))) => return,
            Ok(Err(error)) => {
                if intake.status().fails(&error.to_string()) {
                    tracing::warn!(source = intake.name(), %error, "the file cannot be followed");
                }
                match error {
                    // It may come, and be rotated, any time.
                    TailError::File { .. } => LOOK,
                    TailError::Runner(_) | TailError::Store(_) => AGAIN,
                }
            }
            Err(panic) => {
                tracing::error!(source = intake.name(), %panic, "following a file panicked");
                AGAIN
            }
        };
        if !pause.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

/// A file being followed.
#[derive(Debug)]
struct Tail {
    path: PathBuf,
    place: String,
    intake: Intake,
    file: File,
    /// Everything before is committed.
    position: Position,
    /// A line larger than the limit is being skipped: so far it has been read.
    skipped_to: Option<u64>,
    lines: u64,
    /// Files read to their end by this process.
    done: Vec<FileId>,
}

impl Tail {
    /// Opens the file at its committed position; the file that was rotated away meanwhile first.
    fn open(path: &Path, intake: Intake) -> Result<Self, TailError> {
        let place = path.to_string_lossy().into_owned();
        let known = intake
            .reader()
            .cursor(intake.name(), &place)?
            .and_then(|text| Position::parse(&text));
        let failed = |source| TailError::File {
            path: path.to_owned(),
            source,
        };
        // Between a rename and the creation, the old file is where to go on.
        let beside = || known.as_ref().and_then(|known| known.find_beside(path));
        let (file, position) = match File::open(path) {
            Ok(file) => {
                let id = FileId::of(&file).map_err(failed)?;
                (file, Position::start(id))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                beside().ok_or_else(|| failed(error))?
            }
            Err(error) => return Err(failed(error)),
        };
        let mut tail = Self {
            path: path.to_owned(),
            place,
            intake,
            file,
            position,
            skipped_to: None,
            lines: 0,
            done: Vec::new(),
        };
        match known {
            // Reading begins with this file: said before it can be rotated away unread.
            None => tail.commit(Vec::new())?,
            Some(known) if known == tail.position => {}
            Some(known) if known.fits(&tail.file).map_err(failed)? => tail.position = known,
            Some(known) => tail.replaced(&known, tail.position.file),
        }
        Ok(tail)
    }

    /// What had been read as far as `known` is there no more: `id` has taken its place. Goes on in
    /// the rotated file, where it is found.
    fn replaced(&mut self, known: &Position, id: FileId) {
        let tally = self.intake.tally();
        if known.file == id {
            tally.truncations.one();
        } else {
            tally.rotations.one();
        }
        if let Some((old, position)) = known.find_beside(&self.path) {
            self.file = old;
            self.position = position;
            return;
        }
        tally.tail_lost.one();
        tracing::warn!(
            path = self.place,
            "the file was rotated away or cut, and the old one is not beside it: records may be \
             missing"
        );
        self.position = Position::start(id);
    }

    fn failed(&self) -> impl Fn(std::io::Error) -> TailError + use<> {
        let path = self.path.clone();
        move |source| TailError::File {
            path: path.clone(),
            source,
        }
    }

    /// Reads what is there, at most a chunk; true when there may be more at once.
    fn look(&mut self) -> Result<bool, TailError> {
        let failed = self.failed();
        if !self.position.fits(&self.file).map_err(&failed)? {
            let known = self.position.clone();
            self.replaced(&known, FileId::of(&self.file).map_err(&failed)?);
            self.skipped_to = None;
        }
        let mut chunk = vec![0_u8; CHUNK];
        let mut filled = 0;
        let from = self.skipped_to.unwrap_or(self.position.offset);
        let mut end = false;
        loop {
            if filled == chunk.len() {
                // No line feed in a whole chunk: more of the line, up to the limit for one.
                if self.skipped_to.is_some() || chunk.contains(&b'\n') || chunk.len() > MAX_MESSAGE
                {
                    break;
                }
                chunk.resize(chunk.len() + CHUNK, 0);
            }
            let rest = chunk.get_mut(filled..).unwrap_or_default();
            match self.file.read_at(rest, from + filled as u64) {
                Ok(0) => {
                    end = true;
                    break;
                }
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        chunk.truncate(filled);
        let moved = self.take(&chunk, from, false)?;
        if !end || moved {
            return Ok(true);
        }
        self.after_end(&chunk, from)
    }

    /// At the file's end: has another taken its place?
    fn after_end(&mut self, rest: &[u8], from: u64) -> Result<bool, TailError> {
        let failed = self.failed();
        let new = match File::open(&self.path) {
            Ok(new) => Some(new),
            // Between the rename and the creation.
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let ours = self.position.file;
        if let Some(new) = &new
            && FileId::of(new).map_err(&failed)? == ours
        {
            return Ok(false);
        }
        // Written between the look and the rotation?
        let size = self.file.metadata().map_err(&failed)?.len();
        if size > from + rest.len() as u64 {
            return Ok(true);
        }
        if self.done.len() >= DONE {
            self.done.clear();
        }
        self.done.push(ours);
        let Some(next) = rotated_after(&self.path, &self.file, &self.done).or(new) else {
            return Ok(false);
        };
        // Nobody will end the old file's last line any more.
        self.take(rest, from, true)?;
        self.intake.tally().rotations.one();
        self.position = Position::start(FileId::of(&next).map_err(&failed)?);
        self.file = next;
        self.skipped_to = None;
        self.commit(Vec::new())?;
        Ok(true)
    }

    /// Takes the whole lines of `chunk`, which begins at `from`; `last` takes the rest as a line,
    /// too. True when the position moved.
    fn take(&mut self, chunk: &[u8], from: u64, last: bool) -> Result<bool, TailError> {
        let mut uses: Vec<Consumption> = Vec::new();
        let mut taken = Taken::default();
        let mut at = 0_usize;
        while let Some(rest) = chunk.get(at..).filter(|rest| !rest.is_empty()) {
            let (line, used) = match rest.iter().position(|b| *b == b'\n') {
                Some(end) => (rest.get(..end).unwrap_or_default(), end + 1),
                None if last => (rest, rest.len()),
                None => break,
            };
            let origin = Origin {
                place: &self.place,
                index: self.lines,
            };
            self.lines += 1;
            if self.skipped_to.take().is_some() || line.len() > MAX_MESSAGE {
                self.intake
                    .take(origin, &Cut::TooLarge, &mut uses, &mut taken);
            } else {
                self.intake.take_line(origin, line, &mut uses, &mut taken);
            }
            at += used;
        }
        if at == 0 {
            if chunk.len() > MAX_MESSAGE || self.skipped_to.is_some() {
                let reached = from + chunk.len() as u64;
                let moved = self.skipped_to != Some(reached);
                self.skipped_to = Some(reached);
                return Ok(moved);
            }
            return Ok(false);
        }
        self.position
            .advance(&self.file, from + at as u64)
            .map_err(self.failed())?;
        self.commit(uses)?;
        Ok(true)
    }

    fn commit(&self, uses: Vec<Consumption>) -> Result<(), TailError> {
        let cursor = Cursor {
            source: self.intake.name().to_owned(),
            stream: self.place.clone(),
            position: self.position.to_string(),
        };
        self.intake
            .commit_blocking(uses, Progress::cursor(cursor))?;
        Ok(())
    }
}
