//! The correlator's life: open, restore, serve, drain.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{self, ApiState, ApiToken, MoreCounters, token::TokenError};
use crate::config::Config;
use crate::counters::{CounterView, Counters};
use crate::ingest::{Ingest, IngestConfig, IngestError};
use crate::networks::Networks;
use crate::runner::{self, Handle, RunnerError, Running};
use crate::sources::{self, Intake, StartError};
use crate::store::{Store, StoreError};

/// A join token lasts so long ...
const TOKEN_LASTS: Duration = Duration::from_hours(48);
/// ... and a new one is written so often.
const TOKEN_RENEWED: Duration = Duration::from_hours(24);
/// Stopping waits this long for sensors' streams, and for requests.
const DRAIN: Duration = Duration::from_millis(800);

/// Why the correlator does not start.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The runner.
    #[error(transparent)]
    Runner(#[from] RunnerError),
    /// The API token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Ingest.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// A source.
    #[error(transparent)]
    Sources(#[from] StartError),
    /// The API's port.
    #[error("cannot listen for the API on {address}: {source}; choose another --listen-api")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A file that sensors need.
    #[error("cannot write {path}: {detail}")]
    Enrol {
        /// Which file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
}

/// Ingest, shared with the status page, taken out to be stopped.
type SharedIngest = Arc<Mutex<Option<Ingest>>>;

/// A running correlator.
#[derive(Debug)]
pub struct Server {
    /// Where sensors connect.
    pub ingest: SocketAddr,
    /// Where the API is served.
    pub api: SocketAddr,
    /// Where records are pushed to, when a source is configured so.
    pub push: Option<SocketAddr>,
    running: Running,
    shared_ingest: SharedIngest,
    tasks: Vec<JoinHandle<()>>,
    api_task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Server {
    /// Starts everything.
    ///
    /// # Errors
    /// When a part cannot start; what had started is stopped with the runtime.
    pub async fn start(config: Config) -> Result<Self, ServeError> {
        let counters = Arc::new(Counters::default());
        let running = restore(&config, Arc::clone(&counters)).await?;
        let stop = CancellationToken::new();
        let (networks, networks_task) =
            Networks::start(&config.networks, &config.data_dir, stop.clone()).await;
        let running = running.with_networks(networks);
        let handle = running.handle.clone();
        let token = ApiToken::load_or_create(&config.data_dir)?;
        let scim_token =
            ApiToken::load_or_create_file(&config.data_dir.join(api::scim::TOKEN_FILE))?;
        let ingest = Ingest::start(ingest_config(&config), Arc::new(handle.clone())).await?;
        let ingest_address = ingest.address();
        let enrol = config.data_dir.join("enrol");
        write_enrolment(&enrol, &ingest)?;
        let shared_ingest: SharedIngest = Arc::new(Mutex::new(Some(ingest)));
        let sources = sources::start(&config, &handle, &stop).await?;
        let state = ApiState::new(
            handle.clone(),
            (sources.intakes.clone(), config.dead_letters()),
            more_counters(Arc::clone(&shared_ingest), sources.intakes),
            token,
            api_hosts(&config),
            stop.clone(),
        )
        .with_scim(scim_token);
        let (api, api_task) = serve_api(config.listen_api, state, stop.clone()).await?;
        let pulse = {
            let (handle, stop) = (handle.clone(), stop.clone());
            async move {
                tokio::select! {
                    () = handle.pulse() => {}
                    () = stop.cancelled() => {}
                }
            }
        };
        let mut tasks = vec![
            tokio::spawn(pulse),
            networks_task,
            tokio::spawn(renew_token(enrol, Arc::clone(&shared_ingest), stop.clone())),
        ];
        tasks.extend(sources.tasks);
        Ok(Self {
            ingest: ingest_address,
            api,
            push: sources.push,
            running,
            shared_ingest,
            tasks,
            api_task,
            stop,
        })
    }

    /// The runner, for tests and measurements.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.running.handle
    }

    /// Stops in the order of the flow: sources and sensors first, then the runner (which takes in
    /// what is queued and saves a snapshot).
    pub async fn stop(mut self) {
        self.stop_inputs().await;
        self.running.stop().await;
    }

    /// Ends as a kill would: nothing is drained or saved (for crash tests).
    #[doc(hidden)]
    pub async fn crash(mut self) {
        self.stop_inputs().await;
        self.running.abandon().await;
    }

    async fn stop_inputs(&mut self) {
        self.stop.cancel();
        let ingest = self
            .shared_ingest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(ingest) = ingest
            && tokio::time::timeout(DRAIN, ingest.stop()).await.is_err()
        {
            tracing::warn!(
                "some sensor streams did not end in time; sensors send again what was not acknowledged"
            );
        }
        let mut tasks = std::mem::take(&mut self.tasks);
        for task in &mut tasks {
            if tokio::time::timeout(DRAIN, &mut *task).await.is_err() {
                task.abort();
            }
        }
        if tokio::time::timeout(DRAIN, &mut self.api_task)
            .await
            .is_err()
        {
            self.api_task.abort();
        }
    }
}

/// Opens the store and replays what no snapshot covers, beside the async threads.
async fn restore(config: &Config, counters: Arc<Counters>) -> Result<Running, ServeError> {
    let data_dir = config.data_dir.clone();
    let options = config.runner_options();
    tokio::task::spawn_blocking(move || {
        let store = Store::open(&data_dir)?;
        Ok(runner::start(store, options, counters)?)
    })
    .await
    .map_err(|_| RunnerError::Stopping)?
}

fn ingest_config(config: &Config) -> IngestConfig {
    IngestConfig {
        listen: config.listen_ingest,
        pki_dir: config.data_dir.join("pki"),
        tenant: config.tenant.clone(),
        names: config.ingest_names.clone(),
        heartbeat_ms: config.heartbeat_ms,
        ..IngestConfig::default()
    }
}

fn api_hosts(config: &Config) -> Vec<String> {
    let mut hosts = config.api_hosts.clone();
    let ip = config.listen_api.ip();
    if !ip.is_unspecified() {
        hosts.push(match ip {
            std::net::IpAddr::V4(v4) => v4.to_string(),
            std::net::IpAddr::V6(v6) => format!("[{v6}]"),
        });
    }
    if !ip.is_loopback() {
        tracing::warn!(
            address = %config.listen_api,
            "the API is plain HTTP and does not listen on loopback: put a TLS proxy in front of it"
        );
    }
    hosts
}

/// Writes what a sensor needs to enrol.
fn write_enrolment(folder: &Path, ingest: &Ingest) -> Result<(), ServeError> {
    let wrong = |path: &Path, detail: String| ServeError::Enrol {
        path: path.to_owned(),
        detail,
    };
    keytrail_pki::files::private_folder(folder).map_err(|e| wrong(folder, e.to_string()))?;
    let ca = folder.join("ca.pem");
    keytrail_pki::files::write(&ca, ingest.ca_pem().as_bytes(), 0o644)
        .map_err(|e| wrong(&ca, e.to_string()))?;
    let path = folder.join("join-token");
    let token = ingest
        .issue_token(TOKEN_LASTS, None)
        .map_err(|e| wrong(&path, e.to_string()))?;
    keytrail_pki::files::write(&path, token.reveal().as_bytes(), 0o600)
        .map_err(|e| wrong(&path, e.to_string()))
}

/// Keeps the join token young.
async fn renew_token(folder: PathBuf, ingest: SharedIngest, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(TOKEN_RENEWED) => {}
            () = stop.cancelled() => return,
        }
        let ingest = ingest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ingest) = ingest.as_ref()
            && let Err(error) = write_enrolment(&folder, ingest)
        {
            tracing::warn!(%error, "the join token was not renewed; tried again tomorrow");
        }
    }
}

/// What ingest and the sources count for themselves.
fn more_counters(ingest: SharedIngest, sources: Vec<Intake>) -> MoreCounters {
    MoreCounters::new(move || {
        let mut all = ingest_counters(&ingest);
        all.extend(sources.iter().flat_map(Intake::counters));
        all
    })
}

/// Ingest's own counts as the status page shows them.
fn ingest_counters(ingest: &SharedIngest) -> Vec<CounterView> {
    let counts = {
        let ingest = ingest.lock().unwrap_or_else(PoisonError::into_inner);
        ingest.as_ref().map(Ingest::counts)
    };
    let Some(c) = counts else { return Vec::new() };
    [
            ("sensor_handshakes_failed", c.handshakes_failed, "TLS handshakes that failed: wrong or expired certificate, not TLS, time-out. The log names the peer."),
            ("sensor_streams_refused", c.streams_refused, "Streams refused after the handshake: no certificate, revoked, another tenant, too many."),
            ("sensor_streams_opened", c.streams_opened, "Streams opened by sensors."),
            ("sensor_duplicates", c.duplicates, "Facts that came again on the wire and were ignored."),
            ("sensor_lost", c.lost, "Facts that sensors lost or skipped; uses that they might explain stay undecided."),
            ("sensor_rejected", c.rejected, "Messages that did not keep the contract; each ended its stream. Update the sensor."),
            ("sensor_watermarks_ignored", c.watermarks_ignored, "Watermarks that went back in time or lay in the future: a host's clock jumped."),
            ("sensor_enrolled", c.enrolled, "Hosts enrolled."),
            ("sensor_renewed", c.renewed, "Host certificates renewed."),
            ("sensor_enrolments_refused", c.enrolments_refused, "Enrolments refused: wrong or used join token."),
        ]
        .into_iter()
        .map(|(name, value, meaning)| CounterView {
            name: name.to_owned(),
            value,
            meaning: meaning.to_owned(),
        })
        .collect()
}

async fn serve_api(
    address: SocketAddr,
    state: ApiState,
    stop: CancellationToken,
) -> Result<(SocketAddr, JoinHandle<()>), ServeError> {
    let wrong = |source| ServeError::Listen { address, source };
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(wrong)?;
    let bound = listener.local_addr().map_err(wrong)?;
    let router = api::router(state);
    let task = tokio::spawn(async move {
        let served = axum::serve(listener, router)
            .with_graceful_shutdown(async move { stop.cancelled().await })
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "the API stopped");
        }
    });
    Ok((bound, task))
}
