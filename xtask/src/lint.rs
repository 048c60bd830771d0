//! Format, lints, and the dependencies' licences.

use anyhow::{Result, ensure};

use crate::cmd;
use crate::setup;
use crate::ui::Ui;
use crate::workspace::{Workspace, which};

/// Makes every warning of clippy an error.
const STRICT: [&str; 3] = ["--", "-D", "warnings"];

/// `cargo xtask lint`.
pub(crate) fn run(ws: &Workspace, ui: &Ui) -> Result<()> {
    ensure!(format(ws, ui)?, "the format differs: run `cargo fmt --all`");
    ensure!(clippy(ws, ui)?, "clippy found something: see above");
    Ok(())
}

/// Whether every crate is formatted, the BPF one too, which is outside the workspace.
///
/// # Errors
/// When rustfmt is absent.
pub(crate) fn format(ws: &Workspace, ui: &Ui) -> Result<bool> {
    setup::cargo_component(ws, "fmt")?;
    let mut clean = cmd::cargo(
        ws,
        ui,
        "checking the format",
        &mut ws.cargo(&["fmt", "--all", "--check"]),
    )?;
    let ebpf = ws.root.join("sensor-ebpf/Cargo.toml");
    if ebpf.exists() {
        let mut cargo = ws.cargo(&["fmt", "--check", "--manifest-path"]);
        clean &= cmd::cargo(
            ws,
            ui,
            "checking the format of sensor-ebpf",
            cargo.arg(ebpf),
        )?;
    }
    Ok(clean)
}

/// Whether clippy is content with every target of the workspace.
///
/// # Errors
/// When clippy is absent.
pub(crate) fn clippy(ws: &Workspace, ui: &Ui) -> Result<bool> {
    setup::cargo_component(ws, "clippy")?;
    let mut whole = ws.cargo(&["clippy", "--release", "--locked", "--workspace"]);
    whole.arg("--all-targets").args(STRICT);
    // What is off by default is in no other build, and would rot unseen.
    let mut optional = ws.cargo(&["clippy", "--release", "--locked", "-p", "correlator"]);
    optional
        .args(["--all-targets", "--all-features"])
        .args(STRICT);
    Ok(cmd::cargo(ws, ui, "running clippy", &mut whole)?
        & cmd::cargo(ws, ui, "running clippy with every feature", &mut optional)?)
}

/// `cargo xtask deny`: not part of `test`, since compiling cargo-deny takes longer than the tests.
pub(crate) fn deny(ws: &Workspace, ui: &Ui) -> Result<()> {
    ensure!(
        which("cargo-deny").is_some(),
        "cargo-deny is not installed: run `cargo install cargo-deny --locked`"
    );
    let clean = cmd::cargo(
        ws,
        ui,
        "checking the dependencies",
        &mut ws.cargo(&["deny", "check"]),
    )?;
    ensure!(clean, "cargo deny found something: see above");
    Ok(())
}
