//! Taking on what was running before the sensor started.

use jiff::Timestamp;
use keytrail_model::ids::ProcessKey;
use procfs::process::all_processes;

use super::Identity;
use crate::tree::ExecInfo;
use crate::tree::proc::{ProcEntry, start_tick};

/// Most processes looked at.
const MAX_PROCESSES: usize = 65_536;

impl Identity {
    /// Looks through `/proc` for agents (and clients of credentials) that are already running, and
    /// their descendants, among the processes that `in_scope` accepts. `boot` is the wall-clock
    /// time at which the boot-time clock was zero.
    ///
    /// Returns each process that is tracked now, parents before children, with its environment.
    /// Start times are rounded to 10 ms; the first record of the kernel about a process gives its
    /// exact key (see [`crate::tree::ProcessTree::take_exact_key`]).
    pub fn seed(&mut self, boot: Timestamp, in_scope: impl Fn(u32) -> bool) -> Vec<ExecInfo> {
        let mut entries: Vec<ProcEntry> = all_processes()
            .into_iter()
            .flatten()
            .take(MAX_PROCESSES)
            .filter_map(|process| u32::try_from(process.ok()?.pid()).ok())
            .filter(|pid| in_scope(*pid))
            .filter_map(ProcEntry::open_pid)
            .collect();
        entries.sort_by_key(|entry| (entry.key().start_ns, entry.key().pid));
        let mut seeded = Vec::new();
        for entry in &entries {
            if self.knows(entry.key()) {
                continue;
            }
            let parent = self.parent_of(entry, &entries);
            let Some(mut info) = ExecInfo::from_proc(entry, parent, boot) else {
                continue;
            };
            // The environment is read only of what is ours: first without it.
            let ours = parent.is_some_and(|p| self.is_tracked(p)) || self.is_of_interest(&info);
            if !ours {
                continue;
            }
            info.env = entry.env();
            if self.on_exec(&info).is_some() {
                seeded.push(info);
            }
        }
        seeded
    }

    /// True when a record of the kernel, or a predecessor, has told of this process already.
    fn knows(&self, key: ProcessKey) -> bool {
        let known = self.tree.live_pid(key.pid);
        known.is_some_and(|known| start_tick(known) == start_tick(key))
    }

    fn parent_of(&self, entry: &ProcEntry, entries: &[ProcEntry]) -> Option<ProcessKey> {
        let pid = entry.parent_pid();
        let known = self.tree.live_pid(pid);
        known.or_else(|| {
            entries
                .iter()
                .find(|e| e.key().pid == pid)
                .map(ProcEntry::key)
        })
    }

    fn is_of_interest(&self, info: &ExecInfo) -> bool {
        let launch = crate::agents::recognise::launch_of(info.argv.args(), &info.exe);
        self.recognise(info, &launch).is_some() || self.client(info)
    }
}
