//! `cargo xtask demo`: builds everything and lets the lab play the theft.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::cmd;
use crate::products;
use crate::setup::{self, Purpose};
use crate::ui::Ui;
use crate::workspace::Workspace;

/// `cargo xtask demo`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Passed on to the demo itself
    #[arg(last = true)]
    rest: Vec<String>,
}

/// The exit code is the demo's own.
pub(crate) fn run(ws: &Workspace, ui: &Ui, args: &Args) -> Result<ExitCode> {
    setup::ensure(ws, ui, Purpose::Demo)?;
    products::build_with_lab(ws, ui)?;
    let mut demo = command(ws);
    let status = demo
        .args(&args.rest)
        .status()
        .context("cannot start the demo")?;
    let code = status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1);
    Ok(ExitCode::from(code))
}

/// Installs the lab's programs (PyPI, npm) into the cache, by the built demo's own installer.
///
/// # Errors
/// When the installation fails.
pub(crate) fn install(ws: &Workspace, ui: &Ui) -> Result<()> {
    let step = ui.step("installing the lab's programs");
    cmd::quiet(ws, &step, "lab-install", command(ws).arg("--install-only"))?;
    step.done();
    Ok(())
}

/// The demo's program, told where the binaries and the lab's cache are.
pub(crate) fn command(ws: &Workspace) -> Command {
    let mut demo = Command::new(ws.binary("demo"));
    demo.current_dir(&ws.root);
    for (name, value) in environment(ws) {
        demo.env(name, value);
    }
    demo
}

/// What tells the lab and the end-to-end tests where things are.
pub(crate) fn environment(ws: &Workspace) -> [(&'static str, std::path::PathBuf); 2] {
    [
        ("KEYTRAIL_BIN_DIR", ws.target.join("release")),
        ("KEYTRAIL_LAB_CACHE", ws.cache.join("lab")),
    ]
}
