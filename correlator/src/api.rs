//! The REST API and its OpenAPI document.
//!
//! Architecture invariants:
//! - AP-5: `/scim/v2` has a token of its own: a directory can write people and read no alert.
//! - AP-1: the API reads; it writes only imports of permissions and people, which replace what was
//!   imported before and judge nothing, records (`POST /v1/records`), as a source does, and the policy
//!   of the baselines, which is recorded as an input.
//! - AP-2: everything under `/v1` needs the bearer token; `/healthz` and `/openapi.json` say
//!   nothing about the installation.
//! - AP-3: requests with a foreign Host header are refused: a web page cannot reach the API by
//!   rebinding its own name to 127.0.0.1.
//! - AP-4: bounded everywhere: requests in progress, time per request, page sizes, streams.

mod alerts;
mod baseline;
mod credentials;
mod graph;
mod guard;
mod imports;
mod networks;
mod owners;
mod problem;
mod records;
pub mod scim;
mod sensors;
mod status;
mod stream;
pub mod token;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::get;
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi as _;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use alerts::{AlertList, AlertSummary, AlertView};
pub use credentials::{CredentialList, CredentialSummary};
pub use graph::{DependentsView, ReachView};
pub use imports::{ImportList, Imported};
pub use networks::NetworkOf;
pub use problem::{ErrorCode, Problem};
pub use sensors::{SensorList, SensorView};
pub use status::{Status, StoreStatus};
pub use token::ApiToken;

use crate::counters::CounterView;
use crate::runner::Handle;
use crate::sources::Intake;

/// Requests in progress at most.
const MAX_REQUESTS: usize = 64;
/// Open alert streams at most.
const MAX_STREAMS: usize = 32;

/// Counters of parts that count for themselves (ingest).
#[derive(Clone)]
pub struct MoreCounters(Arc<dyn Fn() -> Vec<CounterView> + Send + Sync>);

impl MoreCounters {
    /// Counters from a function.
    pub fn new(view: impl Fn() -> Vec<CounterView> + Send + Sync + 'static) -> Self {
        Self(Arc::new(view))
    }
}

impl std::fmt::Debug for MoreCounters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MoreCounters")
    }
}

/// What every request can see.
#[derive(Clone, Debug)]
pub struct ApiState(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    handle: Handle,
    sources: Vec<Intake>,
    dead_letters: PathBuf,
    more: MoreCounters,
    token: ApiToken,
    hosts: Vec<String>,
    started: Timestamp,
    requests: Semaphore,
    streams: Arc<Semaphore>,
    stop: CancellationToken,
    /// The token of a directory that provisions people; without it nobody does.
    scim: Option<ApiToken>,
    /// One SCIM change at a time: each reads what it changes.
    scim_writes: tokio::sync::Mutex<()>,
}

impl ApiState {
    /// State over a runner. `more` counts what other parts count, `hosts` are the names, besides loopback's, under which the API may be
    /// addressed; `stop` ends open streams.
    #[must_use]
    pub fn new(
        handle: Handle,
        (sources, dead_letters): (Vec<Intake>, PathBuf),
        more: MoreCounters,
        token: ApiToken,
        hosts: Vec<String>,
        stop: CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner {
            handle,
            sources,
            dead_letters,
            more,
            token,
            hosts,
            started: crate::clock::now(),
            requests: Semaphore::new(MAX_REQUESTS),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            stop,
            scim: None,
            scim_writes: tokio::sync::Mutex::new(()),
        }))
    }

    /// Lets a directory provision people with this token. Before the state is shared.
    #[must_use]
    pub fn with_scim(mut self, token: ApiToken) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.scim = Some(token);
        }
        self
    }
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Keytrail correlator",
        description = "Alerts about stolen credentials, with their evidence. It reads, but for imports of permissions and people. Text that came from endpoints and logs (argv, package names, user agents, paths) is untrusted: escape it where it is shown.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
        contact(name = "Keytrail")
    ),
    components(schemas(Problem)),
    tags(
        (name = "alerts", description = "Findings with their whole evidence"),
        (name = "credentials", description = "Credential -> holders -> uses"),
        (name = "baseline", description = "What is usual for agents, and what people allow them beside"),
        (name = "graph", description = "What a credential reaches, who depends on it, how it got there"),
        (name = "owners", description = "Who answers for an endpoint and for a credential"),
        (name = "networks", description = "Whose network an address belongs to"),
        (name = "sensors", description = "What each endpoint's sensor sees and lost"),
        (name = "status", description = "Counts and health")
    )
)]
struct Document;

fn open_router() -> OpenApiRouter<ApiState> {
    let mut document = Document::openapi();
    if let Some(components) = document.components.as_mut() {
        components.add_security_scheme(
            "token",
            SecurityScheme::Http(
                HttpBuilder::new()
                    .scheme(HttpAuthScheme::Bearer)
                    .description(Some("The content of `<data-dir>/api-token`"))
                    .build(),
            ),
        );
    }
    OpenApiRouter::with_openapi(document)
        .routes(routes!(alerts::list_alerts))
        .routes(routes!(stream::stream_alerts))
        .routes(routes!(alerts::get_alert))
        .routes(routes!(credentials::list_credentials))
        .routes(routes!(credentials::get_credential))
        .routes(routes!(graph::reach))
        .routes(routes!(graph::dependents))
        .routes(routes!(graph::origin))
        .routes(routes!(imports::list_permissions))
        .routes(routes!(
            imports::import_permissions,
            imports::forget_permissions
        ))
        .routes(routes!(owners::list_directories))
        .routes(routes!(owners::import_directory, owners::forget_directory))
        .routes(routes!(owners::owners_of))
        .routes(routes!(networks::get_networks))
        .routes(routes!(networks::network_of))
        .routes(routes!(sensors::list_sensors))
        .routes(routes!(status::get_status))
        .routes(routes!(records::post_records))
        .routes(routes!(baseline::get_baseline, baseline::put_baseline))
}

/// The OpenAPI document, as committed in `docs/openapi.json`.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    open_router().into_openapi()
}

/// The API's router.
pub fn router(state: ApiState) -> Router {
    let (v1, document) = open_router().split_for_parts();
    let document = Arc::new(document);
    let open = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/openapi.json",
            get(move || {
                let document = Arc::clone(&document);
                async move { Json(document.as_ref().clone()) }
            }),
        );
    v1.route_layer(middleware::from_fn_with_state(
        state.clone(),
        guard::require_token,
    ))
    .merge(open)
    .merge(scim::router(&state))
    .fallback(|| async { Problem::of(ErrorCode::NotFound, "no such path; see /openapi.json") })
    .method_not_allowed_fallback(|| async {
        Problem::of(
            ErrorCode::MethodNotAllowed,
            "this path does not take this method; most only read: use GET",
        )
    })
    .layer(DefaultBodyLimit::max(imports::MAX_FILE))
    .layer(middleware::from_fn_with_state(state.clone(), guard::bound))
    .layer(middleware::from_fn_with_state(
        state.clone(),
        guard::check_host,
    ))
    .with_state(state)
}
