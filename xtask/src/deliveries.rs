//! The real and independent parts that deliveries are tested against: Azure's storage emulator,
//! fake-gcs-server, moto, a Kafka broker, OpenBao, Prism (`correlator/tests/delivery/parts`).
//!
//! They are large and need Cargo features that the default build does without, so their tests are a
//! part of their own: `cargo xtask test --only deliveries`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cmd;
use crate::ui::Ui;
use crate::workspace::Workspace;

/// Cargo features under which every delivery is built.
pub(crate) const FEATURES: &str = "correlator/aws,correlator/azure,correlator/gcs,correlator/kafka";

/// Where the parts are installed.
pub(crate) fn folder(ws: &Workspace) -> PathBuf {
    ws.cache.join("parts")
}

/// Installs what is missing; the stamp is written last, so that an installation that was cut short
/// is made again.
///
/// # Errors
/// When pip or npm fail; the text says what they printed last.
pub(crate) fn install(ws: &Workspace, ui: &Ui) -> Result<()> {
    let from = ws.root.join("correlator/tests/delivery/parts");
    part(ws, &from, "python", &["requirements.txt"], |into| {
        let step = ui.step("installing servers and clients from PyPI (600 MB)");
        let mut venv = Command::new("python3");
        cmd::quiet(ws, &step, "parts-venv", venv.args(["-m", "venv"]).arg(into))?;
        let mut pip = Command::new(into.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check"])
            .args(["--no-input", "--require-hashes", "-r"])
            .arg(from.join("requirements.txt"));
        cmd::quiet(ws, &step, "parts-pip", &mut pip)
            .context("the hashes are those of Python 3.11 on Linux x86-64")?;
        step.done();
        Ok(())
    })?;
    let files = ["package.json", "package-lock.json"];
    part(ws, &from, "npm", &files, |into| {
        let step = ui.step("installing mock servers and API descriptions from npm (850 MB)");
        for file in files {
            fs::copy(from.join(file), into.join(file))?;
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
            .arg("--loglevel=error")
            .current_dir(into);
        cmd::quiet(ws, &step, "parts-npm", &mut npm)?;
        step.done();
        Ok(())
    })
}

fn part(
    ws: &Workspace,
    from: &Path,
    name: &str,
    inputs: &[&str],
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let into = folder(ws).join(name);
    let mut wanted = String::new();
    for input in inputs {
        let path = from.join(input);
        let text = fs::read_to_string(&path);
        wanted.push_str(&text.with_context(|| format!("reading {}", path.display()))?);
    }
    let stamp = into.join(".stamp");
    if fs::read_to_string(&stamp).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    if into.exists() {
        fs::remove_dir_all(&into).with_context(|| format!("removing {}", into.display()))?;
    }
    fs::create_dir_all(&into).with_context(|| format!("creating {}", into.display()))?;
    make(&into)?;
    fs::write(&stamp, wanted).with_context(|| format!("writing {}", stamp.display()))
}
