//! What else is worth a finding, beside the join's own word.

use jiff::{SignedDuration, Timestamp};
use keytrail_model::alert::{ExposureEvidence, Reason, Verdict};
use keytrail_model::credential::CredentialId;

use crate::credential::{Credential, UseKey};
use crate::input::UseState;
use crate::verdict::{OpenUse, View};
use crate::weigh::Suspect;

/// Most records named by one reason.
const MAX_RECORDS: usize = 16;

/// One finding about a credential.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) reason: Reason,
    /// Event time of its latest evidence.
    pub(crate) last: Option<Timestamp>,
    /// The exposure it rests on.
    pub(crate) exposure: Option<ExposureEvidence>,
    /// Explained uses it rests on: credential and use.
    pub(crate) uses: Vec<(CredentialId, UseKey)>,
}

impl Finding {
    pub(crate) fn new(verdict: Verdict, code: &str, text: impl Into<String>) -> Self {
        Self {
            reason: Reason {
                verdict,
                code: code.to_owned(),
                text: text.into(),
                first: Timestamp::UNIX_EPOCH,
                records: Vec::new(),
            },
            last: None,
            exposure: None,
            uses: Vec::new(),
        }
    }

    /// Since when, and on which records it rests.
    pub(crate) fn at(mut self, first: Timestamp, mut records: Vec<String>) -> Self {
        records.truncate(MAX_RECORDS);
        self.reason.first = first;
        self.reason.records = records;
        self
    }
}

/// Findings about one credential.
pub(crate) fn of(
    _view: View<'_>,
    _id: &CredentialId,
    _state: &Credential,
    _suspect: Option<&Suspect<'_>>,
) -> Vec<Finding> {
    Vec::new()
}

/// Uses that wait for longer than anybody should.
pub(crate) fn long_undecided(view: View<'_>, open: &[OpenUse<'_>]) -> Option<Finding> {
    let patience = SignedDuration::from_hours(i64::from(view.settings.undecided_hours));
    let now = view.now?;
    let waiting: Vec<_> = open
        .iter()
        .filter(|u| {
            matches!(u.of.state, UseState::Undecided { .. })
                && now.duration_since(u.of.usage.time) > patience
        })
        .collect();
    let first = waiting.first()?.of.usage.time;
    let records = waiting.iter().map(|u| u.of.usage.id.to_string()).collect();
    let text = "uses stayed undecided for too long";
    Some(Finding::new(Verdict::BlindSpot, "undecided-too-long", text).at(first, records))
}
