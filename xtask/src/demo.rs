//! `cargo xtask demo`: builds everything and lets the lab play the theft.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::cmd;
use crate::products;
use crate::setup::{self, Purpose};
use crate::ui::Ui;
use crate::workspace::Workspace;

/// `cargo xtask demo`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Passed on to the demo itself
    #[arg(last = true)]
    rest: Vec<String>,
}

/// The exit code is the demo's own.
pub(crate) fn run(ws: &Workspace, ui: &Ui, args: &Args) -> Result<ExitCode> {
    setup::ensure(ws, ui, Purpose::Demo)?;
    products::build_with_lab(ws, ui)?;
    let mut demo = command(ws);
    let status = demo
        .args(&args.rest)
        .status()
        .context("cannot start the demo")?;
    let code = status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1);
    Ok(ExitCode::from(code))
}

/// Installs the lab's programs (PyPI, npm) into the cache, by the built demo's own installer.
///
/// # Errors
/// When the installation fails.
pub(crate) fn install(ws: &Workspace, ui: &Ui) -> Result<()> {
    let step = ui.step("installing the lab's programs");
    cmd::quiet(ws, &step, "lab-install", command(ws).arg("--install-only"))?;
    step.done();
    Ok(())
}

/// Installs the agents and MCP servers that only tests run. Without them those tests are skipped, so
/// a network that refuses is a warning.
pub(crate) fn install_agents(ws: &Workspace, ui: &Ui) {
    let step = ui.step("installing the agents that tests run");
    let mut install = command(ws);
    install.args(["--install-only", "--with", "agents"]);
    if let Err(error) = cmd::quiet(ws, &step, "lab-agents", &mut install) {
        ui.warn(format!("tests of real agents will be skipped: {error:#}"));
    }
    step.done();
}

/// What keeps the demo from being played on this machine, if anything does.
pub(crate) fn obstacle() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root: namespaces, a cgroup and BPF".to_owned());
    }
    // sysadmin, network administration and BPF: root in a container may lack them
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())?;
    for (bit, name) in [
        (21, "CAP_SYS_ADMIN"),
        (12, "CAP_NET_ADMIN"),
        (39, "CAP_BPF"),
    ] {
        if effective & (1 << bit) == 0 {
            return Some(format!("root lacks {name} here, as in a container"));
        }
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("the kernel has no BTF (/sys/kernel/btf/vmlinux)".to_owned());
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let cgroup2 = mounts
        .lines()
        .any(|line| line.split_whitespace().nth(2) == Some("cgroup2"));
    (!cgroup2).then(|| "no cgroup v2 is mounted".to_owned())
}

/// The demo's program, told where the binaries and the lab's cache are.
pub(crate) fn command(ws: &Workspace) -> Command {
    let mut demo = Command::new(ws.binary("demo"));
    demo.current_dir(&ws.root);
    for (name, value) in environment(ws) {
        demo.env(name, value);
    }
    demo
}

/// What tells the lab and the end-to-end tests where things are.
pub(crate) fn environment(ws: &Workspace) -> [(&'static str, std::path::PathBuf); 2] {
    [
        ("KEYTRAIL_BIN_DIR", ws.target.join("release")),
        ("KEYTRAIL_LAB_CACHE", ws.cache.join("lab")),
    ]
}
