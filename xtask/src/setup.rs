//! Finds out what this machine lacks for a purpose and installs it.
//!
//! Every check looks at the thing itself (a program, a compiler's sources, an unpacked kernel), so a
//! second run has nothing to do and takes a fraction of a second. Debian packages are installed only
//! as root on a machine with apt; elsewhere the error names what to install.

mod apt;
mod bpf;
mod kernels;
mod networks;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use clap::ValueEnum;

pub(crate) use self::kernels::{Kernel, Series};
use crate::cmd;
use crate::ui::Ui;
use crate::workspace::{Workspace, which};

/// `cargo xtask setup`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What the machine shall be able to do afterwards; everything when absent
    #[arg(long = "for", value_enum)]
    purpose: Option<Purpose>,
    /// With --for networks: the folder for the files; the one that `up` uses when absent
    #[arg(long, requires = "purpose")]
    into: Option<PathBuf>,
}

/// What a machine is prepared for.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Purpose {
    /// Building and running the sensor and the correlator
    Up,
    /// `up`, and the real programs of the lab
    Demo,
    /// Everything
    Test,
    /// `up`, and guest kernels under QEMU
    Vm,
    /// Only a free table of networks: systems and countries of addresses
    Networks,
}

/// What belongs together: it is there as a whole, or the tasks that need it cannot run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Group {
    /// A C compiler and the BPF toolchain
    Toolchain,
    /// The lab's programs
    Lab,
    /// QEMU, busybox and the guest kernels
    Guest,
    /// npm
    Npm,
}

impl Purpose {
    fn groups(self) -> &'static [Group] {
        match self {
            Self::Up => &[Group::Toolchain],
            Self::Networks => &[Group::Npm],
            Self::Demo => &[Group::Toolchain, Group::Lab],
            Self::Vm => &[Group::Toolchain, Group::Guest],
            Self::Test => &[Group::Toolchain, Group::Lab, Group::Guest],
        }
    }
}

/// `cargo xtask setup`.
pub(crate) fn run(ws: &Workspace, ui: &Ui, args: &Args) -> Result<()> {
    let purpose = args.purpose.unwrap_or(Purpose::Test);
    if args.into.is_some() && purpose != Purpose::Networks {
        bail!("--into goes with --for networks");
    }
    ensure(ws, ui, purpose)?;
    if purpose == Purpose::Networks {
        return networks::install(ws, ui, args.into.as_deref());
    }
    if purpose.groups().contains(&Group::Lab) {
        crate::products::build_with_lab(ws, ui)?;
        crate::demo::install(ws, ui)?;
        if purpose == Purpose::Test {
            crate::demo::install_agents(ws, ui);
        }
    }
    ui.say("nothing is missing");
    Ok(())
}

/// Makes the machine ready for `purpose`.
///
/// # Errors
/// When something is missing and cannot be installed here; the text says what and how to get it.
pub(crate) fn ensure(ws: &Workspace, ui: &Ui, purpose: Purpose) -> Result<()> {
    purpose
        .groups()
        .iter()
        .try_for_each(|group| provide(ws, ui, *group))
}

/// Makes one group ready.
///
/// # Errors
/// As [`ensure`].
pub(crate) fn provide(ws: &Workspace, ui: &Ui, group: Group) -> Result<()> {
    apt::install(ws, ui, &missing_packages(group))?;
    match group {
        Group::Toolchain => bpf::linker(ws, ui),
        Group::Lab | Group::Npm => Ok(()),
        Group::Guest => Series::ALL
            .into_iter()
            .try_for_each(|s| kernels::fetch(ws, ui, s).map(drop)),
    }
}

/// The guest kernel of a series, fetched when it is not there yet.
///
/// # Errors
/// When it cannot be fetched.
pub(crate) fn kernel(ws: &Workspace, ui: &Ui, series: Series) -> Result<Kernel> {
    kernels::fetch(ws, ui, series)
}

/// The Debian packages that `group` needs and whose contents are not there.
fn missing_packages(group: Group) -> Vec<&'static str> {
    let mut missing = Vec::new();
    let mut need = |present: bool, packages: &[&'static str]| {
        if !present {
            missing.extend_from_slice(packages);
        }
    };
    match group {
        Group::Toolchain => {
            // bundled SQLite, zstd and ring are C
            need(compiles_c(), &["gcc", "libc6-dev"]);
            if !bpf::nightly_is_complete() {
                need(
                    bpf::debian_is_complete(),
                    &["rustc-web", "cargo-web", "rust-web-src"],
                );
            }
            if which("bpf-linker").is_none() {
                need(
                    Path::new("/usr/lib/llvm-22/bin/llvm-config").exists(),
                    &["llvm-22-dev"],
                );
                need(has_header("zstd.h"), &["libzstd-dev"]);
                need(has_header("zlib.h"), &["zlib1g-dev"]);
                need(which("g++").is_some(), &["g++"]);
                need(which("pkg-config").is_some(), &["pkg-config"]);
            }
        }
        Group::Lab => {
            need(which("ip").is_some(), &["iproute2"]);
            need(has_venv(), &["python3", "python3-venv"]);
            need(
                which("node").is_some() && which("npm").is_some(),
                &["nodejs", "npm"],
            );
        }
        Group::Npm => {
            need(
                which("node").is_some() && which("npm").is_some(),
                &["nodejs", "npm"],
            );
        }
        Group::Guest => {
            need(which("qemu-system-x86_64").is_some(), &["qemu-system-x86"]);
            need(crate::vm::busybox().is_some(), &["busybox-static"]);
            need(which("strip").is_some(), &["binutils"]);
            // newer kernels' packages have their modules compressed
            need(which("xz").is_some(), &["xz-utils"]);
        }
    }
    missing
}

fn compiles_c() -> bool {
    which("cc").is_some() && has_header("stdlib.h")
}

fn has_header(name: &str) -> bool {
    ["/usr/include", "/usr/local/include"]
        .iter()
        .any(|dir| Path::new(dir).join(name).exists())
}

/// Debian's python3 has `venv` but no `ensurepip` until python3-venv is installed.
fn has_venv() -> bool {
    which("python3").is_some_and(|python| {
        cmd::output(Command::new(python).args(["-c", "import ensurepip, venv"])).is_some()
    })
}

/// Refuses, with the reason, what needs a rustup component that a minimal profile lacks.
///
/// # Errors
/// When `cargo <name>` does not exist.
pub(crate) fn cargo_component(ws: &Workspace, name: &str) -> Result<()> {
    if cmd::output(&mut ws.cargo(&[name, "--version"])).is_some() {
        return Ok(());
    }
    let component = if name == "fmt" { "rustfmt" } else { name };
    bail!("cargo {name} is not installed: run `rustup component add {component}`")
}
