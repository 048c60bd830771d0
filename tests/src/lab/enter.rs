//! `demo enter`: the last step before a program of the lab runs. It joins the program's cgroup and
//! namespaces and becomes the program, so that from its first instruction on the program is where
//! it belongs and no unsafe code is needed between fork and exec.

use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;

/// Where the program goes.
#[derive(Debug, clap::Args)]
pub struct Enter {
    /// The cgroup's folder.
    #[arg(long)]
    pub cgroup: PathBuf,
    /// The network namespace, as a path.
    #[arg(long)]
    pub net: Option<PathBuf>,
    /// The mount namespace, as a path.
    #[arg(long)]
    pub mnt: Option<PathBuf>,
    /// The folder to start in.
    #[arg(long)]
    pub cwd: PathBuf,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
}

impl Enter {
    /// Becomes the program. Returns only when something failed.
    ///
    /// # Errors
    /// When a namespace or the cgroup cannot be joined or the program cannot be executed.
    pub fn run(self) -> Result<std::convert::Infallible> {
        // The runner's death ends its children, even when it is killed without a chance to clean up.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        let procs = self.cgroup.join("cgroup.procs");
        fs::write(&procs, std::process::id().to_string())
            .with_context(|| format!("joining the cgroup {}", procs.display()))?;
        // Open both before entering either: the paths are those of the runner's own namespaces.
        let open = |p: &Option<PathBuf>| p.as_ref().map(File::open).transpose();
        let (net, mnt) = (open(&self.net)?, open(&self.mnt)?);
        if let Some(net) = net {
            setns(net, CloneFlags::CLONE_NEWNET).context("entering the network namespace")?;
        }
        if let Some(mnt) = mnt {
            setns(mnt, CloneFlags::CLONE_NEWNS).context("entering the mount namespace")?;
        }
        std::env::set_current_dir(&self.cwd)
            .with_context(|| format!("entering {}", self.cwd.display()))?;
        let args: Vec<CString> = self
            .command
            .into_iter()
            .map(|a| CString::new(a.into_vec()))
            .collect::<Result<_, _>>()?;
        let program = args.first().context("no program was named")?;
        nix::unistd::execvp(program, &args)
            .with_context(|| format!("executing {}", program.to_string_lossy()))
    }
}
