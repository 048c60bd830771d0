//! `correlator scenario run`: labelled stories through the join.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use keytrail_scenario::check::check;
use keytrail_scenario::load_all;
use keytrail_scenario::report::Report;

use super::style::print;

#[derive(Debug, Subcommand)]
pub(super) enum ScenarioCommand {
    /// Run scenario files and compare the verdicts with what they expect
    Run(RunArgs),
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
    let ScenarioCommand::Run(args) = command;
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
