//! Loss is counted exactly: what was seen is what came out plus what was lost.

use std::time::Duration;

use keytrail_abi::RecordKind;

use super::{
    Outcome,
    stage::{Stage, StageError, go},
};
use crate::kernel::{KernelEvent, SensorConfig, event::ProcKey};

type Play = fn(&[&str], &SensorConfig) -> Outcome;

/// The cases.
pub(super) const CASES: &[(&str, Play)] = &[
    ("loss: rings overflow", rings_overflow),
    ("loss: process map full", map_full),
];

fn rings_overflow(prefix: &[&str], config: &SensorConfig) -> Outcome {
    // A page holds some dozen announcements and not one large piece.
    let config = SensorConfig {
        ring_bytes: Some(4096),
        ..config.clone()
    };
    play(prefix, config, "spin", "60", |events, loss| {
        let exec = loss.kind(RecordKind::Exec);
        let came = events
            .iter()
            .filter(|e| matches!(e, KernelEvent::Exec(_)))
            .count() as u64;
        if exec.ring_full == 0 {
            return Err("no ring overflowed".to_owned());
        }
        if came != exec.submitted {
            return Err(format!("{came} execs came, {exec:?}"));
        }
        Ok(())
    })
}

fn map_full(prefix: &[&str], config: &SensorConfig) -> Outcome {
    let config = SensorConfig {
        max_tracked: Some(4),
        ..config.clone()
    };
    play(prefix, config, "fan", "12", |events, loss| {
        let fork = loss.kind(RecordKind::Fork);
        let came = events
            .iter()
            .filter(|e| matches!(e, KernelEvent::Fork { .. }))
            .count() as u64;
        if fork.map_full == 0 {
            return Err("the map did not fill".to_owned());
        }
        if came != fork.submitted || fork.seen != 12 {
            return Err(format!("{came} forks came, {fork:?}"));
        }
        Ok(())
    })
}

type Check = fn(&[KernelEvent], &crate::kernel::stats::Loss) -> Result<(), String>;

fn play(prefix: &[&str], config: SensorConfig, act: &str, arg: &str, check: Check) -> Outcome {
    let mut stage = match Stage::set(prefix, config) {
        Ok(stage) => stage,
        Err(StageError::Cannot(why)) => return Outcome::Skipped(why),
        Err(StageError::Broken(why)) => return Outcome::Failed(why),
    };
    let before = stage.sensor.loss();
    let result = (|| {
        let mut child = stage.actor(act, arg, None)?;
        stage.sensor.watch().track(ProcKey {
            tgid: child.id(),
            start_ns: 0,
        })?;
        // Clears what the start of the actor itself left.
        stage.sensor.drain(&mut Vec::new());
        go(&mut child)?;
        child.wait()?;
        Ok::<_, Box<dyn std::error::Error>>(())
    })();
    if let Err(error) = result {
        return Outcome::Failed(error.to_string());
    }
    let events = stage.collect(Duration::from_millis(300));
    let mut loss = stage.sensor.loss();
    if let Some((name, row)) = loss.kinds.iter().find(|(_, row)| !row.balanced()) {
        return Outcome::Failed(format!("{name} does not add up: {row:?}"));
    }
    // The canary's own share, and the actor's exec, came before.
    for ((_, now), (_, then)) in loss.kinds.iter_mut().zip(&before.kinds) {
        now.seen -= then.seen;
        now.submitted -= then.submitted;
        now.ring_full -= then.ring_full;
        now.map_full -= then.map_full;
    }
    match check(&events, &loss) {
        Ok(()) => Outcome::Passed,
        Err(why) => Outcome::Failed(why),
    }
}
