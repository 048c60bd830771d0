//! The plays of the demo, as tests.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test program fails by panicking, its helpers too"
)]

mod common;

use keytrail_tests::probe;
use keytrail_tests::scenario::theft::{self, Weather};
use keytrail_tests::scenario::{Checks, benign, stage};
use keytrail_tests::story::Story;

const DEMO: &str = env!("CARGO_BIN_EXE_demo");

/// The theft and the log records are real, whatever the product makes of them.
#[test]
fn the_stage_alone_plays_the_theft() {
    let Some(on) = probe::stage("the_stage_alone_plays_the_theft", DEMO) else {
        return;
    };
    let story = Story::new();
    let mut checks = Checks::new(&story);
    stage::play(&story, &mut checks, on.tools, &on.demo).unwrap();
    assert_eq!(checks.failed(), &[] as &[String]);
}

/// The main job: one confirmed alert with the whole chain, within a second of the record.
#[test]
fn the_theft_is_confirmed() {
    theft_in("the_theft_is_confirmed", Weather::Fair);
}

/// `kill -9` of the correlator, twice: the sensor lives on, nothing is lost, the alert is the same.
#[test]
fn the_theft_is_confirmed_through_crashes_of_the_correlator() {
    theft_in(
        "the_theft_is_confirmed_through_crashes_of_the_correlator",
        Weather::Crashes,
    );
}

fn theft_in(name: &str, weather: Weather) {
    common::on_stage(
        name,
        |_| None,
        |story, checks, watched| {
            theft::play(story, checks, watched, weather).unwrap();
        },
    );
}

/// The other half of the matched pair: the same work with an honest server gives no alert.
#[test]
fn an_honest_session_gives_no_alert() {
    let name = "an_honest_session_gives_no_alert";
    common::on_stage(
        name,
        |_| None,
        |story, checks, watched| {
            benign::play(story, checks, watched).unwrap();
        },
    );
}
