//! What the join keeps about one credential: who held it, and its uses.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use keytrail_model::alert::{Alert, ExposureEvidence};
use keytrail_model::consumption::Consumption;
use keytrail_model::credential::CredentialId;
use keytrail_model::fact::{Exposure, ExposureSource};
use keytrail_model::ids::{EventRef, HostId, RecordId};
use serde::{Deserialize, Serialize};

use crate::baseline::behaviour::Observation;
use crate::baseline::learner::Learner;
use crate::baseline::score::Deviation;
use crate::descent::{Edge, MAX_CHILDREN, MAX_PARENTS};
use crate::host::{Span, UnitKey};
use crate::input::UseState;
use crate::lineage::Totals;
use crate::pairs;

/// Most uses kept whole per watched credential; the oldest explained ones become counts first.
pub(crate) const MAX_USES: usize = 2_048;
/// Most uses kept of a credential that no sensor has seen.
pub(crate) const MAX_UNWATCHED_USES: usize = 64;
/// Most units remembered per credential and host.
const MAX_UNITS: usize = 256;

/// A unit on a host that held the credential.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Holding {
    /// First and last exposure, on the correlator's clock.
    pub(crate) span: Span,
    /// The exposure that says most: an unexpected reader of a file before any other, then the
    /// earliest.
    pub(crate) exposure: ExposureEvidence,
}

impl Holding {
    fn rank(exposure: &ExposureEvidence) -> (bool, bool, Timestamp) {
        let file = matches!(exposure.source, ExposureSource::File { .. });
        (!exposure.unexpected_reader, !file, exposure.time)
    }

    fn add(&mut self, evidence: ExposureEvidence) {
        self.span.include(evidence.time);
        if Self::rank(&evidence) < Self::rank(&self.exposure) {
            self.exposure = evidence;
        }
    }
}

/// A use, and what is thought of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Use {
    pub(crate) usage: Consumption,
    pub(crate) state: UseState,
    /// The connection that explains it.
    pub(crate) via: Option<Via>,
}

/// The connection that explains a use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Via {
    pub(crate) host: HostId,
    /// The name it asked for.
    pub(crate) name: Option<String>,
    pub(crate) unit: UnitKey,
}

/// A use's place in event time.
pub(crate) type UseKey = (Timestamp, RecordId);

/// Which uses of a credential to look at again.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Again {
    /// All that are kept.
    All,
    /// Those that are unexplained or undecided so far.
    Unsettled,
    /// Those within this stretch of time.
    Between(Timestamp, Timestamp),
    /// The same, and what is learned from them is to be learned anew.
    Relearn(Timestamp, Timestamp),
}

/// State of one credential.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Credential {
    #[serde(with = "pairs")]
    pub(crate) holders: BTreeMap<HostId, Vec<(UnitKey, Holding)>>,
    /// Boxed: most credentials have few, and a node of the tree has room for eleven.
    #[serde(with = "pairs")]
    pub(crate) uses: BTreeMap<(Timestamp, RecordId), Box<Use>>,
    /// Uses that are counts only by now.
    pub(crate) forgotten: Totals,
    /// What it descends from, and how.
    #[serde(with = "pairs")]
    pub(crate) parents: BTreeMap<CredentialId, Edge>,
    pub(crate) children: BTreeSet<CredentialId>,
    /// Uses that are unexplained or undecided.
    pub(crate) open: BTreeSet<UseKey>,
    /// Descendants without holders of their own that have open uses: their uses belong here.
    pub(crate) troubled: BTreeSet<CredentialId>,
    /// The credential whose alert carries the uses of this one, when it is another.
    pub(crate) answers_to: Option<CredentialId>,
    /// What is usual with this credential and its descendants; boxed, because most credentials are
    /// never used where a sensor sees it.
    pub(crate) learner: Option<Box<Learner>>,
    /// The credential whose learner has the uses of this one.
    pub(crate) learned_by: Option<CredentialId>,
    /// Uses outside the envelope of their principal, and what is outside about them.
    #[serde(with = "pairs")]
    pub(crate) outside: BTreeMap<UseKey, String>,
    /// Records that revoked it.
    pub(crate) revoked: BTreeSet<UseKey>,
    /// Records that made it valid again.
    pub(crate) restored: BTreeSet<UseKey>,
    /// Under which time it is listed among the unwatched.
    pub(crate) listed: Option<Timestamp>,
    /// Totals of the uses that are kept.
    kept: Totals,
    /// The alert as last told.
    pub(crate) alert: Option<Box<Alert>>,
}

impl Credential {
    /// Notes an exposure at `time` (corrected).
    pub(crate) fn expose(
        &mut self,
        event: &EventRef,
        time: Timestamp,
        unit: UnitKey,
        exposure: &Exposure,
    ) {
        let evidence = ExposureEvidence {
            event: event.clone(),
            time,
            source: exposure.source.clone(),
            actor: exposure.actor.clone(),
            unexpected_reader: exposure.unexpected_reader,
            destinations: exposure.destinations.clone(),
        };
        let holdings = self
            .holders
            .entry(event.host.clone())
            .or_insert_with(|| Vec::with_capacity(1));
        if let Some((_, holding)) = holdings.iter_mut().find(|(known, _)| *known == unit) {
            holding.add(evidence);
            return;
        }
        holdings.push((
            unit,
            Holding {
                span: Span::at(time),
                exposure: evidence,
            },
        ));
        if holdings.len() > MAX_UNITS {
            // The least telling and oldest goes; the span of what stays still says since when.
            let dullest = (0..holdings.len()).max_by_key(|at| {
                holdings.get(*at).map(|(_, h)| {
                    let (expected, env, _) = Holding::rank(&h.exposure);
                    (expected, env, std::cmp::Reverse(h.span.last))
                })
            });
            if let Some(at) = dullest {
                let (_, gone) = holdings.remove(at);
                if let Some((_, oldest)) = holdings.iter_mut().min_by_key(|(_, h)| h.span.first) {
                    oldest.span.first = oldest.span.first.min(gone.span.first);
                }
            }
        }
    }

    /// When any sensor first saw the credential.
    pub(crate) fn first_exposure(&self) -> Option<Timestamp> {
        self.holders
            .values()
            .flatten()
            .map(|(_, holding)| holding.span.first)
            .min()
    }

    /// When `host`'s sensor first saw it.
    pub(crate) fn first_exposure_on(&self, host: &HostId) -> Option<Timestamp> {
        self.holders
            .get(host)?
            .iter()
            .map(|(_, holding)| holding.span.first)
            .min()
    }

    /// Notes that this credential descends from `parent`. True when that is new.
    pub(crate) fn descend(&mut self, parent: &CredentialId, minted: Option<&UseKey>) -> bool {
        if !self.parents.contains_key(parent) && self.parents.len() >= MAX_PARENTS {
            return false;
        }
        let edge = self.parents.entry(parent.clone()).or_default();
        match minted {
            Some(key) if edge.minted.len() < MAX_PARENTS => edge.minted.insert(key.clone()),
            Some(_) => false,
            None => !std::mem::replace(&mut edge.stated, true),
        }
    }

    /// Notes a child. Beyond the bound it is not followed down, only up.
    pub(crate) fn beget(&mut self, child: &CredentialId) {
        if self.children.len() < MAX_CHILDREN {
            self.children.insert(child.clone());
        }
    }

    /// Uses to look at again.
    pub(crate) fn wanted(&self, again: Again) -> Vec<UseKey> {
        match again {
            Again::All => self.uses.keys().cloned().collect(),
            Again::Unsettled => self.open.iter().cloned().collect(),
            Again::Between(from, to) | Again::Relearn(from, to) => self
                .uses
                .range((from, RecordId(String::new()))..)
                .take_while(|((time, _), _)| *time <= to)
                .map(|(key, _)| key.clone())
                .collect(),
        }
    }

    /// Uses out of the ordinary.
    pub(crate) fn deviations(&self) -> impl DoubleEndedIterator<Item = (&UseKey, &Deviation)> {
        self.learner.iter().flat_map(|learner| learner.deviations())
    }

    /// Has the baseline learn from a use, or forget it.
    pub(crate) fn learn(&mut self, key: &UseKey, seen: Option<Observation>) {
        match (seen, &mut self.learner) {
            (Some(seen), learner) => {
                learner.get_or_insert_default().put(key, seen);
            }
            (None, Some(learner)) => {
                learner.take(key);
            }
            (None, None) => {}
        }
    }

    /// Adds a use of which nothing is thought yet.
    pub(crate) fn add_use(&mut self, usage: &Consumption) {
        let state = UseState::Unwatched;
        self.kept.count(&state, true);
        let new = Use {
            usage: usage.clone(),
            state,
            via: None,
        };
        self.uses
            .insert((usage.time, usage.id.clone()), Box::new(new));
    }

    /// Notes what is thought of a use now. True when that is another thing than before.
    pub(crate) fn settle(&mut self, key: &UseKey, state: UseState, via: Option<Via>) -> bool {
        let Some(u) = self.uses.get_mut(key) else {
            return false;
        };
        if u.state == state && u.via == via {
            return false;
        }
        u.via = via;
        self.kept.count(&u.state, false);
        self.kept.count(&state, true);
        if matches!(
            state,
            UseState::Unexplained { .. } | UseState::Undecided { .. }
        ) {
            self.open.insert(key.clone());
        } else {
            self.open.remove(key);
        }
        u.state = state;
        true
    }

    /// Open uses, in order.
    pub(crate) fn open_uses(&self) -> impl Iterator<Item = &Use> {
        self.open
            .iter()
            .filter_map(|key| self.uses.get(key).map(Box::as_ref))
    }

    /// Keeps the number of uses bounded: explained ones go first, oldest first, and are counted.
    pub(crate) fn bound(&mut self) {
        let limit = if self.holders.is_empty() && self.parents.is_empty() {
            MAX_UNWATCHED_USES
        } else {
            MAX_USES
        };
        while self.uses.len() > limit {
            let explained = self
                .uses
                .iter()
                .find(|(_, u)| matches!(u.state, UseState::Explained { .. }))
                .map(|(key, _)| key.clone());
            let key = explained.or_else(|| self.uses.keys().next().cloned());
            let Some(key) = key else { return };
            self.forget(&key);
        }
    }

    /// One use becomes a count.
    fn forget(&mut self, key: &UseKey) {
        if let Some(gone) = self.uses.remove(key) {
            self.open.remove(key);
            self.outside.remove(key);
            self.kept.count(&gone.state, false);
            self.forgotten.count(&gone.state, true);
        }
    }

    /// Drops uses before `horizon`; true when nothing is left worth keeping.
    pub(crate) fn forget_before(&mut self, horizon: Timestamp) -> bool {
        while let Some((key, _)) = self.uses.first_key_value() {
            if key.0 >= horizon {
                break;
            }
            let key = key.clone();
            self.forget(&key);
        }
        for holdings in self.holders.values_mut() {
            holdings.retain(|(_, holding)| holding.span.last >= horizon);
        }
        self.holders.retain(|_, holdings| !holdings.is_empty());
        self.revoked.retain(|(time, _)| *time >= horizon);
        self.restored.retain(|(time, _)| *time >= horizon);
        self.holders.is_empty() && self.uses.is_empty()
    }

    /// The earliest thing kept, for ageing.
    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        let holding = self.holders.values().flatten().map(|(_, h)| h.span.last);
        let first_use = self.uses.keys().next().map(|(time, _)| *time);
        holding.min().into_iter().chain(first_use).min()
    }

    /// Uses by state.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = self.forgotten;
        totals.add(&self.kept);
        totals
    }
}

impl Totals {
    /// Counts a use in, or out again.
    fn count(&mut self, state: &UseState, add: bool) {
        let place = match state {
            UseState::Unwatched => &mut self.unwatched,
            UseState::Undecided { .. } => &mut self.undecided,
            UseState::ServiceSide { .. } => &mut self.service_side,
            UseState::Explained { .. } => &mut self.explained,
            UseState::Declared { .. } => &mut self.declared,
            UseState::Unexplained { .. } => &mut self.unexplained,
        };
        *place = if add {
            place.saturating_add(1)
        } else {
            place.saturating_sub(1)
        };
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.explained += other.explained;
        self.unexplained += other.unexplained;
        self.undecided += other.undecided;
        self.unwatched += other.unwatched;
        self.service_side += other.service_side;
        self.declared += other.declared;
    }
}
