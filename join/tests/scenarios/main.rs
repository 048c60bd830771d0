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

fn check(name: &str, scenario: &Scenario, inputs: &[Input]) {
    let (join, alerts) = run(&scenario.settings, inputs);
    for (subject, expected) in &scenario.expected {
        if subject.starts_with('r') {
            let state = join
                .credentials()
                .find_map(|id| join.use_state(id, &record(subject)));
            let found = match state {
                Some(UseState::Explained { .. }) => "explained",
                Some(UseState::Unexplained { .. }) => "unexplained",
                Some(UseState::Undecided { .. }) => "undecided",
                Some(UseState::Unwatched) => "unwatched",
                Some(UseState::ServiceSide { .. }) => "service-side",
                Some(UseState::Declared { .. }) => "declared",
                None => "absent",
            };
            assert_eq!(found, expected, "{name}: use {subject}: {state:?}");
        } else {
            let found = alerts
                .get(&key(subject))
                .map(|alert| alert.verdict.as_str())
                .filter(|verdict| *verdict != "closed")
                .unwrap_or("none");
            assert_eq!(
                found,
                expected,
                "{name}: {subject}: {:#?}",
                alerts.get(&key(subject))
            );
        }
    }
}

fn check_reasons(name: &str, scenario: &Scenario) {
    let (_, alerts) = run(&scenario.settings, &scenario.inputs);
    for (subject, code) in &scenario.reasons {
        let alert = alerts.get(&key(subject));
        let has = alert.is_some_and(|alert| alert.reasons.iter().any(|r| r.code == *code));
        assert!(has, "{name}: {subject} does not say {code}: {alert:#?}");
    }
}

#[test]
fn every_scenario_as_written() {
    let all = scenarios();
    assert!(!all.is_empty(), "no scenario found");
    for (name, scenario) in &all {
        assert!(!scenario.expected.is_empty(), "{name} expects nothing");
        check(name, scenario, &scenario.inputs);
        check_reasons(name, scenario);
    }
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
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    /// JN-2 and JN-3: order and repetition of arrival change no verdict and no evidence.
    #[test]
    fn arrival_order_does_not_matter((name, settings, inputs, order) in shuffled()) {
        let (_, straight) = run(&settings, &inputs);
        let (_, other) = run(&settings, &order);
        prop_assert_eq!(essence(&straight), essence(&other), "{}", name);
    }
}
