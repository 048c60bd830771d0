//! What an end-to-end test needs from the machine, and how it says that it is not there.
//!
//! A test that cannot run prints `SKIPPED <name>: <reason>` (and appends the line to the file that
//! `KEYTRAIL_SKIPS` names, where `cargo xtask test` counts it) and returns.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::lab::{self, install};
use crate::product::Programs;

/// Names the file on which skipped tests are counted.
const SKIPS_VAR: &str = "KEYTRAIL_SKIPS";

/// Says that a test cannot run here.
pub fn skip(name: &str, reason: &str) {
    let line = format!(
        "SKIPPED {name}: {}\n",
        reason.lines().next().unwrap_or_default()
    );
    drop(std::io::stdout().write_all(line.as_bytes()));
    if let Some(file) = std::env::var_os(SKIPS_VAR)
        && let Ok(mut file) = OpenOptions::new().create(true).append(true).open(file)
    {
        drop(file.write_all(line.as_bytes()));
    }
}

/// What a test on the stage works with. One test at a time holds it, over all test programs of this
/// machine: the machine's own load is part of what they measure.
#[derive(Debug)]
pub struct Stage {
    /// The installed programs.
    pub tools: install::Tools,
    /// The `demo` program.
    pub demo: PathBuf,
    _turn: File,
}

/// The stage for the test `name`, or nothing when this machine cannot have one (and says so).
#[must_use]
pub fn stage(name: &str, demo: &str) -> Option<Stage> {
    if let Some(reason) = lab::missing() {
        skip(name, &reason);
        return None;
    }
    match (install::installed(), take_turn()) {
        (Ok(tools), Ok(turn)) => Some(Stage {
            tools,
            demo: PathBuf::from(demo),
            _turn: turn,
        }),
        (Err(error), _) | (_, Err(error)) => {
            skip(name, &format!("{error:#}"));
            None
        }
    }
}

/// The product's programs, or nothing when they are not built (and says so).
#[must_use]
pub fn programs(name: &str, demo: &str) -> Option<Programs> {
    match Programs::find(Path::new(demo)) {
        Ok(programs) => Some(programs),
        Err(error) => {
            skip(name, &format!("{error:#}"));
            None
        }
    }
}

/// The product's programs on a kernel that lets the sensor work, or nothing (and says so).
#[must_use]
pub fn sensor(name: &str, demo: &str) -> Option<Programs> {
    if let Some(reason) = no_bpf() {
        skip(name, &reason);
        return None;
    }
    programs(name, demo)
}

/// Why the sensor cannot load BPF programs here.
fn no_bpf() -> Option<String> {
    const CAP_SYS_ADMIN: u32 = 21;
    const CAP_BPF: u32 = 39;
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("this kernel has no BTF (/sys/kernel/btf/vmlinux)".to_owned());
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bits = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let bits = bits
        .and_then(|b| u64::from_str_radix(b.trim(), 16).ok())
        .unwrap_or(0);
    let may = [CAP_SYS_ADMIN, CAP_BPF]
        .iter()
        .any(|cap| bits >> cap & 1 == 1);
    (!may).then(|| "no right to load BPF programs (CAP_BPF)".to_owned())
}

fn take_turn() -> Result<File> {
    let path = "/var/tmp/keytrail-lab.turn";
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path);
    let file = file.with_context(|| format!("opening {path}"))?;
    file.lock().context("waiting for another test's turn")?;
    Ok(file)
}
