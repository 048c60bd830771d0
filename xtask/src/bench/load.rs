//! The workload of the pipeline's benchmark: connections, as fast as one thread makes them.
//!
//! It runs as a process of its own, a copy of this program under a name that the sensor follows, so
//! that tracking begins at its exec as it would for a real program.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result};

/// `bench-load`: hidden, run by the benchmark.
#[derive(clap::Args)]
pub(crate) struct Load {
    /// How often to connect to a listener of this process
    #[arg(long)]
    connects: u32,
}

/// Connects and closes so many times.
pub(crate) fn run(load: &Load) -> Result<()> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = listener.local_addr()?;
    // it ends with the process
    thread::spawn(move || listener.incoming().for_each(drop));
    for _ in 0..load.connects {
        TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
    }
    Ok(())
}
