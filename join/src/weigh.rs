//! Exposures that look like thefts, and where their units went.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use jiff::SignedDuration;
use keytrail_model::affinity::{is_affine, under};
use keytrail_model::alert::EgressEvidence;
use keytrail_model::credential::{CredentialId, CredentialKind};
use keytrail_model::fact::{ExposureSource, NameSource, Transport};
use keytrail_model::ids::HostId;
use keytrail_model::process::UnitKind;

use crate::credential::{Credential, Holding};
use crate::findings::is_scanner;
use crate::host::unit::Unit;
use crate::host::{Connection, Host, UnitKey};
use crate::lifecycle;
use crate::settings::Settings;
use crate::verdict::View;

/// A connection that has no name this long after it opened will not get one.
const NAME_DELAY: SignedDuration = SignedDuration::from_secs(10);
/// How much egress an alert carries.
const MAX_EGRESS: usize = 16;
/// Lookups under one domain that carry something out: few long names, or many (an ordinary burst
/// asks for many domains, each a few times, by short names).
const LONG_NAME: u64 = 50;
const LONG_NAMES: u64 = 3;
const LONG_BYTES: u64 = 200;
const MANY_NAMES: u64 = 40;
const MANY_BYTES: u64 = 1_500;

/// A holding that looks like a theft.
pub(crate) struct Suspect<'a> {
    pub(crate) host: &'a HostId,
    pub(crate) unit: UnitKey,
    pub(crate) holding: &'a Holding,
    pub(crate) egress: Vec<EgressEvidence>,
}

impl Suspect<'_> {
    /// True when the credential was taken, not merely inherited: this alone is worth a look.
    pub(crate) fn took(&self) -> bool {
        match self.holding.exposure.source {
            ExposureSource::File { .. }
            | ExposureSource::Process { .. }
            | ExposureSource::Metadata { .. } => true,
            ExposureSource::Environment { .. } | ExposureSource::Socket { .. } => false,
        }
    }
}

/// Holdings by an unexpected reader whose unit then left the affinity set, the worst first.
pub(crate) fn suspects<'a>(
    view: View<'a>,
    id: &'a CredentialId,
    state: &'a Credential,
) -> Vec<Suspect<'a>> {
    let mut found: Vec<Suspect<'a>> = Vec::new();
    let decoy = view.settings.honeytoken(id);
    for (host_id, holdings) in &state.holders {
        let Some(host) = view.hosts.get(host_id) else {
            continue;
        };
        for (unit, holding) in holdings {
            if !holding.exposure.unexpected_reader
                || decoy.is_some_and(|token| is_scanner(token, &holding.exposure))
            {
                continue;
            }
            let mut egress: Vec<EgressEvidence> = host
                .of_unit(
                    *unit,
                    |name| name.is_none_or(|name| is_outside(view.settings, id, holding, name)),
                    |connection| leaves(host, holding, connection),
                    MAX_EGRESS,
                )
                .into_iter()
                .filter_map(evidence)
                .collect();
            if let Some(state) = host.units.get(*unit) {
                egress.extend(tunnels(view.settings, id, holding, state));
                egress.sort_by_key(|e| (e.time, e.event.clone()));
                egress.truncate(MAX_EGRESS);
            }
            if !egress.is_empty() {
                found.push(Suspect {
                    host: host_id,
                    unit: *unit,
                    holding,
                    egress,
                });
            }
        }
    }
    found.sort_by_key(|s| {
        let took = s.took();
        let server = s.holding.exposure.actor.unit_kind == UnitKind::McpServer;
        (
            !took,
            !server,
            s.holding.exposure.time,
            s.host.clone(),
            s.unit,
        )
    });
    found
}

/// True when a connection took its unit out of the house while it held the credential.
fn leaves(host: &Host, holding: &Holding, connection: &Connection) -> bool {
    let Some(opened) = &connection.opened else {
        return false;
    };
    let remote = opened.remote.ip();
    // Inside the host, the link or a resolver: not out of the house. (Local proxies are followed
    // by the sensor, DNS tunnels by volume, neither by this rule.)
    let local = remote.is_loopback()
        || remote.is_unspecified()
        || matches!(remote, IpAddr::V4(v4) if v4.is_link_local())
        || (opened.transport == Transport::Udp && opened.remote.port() == 53);
    // A connection from before counts while it lasts: what was read can leave over it.
    let over = connection
        .closed
        .is_some_and(|closed| closed.time < holding.span.first);
    if local || over {
        return false;
    }
    // Without a name it counts once a name can no longer come.
    let named_by = opened.time.checked_add(NAME_DELAY).unwrap_or(opened.time);
    connection.name.is_some()
        || connection.closed.is_some()
        || host.watermark.is_some_and(|w| w > named_by)
}

/// True when `name` lies outside the credential's affinity set.
fn is_outside(settings: &Settings, id: &CredentialId, holding: &Holding, name: &str) -> bool {
    if is_affine(id, name) {
        return abuses_affinity(id, holding, name);
    }
    !is_expected(settings, holding, name)
}

/// True when the settings, or the place where the credential was found, expect this destination.
fn is_expected(settings: &Settings, holding: &Holding, name: &str) -> bool {
    settings
        .expected_destinations
        .iter()
        .chain(&holding.exposure.destinations)
        .any(|suffix| under(name, suffix))
}

/// True when a connection to the credential's own provider is no excuse: a package's install
/// script that took a GitHub token and calls the API with it publishes what it found there.
fn abuses_affinity(id: &CredentialId, holding: &Holding, name: &str) -> bool {
    let api = under(name, "api.github.com") || under(name, "uploads.github.com");
    id.kind() == CredentialKind::GithubToken
        && api
        && lifecycle::of(&holding.exposure.actor).is_some()
}

/// Names looked up that can have carried a secret to whoever answers for the domain.
fn tunnels(
    settings: &Settings,
    id: &CredentialId,
    holding: &Holding,
    unit: &Unit,
) -> Vec<EgressEvidence> {
    let mut domains: BTreeMap<&str, (u64, u64, EgressEvidence)> = BTreeMap::new();
    for ((time, event), lookups) in &unit.lookups {
        if *time < holding.span.first
            || is_affine(id, &lookups.domain)
            || is_expected(settings, holding, &lookups.domain)
        {
            continue;
        }
        let new = || {
            let evidence = EgressEvidence {
                event: event.clone(),
                time: *time,
                name: Some(lookups.domain.clone()),
                name_source: Some(NameSource::Dns),
                // The resolver is whichever the host uses; the record does not name it.
                remote: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 53),
                bytes_sent: None,
                bytes_received: None,
                exe: "name lookups".to_owned(),
            };
            (0, 0, evidence)
        };
        let (names, bytes, _) = domains.entry(&lookups.domain).or_insert_with(new);
        *names = names.saturating_add(lookups.names);
        *bytes = bytes.saturating_add(lookups.bytes);
    }
    domains
        .into_values()
        .filter(|(names, bytes, _)| {
            let long = *names >= LONG_NAMES
                && *bytes >= LONG_BYTES
                && bytes.checked_div(*names).unwrap_or(0) >= LONG_NAME;
            long || (*names >= MANY_NAMES && *bytes >= MANY_BYTES)
        })
        .map(|(_, bytes, mut evidence)| {
            evidence.bytes_sent = Some(bytes);
            evidence
        })
        .collect()
}

fn evidence(connection: &Connection) -> Option<EgressEvidence> {
    let opened = connection.opened.as_ref()?;
    Some(EgressEvidence {
        event: opened.event.clone(),
        time: opened.time,
        name: connection.name.clone(),
        name_source: connection.name_source,
        remote: opened.remote,
        bytes_sent: connection.closed.map(|closed| closed.sent),
        bytes_received: connection.closed.map(|closed| closed.received),
        exe: opened.exe.clone(),
    })
}
