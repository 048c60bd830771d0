//! `correlator scenario`: labelled stories through the join, and whether they are well written.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use keytrail_scenario::check::check;
use keytrail_scenario::report::Report;
use keytrail_scenario::{SCHEMA, files, load, load_all};

use super::style::print;

#[derive(Debug, Subcommand)]
pub(super) enum ScenarioCommand {
    /// Run scenario files and compare the verdicts with what they expect
    Run(RunArgs),
    /// Say whether scenario files are well written, without running them
    Check(CheckArgs),
    /// Print the JSON Schema of a scenario file (TOML), for editors
    Schema,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Files, or folders with `*.toml` files
    #[arg(required = true)]
    paths: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Files, or folders with `*.toml` files
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Leave the variations away: offline sensors, lost events, late records and the like
    #[arg(long)]
    as_written: bool,
}

pub(super) fn scenario(command: &ScenarioCommand) -> Result<()> {
    match command {
        ScenarioCommand::Run(args) => run(args),
        ScenarioCommand::Check(args) => check_files(args),
        ScenarioCommand::Schema => Ok(print(SCHEMA)?),
    }
}

/// Every file is looked at; of each the first mistake is told.
fn check_files(args: &CheckArgs) -> Result<()> {
    let mut text = String::new();
    let mut wrong = 0;
    for path in &args.paths {
        for file in files(path)? {
            match load(&file) {
                Ok(scenario) => text.push_str(&format!(
                    "{}: ok, {} inputs, {} credentials\n",
                    file.display(),
                    scenario.steps.len(),
                    scenario.names.len(),
                )),
                Err(error) => {
                    wrong += 1;
                    text.push_str(&format!("{error}\n"));
                }
            }
        }
    }
    print(&text)?;
    if wrong > 0 {
        bail!("{wrong} files are not well written; tests/scenarios/README.md describes the format");
    }
    Ok(())
}

fn run(args: &RunArgs) -> Result<()> {
    let mut checked = Vec::new();
    for path in &args.paths {
        for scenario in load_all(path)? {
            checked.push(check(&scenario, !args.as_written));
        }
    }
    let report = Report::of(checked);
    if args.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?;
    } else {
        print(&report.text())?;
    }
    if report.hit < report.total {
        bail!(
            "{} of {} scenarios did not go as expected",
            report.total - report.hit,
            report.total
        );
    }
    Ok(())
}
