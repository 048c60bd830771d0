//! The workload of the pipeline's benchmark: connections, as fast as one thread makes them.
//!
//! It runs as a process of its own, a copy of this program under a name that the sensor follows, so
//! that tracking begins at its exec as it would for a real program.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result};

/// `bench-load`: hidden, run by the benchmark.
#[derive(clap::Args)]
pub(crate) struct Load {
    /// How often to connect to a listener of this process
    #[arg(long)]
    connects: u32,
}

/// Connects and closes so many times. One thread does both ends, one connection after the other: a
/// backlog that overflows would make the kernel drop the handshake, and the benchmark would measure
/// its retransmission timer.
pub(crate) fn run(load: &Load) -> Result<()> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = listener.local_addr()?;
    for _ in 0..load.connects {
        let near = TcpStream::connect(address);
        let near = near.with_context(|| format!("connecting to {address}"))?;
        let (far, _) = listener.accept()?;
        drop(near);
        drop(far);
    }
    Ok(())
}
