//! The people, programs and places that an alert must name.

use keytrail_model::alert::Alert;
use keytrail_model::fact::ExposureSource;

use crate::check::{Run, find, is_called};
use crate::file::Evidence;
use crate::script::Scenario;

/// Compares the entities that an alert names.
pub(crate) fn entities(
    scenario: &Scenario,
    run: &Run,
    name: &str,
    wanted: &Evidence,
    misses: &mut Vec<String>,
) {
    let Some(alert) = find(scenario, run, name) else {
        misses.push(format!("{name}: no alert, so it names nobody"));
        return;
    };
    let mut compare = |what: &str, wanted: Option<&String>, found: Vec<String>| {
        if let Some(wanted) = wanted
            && !found.contains(wanted)
        {
            let found = if found.is_empty() {
                "nothing".to_owned()
            } else {
                found.join(", ")
            };
            misses.push(format!("{name}: {what} should be {wanted}, found {found}"));
        }
    };
    let exposure = alert.exposure.as_ref();
    let actor = exposure.map(|exposure| &exposure.actor);
    let server = actor.and_then(|actor| actor.mcp_server.as_ref());
    let host = exposure.map(|exposure| exposure.event.host.0.clone());
    compare("the host", wanted.host.as_ref(), host.into_iter().collect());
    let agent = actor.and_then(|actor| actor.agent.as_ref());
    let agent = agent.map(|agent| agent.product.clone());
    compare(
        "the agent",
        wanted.agent.as_ref(),
        agent.into_iter().collect(),
    );
    let listed = server.map(|server| server.name.clone().unwrap_or_else(|| "?".to_owned()));
    compare(
        "the MCP server",
        wanted.server.as_ref(),
        listed.into_iter().collect(),
    );
    let package = server.and_then(|server| server.package.as_ref());
    let package = package.map(ToString::to_string);
    compare(
        "the package",
        wanted.package.as_ref(),
        package.into_iter().collect(),
    );
    let owners = alert
        .owners
        .iter()
        .map(|owner| owner.name.clone())
        .collect();
    compare("an owner", wanted.owner.as_ref(), owners);
    let reached = alert
        .egress
        .iter()
        .flat_map(|egress| {
            let address = egress.remote.ip().to_string();
            egress.name.clone().into_iter().chain([address])
        })
        .collect();
    compare("a destination", wanted.destination.as_ref(), reached);
    let taken_from = exposure.map(|exposure| place(&exposure.source));
    compare(
        "the place it was taken from",
        wanted.taken_from.as_ref(),
        taken_from.into_iter().collect(),
    );
    if let Some(misuse) = &wanted.first_misuse {
        let first = alert.unexplained.iter().min_by_key(|u| u.usage.time);
        if !first.is_some_and(|first| is_called(&first.usage.id, misuse)) {
            let found = first.map_or("none".to_owned(), |first| first.usage.id.to_string());
            misses.push(format!(
                "{name}: the first misuse should be {misuse}, found {found}"
            ));
        }
    }
    if let Some(word) = &wanted.lineage {
        let lineage = actor
            .map(|actor| actor.lineage.as_slice())
            .unwrap_or_default();
        let named = lineage
            .iter()
            .any(|p| p.exe.contains(word) || p.argv.join(" ").contains(word));
        if !named {
            misses.push(format!("{name}: {word} should be in the lineage"));
        }
    }
    in_order(name, &wanted.actions, alert, misses);
}

/// The proposed actions contain these texts, in this order.
fn in_order(name: &str, wanted: &[String], alert: &Alert, misses: &mut Vec<String>) {
    let said: Vec<String> = alert
        .actions
        .iter()
        .map(|action| action.what.to_lowercase())
        .collect();
    let mut from = 0;
    for text in wanted {
        let found = said.iter().skip(from).position(|what| what.contains(text));
        match found {
            Some(at) => from += at + 1,
            None => {
                misses.push(format!(
                    "{name}: `{text}` should be proposed at place {} or later, proposed: {}",
                    from + 1,
                    said.join(" / ")
                ));
                return;
            }
        }
    }
}

/// Where a credential was found, in the words of the story.
fn place(source: &ExposureSource) -> String {
    match source {
        ExposureSource::File { path, .. } | ExposureSource::Socket { path } => path.clone(),
        ExposureSource::Environment { variable } => variable.clone(),
        ExposureSource::Metadata { address } => address.ip().to_string(),
        ExposureSource::Process { exe, .. } => exe.clone(),
    }
}

/// The blind spots that an alert must say.
pub(crate) fn blind_spots(
    scenario: &Scenario,
    run: &Run,
    name: &str,
    texts: &[String],
    misses: &mut Vec<String>,
) {
    let said = find(scenario, run, name).map(|alert| alert.blind_spots.join(" / "));
    let said = said.unwrap_or_default();
    for text in texts {
        if !said.contains(text) {
            misses.push(format!(
                "{name}: the blind spot `{text}` should be said, said: {said}"
            ));
        }
    }
}
