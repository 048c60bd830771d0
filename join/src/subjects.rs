//! Findings about a host that no credential's alert carries: an exposed server that holds nothing,
//! a package that changes what agents start, a BPF program loaded by a watched tree.
//!
//! An alert is about a credential. For these the subject stands in: a `credential-store` named
//! after the server, the configuration entry or the sensor, because that is where credentials would
//! come from. Once a credential of the host carries a finding of its own, the subject's is closed:
//! one theft, one alert.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use keytrail_model::alert::{Alert, Verdict};
use keytrail_model::credential::{CredentialId, CredentialKind};
use keytrail_model::fact::{ConfigChanged, ExposureSource, TamperKind};
use keytrail_model::ids::{AlertId, EventRef, HostId};
use keytrail_model::process::{Actor, UnitKind};
use keytrail_model::text::shown;

use crate::credential::Credential;
use crate::findings::Finding;
use crate::host::Host;
use crate::input::Effect;
use crate::verdict::{self, Cause};
use crate::weigh::Suspect;
use crate::{Join, advice, lifecycle, suppress, surroundings};

/// Longest part of a subject's name, bytes.
const MAX_NAME: usize = 120;

/// A finding and who did it.
type Found = (Finding, Option<Actor>);

/// A subject's id: `credential-store:<what>/<host>/<name>`.
fn subject(what: &str, host: &HostId, name: &str) -> Option<CredentialId> {
    let clean: String = format!("{host}/{name}")
        .chars()
        .filter(|c| !c.is_control())
        .collect();
    let mut end = clean.len().min(MAX_NAME + host.0.len());
    while !clean.is_char_boundary(end) {
        end -= 1;
    }
    CredentialId::scoped(
        CredentialKind::CredentialStore,
        what,
        clean.get(..end).unwrap_or_default(),
    )
    .ok()
}

/// True when whoever changed a configuration had no business to: a package's script, or an MCP
/// server.
fn meddles(change: &ConfigChanged) -> bool {
    let starts_something = matches!(
        change.change.as_str(),
        "mcp-server-added" | "mcp-server-changed" | "hook-added" | "hook-changed" | "trust-changed"
    );
    starts_something
        && !change.by_agent
        && change.actor.as_ref().is_some_and(|actor| {
            actor.unit_kind == UnitKind::McpServer || lifecycle::of(actor).is_some()
        })
}

fn changed(host: &HostId, change: &ConfigChanged, time: Timestamp, event: &EventRef) -> Finding {
    let who = change.actor.as_ref().map_or_else(
        || "somebody".to_owned(),
        |actor| shown(&actor.label(), 120).to_string(),
    );
    let text = format!(
        "{who} on {host} changed what {} starts or trusts: {} \"{}\" in {}",
        shown(&change.product, 40),
        shown(&change.change, 40),
        shown(&change.entry, 80),
        shown(&change.path, 160)
    );
    Finding::new(Verdict::Suspected, "agent-config-changed", text).at(time, vec![event.to_string()])
}

fn loaded(host: &HostId, detail: &str, time: Timestamp, event: &EventRef) -> Finding {
    let text = format!(
        "a watched tree on {host} loaded a BPF program ({}): what is hidden from the kernel is \
         hidden from the sensor",
        shown(detail, 120)
    );
    Finding::new(Verdict::Suspected, "bpf-loaded", text).at(time, vec![event.to_string()])
}

/// What happened on the suspect's host that belongs to the story; raises nothing by itself.
pub(crate) fn beside(suspect: &Suspect<'_>, host: &Host) -> Vec<Finding> {
    let mut found = Vec::new();
    let server = suspect.holding.exposure.actor.mcp_server.as_ref();
    let name = server.and_then(|server| server.name.as_ref());
    for ((time, event), change) in &host.config {
        let own = name == Some(&change.entry) && change.actor.is_some() && !change.by_agent;
        if own || meddles(change) {
            found.push(changed(suspect.host, change, *time, event));
        }
    }
    for ((time, event), (what, detail)) in &host.tampering {
        if *what == TamperKind::BpfLoaded {
            found.push(loaded(suspect.host, detail, *time, event));
        }
    }
    found
}

/// A server that somebody else than the agent entered, and that then took a credential.
pub(crate) fn intruders(host_id: &HostId, host: &Host, state: &Credential) -> Vec<Finding> {
    let mut found = Vec::new();
    if host.config.is_empty() {
        return found;
    }
    for (_, holding) in state.holders.get(host_id).into_iter().flatten() {
        let exposure = &holding.exposure;
        let server = exposure.actor.mcp_server.as_ref();
        let name = server.and_then(|server| server.name.as_ref());
        let took = !matches!(exposure.source, ExposureSource::Environment { .. });
        if !exposure.unexpected_reader || !took || name.is_none() {
            continue;
        }
        for ((time, event), change) in &host.config {
            let added = matches!(
                change.change.as_str(),
                "mcp-server-added" | "mcp-server-changed"
            );
            let own = name == Some(&change.entry) && change.actor.is_some() && !change.by_agent;
            if added && own && *time <= exposure.time {
                let finding = changed(host_id, change, *time, event);
                found.push(finding.by(Some(exposure.clone())));
            }
        }
    }
    found
}

fn config_findings(id: &HostId, host: &Host, found: &mut BTreeMap<CredentialId, Vec<Found>>) {
    for ((time, event), change) in host.config.iter().filter(|(_, change)| meddles(change)) {
        let name = format!("{}/{}", change.product, change.entry);
        if let Some(subject) = subject("agent-config", id, &name) {
            let finding = changed(id, change, *time, event);
            let actor = change.actor.clone();
            found.entry(subject).or_default().push((finding, actor));
        }
    }
    for ((time, event), (what, detail)) in &host.tampering {
        if *what == TamperKind::BpfLoaded
            && let Some(subject) = subject("sensor", id, "bpf")
        {
            let finding = loaded(id, detail, *time, event);
            found.entry(subject).or_default().push((finding, None));
        }
    }
}

impl Join {
    /// Says what is found about a host itself.
    pub(crate) fn tell_host(&mut self, id: &HostId, cause: &Cause, effects: &mut Vec<Effect>) {
        let Some(host) = self.hosts.get(id) else {
            return;
        };
        if host.is_quiet() {
            return;
        }
        let carried = host.holds.iter().any(|held| {
            self.credentials
                .get(held)
                .and_then(|state| state.alert.as_ref())
                .is_some_and(|alert| alert.verdict >= Verdict::Suspected)
        });
        let mut found: BTreeMap<CredentialId, Vec<Found>> = BTreeMap::new();
        if !carried {
            config_findings(id, host, &mut found);
        }
        for (_, unit) in host.units.listeners() {
            if unit.holds().next().is_some() {
                continue;
            }
            let Some(finding) = surroundings::exposed_server(&self.settings, id, unit) else {
                continue;
            };
            let actor = unit.actor().cloned();
            let name = actor.as_ref().map(Actor::label).unwrap_or_default();
            if let Some(subject) = subject("mcp-server", id, &name) {
                found.entry(subject).or_default().push((finding, actor));
            }
        }
        let told: BTreeSet<CredentialId> = host.alerts.keys().cloned().collect();
        let subjects: BTreeSet<CredentialId> = found.keys().cloned().chain(told).collect();
        for subject in subjects {
            let findings = found.remove(&subject).unwrap_or_default();
            self.tell_subject(id, &subject, findings, cause, effects);
        }
    }

    fn tell_subject(
        &mut self,
        host_id: &HostId,
        subject: &CredentialId,
        mut findings: Vec<Found>,
        cause: &Cause,
        effects: &mut Vec<Effect>,
    ) {
        findings.sort_by(|(a, _), (b, _)| a.reason.cmp(&b.reason));
        let before = self
            .hosts
            .get(host_id)
            .and_then(|host| host.alerts.get(subject));
        let first = findings.first();
        let verdict = first.map_or(Verdict::Closed, |(first, _)| first.reason.verdict);
        if first.is_none() && before.is_none() {
            return;
        }
        let reasons: Vec<_> = findings.iter().map(|(f, _)| f.reason.clone()).collect();
        let actor = findings.iter().find_map(|(_, actor)| actor.as_ref());
        let times = findings
            .iter()
            .flat_map(|(f, _)| [Some(f.reason.first), f.last].into_iter().flatten());
        let title = first.map_or_else(
            || format!("{subject}: a credential's own alert carries this by now"),
            |(first, _)| first.reason.text.clone(),
        );
        let mut alert = Alert {
            first_seen: times.clone().min().unwrap_or(cause.time),
            last_seen: times.max().unwrap_or(cause.time),
            owners: verdict::owners_of(actor.into_iter()),
            reasons: reasons.into_iter().take(verdict::MAX_REASONS).collect(),
            ..verdict::blank(
                AlertId::derive(&subject.to_string()),
                verdict,
                subject,
                title,
            )
        };
        alert.actions = advice::for_subject(&alert, actor);
        alert.techniques = advice::techniques(&alert);
        alert.history = verdict::history(before.map(AsRef::as_ref), &alert, cause);
        suppress::apply(&self.settings, self.now, &mut alert);
        if before.is_some_and(|before| **before == alert) {
            return;
        }
        let alert = Box::new(alert);
        effects.push(Effect::Alert(alert.clone()));
        if let Some(host) = self.hosts.get_mut(host_id) {
            host.alerts.insert(subject.clone(), alert);
        }
    }
}
