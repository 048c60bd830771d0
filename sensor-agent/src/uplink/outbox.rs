//! Where the agent puts facts: a bounded buffer in memory that the keeper empties every few
//! milliseconds.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use keytrail_model::fact::{Fact, Gap, GapKind};
use tokio::sync::Notify;

/// Facts that wait at most; beyond it new ones are dropped, counted and told as a gap.
pub(super) const CAPACITY: usize = 65_536;
/// A group is made durable once so many facts wait, or [`GROUP_WAIT`] has passed.
const GROUP: usize = 8192;
/// How long the first fact of a group waits for company.
const GROUP_WAIT: Duration = Duration::from_millis(20);

/// One fact as the agent knows it: its number and its host are given further on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFact {
    /// When it happened, by this host's clock.
    pub time: Timestamp,
    /// What happened.
    pub fact: Fact,
}

/// What became of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "dropped facts are counted, but the caller may want to slow down"]
pub struct Pushed {
    /// How many facts did not fit.
    pub dropped: usize,
}

#[derive(Debug, Default)]
struct Pending {
    facts: Vec<HostFact>,
    /// What the producer notes with the last of them.
    note: Option<Vec<u8>>,
    /// Facts taken in so far, and how many of those are durable.
    accepted: u64,
    durable: u64,
    since: Option<Instant>,
    watermark: Option<Timestamp>,
    overflow: Option<Gap>,
    dropped: u64,
    /// The keeper has taken facts that are not durable yet.
    in_hand: bool,
    nudged: bool,
    stopping: bool,
}

#[derive(Debug, Default)]
struct Inner {
    pending: Mutex<Pending>,
    work: Condvar,
    room: Notify,
}

/// The way in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbox {
    inner: Arc<Inner>,
}

/// What the keeper takes in one go.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) facts: Vec<HostFact>,
    pub(super) note: Option<Vec<u8>>,
    pub(super) watermark: Option<Timestamp>,
    pub(super) stopping: bool,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            inner: Arc::new(Inner::default()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.inner
            .pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes facts in, in order. Never blocks; what does not fit is dropped, the oldest stay.
    pub fn push(&self, facts: Vec<HostFact>) -> Pushed {
        self.push_noting(facts, None)
    }

    /// The same, with a note that becomes durable together with them: up to where the producer has
    /// read.
    pub fn push_noting(&self, facts: Vec<HostFact>, note: Option<Vec<u8>>) -> Pushed {
        if facts.is_empty() {
            return Pushed { dropped: 0 };
        }
        let mut pending = self.lock();
        let room = CAPACITY.saturating_sub(pending.facts.len());
        let total = facts.len();
        let mut facts = facts.into_iter();
        let before = pending.facts.len();
        pending.facts.extend(facts.by_ref().take(room));
        pending.accepted += (pending.facts.len() - before) as u64;
        pending.note = note.or(pending.note.take());
        pending.since.get_or_insert_with(Instant::now);
        let mut dropped = 0;
        for fact in facts {
            dropped += 1;
            note_overflow(&mut pending.overflow, fact.time);
        }
        pending.dropped += dropped;
        debug_assert!(pending.facts.len() <= CAPACITY);
        drop(pending);
        self.inner.work.notify_one();
        Pushed {
            dropped: total.saturating_sub(room),
        }
    }

    /// How many facts were taken in so far, and how many of those are durable.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        let pending = self.lock();
        (pending.accepted, pending.durable)
    }

    /// Promises that every fact with an earlier time has been pushed.
    pub fn watermark(&self, time: Timestamp) {
        let mut pending = self.lock();
        pending.watermark = pending.watermark.max(Some(time));
        pending.since.get_or_insert_with(Instant::now);
        drop(pending);
        self.inner.work.notify_one();
    }

    /// Waits until there is room for a good many facts. For producers that can wait.
    pub async fn ready(&self) {
        self.wait(|pending| pending.facts.len() <= CAPACITY / 2)
            .await;
    }

    /// Waits until everything pushed is durable.
    pub(super) async fn emptied(&self) {
        self.wait(|pending| pending.facts.is_empty() && !pending.in_hand)
            .await;
    }

    async fn wait(&self, until: impl Fn(&Pending) -> bool) {
        loop {
            let room = self.inner.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if until(&self.lock()) {
                return;
            }
            room.await;
        }
    }

    /// Facts dropped so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Tells that facts since `from` are gone.
    pub(super) fn lost_before(&self, from: Timestamp, reason: &str) {
        let now = Timestamp::now();
        let gap = Gap {
            from: from.min(now),
            to: now,
            what: GapKind::All,
            count: None,
            reason: reason.to_owned(),
        };
        let told = self.push(vec![HostFact {
            time: now,
            fact: Fact::Gap(gap),
        }]);
        debug_assert_eq!(told.dropped, 0, "only called on an empty outbox");
    }

    /// Wakes the keeper for something else than facts.
    pub(super) fn nudge(&self) {
        self.lock().nudged = true;
        self.inner.work.notify_one();
    }

    pub(super) fn stop(&self) {
        self.lock().stopping = true;
        self.inner.work.notify_one();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Blocks until a group is complete, the keeper is nudged or it is to stop.
    pub(super) fn take(&self) -> Taken {
        let mut pending = self.lock();
        loop {
            let age = pending.since.map(|since| since.elapsed());
            let complete = pending.facts.len() >= GROUP || age.is_some_and(|age| age >= GROUP_WAIT);
            if complete || pending.nudged || pending.stopping {
                break;
            }
            let condition = &self.inner.work;
            pending = match age {
                Some(age) => {
                    let wait = GROUP_WAIT.saturating_sub(age);
                    let woken = condition.wait_timeout(pending, wait);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => condition
                    .wait(pending)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
        pending.nudged = false;
        pending.since = None;
        let mut facts = std::mem::take(&mut pending.facts);
        if let Some(gap) = pending.overflow.take() {
            facts.push(HostFact {
                time: gap.to,
                fact: Fact::Gap(gap),
            });
        }
        pending.in_hand = !facts.is_empty();
        let taken = Taken {
            facts,
            note: pending.note.take(),
            watermark: pending.watermark.take(),
            stopping: pending.stopping,
        };
        drop(pending);
        self.inner.room.notify_waiters();
        taken
    }

    /// The keeper is done with what it took.
    pub(super) fn done(&self) {
        let mut pending = self.lock();
        pending.in_hand = false;
        // Only one group is in hand at a time, and it is everything that is not pending.
        pending.durable = pending.accepted - pending.facts.len() as u64;
        drop(pending);
        self.inner.room.notify_waiters();
    }
}

fn note_overflow(overflow: &mut Option<Gap>, time: Timestamp) {
    match overflow {
        Some(gap) => {
            gap.from = gap.from.min(time);
            gap.to = gap.to.max(time);
            gap.count = gap.count.map(|count| count + 1);
        }
        None => {
            *overflow = Some(Gap {
                from: time,
                to: time,
                what: GapKind::All,
                count: Some(1),
                reason: "the agent's outbox was full".to_owned(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use keytrail_model::fact::ConnectionClosed;
    use keytrail_model::ids::ConnectionId;

    use super::*;

    fn fact(id: u64) -> HostFact {
        HostFact {
            time: Timestamp::from_millisecond(i64::try_from(id).unwrap()).unwrap(),
            fact: Fact::ConnectionClosed(ConnectionClosed {
                id: ConnectionId(id),
                bytes_sent: 0,
                bytes_received: 0,
            }),
        }
    }

    #[test]
    fn what_does_not_fit_is_counted_and_told() {
        let outbox = Outbox::new();
        let all = u64::try_from(CAPACITY).unwrap() + 3;
        let pushed = outbox.push((0..all).map(fact).collect());
        assert_eq!(pushed.dropped, 3);
        assert_eq!(outbox.dropped(), 3);
        let taken = outbox.take();
        assert_eq!(taken.facts.len(), CAPACITY + 1);
        let Fact::Gap(gap) = &taken.facts[CAPACITY].fact else {
            panic!("expected a gap");
        };
        assert_eq!(gap.count, Some(3));
        assert_eq!(gap.from, fact(all - 3).time);
        assert_eq!(gap.to, fact(all - 1).time);
    }

    #[test]
    fn a_watermark_comes_with_the_facts_before_it() {
        let outbox = Outbox::new();
        assert_eq!(outbox.push(vec![fact(1)]).dropped, 0);
        outbox.watermark(fact(2).time);
        let taken = outbox.take();
        assert_eq!(taken.facts.len(), 1);
        assert_eq!(taken.watermark, Some(fact(2).time));
    }
}
