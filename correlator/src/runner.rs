//! The runner: one thread that owns the store's writer and the operator.
//!
//! Everything that changes state goes through one bounded queue. Whatever waits there is taken
//! together (group commit): recorded, applied, committed; then the senders get their answers and
//! the changed alerts are announced. Nothing is acknowledged or announced before it is durable.
//!
//! Architecture invariant (RN-1): a failed commit leaves neither the store nor the operator
//! changed. The store rolls back by itself; the operator is rebuilt from snapshot and log before
//! the next batch.

mod apply;
mod handle;
mod recover;
mod work;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use keytrail_join::Settings;
use thiserror::Error;
use tokio::sync::{broadcast, mpsc};

pub use handle::{AlertChange, Handle, UsesReply};
pub use recover::{Rebuilt, rebuild};
pub use work::UsesBatch;

use crate::clock;
use crate::counters::Counters;
use crate::graph::Index;
use crate::networks::Networks;
use crate::partition::Engine;
use crate::store::{Store, StoreError};
use work::Work;

/// Work items that wait at most; senders wait when it is full.
const QUEUE: usize = 256;
/// Work items taken into one transaction at most.
const GROUP: usize = 64;
/// Alert changes that a slow stream reader may be behind before it must catch up from the store.
const FEED: usize = 1024;
/// Longest pause between looks at the clock.
const PULSE: Duration = Duration::from_secs(1);
/// Ticks recorded while nothing else happens.
const IDLE_TICK: SignedDuration = SignedDuration::from_secs(15);
/// A snapshot after so many inputs ...
const SNAPSHOT_INPUTS: u64 = 50_000;
/// ... or so much time, if anything changed.
const SNAPSHOT_EVERY: SignedDuration = SignedDuration::from_mins(5);
/// Retention and checkpoint run this often.
const UPKEEP_EVERY: SignedDuration = SignedDuration::from_mins(10);
/// A write-ahead log larger than this is checkpointed at once.
const WAL_LIMIT: u64 = 64 << 20;

/// Why the runner did not do what it was asked.
#[derive(Debug, Error)]
pub enum RunnerError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The group commit that this work was part of failed; the cause is in the log.
    #[error("the store did not take the data: {0}")]
    Unavailable(String),
    /// The correlator is stopping.
    #[error("the correlator is stopping")]
    Stopping,
    /// The writer thread could not be started.
    #[error("cannot start the writer thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// How the runner is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// The operator's settings.
    pub settings: Settings,
    /// How long inputs stay in the log, days.
    pub log_days: u32,
}

/// The writer's state, on its own thread.
#[derive(Debug)]
struct Runner {
    store: Store,
    /// `None` after a failed commit, until it is rebuilt.
    engine: Option<Engine>,
    options: Options,
    counters: Arc<Counters>,
    feed: broadcast::Sender<Arc<AlertChange>>,
    /// The lineage graph, shared with those who ask.
    index: Arc<Index>,
    /// Inputs that no snapshot covers yet.
    unsaved: u64,
    last_snapshot: Timestamp,
    last_upkeep: Timestamp,
    last_tick: Timestamp,
    inputs_since_tick: u64,
}

/// A running runner.
#[derive(Debug)]
pub struct Running {
    /// To talk to it.
    pub handle: Handle,
    thread: std::thread::JoinHandle<()>,
}

/// Restores the operator from `store` and starts the writer thread.
///
/// # Errors
/// When the store cannot be read, or no thread can be started.
pub fn start(
    mut store: Store,
    options: Options,
    counters: Arc<Counters>,
) -> Result<Running, RunnerError> {
    let now = clock::now();
    let reader = store.reader()?;
    let engine = recover::restore(&mut store, &options.settings, now)?;
    let index = Arc::new(Index::load(&mut store, now)?);
    let (feed, _) = broadcast::channel(FEED);
    let (sender, receiver) = mpsc::channel(QUEUE);
    let runner = Runner {
        store,
        engine: Some(engine),
        options,
        counters: Arc::clone(&counters),
        feed: feed.clone(),
        index: Arc::clone(&index),
        unsaved: 0,
        last_snapshot: now,
        last_upkeep: now,
        last_tick: now,
        inputs_since_tick: 0,
    };
    let thread = std::thread::Builder::new()
        .name("writer".to_owned())
        .spawn(move || runner.run(receiver))
        .map_err(RunnerError::Thread)?;
    Ok(Running {
        handle: Handle::new(sender, feed, reader, counters, index),
        thread,
    })
}

impl Running {
    /// Looks networks of addresses up in `networks` from now on. Before the handle is shared.
    #[must_use]
    pub fn with_networks(mut self, networks: Networks) -> Self {
        self.handle.set_networks(networks);
        self
    }

    /// Takes in what is queued, saves a snapshot, ends the thread.
    pub async fn stop(self) {
        self.handle.stop().await;
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the writer thread ended by a panic; the next start replays the log");
        }
    }

    /// Ends without a snapshot or an answer, as a kill would (for crash tests).
    #[doc(hidden)]
    pub async fn abandon(self) {
        self.handle.abandon().await;
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        drop(joined);
    }
}

impl Runner {
    fn run(mut self, mut receiver: mpsc::Receiver<Work>) {
        let mut group = Vec::with_capacity(GROUP);
        loop {
            let Some(first) = receiver.blocking_recv() else {
                break;
            };
            group.push(first);
            while group.len() < GROUP {
                match receiver.try_recv() {
                    Ok(work) => group.push(work),
                    Err(_) => break,
                }
            }
            match self.take(std::mem::take(&mut group)) {
                work::Next::Go => {}
                work::Next::Stop => break,
                work::Next::Abandon => return,
            }
        }
        self.save_snapshot(clock::now());
        if let Err(error) = self.store.checkpoint() {
            tracing::warn!(%error, "checkpoint at shutdown failed; the next start does it");
        }
    }

    /// Jobs that run beside the inputs.
    fn upkeep(&mut self, now: Timestamp) {
        let due = now.duration_since(self.last_snapshot) >= SNAPSHOT_EVERY;
        if self.unsaved >= SNAPSHOT_INPUTS || (due && self.unsaved > 0) {
            self.save_snapshot(now);
        }
        let due = now.duration_since(self.last_upkeep) >= UPKEEP_EVERY;
        if due {
            self.last_upkeep = now;
            self.prune(now);
        }
        if (due || self.store.wal_bytes() > WAL_LIMIT)
            && let Err(error) = self.store.checkpoint()
        {
            tracing::warn!(%error, "checkpoint failed; tried again later");
        }
    }

    fn prune(&mut self, now: Timestamp) {
        let keep = SignedDuration::from_hours(24 * i64::from(self.options.log_days));
        let Ok(before) = now.checked_sub(keep) else {
            return;
        };
        match self
            .store
            .prune(before, |path| !std::path::Path::new(path).exists())
        {
            Ok(pruned) => {
                self.counters.log_blocks_pruned.add(pruned.blocks as u64);
                if pruned != crate::store::Pruned::default() {
                    tracing::info!(?pruned, "removed what is older than the retention time");
                }
            }
            Err(error) => tracing::warn!(%error, "retention failed; tried again later"),
        }
        if let Err(error) = self.prune_graph(now, before) {
            tracing::warn!(%error, "the graph did not age; tried again later");
        }
    }

    /// Edges age with the log that shows them.
    fn prune_graph(&mut self, now: Timestamp, before: Timestamp) -> Result<(), StoreError> {
        let staged = self.index.stage_expired(before);
        if staged.is_empty() {
            return Ok(());
        }
        let batch = self.store.begin(now)?;
        batch.put_graph(&staged)?;
        batch.commit()?;
        self.counters
            .graph_expired
            .add(staged.removed().count() as u64);
        self.index.install(staged);
        Ok(())
    }

    fn save_snapshot(&mut self, now: Timestamp) {
        self.last_snapshot = now;
        let Some(engine) = &self.engine else { return };
        let saved = engine
            .snapshot()
            .map_err(|e| e.to_string())
            .and_then(|state| {
                let batch = self.store.begin(now).map_err(|e| e.to_string())?;
                batch
                    .put_snapshot(engine.settings(), &state)
                    .and_then(|()| batch.commit())
                    .map_err(|e| e.to_string())
            });
        match saved {
            Ok(()) => {
                self.unsaved = 0;
                self.counters.snapshots.one();
            }
            Err(error) => {
                self.counters.snapshot_failures.one();
                tracing::warn!(%error, "snapshot failed; the next start replays more of the log");
            }
        }
    }
}
