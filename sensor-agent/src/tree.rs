//! The tree of tracked processes: who started whom, as the kernel said it at fork.
//!
//! Parentage is recorded when it happens and never read back later: a child whose parent has died
//! is given to init, and then its present parent says nothing. Keys carry the start time, so a
//! reused pid is another process.

pub mod input;
pub mod proc;
pub mod units;

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;

use jiff::Timestamp;
use keytrail_model::ids::ProcessKey;
use keytrail_model::process::{Package, ProcessSummary};
use serde::{Deserialize, Serialize};

pub use input::{ExecInfo, FdKind, RawArgv, SecretEnv};

/// Longest lineage reported.
pub const MAX_LINEAGE: usize = 16;
/// Most arguments' text kept of one process, characters.
const MAX_EXE: usize = 1024;

/// Bounds of the tree.
#[derive(Clone, Copy, Debug)]
pub struct TreeLimits {
    /// Processes alive.
    pub live: usize,
    /// Processes that have ended and are kept for the lineage of others.
    pub exited: usize,
}

impl Default for TreeLimits {
    fn default() -> Self {
        // About 600 bytes a process: 12 MiB when full.
        Self {
            live: 16_384,
            exited: 4_096,
        }
    }
}

/// What the tree could not keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeCounters {
    /// Ended processes forgotten while nobody descended from them.
    pub forgotten: u64,
    /// Ended processes forgotten although a kept one descends from them: lineages are cut there.
    pub lineages_cut: u64,
    /// Live processes not kept because the tree was full.
    pub refused: u64,
}

/// One process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    /// Its parent at fork.
    pub parent: Option<ProcessKey>,
    /// What leaves the host about it.
    pub summary: ProcessSummary,
    /// Executable.
    #[serde(serialize_with = "lossy")]
    pub exe: PathBuf,
    /// Real uid.
    pub uid: u32,
    /// Audit login uid.
    pub login_uid: Option<u32>,
    /// Path in the unified control group hierarchy.
    pub cgroup: Option<String>,
    /// Session.
    pub sid: Option<u32>,
    /// Descriptors 0 and 1 at exec.
    pub stdio: [FdKind; 2],
    /// The unit it belongs to.
    pub unit: ProcessKey,
    /// The package that it runs.
    pub package: Option<Package>,
    /// It is a runtime running a script.
    pub interpreter: bool,
    /// It has called exec since it was forked.
    pub execed: bool,
    exited: bool,
    #[serde(skip)]
    children: u32,
}

/// Another agent can do without the odd bytes of a path, and not without the process.
fn lossy<S: serde::Serializer>(path: &std::path::Path, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&path.to_string_lossy())
}

impl Node {
    /// A node that nothing more is known about.
    #[must_use]
    pub fn new(key: ProcessKey, parent: Option<ProcessKey>, started: Timestamp) -> Self {
        Self {
            parent,
            summary: ProcessSummary {
                key,
                exe: String::new(),
                argv: Vec::new(),
                started,
            },
            exe: PathBuf::new(),
            uid: u32::MAX,
            login_uid: None,
            cgroup: None,
            sid: None,
            stdio: [FdKind::Unknown; 2],
            unit: key,
            package: None,
            interpreter: false,
            execed: false,
            exited: false,
            children: 0,
        }
    }

    /// The same program in a new process.
    #[must_use]
    pub(crate) fn forked(self) -> Self {
        Self {
            exited: false,
            children: 0,
            execed: false,
            ..self
        }
    }

    /// The same process in another tree, which has not seen its exit.
    #[must_use]
    pub(crate) fn restored(self) -> Self {
        Self {
            exited: false,
            children: 0,
            ..self
        }
    }

    /// True after its exit was seen.
    #[must_use]
    pub fn has_exited(&self) -> bool {
        self.exited
    }
}

/// All tracked processes, bounded.
#[derive(Debug, Default)]
pub struct ProcessTree {
    nodes: HashMap<ProcessKey, Node>,
    /// The key of the live process with this pid: finds processes seeded from `/proc`, whose start
    /// time is only known to 10 ms.
    by_pid: HashMap<u32, ProcessKey>,
    ended: VecDeque<ProcessKey>,
    limits: TreeLimits,
    counters: TreeCounters,
    removed: Vec<(ProcessKey, ProcessKey)>,
}

impl ProcessTree {
    /// An empty tree.
    #[must_use]
    pub fn new(limits: TreeLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Adds or replaces a process. False when the tree is full (counted).
    pub fn insert(&mut self, node: Node) -> bool {
        let key = node.summary.key;
        let children = self.nodes.get(&key).map_or(0, |known| known.children);
        if !self.nodes.contains_key(&key) {
            let live = self.nodes.len().saturating_sub(self.ended.len());
            if live >= self.limits.live {
                self.counters.refused += 1;
                return false;
            }
            if let Some(parent) = node.parent.and_then(|p| self.nodes.get_mut(&p)) {
                parent.children = parent.children.saturating_add(1);
            }
        }
        self.by_pid.insert(key.pid, key);
        self.nodes.insert(key, Node { children, ..node });
        true
    }

    /// A process seeded from `/proc` takes on the kernel's exact key the first time that one is
    /// seen. Returns the key under which it was known before, if that differs.
    pub fn take_exact_key(&mut self, key: ProcessKey) -> Option<ProcessKey> {
        if self.nodes.contains_key(&key) {
            return None;
        }
        let seeded = *self.by_pid.get(&key.pid)?;
        let rounded = seeded.start_ns == proc::start_tick(seeded) * proc::TICK_NS;
        if !rounded || proc::start_tick(seeded) != proc::start_tick(key) {
            return None;
        }
        self.rename(seeded, key);
        Some(seeded)
    }

    fn rename(&mut self, old: ProcessKey, new: ProcessKey) {
        let Some(mut node) = self.nodes.remove(&old) else {
            return;
        };
        node.summary.key = new;
        self.nodes.insert(new, node);
        self.by_pid.insert(new.pid, new);
        for node in self.nodes.values_mut() {
            if node.parent == Some(old) {
                node.parent = Some(new);
            }
            if node.unit == old {
                node.unit = new;
            }
        }
        self.ended
            .iter_mut()
            .filter(|k| **k == old)
            .for_each(|k| *k = new);
    }

    /// The process with exactly this key.
    #[must_use]
    pub fn get(&self, key: ProcessKey) -> Option<&Node> {
        self.nodes.get(&key)
    }

    /// Every process.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// The live process with this pid.
    #[must_use]
    pub fn live_pid(&self, pid: u32) -> Option<ProcessKey> {
        self.by_pid.get(&pid).copied()
    }

    /// Changes a process in place.
    pub fn get_mut(&mut self, key: ProcessKey) -> Option<&mut Node> {
        self.nodes.get_mut(&key)
    }

    /// Notes an exit. The process is kept while others descend from it, within the bound.
    pub fn exit(&mut self, key: ProcessKey) {
        let Some(node) = self.nodes.get_mut(&key) else {
            return;
        };
        if std::mem::replace(&mut node.exited, true) {
            return;
        }
        if self.by_pid.get(&key.pid) == Some(&key) {
            self.by_pid.remove(&key.pid);
        }
        self.ended.push_back(key);
        while self.ended.len() > self.limits.exited {
            self.forget_one();
        }
    }

    /// Forgets the longest-ended process from which nobody descends; when the oldest 64 all have
    /// descendants, the oldest of them.
    fn forget_one(&mut self) {
        let childless = |key: &ProcessKey| self.nodes.get(key).is_none_or(|n| n.children == 0);
        let at = self.ended.iter().take(64).position(childless);
        let Some(key) = self.ended.remove(at.unwrap_or(0)) else {
            return;
        };
        match at {
            Some(_) => self.counters.forgotten += 1,
            None => self.counters.lineages_cut += 1,
        }
        if let Some(node) = self.nodes.remove(&key) {
            self.removed.push((key, node.unit));
            if let Some(parent) = node.parent.and_then(|p| self.nodes.get_mut(&p)) {
                parent.children = parent.children.saturating_sub(1);
            }
        }
    }

    /// Processes forgotten since the last call, each with its unit.
    pub fn take_removed(&mut self) -> Vec<(ProcessKey, ProcessKey)> {
        std::mem::take(&mut self.removed)
    }

    /// The process and its ancestors, nearest first, up to and including `stop`; at most
    /// [`MAX_LINEAGE`]. A longer chain keeps its two ends: the last entry is `stop` then.
    #[must_use]
    pub fn lineage(&self, key: ProcessKey, stop: Option<ProcessKey>) -> Vec<ProcessSummary> {
        let mut lineage = Vec::new();
        let mut at = Some(key);
        // A chain cannot be longer than the tree: a wrong record must not turn into a loop.
        for _ in 0..self.nodes.len() {
            let Some(node) = at.and_then(|k| self.nodes.get(&k)) else {
                break;
            };
            let last = Some(node.summary.key) == stop;
            if lineage.len() < MAX_LINEAGE {
                lineage.push(node.summary.clone());
            } else if last && let Some(end) = lineage.last_mut() {
                *end = node.summary.clone();
            }
            if last {
                break;
            }
            at = node.parent;
        }
        lineage
    }

    /// What could not be kept.
    #[must_use]
    pub fn counters(&self) -> TreeCounters {
        self.counters
    }

    /// Processes in the tree, ended ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True when nothing is tracked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

/// An executable's path as it leaves the host.
#[must_use]
pub fn exe_text(exe: &std::path::Path) -> String {
    exe.to_string_lossy().chars().take(MAX_EXE).collect()
}

#[cfg(test)]
mod tests;
