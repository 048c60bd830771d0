//! `cargo xtask corpora`: what becomes of every record of the recorded logs in `../shared/corpora`.
//!
//! The reading is done by an example of the sources' crate, so that this tool stays light.

use anyhow::{Context, Result, ensure};

use crate::cmd::{self, Output};
use crate::ui::Ui;
use crate::workspace::Workspace;

/// `cargo xtask corpora`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print the records that gave no use for this reason (`bad-time`), of this source, or `all`
    #[arg(long)]
    show: Option<String>,
}

/// Prints a table: records, uses, and every other outcome by its reason.
pub(crate) fn run(ws: &Workspace, ui: &Ui, args: &Args) -> Result<()> {
    let step = ui.step("building the reader");
    let mut build = ws.cargo(&["build", "--release", "--locked"]);
    build.args(["--package", "keytrail-sources", "--example", "corpora"]);
    cmd::quiet(ws, &step, "build-corpora", &mut build)?;
    step.done();
    let program = ws.binary("examples/corpora");
    let mut read = std::process::Command::new(&program);
    read.args(&args.show);
    let status = cmd::stream(&mut read, &ws.logs().join("corpora.log"), |output, line| {
        if output == Output::Out {
            println!("{line}");
        } else {
            ui.warn(line);
        }
    })
    .with_context(|| format!("running {}", program.display()))?;
    ensure!(status.success(), "the reader failed: {status}");
    Ok(())
}
