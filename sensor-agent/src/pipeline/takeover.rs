//! From one agent to the next: what the first knew, and how the second goes on from there.

use std::collections::HashSet;

use keytrail_model::credential::CredentialId;
use keytrail_model::ids::ProcessKey;
use serde::{Deserialize, Serialize};

use super::{Pipeline, Timed, describe, process_key};
use crate::identity::snapshot::Snapshot;
use crate::kernel::KernelEvent;
use crate::tree::proc::ProcEntry;

/// What a pipeline knows beyond its settings. No secrets: credentials by their identifiers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    identity: Snapshot,
    held: Vec<(ProcessKey, Vec<CredentialId>)>,
}

impl Pipeline {
    /// What the next agent must know.
    #[must_use]
    pub fn memory(&self) -> Memory {
        Memory {
            identity: self.identity.snapshot(),
            held: self.held.all(),
        }
    }

    /// Counts what changes [`Pipeline::memory`].
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Takes over what a predecessor knew. Until [`Pipeline::settle`], events are what it left.
    pub fn restore(&mut self, memory: Memory) {
        self.taking_over = true;
        for (unit, credentials) in memory.held {
            for credential in credentials {
                self.held.add(unit, &credential);
            }
        }
        for info in self.identity.restore(memory.identity, self.clock.wall(0)) {
            self.look_after(&info);
        }
    }

    /// A process of which only what it did is left: its predecessor knew it and could not tell, and
    /// it is gone. What it did is told as that of a process that nothing is known about.
    pub(super) fn meet(&mut self, event: &KernelEvent, out: &mut Vec<Timed>) {
        let head = event.head();
        if self.nobody.contains(&process_key(head.process)) {
            if let KernelEvent::Fork { child, .. } = event {
                self.nobody.insert(process_key(*child));
            }
            return;
        }
        let acts = !matches!(
            event,
            KernelEvent::Exec(_)
                | KernelEvent::Exit { .. }
                | KernelEvent::File(_)
                | KernelEvent::ProcessAccess(_)
        );
        if acts && !self.identity.is_tracked(process_key(head.process)) {
            let time = self.wall(head.ts_boot_ns);
            self.adopt(head, time, out);
        }
    }

    /// Ends taking over: everything that was left has been handled, and running agents have been
    /// looked for. Whoever ended unseen is let go of, and whoever the kernel still tracks is known
    /// again, or not tracked any more.
    pub fn settle(&mut self, out: &mut Vec<Timed>) {
        self.taking_over = false;
        self.nobody = HashSet::new();
        let gone = self.identity.forget_gone();
        let now = crate::clock::now();
        let mut unknown = 0;
        for (process, flags) in self.watch.tracked() {
            let key = process_key(process);
            if self.identity.is_tracked(key) {
                continue;
            }
            let Some(entry) = ProcEntry::open(key) else {
                self.watch.untrack(process);
                continue;
            };
            let mut info = describe(Some(&entry), key, self.wall(key.start_ns), true);
            info.parent = ProcEntry::open_pid(entry.parent_pid()).map(|parent| parent.key());
            let holds = flags & keytrail_abi::maps::TRACK_HOLDER != 0
                || self.identity.holds_credential(&info);
            let placed = match self.identity.on_exec(&info) {
                None if holds => self.identity.adopt(&info),
                placed => placed,
            };
            match placed {
                Some(placed) => {
                    unknown += 1;
                    self.placed(&info, placed, now, out);
                }
                None => self.watch.untrack(process),
            }
        }
        self.watch.drop_inherited();
        tracing::info!(gone, unknown, "took over from the last agent");
    }
}
