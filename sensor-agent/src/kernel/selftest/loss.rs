//! Loss is counted exactly: what was seen is what came out plus what was lost.

use std::time::Duration;

use keytrail_abi::RecordKind;

use super::{
    Outcome, Play,
    stage::{Stage, StageError, go},
};
use crate::kernel::{
    KernelEvent, SensorConfig,
    event::{FileId, ProcKey},
};

/// The cases.
pub(super) const CASES: &[(&str, Play)] = &[
    ("loss: rings overflow", rings_overflow),
    ("loss: process map full", map_full),
    ("loss: a flood does not drown an access", flood),
];

/// A storm of programs overflows the rings of processes; the one access in the middle of it, which
/// has a ring of its own, arrives all the same, and so does its count.
fn flood(prefix: &[&str], config: &SensorConfig) -> Outcome {
    let config = SensorConfig {
        ring_bytes: Some(4096),
        ..config.clone()
    };
    play(prefix, config, "flood", "200", |events, loss| {
        let (exec, file) = (
            loss.kind(RecordKind::Exec),
            loss.kind(RecordKind::FileAccess),
        );
        if exec.ring_full == 0 {
            return Err("the storm did not overflow its ring".to_owned());
        }
        let came = events
            .iter()
            .filter(|e| matches!(e, KernelEvent::File(f) if f.inode_watched))
            .count() as u64;
        if came == 0 || came != file.submitted || file.lost() != 0 {
            return Err(format!("{came} accesses came, {file:?}"));
        }
        Ok(())
    })
}

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
    let mut before = stage.sensor.loss();
    let result = (|| {
        // For the act that touches a watched file; beside the others it means nothing.
        let path = stage.dir.0.join("credentials");
        std::fs::write(&path, "[default]\n")?;
        stage.sensor.watch().add_inode(FileId::at(&path)?)?;
        let arg = format!("{arg}|{}", path.display());
        let mut child = stage.actor(act, &arg, None)?;
        stage.sensor.watch().track(ProcKey {
            tgid: child.id(),
            start_ns: 0,
        })?;
        // Clears what the start of the actor itself left; from here on everything is compared.
        stage.collect(Duration::ZERO);
        before = stage.sensor.loss();
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
    // The canary's share, and the actor's own start, came before.
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
