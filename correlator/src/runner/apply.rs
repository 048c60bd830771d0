//! One group of work: record, apply, commit, answer, announce.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use keytrail_join::baseline::policy::Policy;
use keytrail_join::{Effect, Input};
use keytrail_model::alert::Alert;
use keytrail_model::fact::{Fact, Watermark};
use keytrail_model::ids::{AlertId, BootId, HostId};

use super::handle::{AlertChange, UsesReply};
use super::work::{Next, Reply, UsesBatch, Work};
use super::{IDLE_TICK, Runner, RunnerError, recover};
use crate::clock;
use crate::ingest::sink::IngestBatch;
use crate::store::{Batch, Document, StoreError};

/// Answers that wait for the commit.
enum Waiting {
    /// Nothing but the commit is waited for.
    Ingest(Reply<()>),
    Uses(Reply<UsesReply>, UsesReply),
}

/// What one group brings.
#[derive(Default)]
struct Batches {
    ingest: Vec<IngestBatch>,
    uses: Vec<UsesBatch>,
    policies: Vec<Policy>,
}

/// What one group adds up to while its transaction is open.
#[derive(Default)]
struct Group {
    inputs: Vec<Input>,
    /// The latest of each boot: earlier promises are contained in it.
    watermarks: BTreeMap<(HostId, BootId), Watermark>,
    events: u64,
    duplicate_events: u64,
    uses: UsesReply,
}

impl Runner {
    /// Does a group of work.
    pub(super) fn take(&mut self, group: Vec<Work>) -> Next {
        let now = clock::now();
        let mut next = Next::Go;
        let mut ingest = Vec::new();
        let mut uses = Vec::new();
        let mut policies = Vec::new();
        let mut later: Vec<Work> = Vec::new();
        for work in group {
            match work {
                Work::Ingest(batch, reply) => ingest.push((*batch, reply)),
                Work::Uses(batch, reply) => uses.push((batch, reply)),
                Work::Policy(policy, reply) => policies.push((policy, reply)),
                Work::Pulse => {}
                Work::Abandon => return Next::Abandon,
                Work::Credentials(_)
                | Work::Lineage(..)
                | Work::Baselines(..)
                | Work::Document(..)
                | Work::Stop(_) => later.push(work),
            }
        }
        self.take_data(now, ingest, uses, policies);
        for work in later {
            if self.answer(now, work) == Next::Stop {
                next = Next::Stop;
            }
        }
        self.upkeep(now);
        next
    }

    /// Queries, after the data that was queued with them.
    fn answer(&mut self, now: Timestamp, work: Work) -> Next {
        // A reader that no longer waits for its answer is no error.
        match work {
            Work::Credentials(reply) => {
                let all = self.engine.as_ref().map(|e| e.credentials());
                drop(reply.send(all.unwrap_or_default()));
            }
            Work::Lineage(id, reply) => {
                let lineage = self.engine.as_ref().and_then(|e| e.lineage(&id));
                drop(reply.send(lineage));
            }
            Work::Baselines(only, reply) => {
                let engine = self.engine.as_ref();
                let all = engine.map(|e| e.baselines(only.as_ref()));
                drop(reply.send(all.unwrap_or_default()));
            }
            Work::Document(document, reply) => {
                let stored = self.put_document(now, &document);
                if let Err(error) = &stored {
                    tracing::error!(%error, "the store did not take an import");
                }
                drop(reply.send(stored.map_err(RunnerError::from)));
            }
            Work::Stop(reply) => {
                if reply.send(()).is_err() {
                    tracing::debug!("nobody waits for the runner's end");
                }
                return Next::Stop;
            }
            Work::Ingest(..) | Work::Uses(..) | Work::Policy(..) | Work::Pulse | Work::Abandon => {}
        }
        Next::Go
    }

    fn put_document(&mut self, now: Timestamp, document: &Document) -> Result<(), StoreError> {
        let batch = self.store.begin(now)?;
        batch.put_document(document)?;
        batch.commit()?;
        self.index.knowledge().install(document);
        Ok(())
    }

    fn take_data(
        &mut self,
        now: Timestamp,
        ingest: Vec<(IngestBatch, Reply<()>)>,
        uses: Vec<(UsesBatch, Reply<UsesReply>)>,
        policies: Vec<(Policy, Reply<()>)>,
    ) {
        let tick = self.tick_due(now);
        if ingest.is_empty() && uses.is_empty() && policies.is_empty() && !tick {
            return;
        }
        let mut waiting = Vec::with_capacity(ingest.len() + uses.len());
        let mut batches = Batches::default();
        for (batch, reply) in ingest {
            batches.ingest.push(batch);
            waiting.push(Waiting::Ingest(reply));
        }
        for (batch, reply) in uses {
            batches.uses.push(batch);
            waiting.push(Waiting::Uses(reply, UsesReply::default()));
        }
        for (policy, reply) in policies {
            batches.policies.push(policy);
            waiting.push(Waiting::Ingest(reply));
        }
        let replies = waiting.iter_mut().filter_map(|waiting| match waiting {
            Waiting::Uses(_, reply) => Some(reply),
            Waiting::Ingest(_) => None,
        });
        match self.commit(now, tick, &batches, replies) {
            Ok(changes) => {
                self.announce(changes);
                for waiting in waiting {
                    waiting.done();
                }
            }
            Err(error) => {
                // The operator has seen inputs that the store has not: it must be rebuilt.
                self.engine = None;
                self.counters.runner_commit_failures.one();
                tracing::error!(%error, "the store did not take a batch; senders will try again");
                for waiting in waiting {
                    waiting.failed(&error);
                }
            }
        }
    }

    /// Time is an input too: recorded every second while data flows, seldom when nothing happens.
    fn tick_due(&self, now: Timestamp) -> bool {
        let since = now.duration_since(self.last_tick);
        since >= IDLE_TICK || (self.inputs_since_tick > 0 && since.as_secs() >= 1)
    }

    fn commit<'r>(
        &mut self,
        now: Timestamp,
        tick: bool,
        batches: &Batches,
        mut replies: impl Iterator<Item = &'r mut UsesReply>,
    ) -> Result<Vec<AlertChange>, RunnerError> {
        let mut engine = match self.engine.take() {
            Some(engine) => engine,
            None => recover::restore(&mut self.store, &self.options.settings, now)?,
        };
        let mut group = Group::default();
        let mut batch = self.store.begin(now)?;
        for one in &batches.ingest {
            group.host(&batch, one)?;
        }
        for one in &batches.uses {
            let reply = group.uses(&batch, one)?;
            if let Some(slot) = replies.next() {
                *slot = reply;
            }
        }
        let watermarks = std::mem::take(&mut group.watermarks);
        let watermark_count = watermarks.len() as u64;
        group
            .inputs
            .extend(watermarks.into_values().map(Input::Watermark));
        group.inputs.extend(batches.policies.iter().map(|policy| {
            let policy = policy.clone();
            Input::Policy { time: now, policy }
        }));
        if tick {
            group.inputs.push(Input::Tick { time: now });
        }
        batch.append(&group.inputs)?;
        let mut effects = Vec::new();
        for input in &group.inputs {
            engine.apply(input, &mut effects);
        }
        let staged = self.index.stage(&group.inputs, &effects, now);
        let changes = store_effects(&mut batch, effects)?;
        batch.put_graph(&staged)?;
        batch.commit()?;
        self.index.install(staged);
        self.engine = Some(engine);
        self.count(now, tick, &group, watermark_count);
        Ok(changes)
    }

    fn count(&mut self, now: Timestamp, tick: bool, group: &Group, watermarks: u64) {
        let inputs = group.inputs.len() as u64;
        self.unsaved += inputs;
        self.inputs_since_tick += inputs;
        if tick {
            self.last_tick = now;
            self.inputs_since_tick = 0;
        }
        let counters = &self.counters;
        counters.runner_commits.one();
        counters.runner_inputs.add(inputs);
        counters.ingest_events.add(group.events);
        counters.ingest_duplicates.add(group.duplicate_events);
        counters.ingest_watermarks.add(watermarks);
        counters.uses_new.add(group.uses.new);
        counters.uses_duplicate.add(group.uses.duplicate);
    }

    fn announce(&self, changes: Vec<AlertChange>) {
        for change in changes {
            self.counters.alerts_changed.one();
            let alert = &change.alert;
            tracing::info!(
                alert = %alert.id,
                verdict = %alert.verdict,
                severity = alert.severity,
                credential = %alert.credential,
                revision = change.revision,
                title = %keytrail_model::text::shown(&alert.title, 400),
                "alert changed"
            );
            // No subscriber is no error.
            drop(self.feed.send(Arc::new(change)));
        }
    }
}

impl Group {
    /// Facts of one host: those above its position.
    fn host(&mut self, batch: &Batch<'_>, one: &IngestBatch) -> Result<(), StoreError> {
        let position = batch.position(&one.host, one.boot)?;
        let mut fresh = 0;
        let mut coverage = None;
        for event in &one.events {
            if event.id.seq <= position {
                self.duplicate_events += 1;
                continue;
            }
            fresh += 1;
            match &event.fact {
                Fact::Coverage(now) => coverage = Some(now),
                Fact::Gap(gap) => batch.put_gap(&one.host, gap)?,
                Fact::Exposure(_)
                | Fact::ConnectionOpened(_)
                | Fact::ConnectionNamed(_)
                | Fact::ConnectionClosed(_)
                | Fact::ProcessStarted(_)
                | Fact::ProcessExited(_)
                | Fact::Listening(_)
                | Fact::Accepted(_)
                | Fact::RequestEdge(_)
                | Fact::NameLookups(_)
                | Fact::ConfigChanged(_)
                | Fact::Tampering(_) => {}
            }
            self.inputs.push(Input::Host(event.clone()));
        }
        self.events += fresh;
        let last = one.last_seq.max(position);
        batch.set_position(&one.host, one.boot, last)?;
        let watermark = one.watermark.as_ref();
        batch.put_host(&one.host, one.boot, last, fresh, watermark, coverage)?;
        if let Some(watermark) = watermark {
            self.watermarks
                .insert((one.host.clone(), one.boot), watermark.clone());
        }
        Ok(())
    }

    /// Uses from a source: those not seen before.
    fn uses(&mut self, batch: &Batch<'_>, one: &UsesBatch) -> Result<UsesReply, StoreError> {
        let mut reply = UsesReply::default();
        for usage in &one.uses {
            if batch.remember_record(&usage.id)? {
                reply.new += 1;
                self.inputs.push(Input::Use(usage.clone()));
            } else {
                reply.duplicate += 1;
            }
        }
        if let Some(file) = &one.file {
            batch.mark_file(file)?;
        }
        if let Some(cursor) = &one.cursor {
            batch.put_cursor(cursor)?;
            batch.forget_cursors(&cursor.source, &one.forgotten)?;
        }
        self.uses.new += reply.new;
        self.uses.duplicate += reply.duplicate;
        Ok(reply)
    }
}

/// Stores effects; of several states of one alert only the last counts.
pub(super) fn store_effects(
    batch: &mut Batch<'_>,
    effects: Vec<Effect>,
) -> Result<Vec<AlertChange>, StoreError> {
    let mut order: Vec<AlertId> = Vec::new();
    let mut alerts: BTreeMap<AlertId, Box<Alert>> = BTreeMap::new();
    for effect in effects {
        match effect {
            Effect::Alert(alert) => {
                order.retain(|id| *id != alert.id);
                order.push(alert.id);
                alerts.insert(alert.id, alert);
            }
            Effect::Use(decision) => batch.put_use(&decision)?,
        }
    }
    let mut changes = Vec::new();
    for id in order {
        let Some(alert) = alerts.remove(&id) else {
            continue;
        };
        if let Some(revision) = batch.put_alert(&alert)? {
            changes.push(AlertChange {
                revision,
                alert: *alert,
            });
        }
    }
    Ok(changes)
}

impl Waiting {
    fn done(self) {
        // A sender that no longer waits gets its answer from the position next time.
        match self {
            Self::Ingest(reply) => drop(reply.send(Ok(()))),
            Self::Uses(reply, answer) => drop(reply.send(Ok(answer))),
        }
    }

    fn failed(self, error: &RunnerError) {
        let error = RunnerError::Unavailable(error.to_string());
        match self {
            Self::Ingest(reply) => drop(reply.send(Err(error))),
            Self::Uses(reply, _) => drop(reply.send(Err(error))),
        }
    }
}
