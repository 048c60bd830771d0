//! Who did it: process tree, agents, MCP servers, people and credentials put together.
//!
//! One [`Identity`] lives in the pipeline's task. It is told of forks, execs and exits in the order
//! of the kernel's records and answers with [`Actor`]s and [`Exposure`]s, the model's types.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use keytrail_model::credential::CredentialId;
use keytrail_model::fact::{Exposure, ExposureSource};
use keytrail_model::ids::ProcessKey;
use keytrail_model::process::{
    Actor, AgentIdentity, Confidence, McpServer, Package, ProcessSummary, UnitKind,
};
use thiserror::Error;

use crate::agents::catalogue::AgentRow;
use crate::agents::executables::{ExecutableNames, ExecutablesError};
use crate::agents::launch::{Launch, Target, basename, is_shell};
use crate::agents::package::{self, Identified};
use crate::agents::recognise::{self, Candidate, Recognised};
use crate::agents::servers::{self, ConfigReader, Configured, Session};
use crate::agents::{Catalogue, CatalogueError};
use crate::credentials::readers::ReadersError;
use crate::credentials::watch::WatchError;
use crate::credentials::{
    Hasher, Identified as Contents, ReadError, Reader, Readers, Recogniser, Sandbox,
    SandboxCounters, TokenCatalogue, TokensError, WatchCatalogue, WatchTarget, file, open_watched,
};
use crate::files::{FileId, FsView};
use crate::paths::Vars;
use crate::people::People;
use crate::redact::{redact_argv, redact_text};
use crate::tree::units::{Placement, Signs, Unit, place, talks_to_agent};
use crate::tree::{ExecInfo, Node, ProcessTree, TreeCounters, TreeLimits, exe_text};

/// Environment credentials remembered per unit, so that each is reported once.
const MAX_HELD: usize = 256;

/// A built-in or user catalogue that cannot be used.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// Agents.
    #[error(transparent)]
    Agents(#[from] CatalogueError),
    /// Watched files.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// Expected readers.
    #[error(transparent)]
    Readers(#[from] ReadersError),
    /// Watched executables.
    #[error(transparent)]
    Executables(#[from] ExecutablesError),
    /// Forms of tokens.
    #[error(transparent)]
    Tokens(#[from] TokensError),
}

/// What Keytrail knows about products and places.
#[derive(Clone, Debug)]
pub struct Knowledge {
    /// Agents and their configurations.
    pub agents: Catalogue,
    /// Files to watch.
    pub watch: WatchCatalogue,
    /// Expected readers.
    pub readers: Readers,
    /// Executables to report at exec.
    pub executables: ExecutableNames,
    /// Forms of tokens, and the key for hashing secrets without identifier.
    pub recogniser: Recogniser,
    /// Credentials that nobody has a reason to touch: whoever reads one is unexpected.
    pub decoys: BTreeSet<CredentialId>,
}

impl Knowledge {
    /// What comes with the sensor; secrets are hashed with a key that is gone with this process.
    ///
    /// # Errors
    /// Never in a released build (tests read the same text).
    pub fn builtin() -> Result<Self, IdentityError> {
        let agents = Catalogue::builtin()?;
        let mut watch = WatchCatalogue::builtin()?;
        watch.add_configs(&agents);
        Ok(Self {
            agents,
            watch,
            readers: Readers::builtin()?,
            executables: ExecutableNames::builtin()?,
            recogniser: Recogniser::new(TokenCatalogue::builtin()?, Hasher::ephemeral()),
            decoys: BTreeSet::new(),
        })
    }
}

/// What became of an exec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The unit that the process belongs to now.
    pub unit: ProcessKey,
    /// What kind it is.
    pub kind: UnitKind,
    /// The unit began with this exec.
    pub new_unit: bool,
    /// What leaves the host about the process.
    pub process: ProcessSummary,
    /// Its parent at fork.
    pub parent: Option<ProcessKey>,
}

/// What is in a watched file.
#[derive(Debug)]
pub struct FileContents {
    contents: Contents,
    version_known: bool,
    truncated: bool,
}

impl FileContents {
    /// True when it was looked through and holds nothing that is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.contents.found.is_empty() && self.contents.dropped == 0 && !self.truncated
    }
}

/// What a watched file's reading gave.
#[derive(Debug, Default)]
pub struct FileReading {
    /// One for each credential in it.
    pub exposures: Vec<Exposure>,
    /// Texts like GitHub tokens with a wrong checksum: not reported.
    pub bad_checksums: u32,
    /// The file was too long to be read to its end, or held too many credentials.
    pub incomplete: bool,
}

/// What could not be known or kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdentityCounters {
    /// The tree's.
    pub tree: TreeCounters,
    /// Agents' configurations that could not be read.
    pub configs_unreadable: u64,
    /// Processes below an agent whose standard descriptors were not read in time.
    pub stdio_unknown: u64,
    /// What the parsing process did, and what the agent had to parse itself.
    pub sandbox: SandboxCounters,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Identity {
    knowledge: Knowledge,
    people: People,
    tree: ProcessTree,
    units: HashMap<ProcessKey, Unit>,
    configs: ConfigReader,
    sandbox: Option<Sandbox>,
    stdio_unknown: u64,
}

impl Identity {
    /// With this knowledge, for these accounts.
    #[must_use]
    pub fn new(knowledge: Knowledge, people: People, limits: TreeLimits) -> Self {
        Self {
            knowledge,
            people,
            tree: ProcessTree::new(limits),
            units: HashMap::new(),
            configs: ConfigReader::default(),
            sandbox: None,
            stdio_unknown: 0,
        }
    }

    /// Has credential files parsed in a process without privileges from now on.
    #[must_use]
    pub fn parsing_in(mut self, sandbox: Sandbox) -> Self {
        self.sandbox = Some(sandbox);
        self
    }

    /// The catalogues.
    #[must_use]
    pub fn knowledge(&self) -> &Knowledge {
        &self.knowledge
    }

    /// The accounts.
    #[must_use]
    pub fn people(&self) -> &People {
        &self.people
    }

    /// A tracked process forked. False when the parent is not tracked or the tree is full.
    pub fn on_fork(&mut self, parent: ProcessKey, child: ProcessKey, started: Timestamp) -> bool {
        self.take_exact_key(parent);
        if self.tree.get(child).is_some() {
            return true;
        }
        let Some(from) = self.tree.get(parent) else {
            return false;
        };
        let mut node = from.clone();
        node.parent = Some(parent);
        node.summary.key = child;
        node.summary.started = started;
        node.execed = false;
        let unit = node.unit;
        let kept = self.tree.insert(node.forked());
        if kept {
            self.join(unit);
        }
        kept
    }

    /// A process called exec. `None`: nothing of ours (no agent above it, none itself, no client
    /// of a watched credential); it is not kept.
    pub fn on_exec(&mut self, info: &ExecInfo) -> Option<Placed> {
        self.take_exact_key(info.key);
        if let Some(parent) = info.parent {
            self.take_exact_key(parent);
        }
        let launch = recognise::launch_of(info.argv.args(), &info.exe);
        let current = self.current_unit(info);
        let recognised = self.recognise(info, &launch);
        let fallback = self.client(info);
        if current.is_none() && recognised.is_none() && !fallback {
            return None;
        }
        let cwd = info.cwd.as_deref();
        let identified = package::identify(&info.view, &launch, &info.exe, cwd);
        let (unit, new_unit) = match (recognised, current) {
            (Some(found), current) => self.as_agent(info, found, current),
            (None, Some(unit)) => self.below(info, &launch, &identified, unit),
            (None, None) => (self.start(Unit::new(info.key, UnitKind::Other)), true),
        };
        self.store(info, &launch, identified.package, unit)
            .map(|(process, parent)| Placed {
                unit,
                kind: self.units.get(&unit).map_or(UnitKind::Other, |u| u.kind),
                new_unit,
                process,
                parent,
            })
    }

    /// Takes on a process that is not tracked but touched a watched credential.
    pub fn adopt(&mut self, info: &ExecInfo) -> Option<Placed> {
        if let Some(placed) = self.on_exec(info) {
            return Some(placed);
        }
        let launch = recognise::launch_of(info.argv.args(), &info.exe);
        let cwd = info.cwd.as_deref();
        let package = package::identify(&info.view, &launch, &info.exe, cwd).package;
        let unit = self.start(Unit::new(info.key, UnitKind::Other));
        let (process, parent) = self.store(info, &launch, package, unit)?;
        Some(Placed {
            unit,
            kind: UnitKind::Other,
            new_unit: true,
            process,
            parent,
        })
    }

    /// A tracked process ended.
    pub fn on_exit(&mut self, key: ProcessKey) {
        self.take_exact_key(key);
        self.tree.exit(key);
        for (_, unit) in self.tree.take_removed() {
            self.leave(unit);
        }
    }

    /// True when the process is tracked.
    #[must_use]
    pub fn is_tracked(&self, key: ProcessKey) -> bool {
        self.tree.get(key).is_some()
    }

    /// The unit of a tracked process.
    #[must_use]
    pub fn unit_of(&self, key: ProcessKey) -> Option<(ProcessKey, UnitKind)> {
        let unit = self.tree.get(key)?.unit;
        Some((unit, self.units.get(&unit)?.kind))
    }

    /// What leaves the host about a tracked process.
    #[must_use]
    pub fn summary(&self, key: ProcessKey) -> Option<&ProcessSummary> {
        self.tree.get(key).map(|node| &node.summary)
    }

    /// Who a tracked process is.
    #[must_use]
    pub fn actor_for(&self, key: ProcessKey) -> Option<Actor> {
        let node = self.tree.get(key)?;
        let unit = self.units.get(&node.unit)?;
        let top = unit.agent.as_ref().map(|agent| agent.root);
        Some(Actor {
            unit: unit.root,
            unit_kind: unit.kind,
            agent: unit.agent.as_deref().cloned(),
            mcp_server: unit.server.clone(),
            user: (node.uid != u32::MAX).then(|| {
                let cgroup = node.cgroup.as_deref();
                self.people.user(node.uid, node.login_uid, cgroup)
            }),
            lineage: self.tree.lineage(key, top),
        })
    }

    /// What could not be known or kept.
    #[must_use]
    pub fn counters(&self) -> IdentityCounters {
        IdentityCounters {
            tree: self.tree.counters(),
            configs_unreadable: self.configs.unreadable(),
            stdio_unknown: self.stdio_unknown,
            sandbox: self
                .sandbox
                .as_ref()
                .map(Sandbox::counters)
                .unwrap_or_default(),
        }
    }

    /// The home and the variables that move watched files and configurations, of one process.
    #[must_use]
    pub fn places(&self, info: &ExecInfo) -> Vars {
        let home = info
            .env
            .text("HOME")
            .filter(|home| Path::new(home).is_absolute());
        let known = || {
            self.people
                .home(info.uid)
                .map(|h| h.to_string_lossy().into_owned())
        };
        let mut vars = home.or_else(known).map(Vars::home).unwrap_or_default();
        let names = self
            .knowledge
            .agents
            .variables()
            .chain(self.knowledge.watch.variables());
        for name in names {
            if let Some(value) = info.env.text(name) {
                vars.set(name, value);
            }
        }
        vars
    }

    /// True when the environment holds a credential: whoever has one must have its connections
    /// seen.
    #[must_use]
    pub fn holds_credential(&self, info: &ExecInfo) -> bool {
        !self.knowledge.recogniser.identify_env(&info.env).is_empty()
    }

    /// Credentials in the environment of a tracked process at its exec; each once per unit.
    pub fn environment_exposures(&mut self, info: &ExecInfo) -> Vec<Exposure> {
        let Some(actor) = self.actor_for(info.key) else {
            return Vec::new();
        };
        let mut exposures = Vec::new();
        for found in self.knowledge.recogniser.identify_env(&info.env) {
            let expected = self.reader(info.key, |readers, reader| {
                readers.expects_environment(&found.credential, &found.variable, reader)
            });
            let expected = expected && !self.knowledge.decoys.contains(&found.credential);
            let Some(unit) = self.units.get_mut(&actor.unit) else {
                continue;
            };
            let held = (found.credential.clone(), found.variable.clone());
            if unit.held.len() >= MAX_HELD || !unit.held.insert(held) {
                continue;
            }
            exposures.push(Exposure {
                credential: found.credential,
                source: ExposureSource::Environment {
                    variable: found.variable,
                },
                process: info.key,
                actor: actor.clone(),
                unexpected_reader: !expected,
                destinations: found.destinations,
            });
        }
        exposures
    }

    /// What is in a watched file that was accessed at `access_ns` (since 1970).
    ///
    /// # Errors
    /// [`ReadError`] when the file cannot be read or is another one by now.
    pub fn read_target(
        &self,
        view: &FsView,
        target: &WatchTarget,
        id: FileId,
        access_ns: i128,
    ) -> Result<FileContents, ReadError> {
        let path = target.real.as_deref().unwrap_or(&target.path);
        let recogniser = &self.knowledge.recogniser;
        let form = &target.form;
        if !form.format.reads_content() {
            let version_known = file::check_watched(view, path, id, access_ns)?;
            return Ok(FileContents {
                contents: recogniser.identify_file(form, &target.path, &[]),
                version_known,
                truncated: false,
            });
        }
        let open = open_watched(view, path, id)?;
        let parsed = self
            .sandbox
            .as_ref()
            .and_then(|sandbox| sandbox.identify(form, &target.path, &open.file));
        let (contents, content) = match parsed {
            Some(contents) => (contents, open.unread()?),
            None => {
                let content = open.read()?;
                let contents = recogniser.identify_file(form, &target.path, content.bytes());
                (contents, content)
            }
        };
        Ok(FileContents {
            contents,
            version_known: content.version_known(access_ns),
            truncated: content.truncated,
        })
    }

    /// What a tracked process got by accessing a watched file that holds this. An untracked process
    /// gives no exposures.
    #[must_use]
    pub fn file_exposures(
        &self,
        key: ProcessKey,
        target: &WatchTarget,
        id: FileId,
        read: FileContents,
    ) -> FileReading {
        let Some(actor) = self.actor_for(key) else {
            return FileReading::default();
        };
        let FileContents {
            contents,
            version_known,
            truncated,
        } = read;
        let exposures = contents
            .found
            .into_iter()
            .map(|found| {
                let expected = self.reader(key, |readers, reader| {
                    readers.expects_file(&found.credential, target.form.format, reader)
                });
                let expected = expected && !self.knowledge.decoys.contains(&found.credential);
                Exposure {
                    credential: found.credential,
                    source: ExposureSource::File {
                        path: redact_text(&target.path.to_string_lossy()),
                        dev: id.dev,
                        ino: id.ino,
                        entry: found.entry,
                        version_known,
                    },
                    process: key,
                    actor: actor.clone(),
                    unexpected_reader: !expected,
                    destinations: found.destinations,
                }
            })
            .collect();
        FileReading {
            exposures,
            bad_checksums: contents.bad_checksums,
            incomplete: truncated || contents.dropped > 0,
        }
    }

    fn reader(&self, key: ProcessKey, ask: impl FnOnce(&Readers, &Reader<'_>) -> bool) -> bool {
        let Some(node) = self.tree.get(key) else {
            return false;
        };
        let Some(unit) = self.units.get(&node.unit) else {
            return false;
        };
        let reader = Reader {
            exe: &node.exe,
            package: node.package.as_ref(),
            interpreter: node.interpreter,
            unit: unit.kind,
            server: unit.server.as_ref().and_then(|s| s.package.as_ref()),
            granted: &unit.granted,
        };
        ask(&self.knowledge.readers, &reader)
    }
}

mod placing;
mod seed;
pub mod snapshot;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod trees;
