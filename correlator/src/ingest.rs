//! Ingest: what sensors send, authenticated, checked, de-duplicated and made durable before it is
//! acknowledged.
//!
//! Flow of a connection: `acceptor` (TLS, who is it) -> `stream` (one task: `session` keeps the
//! contract, the [`sink::IngestSink`] makes durable, the acknowledgement goes out) or `enrolment`.
//!
//! Architecture invariant (IN-1): the wire carries no host. A fact's host is the one that the
//! peer's certificate names, so a sensor can speak only for itself.
//!
//! Architecture invariant (IN-2): an acknowledgement follows [`sink::IngestSink::submit`], never
//! precedes it.
//!
//! Architecture invariant (IN-3): one stream a host; a newer one replaces it only after the older
//! one's facts are with the store. So numbers reach the store once and in order.

mod acceptor;
mod clock;
mod counters;
mod enrolment;
mod registry;
mod report;
mod session;
pub mod sink;
mod stream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use keytrail_pki::ca::{Ca, CaError, Validity};
use keytrail_pki::files::FileError;
use keytrail_pki::identity::{PeerIdentity, Serial, is_name};
use keytrail_pki::revocation::RevocationList;
use keytrail_pki::tls::{self, TlsError};
use keytrail_pki::token::{JoinToken, TokenError, TokenStore};
use keytrail_proto::MAX_MESSAGE_BYTES;
use keytrail_proto::wire::enrolment_server::EnrolmentServer;
use keytrail_proto::wire::sensor_ingest_server::SensorIngestServer;
use rustls::ServerConfig;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tracing::{info, warn};

use acceptor::PeerInfo;
pub use counters::IngestCounts;
pub use registry::StreamView;
use sink::IngestSink;

/// The correlator's own certificate lives so long; it is made anew every [`RENEW_SERVER`].
const SERVER_DAYS: i64 = 30;
const RENEW_SERVER: Duration = Duration::from_hours(24);
/// HTTP/2 windows: enough for several batches in flight.
const STREAM_WINDOW: u32 = 8 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Connections between handshake and HTTP/2.
const READY_QUEUE: usize = 64;
/// How long stopping waits for streams to finish with the store.
const DRAIN: Duration = Duration::from_secs(20);

/// Settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngestConfig {
    /// Where sensors connect.
    pub listen: SocketAddr,
    /// Folder of the CA, the join tokens and the revocations.
    pub pki_dir: PathBuf,
    /// The tenant that enrolled hosts belong to; lower-case letters, digits, `-`.
    pub tenant: String,
    /// Names and addresses, besides loopback, under which sensors reach this correlator.
    pub names: Vec<String>,
    /// How long host certificates live, days.
    pub host_certificate_days: i64,
    /// How many sensors may stream at the same time.
    pub max_streams: usize,
    /// How often a sensor is asked for a sign of life, milliseconds.
    pub heartbeat_ms: u64,
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7443)),
            pki_dir: PathBuf::from("pki"),
            tenant: "default".to_owned(),
            names: Vec::new(),
            host_certificate_days: 30,
            max_streams: 2048,
            heartbeat_ms: 5000,
        }
    }
}

/// Why ingest does not start.
#[derive(Debug, Error)]
pub enum IngestError {
    /// The port.
    #[error("cannot listen for sensors on {address}: {source}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The tenant's name.
    #[error("`{0}` is no tenant name: use 1 to 63 lower-case letters, digits and `-`")]
    Tenant(String),
    /// The CA.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The join tokens.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The revocations.
    #[error(transparent)]
    File(#[from] FileError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Why a peer may not stream or renew.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
enum Refusal {
    #[error("no client certificate: enrol the sensor first")]
    NoCertificate,
    #[error("{0}")]
    NotAHost(keytrail_pki::identity::IdentityError),
    #[error("its certificate {0} is revoked: enrol the sensor again")]
    Revoked(Serial),
    #[error("it belongs to tenant `{0}`, which is not served here")]
    Tenant(String),
    #[error("its certificate has expired while connected: renew it")]
    Expired,
}

impl Refusal {
    fn kind(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no-certificate",
            Self::NotAHost(_) => "not-a-host",
            Self::Revoked(_) => "revoked",
            Self::Tenant(_) => "tenant",
            Self::Expired => "expired",
        }
    }

    fn status(&self) -> Status {
        match self {
            Self::NoCertificate | Self::Expired => Status::unauthenticated(self.to_string()),
            Self::NotAHost(_) | Self::Revoked(_) | Self::Tenant(_) => {
                Status::permission_denied(self.to_string())
            }
        }
    }
}

/// What the parts of ingest share.
#[derive(Debug)]
struct Shared {
    ca: Ca,
    names: Vec<String>,
    tenant: String,
    host_certificate_days: i64,
    heartbeat: Duration,
    tokens: TokenStore,
    revoked: RevocationList,
    server: RwLock<Arc<ServerConfig>>,
    registry: registry::Registry,
    streams: Arc<Semaphore>,
    counters: counters::Counters,
    reporter: report::Reporter,
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Shared {
    fn tls(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn admit(&self, info: &PeerInfo) -> Result<PeerIdentity, Refusal> {
        let peer = match &info.identity {
            None => return Err(Refusal::NoCertificate),
            Some(Err(error)) => return Err(Refusal::NotAHost(error.clone())),
            Some(Ok(peer)) => peer.clone(),
        };
        if self.revoked.contains(&peer.serial) {
            return Err(Refusal::Revoked(peer.serial));
        }
        if peer.host.tenant != self.tenant {
            return Err(Refusal::Tenant(peer.host.tenant));
        }
        // TLS checked it at the handshake; a connection may outlive it.
        if peer.not_after_unix < Timestamp::now().as_second() {
            return Err(Refusal::Expired);
        }
        Ok(peer)
    }
}

fn server_config(ca: &Ca, names: &[String]) -> Result<Arc<ServerConfig>, IngestError> {
    let validity = Validity::days(Timestamp::now().as_second(), SERVER_DAYS);
    let server = ca.certify_server(names, validity)?;
    Ok(tls::server_config(ca.certificate(), server)?)
}

/// A running ingest. Dropping it does not stop it: call [`Ingest::stop`].
#[derive(Debug)]
pub struct Ingest {
    shared: Arc<Shared>,
    address: SocketAddr,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Ingest {
    /// Loads or makes the CA, binds the port and serves sensors from then on, in tasks of the
    /// current runtime.
    ///
    /// # Errors
    /// When the port, the CA or the settings are not usable.
    pub async fn start<S: IngestSink>(
        config: IngestConfig,
        sink: Arc<S>,
    ) -> Result<Self, IngestError> {
        if !is_name(&config.tenant) {
            return Err(IngestError::Tenant(config.tenant));
        }
        let ca = Ca::load_or_create(&config.pki_dir, Timestamp::now().as_second())?;
        let shared = Arc::new(Shared {
            server: RwLock::new(server_config(&ca, &config.names)?),
            ca,
            names: config.names,
            tenant: config.tenant,
            host_certificate_days: config.host_certificate_days,
            heartbeat: Duration::from_millis(config.heartbeat_ms.max(100)),
            tokens: TokenStore::load(&config.pki_dir)?,
            revoked: RevocationList::load(&config.pki_dir)?,
            registry: registry::Registry::default(),
            streams: Arc::new(Semaphore::new(config.max_streams)),
            counters: counters::Counters::default(),
            reporter: report::Reporter::default(),
            stop: CancellationToken::new(),
            tracker: TaskTracker::new(),
        });
        let listen = |source| IngestError::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let (ready, incoming) = mpsc::channel(READY_QUEUE);
        let tracker = &shared.tracker;
        tracker.spawn(acceptor::accept(listener, Arc::clone(&shared), ready));
        tracker.spawn(renew_server(Arc::clone(&shared)));
        let ingestor = stream::Ingestor {
            shared: Arc::clone(&shared),
            sink,
        };
        let router = tonic::transport::Server::builder()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            .add_service(
                SensorIngestServer::new(ingestor).max_decoding_message_size(MAX_MESSAGE_BYTES),
            )
            .add_service(
                EnrolmentServer::new(enrolment::Enroller::new(Arc::clone(&shared)))
                    .max_decoding_message_size(64 * 1024),
            );
        let stop = shared.stop.clone();
        let server = tokio::spawn(
            router.serve_with_incoming_shutdown(ReceiverStream::new(incoming), async move {
                stop.cancelled().await
            }),
        );
        info!(%address, "listening for sensors");
        Ok(Self {
            shared,
            address,
            server,
        })
    }

    /// The address that is listened on (its port, when the settings said 0).
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The CA certificate in PEM: what sensors must be given.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        self.shared.ca.certificate_pem()
    }

    /// Makes a join token that lasts so long, for so many uses (`None`: any number).
    ///
    /// # Errors
    /// When it cannot be stored.
    pub fn issue_token(&self, lasts: Duration, uses: Option<u32>) -> Result<JoinToken, TokenError> {
        let now = Timestamp::now().as_second();
        let lasts = i64::try_from(lasts.as_secs()).unwrap_or(i64::MAX);
        self.shared
            .tokens
            .issue(now, now.saturating_add(lasts), uses)
    }

    /// Counts since start.
    #[must_use]
    pub fn counts(&self) -> IngestCounts {
        self.shared.counters.snapshot()
    }

    /// The open streams, by host.
    #[must_use]
    pub fn streams(&self) -> Vec<StreamView> {
        self.shared.registry.views()
    }

    /// Revokes a certificate, for good, and closes the streams that it opened; returns how many.
    ///
    /// # Errors
    /// When it cannot be stored; nothing is closed then.
    pub fn revoke(&self, serial: &Serial) -> Result<usize, FileError> {
        self.shared.revoked.add(serial.clone())?;
        Ok(self.shared.registry.revoke(serial))
    }

    /// Stops: no more connections, streams finish what they received and acknowledge it.
    pub async fn stop(self) {
        let Self { shared, server, .. } = self;
        shared.registry.stop();
        shared.stop.cancel();
        shared.tracker.close();
        let drained = tokio::time::timeout(DRAIN, shared.tracker.wait()).await;
        if drained.is_err() {
            warn!("sensor streams did not finish within {} s", DRAIN.as_secs());
        }
        // Connections of sensors that do not close theirs would be waited for without end.
        server.abort();
        drop(server.await);
    }
}

/// Keeps the correlator's own certificate young.
async fn renew_server(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(RENEW_SERVER) => {}
        }
        match server_config(&shared.ca, &shared.names) {
            Ok(config) => {
                *shared
                    .server
                    .write()
                    .unwrap_or_else(PoisonError::into_inner) = config;
            }
            Err(error) => warn!("cannot renew the correlator's certificate: {error}"),
        }
    }
}
