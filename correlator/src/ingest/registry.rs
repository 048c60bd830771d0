//! Which streams are open: one a host, found by host to be replaced and by certificate to be closed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jiff::Timestamp;
use keytrail_pki::identity::{PeerIdentity, Serial};
use serde::Serialize;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

/// Why a stream was closed from our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// The host opened a newer one.
    Replaced,
    /// Its certificate was revoked.
    Revoked,
    /// The correlator stops.
    Stopping,
}

/// Tells a stream to end, and why.
#[derive(Clone, Debug, Default)]
pub(super) struct Closer {
    token: CancellationToken,
    reason: Arc<OnceLock<CloseReason>>,
}

impl Closer {
    fn close(&self, reason: CloseReason) {
        // The first reason stands.
        self.reason.get_or_init(|| reason);
        self.token.cancel();
    }

    pub(super) async fn closed(&self) -> CloseReason {
        self.token.cancelled().await;
        self.reason.get().copied().unwrap_or(CloseReason::Stopping)
    }
}

/// An open stream, for people.
#[derive(Clone, Debug, Serialize)]
pub struct StreamView {
    /// Which host.
    pub host: String,
    /// Serial number of its certificate.
    pub serial: String,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// Since when.
    pub since: Timestamp,
}

struct Open {
    generation: u64,
    closer: Closer,
    view: StreamView,
}

#[derive(Default)]
struct Slot {
    turn: Arc<tokio::sync::Mutex<()>>,
    open: Option<Open>,
}

#[derive(Default)]
struct State {
    generation: u64,
    stopping: bool,
    hosts: HashMap<String, Slot>,
}

/// The open streams.
#[derive(Clone, Default)]
pub(super) struct Registry {
    state: Arc<Mutex<State>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

/// A stream's place in the registry; leaves it when dropped.
#[derive(Debug)]
pub(super) struct Place {
    registry: Registry,
    host: String,
    generation: u64,
    pub(super) closer: Closer,
    /// Held as long as this stream may still hand facts to the store.
    _turn: OwnedMutexGuard<()>,
}

impl Registry {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the host's place: ends its older stream, and waits until that has finished with its
    /// facts. `None` when the correlator stops.
    pub(super) async fn enter(&self, peer: &PeerIdentity, address: SocketAddr) -> Option<Place> {
        let closer = Closer::default();
        let (generation, turn) = {
            let mut state = self.lock();
            if state.stopping {
                return None;
            }
            state.generation += 1;
            let generation = state.generation;
            let slot = state.hosts.entry(peer.host.host.clone()).or_default();
            let open = Open {
                generation,
                closer: closer.clone(),
                view: StreamView {
                    host: peer.host.host.clone(),
                    serial: peer.serial.0.clone(),
                    peer: address,
                    since: Timestamp::now(),
                },
            };
            if let Some(older) = slot.open.replace(open) {
                older.closer.close(CloseReason::Replaced);
            }
            (generation, Arc::clone(&slot.turn))
        };
        Some(Place {
            registry: self.clone(),
            host: peer.host.host.clone(),
            generation,
            closer,
            _turn: turn.lock_owned().await,
        })
    }

    /// Closes the streams that a certificate opened; returns how many.
    pub(super) fn revoke(&self, serial: &Serial) -> usize {
        let state = self.lock();
        let of_serial = state
            .hosts
            .values()
            .filter_map(|slot| slot.open.as_ref())
            .filter(|open| open.view.serial == serial.0);
        of_serial
            .map(|open| open.closer.close(CloseReason::Revoked))
            .count()
    }

    /// Closes all streams and lets no more in.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        for open in state.hosts.values().filter_map(|slot| slot.open.as_ref()) {
            open.closer.close(CloseReason::Stopping);
        }
    }

    pub(super) fn views(&self) -> Vec<StreamView> {
        let state = self.lock();
        let open = state.hosts.values().filter_map(|slot| slot.open.as_ref());
        let mut views: Vec<StreamView> = open.map(|open| open.view.clone()).collect();
        views.sort_by(|a, b| a.host.cmp(&b.host));
        views
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.registry.lock();
        if let Some(slot) = state.hosts.get_mut(&self.host)
            && slot
                .open
                .as_ref()
                .is_some_and(|open| open.generation == self.generation)
        {
            slot.open = None;
        }
    }
}
