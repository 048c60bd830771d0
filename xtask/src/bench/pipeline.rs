//! How many facts a second go from the kernel's ring through the sensor's spool and the wire to the
//! correlator's disk.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::quartiles;
use super::stand::Stand;
use crate::ui::Ui;
use crate::workspace::Workspace;

/// Connections of one burst; each gives facts at its start and its end.
const CONNECTS: u32 = 20_000;
/// The count of durable facts is taken as final when it did not grow for so long.
const QUIET: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_mins(1);

pub(super) fn measure(ws: &Workspace, ui: &Ui, rounds: u32) -> Result<String> {
    let mut stand = Stand::make(ws, "pipeline")?;
    stand.start_sensor(ws, "pipeline")?;
    let step = ui.step(format!(
        "{rounds} bursts of {CONNECTS} connections by a tracked process"
    ));
    let (mut facts, mut rates, mut offered) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let before = durable(&stand)?;
        let since = Instant::now();
        stand.work(CONNECTS)?;
        let produced = since.elapsed();
        let (count, last) = settle(&stand, before, since)?;
        ensure!(
            count > 0,
            "no fact of the burst arrived: the workload is not tracked, see the sensor's log"
        );
        step.now(&format!(
            "round {}: {count} facts in {last:.1?} (made in {produced:.1?})",
            round + 1
        ));
        facts.push(as_number(count));
        rates.push(as_number(count) / last.as_secs_f64());
        offered.push(as_number(count) / produced.as_secs_f64());
    }
    let sensors = stand.get("/v1/sensors")?;
    stand.end()?;
    step.done();
    let (_, facts, _) = quartiles(facts);
    let (_, offered, _) = quartiles(offered);
    let (low, middle, high) = quartiles(rates);
    let lost = sensors
        .pointer("/sensors/0/gaps")
        .and_then(Value::as_array)
        .map_or(0, Vec::len);
    Ok(format!(
        "{rounds} bursts of {CONNECTS} connections by one tracked process, from the first connect to \
         the last fact on the correlator's disk (SQLite, synchronous=FULL), both on this machine.\n\n\
         | facts a burst | offered facts/s, median | durable facts/s, median | quartiles | gaps reported |\n\
         |---:|---:|---:|---:|---:|\n\
         | {facts:.0} | {offered:.0} | {middle:.0} | {low:.0}-{high:.0} | {lost} |\n\n\
         The workload is one process that does nothing else: where both rates are near each other, it \
         was the workload that set the pace.\n"
    ))
}

/// Facts that the correlator has on disk.
fn durable(stand: &Stand) -> Result<u64> {
    let sensors = stand.get("/v1/sensors")?;
    let rows = sensors
        .get("sensors")
        .and_then(Value::as_array)
        .context("no list of sensors")?;
    Ok(rows
        .iter()
        .filter_map(|row| row.get("events").and_then(Value::as_u64))
        .sum())
}

/// Waits until no more arrive; gives how many came and when the last did.
fn settle(stand: &Stand, before: u64, since: Instant) -> Result<(u64, Duration)> {
    let (mut seen, mut last) = (durable(stand)?, since.elapsed());
    while since.elapsed() < LIMIT && since.elapsed() < last + QUIET {
        thread::sleep(Duration::from_millis(10));
        let now = durable(stand)?;
        if now != seen {
            (seen, last) = (now, since.elapsed());
        }
    }
    Ok((seen.saturating_sub(before), last))
}

fn as_number(count: u64) -> f64 {
    // a burst has far fewer than 2^32 facts
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}
