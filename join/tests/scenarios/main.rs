//! Every file of `cases/`, in its own order and in many others (JN-1 to JN-4).

#![allow(missing_docs, reason = "a test program has no public interface")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests fail by panicking"
)]

mod language;

use std::collections::BTreeMap;
use std::path::PathBuf;

use keytrail_join::{Effect, Input, Join, Settings, UseState};
use keytrail_model::alert::Alert;
use keytrail_model::credential::CredentialId;
use proptest::prelude::*;

use crate::language::{Scenario, key, parse, record};

fn scenarios() -> Vec<(String, Scenario)> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/cases");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "txt"))
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, parse(&std::fs::read_to_string(path).unwrap()))
        })
        .collect()
}

/// The operator after `inputs`, and its last word on every credential.
fn run(settings: &Settings, inputs: &[Input]) -> (Join, BTreeMap<CredentialId, Alert>) {
    let mut join = Join::new(settings.clone());
    let mut effects = Vec::new();
    for input in inputs {
        join.apply(input, &mut effects);
    }
    let mut alerts = BTreeMap::new();
    for effect in effects {
        if let Effect::Alert(alert) = effect {
            alerts.insert(alert.credential.clone(), *alert);
        }
    }
    (join, alerts)
}

/// What does not depend on the order of arrival.
fn essence(alerts: &BTreeMap<CredentialId, Alert>) -> Vec<Alert> {
    let mut all: Vec<Alert> = alerts
        .values()
        .filter(|alert| alert.verdict.as_str() != "closed")
        .cloned()
        .collect();
    for alert in &mut all {
        alert.history.clear();
    }
    all
}

/// What came out otherwise than the scenario expects, one line each.
fn misses(name: &str, scenario: &Scenario) -> Vec<String> {
    let (join, alerts) = run(&scenario.settings, &scenario.inputs);
    let mut misses = Vec::new();
    for (subject, expected) in &scenario.expected {
        let found = if subject.starts_with(|c: char| c.is_ascii_lowercase())
            && !subject.contains(':')
            && !subject.starts_with("gh-")
        {
            let state = join
                .credentials()
                .find_map(|id| join.use_state(id, &record(subject)));
            match state {
                Some(UseState::Explained { .. }) => "explained",
                Some(UseState::Unexplained { .. }) => "unexplained",
                Some(UseState::Undecided { .. }) => "undecided",
                Some(UseState::Unwatched) => "unwatched",
                Some(UseState::ServiceSide { .. }) => "service-side",
                Some(UseState::Declared { .. }) => "declared",
                None => "absent",
            }
        } else {
            alerts
                .get(&key(subject))
                .map(|alert| alert.verdict.as_str())
                .filter(|verdict| *verdict != "closed")
                .unwrap_or("none")
        };
        if found != expected {
            let reasons = alerts.get(&key_or_any(subject)).map(|alert| &alert.reasons);
            misses.push(format!(
                "{name}: {subject} is {found}, expected {expected}: {reasons:?}"
            ));
        }
    }
    for (subject, code) in &scenario.reasons {
        let reasons = alerts.get(&key(subject)).map(|alert| &alert.reasons);
        let has = reasons.is_some_and(|all| all.iter().any(|r| r.code == *code));
        if !has {
            misses.push(format!(
                "{name}: {subject} does not say {code}: {reasons:?}"
            ));
        }
    }
    misses
}

fn key_or_any(subject: &str) -> CredentialId {
    if subject.starts_with('r') {
        key("NONE")
    } else {
        key(subject)
    }
}

#[test]
fn every_scenario_as_written() {
    let all = scenarios();
    assert!(!all.is_empty(), "no scenario found");
    let mut wrong = Vec::new();
    for (name, scenario) in &all {
        assert!(!scenario.expected.is_empty(), "{name} expects nothing");
        wrong.extend(misses(name, scenario));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// JN-1: the same inputs, the same effects, byte for byte.
#[test]
fn replay_is_exact() {
    for (name, scenario) in scenarios() {
        let once = |()| {
            let mut join = Join::new(scenario.settings.clone());
            let mut effects = Vec::new();
            for input in &scenario.inputs {
                join.apply(input, &mut effects);
            }
            serde_json::to_string(&effects).unwrap()
        };
        assert_eq!(once(()), once(()), "{name}");
    }
}

/// JN-4: a snapshot at any point, restored, goes on as if nothing had happened.
#[test]
fn snapshots_are_transparent() {
    for (name, scenario) in scenarios() {
        let (_, straight) = run(&scenario.settings, &scenario.inputs);
        for cut in 0..=scenario.inputs.len() {
            let (mut join, mut alerts) = run(&scenario.settings, &scenario.inputs[..cut]);
            join = serde_json::from_str(&serde_json::to_string(&join).unwrap()).unwrap();
            let mut effects = Vec::new();
            for input in &scenario.inputs[cut..] {
                join.apply(input, &mut effects);
            }
            for effect in effects {
                if let Effect::Alert(alert) = effect {
                    alerts.insert(alert.credential.clone(), *alert);
                }
            }
            assert_eq!(alerts, straight, "{name} cut at {cut}");
        }
    }
}

/// Where two lists of alerts differ, line by line.
fn difference(a: &[Alert], b: &[Alert]) -> String {
    let lines = |alerts: &[Alert]| -> Vec<String> {
        let text = serde_json::to_string_pretty(alerts).unwrap();
        text.lines().map(str::to_owned).collect()
    };
    let (a, b) = (lines(a), lines(b));
    let pairs = a.iter().zip(&b).filter(|(a, b)| a != b);
    let mut text: Vec<String> = pairs
        .map(|(a, b)| format!("{a}  |  {b}"))
        .take(12)
        .collect();
    if a.len() != b.len() {
        text.push(format!("{} lines  |  {} lines", a.len(), b.len()));
    }
    text.join("\n")
}

/// A scenario and an order of arrival of its inputs, some of them twice.
fn shuffled() -> impl Strategy<Value = (String, Settings, Vec<Input>, Vec<Input>)> {
    // A clock offset is known before the facts that need it (the stream begins with it), so a
    // scenario that has one is not shuffled.
    let offset = |input: &Input| matches!(input, Input::Watermark(w) if w.clock_offset_ms != 0);
    let all: Vec<_> = scenarios()
        .into_iter()
        .filter(|(_, scenario)| !scenario.inputs.iter().any(offset))
        .map(|(name, scenario)| (name, scenario.settings, scenario.inputs))
        .collect();
    proptest::sample::select(all).prop_flat_map(|(name, settings, inputs)| {
        let twice = proptest::sample::subsequence(inputs.clone(), 0..=inputs.len());
        (Just(name), Just(settings), Just(inputs.clone()), twice).prop_flat_map(
            |(name, settings, inputs, twice)| {
                let mut order = inputs.clone();
                order.extend(twice);
                (
                    Just(name),
                    Just(settings),
                    Just(inputs),
                    Just(order).prop_shuffle(),
                )
            },
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    /// JN-2 and JN-3: order and repetition of arrival change no verdict and no evidence.
    #[test]
    fn arrival_order_does_not_matter((name, settings, inputs, order) in shuffled()) {
        let (_, straight) = run(&settings, &inputs);
        let (_, other) = run(&settings, &order);
        let difference = difference(&essence(&straight), &essence(&other));
        prop_assert!(difference.is_empty(), "{}:\n{}", name, difference);
    }
}
