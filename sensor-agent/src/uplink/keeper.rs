//! The thread that owns the spool: everything that touches the disk happens here, in groups.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use keytrail_model::fact::{Fact, Gap, GapKind};
use keytrail_proto::block;
use keytrail_spool::{Epoch, Item, MAX_RECORD_BYTES, Record, Spool, SpoolError, Stats};
use tokio::sync::{oneshot, watch};
use tracing::{error, warn};

use super::outbox::{HostFact, Outbox};

/// Pause before the disk is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// What one read brings at most.
const READ_BYTES: usize = 2 * 1024 * 1024;
const READ_ITEMS: usize = 16;

/// Where the current boot's numbers stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    /// The current epoch.
    pub(super) epoch: i64,
    /// The number that the next fact gets.
    pub(super) next_seq: u64,
    /// Highest acknowledged number.
    pub(super) acked: u64,
    /// The latest promise: it holds after everything below `next_seq`.
    pub(super) watermark: Option<Timestamp>,
    pub(super) stats: Stats,
}

/// A read that was started.
pub(super) type PendingRead = oneshot::Receiver<Result<Vec<Item>, SpoolError>>;

type Answer<T> = oneshot::Sender<Result<T, SpoolError>>;

enum Request {
    Oldest(Answer<Epoch>),
    Read(i64, u64, Answer<Vec<Item>>),
    Anchor(i64, u64, Answer<u64>),
    Discard(i64, u64, Answer<()>),
}

/// Requests wait here; each caller waits for its answer, so there are as many as callers.
#[derive(Default)]
struct Desk {
    requests: Mutex<VecDeque<Request>>,
    /// The highest acknowledgement per epoch that is not applied yet.
    ack: Mutex<Option<(i64, u64)>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A handle to the thread.
#[derive(Clone)]
pub(super) struct Keeper {
    desk: Arc<Desk>,
    outbox: Outbox,
    tail: watch::Receiver<Tail>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}

/// The keeper is gone: the agent is stopping.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeeperError {
    #[error("the spool's thread has stopped")]
    Gone,
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

impl Keeper {
    pub(super) fn start(spool: Spool, outbox: Outbox) -> Result<Self, std::io::Error> {
        let desk = Arc::new(Desk::default());
        let (sender, tail) = watch::channel(Tail::default());
        let mut worker = Worker {
            spool: Some(spool),
            outbox: outbox.clone(),
            desk: Arc::clone(&desk),
            tail: sender,
            waiting: Vec::new(),
            note: None,
            mark: None,
            trouble: None,
        };
        worker.publish();
        let thread = std::thread::Builder::new()
            .name("spool".to_owned())
            .spawn(move || worker.run())?;
        *lock(&desk.thread) = Some(thread);
        Ok(Self { desk, outbox, tail })
    }

    pub(super) fn tail(&self) -> Tail {
        *self.tail.borrow()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Tail> {
        self.tail.clone()
    }

    pub(super) async fn oldest(&self) -> Result<Epoch, KeeperError> {
        self.ask(Request::Oldest).await
    }

    /// Starts to read; the answer can be waited for beside other things without asking twice.
    pub(super) fn start_read(&self, epoch: i64, seq: u64) -> PendingRead {
        self.request(|answer| Request::Read(epoch, seq, answer))
    }

    pub(super) async fn anchor(&self, epoch: i64, durable: u64) -> Result<u64, KeeperError> {
        self.ask(|answer| Request::Anchor(epoch, durable, answer))
            .await
    }

    pub(super) async fn discard(&self, epoch: i64, seq: u64) -> Result<(), KeeperError> {
        self.ask(|answer| Request::Discard(epoch, seq, answer))
            .await
    }

    /// Frees what is acknowledged, soon.
    pub(super) fn ack(&self, epoch: i64, seq: u64) {
        *lock(&self.desk.ack) = Some((epoch, seq));
        self.outbox.nudge();
    }

    async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Result<T, KeeperError> {
        let reply = self.request(request);
        Ok(reply.await.map_err(|_gone| KeeperError::Gone)??)
    }

    fn request<T>(
        &self,
        request: impl FnOnce(Answer<T>) -> Request,
    ) -> oneshot::Receiver<Result<T, SpoolError>> {
        let (answer, reply) = oneshot::channel();
        lock(&self.desk.requests).push_back(request(answer));
        self.outbox.nudge();
        reply
    }

    /// Makes durable what is in the outbox and ends the thread.
    pub(super) async fn stop(&self) {
        self.outbox.stop();
        let thread = lock(&self.desk.thread).take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                error!("the spool's thread failed");
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Worker {
    spool: Option<Spool>,
    outbox: Outbox,
    desk: Arc<Desk>,
    tail: watch::Sender<Tail>,
    /// Taken from the outbox, not durable yet (the disk refused).
    waiting: Vec<Record>,
    /// The producer's note to them.
    note: Option<Vec<u8>>,
    /// The latest promise that holds after everything appended.
    mark: Option<Timestamp>,
    trouble: Option<String>,
}

impl Worker {
    fn run(mut self) {
        loop {
            // While the disk refuses, nothing more is taken: the outbox keeps its bound.
            let (watermark, stopping) = if self.waiting.is_empty() {
                let taken = self.outbox.take();
                self.waiting = taken.facts.into_iter().map(record).collect();
                self.note = taken.note;
                (taken.watermark, taken.stopping)
            } else {
                std::thread::sleep(RETRY);
                (None, self.outbox.is_stopping())
            };
            let durable = self.append();
            if durable {
                self.mark = self.mark.max(watermark);
            }
            self.serve();
            // Before anyone is told that the outbox is empty: who waits looks at the tail next.
            self.publish();
            if durable {
                self.outbox.done();
            }
            if stopping {
                if !durable {
                    error!(
                        facts = self.waiting.len(),
                        "stopping with facts that the disk refused"
                    );
                }
                return;
            }
        }
    }

    fn append(&mut self) -> bool {
        if self.waiting.is_empty() {
            return true;
        }
        let Some(spool) = &mut self.spool else {
            return false;
        };
        let mark = self.mark.map(Timestamp::as_microsecond);
        match spool.append_noting(&self.waiting, mark, self.note.as_deref()) {
            Ok(_) => {
                self.waiting.clear();
                self.note = None;
                self.trouble = None;
                true
            }
            Err(failure) => {
                self.failed(&failure);
                false
            }
        }
    }

    fn failed(&mut self, failure: &SpoolError) {
        let text = failure.to_string();
        if self.trouble.as_ref() != Some(&text) {
            error!("cannot write the spool: {text}; trying again, facts wait in memory");
        }
        self.trouble = Some(text);
        if !failure.is_damage() {
            return;
        }
        let Some(spool) = self.spool.take() else {
            return;
        };
        match spool.recover() {
            Ok((spool, opened)) => {
                warn!(aside = ?opened.quarantined, "the spool was damaged; began a new one");
                self.spool = Some(spool);
                let now = Timestamp::now();
                let gap = Gap {
                    from: now,
                    to: now,
                    what: GapKind::All,
                    count: None,
                    reason: "the spool was damaged on disk".to_owned(),
                };
                self.waiting.push(record(HostFact {
                    time: now,
                    fact: Fact::Gap(gap),
                }));
            }
            Err(failure) => error!("cannot begin a new spool: {failure}"),
        }
    }

    fn serve(&mut self) {
        let ack = lock(&self.desk.ack).take();
        if let (Some((epoch, seq)), Some(spool)) = (ack, &mut self.spool) {
            match spool.ack(epoch, seq) {
                // An epoch that is over has nothing to free.
                Ok(()) | Err(SpoolError::NoEpoch(_)) => {}
                Err(failure) => self.failed(&failure),
            }
        }
        let requests = std::mem::take(&mut *lock(&self.desk.requests));
        for request in requests {
            let Some(spool) = &mut self.spool else {
                return;
            };
            // Whoever asked may have gone.
            match request {
                Request::Oldest(answer) => drop(answer.send(spool.oldest())),
                Request::Read(epoch, seq, answer) => {
                    drop(answer.send(spool.read_some(epoch, seq, READ_BYTES, READ_ITEMS)));
                }
                Request::Anchor(epoch, durable, answer) => {
                    let shifted = spool.anchor(epoch, durable);
                    let freed = shifted.and_then(|by| spool.ack(epoch, durable).map(|()| by));
                    drop(answer.send(freed));
                }
                Request::Discard(epoch, seq, answer) => {
                    drop(answer.send(spool.discard(epoch, seq)));
                }
            }
        }
    }

    fn publish(&mut self) {
        let Some(spool) = &mut self.spool else {
            return;
        };
        match spool.current() {
            Ok(epoch) => {
                let tail = Tail {
                    epoch: epoch.no,
                    next_seq: epoch.next_seq,
                    acked: epoch.acked,
                    watermark: self.mark,
                    stats: spool.stats(),
                };
                self.tail.send_if_modified(|old| {
                    let changed = *old != tail;
                    *old = tail;
                    changed
                });
            }
            Err(failure) => self.failed(&failure),
        }
    }
}

/// Encodes a fact. One that is too large for the spool becomes a gap: it must not be lost silently.
fn record(HostFact { time, fact }: HostFact) -> Record {
    let mut bytes = block::encode_fact(time, fact);
    if bytes.len() > MAX_RECORD_BYTES {
        let gap = Gap {
            from: time,
            to: time,
            what: GapKind::All,
            count: Some(1),
            reason: format!("a fact of {} bytes was too large to keep", bytes.len()),
        };
        bytes = block::encode_fact(time, Fact::Gap(gap));
    }
    Record {
        bytes,
        stamp: time.as_microsecond(),
    }
}
