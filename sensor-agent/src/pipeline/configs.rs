//! Configurations of agents: who wrote them, and what changed.

use jiff::Timestamp;
use keytrail_model::fact::{Fact, RequestEdge};
use keytrail_model::ids::ProcessKey;

use super::{Head, Pipeline, Timed, process_key};
use crate::credentials::WatchTarget;
use crate::redact::redact_text;
use crate::tree::proc::ProcEntry;

impl Pipeline {
    /// Compares every configuration of agents with what it was; `now` is when the changes are told
    /// (they happened since the last look).
    pub fn config_changes(&mut self, now: Timestamp) -> Vec<Timed> {
        let agents = &self.identity.knowledge().agents;
        let changes = self.drift.look(agents, self.files.places());
        self.counters.facts += changes.len() as u64;
        changes
            .into_iter()
            .map(|change| {
                tracing::info!(
                    path = change.path,
                    change = change.change,
                    entry = change.entry,
                    by_agent = change.by_agent,
                    "an agent's configuration changed"
                );
                (now, Fact::ConfigChanged(Box::new(change)))
            })
            .collect()
    }

    /// True when it is time to look: somebody opened a configuration for writing since the last
    /// look, or there is a new place whose present state is not known yet.
    #[must_use]
    pub fn config_was_written(&self) -> bool {
        self.drift.has_writers() || self.files.places().count() != self.drift.places()
    }

    /// A watched file was opened for writing. Of a configuration of agents it is remembered who
    /// that was, so that what changes in it has an author.
    pub(super) fn written(
        &mut self,
        target: &WatchTarget,
        head: &Head,
        time: Timestamp,
        out: &mut Vec<Timed>,
    ) {
        if target.form.format.is_request() {
            self.asked(target, head, time, out);
            return;
        }
        if !target.form.format.is_config() {
            return;
        }
        let key = process_key(head.process);
        if !self.identity.is_tracked(key) {
            self.adopt(head, time, out);
        }
        if let Some(actor) = self.identity.actor_for(key) {
            self.drift.wrote(&target.path, actor);
        }
    }
}

impl Pipeline {
    /// A tracked process writes what a daemon will act on: that is a request like any other.
    fn asked(&mut self, target: &WatchTarget, head: &Head, time: Timestamp, out: &mut Vec<Timed>) {
        let process = process_key(head.process);
        let Some((unit, _)) = self.identity.unit_of(process) else {
            self.counters.of_nobody += 1;
            return;
        };
        let through = redact_text(&target.path.to_string_lossy());
        if self.edges.fresh(unit, &through, time) {
            let edge = RequestEdge {
                process,
                unit,
                daemon: target
                    .form
                    .store
                    .clone()
                    .unwrap_or_else(|| "other".to_owned()),
                through,
            };
            out.push((time, Fact::RequestEdge(edge)));
        }
    }
}

/// True when the process is the store's own program (a browser with its cookies): what it does
/// with it is its normal working, and following it would cost much and tell nothing.
pub(super) fn is_owner(target: &WatchTarget, key: ProcessKey) -> bool {
    !target.owners.is_empty()
        && ProcEntry::open(key)
            .and_then(|entry| entry.exe())
            .is_some_and(|(exe, _)| target.is_owner(&exe))
}
