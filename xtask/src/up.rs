//! `cargo xtask up`: a correlator and a sensor on this machine, from nothing to alerts.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::children::{PAUSE, Program, Signals};
use crate::products;
use crate::setup::{self, Purpose};
use crate::ui::{Ui, plain};
use crate::workspace::Workspace;

/// How long each program gets to come up: the sensor has to load and prove its BPF programs.
const START: Duration = Duration::from_mins(1);
/// How long each program gets to end.
const GRACE: Duration = Duration::from_secs(15);

/// `cargo xtask up`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Watch one cgroup v2 subtree only: cgroup:PATH
    #[arg(long, value_parser = scope)]
    scope: Option<String>,
    /// Where the correlator and the sensor keep their state
    #[arg(long, default_value = ".keytrail")]
    data_dir: PathBuf,
    /// The folder that is watched for CloudTrail files; `cloudtrail` in the data folder when absent
    #[arg(long)]
    cloudtrail_dir: Option<PathBuf>,
    /// Where sensors connect
    #[arg(long, default_value = "127.0.0.1:7443")]
    listen: String,
    /// Where the API and its stream are served
    #[arg(long, default_value = "127.0.0.1:7480")]
    listen_api: String,
}

/// Where everything of one run is.
struct Places {
    correlator: PathBuf,
    sensor: PathBuf,
    cloudtrail: PathBuf,
    logs: PathBuf,
}

/// Runs until a signal comes or a program ends. Exits 0 only after a signal and a clean stop.
pub(crate) fn run(ws: &Workspace, ui: &Ui, args: &Args) -> Result<ExitCode> {
    setup::ensure(ws, ui, Purpose::Up)?;
    products::build(ws, ui)?;
    let places = Places::make(ws, args)?;
    let _only_one = lock(&places.logs)?;
    let mut signals = Signals::take()?;

    let step = ui.step("starting the correlator");
    let mut correlator = Program::start(
        "correlator",
        &correlator(ws, args, &places),
        &places.logs.join("correlator.log"),
    )?;
    let Some(served) = correlator.ready(&mut signals, START)? else {
        return Ok(ExitCode::FAILURE);
    };
    step.done();
    let address = |key: &str| -> Result<&str> {
        let text = served.get(key).and_then(Value::as_str);
        text.with_context(|| format!("the correlator named no {key} address: {served}"))
    };

    let step = ui.step("enrolling and starting the sensor");
    let command = sensor(ws, args, &places, address("ingest")?);
    let mut sensor = Program::start(
        "sensor-agent",
        &command,
        &places.logs.join("sensor-agent.log"),
    )?;
    let Some(live) = sensor.ready(&mut signals, START)? else {
        return Ok(ExitCode::FAILURE);
    };
    step.done();

    let api = address("api")?;
    println!("{}", coverage(&live));
    println!("{}", guide(ws, &places, api));
    let mut follow = follow(ws, &places, api)?;
    let ended = watch(&mut signals, &mut correlator, &mut sensor, &mut follow);
    // the sensor first: what it still has goes to a correlator that runs
    let step = ui.step("stopping");
    let stops = [
        follow.stop(GRACE).or(Ok(())),
        sensor.stop(GRACE),
        correlator.stop(GRACE),
    ];
    step.done();
    ended?;
    stops.into_iter().collect::<Result<()>>()?;
    ui.say(format!(
        "stopped; the state is kept in {}",
        ws.shown(&args.data_dir)
    ));
    Ok(ExitCode::SUCCESS)
}

/// Prints alerts as they come until a signal arrives.
///
/// # Errors
/// When the correlator or the sensor ends by itself.
fn watch(
    signals: &mut Signals,
    correlator: &mut Program,
    sensor: &mut Program,
    follow: &mut Program,
) -> Result<()> {
    while !signals.arrived() {
        for line in follow.printed() {
            println!("{line}");
        }
        for program in [&mut *correlator, &mut *sensor] {
            // what it prints after being ready is nobody's, but must not block it
            program.printed().for_each(drop);
            if let Some(status) = program.ended()? {
                bail!(
                    "a part ended by itself ({status}):\n{}",
                    program.last_words()
                );
            }
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

impl Places {
    fn make(ws: &Workspace, args: &Args) -> Result<Self> {
        let data = ws.root.join(&args.data_dir);
        let places = Self {
            correlator: data.join("correlator"),
            sensor: data.join("sensor"),
            cloudtrail: args
                .cloudtrail_dir
                .clone()
                .unwrap_or_else(|| data.join("cloudtrail")),
            logs: data.join("logs"),
        };
        for dir in [
            &places.correlator,
            &places.sensor,
            &places.cloudtrail,
            &places.logs,
        ] {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        Ok(places)
    }
}

/// Held as long as the run lasts: two of them would share one state.
fn lock(logs: &Path) -> Result<File> {
    let path = logs.join("up.lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another `cargo xtask up` runs on this data folder ({} is locked): stop it, or choose another with --data-dir",
            path.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

fn correlator(ws: &Workspace, args: &Args, places: &Places) -> Command {
    let mut command = Command::new(ws.binary("correlator"));
    command
        .arg("serve")
        .arg("--data-dir")
        .arg(&places.correlator);
    command.args([
        "--listen-ingest",
        &args.listen,
        "--listen-api",
        &args.listen_api,
    ]);
    command.arg("--cloudtrail-dir").arg(&places.cloudtrail);
    command
}

fn sensor(ws: &Workspace, args: &Args, places: &Places, ingest: &str) -> Command {
    let enrol = places.correlator.join("enrol");
    let mut command = Command::new(ws.binary("sensor-agent"));
    command
        .arg("run")
        .arg("--correlator")
        .arg(format!("https://{ingest}"));
    command.arg("--ca").arg(enrol.join("ca.pem"));
    command
        .arg("--join-token-file")
        .arg(enrol.join("join-token"));
    command.arg("--state-dir").arg(&places.sensor);
    if let Some(scope) = &args.scope {
        command.arg("--scope").arg(scope);
    }
    command
}

/// The correlator's own command line, printing alerts as they are raised.
fn follow(ws: &Workspace, places: &Places, api: &str) -> Result<Program> {
    let mut command = Command::new(ws.binary("correlator"));
    command
        .args(["alert", "follow", "--api", api])
        .arg("--token-file");
    command.arg(places.correlator.join("api-token"));
    Program::start(
        "correlator alert follow",
        &command,
        &places.logs.join("follow.log"),
    )
}

fn scope(text: &str) -> Result<String, String> {
    let path = text
        .strip_prefix("cgroup:")
        .ok_or("a scope is cgroup:PATH")?;
    if path.starts_with('/') && Path::new(path).is_dir() {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{path} is not the absolute path of a cgroup v2 folder"
    ))
}

/// What the running kernel lets the sensor see, as a table.
fn coverage(live: &Value) -> String {
    let coverage = live.get("coverage").unwrap_or(live);
    let text =
        |value: &Value, key: &str| plain(value.get(key).and_then(Value::as_str).unwrap_or("-"));
    let scope = match coverage.get("scope").and_then(Value::as_str) {
        Some(scope) => format!("only {}", plain(scope)),
        None => "the whole machine".to_owned(),
    };
    let mut table = vec![format!(
        "\nWatching {scope} on Linux {}, plan {}:",
        text(coverage, "kernel"),
        text(coverage, "plan")
    )];
    let none = Vec::new();
    for row in coverage
        .get("rows")
        .and_then(Value::as_array)
        .unwrap_or(&none)
    {
        // the state is an object tagged by a field of its own name
        let state = row.get("state").filter(|s| s.is_object()).unwrap_or(row);
        let (mark, how) = match state.get("reason").and_then(Value::as_str) {
            None => ("seen    ", text(state, "hook")),
            Some(why) if state.get("blinds_verdicts") == Some(&Value::Bool(true)) => (
                "NOT SEEN",
                format!("{} (uses cannot be judged without it)", plain(why)),
            ),
            Some(why) => ("NOT SEEN", plain(why)),
        };
        table.push(format!(
            "  {mark}  {:<8} {:<44} {how}",
            text(row, "area"),
            text(row, "what")
        ));
    }
    table.join("\n") + "\n"
}

/// Where alerts are and how to read them.
fn guide(ws: &Workspace, places: &Places, api: &str) -> String {
    let cli = ws.binary("correlator");
    let (cli, token) = (ws.shown(&cli), places.correlator.join("api-token"));
    let token = ws.shown(&token);
    let options = format!("--api {api} --token-file {token}");
    format!(
        "Alerts are shown here as they come, and at
  {cli} alert list {options}
  {cli} alert show latest {options}
  curl -H \"Authorization: Bearer $(cat {token})\" {api}/v1/alerts
CloudTrail files are taken from {}
Logs are in {}
Ctrl-C stops everything.
",
        ws.shown(&places.cloudtrail),
        ws.shown(&places.logs),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverage_says_what_is_not_seen() {
        let live = serde_json::json!({"ready": true, "plan": "B", "coverage": {
        "kernel": "6.18.44", "plan": "B", "scope": null, "agent_version": "0.1.0",
        "rows": [
            {"area": "access", "what": "opens", "state": {"state": "live", "hook": "tp_btf/sys_exit"}},
            {"area": "access", "what": "process_vm_readv",
             "state": {"state": "missing", "reason": "no LSM", "blinds_verdicts": false}},
            {"area": "network", "what": "connections",
             "state": {"state": "missing", "reason": "no cgroup2\u{1b}[31m", "blinds_verdicts": true}},
        ]}});
        let table = coverage(&live);
        assert!(
            table.contains("the whole machine on Linux 6.18.44, plan B"),
            "{table}"
        );
        assert!(table.contains("seen      access   opens"), "{table}");
        assert!(
            table.contains("NOT SEEN  access   process_vm_readv"),
            "{table}"
        );
        assert!(
            table.contains("(uses cannot be judged without it)"),
            "{table}"
        );
        assert!(!table.contains('\u{1b}'), "{table}");
    }

    #[test]
    fn a_scope_must_be_a_folder() {
        assert_eq!(scope("cgroup:/sys").as_deref(), Ok("cgroup:/sys"));
        for bad in [
            "/sys",
            "cgroup:sys",
            "cgroup:/sys/no-such-folder",
            "cgroup:",
            "pid:1",
        ] {
            assert!(scope(bad).is_err(), "{bad}");
        }
    }
}
