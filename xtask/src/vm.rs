//! Guest kernels: boots a Debian kernel under QEMU with the sensor in an initramfs and reads what its
//! self-test prints.
//!
//! The sensor is packed as it was built for this machine, with the shared libraries that it names, so
//! that no second compilation is needed. Results come over the serial line: one line a case, then
//! [`qemu::EXIT`] with the exit code.

mod cpio;
mod initramfs;
mod qemu;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Result, ensure};

use crate::cmd;
use crate::products;
use crate::setup::{self, Group, Purpose, Series};
use crate::ui::{Ui, spoken};
use crate::workspace::{Workspace, which};

pub(crate) use self::qemu::{Outcome, Run};

/// `cargo xtask vm`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The kernel series to boot: 6.1, 6.12 or all
    #[arg(long, default_value = "all")]
    kernel: Choice,
    /// Only boot and check the kernel: nothing is built and no sensor runs
    #[arg(long)]
    boot_only: bool,
    /// Run this sensor instead of building one (a `target/debug/sensor-agent`, say)
    #[arg(long, conflicts_with = "boot_only")]
    agent: Option<PathBuf>,
    /// Passed on to `sensor-agent selftest`
    #[arg(last = true)]
    rest: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Choice {
    #[value(name = "6.1")]
    Six1,
    #[value(name = "6.12")]
    Six12,
    All,
}

impl Choice {
    fn series(self) -> Vec<Series> {
        match self {
            Self::Six1 => vec![Series::Six1],
            Self::Six12 => vec![Series::Six12],
            Self::All => Series::ALL.to_vec(),
        }
    }
}

/// What runs in the guest.
pub(crate) enum Load<'a> {
    /// Only the checks of the kernel itself
    BootOnly,
    /// A sensor's self-test with these further arguments
    SelfTest {
        /// The sensor
        agent: &'a Path,
        /// The arguments
        args: &'a [String],
    },
}

/// Exits 0 only when every case on every kernel passed or was skipped.
pub(crate) fn run(ws: &Workspace, ui: &Ui, args: &Args) -> Result<ExitCode> {
    if args.boot_only {
        setup::provide(ws, ui, Group::Guest)?;
    } else {
        setup::ensure(ws, ui, Purpose::Vm)?;
        if args.agent.is_none() {
            products::build(ws, ui)?;
        }
    }
    let built = ws.binary("sensor-agent");
    let load = if args.boot_only {
        Load::BootOnly
    } else {
        Load::SelfTest {
            agent: args.agent.as_deref().unwrap_or(&built),
            args: &args.rest,
        }
    };
    let mut failed = false;
    for series in args.kernel.series() {
        let run = guest(ws, ui, series, &load)?;
        failed |= run.cases.iter().any(|c| c.outcome == Outcome::Failed);
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Boots one kernel, prints each case and gives them all.
///
/// # Errors
/// When the guest cannot be prepared or started. A guest that dies is a failed case.
pub(crate) fn guest(ws: &Workspace, ui: &Ui, series: Series, load: &Load<'_>) -> Result<Run> {
    let kernel = setup::kernel(ws, ui, series)?;
    let module = kernel.overlay.as_deref();
    let image = match load {
        Load::BootOnly => initramfs::pack(ws, module, None, &[])?,
        Load::SelfTest { agent, args } => {
            ensure!(
                agent.exists(),
                "{} is not built: run `cargo xtask build`",
                agent.display()
            );
            initramfs::pack(ws, module, Some(agent), args)?
        }
    };
    let step = ui.step(format!(
        "guest kernel {} ({})",
        series.name(),
        kernel.version
    ));
    let run = qemu::boot(
        ws,
        &step,
        series,
        &kernel,
        &image,
        matches!(load, Load::SelfTest { .. }),
    )?;
    step.done();
    for case in &run.cases {
        println!("[{}] {case}", series.name());
    }
    println!(
        "[{}] Linux {} under {}, {}; serial log: {}",
        series.name(),
        kernel.version,
        run.accelerator,
        spoken(run.time),
        ws.shown(&run.log)
    );
    Ok(run)
}

/// A busybox that needs no library.
pub(crate) fn busybox() -> Option<PathBuf> {
    which("busybox").filter(|file| libraries(file).is_empty())
}

/// The shared libraries and the loader that a program needs; none for a static one.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed =
        cmd::output(Command::new("ldd").env("LC_ALL", "C").arg(program)).unwrap_or_default();
    let words = listed
        .lines()
        .filter_map(|line| line.split_whitespace().find(|w| w.starts_with('/')));
    words.map(PathBuf::from).collect()
}
