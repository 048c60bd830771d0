//! What a sensor costs a process: the sensor measures it itself, with rounds without a sensor, of an
//! untracked and of a tracked process interleaved.

use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::cmd;
use crate::ui::Ui;
use crate::workspace::Workspace;

/// One line of `sensor-agent bench-workload --json`: a median of CPU ns for one operation.
#[derive(Deserialize)]
struct Median {
    workload: String,
    /// `1 none`, `2 untracked`, `3 tracked`
    variant: String,
    ns: f64,
}

pub(super) fn measure(ws: &Workspace, ui: &Ui, rounds: u32) -> Result<String> {
    let step = ui.step(format!(
        "{rounds} rounds of opens and connects, with and without a sensor"
    ));
    let mut bench = Command::new(ws.binary("sensor-agent"));
    bench.args(["bench-workload", "--json", "--rounds", &rounds.to_string()]);
    let mut medians: Vec<Median> = Vec::new();
    let mut header = String::new();
    let mut tail = cmd::Tail::default();
    let status = cmd::stream(
        &mut bench,
        &ws.logs().join("bench-sensor.log"),
        |_, line| {
            tail.push(line);
            if line.starts_with("kernel ") {
                line.clone_into(&mut header);
            } else if let Ok(median) = serde_json::from_str(line) {
                medians.push(median);
            }
        },
    )?;
    let measured = status
        .success()
        .then_some(())
        .filter(|()| !medians.is_empty());
    measured
        .with_context(|| format!("`sensor-agent bench-workload` failed ({status}):\n{tail}"))?;
    step.done();
    Ok(format!(
        "Measured on {header}, for one operation.\n\n{}",
        table(&medians)
    ))
}

/// A row for each operation: without a sensor, and what it costs more with one.
fn table(medians: &[Median]) -> String {
    let of = |workload: &str, variant: &str| {
        let found = medians
            .iter()
            .find(|m| m.workload == workload && m.variant.ends_with(variant));
        found.map_or(f64::NAN, |m| m.ns)
    };
    let mut rows = vec![
        "| operation | no sensor, ns | untracked | more | tracked | more |".to_owned(),
        "|---|---:|---:|---:|---:|---:|".to_owned(),
    ];
    for workload in medians
        .iter()
        .filter(|m| m.variant.ends_with("none"))
        .map(|m| &m.workload)
    {
        let (none, untracked, tracked) = (
            of(workload, " none"),
            of(workload, " untracked"),
            of(workload, " tracked"),
        );
        rows.push(format!(
            "| {workload} | {none:.0} | {untracked:.0} | {:+.0} | {tracked:.0} | {:+.0} |",
            untracked - none,
            tracked - none
        ));
    }
    rows.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_become_a_table() {
        let line = |workload: &str, variant: &str, ns: u32| {
            let text = format!(r#"{{"workload":"{workload}","variant":"{variant}","ns":{ns}}}"#);
            serde_json::from_str::<Median>(&text).unwrap()
        };
        let medians = [
            line("open", "1 none", 2000),
            line("open", "2 untracked", 2100),
            line("open", "3 tracked", 2900),
        ];
        let table = table(&medians);
        assert!(
            table.ends_with("| open | 2000 | 2100 | +100 | 2900 | +900 |\n"),
            "{table}"
        );
    }
}
