//! The theft: a look-alike MCP server takes the key while the agent works, and the key is used from
//! elsewhere.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use keytrail_model::alert::{Alert, Verdict};
use keytrail_model::credential::CredentialKind;

use super::{Checks, Watched, check_session, evidence, let_watermarks_pass, script};
use crate::lab::child::wait_for;
use crate::lab::codex::Server;
use crate::lab::stand_in::collector::Loot;
use crate::lab::{COLLECTOR, cloudtrail};
use crate::story::Story;

/// How long after a file's arrival the alert may take, on a machine with cores to spare.
pub const ALERT_LIMIT: Duration = Duration::from_secs(1);

/// What the correlator has to live through between the theft and its confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Nothing.
    Fair,
    /// It is killed before the session, is down all through it, and is killed again before the
    /// foreign use: the sensor must keep everything, the store must forget nothing.
    Crashes,
}

/// Plays the theft and checks what comes out. What does not hold is in `checks`.
///
/// # Errors
/// When the play itself cannot go on.
pub fn play(
    story: &Story,
    checks: &mut Checks<'_>,
    watched: &mut Watched,
    weather: Weather,
) -> Result<()> {
    if weather == Weather::Crashes {
        story.chapter("The correlator is killed before anything happens");
        watched.correlator.crash()?;
    }
    let loot = session(story, checks, watched)?;
    if weather == Weather::Crashes {
        checks.that(
            watched.sensor.is_running()?,
            "the sensor lived on without its correlator",
        );
        watched.correlator.restart()?;
        story.say("the correlator is back");
    }
    let benign = benign_uses(story, checks, watched)?;
    if weather == Weather::Crashes {
        story.chapter("The correlator is killed again, with everything in its store");
        let before = watched.correlator.alerts()?;
        watched.correlator.crash()?;
        watched.correlator.restart()?;
        let after = watched.correlator.alerts()?;
        checks.that(
            before == after,
            &format!("the same {} alerts are there again", after.len()),
        );
    }
    let alert = foreign_use(story, checks, watched)?;
    let mut shown = Vec::new();
    if let Some(alert) = alert {
        story.chapter("The alert, link by link");
        evidence::check(checks, &alert, &watched.lab, &loot, benign);
        let text = watched
            .correlator
            .cli(&["alert", "show", &alert.id.to_string()])?;
        story.chapter("The alert, as a person sees it");
        story.quote(&text);
        shown.push(("correlator alert show", text));
    }
    shown.push((
        "correlator alert list",
        watched.correlator.cli(&["alert", "list"])?,
    ));
    for path in ["/v1/alerts", "/v1/sensors", "/v1/status"] {
        shown.push((path, watched.correlator.get_text(path)?));
    }
    let lineage = format!("/v1/credentials/{}", watched.credential());
    shown.push((
        "the credential's lineage",
        watched.correlator.get_text(&lineage)?,
    ));
    story.chapter("No secret left the laptop through Keytrail");
    watched.canary(checks, &shown)
}

/// The agent's session, during which the key is stolen.
fn session(story: &Story, checks: &mut Checks<'_>, watched: &mut Watched) -> Result<Loot> {
    let lab = &mut watched.lab;
    story.chapter("The agent works, and its MCP server steals");
    story.say(&format!(
        "Codex CLI starts; its MCP server is `npx -y {}`",
        lab.tools.thief.name
    ));
    let turns = script(lab);
    lab.start_agent(Server::Thief, turns)?;
    let loot = wait_for("the theft", Duration::from_mins(5), || {
        Ok(lab.loot()?.pop())
    });
    let loot = loot.with_context(|| lab.agent_transcript())?;
    story.say(&format!(
        "{} received {} bytes from {}: {}",
        COLLECTOR,
        loot.bytes,
        loot.peer.address,
        loot.found.join(" and ")
    ));
    checks.that(
        loot.found.len() == 2,
        "the collector really holds both secrets now",
    );
    checks.that(
        loot.peer.server_name.as_deref() == Some(COLLECTOR),
        "the server name on the wire was the collector's",
    );
    lab.finish_agent(Duration::from_mins(6))?;
    check_session(checks, lab)?;
    Ok(loot)
}

/// The records of the agent's own uses arrive: nothing may come of them.
fn benign_uses(story: &Story, checks: &mut Checks<'_>, watched: &Watched) -> Result<usize> {
    story.chapter("CloudTrail delivers what the agent did with the key");
    let entries = watched.lab.aws_requests()?;
    for entry in &entries {
        story.say(&format!(
            "{} from {} by {}",
            entry.host,
            entry.peer.address,
            entry.user_agent.split(' ').next().unwrap_or_default()
        ));
        checks.that(
            entry.peer.server_name.as_deref() == Some(entry.host.as_str()),
            &format!(
                "the server name on the wire was {}, as in the log",
                entry.host
            ),
        );
    }
    let_watermarks_pass(&watched.correlator)?;
    let benign = watched.deliver_benign(&entries)?;
    let (explained, unexplained, undecided) = watched.correlator.uses(&watched.credential());
    checks.that(
        explained == benign as u64 && unexplained == 0 && undecided == 0,
        &format!("{explained} of {benign} uses explained by the sensor's own connections"),
    );
    checks.that(
        watched.accusations()?.is_empty(),
        "no alert for the agent's own uses",
    );
    let alerts = watched.correlator.alerts()?;
    checks.that(
        alerts.iter().all(|a| a.verdict == Verdict::Suspected),
        &format!(
            "the theft itself is `suspected` so far ({} alerts)",
            alerts.len()
        ),
    );
    Ok(benign)
}

/// The attacker uses the key; the record's arrival must confirm the theft within the limit.
fn foreign_use(story: &Story, checks: &mut Checks<'_>, watched: &Watched) -> Result<Option<Alert>> {
    story.chapter("The attacker uses the key");
    let (lab, correlator) = (&watched.lab, &watched.correlator);
    lab.attack()?;
    let entries = lab.aws_requests()?;
    for entry in &entries {
        story.say(&format!("{} from {}", entry.host, entry.peer.address));
    }
    let_watermarks_pass(correlator)?;
    let records = cloudtrail::records(&entries, &lab.principal);
    cloudtrail::deliver(&correlator.cloudtrail, &lab.principal.account, &records)?;
    let arrived = Instant::now();
    let found = wait_for("the confirmed alert", Duration::from_mins(2), || {
        let alerts = correlator.alerts()?.into_iter();
        Ok(alerts.into_iter().find(|a| a.verdict == Verdict::Confirmed))
    });
    let took = arrived.elapsed();
    let Ok(found) = found else {
        checks.that(false, "the foreign use gave a `confirmed` alert");
        for alert in correlator.alerts()? {
            story.quote(&format!(
                "{} {} {}",
                alert.verdict, alert.credential, alert.title
            ));
        }
        story.quote(&correlator.get_text(&format!("/v1/credentials/{}", watched.credential()))?);
        return Ok(None);
    };
    checks.that(
        took <= ALERT_LIMIT,
        &format!(
            "`confirmed` {} ms after the file's arrival",
            took.as_millis()
        ),
    );
    // Both records of the file belong to the one alert; give the second time to be joined.
    let id = found.id;
    let whole = wait_for("the second foreign use", Duration::from_mins(1), || {
        let alert: Alert = correlator.get(&format!("/v1/alerts/{id}"))?;
        Ok((alert.unexplained_total >= records.len() as u64).then_some(alert))
    });
    let confirmed: Vec<Alert> = watched.accusations()?;
    checks.that(
        confirmed.len() == 1,
        &format!("{} accusing alert in all", confirmed.len()),
    );
    let others = correlator.alerts()?.into_iter().filter(|a| a.id != id);
    let github_only = others.into_iter().all(|a| {
        a.credential.kind() == CredentialKind::GithubToken && a.verdict == Verdict::Suspected
    });
    checks.that(
        github_only,
        "besides it at most the GitHub token's theft is `suspected`",
    );
    Ok(Some(whole.unwrap_or(found)))
}
