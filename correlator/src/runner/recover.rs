//! The operator's state after a start: snapshot, then the log's tail.

use std::collections::BTreeMap;

use jiff::Timestamp;
use keytrail_join::{Effect, Input, Settings};
use keytrail_model::alert::Alert;
use keytrail_model::ids::{AlertId, RecordId};

use super::apply::store_effects;
use crate::partition::Engine;
use crate::store::{Store, StoreError};

/// An operator that has seen the whole log, and what it concluded from the part that no snapshot
/// covered.
#[derive(Debug)]
pub struct Rebuilt {
    /// The operator.
    pub engine: Engine,
    /// The last state of each alert and use in that part.
    pub effects: Vec<Effect>,
    /// Inputs replayed.
    pub replayed: u64,
}

/// Rebuilds the operator from the store, without changing the store.
///
/// The snapshot is used when it was made with the same settings and by a version that writes the
/// same state; otherwise the whole log is replayed.
///
/// # Errors
/// When the log cannot be read.
pub fn rebuild(store: &Store, settings: &Settings) -> Result<Rebuilt, StoreError> {
    let (mut engine, from) = starting_point(store, settings)?;
    let mut alerts: BTreeMap<AlertId, Box<Alert>> = BTreeMap::new();
    let mut uses: BTreeMap<RecordId, Effect> = BTreeMap::new();
    let mut effects = Vec::new();
    let mut replayed = 0;
    store.replay(from, |_, input| {
        replayed += 1;
        engine.apply(&input, &mut effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Alert(alert) => {
                    alerts.insert(alert.id, alert);
                }
                Effect::Use(ref decision) => {
                    uses.insert(decision.record.clone(), effect);
                }
            }
        }
        Ok::<(), StoreError>(())
    })?;
    let mut effects: Vec<Effect> = uses.into_values().collect();
    effects.extend(alerts.into_values().map(Effect::Alert));
    Ok(Rebuilt {
        engine,
        effects,
        replayed,
    })
}

fn starting_point(store: &Store, settings: &Settings) -> Result<(Engine, u64), StoreError> {
    let oldest = store.oldest_offset()?;
    let mut engine = Engine::new(settings.clone());
    if let Some(snapshot) = store.snapshot()? {
        let reachable = oldest.is_none_or(|oldest| oldest <= snapshot.next_offset);
        if snapshot.settings != *settings {
            tracing::info!(
                "the join's settings changed: replaying the whole log under the new ones"
            );
        } else if !reachable {
            tracing::warn!("the log has a hole after the snapshot; replaying what is left");
        } else {
            match Engine::restore(settings.clone(), &snapshot.state) {
                Ok(engine) => return Ok((engine, snapshot.next_offset)),
                Err(error) => {
                    tracing::info!(%error, "the snapshot is of another version: replaying the whole log");
                }
            }
        }
        // The log may no longer reach back to when it was given.
        if let Some(policy) = Engine::policy_in(&snapshot.state) {
            let time = Timestamp::UNIX_EPOCH;
            engine.apply(&Input::Policy { time, policy }, &mut Vec::new());
        }
    }
    Ok((engine, oldest.unwrap_or(0)))
}

/// [`rebuild`], then stores what differs from the stored conclusions (nothing, unless settings or
/// version changed).
pub(super) fn restore(
    store: &mut Store,
    settings: &Settings,
    now: Timestamp,
) -> Result<Engine, StoreError> {
    let rebuilt = rebuild(store, settings)?;
    let mut batch = store.begin(now)?;
    let changes = store_effects(&mut batch, rebuilt.effects)?;
    batch.commit()?;
    if rebuilt.replayed > 0 {
        tracing::info!(
            inputs = rebuilt.replayed,
            changed_alerts = changes.len(),
            "restored the join from the log"
        );
    }
    Ok(rebuilt.engine)
}
