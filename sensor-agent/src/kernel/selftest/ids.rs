//! Cases about which process is which, with two actors each.

use std::{net::TcpListener, time::Duration};

use super::{
    Outcome,
    stage::{Stage, StageError, go},
};
use crate::kernel::{
    KernelEvent, SensorConfig,
    event::{ProcKey, Via},
};

/// Name of the case.
pub(super) const REUSED: &str = "a process id used again";

/// A tracked process ends; another, untracked one gets its id and connects. Nothing of that may be
/// reported as the first one's.
pub(super) fn reused(prefix: &[&str], config: &SensorConfig) -> Outcome {
    let mut stage = match Stage::set(prefix, config.clone()) {
        Ok(stage) => stage,
        Err(StageError::Cannot(why)) => return Outcome::Skipped(why),
        Err(StageError::Broken(why)) => return Outcome::Failed(why),
    };
    play(&mut stage).unwrap_or_else(|error| Outcome::Failed(error.to_string()))
}

/// Name of the case.
pub(super) const OUTSIDER: &str = "environment of a tracked process, read by another";

/// A process that is not tracked looks into one that is: it becomes a holder, and its children with it.
pub(super) fn outsider(prefix: &[&str], config: &SensorConfig) -> Outcome {
    let mut stage = match Stage::set(prefix, config.clone()) {
        Ok(stage) => stage,
        Err(StageError::Cannot(why)) => return Outcome::Skipped(why),
        Err(StageError::Broken(why)) => return Outcome::Failed(why),
    };
    let result = (|| {
        let mut victim = stage.actor("open", "/dev/null", None)?;
        let tgid = victim.id();
        let watch = stage.sensor.watch();
        watch.track(ProcKey { tgid, start_ns: 0 })?;
        let mut reader = stage.actor("environ", &tgid.to_string(), None)?;
        let id = reader.id();
        go(&mut reader)?;
        let status = reader.wait()?;
        let events = stage.collect(Duration::from_millis(200));
        go(&mut victim)?;
        victim.wait()?;
        let hit = events.iter().any(|event| {
            matches!(event, KernelEvent::ProcessAccess(a) if a.head.process.tgid == id
                && a.victim.tgid == tgid && a.via == Via::Environ && a.new_holder)
        });
        Ok::<_, Box<dyn std::error::Error>>(if hit && status.success() {
            Outcome::Passed
        } else {
            Outcome::Failed(format!("{status}; reported: {events:?}"))
        })
    })();
    result.unwrap_or_else(|error| Outcome::Failed(error.to_string()))
}

fn play(stage: &mut Stage) -> Result<Outcome, Box<dyn std::error::Error>> {
    let mut first = stage.actor("open", "/dev/null", None)?;
    let tgid = first.id();
    let watch = stage.sensor.watch();
    watch.track(ProcKey { tgid, start_ns: 0 })?;
    go(&mut first)?;
    first.wait()?;
    let before = stage.collect(Duration::from_millis(200));
    let ended = |event: &KernelEvent| matches!(event, KernelEvent::Exit { head, .. } if head.process.tgid == tgid);
    if !before.iter().any(ended) {
        return Ok(Outcome::Failed(
            "the first one's end was not reported".to_owned(),
        ));
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let arg = format!("{tgid}|{}", listener.local_addr()?);
    let mut second = stage.actor("reuse-pid", &arg, None)?;
    go(&mut second)?;
    let status = second.wait()?;
    if status.code() == Some(super::actor::CANNOT) {
        return Ok(Outcome::Skipped(
            "this process cannot choose the id of a child".to_owned(),
        ));
    }
    if !status.success() {
        return Ok(Outcome::Failed(format!("the actor ended with {status}")));
    }
    let after = stage.collect(Duration::from_millis(200));
    let loud = after.iter().find(|e| !matches!(e, KernelEvent::Exec(_)));
    Ok(loud.map_or(Outcome::Passed, |event| {
        Outcome::Failed(format!("reported as the first one's: {event:?}"))
    }))
}
