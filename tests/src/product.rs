//! The product, started as a user would start it: `correlator serve` and `sensor-agent run` as
//! processes on this machine, spoken to through the API and the CLI.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use keytrail_model::alert::Alert;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::lab::child::Proc;

/// Where the product's programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `correlator`.
    pub correlator: PathBuf,
    /// `sensor-agent`.
    pub sensor: PathBuf,
}

/// Overrides where the product's programs are.
pub const BIN_DIR_VAR: &str = "KEYTRAIL_BIN_DIR";

impl Programs {
    /// The programs in `$KEYTRAIL_BIN_DIR`, else beside `demo`.
    ///
    /// # Errors
    /// As [`Self::beside`].
    pub fn find(demo: &Path) -> Result<Self> {
        match std::env::var_os(BIN_DIR_VAR) {
            Some(dir) => Self::beside(&PathBuf::from(dir).join("demo")),
            None => Self::beside(demo),
        }
    }

    /// The programs beside `demo`, where a build of the workspace puts them.
    ///
    /// # Errors
    /// When one is absent; the text says how to build it.
    pub fn beside(demo: &Path) -> Result<Self> {
        let dir = demo.parent().context("the demo program has no folder")?;
        let find = |name: &str| -> Result<PathBuf> {
            let path = dir.join(name);
            ensure!(
                path.is_file(),
                "{} is absent: build it with `cargo build --release`",
                path.display()
            );
            Ok(path)
        };
        Ok(Self {
            correlator: find("correlator")?,
            sensor: find("sensor-agent")?,
        })
    }
}

/// A running correlator.
#[derive(Debug)]
pub struct Correlator {
    proc: Proc,
    /// Base address of the API: `http://127.0.0.1:PORT`.
    pub api: String,
    /// Where sensors connect: `127.0.0.1:PORT`.
    pub ingest: String,
    /// Its data.
    pub data: PathBuf,
    /// The watched folder.
    pub cloudtrail: PathBuf,
    programs: Programs,
    log: PathBuf,
}

impl Correlator {
    /// Starts a correlator whose data, logs and watched folder are under `dir`.
    ///
    /// # Errors
    /// When it does not become ready; the text holds its last words.
    pub fn start(programs: &Programs, dir: &Path) -> Result<Self> {
        let (data, cloudtrail) = (dir.join("correlator"), dir.join("cloudtrail"));
        fs::create_dir_all(&data)?;
        fs::create_dir_all(&cloudtrail)?;
        let log = dir.join("correlator.log");
        let any = "127.0.0.1:0".to_owned();
        let (proc, ready) = Self::launch(programs, &data, &cloudtrail, &log, &any, &any)?;
        let text = |key: &str| -> Result<String> {
            let value = ready.get(key).and_then(Value::as_str);
            Ok(value
                .with_context(|| format!("no {key} in {ready}"))?
                .to_owned())
        };
        Ok(Self {
            api: text("api")?,
            ingest: text("ingest")?,
            proc,
            data,
            cloudtrail,
            programs: programs.clone(),
            log,
        })
    }

    fn launch(
        programs: &Programs,
        data: &Path,
        cloudtrail: &Path,
        log: &Path,
        ingest: &str,
        api: &str,
    ) -> Result<(Proc, Value)> {
        let mut command = Command::new(&programs.correlator);
        command.arg("serve").arg("--data-dir").arg(data);
        command.args(["--listen-ingest", ingest, "--listen-api", api]);
        command.arg("--cloudtrail-dir").arg(cloudtrail);
        let mut proc = Proc::start_logged("correlator", command, "", Some(log))?;
        let ready = proc.ready(Duration::from_mins(2))?;
        Ok((proc, ready))
    }

    /// Kills the correlator as a power failure would (SIGKILL).
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn crash(&mut self) -> Result<()> {
        self.proc.signal(nix::sys::signal::Signal::SIGKILL)?;
        self.proc.finish(Duration::from_mins(1))?;
        Ok(())
    }

    /// Starts it again on the same data and addresses.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn restart(&mut self) -> Result<()> {
        let api = self.api.trim_start_matches("http://").to_owned();
        let (proc, _) = Self::launch(
            &self.programs,
            &self.data,
            &self.cloudtrail,
            &self.log,
            &self.ingest,
            &api,
        )?;
        self.proc = proc;
        Ok(())
    }

    /// Asks it to end and waits.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self) -> Result<()> {
        self.proc.signal(nix::sys::signal::Signal::SIGTERM)?;
        let status = self.proc.finish(Duration::from_mins(1))?;
        ensure!(status.success(), "the correlator ended with {status}");
        Ok(())
    }

    /// The file with the API's bearer token.
    #[must_use]
    pub fn token_file(&self) -> PathBuf {
        self.data.join("api-token")
    }

    /// The file with the correlator's log.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// A file of the enrolment folder: `ca.pem`, `join-token`.
    #[must_use]
    pub fn enrol_file(&self, name: &str) -> PathBuf {
        self.data.join("enrol").join(name)
    }

    /// A GET of the API, as text.
    ///
    /// # Errors
    /// On any status but 200.
    pub fn get_text(&self, path: &str) -> Result<String> {
        let token = fs::read_to_string(self.token_file()).context("the API token")?;
        let url = format!("{}{path}", self.api);
        let mut answer = ureq::get(&url)
            .header("authorization", format!("Bearer {}", token.trim()))
            .call()
            .with_context(|| format!("GET {url}"))?;
        Ok(answer.body_mut().read_to_string()?)
    }

    /// A GET of the API.
    ///
    /// # Errors
    /// On any status but 200, and when the answer is not of the expected form.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let text = self.get_text(path)?;
        serde_json::from_str(&text).with_context(|| format!("GET {path} gave {text}"))
    }

    /// Every alert, whole.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn alerts(&self) -> Result<Vec<Alert>> {
        let listed: Value = self.get("/v1/alerts")?;
        let items = listed
            .get("alerts")
            .or_else(|| listed.get("items"))
            .unwrap_or(&listed);
        let items = items
            .as_array()
            .with_context(|| format!("no list of alerts in {listed}"))?;
        let id = |item: &Value| {
            item.get("id")
                .and_then(Value::as_str)
                .map(str::to_owned)
                .context("an alert without id")
        };
        items
            .iter()
            .map(|item| self.get(&format!("/v1/alerts/{}", id(item)?)))
            .collect()
    }

    /// A counter of the status page; 0 when there is none of that name.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn counter(&self, name: &str) -> Result<u64> {
        fn find(value: &Value, name: &str) -> Option<u64> {
            match value {
                Value::Object(fields) => {
                    if fields.get("name").and_then(Value::as_str) == Some(name) {
                        return fields.get("value").and_then(Value::as_u64);
                    }
                    fields.values().find_map(|v| find(v, name))
                }
                Value::Array(items) => items.iter().find_map(|v| find(v, name)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
            }
        }
        Ok(find(&self.get("/v1/status")?, name).unwrap_or(0))
    }

    /// What the correlator has logged so far.
    #[must_use]
    pub fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Uses of a credential by state, as its lineage counts them: (explained, unexplained,
    /// undecided). Zeros for a credential that is not known (yet).
    #[must_use]
    pub fn uses(&self, credential: &str) -> (u64, u64, u64) {
        let Ok(lineage) = self.get::<Value>(&format!("/v1/credentials/{credential}")) else {
            return (0, 0, 0);
        };
        let count = |state: &str| {
            lineage
                .pointer(&format!("/totals/{state}"))
                .and_then(Value::as_u64)
        };
        (
            count("explained").unwrap_or(0),
            count("unexplained").unwrap_or(0),
            count("undecided").unwrap_or(0),
        )
    }

    /// What `correlator alert ...` prints.
    ///
    /// # Errors
    /// When it fails.
    pub fn cli(&self, args: &[&str]) -> Result<String> {
        let out = Command::new(&self.programs.correlator)
            .args(args)
            .args(["--api", &self.api])
            .arg("--token-file")
            .arg(self.token_file())
            .stdin(Stdio::null())
            .output()?;
        if !out.status.success() {
            bail!(
                "correlator {args:?}: {}",
                String::from_utf8_lossy(&out.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.proc.ended()?.is_none())
    }
}

/// A running sensor.
#[derive(Debug)]
pub struct Sensor {
    proc: Proc,
    /// What it said when it was ready.
    pub ready: Value,
    /// Its state (identity, spool).
    pub state: PathBuf,
}

/// With what a sensor introduces itself.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// The CA that it expects the correlator to have.
    pub ca: PathBuf,
    /// The token with which it asks for a certificate.
    pub token: PathBuf,
}

impl Sensor {
    /// The command that starts a sensor on one cgroup.
    #[must_use]
    pub fn command(
        programs: &Programs,
        ingest: &str,
        enrolment: &Enrolment,
        state: &Path,
        scope: &Path,
    ) -> Command {
        let mut command = Command::new(&programs.sensor);
        command
            .arg("run")
            .arg("--correlator")
            .arg(format!("https://{ingest}"));
        command.arg("--ca").arg(&enrolment.ca);
        command.arg("--join-token-file").arg(&enrolment.token);
        command.arg("--state-dir").arg(state);
        command
            .arg("--scope")
            .arg(format!("cgroup:{}", scope.display()));
        command
    }

    /// Starts a sensor that watches `scope` and speaks to `correlator`; its state and log are under
    /// `dir`.
    ///
    /// # Errors
    /// When it does not become ready; the text holds its last words.
    pub fn start(
        programs: &Programs,
        correlator: &Correlator,
        dir: &Path,
        scope: &Path,
    ) -> Result<Self> {
        let state = dir.join("sensor");
        fs::create_dir_all(&state)?;
        let enrolment = Enrolment {
            ca: correlator.enrol_file("ca.pem"),
            token: correlator.enrol_file("join-token"),
        };
        let command = Self::command(programs, &correlator.ingest, &enrolment, &state, scope);
        let log = dir.join("sensor.log");
        let mut proc = Proc::start_logged("sensor-agent", command, "", Some(&log))?;
        let ready = proc.ready(Duration::from_mins(3))?;
        Ok(Self { proc, ready, state })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.proc.id()
    }

    /// Asks it to end and waits.
    ///
    /// # Errors
    /// When it does not end, or not with success.
    pub fn stop(&mut self) -> Result<()> {
        self.proc.signal(nix::sys::signal::Signal::SIGTERM)?;
        let status = self.proc.finish(Duration::from_mins(1))?;
        ensure!(
            status.success(),
            "the sensor ended with {status}:\n{}",
            self.proc.last_words()
        );
        Ok(())
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.proc.ended()?.is_none())
    }
}
