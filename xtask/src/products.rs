//! Building the two binaries that Keytrail is.

use anyhow::{Result, ensure};

use crate::cmd;
use crate::setup::{self, Purpose};
use crate::ui::Ui;
use crate::workspace::Workspace;

/// `cargo xtask build`.
pub(crate) fn task(ws: &Workspace, ui: &Ui) -> Result<()> {
    setup::ensure(ws, ui, Purpose::Up)?;
    build(ws, ui)?;
    for name in ["sensor-agent", "correlator"] {
        println!("{}", ws.shown(&ws.binary(name)));
    }
    Ok(())
}

/// Builds the sensor and the correlator in the one profile that everything uses.
///
/// # Errors
/// When cargo fails; it has then said why.
pub(crate) fn build(ws: &Workspace, ui: &Ui) -> Result<()> {
    let mut cargo = ws.cargo(&["build", "--release", "--locked"]);
    cargo.args([
        "-p",
        "sensor-agent",
        "-p",
        "correlator",
        "-p",
        "keytrail-tests",
        "--bins",
    ]);
    let built = cmd::cargo(ws, ui, "building the sensor and the correlator", &mut cargo)?;
    ensure!(built, "the build failed: see cargo's message above");
    Ok(())
}
