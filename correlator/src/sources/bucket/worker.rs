//! From sweep to sweep.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use jiff::{SignedDuration, Timestamp};
use keytrail_sources::Rejection;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use tokio_util::sync::CancellationToken;

use super::object::{Object, ObjectError};
use super::open::{OpenError, open};
use super::place::{BucketConfig, Place};
use super::window::{Known, Window, modified};
use crate::clock;
use crate::runner::RunnerError;
use crate::sources::config::seconds;
use crate::sources::intake::{Intake, Origin, Progress, Taken};
use crate::sources::pause;
use crate::sources::status::PendingFile;
use crate::store::StoreError;

/// Objects read at the same time.
const AT_ONCE: usize = 4;
/// Objects of one sweep at most; the others are the next one's.
const MAX_TODO: usize = 50_000;
/// An object that cannot be read for so long is given up.
const LOST: SignedDuration = SignedDuration::from_hours(24);

/// Why a sweep ended early.
#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{0}")]
    List(object_store::Error),
    #[error("{count} objects cannot be read, {place} for one: {error}")]
    Objects {
        count: usize,
        place: String,
        error: ObjectError,
    },
    #[error(transparent)]
    Runner(#[from] RunnerError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

struct Worker {
    config: BucketConfig,
    place: Place,
    intake: Intake,
    store: Option<Arc<dyn ObjectStore>>,
    window: Option<Window>,
    /// Objects that cannot be read, and since when.
    failing: BTreeMap<String, Timestamp>,
}

/// Reads the bucket until `stop`.
pub(in crate::sources) async fn run(config: BucketConfig, intake: Intake, stop: CancellationToken) {
    // `SourceConfig::prepare` has seen to it that it is sound.
    let Ok(place) = config.check() else { return };
    let interval = seconds(config.interval_seconds, 30, 1);
    let mut worker = Worker {
        config,
        place,
        intake: intake.clone(),
        store: None,
        window: None,
        failing: BTreeMap::new(),
    };
    let mut failures = 0_u32;
    while !stop.is_cancelled() {
        let pause = match worker.sweep(&stop).await {
            Ok(more) => {
                failures = 0;
                intake.status().works();
                if more { Duration::ZERO } else { interval }
            }
            Err(SweepError::Runner(RunnerError::Stopping)) => return,
            Err(error) => {
                // Keys may have been renewed meanwhile.
                worker.store = None;
                failures = failures.saturating_add(1);
                intake.tally().requests_failed.one();
                if intake.status().fails(&error.to_string()) {
                    tracing::warn!(
                        source = intake.name(), %error,
                        "reading the bucket failed; it is tried again"
                    );
                }
                pause::after(failures)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => {}
        }
    }
}

impl Worker {
    /// Lists what changed and takes it in; true when there is more at once.
    async fn sweep(&mut self, stop: &CancellationToken) -> Result<bool, SweepError> {
        let store = match &self.store {
            Some(store) => Arc::clone(store),
            None => {
                let store = open(&self.config, &self.place)?;
                Arc::clone(self.store.insert(store))
            }
        };
        let mut window = match self.window.take() {
            Some(window) => window,
            None => self.restore().await?,
        };
        let listed = self.list(&store, &mut window).await;
        let swept = match listed {
            Ok(listed) => self.take(&store, &mut window, listed, stop).await,
            Err(error) => Err(error),
        };
        self.show_pending(&window);
        self.window = Some(window);
        swept
    }

    async fn restore(&self) -> Result<Window, SweepError> {
        let hours = self.config.start_hours.unwrap_or(24).min(24 * 366);
        let start = SignedDuration::from_hours(i64::try_from(hours).unwrap_or(24));
        let (intake, overlap) = (self.intake.clone(), self.config.overlap());
        let restored =
            tokio::task::spawn_blocking(move || Window::restore(&intake, start, overlap)).await;
        match restored {
            Ok(window) => Ok(window?),
            Err(_) => Err(SweepError::Runner(RunnerError::Stopping)),
        }
    }

    /// What is to be read, oldest first.
    async fn list(
        &self,
        store: &Arc<dyn ObjectStore>,
        window: &mut Window,
    ) -> Result<Listed, SweepError> {
        let now = clock::now();
        let mut listed = Listed {
            todo: Vec::new(),
            newest: window.from(),
            more: false,
        };
        for prefix in self.place.prefixes(window.from(), now) {
            self.intake.tally().requests.one();
            let prefix = (!prefix.is_empty()).then(|| Path::from(prefix));
            let mut objects = store.list(prefix.as_ref());
            while let Some(meta) = objects.try_next().await.map_err(SweepError::List)? {
                listed.newest = listed.newest.max(modified(&meta));
                if !window.wants(&meta, now) {
                    continue;
                }
                // Digests lie in the same bucket and hold no records.
                if meta.location.as_ref().contains("/CloudTrail-Digest/") {
                    self.intake.tally().files_ignored.one();
                    let key = meta.location.as_ref().to_owned();
                    window.put(key, Known::nothing(&meta));
                    continue;
                }
                listed.todo.push(meta);
                if listed.todo.len() >= 2 * MAX_TODO {
                    listed.bound();
                }
            }
        }
        listed.bound();
        Ok(listed)
    }

    async fn take(
        &mut self,
        store: &Arc<dyn ObjectStore>,
        window: &mut Window,
        listed: Listed,
        stop: &CancellationToken,
    ) -> Result<bool, SweepError> {
        let Listed {
            todo,
            mut newest,
            more,
        } = listed;
        let now = clock::now();
        // Each is told what is known of it now; no object is twice among them.
        let works: Vec<_> = todo
            .into_iter()
            .map(|meta| {
                let key = meta.location.as_ref().to_owned();
                let object = Object {
                    store: Arc::clone(store),
                    intake: self.intake.clone(),
                    place: self.place.object(&key),
                    known: window.known(&key).cloned(),
                    meta: meta.clone(),
                };
                (key, meta, object)
            })
            .collect();
        let reading = futures::stream::iter(works)
            .take_while(|_| std::future::ready(!stop.is_cancelled()))
            .map(|(key, meta, object)| async move { (key, meta, object.take(now).await) })
            .buffer_unordered(AT_ONCE);
        let mut reading = std::pin::pin!(reading);
        let mut failed: Option<(usize, String, ObjectError)> = None;
        while let Some((key, meta, taken)) = reading.next().await {
            match taken {
                Ok(known) => {
                    self.failing.remove(&key);
                    window.put(key, known);
                }
                Err(ObjectError::Runner(error)) => return Err(error.into()),
                // Deleted between the list and the look: its owner's affair.
                Err(ObjectError::Store(object_store::Error::NotFound { .. })) => {
                    self.intake.tally().files_ignored.one();
                }
                Err(error) => {
                    if self.is_lost(&key, now) {
                        self.lose(&key, &error);
                        window.put(key, Known::nothing(&meta));
                        continue;
                    }
                    // The mark must not pass it.
                    newest = newest.min(modified(&meta));
                    let count = failed.as_ref().map_or(0, |(count, _, _)| *count) + 1;
                    failed = Some((count, self.place.object(&key), error));
                }
            }
        }
        if stop.is_cancelled() {
            return Ok(false);
        }
        if let Some((cursor, forgotten)) = window.advance(newest) {
            let progress = Progress {
                forgotten,
                ..Progress::cursor(cursor)
            };
            self.intake.commit(Vec::new(), progress).await?;
        }
        match failed {
            None => Ok(more),
            Some((count, place, error)) => Err(SweepError::Objects {
                count,
                place,
                error,
            }),
        }
    }

    /// Whether an object has failed for too long.
    fn is_lost(&mut self, key: &str, now: Timestamp) -> bool {
        if self.failing.len() >= MAX_TODO && !self.failing.contains_key(key) {
            return false;
        }
        let since = *self.failing.entry(key.to_owned()).or_insert(now);
        now.duration_since(since) > LOST
    }

    fn lose(&mut self, key: &str, error: &ObjectError) {
        self.failing.remove(key);
        let place = self.place.object(key);
        tracing::error!(source = self.intake.name(), place, %error, "an object is given up");
        let origin = Origin {
            place: &place,
            index: 0,
        };
        self.intake.tally().files_unreadable.one();
        self.intake
            .refuse(origin, Rejection::BadEnvelope, &[], &mut Taken::default());
    }

    /// Shows the objects whose end is missing.
    fn show_pending(&self, window: &Window) {
        let files = window.unsettled().map(|(key, known)| PendingFile {
            path: self.place.object(key),
            reason: "ends in the middle of a record; it is read on when it grows".to_owned(),
            since: known.modified,
            stuck: false,
        });
        self.intake.status().set_pending(files.collect());
    }
}

/// What a listing found.
struct Listed {
    todo: Vec<ObjectMeta>,
    /// The newest change that is taken in with them.
    newest: Timestamp,
    /// There is more than is done at once.
    more: bool,
}

impl Listed {
    /// Oldest first, at most so many.
    fn bound(&mut self) {
        self.todo.sort_by(|a, b| {
            (modified(a), a.location.as_ref()).cmp(&(modified(b), b.location.as_ref()))
        });
        if self.todo.len() > MAX_TODO {
            self.todo.truncate(MAX_TODO);
            self.more = true;
        }
        if self.more
            && let Some(last) = self.todo.last()
        {
            self.newest = modified(last);
        }
    }
}
