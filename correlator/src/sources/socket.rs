//! Listens for senders that write one record a line: TCP or a Unix socket (Vault's socket audit
//! device), and standard input.

use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::frames::Framing;
use super::intake::Intake;
use super::stream::pump;

/// Open connections a source takes at most.
pub(super) const CONNECTIONS: usize = 256;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// An address and port.
    Tcp(SocketAddr),
    /// A path.
    Unix(PathBuf),
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') {
                Ok(Self::Unix(PathBuf::from(path)))
            } else {
                Err("a Unix socket needs an absolute path: `unix:/run/...`".to_owned())
            };
        }
        text.parse()
            .map(Self::Tcp)
            .map_err(|_| "write `address:port` or `unix:/path`".to_owned())
    }
}

/// Listens, and takes in what senders write until `stop`.
///
/// # Errors
/// When it cannot listen there.
pub async fn listen(
    endpoint: &Endpoint,
    intake: Intake,
    stop: CancellationToken,
) -> std::io::Result<JoinHandle<()>> {
    match endpoint {
        Endpoint::Tcp(address) => {
            let listener = TcpListener::bind(address).await?;
            let bound = listener.local_addr()?;
            intake.status().update(|s| s.folder = bound.to_string());
            intake.status().works();
            Ok(tokio::spawn(serve_tcp(listener, intake, stop)))
        }
        Endpoint::Unix(path) => {
            let listener = bind_unix(path)?;
            intake.status().works();
            let path = path.clone();
            Ok(tokio::spawn(async move {
                serve_unix(listener, intake, stop).await;
                // A leftover would only delay the next start.
                drop(std::fs::remove_file(path));
            }))
        }
    }
}

async fn serve_tcp(listener: TcpListener, intake: Intake, stop: CancellationToken) {
    let senders = Senders::new(&intake, Framing::Lines, &stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return senders.drained().await,
        };
        match accepted {
            Ok((stream, peer)) => senders.serve(stream, peer.to_string()),
            Err(error) => refused(&intake, &error).await,
        }
    }
}

async fn serve_unix(listener: UnixListener, intake: Intake, stop: CancellationToken) {
    let senders = Senders::new(&intake, Framing::Lines, &stop);
    let place = intake.status().get().folder;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return senders.drained().await,
        };
        match accepted {
            Ok((stream, _)) => senders.serve(stream, place.clone()),
            Err(error) => refused(&intake, &error).await,
        }
    }
}

/// Out of file descriptors, mostly: waits, so as not to spin.
pub(super) async fn refused(intake: &Intake, error: &std::io::Error) {
    intake.tally().connections_failed.one();
    tracing::warn!(source = intake.name(), %error, "a connection could not be accepted");
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
}

/// The connected senders of one source: bounded, and drained at the end.
#[derive(Debug)]
pub(super) struct Senders {
    intake: Intake,
    framing: Framing,
    limit: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Senders {
    pub(super) fn new(intake: &Intake, framing: Framing, stop: &CancellationToken) -> Self {
        Self {
            intake: intake.clone(),
            framing,
            limit: Arc::new(Semaphore::new(CONNECTIONS)),
            tasks: TaskTracker::new(),
            stop: stop.clone(),
        }
    }

    /// Serves one sender, or closes the connection when there are too many.
    pub(super) fn serve(
        &self,
        stream: impl tokio::io::AsyncRead + Unpin + Send + 'static,
        peer: String,
    ) {
        self.serve_after(async move { Ok(stream) }, peer);
    }

    /// Serves one sender once `ready` gives its stream (after a TLS handshake).
    pub(super) fn serve_after<S: tokio::io::AsyncRead + Unpin + Send + 'static>(
        &self,
        ready: impl Future<Output = std::io::Result<S>> + Send + 'static,
        peer: String,
    ) {
        let intake = self.intake.clone();
        let Ok(permit) = Arc::clone(&self.limit).try_acquire_owned() else {
            intake.tally().connections_failed.one();
            tracing::warn!(
                source = intake.name(),
                peer,
                "one connection too many; closed"
            );
            return;
        };
        intake.tally().connections.one();
        let (framing, stop) = (self.framing, self.stop.clone());
        self.tasks.spawn(async move {
            let _permit = permit;
            let pumped = match ready.await {
                Ok(stream) => pump(&intake, &peer, stream, framing, &stop).await,
                Err(error) => Err(error),
            };
            match pumped {
                Ok(taken) => tracing::debug!(source = intake.name(), peer, ?taken, "sender left"),
                Err(error) => {
                    intake.tally().connections_failed.one();
                    tracing::warn!(source = intake.name(), peer, %error, "connection broke");
                }
            }
        });
    }

    /// Waits until what every sender had sent is committed.
    pub(super) async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Reads standard input to its end.
pub async fn read_stdin(intake: Intake, stop: CancellationToken) {
    use std::os::fd::AsFd as _;
    intake.status().works();
    let input = std::io::stdin().as_fd().try_clone_to_owned();
    let ended = match input {
        Ok(input) => {
            let input = tokio::fs::File::from_std(std::fs::File::from(input));
            pump(&intake, "stdin", input, Framing::Lines, &stop).await
        }
        Err(error) => Err(error),
    };
    let said = match ended {
        Ok(taken) => format!("standard input has ended after {} records", taken.records),
        Err(error) => format!("standard input cannot be read: {error}"),
    };
    if intake.status().fails(&said) {
        tracing::info!(source = intake.name(), "{said}");
    }
}

/// Binds a Unix socket; one that a dead process left behind is replaced.
fn bind_unix(path: &Path) -> std::io::Result<UnixListener> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    // The sender runs under another user: let the group write.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}
