//! `correlator`: serve, ask, replay.

use std::process::ExitCode;

use clap::Parser as _;
use correlator::cli::{self, Cli};

fn main() -> ExitCode {
    // A supervisor that waits for signals itself may have left them blocked for us.
    if let Err(error) = nix::sys::signal::SigSet::all().thread_unblock() {
        tracing::warn!(%error, "signals cannot be unblocked: stopping may need SIGKILL");
    }
    cli::run(Cli::parse())
}
