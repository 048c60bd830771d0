//! The stage alone: proves, without the product, that the theft happens and that the log records
//! derive from real requests.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::{Checks, check_session, script};
use crate::lab::codex::Server;
use crate::lab::install::Tools;
use crate::lab::{ATTACKER, COLLECTOR, LAPTOP, Lab, cloudtrail};
use crate::story::Story;

/// Plays the theft on the bare stage.
///
/// # Errors
/// When the play itself cannot go on.
pub fn play(story: &Story, checks: &mut Checks<'_>, tools: Tools, demo: &Path) -> Result<()> {
    story.chapter("The stage");
    let mut lab = Lab::build(tools, demo)?;
    let turns = script(&lab);
    lab.start_agent(Server::Thief, turns)?;
    story.say("the agent is at work");
    let end = lab.finish_agent(Duration::from_mins(6));
    story.quote(&lab.agent_transcript());
    end?;
    check_session(checks, &lab)?;
    let loot = lab.loot()?;
    checks.that(
        loot.len() == 1,
        &format!("{} theft reached {COLLECTOR}", loot.len()),
    );
    for one in &loot {
        checks.that(
            one.found.len() == 2,
            &format!("it brought {}", one.found.join(" and ")),
        );
        checks.that(
            one.peer.address == LAPTOP,
            &format!("it came from {}", one.peer.address),
        );
        let name = one.peer.server_name.as_deref();
        checks.that(
            name == Some(COLLECTOR),
            &format!("its TLS server name was {name:?}"),
        );
    }
    let own = cloudtrail::records(&lab.aws_requests()?, &lab.principal);
    lab.attack()?;
    let foreign = cloudtrail::records(&lab.aws_requests()?, &lab.principal);
    for (who, records, from) in [
        ("the agent's", &own, LAPTOP),
        ("the attacker's", &foreign, ATTACKER),
    ] {
        let names: Vec<&str> = records
            .iter()
            .filter_map(|r| r.get("eventName")?.as_str())
            .collect();
        checks.that(
            names == ["GetCallerIdentity", "ListBuckets"],
            &format!("{who} uses are in the log: {}", names.join(", ")),
        );
        let from = from.to_string();
        let all = records
            .iter()
            .all(|r| r.get("sourceIPAddress").is_some_and(|a| *a == from));
        checks.that(all, &format!("{who} uses came from {from}"));
        let key = lab.bait.key_id.as_str();
        let all = records.iter().all(|r| {
            r.pointer("/userIdentity/accessKeyId")
                .is_some_and(|k| *k == *key)
        });
        checks.that(all, &format!("{who} uses were made with {key}"));
    }
    Ok(())
}
