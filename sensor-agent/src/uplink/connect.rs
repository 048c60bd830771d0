//! One TLS connection to the correlator, and in words why there is none.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use keytrail_pki::fault::TlsFault;
use keytrail_pki::tls::{self, TlsError};
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use super::enrol::Identity;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 windows for what the correlator sends: small messages only.
const WINDOW: u32 = 1024 * 1024;

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The address in the settings.
    #[error("`{0}` is no correlator address: write host:port")]
    Address(String),
    /// TCP.
    #[error("cannot reach {address}: {source}")]
    Tcp {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Time ran out.
    #[error("no answer from {0} within 10 s")]
    Timeout(String),
    /// A certificate.
    #[error("{}: {detail}", advice(*fault))]
    Tls {
        /// What about it.
        fault: TlsFault,
        /// rustls's words.
        detail: String,
    },
    /// Our own material.
    #[error(transparent)]
    Settings(#[from] TlsError),
    /// HTTP/2.
    #[error("{address} speaks TLS but not gRPC: {detail}")]
    Http {
        /// Where.
        address: String,
        /// Why.
        detail: String,
    },
}

/// What it means here and what to do.
fn advice(fault: TlsFault) -> &'static str {
    match fault {
        // A peer's alert says "expired" for a certificate whose time has not come as well.
        TlsFault::Expired => {
            "a certificate has expired or is not valid yet: check the clocks on both sides, enrol \
             this sensor again"
        }
        TlsFault::NotYetValid => "a certificate is not valid yet: check the clocks on both sides",
        TlsFault::UnknownIssuer => {
            "a certificate is of another CA: is ca.crt the one of this correlator? enrol again"
        }
        TlsFault::Revoked => "this sensor's certificate was revoked: enrol again",
        TlsFault::NameMismatch => {
            "the correlator's certificate is for other names: use one of them, or add this one to \
             the correlator's names"
        }
        TlsFault::NoCertificate => "the correlator wants a certificate: enrol this sensor",
        TlsFault::NotTls => "the address does not speak TLS 1.3",
        TlsFault::Other => "the TLS handshake failed",
    }
}

/// A connection, and what TLS said about it later: in TLS 1.3 the server judges the client's
/// certificate after the client's handshake is over.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) channel: Channel,
    late_fault: LateFault,
}

impl Connection {
    /// The TLS failure that broke this connection, if that is what broke it.
    pub(super) fn late_fault(&self) -> Option<ConnectError> {
        let fault = self
            .late_fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()?;
        let (fault, detail) = fault;
        Some(ConnectError::Tls { fault, detail })
    }
}

type LateFault = Arc<Mutex<Option<(TlsFault, String)>>>;

/// Connects, with the host's identity if there is one.
pub(super) async fn connect(
    address: &str,
    ca_pem: &str,
    identity: Option<&Identity>,
) -> Result<Connection, ConnectError> {
    tokio::time::timeout(CONNECT_TIMEOUT, connect_now(address, ca_pem, identity))
        .await
        .map_err(|_elapsed| ConnectError::Timeout(address.to_owned()))?
}

async fn connect_now(
    address: &str,
    ca_pem: &str,
    identity: Option<&Identity>,
) -> Result<Connection, ConnectError> {
    let no_address = || ConnectError::Address(address.to_owned());
    let (host, _port) = address.rsplit_once(':').ok_or_else(no_address)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(|_invalid| no_address())?;
    let certified = identity.map(Identity::certified).transpose()?;
    let config = tls::client_config(ca_pem, certified)?;
    let tcp = |source| ConnectError::Tcp {
        address: address.to_owned(),
        source,
    };
    let stream = TcpStream::connect(address).await.map_err(tcp)?;
    stream.set_nodelay(true).map_err(tcp)?;
    let connector = TlsConnector::from(config);
    let stream = connector.connect(name, stream).await.map_err(|error| {
        let (fault, detail) =
            TlsFault::of_io(&error).unwrap_or((TlsFault::Other, error.to_string()));
        ConnectError::Tls { fault, detail }
    })?;
    let late_fault = LateFault::default();
    let watched = Watched {
        stream,
        fault: Arc::clone(&late_fault),
    };
    let channel = channel(address, watched).await;
    match channel {
        Ok(channel) => Ok(Connection {
            channel,
            late_fault,
        }),
        Err(detail) => {
            let late = late_fault.lock().unwrap_or_else(PoisonError::into_inner);
            Err(match late.clone() {
                Some((fault, detail)) => ConnectError::Tls { fault, detail },
                None => ConnectError::Http {
                    address: address.to_owned(),
                    detail,
                },
            })
        }
    }
}

/// HTTP/2 over a stream that is there already. It is never dialled again: a broken connection is
/// the uplink's business, with its own policy.
async fn channel(address: &str, stream: Watched) -> Result<Channel, String> {
    let once = Arc::new(Mutex::new(Some(stream)));
    let connector = tower::service_fn(move |_uri| {
        let stream = once
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .map(TokioIo::new)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        std::future::ready(stream)
    });
    // The scheme is for HTTP/2's books only; TLS is done.
    Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| error.to_string())?
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .connect_with_connector(connector)
        .await
        .map_err(|error| error.to_string())
}

/// A stream that remembers what TLS said when it broke.
struct Watched {
    stream: TlsStream<TcpStream>,
    fault: LateFault,
}

impl Watched {
    fn note<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &result
            && let Some(fault) = TlsFault::of_io(error)
        {
            self.fault
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert(fault);
        }
        result
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.note(result)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        self.note(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
