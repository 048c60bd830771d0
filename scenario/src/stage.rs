//! From the lines of a story to inputs, with what every sensor sends beside them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use keytrail_join::Input;
use keytrail_model::fact::{Fact, HostEvent, Watermark};
use keytrail_model::ids::{EventRef, HostId};

use crate::error::Fault;
use crate::file::RecordSpec;
use crate::moment::{later, moment, span};
use crate::script::{RawParser, Step};
use crate::words::{Words, parse};
use crate::world::{HostWorld, World};
use crate::{cloud, endpoint};

const SECOND: SignedDuration = SignedDuration::from_secs(1);
/// How long after the last event the story is over.
const AFTER: SignedDuration = SignedDuration::from_mins(1);
/// Most turns of one `repeat`.
const MAX_TURNS: u32 = 10_000;

/// `repeat N every SPAN`, the lines after it up to `end`, told N times, each SPAN later; `%n` in
/// them is the number of the turn, from 1.
pub(crate) struct Repeat<'a> {
    times: u32,
    every: SignedDuration,
    pub(crate) lines: Vec<(usize, &'a str)>,
}

impl<'a> Repeat<'a> {
    pub(crate) fn begin(line: &str) -> Result<Self, Fault> {
        let mut words = Words::cut(line)?;
        let _ = words.next("repeat")?;
        let times: u32 = parse(&words.next("how often")?, "number")?;
        if times > MAX_TURNS {
            return Err(Fault::Form {
                found: times.to_string(),
                wanted: "number up to 10000",
            });
        }
        if !words.flag("every") {
            return Err(Fault::Missing("every"));
        }
        let every = span(&words.next("how long between two turns")?)?;
        words.end()?;
        Ok(Self {
            times,
            every,
            lines: Vec::new(),
        })
    }

    /// Each line of each turn: its place in the file, how much later it happens, its text.
    pub(crate) fn turns(self) -> impl Iterator<Item = (usize, SignedDuration, String)> + use<'a> {
        let Self {
            times,
            every,
            lines,
        } = self;
        (0..times).flat_map(move |turn| {
            let shift = i32::try_from(turn).map_or(SignedDuration::MAX, |turn| every * turn);
            let number = (turn + 1).to_string();
            lines
                .iter()
                .map(|(at, line)| (*at, shift, line.replace("%n", &number)))
                .collect::<Vec<_>>()
        })
    }
}

/// A host's address on the outside since a moment.
type Outside = (Timestamp, Option<IpAddr>);

/// What is collected while the lines of a story are read.
#[derive(Default)]
pub(crate) struct Reel {
    pub(crate) steps: Vec<Step>,
    /// When a host could not send, by host.
    outages: BTreeMap<String, Vec<(Timestamp, Timestamp)>>,
    outside: BTreeMap<String, Vec<Outside>>,
}

pub(crate) fn is_raw(line: &str) -> bool {
    let mut words = line.split_whitespace().skip(1);
    words.next() == Some("cloud") && words.next() == Some("raw")
}

/// One line of the story.
pub(crate) fn event(
    world: &mut World,
    reel: &mut Reel,
    line: &str,
    delay: SignedDuration,
    raw: &RawParser<'_>,
) -> Result<(), Fault> {
    if is_raw(line) {
        return raw_line(world, reel, line, delay, raw);
    }
    let mut words = Words::cut(line)?;
    let time = moment(&words.next("the time")?, world.start)?;
    let subject = words.next("a host, `cloud` or `clock`")?;
    let verb = words.next("what happens")?;
    let arrives = words
        .get("arrives")
        .map(|text| moment(&text, world.start))
        .transpose()?;
    let step = |input, usual: Timestamp| Step {
        arrives: arrives.unwrap_or(usual),
        input,
        automatic: false,
    };
    match (subject.as_str(), verb.as_str()) {
        ("clock", "tick") => reel.steps.push(step(Input::Tick { time }, time)),
        ("cloud", "use") => {
            let usage = cloud::usage(world, time, &mut words)?;
            reel.steps
                .push(step(Input::Use(usage), later(time, delay)?));
        }
        ("cloud" | "clock", other) => {
            return Err(Fault::Form {
                found: format!("{subject} {other}"),
                wanted: "event (cloud use, cloud raw, clock tick)",
            });
        }
        (host, "watermark") => {
            let seen_from = words.parse("seen", "IP address")?;
            let host = world.host(host)?;
            let input = watermark(host, time, seen_from)?;
            reel.steps.push(step(input, time));
        }
        (host, "offline") => {
            world.host(host)?;
            let until = moment(&words.need("until=")?, world.start)?;
            let outages = reel.outages.entry(host.to_owned()).or_default();
            outages.push((time, until));
        }
        (host, "boot") => world.host(host)?.boot_anew(),
        (host, "network") => {
            let spec = &mut world.host(host)?.spec;
            if let Some(address) = words.parse("address", "IP address")? {
                spec.address = Some(address);
            }
            let egress = match words.get("egress").as_deref() {
                None | Some("unknown") => None,
                Some(text) => Some(parse(text, "IP address or `unknown`")?),
            };
            let outside = reel.outside.entry(host.to_owned()).or_default();
            outside.push((time, egress));
        }
        (host, verb) => {
            for (time, fact) in endpoint::facts(world, host, time, verb, &mut words)? {
                let event = host_event(world.host(host)?, time, fact)?;
                reel.steps.push(step(Input::Host(event), time));
            }
        }
    }
    words.end()
}

fn host_event(host: &mut HostWorld, time: Timestamp, fact: Fact) -> Result<HostEvent, Fault> {
    host.seq += 1;
    Ok(HostEvent {
        id: EventRef {
            host: host.id.clone(),
            boot: host.boot,
            seq: host.seq,
        },
        time: later(time, host.offset)?,
        fact,
    })
}

fn watermark(host: &HostWorld, time: Timestamp, seen_from: Option<IpAddr>) -> Result<Input, Fault> {
    Ok(Input::Watermark(Watermark {
        host: host.id.clone(),
        boot: host.boot,
        time: later(time, host.offset)?,
        clock_offset_ms: i64::try_from(host.offset.as_millis()).unwrap_or(0),
        clock_error_ms: 5,
        seen_from,
        seen_network: None,
    }))
}

/// `TIME cloud raw SOURCE [arrives=...] {record}`
fn raw_line(
    world: &World,
    reel: &mut Reel,
    line: &str,
    delay: SignedDuration,
    raw: &RawParser<'_>,
) -> Result<(), Fault> {
    let brace = line.find('{').ok_or(Fault::Missing("{...}, the record"))?;
    let (head, body) = line.split_at(brace);
    let mut words = Words::cut(head)?;
    let time = words.next("the time")?;
    let _ = (words.next("cloud")?, words.next("raw")?);
    let source = words.next("the source, such as aws.cloudtrail")?;
    let arrives = match words.get("arrives") {
        Some(text) => Some(moment(&text, world.start)?),
        None => None,
    };
    words.end()?;
    // The line's own time is `${now}` in the record.
    let now = moment(&time, world.start)?;
    raw_record(world, reel, &source, body, Some(now), arrives, delay, raw)
}

/// A `[[records]]` table.
pub(crate) fn record(
    world: &World,
    reel: &mut Reel,
    spec: &RecordSpec,
    delay: SignedDuration,
    raw: &RawParser<'_>,
) -> Result<(), Fault> {
    let arrives = match &spec.arrives {
        Some(text) => Some(moment(text.get_ref(), world.start)?),
        None => None,
    };
    let body = spec.record.get_ref();
    raw_record(world, reel, &spec.source, body, None, arrives, delay, raw)
}

#[expect(clippy::too_many_arguments, reason = "two callers, one line each")]
fn raw_record(
    world: &World,
    reel: &mut Reel,
    source: &str,
    body: &str,
    now: Option<Timestamp>,
    arrives: Option<Timestamp>,
    delay: SignedDuration,
    raw: &RawParser<'_>,
) -> Result<(), Fault> {
    let filled = fill(world, body, now)?;
    let uses = raw(source, filled.as_bytes()).map_err(Fault::Raw)?;
    if uses.is_empty() {
        let why = "no credential is named in it, so nothing would be looked at";
        return Err(Fault::Raw(why.to_owned()));
    }
    for usage in uses {
        reel.steps.push(Step {
            arrives: match arrives {
                Some(arrives) => arrives,
                None => later(usage.time, delay)?,
            },
            input: Input::Use(usage),
            automatic: false,
        });
    }
    Ok(())
}

/// Puts times (`${+5m}`, `${now}`, `${ms:+5m}` for milliseconds since 1970) and identifiers (`${aws}`, the name of a credential) in.
fn fill(world: &World, body: &str, now: Option<Timestamp>) -> Result<String, Fault> {
    let mut filled = String::new();
    let mut rest = body;
    while let Some((before, tail)) = rest.split_once("${") {
        let (name, after) = tail.split_once('}').ok_or(Fault::Missing("} after ${"))?;
        filled.push_str(before);
        match (name, now) {
            ("now", Some(now)) => filled.push_str(&now.to_string()),
            (name, _) if name.starts_with("ms:") => {
                let time = moment(name.trim_start_matches("ms:"), world.start)?;
                filled.push_str(&time.as_millisecond().to_string());
            }
            (name, _) if name.starts_with(['+', '-']) => {
                filled.push_str(&moment(name, world.start)?.to_string());
            }
            (name, _) => filled.push_str(world.credential(name)?.value()),
        }
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// Puts the ids of credentials in for `${name}`, in every text of a value.
pub(crate) fn put_in(world: &World, value: &mut toml::Value) -> Result<(), Fault> {
    match value {
        toml::Value::String(text) => {
            let name = text
                .strip_prefix("${")
                .and_then(|rest| rest.strip_suffix('}'));
            if let Some(name) = name {
                *text = world.credential(name)?.to_string();
            }
        }
        toml::Value::Array(values) => {
            for value in values {
                put_in(world, value)?;
            }
        }
        toml::Value::Table(values) => {
            for (_, value) in values.iter_mut() {
                put_in(world, value)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Adds what a file need not say, and lets what was sent in an outage arrive after it.
pub(crate) fn finish(world: &World, reel: &mut Reel) -> Result<(), Fault> {
    let late = |host: &HostId, time: Timestamp| -> Option<Timestamp> {
        let name = world.hosts.iter().find(|(_, known)| known.id == *host)?.0;
        let outages = reel.outages.get(name)?.iter();
        outages
            .filter(|(from, to)| time >= *from && time < *to)
            .map(|(_, to)| *to)
            .max()
    };
    for step in &mut reel.steps {
        let host = match &step.input {
            Input::Host(event) => &event.id.host,
            Input::Watermark(watermark) => &watermark.host,
            _ => continue,
        };
        if let Some(back) = late(host, step.arrives) {
            step.arrives = back;
        }
    }
    let end = later(
        reel.steps
            .iter()
            .map(|s| s.arrives)
            .max()
            .unwrap_or(world.start),
        AFTER,
    )?;
    for (name, host) in world.hosts.iter().filter(|(_, host)| host.spec.auto) {
        let outages = reel.outages.get(name).cloned().unwrap_or_default();
        let outside = reel.outside.get(name).cloned().unwrap_or_default();
        let added = automatic(host, &reel.steps, &outages, &outside, end)?;
        reel.steps.extend(added);
    }
    reel.steps.push(Step {
        arrives: later(end, SECOND)?,
        input: Input::Tick { time: end },
        automatic: true,
    });
    Ok(())
}

/// Coverage at the start and watermarks all along, as every sensor sends them.
fn automatic(
    host: &HostWorld,
    steps: &[Step],
    outages: &[(Timestamp, Timestamp)],
    outside: &[Outside],
    end: Timestamp,
) -> Result<Vec<Step>, Fault> {
    let own = |step: &&Step| matches!(&step.input, Input::Host(e) if e.id.host == host.id);
    let first = match steps.iter().filter(own).map(|s| s.arrives).min() {
        Some(first) => later(first, -SECOND)?,
        None => later(
            steps.iter().map(|s| s.arrives).min().unwrap_or(end),
            -SECOND,
        )?,
    };
    let told = steps.iter().filter(own).any(
        |step| matches!(&step.input, Input::Host(event) if matches!(event.fact, Fact::Coverage(_))),
    );
    let seen_from = |time: Timestamp| {
        let changed = outside.iter().rev().find(|(since, _)| *since <= time);
        changed.map_or(host.spec.egress, |(_, egress)| *egress)
    };
    let mut added = Vec::new();
    let mut add = |arrives, input| {
        added.push(Step {
            arrives,
            input,
            automatic: true,
        });
    };
    // The stream begins with a look at the clocks.
    add(first, watermark(host, first, seen_from(first))?);
    if !told {
        let event = HostEvent {
            id: EventRef {
                host: host.id.clone(),
                boot: host.boot,
                seq: 0,
            },
            time: later(first, host.offset)?,
            fact: Fact::Coverage(endpoint::full_coverage(None, false)),
        };
        add(first, Input::Host(event));
    }
    let mut marks: Vec<Timestamp> = vec![end];
    marks.extend(steps.iter().map(|step| step.arrives));
    marks.extend(outages.iter().map(|(_, back)| *back));
    for (changed, _) in outside {
        marks.extend([later(*changed, -SECOND)?, *changed]);
    }
    marks.sort_unstable();
    marks.dedup();
    for mark in marks {
        let away = outages.iter().any(|(from, to)| mark >= *from && mark < *to);
        if !away && mark >= first {
            // Facts of this moment are in when the watermark comes.
            add(
                later(mark, SECOND)?,
                watermark(host, mark, seen_from(mark))?,
            );
        }
    }
    Ok(added)
}
