//! What the sensor costs: nanoseconds of CPU time per operation without a sensor, for a process that
//! is not tracked, and for one that is.
//!
//! The rounds of the variants are interleaved, so that a busy machine disturbs all alike; medians
//! are printed. The workload runs as a process of its own in a scratch cgroup and measures its own
//! thread's CPU time, which holds everything that hooks do in its context.

mod peers;

use std::{collections::BTreeMap, fs::File, process::ExitCode};

use self::peers::{PEERS, Peer};
use super::{
    event::{FileId, ProcKey},
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
/// plan, `--no-syscall-exit` leaves that hook out, `--peers` measures other observers in the same
/// rounds.
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
    let peers = if args.iter().any(|a| a == "--peers") {
        PEERS
    } else {
        &[]
    };
    let mut bench = Bench {
        prefix: prefix.iter().map(|s| (*s).to_owned()).collect(),
        n,
        table: Table::new(),
        cannot: BTreeMap::new(),
    };
    match bench.measure(&config, rounds, peers) {
        Ok(plan) => {
            println!(
                "kernel {}, plan {plan}, {rounds} rounds, medians of CPU ns",
                kernel_release()
            );
            for (peer, reason) in &bench.cannot {
                println!("{}", serde_json::json!({"peer": peer, "cannot": reason}));
            }
            for ((workload, variant), mut samples) in bench.table {
                samples.sort_unstable();
                let median = samples.get(samples.len() / 2).copied().unwrap_or(0);
                if args.iter().any(|a| a == "--json") {
                    println!(
                        "{}",
                        serde_json::json!({"workload": workload, "variant": variant, "ns": median})
                    );
                } else {
                    println!("{workload:14} {variant:28} {median:7}");
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

type Table = BTreeMap<(&'static str, String), Vec<u64>>;
type Failure = Box<dyn std::error::Error>;

/// A measurement under way.
struct Bench {
    prefix: Vec<String>,
    n: u32,
    table: Table,
    /// Peers that do not run here, and why.
    cannot: BTreeMap<&'static str, String>,
}

impl Bench {
    fn measure(
        &mut self,
        config: &SensorConfig,
        rounds: u32,
        peers: &[Peer],
    ) -> Result<&'static str, Failure> {
        let mut plan = "";
        for _ in 0..rounds {
            let cgroup = Cgroup::create("keytrail-bench")?;
            self.samples(&cgroup, "1 none", |_| Ok(()))?;
            for (at, peer) in peers.iter().enumerate() {
                if self.cannot.contains_key(peer.name) {
                    continue;
                }
                match peer.start(cgroup.path()) {
                    Ok(_running) => {
                        self.samples(&cgroup, &format!("6{at} {}", peer.name), |_| Ok(()))?;
                    }
                    Err(reason) => drop(self.cannot.insert(peer.name, reason)),
                }
            }
            drop(cgroup);
            plan = self.with_sensor(config)?;
        }
        Ok(plan)
    }

    fn with_sensor(&mut self, config: &SensorConfig) -> Result<&'static str, Failure> {
        let prefix: Vec<String> = self.prefix.clone();
        let borrowed: Vec<&str> = prefix.iter().map(String::as_str).collect();
        let mut stage = match Stage::set(&borrowed, config.clone()) {
            Ok(stage) => stage,
            Err(StageError::Cannot(why) | StageError::Broken(why)) => return Err(why.into()),
        };
        let watch = stage.sensor.watch();
        let track = |tgid| Ok(watch.track(ProcKey { tgid, start_ns: 0 })?);
        self.samples(&stage.cgroup, "3 tracked, nothing watched", track)?;
        stage.sensor.drain(&mut Vec::new());
        // Something is watched, as in use; the workload touches none of it.
        let watched = stage.dir.0.join("watched");
        std::fs::write(&watched, "x")?;
        watch.add_inode(FileId::at(&watched)?)?;
        self.samples(&stage.cgroup, "2 untracked", |_| Ok(()))?;
        self.samples(&stage.cgroup, "4 tracked", track)?;
        stage.sensor.drain(&mut Vec::new());
        // The file that the workload opens.
        watch.add_inode(FileId::at(&std::env::current_exe()?)?)?;
        self.samples(&stage.cgroup, "5 tracked, this file watched", track)?;
        stage.sensor.drain(&mut Vec::new());
        Ok(stage.sensor.plan().name())
    }

    fn samples(
        &mut self,
        cgroup: &Cgroup,
        variant: &str,
        prepare: impl Fn(u32) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        for (workload, act) in WORKLOADS {
            let ns = sample(&self.prefix, cgroup, act, self.n, &prepare)?;
            let cell = (*workload, variant.to_owned());
            self.table.entry(cell).or_default().push(ns);
        }
        Ok(())
    }
}

/// One run of one workload: CPU nanoseconds per operation.
fn sample(
    prefix: &[String],
    cgroup: &Cgroup,
    act: &str,
    n: u32,
    prepare: impl Fn(u32) -> Result<(), Failure>,
) -> Result<u64, Failure> {
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
