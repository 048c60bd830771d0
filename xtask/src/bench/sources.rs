//! Records a second of each source's parser, on one core.
//!
//! Each measure is a process of its own, so that its memory is its own; beside CloudTrail's stand
//! the same file read into `serde_json::Value`s, by Python's json, and by DuckDB (from PyPI, where it is
//! installed), which takes out the members that a use is made of. Rates are per second of
//! processor time: what the machine did meanwhile does not matter.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::quartiles;
use crate::cmd;
use crate::ui::{Step, Ui};
use crate::workspace::{Workspace, which};

/// Size of the files.
const MIB: &str = "16";
/// Reads lines with Python's json, and prints the rate by processor time.
const PYTHON: &str = "
import json, sys, time
since = time.process_time()
count = size = 0
with open(sys.argv[1], 'rb') as lines:
    for line in lines:
        json.loads(line)
        count += 1
        size += len(line)
took = time.process_time() - since
print(json.dumps({'records_per_s': count / took, 'mb_per_s': size / 1e6 / took, 'peak_kib': None}))
";

/// Takes out of every line, with DuckDB on one thread, what a use is made of; prints the rate by
/// processor time.
const DUCKDB: &str = "
import json, os, resource, sys, time
import duckdb
db = duckdb.connect()
db.execute('SET threads = 1')
paths = ['eventID', 'eventTime', 'eventSource', 'eventName', 'awsRegion', 'sourceIPAddress', 'userAgent',
         'errorCode', 'userIdentity.accessKeyId', 'userIdentity.arn', 'userIdentity.accountId',
         'tlsDetails.clientProvidedHostHeader']
columns = ', '.join(\"max(length(j[%d]))\" % (n + 1) for n in range(len(paths)))
wanted = '[' + ', '.join(\"'$.%s'\" % path for path in paths) + ']'
query = (\"SELECT count(*), \" + columns + \" FROM (SELECT json_extract_string(json, \" + wanted + \") AS j \"
         \"FROM read_ndjson_objects(?))\")
since = time.process_time()
count = db.execute(query, [sys.argv[1]]).fetchone()[0]
took = time.process_time() - since
print(json.dumps({'records_per_s': count / took, 'mb_per_s': os.path.getsize(sys.argv[1]) / 1e6 / took,
                  'peak_kib': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
";

/// What one measure gave.
struct Rate {
    records: f64,
    megabytes: f64,
    peak_mib: f64,
}

pub(super) fn measure(ws: &Workspace, ui: &Ui, rounds: u32) -> Result<String> {
    let step = ui.step("building the measure");
    let mut build = ws.cargo(&["build", "--release", "--locked"]);
    build.args([
        "--package",
        "keytrail-sources",
        "--example",
        "sources-bench",
    ]);
    cmd::quiet(ws, &step, "build-bench-sources", &mut build)?;
    step.done();
    let rounds = rounds.clamp(1, 15);
    let step = ui.step(format!("{rounds} rounds of every source's file"));
    let program = ws.binary("examples/sources-bench");
    let folder = ws.cache.join("bench-sources");
    let made = cmd::output(Command::new(&program).arg("make").arg(&folder).arg(MIB));
    let made = made.with_context(|| format!("{} could not make its files", program.display()))?;
    let duckdb = with_duckdb(ws);
    let mut rows = String::new();
    for line in made.lines() {
        let (kind, file) = line.split_once(' ').context("a line without a file")?;
        let file = PathBuf::from(file);
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let modes: &[&str] = match name.as_ref() {
            "aws.cloudtrail" | "aws.cloudtrail-recorded" => {
                &["parse", "gzip", "value", "python", "duckdb"]
            }
            _ => &["parse", "gzip"],
        };
        for mode in modes {
            if *mode == "python" && which("python3").is_none() {
                ui.warn("no python3 on this machine: its json is not measured");
                continue;
            }
            if *mode == "duckdb" && duckdb.is_none() {
                ui.warn(format!(
                    "no DuckDB beside which to measure: python3 -m venv {folder} && {folder}/bin/pip install duckdb",
                    folder = ws.shown(&ws.cache.join("duckdb"))
                ));
                continue;
            }
            let python = duckdb.as_deref().filter(|_| *mode == "duckdb");
            let program = python.unwrap_or(&program);
            let rate = median(program, mode, kind, &file, rounds, &step)?;
            rows += &format!(
                "| {name} | {} | {:.0} | {:.0} | {} |\n",
                shown(mode),
                rate.records,
                rate.megabytes,
                // Python does not tell
                if rate.peak_mib.is_nan() {
                    "-".to_owned()
                } else {
                    format!("{:.1}", rate.peak_mib)
                }
            );
        }
    }
    step.done();
    Ok(format!(
        "Files of {MIB} MiB in the page cache, a record a line, made by repeating the test cases (and, as \
         `recorded`, 2,900 records of a real attack where they are at hand); one thread; medians of \
         {rounds} rounds; rates per second of processor time.\n\n\
         | file | read as | records/s | MB/s (plain) | peak MiB |\n|---|---|---:|---:|---:|\n{rows}"
    ))
}

/// A Python that has DuckDB.
fn with_duckdb(ws: &Workspace) -> Option<PathBuf> {
    let own = ws.cache.join("duckdb/bin/python");
    [own, PathBuf::from("python3")].into_iter().find(|python| {
        cmd::output(Command::new(python).args(["-c", "import duckdb; print(1)"])).is_some()
    })
}

fn shown(mode: &str) -> &str {
    match mode {
        "parse" => "uses",
        "gzip" => "uses, from gzip",
        "value" => "serde_json::Value",
        "duckdb" => "twelve members, DuckDB",
        _ => "Python's json",
    }
}

fn median(
    program: &Path,
    mode: &str,
    kind: &str,
    file: &Path,
    rounds: u32,
    step: &Step,
) -> Result<Rate> {
    let (mut records, mut megabytes, mut peaks) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut command = Command::new(if mode == "python" {
            Path::new("python3")
        } else {
            program
        });
        match mode {
            "python" => command.args(["-c", PYTHON]).arg(file),
            "duckdb" => command.args(["-c", DUCKDB]).arg(file),
            _ => command.arg(mode).arg(kind).arg(file),
        };
        let said = cmd::output(&mut command);
        let said = said.with_context(|| format!("{mode} of {} failed", file.display()))?;
        step.now(&format!("{} {mode}", file.display()));
        let said: Value = serde_json::from_str(&said)?;
        let number = |key: &str| said.get(key).and_then(Value::as_f64);
        records.push(number("records_per_s").unwrap_or(f64::NAN));
        megabytes.push(number("mb_per_s").unwrap_or(f64::NAN));
        peaks.push(number("peak_kib").unwrap_or(f64::NAN) / 1024.0);
    }
    ensure!(!records.is_empty(), "no round was made");
    Ok(Rate {
        records: quartiles(records).1,
        megabytes: quartiles(megabytes).1,
        peak_mib: quartiles(peaks).1,
    })
}
