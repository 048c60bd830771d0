//! `cargo xtask test`: every check of the project, counted.
//!
//! A machine without root, BPF, KVM or the network still passes: what it cannot run is counted as
//! skipped, with the reason. The last line is `N passed, N failed, N skipped`.

mod report;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::ValueEnum;

use self::report::{Counts, Reader, Report};
use crate::cmd::{self, Crates, Output};
use crate::setup::{self, Group, Series};
use crate::ui::Ui;
use crate::vm::{self, Load, Outcome};
use crate::workspace::Workspace;
use crate::{deliveries, demo, lint, products};

/// Names the file on which a test leaves `SKIPPED <name>: <reason>` when it cannot run here.
const SKIPS: &str = "KEYTRAIL_SKIPS";

/// `cargo xtask test`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run one part only
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Leave the guest kernels out
    #[arg(long)]
    no_vm: bool,
}

/// A part that can be run alone.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Format and clippy
    Lint,
    /// Unit, property and integration tests of every crate but the end-to-end ones
    Unit,
    /// The end-to-end tests on this kernel
    E2e,
    /// Deliveries against real and independent servers; only when asked for by name
    Deliveries,
    /// The demo
    Demo,
    /// The guest kernels
    Vm,
}

impl Args {
    fn wants(&self, part: Part) -> bool {
        let by_default = part != Part::Deliveries && !(self.no_vm && part == Part::Vm);
        self.only.map_or(by_default, |only| only == part)
    }
}

/// Exits 0 only when nothing failed.
pub(crate) fn run(ws: &Workspace, ui: &Ui, args: &Args) -> ExitCode {
    let mut report = Report::default();
    let since = Instant::now();
    if let Err(error) = setup::provide(ws, ui, Group::Toolchain) {
        // the build itself says what it misses; whatever else runs still counts
        ui.warn(format!("{error:#}"));
    }
    report.time("the toolchain", since.elapsed());
    if args.wants(Part::Lint) {
        report.check("format", || lint::format(ws, ui));
        report.check("clippy", || lint::clippy(ws, ui));
    }
    if args.wants(Part::Unit) || args.wants(Part::E2e) || args.wants(Part::Demo) {
        report.check("build", || {
            products::build_with_tests(ws, ui).map(|()| true)
        });
    } else if args.wants(Part::Vm) {
        report.check("build", || products::build(ws, ui).map(|()| true));
    }
    if args.wants(Part::Unit) {
        report.stage("unit, property, integration", |counts| unit(ws, ui, counts));
    }
    if args.wants(Part::E2e) || args.wants(Part::Demo) {
        on_this_kernel(ws, ui, args, &mut report);
    }
    if args.wants(Part::Deliveries) {
        report.stage("deliveries", |counts| deliver(ws, ui, counts));
    }
    if args.wants(Part::Vm) {
        guests(ws, ui, &mut report);
    }
    report.print();
    if report.failed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Everything but the end-to-end tests. Always for the whole workspace: cargo would otherwise choose
/// other features of the libraries and compile them again.
fn unit(ws: &Workspace, ui: &Ui, counts: &mut Counts) -> Result<()> {
    let mut targets = vec!["--lib".to_owned(), "--bins".to_owned()];
    // a name that the end-to-end tests share with others is left to their stage
    let theirs = integration_tests(&ws.root.join("tests"));
    for dir in fs::read_dir(&ws.root)?.flatten() {
        let names = integration_tests(&dir.path());
        targets.extend(select(
            names.into_iter().filter(|name| !theirs.contains(name)),
        ));
    }
    cargo_test(ws, ui, counts, "unit", &targets)?;
    cargo_test(ws, ui, counts, "doc", &["--doc".to_owned()])
}

/// The deliveries, with every Cargo feature, against the parts that are installed for them.
fn deliver(ws: &Workspace, ui: &Ui, counts: &mut Counts) -> Result<()> {
    setup::provide(ws, ui, Group::Lab)?;
    deliveries::install(ws, ui)?;
    for (name, targets) in [
        ("deliveries-unit", ["--lib", "sources::"]),
        ("deliveries", ["--test", "delivery"]),
    ] {
        let features = ["--features", deliveries::FEATURES];
        let targets = features.iter().chain(&targets);
        let targets: Vec<String> = targets.map(|one| (*one).to_owned()).collect();
        cargo_test(ws, ui, counts, name, &targets)?;
    }
    Ok(())
}

/// The integration tests of the package in `dir`.
fn integration_tests(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir.join("tests"))
        .into_iter()
        .flatten()
        .flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "rs") || path.join("main.rs").exists())
        .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    names
}

/// `--test NAME` for each.
fn select(names: impl IntoIterator<Item = String>) -> Vec<String> {
    names
        .into_iter()
        .flat_map(|name| ["--test".to_owned(), name])
        .collect()
}

/// The end-to-end tests and the demo, which share the lab.
fn on_this_kernel(ws: &Workspace, ui: &Ui, args: &Args, report: &mut Report) {
    let since = Instant::now();
    let lab = setup::provide(ws, ui, Group::Lab).and_then(|()| demo::install(ws, ui));
    match &lab {
        Ok(()) if args.wants(Part::E2e) => demo::install_agents(ws, ui),
        Ok(()) => {}
        Err(error) => ui.warn(format!("{error:#}")),
    }
    report.time("the lab's programs", since.elapsed());
    let tests = select(integration_tests(&ws.root.join("tests")));
    if args.wants(Part::E2e) && !tests.is_empty() {
        report.stage("end to end", |counts| {
            cargo_test(ws, ui, counts, "e2e", &tests)
        });
    }
    if args.wants(Part::Demo) {
        report.stage("demo", |counts| match (&lab, demo::obstacle()) {
            (_, Some(reason)) => {
                counts.skip("demo", &reason);
                Ok(())
            }
            (Ok(()), None) => play(ws, ui, counts),
            (Err(error), None) => {
                counts.skip(
                    "demo",
                    &format!("its programs cannot be installed: {error:#}"),
                );
                Ok(())
            }
        });
    }
}

/// Runs `cargo test`, shows its output without the chatter of passing tests, and counts.
fn cargo_test(
    ws: &Workspace,
    ui: &Ui,
    counts: &mut Counts,
    name: &str,
    targets: &[String],
) -> Result<()> {
    let skips = ws.cache.join(format!("skips-{name}"));
    cmd::create_log(&skips)?;
    let mut cargo = ws.cargo(&[
        "test",
        "--release",
        "--locked",
        "--workspace",
        "--no-fail-fast",
    ]);
    cargo.args(targets).args(["--", "--show-output"]);
    cargo.env(SKIPS, &skips).envs(demo::environment(ws));
    cargo.env("KEYTRAIL_PARTS", deliveries::folder(ws));
    let step = ui.step(format!("cargo test ({name})"));
    let mut reader = Reader::default();
    let mut crates = Crates::default();
    let log = ws.logs().join(format!("test-{name}.log"));
    let status = cmd::stream(&mut cargo, &log, |output, line| {
        let show = match output {
            Output::Out => reader.read(line),
            Output::Err => !crates.is_noise(line),
        };
        if show {
            step.line(line);
        } else {
            step.now(line);
        }
    })?;
    step.done();
    let left =
        fs::read_to_string(&skips).with_context(|| format!("reading {}", skips.display()))?;
    left.lines().for_each(|line| reader.skip_line(line));
    reader.conclude(counts, name, status.success());
    Ok(())
}

/// Runs the demo.
fn play(ws: &Workspace, ui: &Ui, counts: &mut Counts) -> Result<()> {
    let step = ui.step("the demo");
    let log = ws.logs().join("demo.log");
    let mut wrong = Vec::new();
    let mut last = String::new();
    let status = cmd::stream(&mut demo::command(ws), &log, |_, line| {
        step.line(line);
        if let Some((_, what)) = line.split_once("WRONG ") {
            wrong.push(what.to_owned());
        }
        if !line.trim().is_empty() {
            line.trim().clone_into(&mut last);
        }
    })?;
    step.done();
    if status.success() {
        counts.passed += 1;
        return Ok(());
    }
    // the log is gone with the machine: the report itself must say what was wrong
    if wrong.is_empty() {
        wrong.push(last);
    }
    let (wrong, log) = (wrong.join("; "), log.display());
    counts.fail("demo", &format!("{status}: {wrong}; log: {log}"));
    Ok(())
}

fn guests(ws: &Workspace, ui: &Ui, report: &mut Report) {
    let since = Instant::now();
    let ready = setup::provide(ws, ui, Group::Guest);
    report.time("the guests' kernels", since.elapsed());
    if let Err(error) = ready {
        report.stage("guest kernels", |counts| {
            for series in Series::ALL {
                counts.skip(&format!("guest {}", series.name()), &format!("{error:#}"));
            }
            Ok(())
        });
        return;
    }
    for series in Series::ALL {
        let name = format!("guest {}", series.name());
        report.stage(&name, |counts| {
            let load = Load::SelfTest {
                agent: &ws.binary("sensor-agent"),
                args: &[],
            };
            let run = vm::guest(ws, ui, series, &load)?;
            for case in run.cases {
                let full = format!("[{}] {}", series.name(), case.name);
                let reason = case.reason.as_deref().unwrap_or("no reason given");
                match case.outcome {
                    Outcome::Passed => counts.passed += 1,
                    Outcome::Failed => counts.fail(&full, reason),
                    Outcome::Skipped => counts.skip(&full, reason),
                }
            }
            Ok(())
        });
    }
}
