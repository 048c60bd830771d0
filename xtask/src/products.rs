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
    let packages = ["-p", "sensor-agent", "-p", "correlator"];
    cargo_build(ws, ui, "building the sensor and the correlator", &packages)
}

/// Builds the demo's program too. Cargo then takes the same features of every library as in
/// [`build`], so nothing is compiled twice.
///
/// # Errors
/// As [`build`].
pub(crate) fn build_with_lab(ws: &Workspace, ui: &Ui) -> Result<()> {
    let packages = [
        "-p",
        "sensor-agent",
        "-p",
        "correlator",
        "-p",
        "keytrail-tests",
    ];
    cargo_build(
        ws,
        ui,
        "building the sensor, the correlator and the lab",
        &packages,
    )
}

/// Builds every program and every test. The tests' libraries bring features that [`build`] does
/// without, so `test` builds the programs in the same call: one compilation for everything.
///
/// # Errors
/// As [`build`].
pub(crate) fn build_with_tests(ws: &Workspace, ui: &Ui) -> Result<()> {
    cargo_build(
        ws,
        ui,
        "building all programs and tests",
        &["--workspace", "--tests"],
    )
}

fn cargo_build(ws: &Workspace, ui: &Ui, label: &str, packages: &[&str]) -> Result<()> {
    let mut cargo = ws.cargo(&["build", "--release", "--locked", "--bins"]);
    let built = cmd::cargo(ws, ui, label, cargo.args(packages))?;
    ensure!(built, "the build failed: see cargo's message above");
    Ok(())
}
