//! Installing Debian packages.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cmd;
use crate::ui::Ui;
use crate::workspace::{Workspace, which};

/// Seconds to wait for another package manager.
const LOCK: &str = "DPkg::Lock::Timeout=300";

/// Installs `packages`; does nothing when there are none.
///
/// # Errors
/// When this is not Debian or we are not root (the text names the packages), or apt fails.
pub(super) fn install(ws: &Workspace, ui: &Ui, packages: &[&str]) -> Result<()> {
    let mut seen = HashSet::new();
    let packages: Vec<&str> = packages
        .iter()
        .copied()
        .filter(|p| seen.insert(*p))
        .collect();
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if which("apt-get").is_none() {
        bail!(
            "missing on this machine: {list} (names of Debian 12 packages). There is no apt-get here: install what corresponds to them, then run this again"
        );
    }
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "missing on this machine: {list}. Only root can install them: run `sudo apt-get install {list}`, then this again"
        );
    }
    let step = ui.step(format!("installing Debian packages: {list}"));
    update(ws, &step)?;
    let mut apt = apt_get(&["install", "--yes", "--no-install-recommends"]);
    cmd::quiet(ws, &step, "apt-install", apt.args(&packages)).with_context(|| {
        format!("cannot install {list}: check the network and /etc/apt (Debian 12 with its security archive has all of them)")
    })?;
    step.done();
    Ok(())
}

/// Brings the package lists up to date.
///
/// # Errors
/// When apt fails and there are no older lists to go on with.
pub(super) fn update(ws: &Workspace, step: &crate::ui::Step) -> Result<()> {
    let updated = cmd::quiet(ws, step, "apt-update", &mut apt_get(&["update"]));
    if updated.is_err() && has_lists() {
        step.line("warning: apt-get update failed; going on with the package lists of last time");
        return Ok(());
    }
    updated
}

/// Whether any package list was ever fetched.
pub(super) fn has_lists() -> bool {
    Path::new("/var/lib/apt/lists")
        .read_dir()
        .is_ok_and(|entries| {
            entries
                .flatten()
                .any(|e| e.file_name().to_string_lossy().contains("_Packages"))
        })
}

/// An apt-get that asks nothing.
pub(super) fn apt_get(args: &[&str]) -> Command {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C")
        .args(["-o", LOCK])
        .args(args);
    apt
}
