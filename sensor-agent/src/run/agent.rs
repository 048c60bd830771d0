//! The running agent: events in, facts out, house-keeping in between.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use keytrail_model::fact::{Fact, TamperKind};
use tokio::sync::watch;
use tracing::{info, warn};

use super::{REFRESH, Stop, TICK, WATERMARK, stopped, tick_clock};
use crate::carry::{Carried, Carrier, LastMark};
use crate::clock;
use crate::health::{self, Health};
use crate::kernel::{KernelEvent, Positions, Sensor};
use crate::pipeline::{Pipeline, Timed};
use crate::seed;
use crate::uplink::{HostFact, Outbox, Uplink};
use crate::vigil::{Vigil, sign};

/// Everything between the kernel and the outbox.
pub(super) struct Agent {
    pub(super) sensor: Sensor,
    pub(super) pipeline: Pipeline,
    pub(super) outbox: Outbox,
    pub(super) vigil: Vigil,
    pub(super) health: Health,
    pub(super) last: LastMark,
    pub(super) carrier: Carrier,
    pub(super) homes: Vec<PathBuf>,
    pub(super) executables: seed::Executables,
    /// What the rings may have back once so many facts are durable.
    pub(super) held: Option<(u64, Positions)>,
    /// Up to where the rings were read when facts last went out.
    pub(super) noted: Positions,
}

impl Agent {
    /// What was there before: what a predecessor left, then what runs.
    pub(super) fn begin(&mut self, scope: Option<&Path>) {
        let watch = self.sensor.watch();
        self.executables.keep_up(&self.pipeline, &watch);
        seed::homes(&mut self.pipeline, &self.homes);
        let carried = self.carrier.read();
        let now = clock::now();
        let coverage = Fact::Coverage(self.sensor.coverage().clone());
        push(&self.outbox, vec![(now, coverage)]);
        let continued = self.sensor.left_behind().cloned();
        if let Some(left) = &continued {
            let told = carried.as_ref().map(Carried::told);
            let by_itself = carried.as_ref().is_none_or(|c| c.ended_by_itself);
            if let Some(carried) = carried {
                self.pipeline.restore(carried.memory);
            }
            let from = self.last.get().unwrap_or(now).min(now);
            let mut signs = health::gaps(&told.unwrap_or_default(), left, from, now);
            signs.extend((!by_itself).then(|| killed(from, now)));
            push(&self.outbox, signs);
        } else {
            // What an older agent left is not of this set.
            self.carrier.forget();
            push(&self.outbox, self.last.gap(now).into_iter().collect());
        }
        // Before looking at what runs: what is found to run then has been told of already.
        let mut events = Vec::new();
        self.sensor.drain(&mut events);
        info!(
            events = events.len(),
            continued = continued.is_some(),
            "begin"
        );
        self.handle(&mut events);
        let mut facts = Vec::new();
        seed::processes(&mut self.pipeline, scope, &mut facts);
        if continued.is_some() {
            self.pipeline.settle(&mut facts);
        }
        push(&self.outbox, facts);
    }

    /// Makes facts of events.
    fn handle(&mut self, events: &mut Vec<KernelEvent>) {
        let mut facts = Vec::new();
        for event in events.drain(..) {
            if !self.vigil.takes(&event) {
                self.pipeline.handle(event, &mut facts);
            }
        }
        if !self.sensor.is_pinned() {
            push(&self.outbox, facts);
            return;
        }
        let positions = self.sensor.positions();
        let note = (!facts.is_empty()).then(|| positions.to_note());
        let facts = facts
            .into_iter()
            .map(|(time, fact)| HostFact { time, fact });
        // What does not fit is counted by the outbox and told as a gap.
        let _counted = self.outbox.push_noting(facts.collect(), note);
        self.noted = positions;
        self.give_back();
    }

    /// Gives the rings back what has become durable.
    fn give_back(&mut self) {
        let (accepted, durable) = self.outbox.progress();
        if let Some((wanted, positions)) = self.held.take() {
            if durable < wanted {
                self.held = Some((wanted, positions));
                return;
            }
            self.sensor.release(&positions);
        }
        if durable == accepted {
            self.sensor.release(&self.noted);
        } else {
            self.held = Some((accepted, self.noted.clone()));
        }
    }

    /// The loop: events in, facts and watermarks out, house-keeping in between.
    pub(super) async fn work(&mut self, uplink: &Uplink, stop: &mut watch::Receiver<Stop>) -> Stop {
        let mut events: Vec<KernelEvent> = Vec::new();
        let (mut ticked, mut refreshed, mut marked) =
            (Instant::now(), Instant::now(), Instant::now());
        loop {
            let wanted = *stop.borrow_and_update();
            if wanted != Stop::Not {
                return wanted;
            }
            let drained = tokio::select! {
                drained = self.sensor.next_batch(&mut events) => drained,
                // The sender lives in `main`; if it is gone, so is the reason to run.
                changed = stop.changed() => {
                    if changed.is_err() { return Stop::Leave }
                    continue
                }
            };
            self.handle(&mut events);
            let mark = self.pipeline.wall(drained.watermark_boot_ns);
            if marked.elapsed() >= WATERMARK {
                marked = Instant::now();
                self.outbox.watermark(mark);
            }
            if ticked.elapsed() >= TICK {
                let elapsed = ticked.elapsed();
                ticked = Instant::now();
                self.tick(elapsed, mark, uplink);
            }
            if refreshed.elapsed() >= REFRESH {
                refreshed = Instant::now();
                self.refresh(mark);
            }
        }
    }

    fn tick(&mut self, elapsed: Duration, mark: Timestamp, uplink: &Uplink) {
        let signs = stopped(elapsed)
            .into_iter()
            .chain(tick_clock(&mut self.pipeline));
        push(&self.outbox, signs.collect());
        push(&self.outbox, self.vigil.look(&mut self.sensor));
        let loss = self.sensor.loss();
        let status = uplink.status();
        let gaps = self
            .health
            .look(loss.clone(), mark, &mut self.pipeline, &status);
        push(&self.outbox, gaps);
        self.last.note(mark);
        if self.sensor.is_pinned() {
            let (accepted, durable) = self.outbox.progress();
            self.carrier.note(&self.pipeline, &loss, accepted);
            self.carrier.publish(durable);
        }
        if self.pipeline.config_was_written() {
            push(&self.outbox, self.pipeline.config_changes(mark));
        }
    }

    fn refresh(&mut self, mark: Timestamp) {
        push(&self.outbox, self.pipeline.sums(mark));
        self.pipeline.files().keep_up();
        push(&self.outbox, self.pipeline.config_changes(mark));
        let watch = self.sensor.watch();
        self.executables.keep_up(&self.pipeline, &watch);
    }

    pub(super) fn end(mut self, how: Stop) {
        if !self.sensor.is_pinned() {
            return;
        }
        if how == Stop::Remove {
            self.carrier.forget();
            match self.sensor.unpin() {
                Ok(()) => info!("what was pinned is removed"),
                Err(error) => warn!("{error}; `sensor-agent unpin` tries again"),
            }
            return;
        }
        self.carrier.end(&self.pipeline, &self.sensor.loss());
        info!("the kernel side goes on recording for the next agent; `sensor-agent unpin` ends it");
    }
}

fn push(outbox: &Outbox, facts: Vec<Timed>) {
    let facts = facts
        .into_iter()
        .map(|(time, fact)| HostFact { time, fact })
        .collect();
    // What does not fit is counted by the outbox and told as a gap.
    let _counted = outbox.push(facts);
}

/// The last agent did not end by itself. Nothing was missed, but somebody may have wanted that.
fn killed(from: Timestamp, now: Timestamp) -> Timed {
    let away = now.duration_since(from).as_secs();
    let detail = format!(
        "the agent was killed or crashed, and was away for {away} s; the kernel side went on recording"
    );
    sign(TamperKind::AgentStopped, detail)
}
