//! Ctrl-C in the middle of the demo leaves nothing behind.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test program fails by panicking, its helpers too"
)]

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use keytrail_tests::lab::Lab;
use keytrail_tests::lab::child::{Proc, wait_for};
use keytrail_tests::probe;
use keytrail_tests::traces::{Traces, children_named, programs_held_by, programs_loaded};
use nix::sys::signal::Signal;

const DEMO: &str = env!("CARGO_BIN_EXE_demo");

/// Starts the demo with `args`, waits until its story says `cue`, and interrupts it. Returns the BPF
/// programs that its sensor held then.
fn interrupt(args: &[&str], cue: &str) -> BTreeSet<u32> {
    let mut demo = demo_at(args, cue);
    let sensors = children_named(demo.id(), "sensor-agent");
    let held = sensors
        .iter()
        .flat_map(|pid| programs_held_by(*pid))
        .collect();
    demo.signal(Signal::SIGINT).unwrap();
    let status = demo.finish(Duration::from_mins(2)).unwrap();
    assert_eq!(
        status.code(),
        Some(130),
        "the exit code says that it was interrupted"
    );
    held
}

/// The demo, running, at the point where its story says `cue`.
fn demo_at(args: &[&str], cue: &str) -> Proc {
    let mut command = Command::new(DEMO);
    command.args(args);
    let mut demo = Proc::start("demo", command, "").unwrap();
    let until = Instant::now() + Duration::from_mins(5);
    loop {
        let line = demo.line(Duration::from_mins(1)).unwrap_or_default();
        if line.contains(cue) {
            return demo;
        }
        let ended = demo.ended().unwrap();
        assert!(
            ended.is_none(),
            "the demo ended early: {ended:?} {}",
            demo.last_words()
        );
        assert!(Instant::now() < until, "the demo never said {cue:?}");
    }
}

#[test]
fn ctrl_c_takes_the_stage_down() {
    let name = "ctrl_c_takes_the_stage_down";
    let Some(_on) = probe::stage(name, DEMO) else {
        return;
    };
    let before = Traces::now().unwrap();
    // While the agent works: namespaces, cgroups, a dozen processes.
    interrupt(&["--stage-only"], "the agent is at work");
    assert_eq!(Traces::now().unwrap().since(&before), Vec::<String>::new());
}

/// `kill -9` gives the demo no chance: its children die with it, and the next stage removes the rest.
#[test]
fn the_next_run_removes_what_a_killed_one_left() {
    let name = "the_next_run_removes_what_a_killed_one_left";
    let Some(on) = probe::stage(name, DEMO) else {
        return;
    };
    let before = Traces::now().unwrap();
    let mut demo = demo_at(&["--stage-only"], "the agent is at work");
    demo.signal(Signal::SIGKILL).unwrap();
    demo.finish(Duration::from_mins(1)).unwrap();
    assert_ne!(
        Traces::now().unwrap().since(&before),
        Vec::<String>::new(),
        "something is left"
    );
    drop(Lab::build(on.tools, &on.demo).unwrap());
    assert_eq!(Traces::now().unwrap().since(&before), Vec::<String>::new());
}

#[test]
fn ctrl_c_takes_the_sensor_out_of_the_kernel() {
    let name = "ctrl_c_takes_the_sensor_out_of_the_kernel";
    let Some(_on) = probe::stage(name, DEMO) else {
        return;
    };
    if probe::sensor(name, DEMO).is_none() {
        return;
    }
    let before = Traces::now().unwrap();
    let held = interrupt(&[], "sensor live");
    assert!(
        !held.is_empty(),
        "the sensor held BPF programs while it ran"
    );
    // The kernel frees programs a moment after the last descriptor is closed.
    wait_for(
        "the end of the sensor's BPF programs",
        Duration::from_mins(1),
        || Ok(programs_loaded()?.is_disjoint(&held).then_some(())),
    )
    .unwrap();
    assert_eq!(Traces::now().unwrap().since(&before), Vec::<String>::new());
}
