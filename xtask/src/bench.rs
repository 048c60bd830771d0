//! `cargo xtask bench`: what the sensor costs, how fast facts become durable, how soon an alert comes.
//!
//! Every report names the conditions it was measured under: numbers without them mean nothing.

pub(crate) mod conditions;
mod join;
mod load;
mod pipeline;
mod sensor;
mod sources;
mod stand;

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::Value;

pub(crate) use self::load::{Load, run as load};
use crate::cmd;
use crate::products;
use crate::setup::{self, Purpose};
use crate::ui::Ui;
use crate::workspace::Workspace;

/// `cargo xtask bench`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure
    #[arg(value_enum)]
    what: What,
    /// How many rounds; more make steadier numbers
    #[arg(long, default_value_t = 15)]
    rounds: u32,
    /// Write the report to docs/benchmarks too
    #[arg(long)]
    save: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// CPU time of one open and one connect: without a sensor, untracked, tracked
    Sensor,
    /// The same beside bpftrace, bcc and libbpf-tools, where they run
    Peers,
    /// Facts a second from the kernel's ring to the correlator's disk
    Pipeline,
    /// Time from a CloudTrail file's arrival to its alert
    Alert,
    /// Inputs a second, time and memory of the join alone, at two sizes
    Join,
    /// Records a second and memory of each source's parser, on one core
    Sources,
    /// How long questions to the lineage graph take at a million edges
    Graph,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Sensor => "sensor",
            Self::Peers => "peers",
            Self::Pipeline => "pipeline",
            Self::Alert => "alert",
            Self::Join => "join",
            Self::Sources => "sources",
            Self::Graph => "graph",
        }
    }
}

pub(crate) fn run(ws: &Workspace, ui: &Ui, args: &Args) -> Result<()> {
    // Pure parts need neither the BPF toolchain nor the products.
    if !matches!(args.what, What::Join | What::Sources | What::Graph) {
        setup::ensure(ws, ui, Purpose::Up)?;
        products::build(ws, ui)?;
    }
    let measured = match args.what {
        What::Sensor => sensor::measure(ws, ui, args.rounds, false)?,
        What::Peers => sensor::measure(ws, ui, args.rounds, true)?,
        What::Pipeline => pipeline::measure(ws, ui, args.rounds)?,
        What::Alert => alert(ws, ui, args.rounds)?,
        What::Join => join::measure(ws, ui)?,
        What::Sources => sources::measure(ws, ui, args.rounds)?,
        What::Graph => graph(ws, ui)?,
    };
    let name = args.what.name();
    let report = format!(
        "# Benchmark: {name}\n\n{}\n{measured}",
        conditions::describe(ws)?
    );
    println!("{report}");
    if args.save {
        let path = ws.root.join("docs/benchmarks").join(format!("{name}.md"));
        fs::create_dir_all(ws.root.join("docs/benchmarks"))?;
        fs::write(&path, report).with_context(|| format!("cannot write {}", path.display()))?;
        ui.say(format!("saved as {}", ws.shown(&path)));
    }
    Ok(())
}

/// The graph measures itself: an example of its crate.
fn graph(ws: &Workspace, ui: &Ui) -> Result<String> {
    let step = ui.step("a graph of a million edges, and questions to it".to_owned());
    let mut bench = Command::new("cargo");
    bench
        .args(["run", "--release", "--quiet", "--package", "keytrail-graph"])
        .args(["--example", "graph-bench"])
        .current_dir(&ws.root);
    let mut report = String::new();
    let mut tail = cmd::Tail::default();
    let status = cmd::stream(
        &mut bench,
        &ws.logs().join("bench-graph.log"),
        |from, line| {
            tail.push(line);
            if from == cmd::Output::Out {
                report.push_str(line);
                report.push('\n');
            }
        },
    )?;
    anyhow::ensure!(
        status.success(),
        "the graph's benchmark failed ({status}):\n{tail}"
    );
    step.done();
    Ok(report)
}

/// The correlator measures itself: a whole one, on a folder of its own.
fn alert(ws: &Workspace, ui: &Ui, rounds: u32) -> Result<String> {
    let dir = stand::Scratch::make("alert")?;
    let step = ui.step(format!("{rounds} CloudTrail files, one alert each"));
    let mut bench = Command::new(ws.binary("correlator"));
    bench
        .args(["bench-alert", "--rounds", &rounds.to_string(), "--data-dir"])
        .arg(dir.path());
    let mut said = None;
    let mut tail = cmd::Tail::default();
    let status = cmd::stream(&mut bench, &ws.logs().join("bench-alert.log"), |_, line| {
        tail.push(line);
        if let Ok(value) = serde_json::from_str::<Value>(line) {
            said = Some(value);
        }
    })?;
    let said = said.filter(|_| status.success());
    let said =
        said.with_context(|| format!("`correlator bench-alert` failed ({status}):\n{tail}"))?;
    step.done();
    let ms = |key: &str| said.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN);
    Ok(format!(
        "From the rename of a CloudTrail file into the watched folder to the alert on the stream; \
         {rounds} files one after the other, each with a credential of its own whose holder is up to date.\n\n\
         | median ms | p99 ms | max ms |\n|---:|---:|---:|\n| {:.1} | {:.1} | {:.1} |\n",
        ms("median_ms"),
        ms("p99_ms"),
        ms("max_ms")
    ))
}

/// The middle of a set of numbers, and its quartiles.
fn quartiles(mut numbers: Vec<f64>) -> (f64, f64, f64) {
    numbers.sort_by(f64::total_cmp);
    let at = |quarter: usize| {
        let index = numbers.len().saturating_sub(1) * quarter / 4;
        numbers.get(index).copied().unwrap_or(f64::NAN)
    };
    (at(1), at(2), at(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_of_few_and_many() {
        assert_eq!(quartiles(vec![5.0, 1.0, 3.0, 2.0, 4.0]), (2.0, 3.0, 4.0));
        assert_eq!(quartiles(vec![7.0]), (7.0, 7.0, 7.0));
        assert!(quartiles(Vec::new()).1.is_nan());
    }
}
