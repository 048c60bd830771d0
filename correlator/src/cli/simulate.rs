//! `correlator simulate`: days of life of many endpoints, with thefts in them.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use keytrail_scenario::simulate::{Options, settings, simulate};

use super::style::print;

#[derive(Debug, Args)]
pub(super) struct SimulateArgs {
    /// How many endpoints
    #[arg(long, default_value_t = 100)]
    endpoints: u32,
    /// For how many days
    #[arg(long, default_value_t = 7)]
    days: u32,
    /// How many thefts, of nine kinds in turn
    #[arg(long, default_value_t = 9)]
    thefts: u32,
    /// The same seed makes the same days
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write every input to this file, for `replay`
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &SimulateArgs) -> Result<()> {
    let options = Options {
        endpoints: args.endpoints,
        days: args.days,
        thefts: args.thefts,
        seed: args.seed,
    };
    let mut out = match &args.out {
        Some(path) => {
            let file = File::create(path).with_context(|| path.display().to_string())?;
            let mut out = BufWriter::new(file);
            serde_json::to_writer(&mut out, &serde_json::json!({ "settings": settings() }))?;
            out.write_all(b"\n")?;
            Some(out)
        }
        None => None,
    };
    let outcome = simulate(options, |input| -> Result<()> {
        if let Some(out) = &mut out {
            serde_json::to_writer(&mut *out, input)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    })?;
    if let Some(mut out) = out {
        out.flush()?;
    }
    if args.json {
        let mut text = serde_json::to_string_pretty(&outcome)?;
        text.push('\n');
        return Ok(print(&text)?);
    }
    Ok(print(&outcome.text())?)
}
