//! `sensor-agent`: the command line.

#![expect(clippy::print_stdout, reason = "what a command prints is its result")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use sensor_agent::config::Config;
use sensor_agent::kernel::{bench, selftest};
use sensor_agent::run;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

/// Keytrail's endpoint sensor: sees agents and MCP servers read credentials and connect out.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch this machine and stream facts to the correlator
    Run(RunArgs),
    /// Print what this kernel lets the sensor see, and end
    Check(CheckArgs),
    /// Take out what `run` left in the kernel (setting `pin_dir`), when no agent is to follow
    Unpin {
        /// Where it is pinned
        #[arg(long, default_value = "/sys/fs/bpf/keytrail")]
        pin_dir: PathBuf,
    },
    /// Parse credential files for `run`, without privileges (started by it alone)
    #[command(name = "parse-helper", hide = true)]
    ParseHelper {
        /// An empty directory
        root: PathBuf,
    },
    /// Run the live kernel cases (used by the tests and in guests)
    #[command(hide = true)]
    Selftest {
        /// `--plan A|B`, `--case TEXT`, `--json`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Measure what the sensor costs per open and per connect on this machine
    #[command(hide = true)]
    BenchWorkload {
        /// `--rounds N`, `--n N`, `--json`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

/// Settings given here win over the file and the environment (`KEYTRAIL_AGENT_*`).
#[derive(Args, Serialize)]
struct RunArgs {
    /// Settings file (TOML)
    #[arg(long)]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Where the correlator takes facts in: <https://host:port>
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    correlator: Option<String>,
    /// The CA that the correlator's certificate must come from (PEM)
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<PathBuf>,
    /// File with the join token, for the first enrolment
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    join_token_file: Option<PathBuf>,
    /// Where the certificate and the outbox are kept
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    state_dir: Option<PathBuf>,
    /// Keep the kernel side here (`/sys/fs/bpf/keytrail`) while no agent runs: a restart loses nothing
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pin_dir: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    kernel: KernelArgs,
}

#[derive(Args, Serialize)]
struct KernelArgs {
    /// Watch one cgroup v2 subtree only: cgroup:PATH
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    /// a (LSM hooks) or b (tracepoints) instead of the best that works
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<String>,
}

#[derive(Args)]
struct CheckArgs {
    #[command(flatten)]
    kernel: KernelArgs,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        // These print for machines and guests and know nothing of logs.
        Command::Selftest { args } => return selftest::run(&["selftest"], &args),
        Command::ParseHelper { root } => {
            return match sensor_agent::credentials::sandbox::child(&root) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            };
        }
        Command::BenchWorkload { args } => return bench::run(&["selftest"], &args),
        Command::Run(args) => {
            log_to_stderr();
            start(&args)
        }
        Command::Unpin { pin_dir } => {
            log_to_stderr();
            unpin(&pin_dir)
        }
        Command::Check(args) => {
            log_to_stderr();
            check(&args)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("KEYTRAIL_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}

fn start(args: &RunArgs) -> anyhow::Result<()> {
    no_core_dumps();
    // A supervisor that waits for signals itself may have left them blocked for us.
    if let Err(error) = nix::sys::signal::SigSet::all().thread_unblock() {
        tracing::warn!(%error, "signals cannot be unblocked: stopping may need SIGKILL");
    }
    let config = Config::read(args.config.as_ref(), args)?;
    // One thread takes events in order. It is the only one until the kernel side is loaded and the
    // rights for that are given up; the stream's threads begin after that.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let (stop, stopped) = watch::channel(run::Stop::Not);
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::spawn(async move {
            // SIGTERM is also how a service is restarted; Ctrl-C means the end.
            let how = tokio::select! {
                _ = interrupt.recv() => run::Stop::Remove,
                _ = terminate.recv() => run::Stop::Leave,
            };
            stop.send_replace(how);
            // Keeps the channel open until the runtime ends.
            std::future::pending::<()>().await;
        });
        run::run(&config, stopped, |coverage| {
            let ready = serde_json::json!({
                "ready": true,
                "plan": coverage.plan,
                "kernel": coverage.kernel,
                "scope": coverage.scope,
                "coverage": coverage,
            });
            println!("{ready}");
        })
        .await?;
        Ok(())
    })
}

fn unpin(pin_dir: &std::path::Path) -> anyhow::Result<()> {
    let removed = sensor_agent::kernel::pins::unpin(pin_dir)?;
    println!("{removed} pinned set(s) removed from {}", pin_dir.display());
    Ok(())
}

/// Memory of this process may hold environments: it must not land in a core file.
fn no_core_dumps() {
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!(%error, "core dumps of the sensor cannot be switched off");
    }
}

fn check(args: &CheckArgs) -> anyhow::Result<()> {
    let none: Option<PathBuf> = None;
    let config = Config::read(none.as_ref(), &args.kernel)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let parsing = parsing();
    let coverage = runtime.block_on(async {
        let sensor = sensor_agent::kernel::Sensor::load(&run::sensor_config(&config)?)?;
        anyhow::Ok(sensor.coverage().clone())
    })?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&coverage)?);
    } else {
        print!("{}", sensor_agent::check::table(&coverage));
        println!("\n{parsing}");
    }
    Ok(())
}

/// What holds the process that parses credential files, in one line.
fn parsing() -> String {
    let held = empty_root().and_then(|root| {
        let hasher = sensor_agent::credentials::Hasher::ephemeral();
        let sandbox = sensor_agent::credentials::Sandbox::new(
            PathBuf::from("/proc/self/exe"),
            root,
            Vec::new(),
            &hasher,
        );
        Ok(sandbox.probe()?.missing())
    });
    match held {
        Ok(missing) if missing.is_empty() => {
            "credential files are parsed in a process without privileges, network and files"
                .to_owned()
        }
        Ok(missing) => format!(
            "credential files are parsed in a process that lacks: {}",
            missing.join(", ")
        ),
        Err(error) => format!("credential files are parsed in the agent itself: {error:#}"),
    }
}

/// `/var/empty` or whatever empty directory there is by convention.
fn empty_root() -> anyhow::Result<PathBuf> {
    ["/var/empty", "/run/sshd", "/proc/self/fdinfo"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.is_dir())
        .context("no empty directory to confine it to")
}
