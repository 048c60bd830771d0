//! What was said, beside what happened.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use keytrail_join::{Effect, Input, Join};
use keytrail_model::alert::{Alert, Verdict};
use keytrail_model::credential::CredentialId;
use serde::Serialize;

use super::Options;
use super::theft::Kind;

/// False alerts that are shown with their titles.
const MAX_SHOWN: usize = 20;

/// A theft that happened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Truth {
    pub(super) kind: Kind,
    /// First misuse, or the theft itself where there is none.
    pub(super) began: Timestamp,
}

/// How one kind of theft fared.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TheftScore {
    /// Thefts of this kind.
    pub thefts: u64,
    /// Told as what they were.
    pub told: u64,
    /// Told as something else: a suspicion instead of a confirmation, and the like.
    pub told_otherwise: BTreeMap<String, u64>,
    /// From the first misuse to the right verdict, seconds, in order; the delay of the record is
    /// part of it.
    pub seconds_to_verdict: Vec<i64>,
}

/// What a simulation measured.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Endpoints times days.
    pub endpoint_days: u64,
    /// Inputs that the join took.
    pub inputs: u64,
    /// Uses among them, each once.
    pub uses: u64,
    /// Credentials that were ever called `confirmed` or `unexplained-use` without a theft, or
    /// before it.
    pub false_alerts: u64,
    /// The same, for 1,000 endpoint-days.
    pub false_alerts_per_1000: f64,
    /// Those of them that are still open at the end.
    pub false_at_the_end: u64,
    /// Titles of some of them.
    pub false_titles: Vec<String>,
    /// Credentials without a theft by the strongest verdict ever told, below those.
    pub lesser_alerts: BTreeMap<String, u64>,
    /// Titles of some of those.
    pub lesser_titles: Vec<String>,
    /// By kind of theft.
    pub thefts: BTreeMap<Kind, TheftScore>,
    /// Uses still undecided at the end.
    pub undecided: u64,
    /// Uses that are explained at the end, of those still kept.
    pub explained: u64,
    /// Uses of credentials that no sensor ever saw.
    pub unwatched: u64,
}

/// What is kept while a simulation runs: a line for every credential that was ever spoken of.
#[derive(Debug)]
pub(super) struct Tally {
    options: Options,
    inputs: u64,
    uses: u64,
    truths: BTreeMap<CredentialId, Truth>,
    accomplices: BTreeSet<CredentialId>,
    worst: BTreeMap<CredentialId, (Verdict, String)>,
    told: BTreeMap<CredentialId, Timestamp>,
    /// The last verdict on each credential.
    present: BTreeMap<CredentialId, Verdict>,
    moment: Option<Timestamp>,
    announced: BTreeMap<CredentialId, Box<Alert>>,
    /// Stolen credentials that were called stolen before they were used.
    early: BTreeSet<CredentialId>,
}

impl Tally {
    pub(super) fn new(options: Options) -> Self {
        Self {
            options,
            inputs: 0,
            uses: 0,
            truths: BTreeMap::new(),
            accomplices: BTreeSet::new(),
            worst: BTreeMap::new(),
            told: BTreeMap::new(),
            present: BTreeMap::new(),
            early: BTreeSet::new(),
            moment: None,
            announced: BTreeMap::new(),
        }
    }

    pub(super) fn truth(&mut self, stolen: CredentialId, truth: Truth) {
        self.truths.insert(stolen, truth);
    }

    /// A credential that a thief made.
    pub(super) fn accomplice(&mut self, credential: CredentialId) {
        self.accomplices.insert(credential);
    }

    pub(super) fn input(&mut self, input: &Input) {
        self.inputs += 1;
        if matches!(input, Input::Use(_)) {
            self.uses += 1;
        }
    }

    /// What arrives at one moment is taken in one transaction, and only the last word of it is
    /// announced.
    pub(super) fn effect(&mut self, arrives: Timestamp, effect: Effect) {
        self.until(arrives);
        if let Effect::Alert(alert) = effect {
            self.announced.insert(alert.credential.clone(), alert);
        }
    }

    /// Everything before `now` has been announced.
    pub(super) fn until(&mut self, now: Timestamp) {
        if self.moment.is_some_and(|moment| moment < now) {
            for (_, alert) in std::mem::take(&mut self.announced) {
                self.alert(self.moment.unwrap_or(now), &alert);
            }
        }
        self.moment = Some(now);
    }

    fn alert(&mut self, arrives: Timestamp, alert: &Alert) {
        let worse = self
            .worst
            .get(&alert.credential)
            .is_none_or(|(known, _)| alert.verdict > *known);
        if worse {
            let said = (alert.verdict, alert.title.clone());
            self.worst.insert(alert.credential.clone(), said);
        }
        self.present.insert(alert.credential.clone(), alert.verdict);
        let truth = self.truths.get(&alert.credential);
        if truth.is_some_and(|truth| arrives < truth.began) && is_claim(alert.verdict) {
            self.early.insert(alert.credential.clone());
        }
        if let Some(truth) = truth
            && arrives >= truth.began
            && is_told(truth.kind, alert)
        {
            self.told.entry(alert.credential.clone()).or_insert(arrives);
        }
    }

    pub(super) fn outcome(mut self, join: &Join) -> Outcome {
        self.until(Timestamp::MAX);
        let endpoint_days = u64::from(self.options.endpoints) * u64::from(self.options.days);
        let mut outcome = Outcome {
            endpoint_days,
            inputs: self.inputs,
            uses: self.uses,
            false_alerts: 0,
            false_alerts_per_1000: 0.0,
            false_at_the_end: 0,
            false_titles: Vec::new(),
            lesser_alerts: BTreeMap::new(),
            lesser_titles: Vec::new(),
            thefts: BTreeMap::new(),
            undecided: 0,
            explained: 0,
            unwatched: 0,
        };
        for (credential, (verdict, title)) in &self.worst {
            let stolen = self.truths.contains_key(credential);
            let early = self.early.contains(credential);
            if (stolen && !early) || self.accomplices.contains(credential) {
                continue;
            }
            if is_claim(*verdict) {
                outcome.false_alerts += 1;
                let present = self.present.get(credential);
                if !stolen && present.is_some_and(|verdict| is_claim(*verdict)) {
                    outcome.false_at_the_end += 1;
                }
                if outcome.false_titles.len() < MAX_SHOWN {
                    outcome.false_titles.push(title.clone());
                }
            } else {
                *outcome
                    .lesser_alerts
                    .entry(verdict.to_string())
                    .or_default() += 1;
                if outcome.lesser_titles.len() < MAX_SHOWN {
                    outcome.lesser_titles.push(title.clone());
                }
            }
        }
        outcome.false_alerts_per_1000 =
            number(outcome.false_alerts) * 1_000.0 / number(endpoint_days).max(1.0);
        for (credential, truth) in &self.truths {
            let score = outcome.thefts.entry(truth.kind).or_default();
            score.thefts += 1;
            if let Some(told) = self.told.get(credential) {
                score.told += 1;
                let took = told.duration_since(truth.began).as_secs();
                score.seconds_to_verdict.push(took);
            } else {
                let said = self.worst.get(credential);
                let said = said.map_or("none".to_owned(), |(verdict, _)| verdict.to_string());
                *score.told_otherwise.entry(said).or_default() += 1;
            }
        }
        for score in outcome.thefts.values_mut() {
            score.seconds_to_verdict.sort_unstable();
        }
        for credential in join.credentials() {
            let Some(lineage) = join.lineage(credential) else {
                continue;
            };
            outcome.undecided += lineage.totals.undecided;
            outcome.explained += lineage.totals.explained;
            outcome.unwatched += lineage.totals.unwatched;
        }
        outcome
    }
}

/// True when an alert says what happened, be it beside something graver.
fn is_told(kind: Kind, alert: &Alert) -> bool {
    let mut said = alert.reasons.iter().map(|reason| reason.verdict);
    kind.is_told_by(alert.verdict) || said.any(|verdict| kind.is_told_by(verdict))
}

/// A verdict that says that a use was not the holders' own.
fn is_claim(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Confirmed | Verdict::UnexplainedUse)
}

fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

impl Outcome {
    /// The result for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} endpoint-days, {} inputs, {} records of uses\n\
             false alerts (confirmed, unexplained-use): {}, {:.3} for 1,000 endpoint-days; {} still open\n",
            self.endpoint_days,
            self.inputs,
            self.uses,
            self.false_alerts,
            self.false_alerts_per_1000,
            self.false_at_the_end,
        );
        for title in &self.false_titles {
            text.push_str(&format!("  - {title}\n"));
        }
        for (verdict, count) in &self.lesser_alerts {
            text.push_str(&format!("other findings, at most {verdict}: {count}\n"));
        }
        for title in &self.lesser_titles {
            text.push_str(&format!("  - {title}\n"));
        }
        text.push_str(&format!(
            "uses at the end: {} explained, {} undecided, {} of credentials that no sensor saw\n\n\
             {:<14} {:>7} {:>6} {:>7}  {:<28} {}\n",
            self.explained,
            self.undecided,
            self.unwatched,
            "theft",
            "number",
            "told",
            "recall",
            "time to verdict (median, max)",
            "told otherwise"
        ));
        for (kind, score) in &self.thefts {
            let kind = serde_json::to_value(kind).unwrap_or_default();
            let times = &score.seconds_to_verdict;
            let time = match (times.get(times.len() / 2), times.last()) {
                (Some(median), Some(max)) => format!("{median} s, {max} s"),
                _ => "-".to_owned(),
            };
            let otherwise: Vec<String> = score
                .told_otherwise
                .iter()
                .map(|(verdict, count)| format!("{verdict} {count}"))
                .collect();
            text.push_str(&format!(
                "{:<14} {:>7} {:>6} {:>7.3}  {time:<28} {}\n",
                kind.as_str().unwrap_or_default(),
                score.thefts,
                score.told,
                number(score.told) / number(score.thefts).max(1.0),
                otherwise.join(", ")
            ));
        }
        text
    }
}
