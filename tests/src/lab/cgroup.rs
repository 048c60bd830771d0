//! The run's slice of the cgroup v2 tree: one group for each place of the lab. The sensor's scope is
//! the laptop's group; the attacker and the Internet are outside it. Killing the slice ends every
//! process of the run, whoever its parent is.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

const PREFIX: &str = "keytrail-lab-";

/// A slice with its groups; removed when dropped.
#[derive(Debug)]
pub struct Slice {
    dir: PathBuf,
}

impl Slice {
    /// Makes the slice of this run, and removes slices whose runner is no more.
    ///
    /// # Errors
    /// When cgroup v2 is not mounted or not writable.
    pub fn new() -> Result<Self> {
        let root = mount_point()?;
        remove_stale(&root);
        let mut nth = 0;
        loop {
            let dir = root.join(format!("{PREFIX}{}-{nth}", std::process::id()));
            match fs::create_dir(&dir) {
                Ok(()) => return Ok(Self { dir }),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && nth < 64 => nth += 1,
                Err(e) => return Err(e).context(format!("making the cgroup {}", dir.display())),
            }
        }
    }

    /// Makes a group and returns its folder.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn group(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("making the cgroup {}", dir.display()))?;
        Ok(dir)
    }

    /// The slice's own folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Ends every process in the slice.
    pub fn kill(&self) {
        kill_and_wait(&self.dir);
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        remove(&self.dir);
    }
}

/// Where cgroup v2 is mounted on this machine.
///
/// # Errors
/// When it is not mounted.
pub fn mount_point() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    mounts
        .lines()
        .find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let dir = fields.next()?;
            (fields.next()? == "cgroup2").then(|| PathBuf::from(dir))
        })
        .context("cgroup v2 is not mounted (mount -t cgroup2 none /sys/fs/cgroup/unified)")
}

/// Slices of this lab that exist now.
#[must_use]
pub fn present() -> Vec<PathBuf> {
    let Ok(root) = mount_point() else {
        return Vec::new();
    };
    let Ok(entries) = fs::read_dir(root) else {
        return Vec::new();
    };
    let ours = |p: &PathBuf| {
        p.file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with(PREFIX))
    };
    entries.flatten().map(|e| e.path()).filter(ours).collect()
}

fn remove_stale(root: &Path) {
    for dir in present().into_iter().filter(|d| d.starts_with(root)) {
        let name = dir
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        let pid = name
            .trim_start_matches(PREFIX)
            .split('-')
            .next()
            .unwrap_or("")
            .to_owned();
        if !pid.is_empty() && !Path::new("/proc").join(pid).exists() {
            remove(&dir);
        }
    }
}

fn remove(dir: &Path) {
    kill_and_wait(dir);
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for group in entries.flatten().filter(|e| e.path().is_dir()) {
        // What cannot be removed now is removed by the next run (`remove_stale`).
        drop(fs::remove_dir(group.path()));
    }
    drop(fs::remove_dir(dir));
}

fn kill_and_wait(dir: &Path) {
    drop(fs::write(dir.join("cgroup.kill"), "1"));
    let until = Instant::now() + Duration::from_secs(30);
    while is_populated(dir) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_populated(dir: &Path) -> bool {
    fs::read_to_string(dir.join("cgroup.events")).is_ok_and(|s| s.contains("populated 1"))
}
