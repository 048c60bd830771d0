//! What the kernel's exec record lacks, from `/proc/PID`; never about another process.
//!
//! The directory is opened once: whatever is read through that descriptor is about that process or
//! fails. That it is the *right* process is checked by its start time, which the kernel prints in
//! 10 ms ticks (`proc(5)`, field 22 of `stat`).

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use keytrail_model::ids::ProcessKey;
use procfs::process::{FDTarget, Process};

use super::input::{ExecInfo, FdKind, RawArgv, SecretEnv};
use crate::files::{FileId, FsView};

pub(crate) use keytrail_abi::maps::TICK_NS;

/// Most of `/proc/PID/cgroup` that is read.
const MAX_CGROUP: u64 = 8 << 10;
/// Most environment that one process may have for us to look at it.
const MAX_ENV: u64 = 1 << 20;

/// The tick in which a process with this key started.
#[must_use]
pub fn start_tick(key: ProcessKey) -> u64 {
    key.start_ns / TICK_NS
}

/// A process found in `/proc`, held open.
#[derive(Debug)]
pub struct ProcEntry {
    process: Process,
    key: ProcessKey,
    parent_pid: u32,
    sid: u32,
    pgid: u32,
}

impl ProcEntry {
    /// Opens `/proc/PID` and checks that it is the process meant; `None` when that one is gone.
    #[must_use]
    pub fn open(key: ProcessKey) -> Option<Self> {
        let mut entry = Self::open_pid(key.pid)?;
        if start_tick(entry.key) != start_tick(key) {
            return None;
        }
        entry.key = key;
        Some(entry)
    }

    /// Opens whatever process has this pid now. Its key's start time is rounded down to 10 ms.
    #[must_use]
    pub fn open_pid(pid: u32) -> Option<Self> {
        let process = Process::new(i32::try_from(pid).ok()?).ok()?;
        let stat = process.stat().ok()?;
        Some(Self {
            key: ProcessKey {
                pid,
                start_ns: stat.starttime.checked_mul(TICK_NS)?,
            },
            parent_pid: u32::try_from(stat.ppid).ok()?,
            sid: u32::try_from(stat.session).ok()?,
            pgid: u32::try_from(stat.pgrp).ok()?,
            process,
        })
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> ProcessKey {
        self.key
    }

    /// Its present parent's pid (0: none). Not what it was at fork when the parent has died.
    #[must_use]
    pub fn parent_pid(&self) -> u32 {
        self.parent_pid
    }

    /// Session id.
    #[must_use]
    pub fn sid(&self) -> u32 {
        self.sid
    }

    /// Process group.
    #[must_use]
    pub fn pgid(&self) -> u32 {
        self.pgid
    }

    /// Real uid.
    #[must_use]
    pub fn uid(&self) -> Option<u32> {
        self.process.status().ok().map(|s| s.ruid)
    }

    /// Audit login uid, when one was set (`(uid_t)-1` means none).
    #[must_use]
    pub fn login_uid(&self) -> Option<u32> {
        self.process.loginuid().ok().filter(|uid| *uid != u32::MAX)
    }

    /// Its path in the unified control group hierarchy (cgroups(7), `0::PATH`).
    #[must_use]
    pub fn cgroup(&self) -> Option<String> {
        let mut text = String::new();
        let file = self.process.open_relative("cgroup").ok()?;
        file.take(MAX_CGROUP).read_to_string(&mut text).ok()?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
        Some(path.to_owned())
    }

    /// Working directory.
    #[must_use]
    pub fn cwd(&self) -> Option<PathBuf> {
        self.process.cwd().ok()
    }

    /// Executable and its identity.
    #[must_use]
    pub fn exe(&self) -> Option<(PathBuf, Option<FileId>)> {
        let path = self.process.exe().ok()?;
        let link = format!("/proc/{}/exe", self.key.pid);
        let id = std::fs::metadata(link)
            .ok()
            .filter(|_| self.process.is_alive());
        Some((path, id.map(|m| FileId::from_metadata(&m))))
    }

    /// Arguments. Node's `process.title` overwrites them: the kernel's record is better.
    #[must_use]
    pub fn argv(&self) -> RawArgv {
        RawArgv::new(self.process.cmdline().unwrap_or_default())
    }

    /// Environment at exec (`/proc/PID/environ`).
    #[must_use]
    pub fn env(&self) -> SecretEnv {
        let mut block = Vec::new();
        let read = self
            .process
            .open_relative("environ")
            .map(|file| file.take(MAX_ENV).read_to_end(&mut block));
        match read {
            Ok(Ok(_)) => SecretEnv::new(block),
            Ok(Err(_)) | Err(_) => SecretEnv::default(),
        }
    }

    /// What descriptor `fd` (0 or 1) is connected to.
    #[must_use]
    pub fn fd(&self, fd: i32) -> FdKind {
        match self.process.fd_from_fd(fd).map(|info| info.target) {
            Ok(FDTarget::Pipe(ino)) => FdKind::Pipe(ino),
            Ok(FDTarget::Socket(ino)) => FdKind::Socket(ino),
            Ok(FDTarget::Path(path)) => FdKind::from_link(&path.to_string_lossy()),
            Ok(_) => FdKind::Other,
            Err(_) => FdKind::Unknown,
        }
    }

    /// The file tree as it sees it: the sensor's own, unless its mount namespace or root differs.
    #[must_use]
    pub fn view(&self) -> FsView {
        let same = |what: &str| {
            let own = std::fs::metadata(format!("/proc/self/{what}"));
            let other = std::fs::metadata(format!("/proc/{}/{what}", self.key.pid));
            matches!((own, other), (Ok(a), Ok(b)) if (a.dev(), a.ino()) == (b.dev(), b.ino()))
        };
        if same("ns/mnt") && same("root") {
            return FsView::host();
        }
        let root = std::fs::File::open(format!("/proc/{}/root", self.key.pid));
        match root {
            // Opened by pid: make sure that the pid was still this process's afterwards.
            Ok(root) if self.process.stat().is_ok() => FsView::rooted(root.into()),
            Ok(_) | Err(_) => FsView::host(),
        }
    }
}

impl ExecInfo {
    /// Fills in what the record of the exec lacks, if the process is still there.
    pub fn complete(&mut self) {
        let Some(entry) = ProcEntry::open(self.key) else {
            return;
        };
        self.sid = self.sid.or(Some(entry.sid()));
        self.pgid = self.pgid.or(Some(entry.pgid()));
        if self.cwd.is_none() {
            self.cwd = entry.cwd();
        }
        if self.stdin == FdKind::Unknown && self.stdout == FdKind::Unknown {
            (self.stdin, self.stdout) = (entry.fd(0), entry.fd(1));
        }
        self.login_uid = self.login_uid.or_else(|| entry.login_uid());
        self.cgroup = self.cgroup.take().or_else(|| entry.cgroup());
        self.view = entry.view();
    }

    /// A process that was running before the sensor, as `/proc` describes it; `None` when it is
    /// gone or a kernel thread. Its environment is left out: see [`ProcEntry::env`].
    #[must_use]
    pub fn from_proc(
        entry: &ProcEntry,
        parent: Option<ProcessKey>,
        boot: Timestamp,
    ) -> Option<Self> {
        let (exe, exe_id) = entry.exe()?;
        let age = i64::try_from(entry.key().start_ns).ok()?;
        Some(Self {
            key: entry.key(),
            parent,
            sid: Some(entry.sid()),
            pgid: Some(entry.pgid()),
            exe,
            exe_id,
            argv: entry.argv(),
            env: SecretEnv::default(),
            cwd: entry.cwd(),
            stdin: entry.fd(0),
            stdout: entry.fd(1),
            uid: entry.uid()?,
            login_uid: entry.login_uid(),
            cgroup: entry.cgroup(),
            view: entry.view(),
            started: boot.checked_add(SignedDuration::from_nanos(age)).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_child_is_described_and_an_older_key_is_not() {
        let mut child = Command::new("/bin/cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .env("KT_PROBE", "yes")
            .current_dir("/")
            .spawn()
            .unwrap();
        let entry = ProcEntry::open_pid(child.id()).unwrap();
        assert_eq!(entry.parent_pid(), std::process::id());
        assert!(matches!(entry.fd(0), FdKind::Pipe(_)));
        assert_eq!(entry.fd(1), FdKind::Null);
        assert_eq!(entry.fd(77), FdKind::Unknown);
        assert_eq!(entry.cwd(), Some(PathBuf::from("/")));
        assert!(entry.view().is_host());
        let exact = ProcessKey {
            start_ns: entry.key().start_ns + 1234,
            ..entry.key()
        };
        assert_eq!(ProcEntry::open(exact).map(|e| e.key()), Some(exact));
        let older = ProcessKey {
            start_ns: entry.key().start_ns - TICK_NS,
            ..entry.key()
        };
        assert!(ProcEntry::open(older).is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(ProcEntry::open(exact).is_none());
        assert!(entry.cwd().is_none(), "a dead process has nothing to say");
    }
}
