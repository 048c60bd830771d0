//! What the sensor costs: nanoseconds of CPU time per operation without a sensor, for a process that
//! is not tracked, and for one that is.
//!
//! The rounds of the variants are interleaved, so that a busy machine disturbs all alike; medians
//! are printed. The workload runs as a process of its own in a scratch cgroup and measures its own
//! thread's CPU time, which holds everything that hooks do in its context.

use std::{collections::BTreeMap, fs::File, process::ExitCode};

use super::{
    event::ProcKey,
    hooks::Plan,
    load::SensorConfig,
    preflight::kernel_release,
    selftest::stage::{Cgroup, Stage, StageError, go, start_actor},
};

/// Operations that are measured: name and the actor's act.
const WORKLOADS: &[(&str, &str)] = &[
    ("open+close", "bench-open"),
    ("connect+close", "bench-connect"),
    ("getppid", "bench-getppid"),
];

/// Runs the measurement and prints a table, or with `--json` one object a line. `--rounds N` (9) and
/// `--n N` (20,000 operations a round; a tenth of it for connects) set its size, `--plan A|B` the
/// plan, `--no-syscall-exit` leaves that hook out.
#[must_use]
#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is a command for people"
)]
pub fn run(prefix: &[&str], args: &[String]) -> ExitCode {
    let value = |name: &str| {
        args.iter()
            .position(|a| a == name)
            .and_then(|i| args.get(i + 1))
    };
    let number = |name, default| value(name).and_then(|v| v.parse().ok()).unwrap_or(default);
    let (rounds, n) = (number("--rounds", 9), number("--n", 20_000));
    let config = SensorConfig {
        force_plan: value("--plan").map(|p| if p == "A" { Plan::A } else { Plan::B }),
        syscall_exit: !args.iter().any(|a| a == "--no-syscall-exit"),
        ..SensorConfig::default()
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
    match measure(prefix, &config, rounds, n) {
        Ok((plan, table)) => {
            println!(
                "kernel {}, plan {plan}, {rounds} rounds, medians of CPU ns",
                kernel_release()
            );
            for ((workload, variant), mut samples) in table {
                samples.sort_unstable();
                let median = samples.get(samples.len() / 2).copied().unwrap_or(0);
                if args.iter().any(|a| a == "--json") {
                    println!(
                        "{}",
                        serde_json::json!({"workload": workload, "variant": variant, "ns": median})
                    );
                } else {
                    println!("{workload:14} {variant:10} {median:7}");
                }
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

type Table = BTreeMap<(&'static str, &'static str), Vec<u64>>;

fn measure(
    prefix: &[&str],
    config: &SensorConfig,
    rounds: u32,
    n: u32,
) -> Result<(&'static str, Table), Box<dyn std::error::Error>> {
    let mut table = Table::new();
    let mut plan = "";
    let prefix: Vec<String> = prefix.iter().map(|s| (*s).to_owned()).collect();
    for _ in 0..rounds {
        {
            let cgroup = Cgroup::create("keytrail-bench")?;
            for (workload, act) in WORKLOADS {
                let ns = sample(&prefix, &cgroup, act, n, |_| Ok(()))?;
                table.entry((workload, "1 none")).or_default().push(ns);
            }
        }
        let borrowed: Vec<&str> = prefix.iter().map(String::as_str).collect();
        let mut stage = match Stage::set(&borrowed, config.clone()) {
            Ok(stage) => stage,
            Err(StageError::Cannot(why) | StageError::Broken(why)) => return Err(why.into()),
        };
        plan = stage.sensor.plan().name();
        // Something is watched, as in use; the workload touches none of it.
        let watched = stage.dir.0.join("watched");
        std::fs::write(&watched, "x")?;
        stage
            .sensor
            .watch()
            .add_inode(super::event::FileId::at(&watched)?)?;
        for (workload, act) in WORKLOADS {
            let ns = sample(&prefix, &stage.cgroup, act, n, |_| Ok(()))?;
            table.entry((workload, "2 untracked")).or_default().push(ns);
            let watch = stage.sensor.watch();
            let track = |tgid| Ok(watch.track(ProcKey { tgid, start_ns: 0 })?);
            let ns = sample(&prefix, &stage.cgroup, act, n, track)?;
            table.entry((workload, "3 tracked")).or_default().push(ns);
            stage.sensor.drain(&mut Vec::new());
        }
    }
    Ok((plan, table))
}

/// One run of one workload: CPU nanoseconds per operation.
fn sample(
    prefix: &[String],
    cgroup: &Cgroup,
    act: &str,
    n: u32,
    prepare: impl FnOnce(u32) -> Result<(), Box<dyn std::error::Error>>,
) -> Result<u64, Box<dyn std::error::Error>> {
    let path = std::env::temp_dir().join(format!("keytrail-bench-{}", std::process::id()));
    let mut child = start_actor(
        prefix,
        cgroup,
        act,
        &n.to_string(),
        Some(File::create(&path)?),
    )?;
    prepare(child.id())?;
    go(&mut child)?;
    let status = child.wait()?;
    let text = std::fs::read_to_string(&path)?;
    std::fs::remove_file(&path)?;
    if !status.success() {
        return Err(format!("the workload {act} ended with {status}").into());
    }
    Ok(text.trim().parse()?)
}
