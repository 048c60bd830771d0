//! What the guest finds as its root: busybox, the init script, the sensor and its libraries.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::cpio::Archive;
use crate::cmd;
use crate::workspace::Workspace;

const INIT: &str = include_str!("init");

/// Packs an initramfs with `agent`, if any, whose self-test gets `args`, and a module to load before
/// it; gives the image's place.
///
/// # Errors
/// When a file cannot be read or the image not be written.
pub(super) fn pack(
    ws: &Workspace,
    module: Option<&Path>,
    agent: Option<&Path>,
    args: &[String],
) -> Result<PathBuf> {
    let busybox =
        super::busybox().context("there is no static busybox: apt-get install busybox-static")?;
    let mut archive = Archive::default();
    archive.device("/dev/console", 5, 1);
    archive.file("/init", 0o755, INIT.as_bytes());
    archive.file("/bin/busybox", 0o755, &read(&busybox)?);
    archive.file("/etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n");
    archive.file("/etc/group", 0o644, b"root:x:0:\n");
    archive.file(
        "/etc/hosts",
        0o644,
        b"127.0.0.1 localhost guest\n::1 localhost\n",
    );
    archive.file(
        "/etc/machine-id",
        0o444,
        b"6b6579747261696c6775657374000001\n",
    );
    if let Some(module) = module {
        archive.file("/overlay.ko", 0o644, &read(module)?);
    }
    if let Some(agent) = agent {
        let slim = stripped(ws, agent)?;
        archive.file("/sensor-agent", 0o755, &read(&slim)?);
        for library in super::libraries(agent) {
            archive.file(&library.to_string_lossy(), 0o755, &read(&library)?);
        }
        if let Some(bad) = args.iter().find(|arg| arg.contains('\n')) {
            bail!("the argument {bad:?} has a line break: the guest reads one argument a line");
        }
        let lines: String = args.iter().flat_map(|arg| [arg.as_str(), "\n"]).collect();
        archive.file("/selftest.args", 0o644, lines.as_bytes());
    }
    let image = ws.cache.join("vm/initramfs.cpio");
    if let Some(dir) = image.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    fs::write(&image, archive.finish())
        .with_context(|| format!("cannot write {}", image.display()))?;
    Ok(image)
}

/// The sensor without its debug information, most of its size: the guest unpacks it into memory.
fn stripped(ws: &Workspace, agent: &Path) -> Result<PathBuf> {
    let slim = ws.cache.join("vm/sensor-agent");
    fs::create_dir_all(ws.cache.join("vm"))?;
    let mut strip = Command::new("strip");
    strip.arg("--strip-debug").arg("-o").arg(&slim).arg(agent);
    cmd::output(&mut strip).with_context(|| format!("cannot strip {}", agent.display()))?;
    Ok(slim)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
