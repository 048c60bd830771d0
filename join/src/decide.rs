//! What is thought of one use: explained, unexplained, or not yet to be said.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use keytrail_model::affinity;
use keytrail_model::alert::AddressMatch;
use keytrail_model::consumption::{Caller, Consumption};
use keytrail_model::coverage::CoverageState;
use keytrail_model::credential::CredentialId;
use keytrail_model::ids::HostId;
use keytrail_model::text::shown;

use crate::credential::{Use, Via};
use crate::descent::Standing;
use crate::egress::Sighting;
use crate::host::unit::Unit;
use crate::host::{ConnKey, Connection, Host, Opened};
use crate::input::UseState;
use crate::settings::Settings;

/// A record is written a moment after the call: a connection that closed this much before still
/// carries it.
pub(crate) const CLOSE_SLACK: SignedDuration = SignedDuration::from_secs(2);
/// A connection that opened at most this long before a use is *fresh*: the use is likely to be
/// what it was opened for.
pub(crate) const FRESH: SignedDuration = SignedDuration::from_secs(5);
/// A gap this long before a use may hide the opening of the connection that carried it.
pub(crate) const GAP_REACH: SignedDuration = SignedDuration::from_mins(10);
/// Cloud records come in any order, most within an hour, the last ones about a day late: for so long
/// a use over a connection whose outside address is not known yet is not judged.
const SETTLE: SignedDuration = SignedDuration::from_hours(24);
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

impl Candidate<'_> {
    /// The connection and its own address.
    fn over(&self) -> (ConnKey, IpAddr) {
        (self.key, self.opened.local.ip())
    }
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
    if !affinity::names_tell(usage) {
        // Every connection fits, whatever it was for: none of them shows whose address it is.
        return Vec::new();
    }
    let own = settings.is_own(usage);
    candidates(settings, host, usage)
        .into_iter()
        .filter(|candidate| candidate.fresh && candidate.right)
        .map(|candidate| Sighting {
            local: candidate.opened.local.ip(),
            time: usage.time,
            outside: address,
            connection: candidate.key,
            own,
        })
        .collect()
}

/// By what a host is asked: since when it holds the credential, and what that descends from.
struct Claim<'a> {
    since: Timestamp,
    line: &'a [CredentialId],
}

/// What one holder has to say whose connections account for the use.
struct Explains<'a> {
    address: AddressMatch,
    host: (&'a HostId, &'a Host),
    candidate: Candidate<'a>,
}

/// What one holder has to say whose connections do not.
enum Refusal {
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

impl From<Explains<'_>> for Decision {
    fn from(best: Explains<'_>) -> Self {
        let (id, host) = best.host;
        let opened = best.candidate.opened;
        let label = host.units.get(opened.unit).and_then(Unit::label);
        Self {
            state: UseState::Explained {
                connection: opened.event.clone(),
                address: best.address,
                by: label.unwrap_or_else(|| opened.exe.clone()),
            },
            via: Some(Via {
                host: id.clone(),
                name: best.candidate.name.map(str::to_owned),
                unit: opened.unit,
            }),
            waits_for: Vec::new(),
        }
    }
}

/// Decides a use of which everything was decided before, when only the facts of the host `id` are
/// other ones now. `None`: nothing follows from them, or all holders are to be asked.
///
/// A key in the hands of hundreds of hosts would otherwise be asked of all of them at every
/// connection of each.
pub(crate) fn decide_on(
    settings: &Settings,
    (id, host): (&HostId, &Host),
    standing: &Standing,
    known: &Use,
) -> Option<Anew> {
    let (
        UseState::Explained {
            address: before, ..
        },
        Some(via),
    ) = (&known.state, &known.via)
    else {
        return None;
    };
    if via.host == *id {
        return None;
    }
    if !standing.holders.contains_key(id) && !standing.weak.contains_key(id) {
        // It holds an ancestor only; a full decision would not ask it.
        return Some(Anew::Same);
    }
    // Of equally good explanations that of the first holder counts, the weak ones last.
    let rank = |id: &HostId| (!standing.holders.contains_key(id), id.clone());
    let found = explain(settings, (id, host), &known.usage).ok();
    let better = found.filter(|new| {
        new.address < *before || (new.address == *before && rank(id) < rank(&via.host))
    });
    Some(better.map_or(Anew::Same, |best| Anew::Other(best.into())))
}

/// What became of a use when the facts of one host changed.
pub(crate) enum Anew {
    /// What was thought of it holds.
    Same,
    /// Something else.
    Other(Decision),
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
    let mut best: Option<Explains<'_>> = None;
    let mut silent = Vec::new();
    let strong = standing.holders.iter().map(|(id, since)| (id, since, true));
    let weak = standing.weak.iter().map(|(id, since)| (id, since, false));
    for (id, since, strong) in strong.chain(weak) {
        let Some(host) = hosts.get(id) else { continue };
        match explain(settings, (id, host), usage) {
            Ok(new) => {
                if best
                    .as_ref()
                    .is_none_or(|known| new.address < known.address)
                {
                    best = Some(new);
                }
            }
            Err(foreign) if strong => silent.push((id, host, *since, foreign)),
            Err(_) => {}
        }
    }
    if let Some(best) = best {
        return best.into();
    }
    let mut waiting_for = Vec::new();
    let mut waits_for = Vec::new();
    let mut because = Vec::new();
    for (id, host, since, foreign) in silent {
        let claim = Claim {
            since,
            line: &standing.line,
        };
        match refuse(settings, id, host, &claim, usage, &foreign) {
            Refusal::Waiting(why) => {
                waiting_for.push(why);
                waits_for.push(id.clone());
            }
            Refusal::No(why) => because.push(why),
        }
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

/// Asks one holder for a connection that accounts for the use. `Err`: there is none; those that
/// would but for the address.
fn explain<'a>(
    settings: &Settings,
    (id, host): (&'a HostId, &'a Host),
    usage: &Consumption,
) -> Result<Explains<'a>, Vec<Candidate<'a>>> {
    let mut foreign = Vec::new();
    let mut best: Option<(AddressMatch, Candidate<'_>)> = None;
    for candidate in candidates(settings, host, usage) {
        let matched = match &usage.caller {
            Caller::Address { address } => {
                let over = candidate.over();
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
            None if candidate.right => foreign.push(candidate),
            Some(_) | None => {}
        }
    }
    match best {
        Some((address, candidate)) => Ok(Explains {
            address,
            host: (id, host),
            candidate,
        }),
        None => Err(foreign),
    }
}

/// No connection fits: says whether that is certain.
fn refuse(
    settings: &Settings,
    id: &HostId,
    host: &Host,
    claim: &Claim<'_>,
    usage: &Consumption,
    foreign: &[Candidate<'_>],
) -> Refusal {
    let window = Window::of(usage, host);
    // A host that came to hold the credential only after the use has no say in it.
    let since = claim.since;
    let since = since.checked_sub(EXPOSURE_SKEW).unwrap_or(since);
    if since > window.to {
        return Refusal::No(format!(
            "{id}: holds the credential only since after this use"
        ));
    }
    match host.watermark {
        None => return Refusal::Waiting(format!("{id}: its sensor has not reported yet")),
        Some(reached) if reached < window.to => {
            return Refusal::Waiting(format!(
                "{id}: its sensor has not reported past that time yet"
            ));
        }
        Some(_) => {}
    }
    let reach = window.from.checked_sub(GAP_REACH).unwrap_or(window.from);
    if let Some(gap) = host.blind_between(reach, window.to) {
        let (from, to) = (gap.from, gap.to);
        return Refusal::Waiting(format!(
            "{id}: saw nothing from {from} to {to} ({})",
            gap.reason
        ));
    }
    if host
        .forgotten_before
        .is_some_and(|forgotten| window.from < forgotten)
    {
        return Refusal::Waiting(format!(
            "{id}: its connections of that time are no longer kept"
        ));
    }
    if let Some(missing) = blinding_row(host) {
        return Refusal::Waiting(format!("{id}: this kernel does not show {missing}"));
    }
    // Over a connection that was no longer fresh only other records tell the address, and those may
    // still be on their way.
    let settled = window.to.checked_add(SETTLE).unwrap_or(window.to);
    if let Caller::Address { address } = usage.caller
        && host.watermark.is_some_and(|reached| reached < settled)
        && foreign
            .iter()
            .any(|c| !c.fresh && host.may_turn_out(c.over(), address, usage.time))
    {
        return Refusal::Waiting(format!(
            "{id}: had a connection to it open, from an outside address that other records may \
             still tell"
        ));
    }
    if let Caller::Address { address } = usage.caller
        && (settings.is_own(usage) || host.is_own_address(settings, address, usage.time))
        && let Some((daemon, through)) = host.units.asked_before(claim.line, window.to)
    {
        return Refusal::Waiting(format!(
            "{id}: the use came from its own address, and a holder had asked {} through {} to act \
             for it, which is not seen",
            shown(daemon, 40),
            shown(through, 120)
        ));
    }
    let target = usage.server_name.as_deref().unwrap_or(&usage.service);
    let target = shown(target, 120);
    match (foreign.last(), &usage.caller) {
        (Some(candidate), Caller::Address { address }) => {
            let local = candidate.opened.local.ip();
            Refusal::No(format!(
                "{id}: had a connection to {target} open from {local}, but the use came from \
                 {address}, which is not an address of this host"
            ))
        }
        _ => Refusal::No(format!(
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
