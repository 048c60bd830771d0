//! `correlator`: serve, ask, replay.

use std::process::ExitCode;

use clap::Parser as _;
use correlator::cli::{self, Cli};

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
