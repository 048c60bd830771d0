//! What a sensor costs a process: untracked and tracked, beside no sensor at all.

use anyhow::Result;
use serde_json::Value;

use super::quartiles;
use super::stand::{Stand, Who};
use crate::ui::Ui;
use crate::workspace::Workspace;

const OPENS: u32 = 50_000;
const CONNECTS: u32 = 2_000;
/// How often the sensor is started and stopped, so that slow drifts of the machine hit all rows.
const CYCLES: u32 = 3;

/// One row of the table: its samples of both kinds.
#[derive(Default)]
struct Row {
    opens: Vec<f64>,
    connects: Vec<f64>,
}

impl Row {
    fn add(&mut self, (open, connect): (f64, f64)) {
        self.opens.push(open);
        self.connects.push(connect);
    }

    fn print(&self, name: &str, base: &Self) -> String {
        let cell = |samples: &[f64], base: &[f64]| {
            let (low, middle, high) = quartiles(samples.to_vec());
            let more = middle - quartiles(base.to_vec()).1;
            format!("{middle:.0} ({low:.0}-{high:.0}) | {more:+.0}")
        };
        let (opens, connects) = (
            cell(&self.opens, &base.opens),
            cell(&self.connects, &base.connects),
        );
        format!("| {name} | {opens} | {connects} |\n")
    }
}

pub(super) fn measure(ws: &Workspace, ui: &Ui, rounds: u32) -> Result<String> {
    let mut stand = Stand::make(ws, "sensor")?;
    let step = ui.step("opens and connects, with and without a sensor");
    let (mut none, mut outside, mut untracked, mut tracked) = (
        Row::default(),
        Row::default(),
        Row::default(),
        Row::default(),
    );
    let mut plan = "unknown".to_owned();
    let in_cycle = rounds.div_ceil(CYCLES).max(1);
    for cycle in 0..CYCLES {
        for _ in 0..in_cycle {
            step.now(&format!("cycle {} of {CYCLES}: no sensor", cycle + 1));
            none.add(stand.work(Who::Untracked, OPENS, CONNECTS)?);
        }
        let ready = stand.start_sensor(ws, "sensor")?;
        if let Some(text) = ready.get("plan").and_then(Value::as_str) {
            text.clone_into(&mut plan);
        }
        for _ in 0..in_cycle {
            step.now(&format!("cycle {} of {CYCLES}: with a sensor", cycle + 1));
            outside.add(stand.work(Who::Outside, OPENS, CONNECTS)?);
            untracked.add(stand.work(Who::Untracked, OPENS, CONNECTS)?);
            tracked.add(stand.work(Who::Tracked, OPENS, CONNECTS)?);
        }
        stand.stop_sensor()?;
    }
    stand.end()?;
    step.done();
    Ok([
        format!(
            "Plan {plan}. CPU ns of the calling thread for one open+close of an ordinary file and one \
             connect+close to loopback: median (quartiles) of {} rounds of {OPENS} opens and {CONNECTS} \
             connects, and the difference from no sensor.\n\n",
            in_cycle * CYCLES
        ),
        "| process | open+close | more | connect+close | more |\n|---|---:|---:|---:|---:|\n".to_owned(),
        none.print("no sensor on the machine", &none),
        outside.print("outside the sensor's scope", &none),
        untracked.print("in scope, not tracked", &none),
        tracked.print("in scope, tracked", &none),
    ]
    .concat())
}
