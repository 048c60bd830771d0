//! `cargo xtask fuzz`: builds the fuzz targets with libFuzzer's coverage and runs each for a given
//! number of executions, from where the last run ended.
//!
//! The code under test is safe Rust, so what a target finds are panics: of an invariant, of an index,
//! of an overflow. They need no sanitizer, which halves the speed; `--sanitizer address` is for the
//! few C libraries behind the parsers (SQLite, zstd).

mod report;
mod state;
mod targets;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use self::state::State;
use self::targets::{TARGETS, Target};
use crate::bench::conditions;
use crate::cmd;
use crate::ui::{Step, Ui};
use crate::workspace::Workspace;

/// Executions after which progress is written down, so that a killed run loses no more.
const SLICE: u64 = 1_000_000;
/// Seconds that one input may take.
const SLOW: u32 = 25;
/// Memory that a target may use, MiB.
const MEMORY: u32 = 2048;
/// What the compiler adds for libFuzzer: a counter at every edge, and the values of comparisons.
const COVERAGE: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// `cargo xtask fuzz`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Executions of each target, those of earlier runs included; with 0 nothing is built or run,
    /// and the report is of what was run before
    #[arg(long, default_value_t = 100_000)]
    runs: u64,
    /// Only this target (more than once for more than one)
    #[arg(long = "target", value_name = "NAME")]
    targets: Vec<String>,
    /// Watch memory accesses of C code too
    #[arg(long, value_enum, default_value_t = Sanitizer::None)]
    sanitizer: Sanitizer,
    /// Write the report to docs/benchmarks/fuzz.md too
    #[arg(long)]
    save: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sanitizer {
    /// Panics only
    None,
    /// AddressSanitizer
    Address,
}

/// Where the work is kept: `target/keytrail/fuzz`, or `fuzz-address` beside it, so that what one
/// build has run is not taken for the other's.
struct Bench<'a> {
    ws: &'a Workspace,
    /// Folder of the built targets.
    programs: PathBuf,
    /// Corpora, crashes, seeds and states.
    dir: PathBuf,
    commit: String,
}

/// Runs the targets one after the other, those with the smallest inputs first.
pub(crate) fn run(ws: &Workspace, ui: &Ui, args: &Args) -> Result<()> {
    ensure!(
        !args.save || args.sanitizer == Sanitizer::None,
        "--save writes the report of the runs without a sanitizer: leave --sanitizer out"
    );
    let chosen = choose(&args.targets)?;
    let bench = if args.runs == 0 {
        Bench::of(ws, args.sanitizer)?
    } else {
        build(ws, ui, args.sanitizer)?
    };
    let mut failed = Vec::new();
    for target in chosen.iter().filter(|_| args.runs > 0) {
        let step = ui.step(format!("{} to {} executions", target.name, args.runs));
        match bench.fuzz(&step, target, args.runs) {
            Ok(state) => ui.say(report::line(target.name, &state)),
            Err(error) => {
                ui.warn(format!("{}: {error:#}", target.name));
                failed.push(target.name);
            }
        }
        step.done();
    }
    let report = report::write(&conditions::describe(ws)?, &|target| bench.state(target));
    println!("{report}");
    if args.save {
        let path = ws.root.join("docs/benchmarks/fuzz.md");
        fs::write(&path, report).with_context(|| format!("cannot write {}", path.display()))?;
        ui.say(format!("saved as {}", ws.shown(&path)));
    }
    ensure!(
        failed.is_empty(),
        "targets with a crash: {}; run one alone with --target to see it",
        failed.join(", ")
    );
    Ok(())
}

/// The targets of these names, all when there is none, by the length of their inputs.
fn choose(names: &[String]) -> Result<Vec<&'static Target>> {
    for name in names {
        ensure!(
            TARGETS.iter().any(|target| target.name == name),
            "there is no fuzz target \"{name}\"; there are: {}",
            TARGETS.map(|target| target.name).join(", ")
        );
    }
    let wanted = |target: &&Target| names.is_empty() || names.iter().any(|n| n == target.name);
    let mut chosen: Vec<&Target> = TARGETS.iter().filter(wanted).collect();
    chosen.sort_by_key(|target| (target.longest, target.name));
    Ok(chosen)
}

fn build<'a>(ws: &'a Workspace, ui: &Ui, sanitizer: Sanitizer) -> Result<Bench<'a>> {
    let extra = match sanitizer {
        Sanitizer::None => "",
        Sanitizer::Address => " -Zsanitizer=address",
    };
    let step = ui.step("building the fuzz targets");
    // Not --locked: the lock file of this workspace follows the crates that it fuzzes.
    let mut cargo = ws.cargo(&["build", "--release", "--bins", "--target"]);
    cargo
        .arg(host_triple()?)
        .current_dir(ws.root.join("fuzz"))
        .env("CARGO_TARGET_DIR", sanitizer.target(ws))
        .env(
            "RUSTFLAGS",
            format!("{}{extra} --cfg fuzzing", COVERAGE.join(" ")),
        );
    if sanitizer != Sanitizer::None {
        // The stable compiler knows the flag, and takes it only so.
        cargo.env("RUSTC_BOOTSTRAP", "1");
    }
    cmd::quiet(ws, &step, "build-fuzz", &mut cargo)?;
    step.done();
    Bench::of(ws, sanitizer)
}

impl Sanitizer {
    fn folder(self) -> &'static str {
        match self {
            Self::None => "fuzz",
            Self::Address => "fuzz-address",
        }
    }

    /// Cargo's target folder: the flags differ, and so does everything that is built.
    fn target(self, ws: &Workspace) -> PathBuf {
        ws.target.join(self.folder())
    }
}

/// Build scripts must not get the coverage's flags, which cargo ensures when a target is named.
fn host_triple() -> Result<String> {
    let said = cmd::output(Command::new("rustc").arg("-vV")).context("cannot run `rustc -vV`")?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc -vV` names no host")
}

impl<'a> Bench<'a> {
    /// What is built now, or was before.
    fn of(ws: &'a Workspace, sanitizer: Sanitizer) -> Result<Self> {
        let commit = cmd::output(
            Command::new("git")
                .arg("-C")
                .arg(&ws.root)
                .args(["describe", "--always", "--dirty"]),
        );
        Ok(Self {
            ws,
            programs: sanitizer.target(ws).join(host_triple()?).join("release"),
            dir: ws.cache.join(sanitizer.folder()),
            commit: commit.unwrap_or_else(|| "unknown".to_owned()),
        })
    }

    fn state(&self, target: &Target) -> State {
        State::read(&self.state_file(target)).unwrap_or_default()
    }

    fn state_file(&self, target: &Target) -> PathBuf {
        self.dir.join("state").join(format!("{}.json", target.name))
    }

    fn folder(&self, kind: &str, target: &Target) -> Result<PathBuf> {
        let dir = self.dir.join(kind).join(target.name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(dir)
    }

    /// Runs one target until it has `runs` executions in all, or crashes.
    fn fuzz(&self, step: &Step, target: &Target, runs: u64) -> Result<State> {
        let corpus = self.folder("corpus", target)?;
        let crashes = self.folder("crashes", target)?;
        let mut state = self.state(target);
        self.again(target, &crashes, &corpus)?;
        if state.executions == 0 {
            let seeds = self.folder("seeds", target)?;
            targets::plant(self.ws, target, &seeds)?;
        }
        while state.executions < runs {
            let slice = SLICE.min(runs - state.executions);
            step.now(&format!("{} of {runs}", state.executions));
            let crashed = self.slice(target, &corpus, &crashes, slice, &mut state);
            state.corpus = files(&corpus)?.len();
            state.built(&self.commit);
            state.write(&self.state_file(target))?;
            crashed?;
        }
        Ok(state)
    }

    /// One run of the program; its executions are counted even when it ends with a crash.
    fn slice(
        &self,
        target: &Target,
        corpus: &Path,
        crashes: &Path,
        runs: u64,
        state: &mut State,
    ) -> Result<()> {
        let mut fuzzer = Command::new(self.programs.join(target.name));
        fuzzer
            .arg(format!("-runs={runs}"))
            .arg(format!("-max_len={}", target.longest))
            .arg(format!("-timeout={SLOW}"))
            .arg(format!("-rss_limit_mb={MEMORY}"))
            .arg(format!("-artifact_prefix={}/", crashes.display()))
            .args(["-print_final_stats=1", "-verbosity=1"])
            .arg(corpus)
            .arg(self.folder("seeds", target)?);
        let before = Instant::now();
        let mut tail = cmd::Tail::default();
        let mut done = None;
        let log = self.ws.logs().join(format!("fuzz-{}.log", target.name));
        let status = cmd::stream(&mut fuzzer, &log, |_, line| {
            tail.push(line);
            if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
                done = count.trim().parse::<u64>().ok();
            }
        })?;
        state.executions += done.unwrap_or(0);
        state.seconds += before.elapsed().as_secs_f64();
        if status.success() {
            ensure!(
                done.is_some_and(|done| done > 0),
                "the fuzzer said nothing of its executions:\n{tail}"
            );
            return Ok(());
        }
        state.crashes += 1;
        anyhow::bail!(
            "it crashed ({status}); the input is in {}:\n{tail}",
            crashes.display()
        )
    }

    /// Inputs that crashed before: mended ones join the corpus, the others stop the target.
    fn again(&self, target: &Target, crashes: &Path, corpus: &Path) -> Result<()> {
        for input in files(crashes)? {
            let mut once = Command::new(self.programs.join(target.name));
            once.arg(format!("-timeout={SLOW}"))
                .arg(format!("-rss_limit_mb={MEMORY}"))
                .arg(&input);
            let log = self.ws.logs().join(format!("fuzz-{}.log", target.name));
            let mut tail = cmd::Tail::default();
            let status = cmd::stream(&mut once, &log, |_, line| tail.push(line))?;
            ensure!(
                status.success(),
                "{} still crashes ({status}):\n{tail}",
                input.display()
            );
            let name = input.file_name().unwrap_or_default();
            fs::rename(&input, corpus.join(name))
                .with_context(|| format!("cannot move {}", input.display()))?;
        }
        Ok(())
    }
}

/// The files of a folder, by name.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    Ok(files)
}
