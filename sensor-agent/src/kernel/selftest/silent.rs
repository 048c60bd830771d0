//! A program that is taken off while the sensor runs is noticed.

use std::time::Duration;

use keytrail_model::coverage::CoverageState;

use super::{
    Outcome,
    stage::{Stage, StageError},
};
use crate::kernel::SensorConfig;

/// Name of the case.
pub(super) const NAME: &str = "a program that falls silent";
/// What is taken off: present in both plans.
const TAKEN: [&str; 2] = ["process_exit", "sock_state"];

pub(super) fn play(prefix: &[&str], config: &SensorConfig) -> Outcome {
    let mut stage = match Stage::set(prefix, config.clone()) {
        Ok(stage) => stage,
        Err(StageError::Cannot(why)) => return Outcome::Skipped(why),
        Err(StageError::Broken(why)) => return Outcome::Failed(why),
    };
    let healthy = match pulse(&mut stage) {
        Ok(silent) => silent,
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    if !healthy.is_empty() {
        return Outcome::Failed(format!("said to be silent although attached: {healthy:?}"));
    }
    for program in TAKEN {
        if !stage.sensor.detach(program) {
            return Outcome::Failed(format!("{program} was not attached"));
        }
    }
    // The kernel lets go of a link in its own time.
    std::thread::sleep(Duration::from_millis(200));
    match pulse(&mut stage) {
        Ok(silent) if silent == TAKEN => {}
        Ok(silent) => return Outcome::Failed(format!("told as silent: {silent:?}")),
        Err(error) => return Outcome::Failed(error.to_string()),
    }
    let blind = stage.sensor.coverage().rows.iter().filter(|row| {
        matches!(&row.state, CoverageState::Missing { reason, .. } if reason.contains("no longer"))
    });
    if blind.count() == TAKEN.len() && !stage.sensor.coverage().can_judge() {
        Outcome::Passed
    } else {
        Outcome::Failed(format!("coverage: {:?}", stage.sensor.coverage().rows))
    }
}

/// Lets a canary out and judges it.
fn pulse(stage: &mut Stage) -> std::io::Result<Vec<&'static str>> {
    let mut canary = stage.sensor.pulse()?;
    let events = stage.collect(Duration::from_millis(700));
    for event in &events {
        canary.take(event);
    }
    Ok(stage.sensor.judge(canary))
}
