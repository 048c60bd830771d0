//! What is to be looked at when its time comes, so that a tick looks at nothing else.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use keytrail_model::credential::CredentialId;
use keytrail_model::ids::HostId;
use serde::{Deserialize, Serialize};

use crate::Join;
use crate::input::Effect;
use crate::settle::Pending;
use crate::verdict::Cause;

/// Something that is due at some time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Due {
    /// Say anew what is thought of a credential.
    Tell(CredentialId),
    /// Age a credential.
    AgeCredential(CredentialId),
    /// Age a host.
    AgeHost(HostId),
}

/// Everything that is due later.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Timers {
    due: BTreeSet<(Timestamp, Due)>,
}

impl Timers {
    /// Sets a timer.
    pub(crate) fn set(&mut self, at: Timestamp, due: Due) {
        self.due.insert((at, due));
    }

    /// Takes what is due by `now`.
    fn take(&mut self, now: Timestamp) -> Option<Due> {
        let (at, _) = self.due.first()?;
        if *at > now {
            return None;
        }
        self.due.pop_first().map(|(_, due)| due)
    }
}

impl Join {
    /// The time came to be `time`.
    pub(crate) fn tick(&mut self, time: Timestamp, effects: &mut Vec<Effect>) {
        if self.now.is_some_and(|now| now >= time) {
            return;
        }
        self.now = Some(time);
        let kept = self.retention();
        let horizon = time.checked_sub(kept).unwrap_or(Timestamp::MIN);
        self.envelopes.forget_before(horizon);
        let mut pending = Pending::default();
        let mut again = Vec::new();
        while let Some(due) = self.timers.take(time) {
            match due {
                Due::Tell(id) => self.tell_answerable(&id, &mut pending),
                Due::AgeCredential(id) => {
                    if let Some(oldest) = self.age_credential(&id, horizon) {
                        again.push((oldest, Due::AgeCredential(id.clone())));
                    }
                    pending.tell(&id);
                }
                Due::AgeHost(id) => {
                    if let Some(host) = self.hosts.get_mut(&id) {
                        host.forget_before(horizon);
                        let credentials = &self.credentials;
                        host.holds.retain(|held| credentials.contains_key(held));
                        again.push((time, Due::AgeHost(id)));
                    }
                }
            }
        }
        for (oldest, due) in again {
            // An hour at least: ageing is cheap but not free.
            let soonest = time
                .checked_add(SignedDuration::from_hours(1))
                .unwrap_or(time);
            let at = match &due {
                Due::AgeHost(_) => time
                    .checked_add(SignedDuration::from_hours(24))
                    .unwrap_or(time),
                Due::AgeCredential(_) | Due::Tell(_) => {
                    oldest.checked_add(kept).unwrap_or(time).max(soonest)
                }
            };
            self.timers.set(at, due);
        }
        self.settle(pending, &Cause { time, record: None }, effects);
    }

    /// For how long things are kept.
    pub(crate) fn retention(&self) -> SignedDuration {
        SignedDuration::from_hours(24 * i64::from(self.settings.retention_days))
    }

    /// Forgets what is too old; the time of the oldest thing left, or `None` when nothing is.
    fn age_credential(&mut self, id: &CredentialId, horizon: Timestamp) -> Option<Timestamp> {
        let state = self.credentials.get_mut(id)?;
        let empty = state.forget_before(horizon);
        if let Some(learner) = &mut state.learner {
            learner.forget_before(horizon, &self.settings.baseline);
        }
        // A parent without uses of its own is kept for as long as a child is.
        let state = self.credentials.get(id)?;
        let parent = state
            .children
            .iter()
            .any(|child| self.credentials.contains_key(child));
        if !empty || state.alert.is_some() || parent {
            return Some(state.oldest().unwrap_or(horizon).max(horizon));
        }
        if let Some(listed) = state.listed {
            self.unwatched.remove(&(listed, id.clone()));
        }
        let parents: Vec<CredentialId> = state.parents.keys().cloned().collect();
        self.credentials.remove(id);
        for parent in parents {
            if let Some(parent) = self.credentials.get_mut(&parent) {
                parent.children.remove(id);
                parent.troubled.remove(id);
            }
        }
        None
    }
}
