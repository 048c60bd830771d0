//! What the tests on the watched stage share.

use keytrail_tests::lab::install::Tools;
use keytrail_tests::probe;
use keytrail_tests::scenario::{Checks, Watched};
use keytrail_tests::story::Story;

/// Plays the test `name` on a stage that Keytrail watches, and holds it to its checks. Skips, and says
/// why, where the machine has no stage or `missing` names a program that is not installed.
pub(crate) fn on_stage(
    name: &str,
    missing: impl FnOnce(&Tools) -> Option<String>,
    play: impl FnOnce(&Story, &mut Checks<'_>, &mut Watched),
) {
    let demo = env!("CARGO_BIN_EXE_demo");
    let Some(on) = probe::stage(name, demo) else {
        return;
    };
    let Some(programs) = probe::sensor(name, demo) else {
        return;
    };
    if let Some(reason) = missing(&on.tools) {
        return probe::skip(name, &reason);
    }
    let story = Story::new();
    let mut checks = Checks::new(&story);
    let mut watched = Watched::start(&story, on.tools, &programs, &on.demo).unwrap();
    play(&story, &mut checks, &mut watched);
    watched.end(&mut checks).unwrap();
    assert_eq!(checks.failed(), &[] as &[String]);
}
