//! How well the scenarios went: precision and recall per verdict, time to verdict, each miss.

use std::collections::{BTreeMap, BTreeSet};

use keytrail_model::alert::Verdict;
use serde::Serialize;

use crate::check::Checked;

/// Hits and misses of one verdict, over the stories as written.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Score {
    /// Said and right.
    pub right: u64,
    /// Said and wrong.
    pub wrong: u64,
    /// Right and not said.
    pub missed: u64,
    /// Share of what was said that is right; `None` when it was never said.
    pub precision: Option<f64>,
    /// Share of what is right that was said; `None` when it is never right.
    pub recall: Option<f64>,
    /// From the first misuse to the verdict, seconds, where it was said rightly, in order.
    pub seconds_to_verdict: Vec<i64>,
}

/// The whole report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Scenarios that went as expected, in every variation that was run.
    pub hit: usize,
    /// Scenarios.
    pub total: usize,
    /// Variations run and gone as expected, run, and not applicable.
    pub variations: (usize, usize, usize),
    /// Per verdict, and for `none`.
    pub verdicts: BTreeMap<String, Score>,
    /// Every scenario.
    pub scenarios: Vec<Checked>,
}

impl Report {
    /// Sums up.
    #[must_use]
    pub fn of(scenarios: Vec<Checked>) -> Self {
        let mut verdicts: BTreeMap<String, Score> = BTreeMap::new();
        let name = |verdict: Option<Verdict>| {
            verdict.map_or("none".to_owned(), |verdict| verdict.to_string())
        };
        let as_written = scenarios.iter().filter_map(|s| s.cases.first());
        for row in as_written.flat_map(|case| &case.rows) {
            let score = verdicts.entry(name(row.found)).or_default();
            if row.hit {
                score.right += 1;
                score.seconds_to_verdict.extend(row.seconds_to_verdict);
            } else {
                score.wrong += 1;
                // What would have been right; the first where several would.
                let right = name(row.right.first().copied().flatten());
                verdicts.entry(right).or_default().missed += 1;
            }
        }
        for score in verdicts.values_mut() {
            score.precision = share(score.right, score.wrong);
            score.recall = share(score.right, score.missed);
            score.seconds_to_verdict.sort_unstable();
        }
        let varied = || scenarios.iter().flat_map(|s| s.cases.iter().skip(1));
        let run = varied().filter(|case| case.skipped.is_none()).count();
        let good = varied()
            .filter(|case| case.skipped.is_none() && case.misses.is_empty())
            .count();
        Self {
            hit: scenarios.iter().filter(|s| s.hit()).count(),
            total: scenarios.len(),
            variations: (good, run, varied().count() - run),
            verdicts,
            scenarios,
        }
    }

    /// The report for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for scenario in &self.scenarios {
            let mark = if scenario.hit() { "ok  " } else { "MISS" };
            text.push_str(&format!("{mark} {:<8} {}\n", scenario.name, scenario.title));
            let mut told: Vec<&Vec<String>> = Vec::new();
            for case in scenario.cases.iter().filter(|case| !case.misses.is_empty()) {
                text.push_str(&format!("     {} ({})", case.variation, scenario.file));
                if told.contains(&&case.misses) {
                    text.push_str(": the same\n");
                    continue;
                }
                text.push('\n');
                told.push(&case.misses);
                for miss in &case.misses {
                    text.push_str(&format!("    - {miss}\n"));
                }
            }
        }
        text.push_str(&format!(
            "\n{:<20} {:>5} {:>5} {:>6} {:>9} {:>7}  {}\n",
            "verdict",
            "right",
            "wrong",
            "missed",
            "precision",
            "recall",
            "time to verdict (median, max)"
        ));
        for (verdict, score) in &self.verdicts {
            let share = |share: Option<f64>| share.map_or("-".to_owned(), |s| format!("{s:.3}"));
            let times = &score.seconds_to_verdict;
            let median = times.get(times.len() / 2).copied();
            let time = match (median, times.last()) {
                (Some(median), Some(max)) => format!("{median} s, {max} s"),
                _ => "-".to_owned(),
            };
            text.push_str(&format!(
                "{verdict:<20} {:>5} {:>5} {:>6} {:>9} {:>7}  {time}\n",
                score.right,
                score.wrong,
                score.missed,
                share(score.precision),
                share(score.recall),
            ));
        }
        let (good, run, skipped) = self.variations;
        text.push_str(&format!(
            "\n{} of {} scenarios as expected; {good} of {run} variations, {skipped} do not apply\n",
            self.hit, self.total
        ));
        text
    }

    /// Verdicts found anywhere, as written.
    #[must_use]
    pub fn found(&self) -> BTreeSet<Verdict> {
        let cases = self.scenarios.iter().filter_map(|s| s.cases.first());
        cases
            .flat_map(|case| case.rows.iter().filter_map(|row| row.found))
            .collect()
    }
}

fn share(part: u64, rest: u64) -> Option<f64> {
    let whole = part + rest;
    let number = |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    (whole > 0).then(|| number(part) / number(whole))
}
