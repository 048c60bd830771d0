//! Every developer task of Keytrail, as `cargo xtask <task>`.
//!
//! This is the first thing that a fresh machine compiles, so it depends on very little, and it finds
//! out by itself what else the machine lacks (`setup`). No task needs another to have run before it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool talks on its terminal"
)]

mod bench;
mod children;
mod cmd;
mod corpora;
mod deliveries;
mod demo;
mod dist;
mod fuzz;
mod lint;
mod products;
mod setup;
mod test;
mod ui;
mod up;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::ui::Ui;
use crate::workspace::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, run and test Keytrail", version)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what this machine lacks (Debian packages, bpf-linker, guest kernels)
    Setup(setup::Args),
    /// Build the release binaries of the sensor and the correlator
    Build,
    /// Set up, build, and run a correlator and a sensor on this machine until Ctrl-C
    Up(up::Args),
    /// Steal a throwaway key on this machine and show the alert
    Demo(demo::Args),
    /// Run every check: format, lints, tests, end to end, demo, guest kernels
    Test(test::Args),
    /// Boot a guest kernel and run the sensor's self-test in it
    Vm(vm::Args),
    /// Measure the sensor's cost, the pipeline's rate or the time to an alert
    Bench(bench::Args),
    /// The workload of the benchmarks
    #[command(hide = true)]
    BenchLoad(bench::Load),
    /// Read the recorded logs in ../shared/corpora and count what became of every record
    Corpora(corpora::Args),
    /// Run the fuzz targets, from where the last run ended
    Fuzz(fuzz::Args),
    /// Check format and lints
    Lint,
    /// Check licences and advisories of the dependencies (needs cargo-deny)
    Deny,
    /// Pack both binaries into a release archive
    Dist,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ui = Ui::new();
    match run(cli.task, &ui) {
        Ok(code) => code,
        Err(error) => {
            ui.error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task, ui: &Ui) -> anyhow::Result<ExitCode> {
    let ws = Workspace::find()?;
    let done = |()| ExitCode::SUCCESS;
    match task {
        Task::Setup(args) => setup::run(&ws, ui, &args).map(done),
        Task::Build => products::task(&ws, ui).map(done),
        Task::Up(args) => up::run(&ws, ui, &args),
        Task::Demo(args) => demo::run(&ws, ui, &args),
        Task::Test(args) => Ok(test::run(&ws, ui, &args)),
        Task::Vm(args) => vm::run(&ws, ui, &args),
        Task::Bench(args) => bench::run(&ws, ui, &args).map(done),
        Task::BenchLoad(load) => bench::load(&load).map(done),
        Task::Corpora(args) => corpora::run(&ws, ui, &args).map(done),
        Task::Fuzz(args) => fuzz::run(&ws, ui, &args).map(done),
        Task::Lint => lint::run(&ws, ui).map(done),
        Task::Deny => lint::deny(&ws, ui).map(done),
        Task::Dist => dist::run(&ws, ui).map(done),
    }
}
