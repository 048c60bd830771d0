//! From facts to the correlator: durable first, then over mutual TLS, kept until acknowledged.
//!
//! Flow: [`Outbox::push`] -> `keeper` (a thread that owns the spool: groups, numbers, makes durable)
//! -> `stream` (one at a time, keeps the contract of `ingest.proto`) -> correlator; acknowledgements
//! flow back and free the spool. Nothing here blocks the producer: a correlator that is away makes
//! the spool grow up to its bound, a disk that is stuck fills the outbox up to its bound, and what
//! does not fit is counted and told as a gap.
//!
//! Architecture invariant (UP-1): a watermark leaves only after every fact that was pushed before it.

mod backoff;
mod connect;
pub mod enrol;
mod keeper;
mod outbox;
mod stream;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use keytrail_model::ids::BootId;
use keytrail_spool::{Limits, Spool, SpoolError, Stats};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use connect::ConnectError;
pub use enrol::{EnrolError, Identity};
pub use outbox::{HostFact, Outbox, Pushed};

use backoff::Backoff;
use keeper::Keeper;
use stream::StreamEnd;

/// How often it is looked whether the certificate is to be renewed. A renewal is due when a third
/// of its life is left: days, so that many attempts fit.
const RENEWAL_CHECK: Duration = Duration::from_hours(1);

/// Settings.
#[derive(Clone, Debug)]
pub struct UplinkConfig {
    /// The correlator, `host:port`.
    pub address: String,
    /// The pinned CA certificate, PEM.
    pub ca_pem: String,
    /// Folder of the identity and the spool, readable by its owner only.
    pub state_dir: PathBuf,
    /// The kernel's boot id.
    pub boot: BootId,
    /// When that boot began.
    pub boot_time: Timestamp,
    /// Version of this agent.
    pub agent_version: String,
    /// Bound of the spool.
    pub spool: Limits,
}

/// Why the uplink does not start.
#[derive(Debug, Error)]
pub enum UplinkError {
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The thread that keeps it.
    #[error("cannot start the spool's thread: {0}")]
    Thread(std::io::Error),
}

/// How the uplink is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UplinkStatus {
    /// A stream is open.
    pub connected: bool,
    /// Why not, when it is not.
    pub trouble: Option<String>,
    /// Facts of this boot that are durable here.
    pub durable: u64,
    /// Facts of this boot that the correlator has acknowledged.
    pub acked: u64,
    /// Facts that did not fit into the outbox; each stretch is told as a gap.
    pub dropped: u64,
    /// What the spool counts.
    pub spool: Stats,
}

/// A running uplink.
#[derive(Debug)]
pub struct Uplink {
    outbox: Outbox,
    keeper: Keeper,
    connection: watch::Receiver<Connection>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

#[derive(Clone, Debug, Default)]
struct Connection {
    connected: bool,
    trouble: Option<String>,
}

impl Uplink {
    /// Opens the spool and starts to send, in tasks of the current runtime. The identity must be in
    /// the state folder already (see [`enrol::ensure`]).
    ///
    /// # Errors
    /// When the spool can neither be used nor begun anew.
    pub fn start(config: UplinkConfig) -> Result<Self, UplinkError> {
        let path = config.state_dir.join("spool.db");
        let (spool, opened) = Spool::open(&path, config.boot.0.into_bytes(), config.spool)?;
        let outbox = Outbox::new();
        if let (Some(aside), Some(damage)) = (&opened.quarantined, &opened.damage) {
            warn!(aside = %aside.display(), "the spool was damaged ({damage}); began a new one");
            outbox.lost_before(config.boot_time, "the spool was damaged on disk");
        }
        let keeper = Keeper::start(spool, outbox.clone()).map_err(UplinkError::Thread)?;
        let stop = CancellationToken::new();
        let (state, connection) = watch::channel(Connection::default());
        let sender = Sender {
            config: Arc::new(config),
            keeper: keeper.clone(),
            state,
            stop: stop.clone(),
        };
        Ok(Self {
            outbox,
            keeper,
            connection,
            stop,
            task: tokio::spawn(sender.run()),
        })
    }

    /// The note that became durable with the last facts of this boot (see
    /// [`Outbox::push_noting`]), before the uplink is started; `None` when there is none or it cannot
    /// be read, in which case starting says why.
    #[must_use]
    pub fn note(config: &UplinkConfig) -> Option<Vec<u8>> {
        keytrail_spool::note(
            &config.state_dir.join("spool.db"),
            config.boot.0.into_bytes(),
        )
    }

    /// Where facts go in.
    #[must_use]
    pub fn outbox(&self) -> Outbox {
        self.outbox.clone()
    }

    /// How it is doing.
    #[must_use]
    pub fn status(&self) -> UplinkStatus {
        let connection = self.connection.borrow().clone();
        let tail = self.keeper.tail();
        UplinkStatus {
            connected: connection.connected,
            trouble: connection.trouble,
            durable: tail.next_seq.saturating_sub(1),
            acked: tail.acked,
            dropped: self.outbox.dropped(),
            spool: tail.stats,
        }
    }

    /// Waits until the correlator has acknowledged everything that was pushed, at most so long;
    /// true when it has.
    pub async fn drain(&self, patience: Duration) -> bool {
        let mut tail = self.keeper.subscribe();
        let drained = tail.wait_for(|tail| tail.acked + 1 >= tail.next_seq);
        let all = async {
            self.outbox.emptied().await;
            drained.await.is_ok()
        };
        tokio::time::timeout(patience, all).await.unwrap_or(false)
    }

    /// Stops: what is in the outbox becomes durable, what is not acknowledged stays in the spool.
    pub async fn stop(self) {
        let Self {
            keeper, stop, task, ..
        } = self;
        stop.cancel();
        if let Err(error) = task.await {
            warn!("the uplink's task failed: {error}");
        }
        keeper.stop().await;
    }
}

/// Keeps a stream open.
struct Sender {
    config: Arc<UplinkConfig>,
    keeper: Keeper,
    state: watch::Sender<Connection>,
    stop: CancellationToken,
}

impl Sender {
    async fn run(self) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.keep_sending() => {}
        }
    }

    async fn keep_sending(&self) {
        let mut backoff = Backoff::default();
        loop {
            let failure = match self.connect_and_stream(&mut backoff).await {
                Ok(()) => continue,
                Err(failure) => failure,
            };
            if let Some(seq) = failure.refused {
                warn!(
                    seq,
                    "the correlator refuses this fact; put aside: {}", failure.text
                );
            }
            let pause = backoff.failed(failure.fatal);
            // The same trouble again is no news.
            let known = self.state.borrow().trouble.as_ref() == Some(&failure.text);
            if !known {
                warn!(
                    correlator = self.config.address,
                    retry_in_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                    "not connected: {}; facts are kept in the spool",
                    failure.text
                );
            }
            self.state.send_replace(Connection {
                connected: false,
                trouble: Some(failure.text),
            });
            tokio::time::sleep(pause).await;
        }
    }

    /// One connection: streams for one boot after the other until something breaks.
    async fn connect_and_stream(&self, backoff: &mut Backoff) -> Result<(), StreamEnd> {
        let config = &self.config;
        let identity =
            Identity::load(&config.state_dir).map_err(|error| StreamEnd::enrol(&error))?;
        let connected = connect::connect(&config.address, &config.ca_pem, Some(&identity))
            .await
            .map_err(|error| StreamEnd::connect(&error))?;
        tokio::select! {
            end = self.stream_boots(&connected, backoff) => end,
            () = self.keep_renewed(&connected, identity) => Ok(()),
        }
    }

    async fn stream_boots(
        &self,
        connected: &connect::Connection,
        backoff: &mut Backoff,
    ) -> Result<(), StreamEnd> {
        loop {
            stream::run(&self.config, &self.keeper, connected, || {
                backoff.succeeded();
                info!(correlator = self.config.address, "connected");
                self.state.send_replace(Connection {
                    connected: true,
                    trouble: None,
                });
            })
            .await?;
        }
    }

    /// Renews the certificate in time, also under a stream that stays open for months. The new one
    /// is for the next connection. Does not return.
    async fn keep_renewed(&self, connected: &connect::Connection, mut identity: Identity) {
        loop {
            if identity.should_renew(Timestamp::now().as_second()) {
                match enrol::renew(&self.config.state_dir, connected, &identity).await {
                    Ok(renewed) => {
                        info!("certificate renewed");
                        identity = renewed;
                    }
                    Err(error) => warn!("cannot renew the certificate: {error}; trying again"),
                }
            }
            tokio::time::sleep(RENEWAL_CHECK).await;
        }
    }
}
