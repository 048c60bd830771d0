//! The machine and the build that a number belongs to.

use std::fs;
use std::process::Command;

use anyhow::Result;

use crate::cmd;
use crate::workspace::Workspace;

/// A list of the conditions, in Markdown.
pub(crate) fn describe(ws: &Workspace) -> Result<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu_info = read("/proc/cpuinfo");
    let field = |name: &str| {
        let line = cpu_info.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(": "))
            .map_or("unknown", |(_, value)| value)
    };
    let virtual_machine = cpu_info
        .lines()
        .any(|l| l.starts_with("flags") && l.contains(" hypervisor"));
    let kernel = nix::sys::utsname::uname()?;
    let load = read("/proc/loadavg");
    let mitigations = read("/sys/devices/system/cpu/vulnerabilities/spectre_v2");
    let commit = cmd::output(
        Command::new("git")
            .arg("-C")
            .arg(&ws.root)
            .args(["describe", "--always", "--dirty"]),
    );
    let date = cmd::output(Command::new("date").args(["-u", "+%Y-%m-%d"]));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    Ok(format!(
        "- date {}, commit {}, profile release (debug line tables, overflow checks on)\n\
         - kernel {}\n\
         - CPU {}, {cores} cores{}\n\
         - load before (1, 5, 15 min) {}\n\
         - spectre_v2: {}\n",
        date.as_deref().unwrap_or("unknown"),
        commit.as_deref().unwrap_or("unknown"),
        kernel.release().to_string_lossy(),
        field("model name"),
        if virtual_machine {
            ", in a virtual machine"
        } else {
            ""
        },
        load.split_whitespace()
            .take(3)
            .collect::<Vec<_>>()
            .join(" "),
        mitigations.trim(),
    ))
}
