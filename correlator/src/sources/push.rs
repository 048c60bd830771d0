//! Records pushed by HTTP: `POST /v1/push/{source}`, and Splunk's HTTP Event Collector for senders
//! that speak only that.
//!
//! What may be posted to a source, all of it plain, gzip or zstd:
//! - records in any framing (one a line, an array, `{"Records":[...]}` and the like);
//! - CloudEvents 1.0 (structured, batch, binary; the validation of its web hook specification);
//! - Amazon Data Firehose's HTTP endpoint requests;
//! - Google Pub/Sub push messages;
//! - Azure Event Grid deliveries, with its validation handshake.
//!
//! Architecture invariants:
//! - PU-1: 200 leaves after the uses are durable. A body that cannot be read is answered 400 with
//!   the reason; single records that are refused are counted and noted, and do not fail the rest,
//!   since a sender would only send the same again.
//! - PU-2: every source has a token of its own, whose hash is kept, or takes only what its sender's
//!   provider signed ([`OidcConfig`]). Without it nothing is said about which sources there are,
//!   but for those that cannot check their sender at the moment.
//! - PU-3: bodies, their decompressed size and the number of requests in progress are bounded.

mod answer;
mod envelope;
mod hec;
mod listener;
mod oidc;
mod token;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::config::Proof;
use super::input;
use super::intake::{Intake, Progress, Taken};
use crate::counters::Counters;
use crate::runner::RunnerError;
use answer::Refusal;
use envelope::{Envelope, Sender};
pub use oidc::OidcConfig;
use oidc::{Denial, Verifier};

/// Largest body as sent.
const MAX_BODY: usize = 16 << 20;
/// Largest body decompressed.
const MAX_PLAIN: u64 = 128 << 20;
/// Requests in progress at most.
const REQUESTS: usize = 16;
/// A request takes at most so long.
const TIMEOUT: Duration = Duration::from_secs(60);

/// One source that is pushed to.
#[derive(Clone, Debug)]
pub struct Target {
    intake: Intake,
    gate: Gate,
}

#[derive(Clone, Debug)]
enum Gate {
    /// SHA-256 of the source's token.
    Token([u8; 32]),
    Oidc(Verifier),
}

impl Target {
    /// A source whose senders prove themselves so.
    #[must_use]
    pub fn new(intake: Intake, proof: &Proof) -> Self {
        let gate = match proof {
            Proof::Token(hash) => Gate::Token(*hash),
            Proof::Oidc(config) => Gate::Oidc(Verifier::new(config.clone())),
        };
        Self { intake, gate }
    }
}

#[derive(Clone, Debug)]
struct Push(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    targets: BTreeMap<String, Target>,
    requests: Semaphore,
    counters: Arc<Counters>,
}

/// Serves pushes on `address` until `stop`.
///
/// # Errors
/// When it cannot listen there.
pub async fn serve(
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    targets: Vec<Target>,
    counters: Arc<Counters>,
    stop: CancellationToken,
) -> std::io::Result<(SocketAddr, JoinHandle<()>)> {
    let tcp = tokio::net::TcpListener::bind(address).await?;
    let bound = tcp.local_addr()?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    for target in &targets {
        let place = format!("{scheme}://{bound}/v1/push/{}", target.intake.name());
        target
            .intake
            .status()
            .update(|status| status.folder = place);
        target.intake.status().works();
    }
    let router = router(Push(Arc::new(Inner {
        targets: targets
            .into_iter()
            .map(|target| (target.intake.name().to_owned(), target))
            .collect(),
        requests: Semaphore::new(REQUESTS),
        counters,
    })));
    let task = tokio::spawn(async move {
        let stopped = {
            let stop = stop.clone();
            async move { stop.cancelled().await }
        };
        let served = match tls {
            None => {
                axum::serve(tcp, router)
                    .with_graceful_shutdown(stopped)
                    .await
            }
            Some(tls) => {
                let listener = listener::TlsListener::start(tcp, tls, &stop);
                axum::serve(listener, router)
                    .with_graceful_shutdown(stopped)
                    .await
            }
        };
        if let Err(error) = served {
            tracing::error!(%error, "the push listener stopped");
        }
    });
    Ok((bound, task))
}

fn router(push: Push) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/v1/push/{source}", post(take).get(verify).options(permit))
        .merge(hec::routes())
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(push.clone(), bound))
        .with_state(push)
}

/// Bounds how many requests run and how long each takes.
async fn bound(State(push): State<Push>, request: Request, next: Next) -> Response {
    let counters = &push.0.counters;
    counters.push_requests.one();
    let Ok(_permit) = push.0.requests.try_acquire() else {
        counters.push_overloaded.one();
        return Refusal::busy("too many deliveries at once").into_response();
    };
    match tokio::time::timeout(TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            counters.push_overloaded.one();
            Refusal::busy("the delivery took too long").into_response()
        }
    }
}

impl Push {
    /// The source of that name, when the request proves that it may.
    async fn target(&self, name: &str, headers: &HeaderMap, uri: &Uri) -> Result<&Target, Refusal> {
        let shown = token::shown(headers, uri);
        let target = self.0.targets.get(name);
        let denied = Refusal::token(shown.is_some());
        let (Some(target), Some(shown)) = (target, shown) else {
            self.refused(target);
            return Err(denied);
        };
        let refusal = match &target.gate {
            Gate::Token(hash) if token::matches(&shown, hash) => return Ok(target),
            Gate::Token(_) => denied,
            Gate::Oidc(verifier) => {
                let verifier = verifier.clone();
                match blocking(move || verifier.check(&shown)).await? {
                    Ok(()) => return Ok(target),
                    Err(why @ Denial::NoKeys(_)) => {
                        tracing::warn!(source = name, %why, "a delivery cannot be checked now");
                        return Err(Refusal::busy("the sender cannot be checked now"));
                    }
                    Err(why) => {
                        tracing::debug!(source = name, %why, "a delivery was refused");
                        denied
                    }
                }
            }
        };
        self.refused(Some(target));
        Err(refusal)
    }

    /// The source whose token the request shows.
    fn target_of_token(&self, headers: &HeaderMap, uri: &Uri) -> Result<&Target, Refusal> {
        let shown = token::shown(headers, uri);
        let mut found = None;
        // Every target is compared, so that the time says nothing about which it was.
        for target in self.0.targets.values() {
            if let (Some(shown), Gate::Token(hash)) = (&shown, &target.gate)
                && token::matches(shown, hash)
            {
                found = Some(target);
            }
        }
        found.ok_or_else(|| {
            self.refused(None);
            Refusal::token(shown.is_some())
        })
    }

    fn refused(&self, target: Option<&Target>) {
        self.0.counters.push_unauthorised.one();
        if let Some(target) = target {
            target.intake.tally().requests_refused.one();
        }
    }
}

/// Takes a delivery in.
async fn take(
    State(push): State<Push>,
    Path(name): Path<String>,
    headers: HeaderMap,
    uri: Uri,
    body: Body,
) -> Response {
    let sender = Sender::of(&headers);
    let taken = async {
        let target = push.target(&name, &headers, &uri).await?;
        target.intake.tally().requests.one();
        let body = read(body, &target.intake).await?;
        let opened = {
            let headers = headers.clone();
            blocking(move || envelope::open(&headers, &body)).await?
        };
        match opened {
            Ok(Envelope::Handshake(answer)) => Ok(Answer::Handshake(answer)),
            Ok(Envelope::Records(pieces)) => {
                let place = format!("push:{name}");
                take_pieces(&target.intake, place, pieces)
                    .await
                    .map(Answer::Taken)
            }
            Err(problem) => {
                target.intake.tally().requests_refused.one();
                Err(Refusal::bad(problem))
            }
        }
    };
    match taken.await {
        Ok(Answer::Handshake(answer)) => answer::json(StatusCode::OK, &answer),
        Ok(Answer::Taken(taken)) => sender.accepted(&headers, &taken),
        Err(refusal) => sender.refused(&headers, refusal),
    }
}

enum Answer {
    Handshake(serde_json::Value),
    Taken(Taken),
}

/// Reads a body whole.
async fn read(body: Body, intake: &Intake) -> Result<Bytes, Refusal> {
    axum::body::to_bytes(body, MAX_BODY).await.map_err(|error| {
        intake.tally().requests_refused.one();
        Refusal::too_large(format!(
            "the body could not be read ({error}); it may be at most {MAX_BODY} bytes"
        ))
    })
}

/// Parses and commits; the answer leaves after the commit.
async fn take_pieces(
    intake: &Intake,
    place: String,
    pieces: Vec<Vec<u8>>,
) -> Result<Taken, Refusal> {
    let of = intake.clone();
    let taken = blocking(move || {
        let (mut taken, mut uses) = (Taken::default(), Vec::new());
        let mut damage = None;
        let several = pieces.len() > 1;
        let mut left = MAX_PLAIN;
        for piece in pieces {
            let outcome = take_piece(&of, &place, &piece, &mut left, &mut uses, &mut taken);
            if let Err(error) = outcome {
                damage.get_or_insert(error);
            }
        }
        taken.add(of.commit_blocking(uses, Progress::default())?);
        // One piece of several that is damaged is a record refused; a damaged body is the
        // sender's to mend.
        match damage {
            Some(error) if !several => Ok(Err(error)),
            _ => Ok(Ok(taken)),
        }
    })
    .await?;
    match taken {
        Ok(Ok(taken)) => Ok(taken),
        Ok(Err(problem)) => {
            intake.tally().requests_refused.one();
            Err(Refusal::bad(problem))
        }
        Err(error) => Err(unavailable(&error)),
    }
}

fn take_piece(
    intake: &Intake,
    place: &str,
    piece: &[u8],
    left: &mut u64,
    uses: &mut Vec<keytrail_model::consumption::Consumption>,
    taken: &mut Taken,
) -> Result<(), String> {
    let plain = input::plain_up_to(piece, *left).map_err(|e| e.to_string())?;
    let mut plain = input::Counting::new(plain);
    let outcome = intake
        .take_body(place, &mut plain, uses, taken)
        .map_err(|e| e.to_string());
    *left = left.saturating_sub(plain.read());
    outcome
}

fn unavailable(error: &RunnerError) -> Refusal {
    tracing::warn!(%error, "a delivery was not taken; its sender tries again");
    Refusal::busy(&error.to_string())
}

/// Runs what takes the processor for a while beside the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "taking a delivery panicked");
        Refusal::fault()
    })
}

/// Okta's one-time verification of an event hook: its challenge comes back.
async fn verify(
    State(push): State<Push>,
    Path(name): Path<String>,
    method: Method,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    if let Err(refusal) = push.target(&name, &headers, &uri).await {
        return refusal.into_response();
    }
    let challenge = headers
        .get("x-okta-verification-challenge")
        .and_then(|value| value.to_str().ok());
    match challenge {
        Some(challenge) => answer::json(
            StatusCode::OK,
            &serde_json::json!({ "verification": challenge }),
        ),
        None => Refusal::method(&method).into_response(),
    }
}

/// The validation of CloudEvents' web hook specification: may this origin deliver here? The token
/// decides about each delivery, so it may.
async fn permit(
    State(push): State<Push>,
    Path(name): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    if let Err(refusal) = push.target(&name, &headers, &uri).await {
        return refusal.into_response();
    }
    let mut response = StatusCode::OK.into_response();
    let out = response.headers_mut();
    out.insert("allow", axum::http::HeaderValue::from_static("POST"));
    if let Some(origin) = headers.get("webhook-request-origin") {
        out.insert("webhook-allowed-origin", origin.clone());
        out.insert(
            "webhook-allowed-rate",
            axum::http::HeaderValue::from_static("*"),
        );
    }
    response
}
