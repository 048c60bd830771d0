//! The BPF toolchain: a compiler that comes with the sources of `core`, and bpf-linker.
//!
//! rustup's toolchains have no sources unless `rust-src` was added; Debian's `rustc-web` and
//! `rust-web-src` are a complete set of one version. The sensor's build script finds either.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cmd;
use crate::ui::Ui;
use crate::workspace::{Workspace, which};

/// The linker's version that the object was built and verified with.
const LINKER: &str = "0.13.0";
const LLVM: &str = "/usr/lib/llvm-22";
/// Where a sysroot keeps the sources of `core`.
const CORE: &str = "lib/rustlib/src/rust/library/core/src/lib.rs";

/// Whether rustup has a nightly toolchain with `rust-src`.
pub(super) fn nightly_is_complete() -> bool {
    let mut rustc = Command::new("rustup");
    rustc
        .args(["run", "nightly", "rustc", "--print", "sysroot"])
        .env("RUSTUP_AUTO_INSTALL", "0");
    cmd::output(&mut rustc).is_some_and(|sysroot| Path::new(&sysroot).join(CORE).exists())
}

/// Whether Debian's compiler, its cargo and its sources are installed.
pub(super) fn debian_is_complete() -> bool {
    Path::new("/usr/bin/cargo").exists()
        && Path::new("/usr/bin/rustc").exists()
        && cmd::output(Command::new("/usr/bin/rustc").args(["--print", "sysroot"]))
            .is_some_and(|sysroot| Path::new(&sysroot).join(CORE).exists())
}

/// Installs bpf-linker against Debian's LLVM unless there is one.
///
/// # Errors
/// When its build fails.
pub(super) fn linker(ws: &Workspace, ui: &Ui) -> Result<()> {
    if which("bpf-linker").is_some() {
        return Ok(());
    }
    let step = ui.step(format!("compiling bpf-linker {LINKER} (about a minute)"));
    let mut cargo = ws.cargo(&["install", "bpf-linker", "--version", LINKER, "--locked"]);
    cargo.args(["--no-default-features", "--features", "llvm-22"]);
    cargo
        .env("LLVM_PREFIX", LLVM)
        .env("CARGO_TARGET_DIR", ws.cache.join("bpf-linker"));
    cmd::quiet(ws, &step, "bpf-linker", &mut cargo).with_context(|| {
        format!(
            "cannot install bpf-linker {LINKER} against {LLVM}: it links the sensor's BPF programs"
        )
    })?;
    // its 300 MB of intermediate files are of no further use
    if let Err(error) = std::fs::remove_dir_all(ws.cache.join("bpf-linker")) {
        step.line(&format!(
            "warning: cannot remove bpf-linker's build folder: {error}"
        ));
    }
    step.done();
    Ok(())
}
