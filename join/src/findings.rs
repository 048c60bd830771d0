//! What else is worth a finding, beside the join's own word.

use jiff::{SignedDuration, Timestamp};
use keytrail_model::alert::{ExposureEvidence, Reason, Verdict};
use keytrail_model::consumption::{Caller, Outcome};
use keytrail_model::credential::{CredentialId, CredentialKind};
use keytrail_model::text::shown;

use crate::credential::{Credential, Use, UseKey};
use crate::input::UseState;
use crate::pattern::fits;
use crate::settings::Honeytoken;
use crate::verdict::{OpenUse, View, from_where};
use crate::weigh::Suspect;

/// Most records named by one reason.
const MAX_RECORDS: usize = 16;
/// A revocation takes hold within this time (AWS and Microsoft document minutes).
const REVOCATION: SignedDuration = SignedDuration::from_mins(5);

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

    /// The exposure it rests on.
    pub(crate) fn by(mut self, exposure: Option<ExposureEvidence>) -> Self {
        self.exposure = exposure;
        self
    }
}

/// Findings about one credential.
pub(crate) fn of(
    view: View<'_>,
    id: &CredentialId,
    state: &Credential,
    suspect: Option<&Suspect<'_>>,
) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(suspect) = suspect
        && let Some(host) = view.hosts.get(suspect.host)
    {
        found.extend(crate::subjects::beside(suspect, host));
    }
    if state.answers_to.is_none() {
        found.extend(misuse(view, id, state));
    }
    if let Some(token) = view.settings.honeytoken(id) {
        found.extend(honeytoken(token, id, state));
    }
    found.extend(after_revocation(id, state));
    found.extend(outside(state));
    found.extend(crate::surroundings::of(view, state));
    // Posture alone is nobody's emergency: it is told beside something else, or when asked for.
    if view.settings.posture_alerts || !found.is_empty() {
        found.extend(posture(id, state));
    }
    found
}

/// Explained uses out of the ordinary for their agent: one finding for each kind of oddity.
fn misuse(view: View<'_>, id: &CredentialId, state: &Credential) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    let threshold = view.settings.baseline.threshold;
    let odd = state.deviations().filter(|(_, d)| d.score >= threshold);
    for (key, deviation) in odd {
        let record = key.1.to_string();
        let known = found.iter_mut().find(|f| f.reason.code == deviation.code);
        let Some(known) = known else {
            let text = format!(
                "used by {} out of the ordinary: {}",
                shown(&deviation.who.to_string(), 160),
                deviation.reasons.join("; ")
            );
            let exposure = exposure_behind(view, id, state, &deviation.credential, key);
            let mut finding = Finding::new(Verdict::SameSourceMisuse, &deviation.code, text)
                .at(key.0, vec![record])
                .by(exposure);
            finding.last = Some(key.0);
            finding
                .uses
                .push((deviation.credential.clone(), key.clone()));
            found.push(finding);
            continue;
        };
        known.last = Some(key.0);
        if known.reason.records.len() < MAX_RECORDS {
            known.reason.records.push(record);
            known.uses.push((deviation.credential.clone(), key.clone()));
        }
    }
    found
}

/// How the unit that made a use came to hold the credential, or what it descends from.
fn exposure_behind(
    view: View<'_>,
    id: &CredentialId,
    state: &Credential,
    credential: &CredentialId,
    key: &UseKey,
) -> Option<ExposureEvidence> {
    let used = if credential == id {
        state
    } else {
        view.credentials.get(credential)?
    };
    let via = used.uses.get(key)?.via.as_ref()?;
    let holding = |state: &Credential| {
        let holdings = state.holders.get(&via.host)?;
        let (_, holding) = holdings.iter().find(|(unit, _)| *unit == via.unit)?;
        Some(holding.exposure.clone())
    };
    holding(used).or_else(|| holding(state))
}

/// A decoy was read or used.
fn honeytoken(token: &Honeytoken, id: &CredentialId, state: &Credential) -> Vec<Finding> {
    let mut found = Vec::new();
    let place = if token.name.is_empty() {
        String::new()
    } else {
        format!(" ({})", shown(&token.name, 80))
    };
    let mut reads: Vec<&ExposureEvidence> = state
        .holders
        .values()
        .flatten()
        .map(|(_, holding)| &holding.exposure)
        .filter(|exposure| !is_scanner(token, exposure))
        .collect();
    reads.sort_by_key(|exposure| (exposure.time, exposure.event.clone()));
    if let Some(first) = reads.first() {
        let who = shown(&first.actor.label(), 160).to_string();
        let text = format!("a decoy{place} was read by {who}");
        let records = reads.iter().map(|e| e.event.to_string()).collect();
        let finding = Finding::new(Verdict::Suspected, "honeytoken-read", text)
            .at(first.time, records)
            .by(Some((*first).clone()));
        found.push(finding);
    }
    let drill = |u: &Use| match u.usage.caller {
        Caller::Address { address } => token.networks.iter().any(|net| net.contains(&address)),
        Caller::Service { .. } | Caller::Unknown => false,
    };
    for (key, u) in state.uses.iter().filter(|(_, u)| !drill(u)) {
        let verdict = match &u.state {
            UseState::Unwatched | UseState::Unexplained { .. } => Verdict::UnexplainedUse,
            UseState::Explained { .. } => Verdict::SameSourceMisuse,
            UseState::Undecided { .. } => Verdict::Suspected,
            UseState::Declared { .. } | UseState::ServiceSide { .. } => continue,
        };
        let text = format!("a decoy{place} was used{}", from_where(&u.usage));
        let mut finding =
            Finding::new(verdict, "honeytoken-use", text).at(key.0, vec![u.usage.id.to_string()]);
        if u.via.is_some() {
            finding.uses.push((id.clone(), key.clone()));
        }
        found.push(finding);
    }
    found
}

/// True when a decoy was read by somebody who may (the security team's scanner).
pub(crate) fn is_scanner(token: &Honeytoken, exposure: &ExposureEvidence) -> bool {
    exposure.actor.lineage.first().is_some_and(|process| {
        let name = process.exe.rsplit('/').next().unwrap_or(&process.exe);
        token
            .readers
            .iter()
            .any(|reader| fits(reader, name) || fits(reader, &process.exe))
    })
}

/// Successful uses after the credential was revoked.
fn after_revocation(id: &CredentialId, state: &Credential) -> Option<Finding> {
    state.revoked.first()?;
    // The first revocation that nothing took back before the use.
    let revocation = |used: Timestamp| {
        let restored = state.restored.iter().rev().find(|(at, _)| *at <= used);
        let standing = |at: Timestamp| restored.is_none_or(|(restored, _)| *restored < at);
        let over = |at: Timestamp| at.checked_add(REVOCATION).is_ok_and(|over| over < used);
        let mut before = state.revoked.iter();
        before.find(|(at, _)| standing(*at) && over(*at))
    };
    let uses: Vec<(&UseKey, &Box<Use>)> = state
        .uses
        .iter()
        .filter(|((time, _), u)| u.usage.outcome == Outcome::Success && revocation(*time).is_some())
        .collect();
    let (key, first) = uses.first()?;
    let (revoked, by) = revocation(key.0)?;
    let text = format!(
        "works after its revocation at {revoked} by {}: used{}",
        shown(&by.0, 120),
        from_where(&first.usage)
    );
    let records = uses.iter().map(|(_, u)| u.usage.id.to_string()).collect();
    let mut finding =
        Finding::new(Verdict::OutsideEnvelope, "used-after-revocation", text).at(key.0, records);
    finding.last = uses.last().map(|(key, _)| key.0);
    let explained = uses.iter().filter(|(_, u)| u.via.is_some());
    finding.uses = explained
        .map(|(key, _)| (id.clone(), (*key).clone()))
        .collect();
    Some(finding)
}

/// Uses outside the envelope of their principal.
fn outside(state: &Credential) -> Option<Finding> {
    let (key, text) = state.outside.first_key_value()?;
    let usage = &state.uses.get(key)?.usage;
    let text = format!(
        "used{}: {text}, where its principal never was; no sensor sees this principal",
        from_where(usage)
    );
    let records = state.outside.keys().map(|key| key.1.to_string()).collect();
    let mut finding =
        Finding::new(Verdict::OutsideEnvelope, "outside-envelope", text).at(key.0, records);
    finding.last = state.outside.keys().next_back().map(|key| key.0);
    Some(finding)
}

/// A long-lived credential in an agent's hands.
pub(crate) fn posture(id: &CredentialId, state: &Credential) -> Option<Finding> {
    let instead = match id.kind() {
        CredentialKind::AwsAccessKey if id.value().starts_with("AKIA") => {
            "role sessions (IAM Identity Center, AssumeRole or Roles Anywhere) end by themselves"
        }
        CredentialKind::GcpServiceAccountKey => {
            "impersonation or workload identity federation needs no key file"
        }
        CredentialKind::EntraClientCredential => {
            "a managed identity or a federated credential needs no secret"
        }
        CredentialKind::OktaApiToken => "an OAuth service application has scopes and short tokens",
        CredentialKind::PypiToken => "trusted publishing mints a token per release",
        _ => return None,
    };
    let mut exposures: Vec<&ExposureEvidence> = state
        .holders
        .values()
        .flatten()
        .map(|(_, holding)| &holding.exposure)
        .filter(|exposure| exposure.actor.agent.is_some())
        .collect();
    exposures.sort_by_key(|exposure| (exposure.time, exposure.event.clone()));
    let first = exposures.first()?;
    let days = state
        .first_exposure()
        .map_or(0, |seen| first.time.duration_since(seen).as_hours() / 24);
    let text = format!(
        "a long-lived credential in the hands of {}{}; {instead}",
        shown(&first.actor.label(), 160),
        if days > 0 {
            format!(", seen {days} days before")
        } else {
            String::new()
        }
    );
    let record = vec![first.event.to_string()];
    Some(Finding::new(Verdict::Posture, "long-lived-credential", text).at(first.time, record))
}

/// Uses that wait for longer than anybody should.
pub(crate) fn long_undecided(view: View<'_>, open: &[OpenUse<'_>]) -> Option<Finding> {
    let patience = SignedDuration::from_hours(i64::from(view.settings.undecided_hours));
    let late = |u: &OpenUse<'_>| {
        view.now
            .is_some_and(|now| now.duration_since(u.of.usage.time) > patience)
    };
    let waiting: Vec<&OpenUse<'_>> = open
        .iter()
        .filter(|u| matches!(u.of.state, UseState::Undecided { .. }) && late(u))
        .collect();
    let first = waiting.first()?.of.usage.time;
    let records = waiting.iter().map(|u| u.of.usage.id.to_string()).collect();
    let text = "uses stayed undecided for too long";
    Some(Finding::new(Verdict::BlindSpot, "undecided-too-long", text).at(first, records))
}
