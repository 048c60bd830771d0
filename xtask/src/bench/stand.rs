//! What the benchmarks run on: a cgroup of their own, a correlator and a sensor limited to it.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::children::{Program, Signals};
use crate::cmd;
use crate::workspace::Workspace;

/// The name under which the sensor follows the workload: a known user of credentials.
const FOLLOWED: &str = "aws";
/// The name under which it does not.
const OTHER: &str = "keytrail-bench-load";
const START: Duration = Duration::from_mins(1);
const GRACE: Duration = Duration::from_secs(15);

/// A temporary folder that goes away.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes an empty folder.
    ///
    /// # Errors
    /// When it cannot be made or exists.
    pub(super) fn make(name: &str) -> Result<Self> {
        let path = env::temp_dir().join(format!("keytrail-bench-{name}-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("warning: cannot remove {}: {error}", self.0.display());
        }
    }
}

/// A cgroup that goes away.
struct Cgroup(PathBuf);

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("warning: cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Who does the work.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// A process outside the sensor's scope
    Outside,
    /// A process in the scope that nothing makes interesting
    Untracked,
    /// A process in the scope that the sensor follows
    Tracked,
}

/// The running product on a scope of its own. Parts go away in this order.
pub(super) struct Stand {
    sensor: Option<Program>,
    correlator: Program,
    ingest: String,
    api: String,
    signals: Signals,
    cgroup: Cgroup,
    scratch: Scratch,
}

impl Stand {
    /// Makes the cgroup, the programs that do the work, and starts a correlator.
    ///
    /// # Errors
    /// When cgroup v2 is not there, or we may not make a group, or the correlator does not start.
    pub(super) fn make(ws: &Workspace, name: &str) -> Result<Self> {
        let scratch = Scratch::make(name)?;
        let group = cgroup_root()?.join(format!("keytrail-bench-{}", std::process::id()));
        fs::create_dir(&group)
            .with_context(|| format!("cannot create {}: are we root?", group.display()))?;
        let cgroup = Cgroup(group);
        let bin = scratch.path().join("bin");
        fs::create_dir(&bin)?;
        let me = env::current_exe()?;
        for program in [FOLLOWED, OTHER] {
            fs::copy(&me, bin.join(program))
                .with_context(|| format!("copying {}", me.display()))?;
        }
        fs::write(scratch.path().join("file"), "an ordinary file\n")?;
        fs::create_dir(scratch.path().join("cloudtrail"))?;

        let mut signals = Signals::take()?;
        let mut command = Command::new(ws.binary("correlator"));
        command
            .arg("serve")
            .arg("--data-dir")
            .arg(scratch.path().join("correlator"));
        command.args([
            "--listen-ingest",
            "127.0.0.1:0",
            "--listen-api",
            "127.0.0.1:0",
        ]);
        command
            .arg("--cloudtrail-dir")
            .arg(scratch.path().join("cloudtrail"));
        let log = ws.logs().join(format!("bench-{name}-correlator.log"));
        let mut correlator = Program::start("correlator", &command, &log)?;
        let ready = correlator
            .ready(&mut signals, START)?
            .context("interrupted")?;
        let address = |key: &str| -> Result<String> {
            let text = ready.get(key).and_then(Value::as_str);
            Ok(text
                .with_context(|| format!("the correlator named no {key}"))?
                .to_owned())
        };
        let (ingest, api) = (address("ingest")?, address("api")?);
        Ok(Self {
            sensor: None,
            correlator,
            ingest,
            api,
            signals,
            cgroup,
            scratch,
        })
    }

    /// Starts the sensor; gives what it said when it was ready.
    ///
    /// # Errors
    /// When it does not come up.
    pub(super) fn start_sensor(&mut self, ws: &Workspace, name: &str) -> Result<Value> {
        let dir = self.scratch.path();
        let enrol = dir.join("correlator/enrol");
        let mut command = Command::new(ws.binary("sensor-agent"));
        command
            .arg("run")
            .arg("--correlator")
            .arg(format!("https://{}", self.ingest));
        command.arg("--ca").arg(enrol.join("ca.pem"));
        command
            .arg("--join-token-file")
            .arg(enrol.join("join-token"));
        command.arg("--state-dir").arg(dir.join("sensor"));
        command
            .arg("--scope")
            .arg(format!("cgroup:{}", self.cgroup.0.display()));
        // programs are looked for in PATH: this makes the copy named `aws` one that is followed
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([dir.join("bin")].into_iter().chain(env::split_paths(&path)))?;
        command.env("PATH", path);
        let log = ws.logs().join(format!("bench-{name}-sensor.log"));
        let mut sensor = Program::start("sensor-agent", &command, &log)?;
        let ready = sensor
            .ready(&mut self.signals, START)?
            .context("interrupted")?;
        self.sensor = Some(sensor);
        Ok(ready)
    }

    /// Stops the sensor, if it runs.
    ///
    /// # Errors
    /// When it does not end well.
    pub(super) fn stop_sensor(&mut self) -> Result<()> {
        self.sensor
            .take()
            .map_or(Ok(()), |mut sensor| sensor.stop(GRACE))
    }

    /// Runs the workload; gives CPU ns of an open and of a connect.
    ///
    /// # Errors
    /// When it fails or we were interrupted.
    pub(super) fn work(&mut self, who: Who, opens: u32, connects: u32) -> Result<(f64, f64)> {
        ensure!(!self.signals.arrived(), "interrupted");
        let name = if who == Who::Tracked { FOLLOWED } else { OTHER };
        let program = self.scratch.path().join("bin").join(name);
        // the shell joins the group first, so that the workload's exec happens inside it
        let script = match who {
            Who::Outside => "exec \"$@\"",
            Who::Untracked | Who::Tracked => "echo $$ >\"$0/cgroup.procs\" && exec \"$@\"",
        };
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", script])
            .arg(&self.cgroup.0)
            .arg(program)
            .arg("bench-load");
        shell.arg("--file").arg(self.scratch.path().join("file"));
        shell.args([
            "--opens",
            &opens.to_string(),
            "--connects",
            &connects.to_string(),
        ]);
        let said = cmd::output(&mut shell).context("the workload failed")?;
        let said: Value = serde_json::from_str(&said).context("the workload's report")?;
        let ns = |key: &str| {
            said.get(key)
                .and_then(Value::as_f64)
                .context("a number is missing")
        };
        Ok((ns("open_ns")?, ns("connect_ns")?))
    }

    /// A GET of the correlator's API, as JSON.
    ///
    /// # Errors
    /// On any status but 200.
    pub(super) fn get(&self, path: &str) -> Result<Value> {
        let token = fs::read_to_string(self.scratch.path().join("correlator/api-token"))?;
        let address = self.api.trim_start_matches("http://");
        let mut stream =
            TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        // HTTP/1.0: the answer comes in one piece and ends with the connection
        write!(
            stream,
            "GET {path} HTTP/1.0\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\r\n",
            token.trim()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .context("an answer without a body")?;
        let status = head.lines().next().unwrap_or_default();
        ensure!(status.contains(" 200 "), "GET {path}: {status}");
        serde_json::from_str(body).with_context(|| format!("GET {path} gave no JSON"))
    }

    /// Stops everything.
    ///
    /// # Errors
    /// When a part does not end well.
    pub(super) fn end(mut self) -> Result<()> {
        self.stop_sensor()?;
        self.correlator.stop(GRACE)
    }
}

/// Where cgroup v2 is mounted.
fn cgroup_root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut words = mounts.lines().map(|line| line.split_whitespace());
    let root = words.find_map(|mut line| {
        let (_, place, kind) = (line.next()?, line.next()?, line.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    });
    root.context("no cgroup v2 is mounted: mount -t cgroup2 none /sys/fs/cgroup")
}
