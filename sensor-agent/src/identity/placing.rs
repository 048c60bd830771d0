//! Where an exec puts a process: agent, MCP server, shell-tool command, or as it was.

use super::{
    AgentIdentity, AgentRow, Arc, Candidate, Confidence, Configured, ExecInfo, Identified,
    Identity, Launch, McpServer, Node, Package, Placement, ProcessKey, ProcessSummary, Recognised,
    Session, Signs, Target, Unit, UnitKind, basename, exe_text, is_shell, place, recognise,
    redact_argv, servers, talks_to_agent,
};

impl Identity {
    pub(super) fn take_exact_key(&mut self, key: ProcessKey) {
        let Some(old) = self.tree.take_exact_key(key) else {
            return;
        };
        if let Some(mut unit) = self.units.remove(&old) {
            unit.root = key;
            self.units.insert(key, unit);
        }
        for unit in self.units.values_mut() {
            if let Some(agent) = unit.agent.as_mut().filter(|agent| agent.root == old) {
                Arc::make_mut(agent).root = key;
            }
        }
    }

    pub(super) fn current_unit(&self, info: &ExecInfo) -> Option<ProcessKey> {
        let own = self.tree.get(info.key).map(|node| node.unit);
        own.or_else(|| Some(self.tree.get(info.parent?)?.unit))
    }

    pub(super) fn recognise(&self, info: &ExecInfo, launch: &Launch) -> Option<Recognised> {
        let candidate = Candidate {
            view: &info.view,
            exe: &info.exe,
            launch,
            cwd: info.cwd.as_deref(),
        };
        recognise::recognise(&self.knowledge.agents, candidate)
    }

    /// A client of watched credentials that nobody tracked started.
    pub(super) fn client(&self, info: &ExecInfo) -> bool {
        let name = info
            .exe
            .file_name()
            .map(|n| n.to_string_lossy())
            .unwrap_or_default();
        let script = info
            .argv
            .args()
            .get(1)
            .map(|a| basename(a))
            .unwrap_or_default();
        let interpreter = crate::agents::launch::is_interpreter(&name);
        let names = &self.knowledge.executables;
        names.is_client(&name) || (interpreter && names.is_client(script))
    }

    /// The process is an agent. One of the same product directly below the same product is the
    /// same session: launchers start the real executable, and some products relaunch themselves.
    pub(super) fn as_agent(
        &mut self,
        info: &ExecInfo,
        found: Recognised,
        current: Option<ProcessKey>,
    ) -> (ProcessKey, bool) {
        let same = current
            .and_then(|key| self.units.get_mut(&key))
            .filter(|unit| {
                unit.kind == UnitKind::Agent
                    && unit
                        .agent
                        .as_ref()
                        .is_some_and(|agent| agent.product == found.product)
            });
        let session = self
            .knowledge
            .agents
            .get(&found.product)
            .map(|row| (row.clone(), row.name.clone()));
        let Some((row, name)) = session else {
            return (current.unwrap_or(info.key), false);
        };
        if let Some(unit) = same {
            let root = unit.root;
            if let Some(agent) = &mut unit.agent {
                let agent = Arc::make_mut(agent);
                if agent.version.is_none() {
                    agent.version = found.version;
                }
                if found.confidence > agent.confidence {
                    agent.confidence = found.confidence;
                    agent.method = found.method;
                }
            }
            return (root, false);
        }
        let session = self.session(info, &row);
        let agent = AgentIdentity {
            product: found.product,
            name,
            version: found.version,
            root: info.key,
            method: found.method,
            confidence: found.confidence,
        };
        let mut unit = Unit::new(info.key, UnitKind::Agent);
        unit.agent = Some(Arc::new(agent));
        unit.session = Some(Arc::new(session));
        unit.agent_sid = info.sid;
        unit.agent_stdio = [info.stdin, info.stdout];
        (self.start(unit), true)
    }

    pub(super) fn session(&self, info: &ExecInfo, row: &AgentRow) -> Session {
        let mut session = Session {
            vars: self.places(info),
            cwd: info.cwd.clone(),
            view: info.view.clone(),
            ..Session::default()
        };
        servers::from_argv(row, info.argv.args(), &mut session);
        session
    }

    /// A process below a known unit.
    pub(super) fn below(
        &mut self,
        info: &ExecInfo,
        launch: &Launch,
        identified: &Identified,
        current: ProcessKey,
    ) -> (ProcessKey, bool) {
        if current != info.key {
            self.corroborate(info, current);
        }
        let Some(unit) = self.units.get(&current).cloned() else {
            return (self.start(Unit::new(info.key, UnitKind::Other)), true);
        };
        let is_root = unit.root == info.key;
        if unit.kind == UnitKind::McpServer {
            self.refine(current, identified);
            if !is_root || unit.server.as_ref().is_some_and(|s| s.name.is_some()) {
                return (current, false);
            }
        } else if unit.kind == UnitKind::Other
            || (unit.kind == UnitKind::ShellTool && !is_root)
            || (unit.kind == UnitKind::Agent && is_root)
        {
            return (current, false);
        }
        self.below_agent(info, launch, identified, &unit)
    }

    /// A child carries the product's own marker: with the executable's path that is two signs. It
    /// raises what rests on a path alone, and never recognises anything by itself.
    fn corroborate(&mut self, info: &ExecInfo, unit: ProcessKey) {
        let Some(agent) = self.units.get(&unit).and_then(|unit| unit.agent.clone()) else {
            return;
        };
        if agent.confidence == Confidence::High {
            return;
        }
        let row = self.knowledge.agents.get(&agent.product);
        if !row.is_some_and(|row| row.is_marked(|name| info.env.text(name))) {
            return;
        }
        // The agent and all units below it share one identity.
        for unit in self.units.values_mut() {
            let same = unit.agent.as_mut().filter(|known| known.root == agent.root);
            if let Some(known) = same.map(Arc::make_mut) {
                known.confidence = Confidence::High;
                known.method = format!("{}, and its marker in what it starts", agent.method);
            }
        }
    }

    /// A process that the agent started (or the root of a unit below the agent that execs again:
    /// `env node npx` becomes `node npx`, and only then is its command line the configured one).
    fn below_agent(
        &mut self,
        info: &ExecInfo,
        launch: &Launch,
        identified: &Identified,
        unit: &Unit,
    ) -> (ProcessKey, bool) {
        let configured = self.configured(info, unit);
        let signs = self.signs(info, launch, identified, unit, configured.is_some());
        let kind = match place(signs) {
            Placement::Agent => return (unit.root, false),
            Placement::ShellTool => UnitKind::ShellTool,
            Placement::McpServer => UnitKind::McpServer,
        };
        let is_root = unit.root == info.key;
        // A unit keeps its kind; only a match in a configuration makes it a server after all.
        if is_root && (unit.kind == kind || configured.is_none()) {
            return (unit.root, false);
        }
        let mut new = unit.below(info.key, kind);
        new.members = if is_root { unit.members } else { 0 };
        if kind == UnitKind::McpServer {
            new.manifest_seen = identified.script.is_some() && identified.package.is_some();
            new.granted = configured
                .as_ref()
                .map(|c| c.listed.env.clone())
                .unwrap_or_default();
            new.server = Some(server(configured, identified.package.clone()));
        }
        (self.start(new), !is_root)
    }

    fn configured(&mut self, info: &ExecInfo, unit: &Unit) -> Option<Configured> {
        let session = unit.session.as_ref()?;
        let row = self.knowledge.agents.get(&unit.agent.as_ref()?.product)?;
        let listed = self.configs.configured(row, session);
        servers::find(&listed, info.argv.args(), &info.exe, session).cloned()
    }

    fn signs(
        &mut self,
        info: &ExecInfo,
        launch: &Launch,
        identified: &Identified,
        unit: &Unit,
        configured: bool,
    ) -> Signs {
        let talks = talks_to_agent([info.stdin, info.stdout], unit.agent_stdio);
        if talks.is_none() {
            self.stdio_unknown += 1;
        }
        let agent = unit.agent.as_ref();
        let row = agent.and_then(|agent| self.knowledge.agents.get(&agent.product));
        let own_package = identified.package.as_ref().is_some_and(|p| {
            row.is_some_and(|row| row.npm.contains(&p.name) || row.pypi.contains(&p.name))
        });
        let script = matches!(launch.target, Target::Script(_) | Target::Module(_));
        let exe = info
            .exe
            .file_name()
            .map(|n| n.to_string_lossy())
            .unwrap_or_default();
        Signs {
            talks_to_agent: talks,
            own_session: info
                .sid
                .map(|sid| sid == info.key.pid || unit.agent_sid.is_some_and(|agent| agent != sid)),
            configured,
            launcher: launch.launcher,
            foreign_script: script && !own_package,
            mcp_named: identified.mcp && !own_package,
            shell: is_shell(&exe) && info.argv.args().len() > 1,
            shell_in_process: row.is_some_and(|row| row.shell_in_process),
        }
    }

    /// The launcher's words name a package; the manifest of what it then runs says its version.
    fn refine(&mut self, unit: ProcessKey, identified: &Identified) {
        let Some(unit) = self.units.get_mut(&unit) else {
            return;
        };
        let Some(server) = &mut unit.server else {
            return;
        };
        let Some(package) = &identified.package else {
            return;
        };
        let manifest = identified.script.is_some();
        if unit.manifest_seen {
            return;
        }
        match &server.package {
            // Install scripts of other packages run below a launcher too: the name must agree.
            Some(known)
                if same_package(known, package) && (manifest || package.version.is_some()) =>
            {
                server.package = Some(package.clone());
                unit.manifest_seen = manifest;
            }
            Some(_) => {}
            None if !is_package_manager(package) => {
                server.package = Some(package.clone());
                unit.manifest_seen = manifest;
            }
            None => {}
        }
    }

    pub(super) fn start(&mut self, unit: Unit) -> ProcessKey {
        let root = unit.root;
        self.units.insert(root, unit);
        root
    }

    pub(super) fn join(&mut self, unit: ProcessKey) {
        if let Some(unit) = self.units.get_mut(&unit) {
            unit.members = unit.members.saturating_add(1);
        }
    }

    pub(super) fn leave(&mut self, key: ProcessKey) {
        let Some(unit) = self.units.get_mut(&key) else {
            return;
        };
        unit.members = unit.members.saturating_sub(1);
        if unit.members == 0 {
            self.units.remove(&key);
        }
    }

    /// Writes the exec into the tree. `None` when the tree is full.
    pub(super) fn store(
        &mut self,
        info: &ExecInfo,
        launch: &Launch,
        package: Option<Package>,
        unit: ProcessKey,
    ) -> Option<(ProcessSummary, Option<ProcessKey>)> {
        let known = self.tree.get(info.key).map(|node| (node.unit, node.parent));
        let parent = known.and_then(|(_, parent)| parent).or(info.parent);
        let mut node = Node::new(info.key, parent, info.started);
        node.summary.exe = exe_text(&info.exe);
        node.summary.argv = redact_argv(info.argv.args());
        node.exe.clone_from(&info.exe);
        node.uid = info.uid;
        node.login_uid = info.login_uid;
        node.cgroup.clone_from(&info.cgroup);
        node.sid = info.sid;
        node.stdio = [info.stdin, info.stdout];
        node.unit = unit;
        node.package = package;
        node.interpreter = launch.interpreter.is_some();
        node.execed = true;
        let summary = node.summary.clone();
        if !self.tree.insert(node) {
            if self.units.get(&unit).is_some_and(|u| u.members == 0) {
                self.units.remove(&unit);
            }
            return None;
        }
        match known {
            Some((before, _)) if before == unit => {}
            Some((before, _)) => {
                self.join(unit);
                self.leave(before);
            }
            None => self.join(unit),
        }
        Some((summary, parent))
    }
}

fn server(configured: Option<Configured>, package: Option<Package>) -> McpServer {
    let package = package.filter(|p| !is_package_manager(p));
    match configured {
        Some(found) => McpServer {
            name: Some(found.listed.name),
            config: Some(found.config),
            scope: Some(found.scope),
            package,
        },
        None => McpServer {
            name: None,
            config: None,
            scope: None,
            package,
        },
    }
}

fn is_package_manager(package: &Package) -> bool {
    matches!(
        package.name.as_str(),
        "npm" | "pnpm" | "yarn" | "corepack" | "uv" | "pip" | "pipx"
    )
}

fn same_package(a: &Package, b: &Package) -> bool {
    let normal = |p: &Package| p.name.replace(['_', '.'], "-").to_ascii_lowercase();
    a.ecosystem == b.ecosystem && normal(a) == normal(b)
}
