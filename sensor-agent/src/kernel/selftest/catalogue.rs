//! `docs/evasions.toml` claims only what a case proves.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{cases, stages};
use crate::kernel::{
    attach::hook_name,
    hooks::{HOOKS, Plan},
};

/// Rows of the catalogue of published techniques.
const ROWS: u32 = 37;
const HEAD: &str = "\
<!-- Rendered from docs/evasions.toml; edit that, then `UPDATE_EXPECT=1 cargo test -p sensor-agent evasions`. -->
# Ways around an endpoint sensor

What Keytrail does about each published technique, on plan A (LSM hooks) and plan B (tracepoints of
the page cache, kernel 6.12 and later). Each *covered* names the cases of `sensor-agent selftest` that
prove it; they run on the developer's kernel and in guests, and a claim without a case that can run on
its plan fails the tests.

| # | technique | A | B | what catches it | what is missed | proof |
|---|---|---|---|---|---|---|
";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalogue {
    evasion: Vec<Evasion>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Evasion {
    row: u32,
    technique: String,
    a: State,
    b: State,
    #[serde(default)]
    cases: Vec<String>,
    #[serde(default)]
    tests: Vec<String>,
    how: String,
    #[serde(default)]
    why: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Covered,
    Partly,
    Missed,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Covered => "covered",
            Self::Partly => "partly",
            Self::Missed => "missed",
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read() -> Catalogue {
    let text = std::fs::read_to_string(root().join("docs/evasions.toml")).unwrap();
    toml::from_str(&text).unwrap()
}

/// Whether a case of this name can run on this plan.
fn runs_on(name: &str, plan: Plan) -> bool {
    let served: BTreeSet<String> = HOOKS
        .iter()
        .filter(|hook| hook.plan.is_none_or(|p| p == plan))
        .map(hook_name)
        .collect();
    stages().any(|(stage, _)| stage == name)
        || cases::all().any(|case| {
            case.name == name
                && (case.via.is_empty() || case.via.iter().any(|hook| served.contains(*hook)))
        })
}

/// What is wrong with a row, if anything.
fn fault(e: &Evasion) -> Option<String> {
    let known = |name: &str| runs_on(name, Plan::A) || runs_on(name, Plan::B);
    if let Some(case) = e.cases.iter().find(|case| !known(case)) {
        return Some(format!("there is no case `{case}`"));
    }
    for test in &e.tests {
        let (file, name) = test.split_once('#').unwrap_or((test, ""));
        let text = std::fs::read_to_string(root().join(file)).unwrap_or_default();
        if name.is_empty() || !text.contains(&format!("fn {name}(")) {
            return Some(format!("there is no test `{test}`"));
        }
    }
    for (plan, state) in [(Plan::A, e.a), (Plan::B, e.b)] {
        let proven = e.cases.iter().any(|case| runs_on(case, plan));
        if state == State::Covered && !proven {
            return Some(format!("claims plan {} without a case", plan.name()));
        }
        if state != State::Covered && e.why.is_empty() {
            return Some("does not say what is missed".to_owned());
        }
        if state != State::Missed && e.how.is_empty() {
            return Some("does not say what catches it".to_owned());
        }
    }
    None
}

#[test]
fn evasions_are_claimed_only_with_proof() {
    let catalogue = read();
    let rows: Vec<u32> = catalogue.evasion.iter().map(|e| e.row).collect();
    assert_eq!(rows, (1..=ROWS).collect::<Vec<_>>(), "every row, in order");
    let faults: Vec<String> = catalogue
        .evasion
        .iter()
        .filter_map(|e| fault(e).map(|fault| format!("row {}: {fault}", e.row)))
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn a_claim_without_proof_is_refused() {
    use State::{Covered, Missed};
    let row = |a, b, cases: &[&str]| Evasion {
        row: 1,
        technique: "x".to_owned(),
        a,
        b,
        cases: cases.iter().map(|c| (*c).to_owned()).collect(),
        tests: Vec::new(),
        how: "x".to_owned(),
        why: String::new(),
    };
    assert_eq!(fault(&row(Covered, Covered, &["by splice"])), None);
    assert!(fault(&row(Covered, Covered, &[])).is_some());
    assert!(fault(&row(Covered, Covered, &["by magic"])).is_some());
    assert!(fault(&row(Covered, Missed, &["by splice"])).is_some());
}

#[test]
fn case_names_are_unique() {
    let names: Vec<&str> = cases::all()
        .map(|case| case.name)
        .chain(stages().map(|(name, _)| name))
        .collect();
    let unique: BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(unique.len(), names.len());
}

#[test]
fn evasions_are_rendered() {
    let mut page = HEAD.to_owned();
    for e in read().evasion {
        let proof: Vec<String> = e
            .cases
            .iter()
            .map(|case| format!("*{case}*"))
            .chain(e.tests.iter().map(|test| format!("`{test}`")))
            .collect();
        writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} | {} |",
            e.row,
            e.technique,
            e.a.word(),
            e.b.word(),
            e.how,
            e.why,
            proof.join(", ")
        )
        .unwrap();
    }
    expect_test::expect_file![root().join("docs/evasions.md")].assert_eq(&page);
}
