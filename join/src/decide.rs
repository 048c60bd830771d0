//! What is thought of one use: explained, unexplained, or not yet to be said.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use keytrail_model::affinity;
use keytrail_model::alert::AddressMatch;
use keytrail_model::consumption::{Caller, Consumption};
use keytrail_model::coverage::CoverageState;
use keytrail_model::credential::CredentialId;
use keytrail_model::ids::{EventRef, HostId};
use keytrail_model::text::shown;

use crate::credential::Via;
use crate::descent::Standing;
use crate::egress::Sighting;
use crate::host::unit::Unit;
use crate::host::{ConnKey, Connection, Host, Opened};
use crate::input::UseState;
use crate::settings::Settings;

/// A record is written a moment after the call: a connection that closed this much before still
/// carries it.
const CLOSE_SLACK: SignedDuration = SignedDuration::from_secs(2);
/// A connection that opened at most this long before a use is *fresh*: the use is likely to be
/// what it was opened for.
pub(crate) const FRESH: SignedDuration = SignedDuration::from_secs(5);
/// A gap this long before a use may hide the opening of the connection that carried it.
pub(crate) const GAP_REACH: SignedDuration = SignedDuration::from_mins(10);
/// Cloud records come in any order, most within an hour: for so long a use over a connection whose
/// outside address is not known yet is not judged.
const SETTLE: SignedDuration = SignedDuration::from_hours(1);
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
    /// Its name is that of the endpoint.
    right: bool,
    /// It goes to a declared proxy, which may have carried it on to any name.
    proxy: bool,
    fresh: bool,
}

/// Connections on `host` that can have carried `usage`.
fn candidates<'a>(settings: &Settings, host: &'a Host, usage: &Consumption) -> Vec<Candidate<'a>> {
    let window = Window::of(usage, host);
    let reach = window.from.checked_sub(CLOSE_SLACK).unwrap_or(window.from);
    // A name that does not fit may still be a proxy's.
    let proxied = !settings.proxies.is_empty();
    let fits = |name: Option<&str>| name.is_none_or(|n| proxied || affinity::serves(n, usage));
    host.open_between(reach, window.to, fits)
        .into_iter()
        .filter_map(|(key, connection)| {
            let opened = connection.opened.as_ref()?;
            let name = connection.name.as_deref();
            let right = name.is_some_and(|name| affinity::serves(name, usage));
            let proxy = !right && settings.is_proxy(name, opened.remote.ip());
            let possible = right || proxy || name.is_none();
            (possible && window.covered_by(opened, connection)).then(|| Candidate {
                key,
                opened,
                name,
                right,
                proxy,
                fresh: window.fresh(opened),
            })
        })
        .collect()
}

/// What the connections of `host` show about its outside addresses, given `usage`.
pub(crate) fn sightings(settings: &Settings, host: &Host, usage: &Consumption) -> Vec<Sighting> {
    let Caller::Address { address } = usage.caller else {
        return Vec::new();
    };
    candidates(settings, host, usage)
        .into_iter()
        .filter(|candidate| candidate.fresh && candidate.right)
        .map(|candidate| Sighting {
            local: candidate.opened.local.ip(),
            time: usage.time,
            outside: address,
            connection: candidate.key,
        })
        .collect()
}

/// By what a host is asked: since when it holds the credential, and what that descends from.
struct Claim<'a> {
    since: Timestamp,
    line: &'a [CredentialId],
}

/// What one holder has to say.
enum Answer {
    Explains {
        address: AddressMatch,
        connection: EventRef,
        by: String,
        via: Via,
    },
    Waiting(String),
    No(String),
}

/// What everything that is known says about a use.
pub(crate) struct Decision {
    pub(crate) state: UseState,
    /// The connection that explains it.
    pub(crate) via: Option<Via>,
    /// Hosts whose further facts may settle it.
    pub(crate) waits_for: Vec<HostId>,
}

impl From<UseState> for Decision {
    fn from(state: UseState) -> Self {
        Self {
            state,
            via: None,
            waits_for: Vec::new(),
        }
    }
}

/// Decides `usage`, whose credential stands as `standing`, from everything that is known.
pub(crate) fn decide(
    settings: &Settings,
    hosts: &BTreeMap<HostId, Host>,
    standing: &Standing,
    usage: &Consumption,
) -> Decision {
    if let Caller::Service { service } = &usage.caller {
        let service = service.clone();
        return UseState::ServiceSide { service }.into();
    }
    if let Some(holder) = settings.external_holder(usage) {
        let holder = holder.name.clone();
        return UseState::Declared { holder }.into();
    }
    if let Some(theft) = &standing.stolen
        && standing.holders.is_empty()
    {
        let because = vec![format!(
            "minted by {}, a use of {} that nothing accounts for",
            shown(&theft.record.0, 200),
            theft.parent
        )];
        return UseState::Unexplained { because }.into();
    }
    let mut waiting_for = Vec::new();
    let mut waits_for = Vec::new();
    let mut because = Vec::new();
    let mut best: Option<(AddressMatch, EventRef, String, Via)> = None;
    let strong = standing.holders.iter().map(|(id, since)| (id, since, true));
    let weak = standing.weak.iter().map(|(id, since)| (id, since, false));
    for (id, since, strong) in strong.chain(weak) {
        let Some(host) = hosts.get(id) else { continue };
        let claim = Claim {
            since: *since,
            line: &standing.line,
        };
        match ask(settings, id, host, &claim, usage) {
            Answer::Explains {
                address,
                connection,
                by,
                via,
            } => {
                if best.as_ref().is_none_or(|(known, ..)| address < *known) {
                    best = Some((address, connection, by, via));
                }
            }
            Answer::Waiting(why) if strong => {
                waiting_for.push(why);
                waits_for.push(id.clone());
            }
            Answer::No(why) if strong => because.push(why),
            Answer::Waiting(_) | Answer::No(_) => {}
        }
    }
    if let Some((address, connection, by, via)) = best {
        return Decision {
            state: UseState::Explained {
                connection,
                address,
                by,
            },
            via: Some(via),
            waits_for: Vec::new(),
        };
    }
    if let Some(record) = &standing.waiting
        && standing.holders.is_empty()
    {
        let record = shown(&record.0, 200);
        let waiting_for = vec![format!("{record}, which minted it, is not judged yet")];
        return UseState::Undecided { waiting_for }.into();
    }
    // Before any sensor saw the credential there is nothing to judge by.
    let judged_from = standing
        .judged_from()
        .map(|first| first.checked_sub(EXPOSURE_SKEW).unwrap_or(first));
    if judged_from.is_none_or(|from| usage.time < from) {
        return UseState::Unwatched.into();
    }
    if waiting_for.is_empty() {
        return UseState::Unexplained { because }.into();
    }
    Decision {
        state: UseState::Undecided { waiting_for },
        via: None,
        waits_for,
    }
}

/// Asks one holder for a connection that accounts for the use.
fn ask(
    settings: &Settings,
    id: &HostId,
    host: &Host,
    claim: &Claim<'_>,
    usage: &Consumption,
) -> Answer {
    let mut foreign = None;
    let mut best: Option<(AddressMatch, Candidate<'_>)> = None;
    for candidate in candidates(settings, host, usage) {
        let matched = match &usage.caller {
            Caller::Address { address } => {
                let local = candidate.opened.local.ip();
                let over = (candidate.key, local);
                let known =
                    host.address_match(settings, over, *address, usage.time, candidate.fresh);
                match known {
                    Some(AddressMatch::Local | AddressMatch::SameNetwork) => known,
                    // A pool of the table of networks is as good as one in the settings.
                    _ if settings.is_own(usage) => Some(AddressMatch::Declared),
                    _ => known,
                }
            }
            Caller::Unknown | Caller::Service { .. } => Some(AddressMatch::NotRecorded),
        };
        let sure = if candidate.right {
            true
        } else if candidate.proxy {
            // A proxy carries anything, but only out of the organisation's own addresses.
            matched == Some(AddressMatch::Declared)
        } else {
            // A connection without a name may have gone anywhere: only a sure address makes it fit.
            !matches!(
                matched,
                Some(AddressMatch::FirstSeen | AddressMatch::NotRecorded)
            )
        };
        match matched {
            Some(matched) if sure => {
                let better = best.as_ref().is_none_or(|(known, kept)| {
                    (matched, !candidate.right, kept.opened.time, candidate.key)
                        < (*known, !kept.right, candidate.opened.time, kept.key)
                });
                if better {
                    best = Some((matched, candidate));
                }
            }
            None if candidate.right => foreign = Some(candidate),
            Some(_) | None => {}
        }
    }
    if let Some((address, candidate)) = best {
        let unit = candidate.opened.unit;
        let by = host
            .units
            .get(unit)
            .and_then(Unit::label)
            .unwrap_or_else(|| candidate.opened.exe.clone());
        return Answer::Explains {
            address,
            connection: candidate.opened.event.clone(),
            by,
            via: Via {
                host: id.clone(),
                name: candidate.name.map(str::to_owned),
                unit,
            },
        };
    }
    refuse(settings, id, host, claim, usage, foreign.as_ref())
}

/// No connection fits: says whether that is certain.
fn refuse(
    settings: &Settings,
    id: &HostId,
    host: &Host,
    claim: &Claim<'_>,
    usage: &Consumption,
    foreign: Option<&Candidate<'_>>,
) -> Answer {
    let window = Window::of(usage, host);
    // A host that came to hold the credential only after the use has no say in it.
    let since = claim.since;
    let since = since.checked_sub(EXPOSURE_SKEW).unwrap_or(since);
    if since > window.to {
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
    // Over a connection that was no longer fresh only other records tell the address, and those may
    // still be on their way.
    let settled = window.to.checked_add(SETTLE).unwrap_or(window.to);
    if let (Some(candidate), Caller::Address { .. }) = (foreign, &usage.caller)
        && !host.knows_outside(candidate.opened.local.ip(), usage.time)
        && host.watermark.is_some_and(|reached| reached < settled)
    {
        return Answer::Waiting(format!(
            "{id}: had a connection to it open, from an outside address that other records may \
             still tell"
        ));
    }
    if let Caller::Address { address } = usage.caller
        && (settings.is_own(usage) || host.is_own_address(settings, address, usage.time))
        && let Some((daemon, through)) = host.units.asked_before(claim.line, window.to)
    {
        return Answer::Waiting(format!(
            "{id}: the use came from its own address, and a holder had asked {} through {} to act \
             for it, which is not seen",
            shown(daemon, 40),
            shown(through, 120)
        ));
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
