//! The stream of changed alerts: server-sent events that lose nothing.
//!
//! Each event's id is the alert's revision. A reader that reconnects with `Last-Event-ID: N` gets
//! every alert that changed after N, in its present state, then what changes from now on. Without
//! the header it gets what changes from now on; `Last-Event-ID: 0` gives everything.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use futures::stream;
use keytrail_model::alert::Alert;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::problem::read;
use super::{ApiState, ErrorCode, Problem};
use crate::runner::AlertChange;

/// Alerts read from the store at once while catching up.
const PAGE: usize = 64;

/// A reader's place in the feed.
struct Feed {
    state: ApiState,
    live: Receiver<Arc<AlertChange>>,
    /// Highest revision sent.
    sent: u64,
    /// Read from the store, to be sent.
    ready: VecDeque<(u64, Alert)>,
    /// True while the store may hold changes that were not sent.
    catching_up: bool,
    _permit: OwnedSemaphorePermit,
}

/// Changed alerts as they change (`text/event-stream`): event `alert`, id = revision, data = the
/// whole alert. Reconnect with `Last-Event-ID` to go on where you were; 0 replays every alert.
#[utoipa::path(
    get,
    path = "/v1/alerts/stream",
    tag = "alerts",
    params(("Last-Event-ID" = Option<u64>, Header, description = "The last revision seen")),
    security(("token" = [])),
    responses(
        (status = 200, body = Alert, content_type = "text/event-stream"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn stream_alerts(
    State(state): State<ApiState>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, axum::Error>>>, Problem> {
    let Ok(permit) = Arc::clone(&state.0.streams).try_acquire_owned() else {
        state.0.handle.counters().alert_streams_refused.one();
        return Err(Problem::of(
            ErrorCode::Overloaded,
            "too many alert streams are open",
        ));
    };
    // Subscribe before reading: what changes in between comes twice and is sent once.
    let live = state.0.handle.subscribe();
    let last = match headers.get("last-event-id") {
        None => None,
        Some(value) => Some(
            value
                .to_str()
                .ok()
                .and_then(|text| text.trim().parse::<u64>().ok())
                .ok_or_else(|| {
                    Problem::of(ErrorCode::BadRequest, "Last-Event-ID is not a revision")
                })?,
        ),
    };
    let reader = state.0.handle.reader().clone();
    let newest = read(move || reader.last_revision()).await?;
    let feed = Feed {
        // A revision from the future (another store) must not silence the stream.
        sent: last.unwrap_or(newest).min(newest),
        catching_up: last.is_some(),
        live,
        ready: VecDeque::new(),
        state,
        _permit: permit,
    };
    let events = stream::unfold(feed, |mut feed| async move {
        let (revision, alert) = feed.next().await?;
        let event = Event::default()
            .id(revision.to_string())
            .event("alert")
            .json_data(alert);
        Some((event, feed))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}

impl Feed {
    /// The next change; `None` when the correlator stops.
    async fn next(&mut self) -> Option<(u64, Alert)> {
        loop {
            if let Some((revision, alert)) = self.ready.pop_front() {
                self.sent = revision;
                return Some((revision, alert));
            }
            if self.catching_up {
                self.read_on().await?;
                continue;
            }
            let stop = self.state.0.stop.clone();
            let received = tokio::select! {
                received = self.live.recv() => received,
                () = stop.cancelled() => return None,
            };
            match received {
                Ok(change) if change.revision > self.sent => {
                    self.sent = change.revision;
                    return Some((change.revision, change.alert.clone()));
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => {
                    self.state.0.handle.counters().alert_stream_lag.one();
                    self.catching_up = true;
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Reads what the store holds beyond the last revision sent.
    async fn read_on(&mut self) -> Option<()> {
        let reader = self.state.0.handle.reader().clone();
        let sent = self.sent;
        let page = read(move || reader.alerts_after(sent, PAGE)).await.ok()?;
        self.catching_up = page.len() == PAGE;
        self.ready.extend(
            page.into_iter()
                .map(|stored| (stored.revision, stored.alert)),
        );
        Some(())
    }
}
