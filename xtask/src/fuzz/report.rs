//! What is said of the runs.

use super::state::State;
use super::targets::{TARGETS, Target};

/// One target in one line.
pub(super) fn line(name: &str, state: &State) -> String {
    format!(
        "{name}: {} executions in {:.0} s, {} inputs kept, {} crashes",
        state.executions, state.seconds, state.corpus, state.crashes
    )
}

/// The report of every target, run or not.
pub(super) fn write(conditions: &str, state: &dyn Fn(&Target) -> State) -> String {
    let mut rows: Vec<(u64, String)> = TARGETS
        .iter()
        .map(|target| {
            let state = state(target);
            let rate = if state.seconds > 0.0 {
                #[expect(clippy::cast_precision_loss, reason = "for people")]
                let executions = state.executions as f64;
                format!("{:.0}", executions / state.seconds)
            } else {
                "-".to_owned()
            };
            let row = format!(
                "| {} | {} | {} | {:.0} | {rate} | {} | {} | {} |\n",
                target.name,
                target.longest,
                state.executions,
                state.seconds,
                state.corpus,
                state.crashes,
                state.builds.join(" to ")
            );
            (target.longest, row)
        })
        .collect();
    rows.sort();
    let rows: String = rows.into_iter().map(|(_, row)| row).collect();
    format!(
        "# Fuzzing\n\n{conditions}\nlibFuzzer with edge counters and compared values, no sanitizer, one \
         core, one target after the other; overflow checks and debug assertions on. An input over \
         {} s or {} MiB counts as a crash. Crashes are those found in all runs; a target with one \
         that is not mended is not run on. The builds are the first and the last that were run. \
         Where there are only a few thousand executions, little more than the seeds was run. \
         Seconds are those of the clock: beside other work a target makes fewer executions in one.\n\n\
         | target | longest input, bytes | executions | seconds | a second | inputs kept | crashes | builds |\n\
         |---|---:|---:|---:|---:|---:|---:|---|\n{rows}",
        super::SLOW,
        super::MEMORY
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_was_not_run_says_so() {
        let report = write("- here\n", &|_| State::default());
        assert_eq!(
            report.matches("| 0 | 0 | - | 0 | 0 |").count(),
            TARGETS.len()
        );
    }
}
