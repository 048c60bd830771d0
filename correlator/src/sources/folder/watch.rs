//! Finds files: by the kernel's notifications, by a scan at start, by rescans as a safety net.
//!
//! CloudTrail writes into `AWSLogs/<account>/CloudTrail/<region>/<yyyy>/<mm>/<dd>/`, so the whole
//! tree is watched. A file is looked at when its writer closes it or it is moved in; what a
//! notification misses (a lost queue, a network mount, a hard link) a rescan finds.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use inotify::{Event, EventMask, EventStream, Inotify, WatchDescriptor, WatchMask};
use jiff::Timestamp;
use keytrail_model::text::shown;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::file::{FileError, known, read};
use crate::clock;
use crate::sources::intake::{Intake, Taken};
use crate::sources::status::PendingFile;
use crate::sources::tally::Tally;
use crate::store::KnownFile;

/// Files queued at most; a scan that finds more goes on when the queue is empty.
const QUEUE: usize = 4096;
/// Unfinished files remembered at most.
const PENDING: usize = 10_000;
/// Directories below the folder that are visited at most (guards against loops of mounts).
const DEPTH: usize = 16;

/// How the folder is watched.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder.
    pub folder: PathBuf,
    /// Time between rescans.
    pub rescan: Duration,
    /// After how long an unfinished file counts as stuck.
    pub stuck_after: Duration,
}

/// Why the folder cannot be watched.
#[derive(Debug, Error)]
pub enum WatchError {
    /// No notifications from the kernel.
    #[error(
        "cannot watch {folder}: {source}; raise fs.inotify.max_user_instances or max_user_watches"
    )]
    Inotify {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No such folder.
    #[error(
        "folder {folder}: {source}; create it, or point the source (--cloudtrail-dir) at the folder \
         that receives the log files"
    )]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A file that waits for its rest.
#[derive(Debug)]
struct Pending {
    known: Option<KnownFile>,
    since: Timestamp,
    reason: String,
    stuck: bool,
}

struct Watcher {
    options: Options,
    intake: Intake,
    watches: inotify::Watches,
    directories: HashMap<WatchDescriptor, PathBuf>,
    /// From notifications: first served.
    fresh: VecDeque<PathBuf>,
    /// From scans.
    backlog: VecDeque<PathBuf>,
    /// The last scan found more than the queue holds.
    more: bool,
    pending: HashMap<PathBuf, Pending>,
    /// Files that are read to their end, as seen by this process: saves a look-up each rescan.
    done: HashMap<PathBuf, KnownFile>,
}

/// Files remembered as done in memory; beyond it the store is asked.
const DONE: usize = 200_000;

/// Watches until `stop`.
///
/// # Errors
/// When the folder does not exist, or the kernel gives no notifications.
pub async fn watch(
    options: Options,
    intake: Intake,
    stop: CancellationToken,
) -> Result<(), WatchError> {
    let folder = |source| WatchError::Folder {
        folder: options.folder.clone(),
        source,
    };
    std::fs::read_dir(&options.folder).map_err(folder)?;
    let inotify = |source| WatchError::Inotify {
        folder: options.folder.clone(),
        source,
    };
    let mut stream = Inotify::init()
        .and_then(|i| i.into_event_stream(vec![0_u8; 16 << 10]))
        .map_err(inotify)?;
    let mut watcher = Watcher {
        watches: stream.watches(),
        options,
        intake,
        directories: HashMap::new(),
        fresh: VecDeque::new(),
        backlog: VecDeque::new(),
        more: false,
        pending: HashMap::new(),
        done: HashMap::new(),
    };
    watcher.intake.status().works();
    watcher.rescan();
    watcher.run(&mut stream, stop).await;
    Ok(())
}

impl Watcher {
    async fn run(&mut self, stream: &mut EventStream<Vec<u8>>, stop: CancellationToken) {
        let mut rescan = tokio::time::interval(self.options.rescan);
        rescan.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        rescan.tick().await;
        while !stop.is_cancelled() {
            // Notifications first: a file that just arrived must not wait behind a backlog.
            while let Some(Some(event)) = stream.next().now_or_never() {
                self.event(event);
            }
            if rescan.tick().now_or_never().is_some() {
                self.rescan();
            }
            if let Some(path) = self.next_file() {
                self.read(path).await;
                continue;
            }
            if self.more {
                self.rescan();
                continue;
            }
            tokio::select! {
                event = stream.next() => match event {
                    Some(event) => self.event(event),
                    None => return,
                },
                _ = rescan.tick() => self.rescan(),
                () = stop.cancelled() => return,
            }
        }
    }

    fn next_file(&mut self) -> Option<PathBuf> {
        self.fresh.pop_front().or_else(|| self.backlog.pop_front())
    }

    fn event(&mut self, event: std::io::Result<Event<OsString>>) {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(%error, "reading folder notifications failed; the next rescan finds new files");
                return;
            }
        };
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            self.tally().notify_overflows.one();
            self.rescan();
            return;
        }
        if event.mask.contains(EventMask::IGNORED) {
            self.directories.remove(&event.wd);
            return;
        }
        let Some(path) = event
            .name
            .and_then(|name| Some(self.directories.get(&event.wd)?.join(name)))
        else {
            return;
        };
        if event.mask.contains(EventMask::ISDIR) {
            // What appeared in it before the watch stood is found by the scan.
            self.scan(&path, 1);
        } else if is_log_name(&path) {
            if !self.fresh.contains(&path) {
                if self.fresh.len() < QUEUE {
                    self.fresh.push_back(path);
                } else {
                    self.more = true;
                }
            }
        } else if !is_hidden(&path) {
            self.tally().files_ignored.one();
        }
    }

    fn tally(&self) -> &Tally {
        self.intake.tally()
    }

    fn rescan(&mut self) {
        self.tally().rescans.one();
        self.more = false;
        let folder = self.options.folder.clone();
        self.scan(&folder, 0);
        self.age_pending();
    }

    /// Watches a directory and everything below it, queues files that are not known.
    fn scan(&mut self, directory: &Path, depth: usize) {
        let mask =
            WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::CREATE | WatchMask::ONLYDIR;
        match self.watches.add(directory, mask) {
            Ok(wd) => {
                self.directories.insert(wd, directory.to_owned());
            }
            Err(error) => self.intake.status().update(|status| {
                status.problem = Some(format!(
                    "no notifications for {}: {error}; its files are found by rescans only. \
                     Raise fs.inotify.max_user_watches",
                    directory.display()
                ));
            }),
        }
        let Ok(entries) = std::fs::read_dir(directory) else {
            return;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if kind.is_dir() {
                if depth < DEPTH {
                    self.scan(&path, depth + 1);
                }
            } else if is_log_name(&path) && self.worth_reading(&path) {
                if self.backlog.len() < QUEUE {
                    self.backlog.push_back(path);
                } else {
                    self.more = true;
                }
            }
        }
    }

    /// Whether a file found by a scan is neither done nor waiting unchanged.
    fn worth_reading(&self, path: &Path) -> bool {
        let Ok(metadata) = std::fs::metadata(path) else {
            return false;
        };
        let now = known(&metadata);
        metadata.is_file()
            && self.done.get(path) != Some(&now)
            && self
                .pending
                .get(path)
                .is_none_or(|pending| pending.known != Some(now))
    }

    async fn read(&mut self, path: PathBuf) {
        // A directory or device with a log's name is no file to read.
        let Ok(metadata) = std::fs::metadata(&path) else {
            self.pending.remove(&path);
            return;
        };
        if !metadata.is_file() {
            return;
        }
        let before = known(&metadata);
        let intake = self.intake.clone();
        let reading = path.clone();
        let result = tokio::task::spawn_blocking(move || read(&intake, &reading)).await;
        match result {
            Ok(Ok(report)) => self.done(path, before, report),
            Ok(Err(error)) => self.failed(path, before, &error),
            Err(panic) => {
                tracing::error!(path = %path.display(), %panic, "reading a file panicked; it is left out");
                self.remember_done(path, before);
            }
        }
    }

    fn done(&mut self, path: PathBuf, before: KnownFile, taken: Option<Taken>) {
        if self.pending.remove(&path).is_some() {
            self.show_pending();
        }
        if let Some(taken) = taken {
            self.intake
                .status()
                .update(|status| status.last_file = Some(clock::now()));
            self.tell(&path, &taken);
        }
        self.remember_done(path, before);
    }

    /// One line a file; a louder one when some of its records were refused.
    fn tell(&self, path: &Path, taken: &Taken) {
        let path = path.to_string_lossy();
        if let Some(why) = taken.first_rejection {
            tracing::warn!(
                path = %shown(&path, 300),
                records = taken.records,
                rejected = taken.rejected,
                first_reason = %why,
                noted_in = %self.intake.dead_letters().display(),
                "log file read; some of its records were refused, the others were used"
            );
        } else {
            tracing::info!(
                path = %shown(&path, 300),
                records = taken.records,
                new = taken.new,
                duplicate = taken.duplicates,
                no_use = taken.skipped,
                "log file read"
            );
        }
    }

    fn remember_done(&mut self, path: PathBuf, before: KnownFile) {
        if self.done.len() >= DONE {
            self.done.clear();
        }
        self.done.insert(path, before);
    }

    fn failed(&mut self, path: PathBuf, before: KnownFile, error: &FileError) {
        let intake = self.intake.clone();
        let tally = intake.tally();
        match error {
            FileError::Incomplete(_) => tally.files_incomplete.one(),
            FileError::Malformed(_) => tally.files_malformed.one(),
            FileError::Unreadable(_) => tally.files_unreadable.one(),
            FileError::Runner(_) | FileError::Store(_) => {}
        }
        // What the store refused is tried again at the next rescan, whether the file changed or not.
        let retry = matches!(error, FileError::Runner(_) | FileError::Store(_));
        let known = (!retry).then_some(before);
        let reason = error.to_string();
        let full = self.pending.len() >= PENDING;
        match self.pending.get_mut(&path) {
            Some(pending) => {
                if pending.reason != reason {
                    report(&path, &reason);
                }
                pending.known = known;
                pending.reason = reason;
            }
            None if full => tally.pending_dropped.one(),
            None => {
                report(&path, &reason);
                let pending = Pending {
                    known,
                    since: clock::now(),
                    reason,
                    stuck: false,
                };
                self.pending.insert(path, pending);
            }
        }
        self.show_pending();
    }

    /// Forgets files that are gone, tells about those that wait too long.
    fn age_pending(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let now = clock::now();
        self.pending.retain(|path, _| path.exists());
        for (path, pending) in &mut self.pending {
            let waited = now.duration_since(pending.since).unsigned_abs();
            if !pending.stuck && waited >= self.options.stuck_after {
                pending.stuck = true;
                tracing::warn!(
                    path = %shown(&path.to_string_lossy(), 300),
                    minutes = waited.as_secs() / 60,
                    reason = pending.reason,
                    "log file is stuck; deliver it again"
                );
            }
        }
        self.show_pending();
    }

    fn show_pending(&self) {
        let files = self.pending.iter().map(|(path, pending)| PendingFile {
            path: path.display().to_string(),
            reason: pending.reason.clone(),
            since: pending.since,
            stuck: pending.stuck,
        });
        self.intake.status().set_pending(files.collect());
    }
}

fn report(path: &Path, reason: &str) {
    tracing::warn!(path = %shown(&path.to_string_lossy(), 300), reason, "log file not taken");
}

/// A log's name; digests (`CloudTrail-Digest`) lie in the same bucket and are none.
fn is_log_name(path: &Path) -> bool {
    let name = path.file_name().map_or_else(String::new, |name| {
        name.to_string_lossy().to_ascii_lowercase()
    });
    let plain = [".gz", ".zst"]
        .iter()
        .find_map(|end| name.strip_suffix(end))
        .unwrap_or(&name);
    let is_log = [".json", ".ndjson", ".jsonl", ".log", ".csv"]
        .iter()
        .any(|end| plain.ends_with(end));
    is_log
        && !name.starts_with('.')
        && !name.contains("cloudtrail-digest")
        && !path.iter().any(|part| part == "CloudTrail-Digest")
}

fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_names() {
        for (path, expected) in [
            ("a/1_CloudTrail_us-east-1_20261123T2010Z_x.json.gz", true),
            ("a/x.json", true),
            ("a/x.NDJSON", true),
            ("a/x.json.zst", true),
            ("a/2026/11/23/20/14/x.json.log.gz", true),
            ("a/2026-11-23_ApiEvent.csv", true),
            ("a/.x.json.swp", false),
            ("a/.x.json", false),
            ("a/x.json.gz.6eF2a1", false),
            ("a/AWSLogs/1/CloudTrail-Digest/us-east-1/x.json.gz", false),
            ("a/1_CloudTrail-Digest_us-east-1_x.json.gz", false),
            ("a/notes.txt", false),
        ] {
            assert_eq!(is_log_name(Path::new(path)), expected, "{path}");
        }
    }
}
