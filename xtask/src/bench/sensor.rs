//! What a sensor costs a process: the sensor measures it itself, with rounds without a sensor, of an
//! untracked and of a tracked process interleaved, and with other observers if they are wanted.

use std::fmt::Write as _;
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
    /// A number to sort by, and what ran beside the workload: `1 none`, `2 untracked`.
    variant: String,
    ns: f64,
}

/// The same, of an observer that does not run on this machine.
#[derive(Deserialize)]
struct Cannot {
    peer: String,
    cannot: String,
}

pub(super) fn measure(ws: &Workspace, ui: &Ui, rounds: u32, peers: bool) -> Result<String> {
    let step = ui.step(format!(
        "{rounds} rounds of opens and connects, with and without a sensor"
    ));
    let mut bench = Command::new(ws.binary("sensor-agent"));
    bench.args(["bench-workload", "--json", "--rounds", &rounds.to_string()]);
    if peers {
        bench.arg("--peers");
    }
    let mut medians: Vec<Median> = Vec::new();
    let mut cannot: Vec<Cannot> = Vec::new();
    let mut header = String::new();
    let mut tail = cmd::Tail::default();
    let status = cmd::stream(
        &mut bench,
        &ws.logs().join("bench-sensor.log"),
        |_, line| {
            tail.push(line);
            if line.starts_with("kernel ") {
                line.clone_into(&mut header);
            } else if let Ok(median) = serde_json::from_str::<Median>(line) {
                medians.push(median);
            } else if let Ok(peer) = serde_json::from_str::<Cannot>(line) {
                cannot.push(peer);
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
    let mut report = format!(
        "Measured on {header}, for one operation.\n\n{}",
        table(&medians)
    );
    if peers {
        report.push_str("\nNot measured on this machine:\n\n");
        for Cannot { peer, cannot } in &cannot {
            writeln!(report, "- {peer}: {cannot}")?;
        }
        report.push_str(
            "- auditd: once it is enabled, the kernel builds audit records for every later process \
             until it is booted anew, so all rounds after it would measure it too.\n",
        );
    }
    Ok(report)
}

/// A row for each operation and variant: its cost, and how much more than alone.
fn table(medians: &[Median]) -> String {
    let mut sorted: Vec<&Median> = medians.iter().collect();
    sorted.sort_by(|a, b| (&a.workload, &a.variant).cmp(&(&b.workload, &b.variant)));
    let mut rows = vec![
        "| operation | beside it | ns | more, ns | more, % |".to_owned(),
        "|---|---|---:|---:|---:|".to_owned(),
    ];
    let mut alone = f64::NAN;
    for median in sorted {
        let name = median.variant.split_once(' ').map_or("", |(_, name)| name);
        if name == "none" {
            alone = median.ns;
        }
        let more = median.ns - alone;
        rows.push(format!(
            "| {} | {name} | {:.0} | {more:+.0} | {:+.1} |",
            median.workload,
            median.ns,
            more * 100.0 / alone
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
            line("open", "4 tracked", 2900),
        ];
        let table = table(&medians);
        assert!(
            table.ends_with(
                "| open | none | 2000 | +0 | +0.0 |\n\
                 | open | untracked | 2100 | +100 | +5.0 |\n\
                 | open | tracked | 2900 | +900 | +45.0 |\n"
            ),
            "{table}"
        );
    }
}
