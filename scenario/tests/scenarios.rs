//! Every scenario of `tests/scenarios/`, as written and in every variation.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use keytrail_scenario::report::Report;
use keytrail_scenario::{Scenario, check, load_all};

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios")
}

fn scenarios() -> Vec<Scenario> {
    load_all(&dir()).unwrap_or_else(|error| panic!("{error}"))
}

/// `known-misses.txt`: what the join does not get right yet, so that it is neither forgotten nor
/// called right. A line that no longer misses must go, too.
fn known_misses() -> BTreeSet<String> {
    let text = fs::read_to_string(dir().join("known-misses.txt")).unwrap();
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split(": ").next().unwrap().to_owned())
        .collect()
}

#[test]
fn every_scenario_goes_as_expected() {
    let known = known_misses();
    let report = Report::of(scenarios().iter().map(|s| check::check(s, true)).collect());
    let mut missed = BTreeSet::new();
    for scenario in &report.scenarios {
        for case in scenario.cases.iter().filter(|c| !c.misses.is_empty()) {
            let every = format!("{} *", scenario.name);
            let this = format!("{} {}", scenario.name, case.variation);
            missed.insert(if known.contains(&every) { every } else { this });
        }
    }
    assert_eq!(missed, known, "{}", report.text());
}

/// No benign scenario may raise more than an informational finding, whatever it expects.
#[test]
fn confirmed_is_never_said_of_a_benign_story() {
    let mut benign = 0;
    for scenario in scenarios().iter().filter(|s| s.name.starts_with('B')) {
        benign += 1;
        for case in check::check(scenario, true).cases {
            for row in case.rows {
                let said = row.found.map_or("none", |verdict| verdict.as_str());
                assert!(
                    matches!(said, "none" | "blind-spot"),
                    "{} {}: {said} about {}",
                    scenario.name,
                    case.variation,
                    row.credential
                );
            }
        }
    }
    assert!(benign > 20, "only {benign} benign scenarios were found");
}

#[test]
fn pairs_exist() {
    let all = scenarios();
    for scenario in &all {
        for pair in &scenario.pairs {
            assert!(
                all.iter().any(|other| other.name == *pair),
                "{}: no scenario is called {pair}",
                scenario.name
            );
        }
    }
}
