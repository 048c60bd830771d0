//! From what is known about a credential to what is said about it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use keytrail_model::affinity::{is_affine, under};
use keytrail_model::alert::{
    Alert, Change, EgressEvidence, ExplainedUse, ExposureEvidence, Holder, Owner, UnexplainedUse,
    Verdict,
};
use keytrail_model::consumption::Caller;
use keytrail_model::credential::{CredentialId, CredentialKind};
use keytrail_model::fact::{ExposureSource, Transport};
use keytrail_model::ids::{AlertId, HostId, RecordId};
use keytrail_model::process::{Actor, Confidence, UnitKind};
use keytrail_model::text::shown;

use crate::advice;
use crate::credential::{Credential, Holding, Use};
use crate::host::{Connection, Host, UnitKey};
use crate::input::{Settings, UseState};

/// A theft may be used this much before its egress: residual clock skew (design, "Time").
const SKEW: SignedDuration = SignedDuration::from_mins(5);
/// A connection that has no name this long after it opened will not get one.
const NAME_DELAY: SignedDuration = SignedDuration::from_secs(10);
/// How much evidence an alert carries.
const MAX_EXPLAINED: usize = 8;
const MAX_UNEXPLAINED: usize = 16;
const MAX_EGRESS: usize = 16;
const MAX_ACTORS: usize = 16;

/// A holding that looks like a theft.
struct Suspect<'a> {
    host: &'a HostId,
    unit: UnitKey,
    holding: &'a Holding,
    egress: Vec<EgressEvidence>,
}

/// What the evidence about one credential amounts to.
pub(crate) struct Weighed<'a> {
    id: &'a CredentialId,
    state: &'a Credential,
    hosts: &'a BTreeMap<HostId, Host>,
    verdict: Verdict,
    suspect: Option<Suspect<'a>>,
}

/// What caused a fresh look, for the alert's history.
pub(crate) struct Cause {
    pub(crate) time: Timestamp,
    pub(crate) record: Option<RecordId>,
}

/// Weighs everything known about `id`. `None`: nothing to say and nothing was said before.
pub(crate) fn weigh<'a>(
    settings: &Settings,
    hosts: &'a BTreeMap<HostId, Host>,
    id: &'a CredentialId,
    state: &'a Credential,
    now: Option<Timestamp>,
) -> Option<Weighed<'a>> {
    let suspects = suspects(settings, hosts, id, state);
    let earliest_theft = |suspect: &Suspect<'_>| suspect.egress.first().map(|e| e.time);
    let unexplained = unexplained(state);
    let last_use = unexplained.iter().map(|u| u.usage.time).max();
    // `confirmed` needs the egress before the use, skew allowed.
    let responsible = |suspect: &Suspect<'_>| match (earliest_theft(suspect), last_use) {
        (Some(left), Some(used)) => left <= used.checked_add(SKEW).unwrap_or(used),
        _ => false,
    };
    let (verdict, suspect) = if unexplained.is_empty() {
        let taken = suspects
            .into_iter()
            .find(|s| matches!(s.holding.exposure.source, ExposureSource::File { .. }));
        match taken {
            Some(suspect) => (Verdict::Suspected, Some(suspect)),
            None if long_undecided(settings, state, now) => (Verdict::BlindSpot, None),
            None => (Verdict::Closed, None),
        }
    } else {
        match suspects.into_iter().find(responsible) {
            Some(suspect) => (Verdict::Confirmed, Some(suspect)),
            None => (Verdict::UnexplainedUse, None),
        }
    };
    if verdict == Verdict::Closed && state.alert.is_none() {
        return None;
    }
    Some(Weighed {
        id,
        state,
        hosts,
        verdict,
        suspect,
    })
}

fn unexplained(state: &Credential) -> Vec<&Use> {
    state
        .uses
        .values()
        .filter(|u| matches!(u.state, UseState::Unexplained { .. }))
        .collect()
}

fn long_undecided(settings: &Settings, state: &Credential, now: Option<Timestamp>) -> bool {
    let patience = SignedDuration::from_hours(i64::from(settings.undecided_hours));
    now.is_some_and(|now| {
        state.uses.values().any(|u| {
            matches!(u.state, UseState::Undecided { .. })
                && now.duration_since(u.usage.time) > patience
        })
    })
}

/// Holdings by an unexpected reader whose unit then left the affinity set, the worst first.
fn suspects<'a>(
    settings: &Settings,
    hosts: &'a BTreeMap<HostId, Host>,
    id: &CredentialId,
    state: &'a Credential,
) -> Vec<Suspect<'a>> {
    let mut found: Vec<Suspect<'a>> = Vec::new();
    for (host_id, holdings) in &state.holders {
        let Some(host) = hosts.get(host_id) else {
            continue;
        };
        for (unit, holding) in holdings {
            if !holding.exposure.unexpected_reader {
                continue;
            }
            let egress: Vec<EgressEvidence> = host
                .of_unit(*unit)
                .filter(|connection| leaves(settings, host, id, holding, connection))
                .filter_map(evidence)
                .take(MAX_EGRESS)
                .collect();
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
        let file = matches!(s.holding.exposure.source, ExposureSource::File { .. });
        let server = s.holding.exposure.actor.unit_kind == UnitKind::McpServer;
        (
            !file,
            !server,
            s.holding.exposure.time,
            s.host.clone(),
            s.unit,
        )
    });
    found
}

/// True when a connection took its unit outside the affinity set after it held the credential.
fn leaves(
    settings: &Settings,
    host: &Host,
    id: &CredentialId,
    holding: &Holding,
    connection: &Connection,
) -> bool {
    let Some(opened) = &connection.opened else {
        return false;
    };
    let remote = opened.remote.ip();
    // Inside the host, the link or a resolver: not out of the house. (Local proxies are followed
    // by the sensor, DNS tunnels by volume, neither by this rule.)
    let local = remote.is_loopback()
        || remote.is_unspecified()
        || matches!(remote, std::net::IpAddr::V4(v4) if v4.is_link_local())
        || (opened.transport == Transport::Udp && opened.remote.port() == 53);
    // A connection from before counts while it lasts: what was read can leave over it.
    let over = connection
        .closed
        .is_some_and(|closed| closed.time < holding.span.first);
    if local || over {
        return false;
    }
    let Some(name) = &connection.name else {
        let named_by = opened.time.checked_add(NAME_DELAY).unwrap_or(opened.time);
        return connection.closed.is_some() || host.watermark.is_some_and(|w| w > named_by);
    };
    let expected = settings
        .expected_destinations
        .iter()
        .chain(&holding.exposure.destinations);
    !is_affine(id, name) && !expected.into_iter().any(|suffix| under(name, suffix))
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

impl Weighed<'_> {
    /// Writes the alert, continuing the history of `before`.
    pub(crate) fn alert(self, cause: &Cause) -> Alert {
        let exposure = self.exposure();
        let unexplained = self.unexplained();
        let explained = self.explained();
        let totals = self.state.totals();
        let egress = self
            .suspect
            .as_ref()
            .map(|s| s.egress.clone())
            .unwrap_or_default();
        let title = title(self.verdict, self.id, exposure.as_ref(), &unexplained);
        let (first_seen, last_seen) = self
            .span(exposure.as_ref())
            .unwrap_or((cause.time, cause.time));
        let also_exposed = self.also_exposed();
        let mut alert = Alert {
            id: AlertId::derive(&self.id.to_string()),
            verdict: self.verdict,
            severity: self.verdict.severity().to_owned(),
            title,
            credential: self.id.clone(),
            account: self.id.aws_account(),
            strength: self.state.uses.values().map(|u| u.usage.strength).max(),
            first_seen,
            last_seen,
            exposure,
            egress,
            also_exposed,
            explained,
            explained_total: totals.explained,
            unexplained,
            unexplained_total: totals.unexplained,
            undecided_total: totals.undecided,
            holders: holders(self.hosts, self.state),
            owners: self.owners(),
            blind_spots: self.blind_spots(),
            actions: Vec::new(),
            techniques: Vec::new(),
            history: Vec::new(),
        };
        alert.actions = advice::actions(&alert, &self.state.children);
        alert.techniques = advice::techniques(&alert);
        alert.history = history(self.state.alert.as_deref(), &alert, cause);
        alert
    }

    /// The exposure held responsible.
    fn exposure(&self) -> Option<ExposureEvidence> {
        self.suspect
            .as_ref()
            .map(|suspect| suspect.holding.exposure.clone())
    }

    fn explained(&self) -> Vec<ExplainedUse> {
        let all = self
            .state
            .uses
            .values()
            .rev()
            .filter_map(|u| match (&u.state, &u.via) {
                (
                    UseState::Explained {
                        connection,
                        address,
                        by,
                    },
                    Some((host, name)),
                ) => Some(ExplainedUse {
                    usage: u.usage.clone(),
                    host: host.clone(),
                    connection: connection.clone(),
                    name: name.clone(),
                    by: by.clone(),
                    address_match: *address,
                }),
                _ => None,
            });
        let mut latest: Vec<ExplainedUse> = all.take(MAX_EXPLAINED).collect();
        latest.reverse();
        latest
    }

    fn unexplained(&self) -> Vec<UnexplainedUse> {
        self.state
            .uses
            .values()
            .filter_map(|u| match &u.state {
                UseState::Unexplained { because } => Some(UnexplainedUse {
                    usage: u.usage.clone(),
                    because: because.clone(),
                }),
                _ => None,
            })
            .take(MAX_UNEXPLAINED)
            .collect()
    }

    /// Event times of the first and the latest evidence. Only the evidence itself counts, not what
    /// made us look (JN-2).
    fn span(&self, exposure: Option<&ExposureEvidence>) -> Option<(Timestamp, Timestamp)> {
        let open = |u: &&Use| {
            matches!(
                u.state,
                UseState::Unexplained { .. } | UseState::Undecided { .. }
            )
        };
        let uses = self.state.uses.values().filter(open).map(|u| u.usage.time);
        let egress = self
            .suspect
            .iter()
            .flat_map(|s| s.egress.iter().map(|e| e.time));
        let mut times: Vec<Timestamp> = exposure
            .map(|e| e.time)
            .into_iter()
            .chain(uses)
            .chain(egress)
            .collect();
        if times.is_empty() {
            times.extend(self.state.uses.keys().map(|(time, _)| *time));
            times.extend(self.state.first_exposure());
        }
        Some((times.iter().min().copied()?, times.iter().max().copied()?))
    }

    fn also_exposed(&self) -> Vec<CredentialId> {
        let Some(suspect) = &self.suspect else {
            return Vec::new();
        };
        let Some(host) = self.hosts.get(suspect.host) else {
            return Vec::new();
        };
        host.held_by(suspect.unit)
            .filter(|other| *other != self.id)
            .cloned()
            .collect()
    }

    /// The account on the endpoint. (People directories come with the owners part.)
    fn owners(&self) -> Vec<Owner> {
        let actors: Vec<&Actor> = match &self.suspect {
            Some(suspect) => vec![&suspect.holding.exposure.actor],
            None => self
                .state
                .holders
                .values()
                .flatten()
                .map(|(_, h)| &h.exposure.actor)
                .collect(),
        };
        let mut owners: Vec<Owner> = Vec::new();
        for user in actors.into_iter().filter_map(|actor| actor.user.as_ref()) {
            let (name, method, confidence) = match (&user.login_uid, &user.name) {
                (Some(login), _) => (
                    format!("login uid {login}"),
                    "audit login uid",
                    Confidence::High,
                ),
                (None, Some(name)) => (name.clone(), "account of the process", Confidence::Medium),
                (None, None) => (
                    format!("uid {}", user.uid),
                    "account of the process",
                    Confidence::Low,
                ),
            };
            let name = match (&user.login_uid, &user.name) {
                (Some(login), Some(account)) if *login == user.uid => account.clone(),
                _ => name,
            };
            if !owners.iter().any(|known| known.name == name) {
                owners.push(Owner {
                    name,
                    method: method.to_owned(),
                    confidence,
                });
            }
        }
        owners.truncate(MAX_ACTORS);
        owners
    }

    fn blind_spots(&self) -> Vec<String> {
        let mut spots = Vec::new();
        if self.id.kind() == CredentialKind::GithubToken {
            spots.push(
                "no cloud source for GitHub tokens is connected: uses of this token are not seen"
                    .to_owned(),
            );
        }
        for id in self.state.holders.keys() {
            let Some(host) = self.hosts.get(id) else {
                continue;
            };
            if let Some((_, coverage)) = &host.coverage
                && !coverage.can_judge()
            {
                spots.push(format!("{id}: its kernel does not show every connection"));
            }
            if !host.gaps.is_empty() {
                spots.push(format!(
                    "{id}: {} stretches of time were not seen",
                    host.gaps.len()
                ));
            }
        }
        let undecided = self.state.totals().undecided;
        if undecided > 0 {
            spots.push(format!("{undecided} uses cannot be judged yet"));
        }
        spots
    }
}

/// Everyone who holds the credential, for people.
pub(crate) fn holders(hosts: &BTreeMap<HostId, Host>, state: &Credential) -> Vec<Holder> {
    state
        .holders
        .iter()
        .filter_map(|(id, holdings)| {
            let first = holdings.iter().map(|(_, h)| h.span.first).min()?;
            let last = holdings.iter().map(|(_, h)| h.span.last).max()?;
            let mut actors: Vec<String> = holdings
                .iter()
                .map(|(_, h)| h.exposure.actor.label())
                .collect();
            actors.sort_unstable();
            actors.dedup();
            actors.truncate(MAX_ACTORS);
            let egress = hosts.get(id).map(Host::known_egress).unwrap_or_default();
            Some(Holder {
                host: id.clone(),
                first,
                last,
                actors,
                egress,
            })
        })
        .collect()
}

fn title(
    verdict: Verdict,
    id: &CredentialId,
    exposure: Option<&ExposureEvidence>,
    unexplained: &[UnexplainedUse],
) -> String {
    let credential = format!("{} {}", id.kind().title(), id.value());
    let who = exposure.map_or_else(
        || "an unknown party".to_owned(),
        |exposure| shown(&exposure.actor.label(), 160).to_string(),
    );
    let from = unexplained
        .first()
        .map_or_else(String::new, |u| match &u.usage.caller {
            Caller::Address { address } => format!(" from {address}"),
            Caller::Service { .. } | Caller::Unknown => String::new(),
        });
    match verdict {
        Verdict::Confirmed => format!("{credential} was taken by {who} and used{from}"),
        Verdict::UnexplainedUse => {
            format!("{credential} was used{from}, which no holder's connection accounts for")
        }
        Verdict::Suspected => {
            format!("{credential} was read by {who}, which then connected elsewhere")
        }
        Verdict::BlindSpot => format!("Uses of {credential} cannot be judged"),
        Verdict::Closed => format!("Every use of {credential} is accounted for by now"),
    }
}

fn history(before: Option<&Alert>, alert: &Alert, cause: &Cause) -> Vec<Change> {
    let mut history = before
        .map(|before| before.history.clone())
        .unwrap_or_default();
    let from = before.map(|before| before.verdict);
    if from != Some(alert.verdict) {
        let reason = match alert.verdict {
            Verdict::Confirmed => "a use that nothing accounts for, after a suspicious exposure",
            Verdict::UnexplainedUse => "a use that nothing accounts for",
            Verdict::Suspected => {
                "read by an unexpected reader, then egress outside the affinity set"
            }
            Verdict::BlindSpot => "uses stayed undecided for too long",
            Verdict::Closed => "later evidence accounts for every use",
        };
        history.push(Change {
            time: cause.time,
            from,
            to: alert.verdict,
            reason: reason.to_owned(),
            record: cause.record.clone(),
        });
    }
    history
}
