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
        fs::copy(&me, bin.join(FOLLOWED)).with_context(|| format!("copying {}", me.display()))?;
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

    /// Runs the workload in the sensor's scope: so many connections.
    ///
    /// # Errors
    /// When it fails or we were interrupted.
    pub(super) fn work(&mut self, connects: u32) -> Result<()> {
        ensure!(!self.signals.arrived(), "interrupted");
        // the shell joins the group first, so that the workload's exec happens inside it
        let script = "echo $$ >\"$0/cgroup.procs\" && exec \"$@\"";
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script]).arg(&self.cgroup.0);
        shell
            .arg(self.scratch.path().join("bin").join(FOLLOWED))
            .arg("bench-load");
        shell.args(["--connects", &connects.to_string()]);
        cmd::output(&mut shell)
            .map(drop)
            .context("the workload failed")
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
