//! What a `confirmed` alert of the theft must carry, each link of the chain checked on its own.

use keytrail_model::alert::{Alert, ExposureEvidence, Verdict};
use keytrail_model::consumption::Caller;
use keytrail_model::fact::ExposureSource;

use super::Checks;
use crate::lab::codex::SERVER_NAME;
use crate::lab::stand_in::collector::Loot;
use crate::lab::{ATTACKER, COLLECTOR, COLLECTOR_ADDR, Lab};

/// Checks the whole chain against what really happened on the stage.
pub fn check(checks: &mut Checks<'_>, alert: &Alert, lab: &Lab, loot: &Loot, benign: usize) {
    checks.that(
        alert.verdict == Verdict::Confirmed,
        "the verdict is `confirmed`",
    );
    let key = &lab.bait.key_id;
    checks.that(
        alert.credential.value() == key,
        &format!("the credential is {key}"),
    );
    let account = &lab.principal.account;
    checks.that(
        alert.account.as_ref() == Some(account),
        &format!("the key id decodes to account {account}"),
    );
    match &alert.exposure {
        Some(exposure) => check_exposure(checks, exposure, lab),
        None => checks.that(false, "the alert names an exposure"),
    }
    check_egress(checks, alert, loot);
    check_uses(checks, alert, benign);
    let path: Vec<&str> = alert.history.iter().map(|c| c.to.as_str()).collect();
    checks.that(
        path.ends_with(&["confirmed"]),
        &format!("the history tells how it came to it: {}", path.join(" -> ")),
    );
    checks.that(!alert.actions.is_empty(), "the alert proposes what to do");
}

fn check_exposure(checks: &mut Checks<'_>, exposure: &ExposureEvidence, lab: &Lab) {
    let actor = &exposure.actor;
    let agent = actor.agent.as_ref().map_or("nobody", |a| a.name.as_str());
    checks.that(agent == "Codex CLI", &format!("the agent is {agent}"));
    let server = actor.mcp_server.as_ref();
    let name = server.and_then(|s| s.name.as_deref()).unwrap_or("nameless");
    checks.that(
        name == SERVER_NAME,
        &format!("the MCP server is \"{name}\""),
    );
    let package = server
        .and_then(|s| s.package.as_ref())
        .map(ToString::to_string);
    let wanted = format!("{}@{}", lab.tools.thief.name, lab.tools.thief.version);
    let package = package.unwrap_or_else(|| "unknown".to_owned());
    checks.that(package == wanted, &format!("its package is {package}"));
    let tree: Vec<String> = actor
        .lineage
        .iter()
        .rev()
        .map(|p| p.argv.first().cloned().unwrap_or_default())
        .collect();
    let is_node = actor
        .lineage
        .first()
        .is_some_and(|p| p.exe.ends_with("/node"));
    let has_codex = actor.lineage.iter().any(|p| p.exe.ends_with("/codex"));
    checks.that(
        is_node && has_codex,
        &format!("the process tree is {}", tree.join(" > ")),
    );
    let file = match &exposure.source {
        ExposureSource::File { path, entry, .. } => {
            Some((path.ends_with("/.aws/credentials"), entry.clone()))
        }
        ExposureSource::Environment { .. }
        | ExposureSource::Socket { .. }
        | ExposureSource::Metadata { .. }
        | ExposureSource::Process { .. } => None,
    };
    checks.that(
        file.as_ref().is_some_and(|(credentials, _)| *credentials),
        &format!(
            "the key was read from the credentials file ({:?})",
            exposure.source
        ),
    );
    checks.that(
        exposure.unexpected_reader,
        "its reader is not one that should read it",
    );
}

fn check_egress(checks: &mut Checks<'_>, alert: &Alert, loot: &Loot) {
    let to = alert
        .egress
        .iter()
        .find(|e| e.name.as_deref() == Some(COLLECTOR));
    let Some(to) = to else {
        checks.that(
            false,
            &format!("the egress names {COLLECTOR} ({:?})", alert.egress),
        );
        return;
    };
    checks.that(
        to.remote.ip() == COLLECTOR_ADDR && to.remote.port() == 443,
        &format!("the egress went to {COLLECTOR} at {}", to.remote),
    );
    // TLS adds its handshake and records to what the collector counted.
    let (sent, least) = (to.bytes_sent.unwrap_or(0), loot.bytes as u64);
    checks.that(
        (least..least + 8192).contains(&sent),
        &format!("{sent} bytes left; {least} of them are the collector's POST body"),
    );
}

fn check_uses(checks: &mut Checks<'_>, alert: &Alert, benign: usize) {
    let explained = alert.explained_total;
    checks.that(
        explained == benign as u64,
        &format!("{explained} explained uses"),
    );
    let unexplained = alert.unexplained_total;
    checks.that(unexplained == 2, &format!("{unexplained} unexplained uses"));
    let foreign = |c: &Caller| matches!(c, Caller::Address { address } if *address == ATTACKER);
    let all_foreign = alert.unexplained.iter().all(|u| foreign(&u.usage.caller));
    checks.that(
        all_foreign && !alert.unexplained.is_empty(),
        &format!("every unexplained use came from {ATTACKER}"),
    );
    let because: Vec<&str> = alert
        .unexplained
        .iter()
        .flat_map(|u| u.because.iter().map(String::as_str))
        .collect();
    checks.that(
        !because.is_empty(),
        "each says why no connection explains it",
    );
}
