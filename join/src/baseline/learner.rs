//! Learning in event time, whatever the order of arrival.
//!
//! Observations are kept in event time and folded into a profile one after the other; each is
//! scored by the profile before it. A late one makes the fold start again from the nearest of a
//! few checkpoints, so that the usual disorder of a few minutes costs little.

use std::collections::BTreeMap;
use std::ops::Bound;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::behaviour::{Observation, Profile};
use super::score::{self, Deviation};
use crate::credential::UseKey;
use crate::settings::BaselineSettings;

/// Most observations kept; older ones are in the profile for good.
const MAX_KEPT: usize = 2_048;
/// Observations between two checkpoints.
const STRIDE: usize = 32;
/// Checkpoints kept: records are rarely later than this many strides.
const MAX_MARKS: usize = 6;

/// A profile, and up to where it goes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Mark {
    profile: Profile,
    to: Option<UseKey>,
}

/// What was learned about one credential and its descendants.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Learner {
    #[serde(with = "crate::pairs")]
    kept: BTreeMap<UseKey, Box<Observation>>,
    /// What is no longer kept.
    base: Mark,
    /// Checkpoints, the older first.
    marks: Vec<Mark>,
    /// Up to the last one folded.
    live: Mark,
    /// Folded since the last checkpoint.
    since_mark: usize,
    #[serde(with = "crate::pairs")]
    deviations: BTreeMap<UseKey, Deviation>,
    /// The earliest observation that changed since the last fold.
    dirty: Option<UseKey>,
}

impl Learner {
    /// Adds an observation or puts it right. True when something changed.
    pub(crate) fn put(&mut self, key: &UseKey, seen: Observation) -> bool {
        // What is older than the profile's end can no longer be put in its place.
        let late = self.base.to.as_ref().is_some_and(|to| key <= to);
        if late || self.kept.get(key).map(Box::as_ref) == Some(&seen) {
            return false;
        }
        self.kept.insert(key.clone(), Box::new(seen));
        self.touch(key);
        true
    }

    /// Takes an observation out: it was no explained use after all.
    pub(crate) fn take(&mut self, key: &UseKey) -> bool {
        let had = self.kept.remove(key).is_some();
        if had {
            self.touch(key);
        }
        had
    }

    fn touch(&mut self, key: &UseKey) {
        if self.dirty.as_ref().is_none_or(|dirty| key < dirty) {
            self.dirty = Some(key.clone());
        }
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty.is_some()
    }

    /// Folds what changed since the last time.
    pub(crate) fn fold(&mut self, settings: &BaselineSettings) {
        let Some(dirty) = self.dirty.take() else {
            return;
        };
        if self.live.to.as_ref().is_some_and(|to| dirty <= *to) {
            self.marks.retain(|mark| mark.to.as_ref() < Some(&dirty));
            self.live = self.marks.last().unwrap_or(&self.base).clone();
            self.since_mark = 0;
            self.deviations.split_off(&dirty);
        }
        let from = match &self.live.to {
            Some(to) => Bound::Excluded(to.clone()),
            None => Bound::Unbounded,
        };
        for (key, seen) in self.kept.range((from, Bound::Unbounded)) {
            let deviation = fold_one(&mut self.live, settings, key, seen);
            match deviation {
                Some(deviation) => self.deviations.insert(key.clone(), deviation),
                None => self.deviations.remove(key),
            };
            self.since_mark += 1;
            if self.since_mark >= STRIDE {
                self.since_mark = 0;
                self.marks.push(self.live.clone());
                let over = self.marks.len().saturating_sub(MAX_MARKS);
                self.marks.drain(..over);
            }
        }
        while self.kept.len() > MAX_KEPT {
            self.retire(settings);
        }
    }

    /// The oldest observation becomes part of the profile for good.
    fn retire(&mut self, settings: &BaselineSettings) {
        if let Some((key, seen)) = self.kept.pop_first() {
            fold_one(&mut self.base, settings, &key, &seen);
            self.deviations.remove(&key);
        }
    }

    /// Forgets what is older than `horizon`.
    pub(crate) fn forget_before(&mut self, horizon: Timestamp, settings: &BaselineSettings) {
        if self.is_dirty() {
            return;
        }
        while self
            .kept
            .first_key_value()
            .is_some_and(|(key, _)| key.0 < horizon)
        {
            self.retire(settings);
        }
        self.base.profile.forget_before(horizon);
    }

    /// What is usual by now.
    pub(crate) fn profile(&self) -> &Profile {
        &self.live.profile
    }

    /// Uses out of the ordinary.
    pub(crate) fn deviations(&self) -> impl DoubleEndedIterator<Item = (&UseKey, &Deviation)> {
        self.deviations.iter()
    }
}

/// Scores one observation and learns from it, unless it is too far out of the ordinary.
fn fold_one(
    mark: &mut Mark,
    settings: &BaselineSettings,
    key: &UseKey,
    seen: &Observation,
) -> Option<Deviation> {
    let since = score::mass_since(settings, key.0);
    let reads = mark.profile.note_reads(key.0, seen, since);
    let deviation = score::score(&mark.profile, settings, key.0, seen, reads);
    if deviation
        .as_ref()
        .is_none_or(|d| d.score < settings.threshold)
    {
        mark.profile.learn(key.0, seen);
    }
    mark.to = Some(key.clone());
    deviation
}
