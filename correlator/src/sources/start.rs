//! Starts every configured source.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::config::{Delivery, Source, SourceError, TlsFiles, prepare};
use super::intake::Intake;
use super::push::Target;
use super::tls::TlsError;
use super::{folder, poll, push, socket, syslog, tail, tls, udp};
use crate::config::Config;
use crate::runner::Handle;

/// Why the sources do not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A source's settings.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A listener's TLS.
    #[error("{what}: {source}")]
    Tls {
        /// Whose.
        what: String,
        /// Why.
        source: TlsError,
    },
    /// A listener.
    #[error("{what}: cannot listen on {place}: {source}")]
    Listen {
        /// Whose.
        what: String,
        /// Where.
        place: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Running sources.
#[derive(Debug)]
pub struct Started {
    /// Each source's way in, for the status page; in the order of the settings.
    pub intakes: Vec<Intake>,
    /// Where records are pushed to, when a source is.
    pub push: Option<SocketAddr>,
    /// What runs until the stop.
    pub tasks: Vec<JoinHandle<()>>,
}

/// Starts the sources of `config`, which end at `stop`.
///
/// # Errors
/// When a source's settings are wrong, or it cannot listen. What fails later is shown in the status.
pub async fn start(
    config: &Config,
    handle: &Handle,
    stop: &CancellationToken,
) -> Result<Started, StartError> {
    let sources = prepare(&config.all_sources())?;
    let mut started = Started {
        intakes: Vec::new(),
        push: None,
        tasks: Vec::new(),
    };
    let mut targets = Vec::new();
    let dead_letters = config.dead_letters();
    for source in sources {
        let intake = Intake::new(
            &source.name,
            source.via.as_str(),
            source.place.clone(),
            (source.kind, source.parser.clone()),
            handle.clone(),
            &dead_letters,
        );
        started.intakes.push(intake.clone());
        if let Delivery::Http(proof) = source.delivery {
            targets.push(Target::new(intake, &proof));
        } else {
            started
                .tasks
                .push(start_one(config, source, intake, stop.clone()).await?);
        }
    }
    if !targets.is_empty() {
        let (bound, task) = start_push(config, targets, handle, stop).await?;
        started.push = Some(bound);
        started.tasks.push(task);
    }
    Ok(started)
}

async fn start_one(
    config: &Config,
    source: Source,
    intake: Intake,
    stop: CancellationToken,
) -> Result<JoinHandle<()>, StartError> {
    let what = format!("source {:?}", source.name);
    let place = source.place;
    let listening = |source| StartError::Listen {
        what: what.clone(),
        place: place.clone(),
        source,
    };
    Ok(match source.delivery {
        Delivery::Folder(path) => {
            let options = folder::Options {
                folder: path,
                rescan: Duration::from_secs(config.rescan_seconds.max(1)),
                stuck_after: Duration::from_secs(config.stuck_minutes * 60),
            };
            tokio::spawn(watch(options, intake, stop))
        }
        Delivery::FileTail(path) => tokio::spawn(tail::follow(path, intake, stop)),
        Delivery::Socket(endpoint) => socket::listen(&endpoint, intake, stop)
            .await
            .map_err(listening)?,
        Delivery::Syslog(address, files) => {
            let tls = acceptor(files.as_ref(), &what)?;
            syslog::listen(address, tls, intake, stop)
                .await
                .map_err(listening)?
        }
        Delivery::SyslogUdp(address) => udp::listen(address, intake, stop)
            .await
            .map_err(listening)?,
        Delivery::Stdin => tokio::spawn(socket::read_stdin(intake, stop)),
        Delivery::Poll(poll) => tokio::spawn(poll::run(poll, intake, stop)),
        #[cfg(feature = "aws")]
        Delivery::S3(queue) => tokio::spawn(super::s3::run(queue, intake, stop)),
        // `prepare` refuses what a build is without.
        #[cfg(not(feature = "aws"))]
        Delivery::S3(_) => tokio::spawn(async {}),
        #[cfg(feature = "bucket")]
        Delivery::Bucket(bucket) => tokio::spawn(super::bucket::run(bucket, intake, stop)),
        #[cfg(not(feature = "bucket"))]
        Delivery::Bucket(_) => tokio::spawn(async {}),
        #[cfg(feature = "kafka")]
        Delivery::Kafka(kafka) => tokio::spawn(super::kafka::run(kafka, intake, stop)),
        #[cfg(not(feature = "kafka"))]
        Delivery::Kafka(_) => tokio::spawn(async {}),
        // Pushes are started together.
        Delivery::Http(_) => tokio::spawn(async {}),
    })
}

async fn start_push(
    config: &Config,
    targets: Vec<Target>,
    handle: &Handle,
    stop: &CancellationToken,
) -> Result<(SocketAddr, JoinHandle<()>), StartError> {
    let address = config.listen_push;
    let files = match (&config.push_tls_cert, &config.push_tls_key) {
        (Some(cert), Some(key)) => Some(TlsFiles {
            cert: PathBuf::clone(cert),
            key: PathBuf::clone(key),
            client_ca: None,
        }),
        _ => None,
    };
    let tls = acceptor(files.as_ref(), "listen_push")?;
    if tls.is_none() && !address.ip().is_loopback() {
        tracing::warn!(
            %address,
            "records are pushed over plain HTTP and not on loopback: set push_tls_cert and \
             push_tls_key, or put a TLS proxy in front"
        );
    }
    let counters = std::sync::Arc::clone(handle.counters());
    push::serve(address, tls, targets, counters, stop.clone())
        .await
        .map_err(|source| StartError::Listen {
            what: "pushed records".to_owned(),
            place: address.to_string(),
            source,
        })
}

fn acceptor(
    files: Option<&TlsFiles>,
    what: &str,
) -> Result<Option<tokio_rustls::TlsAcceptor>, StartError> {
    files
        .map(tls::acceptor)
        .transpose()
        .map_err(|source| StartError::Tls {
            what: what.to_owned(),
            source,
        })
}

/// Watches a folder; when that fails, says so in the status and tries again.
async fn watch(options: folder::Options, intake: Intake, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let watching = folder::watch(options.clone(), intake.clone(), stop.clone()).await;
        if let Err(error) = watching
            && intake.status().fails(&error.to_string())
        {
            tracing::error!(source = intake.name(), %error, "uses are not seen until this is mended");
        }
        tokio::select! {
            () = tokio::time::sleep(options.rescan) => {}
            () = stop.cancelled() => return,
        }
    }
}
