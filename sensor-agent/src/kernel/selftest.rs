//! The live cases: what the sensor must see on a real kernel.
//!
//! The same cases run as an integration test on the developer's kernel and, from one static binary,
//! in guests with other kernels. Actors are real processes in a cgroup of their own: this binary
//! again, started with `--actor`. A case that the running kernel cannot serve is counted as skipped
//! with its reason, never as passed.

mod actor;
mod cases;
#[cfg(test)]
mod catalogue;
mod facts;
mod ids;
mod loss;
mod silent;
pub(in crate::kernel) mod stage;

use std::{path::PathBuf, process::ExitCode};

use keytrail_model::coverage::{Coverage, CoverageState};

use self::stage::Stage;
use super::{hooks::Plan, load::SensorConfig};

/// What became of a case.
enum Outcome {
    Passed,
    Skipped(String),
    Failed(String),
}

/// Runs the cases and prints a line for each.
///
/// `prefix` is what this binary needs in front of `--actor` to get here again (the subcommand's
/// name, or nothing). Arguments: `--plan A|B` forces a plan; `--case TEXT` runs only cases whose name
/// contains it; `--json` prints one object a line (`case`, `outcome`, `reason`). Exits 0 if no case
/// failed.
#[must_use]
#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is a command for people"
)]
pub fn run(prefix: &[&str], args: &[String]) -> ExitCode {
    if let [flag, rest @ ..] = args
        && flag == "--actor"
    {
        return match actor::run(rest) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("actor {rest:?}: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let value = |name: &str| {
        args.iter()
            .position(|a| a == name)
            .and_then(|i| args.get(i + 1))
            .map(String::as_str)
    };
    let plan = match value("--plan") {
        Some("A") => Some(Plan::A),
        Some("B") => Some(Plan::B),
        _ => None,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start a runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let _guard = runtime.enter();
    let config = SensorConfig {
        force_plan: plan,
        ..SensorConfig::default()
    };
    let mut tally = Tally {
        json: args.iter().any(|a| a == "--json"),
        ..Tally::default()
    };
    run_all(
        prefix,
        &config,
        value("--case").unwrap_or_default(),
        &mut tally,
    );
    let Tally {
        passed,
        skipped,
        failed,
        ..
    } = tally;
    println!("kernel selftest: {passed} passed, {skipped} skipped, {failed} failed");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Counts and prints.
#[derive(Default)]
struct Tally {
    json: bool,
    passed: u32,
    skipped: u32,
    failed: u32,
}

impl Tally {
    #[allow(clippy::print_stdout, reason = "see above")]
    fn report(&mut self, name: &str, outcome: Outcome) {
        let (word, reason) = match outcome {
            Outcome::Passed => ("passed", None),
            Outcome::Skipped(why) => ("skipped", Some(why)),
            Outcome::Failed(why) => ("failed", Some(why)),
        };
        match word {
            "passed" => self.passed += 1,
            "skipped" => self.skipped += 1,
            _ => self.failed += 1,
        }
        if self.json {
            println!(
                "{}",
                serde_json::json!({"case": name, "outcome": word, "reason": reason})
            );
        } else {
            let word = if word == "skipped" { "SKIPPED" } else { word };
            println!(
                "{word:8} {name}{}",
                reason.map(|r| format!(": {r}")).unwrap_or_default()
            );
        }
    }
}

#[allow(clippy::print_stdout, reason = "see above")]
fn run_all(prefix: &[&str], config: &SensorConfig, filter: &str, tally: &mut Tally) {
    match Stage::set(prefix, config.clone()) {
        Ok(mut stage) => {
            let (kernel, plan) = (&stage.sensor.coverage().kernel, stage.sensor.plan().name());
            println!("kernel {kernel}, plan {plan}");
            for row in &stage.sensor.coverage().rows {
                println!("  {:?}: {}: {:?}", row.area, row.what, row.state);
            }
            tally.report(
                "no program is refused by the verifier",
                refused(stage.sensor.coverage()),
            );
            for case in cases::all().filter(|c| c.name.contains(filter)) {
                let outcome = stage.play(case);
                tally.report(case.name, outcome);
            }
            let loss = stage.sensor.loss();
            let outcome = if loss.total_lost() == 0 {
                Outcome::Passed
            } else {
                Outcome::Failed(format!("{loss:?}"))
            };
            tally.report("nothing was lost", outcome);
        }
        Err(stage::StageError::Cannot(why)) => {
            tally.report("all live cases", Outcome::Skipped(why));
        }
        Err(stage::StageError::Broken(why)) => tally.report("load", Outcome::Failed(why)),
    }
    for (name, case) in stages().filter(|(name, _)| name.contains(filter)) {
        let outcome = case(prefix, config);
        tally.report(name, outcome);
    }
}

/// A hook that this kernel does not have is a limit, and its cases are skipped; a program that the
/// verifier refuses is a fault of ours, and the skips would hide it.
fn refused(coverage: &Coverage) -> Outcome {
    // The verifier's log ends with this line, whatever it has to say.
    const VERIFIED: &str = " insns (limit ";
    let refusals: Vec<&str> = coverage
        .rows
        .iter()
        .filter_map(|row| match &row.state {
            CoverageState::Missing { reason, .. } => Some(reason.as_str()),
            CoverageState::Live { .. } => None,
        })
        .filter(|reason| reason.contains(VERIFIED))
        .collect();
    if refusals.is_empty() {
        Outcome::Passed
    } else {
        Outcome::Failed(refusals.join("; "))
    }
}

/// A case that needs a sensor of its own.
type Play = fn(&[&str], &SensorConfig) -> Outcome;

/// Those cases.
fn stages() -> impl Iterator<Item = (&'static str, Play)> {
    loss::CASES.iter().copied().chain([
        (ids::REUSED, ids::reused as Play),
        (ids::OUTSIDER, ids::outsider),
        (facts::NAME, facts::play),
        (silent::NAME, silent::play),
    ])
}

/// Directory for the files of the cases: a real file system, if there is one.
fn work_dir() -> PathBuf {
    let base = if std::path::Path::new("/var/tmp").is_dir() {
        "/var/tmp"
    } else {
        "/tmp"
    };
    PathBuf::from(base).join(format!("keytrail-selftest-{}", std::process::id()))
}
