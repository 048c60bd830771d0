//! Runs a scenario through the join and compares what comes out with what is expected.

use std::collections::BTreeMap;

use jiff::Timestamp;
use keytrail_join::{Effect, Input, Join, Settings, UseState};
use keytrail_model::alert::{Alert, Verdict};
use keytrail_model::credential::CredentialId;
use keytrail_model::ids::{AlertId, RecordId};
use serde::Serialize;

use crate::entities::{blind_spots, entities};
use crate::file::Pattern;
use crate::script::{OtherTenant, Scenario, Step};
use crate::vary::{self, Variation, Varied};

/// Orders of arrival that the shuffled variation tries.
const ORDERS: u64 = 8;

/// A use and what is thought of it in the end.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Its credential.
    pub credential: CredentialId,
    /// Its own time.
    pub time: Timestamp,
    /// The last word on it.
    pub state: UseState,
}

/// What the join makes of a sequence of inputs.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// The last word of each alert; closed ones too.
    pub alerts: BTreeMap<AlertId, Alert>,
    /// Each use.
    pub uses: BTreeMap<RecordId, Judged>,
    /// When which verdict about which credential was told, in order of arrival.
    pub told: Vec<(Timestamp, CredentialId, Verdict)>,
}

impl Run {
    /// The strongest open alert about a credential.
    #[must_use]
    pub fn alert(&self, credential: &CredentialId) -> Option<&Alert> {
        self.alerts
            .values()
            .filter(|alert| alert.credential == *credential && alert.verdict != Verdict::Closed)
            .max_by_key(|alert| alert.verdict)
    }

    /// From the first misuse (or, without one, the exposure) to the moment at which the present
    /// verdict was first told, in seconds; `None` without an open alert.
    #[must_use]
    pub fn seconds_to_verdict(&self, credential: &CredentialId) -> Option<i64> {
        let alert = self.alert(credential)?;
        let misuse = alert.unexplained.iter().map(|u| u.usage.time).min();
        let began = misuse.or_else(|| alert.exposure.as_ref().map(|e| e.time));
        let told = self
            .told
            .iter()
            .find(|(_, id, verdict)| id == credential && *verdict == alert.verdict)?;
        Some(
            told.0
                .duration_since(began.unwrap_or(alert.first_seen))
                .as_secs(),
        )
    }
}

/// Runs `steps` through a fresh join.
#[must_use]
pub fn run(settings: &Settings, steps: &[Step]) -> Run {
    let mut join = Join::new(settings.clone());
    let mut effects = Vec::new();
    let mut run = Run::default();
    for step in steps {
        join.apply(&step.input, &mut effects);
        for effect in effects.drain(..) {
            if let Effect::Alert(alert) = effect {
                run.told
                    .push((step.arrives, alert.credential.clone(), alert.verdict));
                run.alerts.insert(alert.id, *alert);
            }
        }
    }
    for step in steps {
        if let Input::Use(usage) = &step.input
            && let Some(state) = join.use_state(&usage.credential, &usage.id)
        {
            let judged = Judged {
                credential: usage.credential.clone(),
                time: usage.time,
                state: state.clone(),
            };
            run.uses.insert(usage.id.clone(), judged);
        }
    }
    run
}

/// A verdict on one credential, beside what it should be.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The story's name of the credential.
    pub credential: String,
    /// What is right, as written.
    pub expected: String,
    /// The verdicts that are right; `none` among them as `None`.
    pub right: Vec<Option<Verdict>>,
    /// What was said.
    pub found: Option<Verdict>,
    /// Whether that is right.
    pub hit: bool,
    /// From the first misuse to the verdict, seconds.
    pub seconds_to_verdict: Option<i64>,
}

/// One telling of a story.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    /// In which variation; `as written` for none.
    pub variation: &'static str,
    /// Why it was not run.
    pub skipped: Option<String>,
    /// Verdicts.
    pub rows: Vec<Row>,
    /// What is not as expected, each explained.
    pub misses: Vec<String>,
}

/// A scenario's result.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// Its name.
    pub name: String,
    /// Its title.
    pub title: String,
    /// Where it is from.
    pub source: String,
    /// Its file.
    pub file: String,
    /// As written, then each variation.
    pub cases: Vec<Case>,
}

impl Checked {
    /// True when everything was as expected.
    #[must_use]
    pub fn hit(&self) -> bool {
        self.cases.iter().all(|case| case.misses.is_empty())
    }
}

/// Runs a scenario as it is written and, if `variations`, in every way in which it could happen.
#[must_use]
pub fn check(scenario: &Scenario, variations: bool) -> Checked {
    let straight = run(&scenario.settings, &scenario.steps);
    let mut cases = vec![as_written(scenario, &straight)];
    for variation in Variation::ALL.into_iter().filter(|_| variations) {
        let skipped = scenario.skipped.get(&variation).cloned();
        let case = match skipped {
            Some(reason) => skip(variation, reason),
            None => match vary::vary(scenario, variation) {
                Ok(varied) => in_variation(scenario, &straight, variation, &varied),
                Err(reason) => skip(variation, reason.to_owned()),
            },
        };
        cases.push(case);
    }
    Checked {
        name: scenario.name.clone(),
        title: scenario.title.clone(),
        source: scenario.source.clone(),
        file: scenario.path.display().to_string(),
        cases,
    }
}

fn skip(variation: Variation, reason: String) -> Case {
    Case {
        variation: variation.as_str(),
        skipped: Some(reason),
        rows: Vec::new(),
        misses: Vec::new(),
    }
}

fn as_written(scenario: &Scenario, run: &Run) -> Case {
    let none = BTreeMap::new();
    let mut case = verdicts(scenario, run, &none, "as written");
    uses(scenario, run, &mut case.misses);
    for (name, wanted) in &scenario.expected.evidence {
        entities(scenario, run, name, wanted, &mut case.misses);
    }
    for (name, texts) in &scenario.expected.blind {
        blind_spots(scenario, run, name, texts, &mut case.misses);
    }
    case
}

fn in_variation(
    scenario: &Scenario,
    straight: &Run,
    variation: Variation,
    varied: &Varied,
) -> Case {
    let none = BTreeMap::new();
    let otherwise = scenario.otherwise.get(&variation).unwrap_or(&none);
    let story = &varied.scenario;
    let after = run(&story.settings, &story.steps);
    let mut case = match variation {
        Variation::Lost => without_claims(story, &after, otherwise, variation),
        _ => verdicts(story, &after, otherwise, variation.as_str()),
    };
    if let Some(upto) = varied.held_back {
        let before = run(&story.settings, story.steps.get(..upto).unwrap_or_default());
        for alert in before.alerts.values() {
            if needs_a_sensor(alert.verdict) {
                case.misses.push(format!(
                    "{}: {} was claimed while the sensors were silent: {}",
                    name_of(story, &alert.credential),
                    alert.verdict,
                    alert.title
                ));
            }
        }
    }
    match variation {
        Variation::Shuffled => {
            for seed in 1..=ORDERS {
                let order = vary::shuffled(scenario, seed).scenario;
                same(
                    straight,
                    &run(&order.settings, &order.steps),
                    seed,
                    &mut case,
                );
            }
        }
        Variation::Duplicated => same(straight, &after, 0, &mut case),
        Variation::Derived => uses(story, &after, &mut case.misses),
        Variation::TwoTenants => apart(story, &after, &mut case),
        _ => {}
    }
    case
}

/// A verdict that says of a use that no sensor saw it.
fn needs_a_sensor(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Confirmed | Verdict::UnexplainedUse)
}

fn name_of(scenario: &Scenario, id: &CredentialId) -> String {
    scenario
        .names
        .get(id)
        .cloned()
        .unwrap_or_else(|| id.to_string())
}

/// Compares the verdict on every credential that the story or the join knows.
fn verdicts(
    scenario: &Scenario,
    run: &Run,
    otherwise: &BTreeMap<String, Pattern>,
    variation: &'static str,
) -> Case {
    let mut case = Case {
        variation,
        skipped: None,
        rows: Vec::new(),
        misses: Vec::new(),
    };
    let nothing = Pattern::parse("none");
    let strangers = run.alerts.values().map(|alert| &alert.credential);
    let mut all: Vec<&CredentialId> = scenario.names.keys().chain(strangers).collect();
    all.sort_unstable();
    all.dedup();
    for id in all {
        let name = name_of(scenario, id);
        let right = otherwise
            .get(&name)
            .or_else(|| scenario.expected.verdicts.get(&name))
            .or(scenario.expected.others.as_ref())
            .or(nothing.as_ref());
        let Some(right) = right else { continue };
        let alert = run.alert(id);
        let found = alert.map(|alert| alert.verdict);
        let hit = right.allows(found);
        if !hit {
            case.misses.push(explain(run, id, &name, right, alert));
        }
        case.rows.push(Row {
            credential: name,
            expected: right.text().to_owned(),
            right: right.named().to_vec(),
            found,
            hit,
            seconds_to_verdict: run.seconds_to_verdict(id),
        });
    }
    case
}

/// After a loss nothing may be claimed that the lost facts could disprove.
fn without_claims(
    scenario: &Scenario,
    run: &Run,
    otherwise: &BTreeMap<String, Pattern>,
    variation: Variation,
) -> Case {
    let mut case = Case {
        variation: variation.as_str(),
        skipped: None,
        rows: Vec::new(),
        misses: Vec::new(),
    };
    for (id, name) in &scenario.names {
        let alert = run.alert(id);
        let found = alert.map(|alert| alert.verdict);
        let hit = match otherwise.get(name) {
            Some(right) => right.allows(found),
            None => !found.is_some_and(needs_a_sensor),
        };
        if !hit && let Some(alert) = alert {
            case.misses.push(format!(
                "{name}: {} was claimed although the connections were lost: {}",
                alert.verdict, alert.title
            ));
        }
    }
    case
}

/// Why a verdict is not the right one, as far as the join's own words say.
fn explain(
    run: &Run,
    id: &CredentialId,
    name: &str,
    right: &Pattern,
    alert: Option<&Alert>,
) -> String {
    let mut text = match alert {
        Some(alert) => format!(
            "{name}: expected {}, found {} ({})",
            right.text(),
            alert.verdict,
            alert.title
        ),
        None => format!("{name}: expected {}, found none", right.text()),
    };
    for (record, judged) in run.uses.iter().filter(|(_, u)| u.credential == *id).take(8) {
        text.push_str(&format!("\n      use {record}: {}", told(&judged.state)));
    }
    if let Some(alert) = alert {
        if let Some(exposure) = &alert.exposure {
            text.push_str(&format!("\n      taken by {}", exposure.actor.label()));
        }
        for egress in alert.egress.iter().take(4) {
            let peer = egress.remote.to_string();
            let to = egress.name.as_ref().unwrap_or(&peer);
            text.push_str(&format!("\n      went to {to}"));
        }
    }
    text
}

fn told(state: &UseState) -> String {
    match state {
        UseState::Unwatched => "unwatched: no sensor had seen the credential".to_owned(),
        UseState::Undecided { waiting_for } => format!("undecided: {}", waiting_for.join("; ")),
        UseState::ServiceSide { service } => format!("service-side: {service}"),
        UseState::Explained { by, address, .. } => {
            format!("explained by {by} (address {address:?})")
        }
        UseState::Declared { holder } => format!("declared: {holder}"),
        UseState::Unexplained { because } => format!("unexplained: {}", because.join("; ")),
    }
}

fn uses(scenario: &Scenario, run: &Run, misses: &mut Vec<String>) {
    for (name, wanted) in &scenario.expected.uses {
        let found = run.uses.iter().find(|(id, _)| is_called(id, name));
        let state = match found.map(|(_, judged)| &judged.state) {
            None => "absent",
            Some(UseState::Unwatched) => "unwatched",
            Some(UseState::Undecided { .. }) => "undecided",
            Some(UseState::ServiceSide { .. }) => "service-side",
            Some(UseState::Explained { .. }) => "explained",
            Some(UseState::Declared { .. }) => "declared",
            Some(UseState::Unexplained { .. }) => "unexplained",
        };
        if state != wanted {
            let why = found.map_or("no such record", |_| "");
            let said = found.map(|(_, judged)| told(&judged.state));
            misses.push(format!(
                "use {name}: expected {wanted}, found {why}{}",
                said.unwrap_or_default()
            ));
        }
    }
}

/// True when the story calls the record `name`: by its own word or by the provider's id.
pub(crate) fn is_called(id: &RecordId, name: &str) -> bool {
    id.0 == name || id.0.rsplit(':').next() == Some(name)
}

/// The strongest open alert about the credential that the story calls `name`.
pub(crate) fn find<'a>(scenario: &Scenario, run: &'a Run, name: &str) -> Option<&'a Alert> {
    let id = scenario.names.iter().find(|(_, known)| *known == name)?.0;
    run.alert(id)
}

/// JN-2, JN-3: another order, the same verdicts with the same evidence (but for the history).
fn same(straight: &Run, other: &Run, seed: u64, case: &mut Case) {
    let essence = |run: &Run| -> Vec<Alert> {
        let open = run.alerts.values().filter(|a| a.verdict != Verdict::Closed);
        let mut alerts: Vec<Alert> = open.cloned().collect();
        for alert in &mut alerts {
            alert.history.clear();
        }
        alerts
    };
    let (straight, other) = (essence(straight), essence(other));
    if straight == other {
        return;
    }
    let pair = straight.iter().zip(&other).find(|(a, b)| a != b);
    let what = match pair {
        Some((a, b)) => difference(a, b),
        None => format!("{} alerts instead of {}", other.len(), straight.len()),
    };
    case.misses.push(format!(
        "order {seed}: another result than as written: {what}"
    ));
}

/// The first field in which two alerts differ.
fn difference(a: &Alert, b: &Alert) -> String {
    let json = |alert| serde_json::to_value(alert).unwrap_or_default();
    let (left, right) = (json(a), json(b));
    let fields = left.as_object().into_iter().flatten();
    for (field, value) in fields {
        if right.get(field) != Some(value) {
            let other = right
                .get(field)
                .map(ToString::to_string)
                .unwrap_or_default();
            let cut = |text: String| text.chars().take(200).collect::<String>();
            return format!(
                "{} {field}: {} instead of {}",
                a.credential,
                cut(other),
                cut(value.to_string())
            );
        }
    }
    "no field".to_owned()
}

/// Nothing of one tenant appears in an alert of the other.
fn apart(scenario: &Scenario, run: &Run, case: &mut Case) {
    let Some(OtherTenant { names: theirs, .. }) = &scenario.other_tenant else {
        return;
    };
    for alert in run.alerts.values() {
        let text = serde_json::to_string(alert).unwrap_or_default();
        // A finding about a host itself carries the host's name in its subject.
        let mine =
            !theirs.contains_key(&alert.credential) && !alert.credential.value().contains("@other");
        let mixed = if mine {
            text.contains("@other") || theirs.keys().any(|id| text.contains(id.value()))
        } else {
            let ours = scenario.names.keys().filter(|id| !theirs.contains_key(*id));
            ours.into_iter().any(|id| text.contains(id.value()))
        };
        if mixed {
            case.misses.push(format!(
                "{}: the alert names something of the other tenant",
                name_of(scenario, &alert.credential)
            ));
        }
    }
}
