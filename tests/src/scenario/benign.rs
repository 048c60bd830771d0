//! The benign session: the same agent does the same work with the package that the thief imitates.
//! Nothing may come of it.

use std::time::Duration;

use anyhow::Result;

use super::{Checks, Watched, check_session, let_watermarks_pass, script};
use crate::lab::codex::Server;
use crate::story::Story;

/// Plays the session and delivers its records.
///
/// # Errors
/// When the play itself cannot go on.
pub fn play(story: &Story, checks: &mut Checks<'_>, watched: &mut Watched) -> Result<()> {
    story.chapter("The agent works with an honest MCP server");
    let turns = script(&watched.lab);
    watched.lab.start_agent(Server::Honest, turns)?;
    watched.lab.finish_agent(Duration::from_mins(6))?;
    check_session(checks, &watched.lab)?;
    checks.that(
        watched.lab.loot()?.is_empty(),
        "nothing reached the collector",
    );
    story.chapter("CloudTrail delivers what the agent did with the key");
    let entries = watched.lab.aws_requests()?;
    let_watermarks_pass(&watched.correlator)?;
    let count = watched.deliver_benign(&entries)?;
    let (explained, ..) = watched.correlator.uses(&watched.credential());
    checks.that(
        explained == count as u64,
        &format!("{explained} of {count} uses explained"),
    );
    let alerts = watched.correlator.alerts()?;
    for alert in &alerts {
        story.quote(&format!(
            "{} {} {}",
            alert.verdict, alert.credential, alert.title
        ));
    }
    checks.that(alerts.is_empty(), "no alert of any kind");
    watched.canary(checks, &[])
}
