//! Counting what the stages did, and reading the counts out of `cargo test`'s output.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::ui::{plain, spoken};

/// What one stage came to.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) passed: u64,
    failed: Vec<(String, String)>,
    skipped: Vec<(String, String)>,
}

impl Counts {
    pub(super) fn fail(&mut self, name: &str, reason: &str) {
        self.failed.push((name.to_owned(), reason.to_owned()));
    }

    pub(super) fn skip(&mut self, name: &str, reason: &str) {
        self.skipped.push((name.to_owned(), reason.to_owned()));
    }
}

/// All stages so far.
#[derive(Default)]
pub(super) struct Report {
    stages: Vec<(String, Counts, Duration)>,
}

impl Report {
    /// Runs a stage. An error of the stage itself is one failure.
    pub(super) fn stage(&mut self, name: &str, run: impl FnOnce(&mut Counts) -> Result<()>) {
        let since = Instant::now();
        let mut counts = Counts::default();
        if let Err(error) = run(&mut counts) {
            counts.fail(name, &format!("{error:#}"));
        }
        self.stages.push((name.to_owned(), counts, since.elapsed()));
    }

    /// Notes the time of something that is no check.
    pub(super) fn time(&mut self, name: &str, time: Duration) {
        self.stages.push((name.to_owned(), Counts::default(), time));
    }

    /// Runs a stage that has one outcome.
    pub(super) fn check(&mut self, name: &str, run: impl FnOnce() -> Result<bool>) {
        self.stage(name, |counts| {
            if run()? {
                counts.passed += 1;
            } else {
                counts.fail(name, "see above");
            }
            Ok(())
        });
    }

    pub(super) fn failed(&self) -> bool {
        self.stages
            .iter()
            .any(|(_, counts, _)| !counts.failed.is_empty())
    }

    /// Prints what failed, what was skipped and why, the stages with their times, and the sum.
    pub(super) fn print(&self) {
        println!();
        for (stage, counts, _) in &self.stages {
            for (name, reason) in &counts.skipped {
                println!("SKIPPED {name} ({stage}): {}", first_line(reason));
            }
        }
        for (stage, counts, _) in &self.stages {
            for (name, reason) in &counts.failed {
                println!("FAILED {name} ({stage}): {}", first_line(reason));
            }
        }
        println!();
        let mut all = Duration::ZERO;
        for (stage, counts, time) in &self.stages {
            let (failed, skipped) = (counts.failed.len(), counts.skipped.len());
            let passed = counts.passed;
            println!(
                "{stage:<30} {passed:>5} passed {failed:>4} failed {skipped:>4} skipped  {:>14}",
                spoken(*time)
            );
            all += *time;
        }
        println!("{:<63} {:>14}", "all stages", spoken(all));
        let sum = |of: fn(&Counts) -> u64| self.stages.iter().map(|(_, c, _)| of(c)).sum::<u64>();
        println!(
            "{} passed, {} failed, {} skipped",
            sum(|c| c.passed),
            sum(|c| c.failed.len() as u64),
            sum(|c| c.skipped.len() as u64)
        );
    }
}

fn first_line(text: &str) -> String {
    plain(text.lines().next().unwrap_or_default())
}

/// Reads the standard output of `cargo test -- --show-output`.
#[derive(Default)]
pub(super) struct Reader {
    passed: u64,
    failed: Vec<String>,
    failed_count: u64,
    skipped: BTreeMap<String, String>,
    /// Between `successes:` and what follows it: the chatter of passing tests.
    in_successes: bool,
}

impl Reader {
    /// Takes one line; tells whether it is worth showing.
    pub(super) fn read(&mut self, line: &str) -> bool {
        match line {
            "successes:" => self.in_successes = true,
            "failures:" => self.in_successes = false,
            _ => {}
        }
        if let Some(result) = line.strip_prefix("test result: ") {
            self.in_successes = false;
            self.passed += count(result, "passed");
            self.failed_count += count(result, "failed");
        } else if let Some((_, result)) = line.split_once("selftest: ") {
            // a test program of its own kind; its skipped cases are taken off again at the end
            self.passed += count(result, "passed") + count(result, "skipped");
            self.failed_count += count(result, "failed");
        } else if let Some(failed) = line.strip_prefix("failed ") {
            self.failed.push(failed.trim().to_owned());
        } else if let Some((name, outcome)) = line
            .strip_prefix("test ")
            .and_then(|test| test.split_once(" ... "))
        {
            match outcome.split(',').next().unwrap_or_default() {
                "FAILED" => self.failed.push(name.to_owned()),
                "ignored" => {
                    let reason = outcome
                        .split_once(", ")
                        .map_or("marked #[ignore]", |(_, why)| why);
                    self.skipped
                        .insert(format!("ignored {name}"), reason.to_owned());
                }
                _ => {}
            }
        }
        let skip = line.starts_with("SKIPPED ");
        self.skip_line(line);
        skip || !(self.in_successes || line.trim().is_empty())
    }

    /// Takes a line `SKIPPED <name>: <reason>`; others are nothing to it.
    pub(super) fn skip_line(&mut self, line: &str) {
        if let Some(skip) = line.strip_prefix("SKIPPED ") {
            let (name, reason) = skip
                .trim()
                .split_once(": ")
                .unwrap_or((skip, "no reason given"));
            self.skipped.insert(name.to_owned(), reason.to_owned());
        }
    }

    /// What said that it was skipped, and why.
    pub(super) fn skips(&self) -> impl Iterator<Item = (&str, &str)> {
        self.skipped
            .iter()
            .map(|(name, reason)| (name.as_str(), reason.as_str()))
    }

    /// Adds what was read. A test that skips itself passes in cargo's eyes, so it is taken off there.
    pub(super) fn conclude(self, counts: &mut Counts, name: &str, success: bool) {
        let selves = self
            .skipped
            .keys()
            .filter(|name| !name.starts_with("ignored "))
            .count() as u64;
        counts.passed += self.passed.saturating_sub(selves);
        for (name, reason) in self.skips() {
            counts.skip(name, reason);
        }
        for test in &self.failed {
            counts.fail(test, "see its output above");
        }
        // a binary that died or did not compile has no line for each test
        let unnamed = self.failed_count > self.failed.len() as u64;
        if unnamed || (!success && self.failed.is_empty()) {
            counts.fail(
                name,
                "cargo test failed beyond the tests named here: see above",
            );
        }
    }
}

/// The number before `word` in `ok. 5 passed; 0 failed; ...`.
fn count(result: &str, word: &str) -> u64 {
    let mut words = result.split([' ', ';', ',']).filter(|w| !w.is_empty());
    let mut before = 0;
    words
        .find_map(|w| {
            if w == word {
                return Some(before);
            }
            before = w.parse().unwrap_or(0);
            None
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 4 tests
test a::one ... ok
test a::two ... ok
test a::three ... FAILED
test a::four ... ignored, needs a second machine

successes:

---- a::one stdout ----
chatter
SKIPPED one: not root

successes:
    a::one
    a::two

failures:

---- a::three stdout ----
assertion failed

failures:
    a::three

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s
";

    fn read(text: &str, success: bool) -> (Counts, Vec<&str>) {
        let mut reader = Reader::default();
        let shown = text.lines().filter(|line| reader.read(line)).collect();
        let mut counts = Counts::default();
        reader.conclude(&mut counts, "unit", success);
        (counts, shown)
    }

    #[test]
    fn counts_and_reasons_are_read() {
        let (counts, shown) = read(OUTPUT, false);
        assert_eq!(counts.passed, 1, "two passed, one of them skipped itself");
        assert_eq!(counts.failed.len(), 1);
        assert_eq!(counts.failed[0].0, "a::three");
        let skipped: Vec<_> = counts
            .skipped
            .iter()
            .map(|(n, r)| (n.as_str(), r.as_str()))
            .collect();
        assert_eq!(
            skipped,
            [
                ("ignored a::four", "needs a second machine"),
                ("one", "not root")
            ]
        );
        assert!(!shown.contains(&"chatter"));
        assert!(shown.contains(&"assertion failed"));
        assert!(shown.contains(&"SKIPPED one: not root"));
        assert!(shown.iter().any(|line| line.starts_with("test result")));
    }

    #[test]
    fn a_self_test_is_counted() {
        let text = "passed   open\nSKIPPED  exec: no hook\nfailed   mmap: nothing seen\n\
                    kernel selftest: 1 passed, 1 skipped, 1 failed";
        let (counts, _) = read(text, false);
        assert_eq!(
            (counts.passed, counts.failed.len(), counts.skipped.len()),
            (1, 1, 1)
        );
        assert_eq!(counts.failed[0].0, "mmap: nothing seen");
        assert_eq!(counts.skipped[0], ("exec".to_owned(), "no hook".to_owned()));
    }

    #[test]
    fn a_failure_without_a_named_test_is_counted() {
        let (counts, _) = read("", false);
        assert_eq!((counts.passed, counts.failed.len()), (0, 1));
        let (counts, _) = read("test result: ok. 7 passed; 0 failed; 0 ignored", true);
        assert_eq!((counts.passed, counts.failed.len()), (7, 0));
        let (counts, _) = read("test result: FAILED. 7 passed; 1 failed; 0 ignored", false);
        assert_eq!((counts.passed, counts.failed.len()), (7, 1));
    }
}
