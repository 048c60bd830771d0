//! The same story, otherwise: what happens to evidence on its way must not change what is true.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use keytrail_join::{Input, UseState};
use keytrail_model::consumption::{ActionClass, Consumption};
use keytrail_model::credential::{CredentialId, CredentialKind};
use keytrail_model::fact::{Exposure, Fact, Gap, GapKind, HostEvent};
use keytrail_model::ids::{EventRef, HostId, RecordId};

use crate::check::{Run, run};
use crate::file::Pattern;
use crate::script::{Scenario, Step};
use crate::{endpoint, moment::later};

/// One way in which a story can happen otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variation {
    /// Everything arrives in another order (JN-2).
    Shuffled,
    /// Everything arrives twice (JN-3).
    Duplicated,
    /// The cloud's records arrive before the hosts' facts.
    CloudFirst,
    /// The cloud's records arrive 45 days late.
    Late,
    /// The sensors are offline from the first exposure until long after the end.
    Offline,
    /// The sensors lose every connection after the first exposure, and say so.
    Lost,
    /// The same story happens at another tenant at the same time.
    TwoTenants,
    /// Another enrolled host holds the credentials too.
    SecondHost,
    /// The thief mints a session from the stolen key and goes on with that.
    Derived,
}

impl Variation {
    /// Every variation.
    pub const ALL: [Self; 9] = [
        Self::Shuffled,
        Self::Duplicated,
        Self::CloudFirst,
        Self::Late,
        Self::Offline,
        Self::Lost,
        Self::TwoTenants,
        Self::SecondHost,
        Self::Derived,
    ];

    /// Its name in files and reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shuffled => "shuffled",
            Self::Duplicated => "duplicated",
            Self::CloudFirst => "cloud-first",
            Self::Late => "late",
            Self::Offline => "offline",
            Self::Lost => "lost",
            Self::TwoTenants => "two-tenants",
            Self::SecondHost => "second-host",
            Self::Derived => "derived",
        }
    }

    /// The variation of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == name)
    }
}

/// A varied story.
pub(crate) struct Varied {
    /// The whole story in its new order.
    pub(crate) scenario: Scenario,
    /// After so many steps nothing may be claimed that needs a sensor's word.
    pub(crate) held_back: Option<usize>,
}

const RETENTION_SLACK: SignedDuration = SignedDuration::from_hours(2);
const OFFLINE_FOR: SignedDuration = SignedDuration::from_hours(6);
const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// `scenario` in `variation`; the reason when it cannot be made of it.
pub(crate) fn vary(scenario: &Scenario, variation: Variation) -> Result<Varied, &'static str> {
    let mut varied = Varied {
        scenario: scenario.clone(),
        held_back: None,
    };
    let steps = &mut varied.scenario.steps;
    match variation {
        Variation::Shuffled => return Ok(shuffled(scenario, 1)),
        Variation::Duplicated => {
            *steps = steps.iter().flat_map(|s| [s.clone(), s.clone()]).collect();
        }
        Variation::CloudFirst => {
            if has_clock_offset(steps) {
                return Err("a host's clock must be known before its facts");
            }
            steps.sort_by_key(|step| !matches!(step.input, Input::Use(_)));
        }
        Variation::Late => late(scenario, steps)?,
        Variation::Offline => varied.held_back = Some(offline(steps)?),
        Variation::Lost => lost(steps)?,
        Variation::TwoTenants => two_tenants(scenario, &mut varied.scenario)?,
        Variation::SecondHost => second_host(steps)?,
        Variation::Derived => derived(scenario, &mut varied.scenario)?,
    }
    Ok(varied)
}

/// The story in an order that `seed` decides.
pub(crate) fn shuffled(scenario: &Scenario, seed: u64) -> Varied {
    let mut varied = scenario.clone();
    let mut random = crate::random::Random::new(seed);
    let steps = &mut varied.steps;
    for at in (1..steps.len()).rev() {
        steps.swap(at, random.below(at + 1));
    }
    // A clock offset is known before the facts that need it: the stream begins with it. Ticks
    // come from the correlator's own clock and stay last.
    let early = |step: &Step| match &step.input {
        Input::Watermark(watermark) if watermark.clock_offset_ms != 0 => 0,
        Input::Tick { .. } => 2,
        _ => 1,
    };
    steps.sort_by_key(early);
    Varied {
        scenario: varied,
        held_back: None,
    }
}

fn has_clock_offset(steps: &[Step]) -> bool {
    let offset = |step: &Step| matches!(&step.input, Input::Watermark(w) if w.clock_offset_ms != 0);
    steps.iter().any(offset)
}

fn exposure(step: &Step) -> Option<(&HostEvent, &Exposure)> {
    match &step.input {
        Input::Host(event) => match &event.fact {
            Fact::Exposure(exposure) => Some((event, exposure)),
            _ => None,
        },
        _ => None,
    }
}

/// All records arrive at the last moment at which the earliest fact is still kept.
fn late(scenario: &Scenario, steps: &mut Vec<Step>) -> Result<(), &'static str> {
    let kept = SignedDuration::from_hours(24 * i64::from(scenario.settings.retention_days));
    let time = |step: &Step| match &step.input {
        Input::Host(event) => Some(event.time),
        Input::Use(usage) => Some(usage.time),
        _ => None,
    };
    let first = steps.iter().filter_map(time).min();
    let last = steps.iter().map(|step| step.arrives).max();
    let (Some(first), Some(last)) = (first, last) else {
        return Err("nothing happens");
    };
    let moment = first
        .checked_add(kept - RETENTION_SLACK)
        .map_err(|_| "the time is out of range")?;
    if moment <= last {
        return Err("the story itself is longer than the retention");
    }
    let mut marks = Vec::new();
    let mut day = last;
    while day < moment {
        let Ok(next) = later(day, SignedDuration::from_hours(24)) else {
            break;
        };
        day = next.min(moment);
        marks.push(Step {
            arrives: day,
            input: Input::Tick { time: day },
            automatic: true,
        });
    }
    for step in steps.iter_mut() {
        if matches!(step.input, Input::Use(_)) {
            step.arrives = moment;
        }
    }
    steps.extend(marks);
    steps.sort_by_key(|step| step.arrives);
    Ok(())
}

/// What the hosts say after their first exposure arrives long after everything else.
fn offline(steps: &mut [Step]) -> Result<usize, &'static str> {
    let since = first_exposures(steps);
    if since.is_empty() {
        return Err("no sensor sees a credential");
    }
    let end = steps.iter().map(|step| step.arrives).max();
    let back = end.and_then(|end| later(end, OFFLINE_FOR).ok());
    let back = back.ok_or("the time is out of range")?;
    for step in steps.iter_mut() {
        let host = match &step.input {
            Input::Host(event) => &event.id.host,
            Input::Watermark(watermark) => &watermark.host,
            _ => continue,
        };
        if since
            .iter()
            .any(|(known, from)| known == host && step.arrives > *from)
        {
            step.arrives = back;
        }
    }
    steps.sort_by_key(|step| step.arrives);
    Ok(steps.partition_point(|step| step.arrives < back))
}

fn first_exposures(steps: &[Step]) -> Vec<(HostId, Timestamp)> {
    let mut found: Vec<(HostId, Timestamp)> = Vec::new();
    for step in steps {
        if let Some((event, _)) = exposure(step)
            && !found.iter().any(|(known, _)| *known == event.id.host)
        {
            found.push((event.id.host.clone(), step.arrives));
        }
    }
    found
}

/// Connections are lost from the first exposure on, and a gap says so.
fn lost(steps: &mut Vec<Step>) -> Result<(), &'static str> {
    let since = first_exposures(steps);
    let end = steps.iter().map(|step| step.arrives).max();
    let Some(end) = end.filter(|_| !since.is_empty()) else {
        return Err("no sensor sees a credential");
    };
    steps.retain(|step| match &step.input {
        Input::Host(event) => {
            let network = matches!(
                event.fact,
                Fact::ConnectionOpened(_) | Fact::ConnectionNamed(_) | Fact::ConnectionClosed(_)
            );
            let after = |(host, from): &(HostId, Timestamp)| {
                *host == event.id.host && step.arrives >= *from
            };
            !(network && since.iter().any(after))
        }
        _ => true,
    });
    for (host, from) in since {
        // The host stamps the gap by its own clock, as it did the exposure.
        let stamped = steps.iter().find_map(|step| match exposure(step) {
            Some((event, _)) if event.id.host == host && step.arrives == from => {
                Some((event.id.clone(), event.time))
            }
            _ => None,
        });
        let Some((id, stamped)) = stamped else {
            continue;
        };
        let to = later(stamped, end.duration_since(from)).map_err(|_| "out of range")?;
        let gap = Fact::Gap(Gap {
            from: later(stamped, -MINUTE).map_err(|_| "out of range")?,
            to,
            what: GapKind::Network,
            count: Some(1_000),
            reason: "ring full".to_owned(),
        });
        let event = HostEvent {
            id: EventRef {
                seq: id.seq + 1_000_000,
                ..id
            },
            time: to,
            fact: gap,
        };
        let at = steps.partition_point(|step| step.arrives <= from);
        let step = Step {
            arrives: from,
            input: Input::Host(event),
            automatic: true,
        };
        steps.insert(at, step);
    }
    Ok(())
}

fn two_tenants(scenario: &Scenario, varied: &mut Scenario) -> Result<(), &'static str> {
    let Some(other) = &scenario.other_tenant else {
        return Err("its identifiers are written out, so another tenant would hold the same");
    };
    varied.steps.extend(other.steps.iter().cloned());
    varied.steps.sort_by_key(|step| step.arrives);
    varied.names.extend(other.names.clone());
    // One join runs both: what the settings say of one tenant's credentials, they say of the other's.
    let (settings, more) = (&mut varied.settings, &other.settings);
    join_lists(&mut settings.external_holders, &more.external_holders);
    join_lists(&mut settings.honeytokens, &more.honeytokens);
    join_lists(&mut settings.suppressions, &more.suppressions);
    join_lists(&mut settings.policy.pins, &more.policy.pins);
    Ok(())
}

fn join_lists<T: Clone + PartialEq>(list: &mut Vec<T>, more: &[T]) {
    let new: Vec<T> = more.iter().filter(|m| !list.contains(m)).cloned().collect();
    list.extend(new);
}

/// Another host, always up to date, where the provider's own tool reads what is held elsewhere.
fn second_host(steps: &mut Vec<Step>) -> Result<(), &'static str> {
    let spare = HostId("second-host".to_owned());
    let mut known: BTreeSet<CredentialId> = BTreeSet::new();
    let mut added: Vec<Step> = Vec::new();
    let mut seq = 1;
    for step in steps.iter() {
        let Some((event, exposure)) = exposure(step) else {
            continue;
        };
        if !known.insert(exposure.credential.clone()) {
            continue;
        }
        seq += 1;
        let mut copy = exposure.clone();
        copy.unexpected_reader = false;
        copy.actor.mcp_server = None;
        copy.actor.agent = None;
        let id = EventRef {
            host: spare.clone(),
            boot: event.id.boot,
            seq,
        };
        // By the true time: the other host's clock is right.
        let (time, fact) = (step.arrives, Fact::Exposure(Box::new(copy)));
        added.push(Step {
            arrives: step.arrives,
            input: Input::Host(HostEvent { id, time, fact }),
            automatic: true,
        });
    }
    let Some(Input::Host(first)) = added.first().map(|step| step.input.clone()) else {
        return Err("no sensor sees a credential");
    };
    let coverage = Input::Host(HostEvent {
        id: EventRef {
            seq: 1,
            ..first.id.clone()
        },
        time: first.time,
        fact: Fact::Coverage(endpoint::full_coverage(None, false)),
    });
    added.insert(
        0,
        Step {
            arrives: first.time,
            input: coverage,
            automatic: true,
        },
    );
    for step in steps.iter() {
        added.push(Step {
            arrives: step.arrives,
            input: Input::Watermark(keytrail_model::fact::Watermark {
                host: spare.clone(),
                boot: first.id.boot,
                time: step.arrives,
                clock_offset_ms: 0,
                clock_error_ms: 5,
                seen_from: None,
                seen_network: None,
            }),
            automatic: true,
        });
    }
    steps.extend(added);
    steps.sort_by_key(|step| step.arrives);
    Ok(())
}

/// The first unexplained use of each long-term key mints a session, which is then used from the
/// same address.
fn derived(scenario: &Scenario, varied: &mut Scenario) -> Result<(), &'static str> {
    let straight = run(&scenario.settings, &scenario.steps);
    let mut added = Vec::new();
    for step in &mut varied.steps {
        let Input::Use(usage) = &mut step.input else {
            continue;
        };
        let long_term = usage.credential.kind() == CredentialKind::AwsAccessKey
            && usage.credential.value().starts_with("AKIA");
        if !long_term || !is_first_misuse(&straight, usage) {
            continue;
        }
        let child = format!(
            "ASIA{}",
            usage.credential.value().get(4..).unwrap_or_default()
        );
        let Ok(child) = CredentialId::aws_access_key(&child) else {
            continue;
        };
        let mut later_use = usage.clone();
        usage.minted = Some(child.clone());
        usage.class = ActionClass::Mint;
        "GetSessionToken".clone_into(&mut usage.action);
        later_use.id = RecordId(format!("{}+session", usage.id));
        later_use.credential = child.clone();
        later_use.time = later(usage.time, MINUTE).map_err(|_| "out of range")?;
        "ListBuckets".clone_into(&mut later_use.action);
        "s3.amazonaws.com".clone_into(&mut later_use.service);
        later_use.server_name = None;
        let name = format!("session of {}", usage.credential.value());
        // The finding belongs to the key that was stolen; the session may have one of its own.
        if let Some(right) = Pattern::parse("none|confirmed|unexplained-use") {
            varied.expected.verdicts.insert(name.clone(), right);
        }
        let called = later_use.id.0.rsplit(':').next().unwrap_or_default();
        varied
            .expected
            .uses
            .insert(called.to_owned(), "unexplained".to_owned());
        varied.names.insert(child, name);
        added.push(Step {
            arrives: later(step.arrives, MINUTE).map_err(|_| "out of range")?,
            input: Input::Use(later_use),
            automatic: false,
        });
    }
    if added.is_empty() {
        return Err("no long-term key is misused");
    }
    varied.steps.extend(added);
    varied.steps.sort_by_key(|step| step.arrives);
    Ok(())
}

fn is_first_misuse(straight: &Run, usage: &Consumption) -> bool {
    let misuse = |id: &RecordId| matches!(straight.uses.get(id), Some(found) if matches!(found.state, UseState::Unexplained { .. }));
    misuse(&usage.id)
        && !straight.uses.iter().any(|(id, other)| {
            other.credential == usage.credential
                && (other.time, id) < (usage.time, &usage.id)
                && misuse(id)
        })
}
