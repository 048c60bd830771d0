//! The workload that is measured: opens and connects, timed by the thread's own CPU clock.
//!
//! It runs as a process of its own (a copy of this program under a name that the sensor does or does
//! not follow), so that tracking begins at its exec as it would for a real program.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};

/// `bench-load`: hidden, run by the benchmarks.
#[derive(clap::Args)]
pub(crate) struct Load {
    /// The file to open
    #[arg(long)]
    file: PathBuf,
    /// How often to open it
    #[arg(long)]
    opens: u32,
    /// How often to connect to a listener of this process
    #[arg(long)]
    connects: u32,
}

/// Does the work and prints `{"open_ns":...,"connect_ns":...}`: CPU time of one open and close, and
/// of one connect and close.
pub(crate) fn run(load: &Load) -> Result<()> {
    let opens = timed(load.opens, || File::open(&load.file).map(drop))
        .with_context(|| format!("opening {}", load.file.display()))?;
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = listener.local_addr()?;
    // it ends with the process
    thread::spawn(move || listener.incoming().for_each(drop));
    let connects = timed(load.connects, || TcpStream::connect(address).map(drop))
        .with_context(|| format!("connecting to {address}"))?;
    println!("{{\"open_ns\":{opens},\"connect_ns\":{connects}}}");
    Ok(())
}

/// Nanoseconds of CPU for one of `times` calls, in the kernel and outside.
fn timed(times: u32, mut call: impl FnMut() -> std::io::Result<()>) -> Result<f64> {
    let before = cpu()?;
    for _ in 0..times {
        call()?;
    }
    let spent = cpu()?.saturating_sub(before);
    Ok(spent.as_secs_f64() * 1e9 / f64::from(times.max(1)))
}

fn cpu() -> Result<Duration> {
    Ok(Duration::from(clock_gettime(
        ClockId::CLOCK_THREAD_CPUTIME_ID,
    )?))
}
