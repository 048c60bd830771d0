//! `cargo xtask dist`: both binaries, stripped and optimised as a whole, in one archive.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cmd;
use crate::setup::{self, Purpose};
use crate::ui::Ui;
use crate::workspace::Workspace;

pub(crate) fn run(ws: &Workspace, ui: &Ui) -> Result<()> {
    setup::ensure(ws, ui, Purpose::Up)?;
    let mut cargo = ws.cargo(&["build", "--profile", "dist", "--locked"]);
    cargo.args(["-p", "sensor-agent", "-p", "correlator", "--bins"]);
    let built = cmd::cargo(ws, ui, "building for distribution", &mut cargo)?;
    ensure!(built, "the build failed: see cargo's message above");

    let name = format!(
        "keytrail-{}-{}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH
    );
    let dist = ws.target.join("dist");
    let stage = dist.join(&name);
    if stage.exists() {
        fs::remove_dir_all(&stage)?;
    }
    fs::create_dir_all(&stage)?;
    for binary in ["sensor-agent", "correlator"] {
        fs::copy(dist.join(binary), stage.join(binary))
            .with_context(|| format!("copying {binary}"))?;
    }
    for (text, shown) in [
        ("README.md", "README.md"),
        ("LICENSE", "LICENSE"),
        (
            "packaging/systemd/keytrail-sensor.service",
            "keytrail-sensor.service",
        ),
        (
            "packaging/systemd/keytrail-correlator.service",
            "keytrail-correlator.service",
        ),
        ("packaging/etc/sensor.toml", "sensor.toml"),
        ("packaging/etc/correlator.toml", "correlator.toml"),
        ("sensor-ebpf/LICENSE-MIT", "LICENSE-MIT.bpf-object"),
        ("sensor-ebpf/LICENSE-GPL2", "LICENSE-GPL2.bpf-object"),
    ] {
        let from = ws.root.join(text);
        fs::copy(&from, stage.join(shown)).with_context(|| format!("copying {text}"))?;
    }
    let archive = dist.join(format!("{name}.tar.gz"));
    let step = ui.step("packing");
    let mut tar = Command::new("tar");
    tar.args([
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "-czf",
    ]);
    cmd::quiet(
        ws,
        &step,
        "tar",
        tar.arg(&archive).arg("-C").arg(&dist).arg(&name),
    )?;
    step.done();
    println!("{}", ws.shown(&archive));
    Ok(())
}
