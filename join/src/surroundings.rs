//! What happened around a credential's holders on their hosts.

use jiff::Timestamp;
use keytrail_model::alert::Verdict;
use keytrail_model::fact::{Accepted, Listening, TamperKind};
use keytrail_model::ids::{EventRef, HostId};
use keytrail_model::process::UnitKind;
use keytrail_model::text::shown;

use crate::credential::Credential;
use crate::findings::Finding;
use crate::host::Host;
use crate::host::unit::Unit;
use crate::input::UseState;
use crate::settings::Settings;
use crate::subjects;
use crate::verdict::View;

/// Findings about the holders of one credential.
pub(crate) fn of(view: View<'_>, state: &Credential) -> Vec<Finding> {
    let mut found = Vec::new();
    for (host_id, holdings) in &state.holders {
        let Some(host) = view.hosts.get(host_id) else {
            continue;
        };
        for (key, unit) in host.units.listeners() {
            let held = holdings.iter().find(|(holder, _)| *holder == key);
            let finding = held.and_then(|_| exposed_server(view.settings, host_id, unit));
            if let (Some(finding), Some((_, holding))) = (finding, held) {
                found.push(finding.by(Some(holding.exposure.clone())));
            }
        }
        found.extend(subjects::intruders(host_id, host, state));
        found.extend(blinded(host_id, host, state));
    }
    // The same server under several processes is one finding.
    found.sort_by(|a, b| a.reason.cmp(&b.reason));
    found.dedup_by(|a, b| a.reason.code == b.reason.code && a.reason.text == b.reason.text);
    found
}

/// An MCP server that takes calls from where it should not.
pub(crate) fn exposed_server(settings: &Settings, host: &HostId, unit: &Unit) -> Option<Finding> {
    let actor = unit.actor()?;
    if actor.unit_kind != UnitKind::McpServer {
        return None;
    }
    let beyond = |listening: &Listening| {
        let address = listening.local.ip();
        !address.is_loopback()
    };
    let ((since, listen), listening) = unit.listening.iter().find(|(_, l)| beyond(l))?;
    let strange = |accepted: &Accepted| {
        let address = accepted.remote.ip();
        accepted.authenticated != Some(true)
            && !address.is_loopback()
            && address != accepted.local.ip()
            && !settings
                .server_callers
                .iter()
                .any(|net| net.contains(&address))
    };
    let callers: Vec<(&(Timestamp, EventRef), &Accepted)> = unit
        .accepted
        .iter()
        .filter(|(_, accepted)| strange(accepted))
        .collect();
    // Everybody who called so far showed that he may: it does ask.
    if callers.is_empty()
        && unit
            .accepted
            .values()
            .any(|a| a.authenticated == Some(true))
    {
        return None;
    }
    let declared = !settings.server_callers.is_empty() && !unit.accepted.is_empty();
    if callers.is_empty() && declared {
        return None;
    }
    let mut records = vec![listen.to_string()];
    records.extend(callers.iter().map(|((_, event), _)| event.to_string()));
    let local = listening.local;
    let label = shown(&actor.label(), 160).to_string();
    let (code, text) = match callers.first() {
        Some((_, first)) => {
            let how = match first.authenticated {
                Some(false) => "without authentication",
                Some(true) | None => "(whether it had to show that it may is not seen)",
            };
            let text = format!(
                "{label} on {host} listens on {local} and was called from {} {how}",
                first.remote.ip()
            );
            ("called-from-outside", text)
        }
        None => {
            let text = format!(
                "{label} on {host} listens beyond loopback, on {local}, and nothing shows that it \
                 asks for authentication"
            );
            ("listens-beyond-loopback", text)
        }
    };
    let mut finding = Finding::new(Verdict::ExposedServer, code, text).at(*since, records);
    finding.last = callers.last().map(|((time, _), _)| *time);
    Some(finding)
}

/// A sensor that was tampered with while its credentials are in use and cannot be judged.
fn blinded(host_id: &HostId, host: &Host, state: &Credential) -> Option<Finding> {
    let ((since, event), (what, detail)) = host.tampering.first_key_value()?;
    let waiting = |key: &(Timestamp, keytrail_model::ids::RecordId)| {
        state
            .uses
            .get(key)
            .is_some_and(|u| matches!(u.state, UseState::Undecided { .. }))
    };
    let uses: Vec<_> = state.open.iter().filter(|key| waiting(key)).collect();
    let last = uses.last()?.0;
    let what = match what {
        TamperKind::ProgramSilent => "one of its programs fell silent",
        TamperKind::PinRemoved => "a pinned object was removed",
        TamperKind::AgentStopped => "its agent was stopped",
        TamperKind::ClockMoved => "its clock was moved",
        TamperKind::BpfLoaded => "a watched tree loaded a BPF program",
        TamperKind::OpaqueSocket => "a watched tree made a socket that cannot be seen into",
    };
    let text = format!(
        "the sensor of {host_id} was tampered with ({what}: {}), and uses cannot be judged",
        shown(detail, 120)
    );
    let mut records = vec![event.to_string()];
    records.extend(uses.iter().map(|key| key.1.to_string()));
    let mut finding = Finding::new(Verdict::BlindSpot, "sensor-tampered", text).at(*since, records);
    finding.last = Some(last);
    Some(finding)
}
