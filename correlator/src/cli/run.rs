//! What each command does.

use std::fs::File;
use std::io::{BufReader, BufWriter, IsTerminal as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{
    Command, ExportArgs, ServeArgs, baseline, bench, commands, graph, import, networks, owners,
    scenario, simulate, style,
};
use crate::config::{Config, Flags};
use crate::serve::Server;
use crate::{api, replay};

pub(super) fn run(command: Command) -> Result<()> {
    match command {
        Command::Serve(args) => serve(args),
        Command::Alert(command) => commands::alert(command),
        Command::Credential(command) => commands::credential(command),
        Command::Graph(command) => graph::run(command),
        Command::Baseline(command) => baseline::baseline(command),
        Command::Owners(command) => owners::run(command),
        Command::Sensor(command) => commands::sensor(&command),
        Command::Source(command) => commands::source(&command),
        Command::Networks(command) => networks::run(&command),
        Command::Import(args) => {
            log_to_stderr("warn");
            import::run(args)
        }
        Command::Status(client) => commands::status(&client),
        Command::Replay(args) => {
            if args.record {
                record(&args.file, &args.from)?;
            }
            replay_file(&args.file)
        }
        Command::Export(args) => {
            let config = Config::load(args.config.as_deref(), &Flags::default())?;
            let out = BufWriter::new(std::io::stdout().lock());
            replay::export(&args.data_dir, config.join, out)?;
            Ok(())
        }
        Command::Simulate(args) => simulate::run(&args),
        Command::Scenario(command) => scenario::scenario(&command),
        Command::Openapi => {
            let mut text = api::document().to_pretty_json()?;
            text.push('\n');
            Ok(style::print(&text)?)
        }
        Command::BenchAlert(args) => {
            log_to_stderr("warn");
            runtime()?.block_on(bench::run(&args.data_dir, args.rounds))
        }
    }
}

/// Writes what a correlator recorded to `file`, which must not exist.
fn record(file: &Path, from: &ExportArgs) -> Result<()> {
    let config = Config::load(from.config.as_deref(), &Flags::default())?;
    let out = File::create_new(file).with_context(|| file.display().to_string())?;
    replay::export(&from.data_dir, config.join, BufWriter::new(out))?;
    Ok(())
}

fn replay_file(file: &Path) -> Result<()> {
    let out = BufWriter::new(std::io::stdout().lock());
    if file == Path::new("-") {
        replay::replay(std::io::stdin().lock(), out)?;
    } else {
        let input = File::open(file).with_context(|| file.display().to_string())?;
        replay::replay(BufReader::new(input), out).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")
}

/// Log lines go to standard error, coloured on a terminal; `KEYTRAIL_LOG` filters them.
fn log_to_stderr(default: &str) {
    let filter =
        EnvFilter::try_from_env("KEYTRAIL_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}

fn serve(args: ServeArgs) -> Result<()> {
    log_to_stderr("info");
    let flags = Flags {
        data_dir: args.data_dir,
        listen_ingest: args.listen_ingest,
        listen_api: args.listen_api,
        cloudtrail_dir: args.cloudtrail_dir,
    };
    let config = Config::load(args.config.as_deref(), &flags)?;
    let runtime = runtime()?;
    let served = runtime.block_on(serve_until_signal(config));
    // Blocking reads that are still under way are let go.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    served
}

async fn serve_until_signal(config: Config) -> Result<()> {
    // First, so that a signal during the start is not lost.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let server = tokio::select! {
        server = Server::start(config) => server?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    let ready = serde_json::json!({
        "ready": true,
        "ingest": server.ingest.to_string(),
        "api": format!("http://{}", server.api),
        "push": server.push.map(|address| address.to_string()),
    });
    style::print(&format!("{ready}\n"))?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping");
    server.stop().await;
    tracing::info!("stopped");
    Ok(())
}
