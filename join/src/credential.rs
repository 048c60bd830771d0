//! What the join keeps about one credential: who held it, and its uses.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use keytrail_model::alert::{Alert, ExposureEvidence};
use keytrail_model::consumption::Consumption;
use keytrail_model::credential::CredentialId;
use keytrail_model::fact::{Exposure, ExposureSource};
use keytrail_model::ids::{EventRef, HostId, RecordId};
use serde::{Deserialize, Serialize};

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
    /// Name of the connection that explains it.
    pub(crate) via: Option<(HostId, Option<String>)>,
}

/// State of one credential.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Credential {
    #[serde(with = "pairs")]
    pub(crate) holders: BTreeMap<HostId, Vec<(UnitKey, Holding)>>,
    #[serde(with = "pairs")]
    pub(crate) uses: BTreeMap<(Timestamp, RecordId), Use>,
    /// Uses that are counts only by now.
    pub(crate) forgotten: Totals,
    pub(crate) parent: Option<CredentialId>,
    pub(crate) children: BTreeSet<CredentialId>,
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
        let holdings = self.holders.entry(event.host.clone()).or_default();
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

    /// Keeps the number of uses bounded: explained ones go first, oldest first, and are counted.
    pub(crate) fn bound(&mut self) {
        let limit = if self.holders.is_empty() {
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
            let Some(gone) = key.and_then(|key| self.uses.remove(&key)) else {
                return;
            };
            self.forgotten.count(&gone.state);
        }
    }

    /// Drops uses before `horizon`; true when nothing is left worth keeping.
    pub(crate) fn forget_before(&mut self, horizon: Timestamp) -> bool {
        while let Some(entry) = self.uses.first_entry() {
            if entry.key().0 >= horizon {
                break;
            }
            let gone = entry.remove();
            self.forgotten.count(&gone.state);
        }
        for holdings in self.holders.values_mut() {
            holdings.retain(|(_, holding)| holding.span.last >= horizon);
        }
        self.holders.retain(|_, holdings| !holdings.is_empty());
        self.holders.is_empty() && self.uses.is_empty()
    }

    /// Uses by state.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = self.forgotten;
        for u in self.uses.values() {
            totals.count(&u.state);
        }
        totals
    }
}

impl Totals {
    fn count(&mut self, state: &UseState) {
        match state {
            UseState::Unwatched => self.unwatched += 1,
            UseState::Undecided { .. } => self.undecided += 1,
            UseState::ServiceSide { .. } => self.service_side += 1,
            UseState::Explained { .. } => self.explained += 1,
            UseState::Unexplained { .. } => self.unexplained += 1,
        }
    }
}
