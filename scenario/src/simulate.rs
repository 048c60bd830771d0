//! Made-up days of life of many endpoints, with thefts in them, streamed through the join.
//!
//! The same options make the same days, input for input. Nothing is kept but what is still on its
//! way, so that the size of a simulation is bounded by its endpoints and not by its days.
//!
//! - `life` is what an endpoint does in an hour: agents, command lines, MCP servers, CI jobs, role
//!   sessions, from an office, a home, a hotel, a VPN or a telephone;
//! - `records` is how the cloud's records arrive: in files, some late, some twice;
//! - `sensor` is what its sensor makes of that: late, with losses and outages;
//! - `theft` are the thefts;
//! - `tally` compares what was said with what happened.

mod life;
mod records;
mod sensor;
mod tally;
mod theft;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use keytrail_join::{Effect, Input, Join, Settings};

pub use tally::{Outcome, TheftScore};
pub use theft::Kind;

use crate::random::Random;
use life::Endpoint;
use tally::Tally;
use theft::Plan;

/// 2026-01-05T00:00:00Z, a Monday.
const START: Timestamp = Timestamp::constant(1_767_571_200, 0);

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many endpoints.
    pub endpoints: u32,
    /// For how many days.
    pub days: u32,
    /// How many thefts.
    pub thefts: u32,
    /// Decides everything that looks like chance.
    pub seed: u64,
}

/// Everything on its way to the correlator, by its arrival.
#[derive(Debug, Default)]
struct Air {
    waiting: BTreeMap<(Timestamp, u64), Input>,
    sent: u64,
}

impl Air {
    fn send(&mut self, arrives: Timestamp, input: Input) {
        self.sent += 1;
        self.waiting.insert((arrives, self.sent), input);
    }

    /// The next that arrives before `until`.
    fn next(&mut self, until: Timestamp) -> Option<(Timestamp, Input)> {
        let entry = self.waiting.first_entry()?;
        if entry.key().0 >= until {
            return None;
        }
        let arrives = entry.key().0;
        Some((arrives, entry.remove()))
    }
}

/// `time` later by so many milliseconds.
fn after(time: Timestamp, milliseconds: u64) -> Timestamp {
    let by = SignedDuration::from_millis(i64::try_from(milliseconds).unwrap_or(i64::MAX));
    time.checked_add(by).unwrap_or(time)
}

/// What an organisation like the simulated one would declare.
#[must_use]
pub fn settings() -> Settings {
    Settings {
        declared_egress: life::declared(),
        expected_destinations: life::expected(),
        ..Settings::default()
    }
}

/// Runs a simulation. `watch` sees every input in order of arrival, before the join does; when it
/// fails, the simulation ends there.
///
/// # Errors
/// Those of `watch`.
pub fn simulate<E>(
    options: Options,
    mut watch: impl FnMut(&Input) -> Result<(), E>,
) -> Result<Outcome, E> {
    let mut join = Join::new(settings());
    let mut effects: Vec<Effect> = Vec::new();
    let mut endpoints: Vec<Endpoint> = (0..options.endpoints)
        .map(|number| Endpoint::new(options.seed, number))
        .collect();
    let mut plans = theft::plan(options);
    let mut tally = Tally::new(options);
    let mut air = Air::default();
    let mut runners = Random::new(options.seed ^ 0x0c1);
    let hours = u64::from(options.days) * 24;
    // What is on its way when the last day ends still arrives.
    for hour in 0..hours + 26 {
        let now = after(START, hour * 3_600_000);
        if hour < hours {
            for plan in &plans {
                plan.prepare(now, hour, &mut endpoints);
            }
            for endpoint in &mut endpoints {
                endpoint.hour(now, hour, &mut air);
            }
            records::hosted_runners(&mut runners, now, options.endpoints, &mut air);
            for plan in &mut plans {
                Plan::act(plan, now, hour, &mut endpoints, &mut air, &mut tally);
            }
        }
        let until = after(now, 3_600_000);
        if hour >= hours {
            for endpoint in &mut endpoints {
                endpoint.idle(now, &mut air);
            }
        }
        air.send(after(until, 0), Input::Tick { time: until });
        while let Some((arrives, input)) = air.next(after(until, 1)) {
            watch(&input)?;
            tally.input(&input);
            join.apply(&input, &mut effects);
            for effect in effects.drain(..) {
                tally.effect(arrives, effect);
            }
        }
    }
    Ok(tally.outcome(&join))
}
