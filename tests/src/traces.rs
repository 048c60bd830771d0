//! What a run could leave behind in the kernel and on disk: BPF programs, pins, cgroups, mounts,
//! network interfaces, folders. Taken before and after, the difference must be empty.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::lab;

/// What there is at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces {
    /// Lines of the mount table.
    pub mounts: BTreeSet<String>,
    /// cgroups of the lab.
    pub cgroups: BTreeSet<String>,
    /// Run folders of the lab.
    pub folders: BTreeSet<String>,
    /// Network interfaces of this namespace.
    pub interfaces: BTreeSet<String>,
    /// Files pinned in bpffs.
    pub pins: BTreeSet<String>,
}

impl Traces {
    /// What there is now.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn now() -> Result<Self> {
        let own = |paths: Vec<std::path::PathBuf>| {
            paths.into_iter().map(|p| p.display().to_string()).collect()
        };
        let mounts = fs::read_to_string("/proc/self/mounts").context("the mount table")?;
        let devices = fs::read_to_string("/proc/net/dev").context("the interfaces")?;
        let mut pins = BTreeSet::new();
        collect(Path::new("/sys/fs/bpf"), &mut pins);
        Ok(Self {
            mounts: mounts.lines().map(str::to_owned).collect(),
            cgroups: own(lab::cgroup::present()),
            folders: own(lab::run_dirs_present()),
            interfaces: devices
                .lines()
                .filter_map(|l| l.split_once(':').map(|(name, _)| name.trim().to_owned()))
                .collect(),
            pins,
        })
    }

    /// What is here and was not in `before`, in words.
    #[must_use]
    pub fn since(&self, before: &Self) -> Vec<String> {
        let pairs = [
            ("mount", &self.mounts, &before.mounts),
            ("cgroup", &self.cgroups, &before.cgroups),
            ("folder", &self.folders, &before.folders),
            ("interface", &self.interfaces, &before.interfaces),
            ("pin", &self.pins, &before.pins),
        ];
        let new = |(kind, now, then): (&str, &BTreeSet<String>, &BTreeSet<String>)| {
            now.difference(then)
                .map(|x| format!("{kind} {x}"))
                .collect::<Vec<_>>()
        };
        pairs.into_iter().flat_map(new).collect()
    }
}

fn collect(dir: &Path, into: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for path in entries.flatten().map(|e| e.path()) {
        into.insert(path.display().to_string());
        if path.is_dir() {
            collect(&path, into);
        }
    }
}

/// Ids of the BPF programs that a process holds, by its program and link descriptors.
#[must_use]
pub fn programs_held_by(pid: u32) -> BTreeSet<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else {
        return BTreeSet::new();
    };
    let id = |text: String| {
        text.lines()
            .find_map(|l| l.strip_prefix("prog_id:")?.trim().parse::<u32>().ok())
    };
    entries
        .flatten()
        .filter_map(|e| id(fs::read_to_string(e.path()).ok()?))
        .collect()
}

/// Ids of every BPF program in the kernel.
///
/// # Errors
/// Without the right to ask.
pub fn programs_loaded() -> Result<BTreeSet<u32>> {
    let programs = aya::programs::loaded_programs();
    programs
        .map(|p| Ok(p.context("asking the kernel for its BPF programs")?.id()))
        .collect()
}

/// Process ids of the direct children of `pid` that run a program of this name.
#[must_use]
pub fn children_named(pid: u32, name: &str) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|e| e.file_name().to_string_lossy().parse().ok());
    let is_child = |child: &u32| {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let parent = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.split(' ').nth(1));
        let exe = fs::read_link(format!("/proc/{child}/exe")).unwrap_or_default();
        parent.and_then(|p| p.parse().ok()) == Some(pid)
            && exe.file_name().is_some_and(|n| n.to_string_lossy() == name)
    };
    pids.filter(is_child).collect()
}
