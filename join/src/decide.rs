//! What is thought of one use: explained, unexplained, or not yet to be said.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use keytrail_model::affinity;
use keytrail_model::alert::AddressMatch;
use keytrail_model::consumption::{Caller, Consumption};
use keytrail_model::coverage::CoverageState;
use keytrail_model::ids::HostId;
use keytrail_model::text::shown;

use crate::credential::{Credential, Use};
use crate::egress::Sighting;
use crate::host::{ConnKey, Connection, Host, Opened};
use crate::input::{Settings, UseState};

/// A record is written a moment after the call: a connection that closed this much before still
/// carries it.
const CLOSE_SLACK: SignedDuration = SignedDuration::from_secs(2);
/// A connection that opened at most this long before a use is *fresh*: the use is likely to be
/// what it was opened for.
pub(crate) const FRESH: SignedDuration = SignedDuration::from_secs(5);
/// A gap this long before a use may hide the opening of the connection that carried it.
const GAP_REACH: SignedDuration = SignedDuration::from_mins(10);
/// A use this long before the first exposure is still judged: residual clock skew.
const EXPOSURE_SKEW: SignedDuration = SignedDuration::from_secs(2);

/// The time in which a use happened, widened by a host's clock error.
#[derive(Clone, Copy, Debug)]
struct Window {
    from: Timestamp,
    to: Timestamp,
}

impl Window {
    fn of(usage: &Consumption, host: &Host) -> Self {
        let error = host.clock_error();
        let granularity = SignedDuration::from_millis(i64::from(usage.granularity_ms));
        Self {
            from: usage.time.checked_sub(error).unwrap_or(usage.time),
            to: usage
                .time
                .checked_add(granularity + error)
                .unwrap_or(usage.time),
        }
    }

    fn covered_by(&self, opened: &Opened, connection: &Connection) -> bool {
        opened.time <= self.to
            && connection.closed.is_none_or(|closed| {
                closed.time.checked_add(CLOSE_SLACK).unwrap_or(closed.time) >= self.from
            })
    }

    fn fresh(&self, opened: &Opened) -> bool {
        opened.time <= self.to && self.from.duration_since(opened.time) <= FRESH
    }
}

/// A connection that can have carried a use, as far as name and time go.
struct Candidate<'a> {
    key: ConnKey,
    opened: &'a Opened,
    name: Option<&'a str>,
    fresh: bool,
}

/// Connections on `host` that can have carried `usage`, those with the right name first.
fn candidates<'a>(host: &'a Host, usage: &Consumption) -> Vec<Candidate<'a>> {
    let window = Window::of(usage, host);
    let names: Vec<&str> = host
        .names()
        .filter(|name| affinity::serves(name, usage))
        .collect();
    names
        .into_iter()
        .flat_map(|name| host.named(name))
        .chain(host.unnamed())
        .filter_map(|(key, connection)| {
            let opened = connection.opened.as_ref()?;
            window.covered_by(opened, connection).then(|| Candidate {
                key,
                opened,
                name: connection.name.as_deref(),
                fresh: window.fresh(opened),
            })
        })
        .collect()
}

/// What the connections of `host` show about its outside addresses, given `usage`.
pub(crate) fn sightings(host: &Host, usage: &Consumption) -> Vec<Sighting> {
    let Caller::Address { address } = usage.caller else {
        return Vec::new();
    };
    candidates(host, usage)
        .into_iter()
        .filter(|candidate| candidate.fresh && candidate.name.is_some())
        .map(|candidate| Sighting {
            local: candidate.opened.local.ip(),
            time: usage.time,
            outside: address,
            connection: candidate.key,
        })
        .collect()
}

/// What one holder has to say.
enum Answer {
    Explains {
        at: HostId,
        use_via: Option<String>,
        state: UseState,
    },
    Waiting(String),
    No(String),
}

/// Decides `usage` anew from everything that is known.
pub(crate) fn decide(
    settings: &Settings,
    hosts: &BTreeMap<HostId, Host>,
    credential: &Credential,
    usage: &Consumption,
) -> (UseState, Option<(HostId, Option<String>)>) {
    if let Caller::Service { service } = &usage.caller {
        return (
            UseState::ServiceSide {
                service: service.clone(),
            },
            None,
        );
    }
    let judged_from = credential
        .first_exposure()
        .map(|first| first.checked_sub(EXPOSURE_SKEW).unwrap_or(first));
    let mut waiting_for = Vec::new();
    let mut because = Vec::new();
    let mut best: Option<(AddressMatch, UseState, (HostId, Option<String>))> = None;
    for id in credential.holders.keys() {
        let Some(host) = hosts.get(id) else { continue };
        match ask(settings, id, host, credential, usage) {
            Answer::Explains { at, use_via, state } => {
                let UseState::Explained { address, .. } = &state else {
                    continue;
                };
                if best.as_ref().is_none_or(|(known, ..)| address < known) {
                    best = Some((*address, state, (at, use_via)));
                }
            }
            Answer::Waiting(why) => waiting_for.push(why),
            Answer::No(why) => because.push(why),
        }
    }
    if let Some((_, state, via)) = best {
        return (state, Some(via));
    }
    // Before any sensor saw the credential there is nothing to judge by.
    if judged_from.is_none_or(|from| usage.time < from) {
        return (UseState::Unwatched, None);
    }
    if waiting_for.is_empty() {
        (UseState::Unexplained { because }, None)
    } else {
        (UseState::Undecided { waiting_for }, None)
    }
}

/// Asks one holder for a connection that accounts for the use.
fn ask(
    settings: &Settings,
    id: &HostId,
    host: &Host,
    credential: &Credential,
    usage: &Consumption,
) -> Answer {
    let mut foreign = None;
    let mut best: Option<(AddressMatch, Candidate<'_>)> = None;
    for candidate in candidates(host, usage) {
        let matched = match &usage.caller {
            Caller::Address { address } => {
                let local = candidate.opened.local.ip();
                host.address_match(settings, local, *address, usage.time, candidate.fresh)
            }
            Caller::Unknown | Caller::Service { .. } => Some(AddressMatch::NotRecorded),
        };
        // A connection without a name may have gone anywhere: only a sure address makes it fit.
        let sure = candidate.name.is_some()
            || !matches!(
                matched,
                Some(AddressMatch::FirstSeen | AddressMatch::NotRecorded)
            );
        match matched {
            Some(matched) if sure => {
                let better = best.as_ref().is_none_or(|(known, kept)| {
                    (matched, candidate.name.is_none(), kept.opened.time)
                        < (*known, kept.name.is_none(), candidate.opened.time)
                });
                if better {
                    best = Some((matched, candidate));
                }
            }
            None if candidate.name.is_some() => foreign = Some(candidate),
            Some(_) | None => {}
        }
    }
    if let Some((address, candidate)) = best {
        let by = host
            .units
            .get(&candidate.opened.unit)
            .map_or_else(|| candidate.opened.exe.clone(), |unit| unit.label.clone());
        let connection = candidate.opened.event.clone();
        let use_via = candidate.name.map(str::to_owned);
        let state = UseState::Explained {
            connection,
            address,
            by,
        };
        return Answer::Explains {
            at: id.clone(),
            use_via,
            state,
        };
    }
    refuse(id, host, credential, usage, foreign.as_ref())
}

/// No connection fits: says whether that is certain.
fn refuse(
    id: &HostId,
    host: &Host,
    credential: &Credential,
    usage: &Consumption,
    foreign: Option<&Candidate<'_>>,
) -> Answer {
    let window = Window::of(usage, host);
    // A host that came to hold the credential only after the use has no say in it.
    let later = credential
        .first_exposure_on(id)
        .and_then(|first| first.checked_sub(EXPOSURE_SKEW).ok())
        .is_some_and(|first| first > window.to);
    if later {
        return Answer::No(format!(
            "{id}: holds the credential only since after this use"
        ));
    }
    match host.watermark {
        None => return Answer::Waiting(format!("{id}: its sensor has not reported yet")),
        Some(reached) if reached < window.to => {
            return Answer::Waiting(format!(
                "{id}: its sensor has not reported past that time yet"
            ));
        }
        Some(_) => {}
    }
    let reach = window.from.checked_sub(GAP_REACH).unwrap_or(window.from);
    if let Some(gap) = host.blind_between(reach, window.to) {
        let (from, to) = (gap.from, gap.to);
        return Answer::Waiting(format!(
            "{id}: saw nothing from {from} to {to} ({})",
            gap.reason
        ));
    }
    if host
        .forgotten_before
        .is_some_and(|forgotten| window.from < forgotten)
    {
        return Answer::Waiting(format!(
            "{id}: its connections of that time are no longer kept"
        ));
    }
    if let Some(missing) = blinding_row(host) {
        return Answer::Waiting(format!("{id}: this kernel does not show {missing}"));
    }
    let target = usage.server_name.as_deref().unwrap_or(&usage.service);
    let target = shown(target, 120);
    match (foreign, &usage.caller) {
        (Some(candidate), Caller::Address { address }) => {
            let local = candidate.opened.local.ip();
            Answer::No(format!(
                "{id}: had a connection to {target} open from {local}, but the use came from \
                 {address}, which is not an address of this host"
            ))
        }
        _ => Answer::No(format!(
            "{id}: no connection to {target} was open at {}, and all its facts up to then are in",
            usage.time
        )),
    }
}

/// What the sensor cannot see although explained use depends on it.
fn blinding_row(host: &Host) -> Option<&str> {
    let Some((_, coverage)) = &host.coverage else {
        return Some("what it covers (no coverage report yet)");
    };
    coverage.rows.iter().find_map(|row| match &row.state {
        CoverageState::Missing {
            blinds_verdicts: true,
            ..
        } => Some(row.what.as_str()),
        CoverageState::Missing { .. } | CoverageState::Live { .. } => None,
    })
}

impl Use {
    /// Decides this use anew. True when the decision changed.
    pub(crate) fn redecide(
        &mut self,
        decided: (UseState, Option<(HostId, Option<String>)>),
    ) -> bool {
        let (state, via) = decided;
        let changed = self.state != state;
        self.state = state;
        self.via = via;
        changed
    }
}
