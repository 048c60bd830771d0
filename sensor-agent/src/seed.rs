//! What was there before the sensor: executables to recognise, homes to watch, agents that run.

use std::path::{Path, PathBuf};

use tracing::{info, warn};

use crate::agents::executables::ExecutableClass;
use crate::files::{FsView, Trace};
use crate::kernel::event;
use crate::kernel::preflight::cgroup2_mount;
use crate::kernel::watch::{ExeClass, Watch};
use crate::paths::Vars;
use crate::pipeline::{Pipeline, Timed};

/// Keeps the kernel told which executables are agents, interpreters and credential clients.
pub struct Executables {
    homes: Vec<PathBuf>,
    trace: Trace,
}

impl Executables {
    /// Looks in `PATH`, in the places of the catalogue and in these homes.
    #[must_use]
    pub fn new(homes: Vec<PathBuf>) -> Self {
        Self {
            homes,
            trace: Trace::default(),
        }
    }

    /// Looks for them anew, if anything has changed where they were looked for.
    pub fn keep_up(&mut self, pipeline: &Pipeline, watch: &Watch) {
        if !self.trace.changed() {
            return;
        }
        self.trace.begin();
        let view = FsView::host().traced(&self.trace);
        executables(&view, pipeline, watch, &self.homes);
        self.trace.end();
    }
}

fn executables(view: &FsView, pipeline: &Pipeline, watch: &Watch, homes: &[PathBuf]) {
    let knowledge = pipeline.identity().knowledge();
    let path = std::env::var("PATH").unwrap_or_default();
    let (names, agents) = (&knowledge.executables, &knowledge.agents);
    for executable in names.find(view, agents, &path, homes) {
        let class = match executable.class {
            ExecutableClass::Agent => ExeClass::Agent,
            ExecutableClass::CredentialClient => ExeClass::CredentialClient,
            ExecutableClass::Interpreter => ExeClass::Interpreter,
        };
        let Ok(dev) = u32::try_from(executable.id.dev) else {
            continue;
        };
        let file = event::FileId {
            dev,
            ino: executable.id.ino,
        };
        if let Err(error) = watch.add_exe(file, class) {
            warn!(path = %executable.path.display(), %error, "an executable is not watched");
        }
    }
}

/// Watches the homes of the accounts on this machine.
pub fn homes(pipeline: &mut Pipeline, homes: &[PathBuf]) {
    for home in homes {
        pipeline
            .files()
            .add_home(Vars::home(home.to_string_lossy()), FsView::host());
    }
}

/// Takes on agents, and what they have started, that run already.
pub fn processes(pipeline: &mut Pipeline, scope: Option<&Path>, facts: &mut Vec<Timed>) {
    let in_scope = |pid: u32| scope.is_none_or(|scope| in_scope(pid, scope));
    let taken = pipeline.seed(in_scope, facts);
    if taken > 0 {
        info!(taken, "processes of agents were running already");
    }
}

/// True when the process is in the scope's cgroup or below it.
fn in_scope(pid: u32, scope: &Path) -> bool {
    let Ok(mount) = cgroup2_mount() else {
        return false;
    };
    let Ok(scope) = scope.strip_prefix(&mount) else {
        return false;
    };
    let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/cgroup")) else {
        return false;
    };
    let mut unified = text.lines().filter_map(|line| line.strip_prefix("0::/"));
    unified.any(|cgroup| Path::new(cgroup).starts_with(scope))
}
