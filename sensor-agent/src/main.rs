//! The agent's command line. Parse, dispatch, exit: everything else is in the library.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sensor_agent::kernel::{bench, selftest};

#[derive(Parser)]
#[command(
    name = "sensor-agent",
    version,
    about = "The endpoint agent of Keytrail"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
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

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Selftest { args } => selftest::run(&["selftest"], &args),
        Command::BenchWorkload { args } => bench::run(&["selftest"], &args),
    }
}
