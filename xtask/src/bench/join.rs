//! How fast the join is, and how large its state: at ten thousand credentials and at a million.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cmd;
use crate::ui::Ui;
use crate::workspace::Workspace;

/// Credentials, hosts, cores. The cost of an input may grow by a quarter from the smaller to the
/// larger state.
const SIZES: [(u64, u64, u64); 4] = [
    (10_000, 1_000, 1),
    (10_000, 1_000, 2),
    (1_000_000, 100_000, 1),
    (1_000_000, 100_000, 2),
];
/// Times that each host acts; the second half is measured.
const ROUNDS: u64 = 8;

pub(super) fn measure(ws: &Workspace, ui: &Ui) -> Result<String> {
    let step = ui.step("building the join's benchmark".to_owned());
    let mut build = Command::new("cargo");
    build.current_dir(&ws.root).args([
        "build",
        "--release",
        "--package",
        "keytrail-scenario",
        "--bin",
        "join-bench",
    ]);
    let status = cmd::stream(&mut build, &ws.logs().join("bench-join.log"), |_, _| {})?;
    ensure!(status.success(), "the join's benchmark does not compile");
    step.done();
    let step = ui.step("the join at four sizes".to_owned());
    let mut rows = String::new();
    let mut means = Vec::new();
    for (credentials, hosts, cores) in SIZES {
        step.now(&format!(
            "{credentials} credentials, {hosts} hosts, {cores} cores"
        ));
        let sizes = [credentials, hosts, ROUNDS, cores].map(|number| number.to_string());
        let Some(said) = cmd::output(Command::new(ws.binary("join-bench")).args(sizes)) else {
            // What the smaller sizes gave is still worth having.
            rows.push_str(&format!(
                "| {credentials} | {hosts} | {cores} | did not end: more memory than there is? | | | | | | | | |\n"
            ));
            continue;
        };
        let said: Value = serde_json::from_str(&said).context("join-bench said no JSON")?;
        let number = |path: &str| said.pointer(path).and_then(Value::as_f64);
        let field = |path: &str| number(path).unwrap_or(f64::NAN);
        let bytes = |path: &str| number(path).map_or("-".to_owned(), |n| format!("{n:.0}"));
        if cores == 1 {
            means.push(field("/mean_ns"));
        }
        rows.push_str(&format!(
            "| {credentials} | {hosts} | {cores} | {:.0} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {} | {} | {:.0} |\n",
            field("/inputs_per_second"),
            field("/mean_ns") / 1e3,
            field("/p50_ns") / 1e3,
            field("/p99_ns") / 1e3,
            field("/use_p50_ns") / 1e3,
            field("/use_p99_ns") / 1e3,
            bytes("/memory/bytes_per_credential"),
            bytes("/memory/bytes_per_connection"),
            field("/memory/resident_bytes") / 1e6,
        ));
    }
    step.done();
    let growth = match means.as_slice() {
        [small, large] => format!("{:+.0} %", (large / small - 1.0) * 100.0),
        _ => "what is not known: only one size ended".to_owned(),
    };
    Ok(format!(
        "Every host holds ten credentials; in each of {ROUNDS} rounds, ten minutes apart, it opens a \
         connection, is told its name, has one use of one credential, closes, and sends a watermark; \
         every fourth time a new command reads the credential first. One use in a thousand comes \
         from a stranger. The second half of the rounds is measured. Times are those of \
         `Join::apply`: from the record to the verdict, for a use. On two cores, two partitions of \
         credentials run side by side, and a host's facts go to both where both need them.\n\n\
         | credentials | hosts | cores | inputs/s | mean us | p50 us | p99 us | use p50 us | use p99 us | bytes a credential | bytes a connection | resident MB |\n\
         |---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n\
         {rows}\n\
         From the smaller to the larger state the mean cost of an input on one core changes by {growth} \
         (limit: +25 %).\n"
    ))
}
