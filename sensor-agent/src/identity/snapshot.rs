//! What a later agent must know to go on: processes and units as they were, without secrets (command
//! lines are kept as they leave the host, of environments nothing).

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use keytrail_model::credential::CredentialId;
use keytrail_model::ids::ProcessKey;
use keytrail_model::process::{AgentIdentity, McpServer, UnitKind};
use serde::{Deserialize, Serialize};

use super::Identity;
use crate::tree::proc::ProcEntry;
use crate::tree::units::Unit;
use crate::tree::{ExecInfo, FdKind, Node};

/// See the module's documentation.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
    units: Vec<UnitRecord>,
    /// Parents before children.
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct UnitRecord {
    root: ProcessKey,
    kind: UnitKind,
    agent: Option<AgentIdentity>,
    server: Option<McpServer>,
    granted: Vec<String>,
    manifest_seen: bool,
    agent_sid: Option<u32>,
    agent_stdio: [FdKind; 2],
    held: Vec<(CredentialId, String)>,
}

impl From<&Unit> for UnitRecord {
    fn from(unit: &Unit) -> Self {
        let mut held: Vec<_> = unit.held.iter().cloned().collect();
        held.sort();
        Self {
            root: unit.root,
            kind: unit.kind,
            agent: unit.agent.as_deref().cloned(),
            server: unit.server.clone(),
            granted: unit.granted.clone(),
            manifest_seen: unit.manifest_seen,
            agent_sid: unit.agent_sid,
            agent_stdio: unit.agent_stdio,
            held,
        }
    }
}

impl UnitRecord {
    fn unit(self) -> Unit {
        Unit {
            agent: self.agent.map(Arc::new),
            server: self.server,
            granted: self.granted,
            manifest_seen: self.manifest_seen,
            agent_sid: self.agent_sid,
            agent_stdio: self.agent_stdio,
            held: self.held.into_iter().collect::<HashSet<_>>(),
            ..Unit::new(self.root, self.kind)
        }
    }
}

impl Identity {
    /// What is known now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mut units: Vec<UnitRecord> = self.units.values().map(UnitRecord::from).collect();
        units.sort_by_key(|unit| unit.root);
        let mut nodes: Vec<Node> = self.tree.nodes().cloned().collect();
        nodes.sort_by_key(|node| (node.summary.key.start_ns, node.summary.key.pid));
        Snapshot { units, nodes }
    }

    /// Takes over what a predecessor knew. Returns the agents among it that still run, so that their
    /// homes and projects can be looked after again. `boot` is as in [`Identity::seed`].
    pub fn restore(&mut self, snapshot: Snapshot, boot: Timestamp) -> Vec<ExecInfo> {
        for unit in snapshot.units {
            self.units.insert(unit.root, unit.unit());
        }
        for node in snapshot.nodes {
            let (key, unit, exited) = (node.summary.key, node.unit, node.has_exited());
            if self.tree.insert(node.restored()) {
                self.join(unit);
            }
            if exited {
                self.on_exit(key);
            }
        }
        let agents: Vec<ProcessKey> = self
            .units
            .values()
            .filter(|unit| unit.kind == UnitKind::Agent)
            .map(|unit| unit.root)
            .collect();
        let mut running: Vec<ExecInfo> = agents
            .into_iter()
            .filter_map(|root| self.resume(root, boot))
            .collect();
        running.sort_by_key(|info| info.key);
        running
    }

    /// The session of an agent that still runs is read anew: it holds an open view of its files.
    fn resume(&mut self, root: ProcessKey, boot: Timestamp) -> Option<ExecInfo> {
        let entry = ProcEntry::open(root)?;
        let parent = self.tree.get(root).and_then(|node| node.parent);
        let mut info = ExecInfo::from_proc(&entry, parent, boot)?;
        info.key = root;
        info.env = entry.env();
        let product = self.units.get(&root)?.agent.as_ref()?.product.clone();
        let row = self.knowledge.agents.get(&product)?.clone();
        let session = Arc::new(self.session(&info, &row));
        for unit in self.units.values_mut() {
            let agent = unit.agent.as_ref().map(|agent| agent.root);
            if agent == Some(root) {
                unit.session = Some(Arc::clone(&session));
            }
        }
        Some(info)
    }

    /// Lets go of processes that are said to run and do not: their end was not recorded.
    pub fn forget_gone(&mut self) -> usize {
        let gone: Vec<ProcessKey> = self
            .tree
            .nodes()
            .filter(|node| !node.has_exited() && ProcEntry::open(node.summary.key).is_none())
            .map(|node| node.summary.key)
            .collect();
        for key in &gone {
            self.on_exit(*key);
        }
        gone.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Knowledge;
    use crate::people::People;
    use crate::tree::TreeLimits;

    fn identity() -> Identity {
        let people = People::read();
        Identity::new(Knowledge::builtin().unwrap(), people, TreeLimits::default())
    }

    fn key(pid: u32, start_ns: u64) -> ProcessKey {
        ProcessKey { pid, start_ns }
    }

    #[test]
    fn a_successor_knows_what_was_known() {
        let mut first = identity();
        let boot = Timestamp::UNIX_EPOCH;
        // This process runs; of the other two one has ended, and one will turn out to be gone.
        let own = ProcEntry::open_pid(std::process::id()).unwrap();
        let mut info = ExecInfo::from_proc(&own, None, boot).unwrap();
        info.env = crate::tree::SecretEnv::new(b"TOKEN=secret-value\0".to_vec());
        first.adopt(&info).unwrap();
        let root = info.key;
        let (child, grandchild) = (key(4_000_001, 7), key(4_000_002, 9));
        assert!(first.on_fork(root, child, boot));
        assert!(first.on_fork(child, grandchild, boot));
        first.on_exit(child);
        let text = serde_json::to_string(&first.snapshot()).unwrap();
        assert!(!text.contains("secret-value"));

        let mut second = identity();
        second.restore(serde_json::from_str(&text).unwrap(), boot);
        for process in [root, child, grandchild] {
            assert_eq!(second.unit_of(process), first.unit_of(process));
            assert_eq!(second.summary(process), first.summary(process));
            assert_eq!(second.actor_for(process), first.actor_for(process));
        }
        assert_eq!(
            serde_json::to_string(&second.snapshot()).unwrap(),
            text,
            "a snapshot of what was restored is the same"
        );
        assert_eq!(second.forget_gone(), 1);
        assert!(second.is_tracked(root));
    }
}
