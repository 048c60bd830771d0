//! Our own acceptor: every handshake on its own, each failure one clear line, and nothing else
//! stops.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use keytrail_pki::fault::TlsFault;
use keytrail_pki::identity::{IdentityError, PeerIdentity};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use tonic::{Request, Status};
use tracing::warn;

use super::Shared;
use super::counters::add;

/// A handshake may take so long.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes and connections at the same time; further ones wait in the listen queue.
const MAX_CONNECTIONS: usize = 4096;
/// Pause after the operating system refused to accept (out of descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How long, and for how many bytes, a refused peer is still listened to.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES: u64 = 64 << 10;

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(super) struct PeerInfo {
    pub(super) address: SocketAddr,
    /// `None`: no client certificate (allowed for enrolment).
    pub(super) identity: Option<Result<PeerIdentity, IdentityError>>,
}

/// A connection after its handshake.
#[derive(Debug)]
pub(super) struct PeerStream {
    inner: TlsStream<TcpStream>,
    info: PeerInfo,
    _permit: OwnedSemaphorePermit,
}

/// The peer of a request.
pub(super) fn peer_info<T>(request: &Request<T>) -> Result<PeerInfo, Status> {
    request
        .extensions()
        .get::<PeerInfo>()
        .cloned()
        .ok_or_else(|| Status::internal("the connection is not known"))
}

/// Accepts until told to stop; connections come out of `ready`.
pub(super) async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    ready: mpsc::Sender<Result<PeerStream, io::Error>>,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Never closed, so it cannot fail.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                let shared = Arc::clone(&shared);
                let ready = ready.clone();
                let tracker = shared.tracker.clone();
                tracker.spawn(async move {
                    let handshake = shake(stream, address, &shared, permit);
                    let done = tokio::select! {
                        () = shared.stop.cancelled() => return,
                        done = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake) => done,
                    };
                    match done {
                        // The server is gone when this fails.
                        Ok(Some(peer)) => drop(ready.send(Ok(peer)).await),
                        Ok(None) => {}
                        Err(_elapsed) => {
                            failed(&shared, address, "timeout", "no TLS handshake within 10 s")
                        }
                    }
                });
            }
            Err(error) => {
                warn!("cannot accept a connection: {error}; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn shake(
    stream: TcpStream,
    address: SocketAddr,
    shared: &Shared,
    permit: OwnedSemaphorePermit,
) -> Option<PeerStream> {
    if let Err(error) = stream.set_nodelay(true) {
        failed(shared, address, "other", &error.to_string());
        return None;
    }
    let acceptor = TlsAcceptor::from(shared.tls());
    match acceptor.accept(stream).into_fallible().await {
        Ok(inner) => {
            let (_, connection) = inner.get_ref();
            let identity = connection
                .peer_certificates()
                .and_then(<[_]>::first)
                .map(PeerIdentity::of);
            Some(PeerStream {
                inner,
                info: PeerInfo { address, identity },
                _permit: permit,
            })
        }
        Err((error, stream)) => {
            let (fault, detail) =
                TlsFault::of_io(&error).unwrap_or((TlsFault::Other, error.to_string()));
            let line = format!("{} ({detail})", advice(fault));
            failed(shared, address, fault.as_str(), &line);
            linger(stream).await;
            None
        }
    }
}

/// Lets the peer read the alert. Closing while its bytes lie unread would make the kernel reset the
/// connection, and a reset takes the alert with it: the sensor would not know why.
async fn linger(mut stream: TcpStream) {
    let drained = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    // Whether it is read is the peer's business.
    drop(tokio::time::timeout(LINGER, drained).await);
}

fn failed(shared: &Shared, address: SocketAddr, kind: &'static str, what: &str) {
    add(&shared.counters.handshakes_failed, 1);
    shared.reporter.refused(address.ip(), kind, what);
}

/// What it means here and what to do.
fn advice(fault: TlsFault) -> &'static str {
    match fault {
        TlsFault::Expired => "its certificate has expired: enrol the sensor again",
        TlsFault::NotYetValid => {
            "its certificate is not valid yet: check the clocks of the sensor and of this machine"
        }
        TlsFault::UnknownIssuer => {
            "a certificate is of another CA: enrol the sensor here, with this correlator's ca.crt"
        }
        TlsFault::Revoked => "its certificate is revoked",
        TlsFault::NameMismatch => {
            "it expects another name of this correlator: add the name to the server's names"
        }
        TlsFault::NoCertificate => "it presents no certificate",
        TlsFault::NotTls => "it does not speak TLS 1.3 with HTTP/2: is it a sensor?",
        TlsFault::Other => "the TLS handshake failed",
    }
}

impl Connected for PeerStream {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.info.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
