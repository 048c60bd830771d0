//! Which connections were open at a time, found without looking at the others.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::ConnKey;

/// A connection that lasted longer is listed apart rather than under each of its hours.
const LONG: SignedDuration = SignedDuration::from_hours(12);

/// Connections by name; an unknown name is the empty one.
type ByName = BTreeMap<String, BTreeSet<ConnKey>>;

/// Ended connections by the hours they touched; open and long ones apart.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct OpenAt {
    hours: BTreeMap<i64, ByName>,
    long: ByName,
}

/// Where a connection is listed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetime {
    pub(super) opened: Timestamp,
    pub(super) closed: Option<Timestamp>,
}

fn hour(time: Timestamp) -> i64 {
    time.as_second().div_euclid(3_600)
}

impl Lifetime {
    /// The hours under which it is listed; `None`: apart.
    fn hours(self) -> Option<std::ops::RangeInclusive<i64>> {
        let closed = self.closed?;
        (closed.duration_since(self.opened) <= LONG).then(|| {
            let first = hour(self.opened);
            first..=hour(closed).max(first)
        })
    }
}

impl OpenAt {
    pub(super) fn insert(&mut self, key: ConnKey, name: &str, life: Lifetime) {
        let put = |lists: &mut ByName| {
            lists.entry(name.to_owned()).or_default().insert(key);
        };
        match life.hours() {
            Some(hours) => hours.for_each(|hour| put(self.hours.entry(hour).or_default())),
            None => put(&mut self.long),
        }
    }

    pub(super) fn remove(&mut self, key: ConnKey, name: &str, life: Lifetime) {
        let take = |lists: &mut ByName| {
            if let Some(keys) = lists.get_mut(name) {
                keys.remove(&key);
                if keys.is_empty() {
                    lists.remove(name);
                }
            }
            lists.is_empty()
        };
        match life.hours() {
            Some(hours) => hours.for_each(|hour| {
                if self.hours.get_mut(&hour).is_some_and(take) {
                    self.hours.remove(&hour);
                }
            }),
            None => {
                take(&mut self.long);
            }
        }
    }

    /// Connections that may have been open between `from` and `to`, by name; some may come twice.
    pub(super) fn between(
        &self,
        from: Timestamp,
        to: Timestamp,
    ) -> impl Iterator<Item = (&str, &BTreeSet<ConnKey>)> {
        self.hours
            .range(hour(from)..=hour(to).max(hour(from)))
            .flat_map(|(_, names)| names)
            .chain(&self.long)
            .map(|(name, keys)| (name.as_str(), keys))
    }
}
