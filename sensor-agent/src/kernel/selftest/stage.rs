//! Where the cases are played: a scratch cgroup, a scratch directory, a loaded sensor.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{Outcome, cases::Case, work_dir};
use crate::kernel::{
    KernelEvent, LoadError, Sensor, SensorConfig,
    event::{FileId, ProcKey},
    preflight,
};
use keytrail_model::coverage::CoverageState;

/// Why there is no stage.
pub(in crate::kernel) enum StageError {
    /// The machine does not allow it.
    Cannot(String),
    /// It should have worked.
    Broken(String),
}

/// A cgroup that goes away with this.
pub(in crate::kernel) struct Cgroup(pub(super) PathBuf);

impl Cgroup {
    pub(in crate::kernel) fn create(name: &str) -> Result<Self, LoadError> {
        let dir = preflight::cgroup2_mount()?.join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).map_err(|source| LoadError::Io {
            what: format!("cannot make the cgroup {}", dir.display()),
            source,
        })?;
        Ok(Self(dir))
    }
}

impl Cgroup {
    pub(in crate::kernel) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel lets go of a dead member a moment after it was waited for.
        for _ in 0..50 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A directory that goes away with this.
pub(in crate::kernel) struct Dir(pub(in crate::kernel) PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// The stage.
pub(in crate::kernel) struct Stage {
    pub(in crate::kernel) sensor: Sensor,
    pub(in crate::kernel) cgroup: Cgroup,
    pub(in crate::kernel) dir: Dir,
    pub(super) prefix: Vec<String>,
}

/// What the checks of a case look at.
pub(super) struct Seen<'a> {
    /// The actor.
    pub(super) tgid: u32,
    /// The watched file.
    pub(super) file: FileId,
    /// Everything reported.
    pub(super) events: &'a [KernelEvent],
}

impl Stage {
    pub(in crate::kernel) fn set(
        prefix: &[&str],
        mut config: SensorConfig,
    ) -> Result<Self, StageError> {
        let broken = |e: std::io::Error| StageError::Broken(e.to_string());
        let cannot = |e: LoadError| StageError::Cannot(e.to_string());
        preflight::check().map_err(cannot)?;
        let cgroup = Cgroup::create("keytrail-selftest").map_err(cannot)?;
        config.scope = Some(cgroup.0.clone());
        let sensor = Sensor::load(&config).map_err(|e| StageError::Broken(e.to_string()))?;
        let dir = Dir(work_dir());
        fs::create_dir_all(&dir.0).map_err(broken)?;
        let prefix = prefix.iter().map(|s| (*s).to_owned()).collect();
        Ok(Self {
            sensor,
            cgroup,
            dir,
            prefix,
        })
    }

    /// Plays one case.
    pub(super) fn play(&mut self, case: &Case) -> Outcome {
        let live = self
            .sensor
            .coverage()
            .rows
            .iter()
            .any(|row| match &row.state {
                CoverageState::Live { hook } => case.via.contains(&hook.as_str()),
                CoverageState::Missing { .. } => false,
            });
        if !case.via.is_empty() && !live {
            return Outcome::Skipped(format!(
                "this kernel offers none of {}",
                case.via.join(", ")
            ));
        }
        match self.try_play(case) {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }

    fn try_play(&mut self, case: &Case) -> Result<Outcome, Box<dyn std::error::Error>> {
        let place = Dir(self.dir.0.join(case.name.replace(' ', "-")));
        fs::create_dir_all(&place.0)?;
        let path = place.0.join("credentials");
        // Written before it is watched: what it holds is in the page cache and on no list.
        fs::write(
            &path,
            "[default]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\n",
        )?;
        let file = FileId::at(&path)?;
        let watch = self.sensor.watch();
        watch.add_inode(file)?;
        if case.watch_dir {
            watch.add_dir(FileId::at(&place.0)?)?;
        }
        self.sensor.drain(&mut Vec::new());
        let prepared = (case.prepare)(&path)?;
        let mut child = self.actor(case.act, &prepared.arg, prepared.stdout)?;
        let tgid = child.id();
        if case.tracked {
            watch.track(ProcKey { tgid, start_ns: 0 })?;
        }
        go(&mut child)?;
        let status = child.wait()?;
        if let Some(helper) = prepared.helper {
            drop(helper.join());
        }
        let events = self.collect(Duration::from_millis(200));
        watch.remove_inode(file);
        if case.watch_dir {
            watch.remove_dir(FileId::at(&place.0)?);
        }
        if status.code() == Some(super::actor::CANNOT) {
            return Ok(Outcome::Skipped(
                "the actor lacks the rights for it".to_owned(),
            ));
        }
        if !status.success() {
            return Ok(Outcome::Failed(format!("the actor ended with {status}")));
        }
        let seen = Seen {
            tgid,
            file,
            events: &events,
        };
        Ok(match (case.check)(&seen) {
            Ok(()) => Outcome::Passed,
            Err(why) => Outcome::Failed(format!("{why}; reported: {events:?}")),
        })
    }

    /// Starts an actor inside the cgroup; it waits for [`go`].
    pub(super) fn actor(
        &self,
        act: &str,
        arg: &str,
        stdout: Option<File>,
    ) -> std::io::Result<Child> {
        start_actor(&self.prefix, &self.cgroup, act, arg, stdout)
    }

    /// Reads events until the watermark has passed the present moment, at least for `least`.
    pub(super) fn collect(&mut self, least: Duration) -> Vec<KernelEvent> {
        let mut events = Vec::new();
        let until = Instant::now() + least;
        let now = crate::kernel::rings::boot_ns();
        loop {
            let drained = self.sensor.drain(&mut events);
            if drained.watermark_boot_ns >= now && Instant::now() >= until {
                return events;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Starts this binary again as an actor and puts it into `cgroup`.
pub(in crate::kernel) fn start_actor(
    prefix: &[String],
    cgroup: &Cgroup,
    act: &str,
    arg: &str,
    stdout: Option<File>,
) -> std::io::Result<Child> {
    let child = Command::new(std::env::current_exe()?)
        .args(prefix)
        .args(["--actor", act, arg])
        .stdin(Stdio::piped())
        .stdout(stdout.map_or_else(Stdio::null, Stdio::from))
        .spawn()?;
    fs::write(cgroup.0.join("cgroup.procs"), child.id().to_string())?;
    Ok(child)
}

/// Lets an actor begin.
pub(in crate::kernel) fn go(child: &mut Child) -> std::io::Result<()> {
    match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(b"\n"),
        None => Ok(()),
    }
}

/// What a case has prepared for its actor.
pub(super) struct Prepared {
    /// The actor's argument.
    pub(super) arg: String,
    /// The actor's standard output, for cases that hand a descriptor over.
    pub(super) stdout: Option<File>,
    /// Waits for the actor's connections.
    pub(super) helper: Option<std::thread::JoinHandle<()>>,
}

impl Prepared {
    pub(super) fn path(path: &Path) -> Self {
        Self {
            arg: path.display().to_string(),
            stdout: None,
            helper: None,
        }
    }
}
