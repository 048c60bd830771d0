//! Accepts TLS beside the requests, so that one slow handshake holds nobody up.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A handshake takes at most so long.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes in progress at most.
const HANDSHAKES: usize = 64;

type Accepted = (TlsStream<TcpStream>, SocketAddr);

/// Hands out connections whose handshake is done.
#[derive(Debug)]
pub(super) struct TlsListener {
    ready: mpsc::Receiver<Accepted>,
    address: SocketAddr,
}

impl TlsListener {
    /// Accepts on `tcp` until `stop`.
    pub(super) fn start(tcp: TcpListener, tls: TlsAcceptor, stop: &CancellationToken) -> Self {
        let address = tcp
            .local_addr()
            .unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
        let (sender, ready) = mpsc::channel(HANDSHAKES);
        let stop = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = accept(tcp, tls, sender) => {}
                () = stop.cancelled() => {}
            }
        });
        Self { ready, address }
    }
}

async fn accept(tcp: TcpListener, tls: TlsAcceptor, sender: mpsc::Sender<Accepted>) {
    let handshakes = TaskTracker::new();
    loop {
        // The place in the queue is taken first: no more handshakes than places.
        let Ok(place) = sender.clone().reserve_owned().await else {
            return;
        };
        match tcp.accept().await {
            Ok((stream, peer)) => {
                let handshake = tokio::time::timeout(HANDSHAKE, tls.accept(stream));
                handshakes.spawn(async move {
                    match handshake.await {
                        Ok(Ok(stream)) => drop(place.send((stream, peer))),
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                        Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // The accepting task ended with the correlator's stop; there is nothing more to hand out.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.address)
    }
}
