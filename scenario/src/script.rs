//! From a scenario file to the inputs of the join, each with the moment of its arrival.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use keytrail_join::{Input, Settings};
use keytrail_model::consumption::Consumption;
use keytrail_model::credential::CredentialId;
use keytrail_model::fact::{Fact, HostEvent, Watermark};
use keytrail_model::ids::{EventRef, HostId};
use toml::Spanned;

use crate::error::{Fault, ScenarioError};
use crate::file::{Document, Expected, Pattern, RecordSpec};
use crate::moment::{later, moment, span};
use crate::vary::Variation;
use crate::words::{Words, parse};
use crate::world::{HostWorld, World, credential};
use crate::{cloud, endpoint};

/// Takes a provider's record apart: the source's name (`aws.cloudtrail`) and the record's bytes.
/// Several uses or none may come of one record; an error says why it is refused.
pub(crate) type RawParser<'a> = dyn Fn(&str, &[u8]) -> Result<Vec<Consumption>, String> + 'a;

/// When every story begins that does not say otherwise.
const START: Timestamp = Timestamp::constant(1_767_225_600, 0);
/// How long after its time a cloud record arrives, where the file does not say: AWS delivers
/// CloudTrail files "within an average of about 5 minutes" (CloudTrail User Guide).
const CLOUD_DELAY: SignedDuration = SignedDuration::from_mins(5);
const SECOND: SignedDuration = SignedDuration::from_secs(1);
/// How long after the last event the story is over.
const AFTER: SignedDuration = SignedDuration::from_mins(1);

/// One input and when the correlator gets it.
#[derive(Clone, Debug)]
pub struct Step {
    /// Order and virtual time of arrival.
    pub arrives: Timestamp,
    /// What arrives.
    pub input: Input,
    /// True for what a file need not say: coverage, watermarks, ticks.
    pub automatic: bool,
}

/// A scenario, ready to be run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its short name.
    pub name: String,
    /// What happens, in one line.
    pub title: String,
    /// Where the story is from.
    pub source: String,
    /// Scenarios that look alike and must be told apart from it.
    pub pairs: Vec<String>,
    /// Its file.
    pub path: PathBuf,
    /// The join's settings.
    pub settings: Settings,
    /// The inputs, in order of arrival.
    pub steps: Vec<Step>,
    /// The story's names of its credentials.
    pub names: BTreeMap<CredentialId, String>,
    /// What is expected.
    pub expected: Expected,
    /// Variations that do not apply, with the reason.
    pub skipped: BTreeMap<Variation, String>,
    /// Verdicts that differ in a variation.
    pub otherwise: BTreeMap<Variation, BTreeMap<String, Pattern>>,
    /// The same story at another tenant, where its identifiers are made up.
    pub(crate) other_tenant: Option<(Vec<Step>, BTreeMap<CredentialId, String>)>,
}

/// Loads every `*.toml` file of a folder (not of its subfolders), or one file.
///
/// # Errors
/// With file and line, at the first thing that is wrong.
pub fn load_all(path: &Path) -> Result<Vec<Scenario>, ScenarioError> {
    let read = |source| ScenarioError::Read {
        path: path.to_owned(),
        source,
    };
    if !path.is_dir() {
        return Ok(vec![load(path)?]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(read)? {
        let file = entry.map_err(read)?.path();
        if file
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(ScenarioError::Empty(path.to_owned()));
    }
    files.iter().map(|file| load(file)).collect()
}

/// Loads one scenario file.
///
/// # Errors
/// With file and line, at the first thing that is wrong.
pub fn load(path: &Path) -> Result<Scenario, ScenarioError> {
    let text = std::fs::read_to_string(path).map_err(|source| ScenarioError::Read {
        path: path.to_owned(),
        source,
    })?;
    read(path, &text, &crate::raw::uses)
}

/// Reads a scenario from its text; `path` is for messages.
pub(crate) fn read(
    path: &Path,
    text: &str,
    raw: &RawParser<'_>,
) -> Result<Scenario, ScenarioError> {
    let place = Place { path, text };
    let document: Document = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        place.wrong(at, error.message().to_owned())
    })?;
    let (world, steps, made_up) = place.play(&document, raw, "")?;
    let settings = place.settings(&document, &world)?;
    let names = by_id(&world);
    let expected = place.expected(&document, &world)?;
    let mut skipped = BTreeMap::new();
    let mut otherwise = BTreeMap::new();
    for (name, spec) in &document.variations {
        let variation = Variation::named(name.get_ref()).ok_or_else(|| {
            let known = Variation::ALL.map(Variation::as_str).join(", ");
            place.wrong(
                name.span().start,
                format!(
                    "no variation is called `{}`; known: {known}",
                    name.get_ref()
                ),
            )
        })?;
        if let Some(why) = &spec.skip {
            skipped.insert(variation, why.clone());
        }
        if !spec.verdicts.is_empty() {
            otherwise.insert(variation, place.verdicts(&spec.verdicts, &world)?);
        }
    }
    let other_tenant = if made_up {
        let (world, steps, _) = place.play(&document, raw, "@other")?;
        Some((steps, by_id(&world)))
    } else {
        None
    };
    Ok(Scenario {
        name: document.name,
        title: document.title,
        source: document.source,
        pairs: document.pairs,
        path: path.to_owned(),
        settings,
        steps,
        names,
        expected,
        skipped,
        otherwise,
        other_tenant,
    })
}

fn by_id(world: &World) -> BTreeMap<CredentialId, String> {
    let pairs = world.credentials.iter();
    pairs.map(|(name, id)| (id.clone(), name.clone())).collect()
}

/// Most turns of one `repeat`.
const MAX_TURNS: u32 = 10_000;

/// `repeat N every SPAN`, the lines after it up to `end`, told N times, each SPAN later; `%n` in
/// them is the number of the turn, from 1.
struct Repeat<'a> {
    times: u32,
    every: SignedDuration,
    lines: Vec<(usize, &'a str)>,
}

impl<'a> Repeat<'a> {
    fn begin(line: &str) -> Result<Self, Fault> {
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
    fn turns(self) -> impl Iterator<Item = (usize, SignedDuration, String)> + use<'a> {
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
struct Reel {
    steps: Vec<Step>,
    /// When a host could not send, by host.
    outages: BTreeMap<String, Vec<(Timestamp, Timestamp)>>,
    outside: BTreeMap<String, Vec<Outside>>,
}

/// Where in which file something is.
struct Place<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Place<'_> {
    fn wrong(&self, at: usize, what: String) -> ScenarioError {
        let before = self.text.get(..at).unwrap_or(self.text);
        ScenarioError::Wrong {
            path: self.path.to_owned(),
            line: before.matches('\n').count() + 1,
            what,
        }
    }

    /// Reads the lines of the story. The last value is true when every identifier is made up.
    fn play(
        &self,
        document: &Document,
        raw: &RawParser<'_>,
        tenant: &str,
    ) -> Result<(World, Vec<Step>, bool), ScenarioError> {
        let (mut world, mut made_up) = self.world(document, tenant)?;
        let delay = match &document.cloud_delay {
            Some(text) => {
                let fault = |fault: Fault| self.wrong(text.span().start, fault.to_string());
                span(text.get_ref()).map_err(fault)?
            }
            None => CLOUD_DELAY,
        };
        let mut reel = Reel::default();
        let story = document.story.events.get_ref();
        // The line break right after the opening quotes is not part of the value.
        let quoted = self
            .text
            .get(document.story.events.span())
            .unwrap_or_default();
        let lead = quoted.find(story.as_str()).unwrap_or(3);
        let mut at = document.story.events.span().start + lead;
        let mut repeat: Option<Repeat<'_>> = None;
        for line in story.split('\n') {
            let words = line.trim();
            let mut run = |world: &mut World, at: usize, words: &str| {
                event(world, &mut reel, words, delay, raw)
                    .map_err(|fault| self.wrong(at, fault.to_string()))
            };
            made_up &= !is_raw(words);
            if words.is_empty() || words.starts_with('#') {
                // Nothing is said.
            } else if words.starts_with("repeat ") && repeat.is_none() {
                let begun = Repeat::begin(words);
                repeat = Some(begun.map_err(|fault| self.wrong(at, fault.to_string()))?);
            } else if words == "end" && repeat.is_some() {
                for turn in repeat.take().into_iter().flat_map(Repeat::turns) {
                    let (at, shift, words) = turn;
                    let start = world.start;
                    world.start =
                        later(start, shift).map_err(|fault| self.wrong(at, fault.to_string()))?;
                    run(&mut world, at, &words)?;
                    world.start = start;
                }
            } else if let Some(repeat) = &mut repeat {
                repeat.lines.push((at, words));
            } else {
                run(&mut world, at, words)?;
            }
            at += line.len() + 1;
        }
        if repeat.is_some() {
            return Err(self.wrong(at.saturating_sub(1), "`repeat` has no `end`".to_owned()));
        }
        for spec in &document.records {
            made_up = false;
            record(&world, &mut reel, spec, delay, raw)
                .map_err(|fault| self.wrong(spec.record.span().start, fault.to_string()))?;
        }
        finish(&world, &mut reel)
            .map_err(|fault| self.wrong(document.story.events.span().start, fault.to_string()))?;
        reel.steps.sort_by_key(|step| step.arrives);
        Ok((world, reel.steps, made_up))
    }

    fn world(&self, document: &Document, tenant: &str) -> Result<(World, bool), ScenarioError> {
        let mut made_up = true;
        let mut credentials = BTreeMap::new();
        for (name, spec) in &document.credentials {
            let seed = format!("{}/{name}{tenant}", document.name);
            let (id, made) = credential(spec.get_ref(), &seed)
                .map_err(|fault| self.wrong(spec.span().start, fault.to_string()))?;
            made_up &= made;
            credentials.insert(name.clone(), id);
        }
        let mut hosts = BTreeMap::new();
        for (name, spec) in &document.hosts {
            let offset = match &spec.clock_offset {
                Some(text) => span(text.get_ref())
                    .map_err(|fault| self.wrong(text.span().start, fault.to_string()))?,
                None => SignedDuration::ZERO,
            };
            let id = HostId(format!("{name}{tenant}"));
            hosts.insert(name.clone(), HostWorld::new(id, spec.clone(), offset));
        }
        let world = World {
            start: document.start.unwrap_or(START),
            hosts,
            credentials,
            tenant: tenant.to_owned(),
        };
        Ok((world, made_up))
    }

    /// The join's settings; `${name}` in them is the id of a credential.
    fn settings(&self, document: &Document, world: &World) -> Result<Settings, ScenarioError> {
        let Some(spec) = &document.settings else {
            return Ok(Settings::default());
        };
        let wrong = |what: String| self.wrong(spec.span().start, format!("settings: {what}"));
        let mut table = toml::Value::Table(spec.get_ref().clone());
        put_in(world, &mut table).map_err(|fault| wrong(fault.to_string()))?;
        table
            .try_into()
            .map_err(|error: toml::de::Error| wrong(error.message().to_owned()))
    }

    fn expected(&self, document: &Document, world: &World) -> Result<Expected, ScenarioError> {
        let spec = &document.expect;
        let known = |name: &Spanned<String>| {
            world
                .credential(name.get_ref())
                .map_err(|fault| self.wrong(name.span().start, fault.to_string()))
        };
        let mut expected = Expected {
            verdicts: self.verdicts(&spec.verdicts, world)?,
            ..Expected::default()
        };
        if let Some(text) = &spec.others {
            expected.others = Some(self.pattern(text)?);
        }
        for (name, state) in &spec.uses {
            const STATES: [&str; 6] = [
                "explained",
                "declared",
                "unexplained",
                "undecided",
                "unwatched",
                "service-side",
            ];
            if !STATES.contains(&state.get_ref().as_str()) {
                let what = format!("no state of a use; known: {}", STATES.join(", "));
                return Err(self.wrong(state.span().start, what));
            }
            expected
                .uses
                .insert(name.get_ref().clone(), state.get_ref().clone());
        }
        for (name, evidence) in &spec.evidence {
            known(name)?;
            expected
                .evidence
                .insert(name.get_ref().clone(), evidence.clone());
        }
        for (name, texts) in &spec.blind {
            known(name)?;
            expected.blind.insert(name.get_ref().clone(), texts.clone());
        }
        Ok(expected)
    }

    fn verdicts(
        &self,
        verdicts: &BTreeMap<Spanned<String>, Spanned<String>>,
        world: &World,
    ) -> Result<BTreeMap<String, Pattern>, ScenarioError> {
        let mut read = BTreeMap::new();
        for (name, text) in verdicts {
            world
                .credential(name.get_ref())
                .map_err(|fault| self.wrong(name.span().start, fault.to_string()))?;
            read.insert(name.get_ref().clone(), self.pattern(text)?);
        }
        Ok(read)
    }

    fn pattern(&self, text: &Spanned<String>) -> Result<Pattern, ScenarioError> {
        Pattern::parse(text.get_ref()).ok_or_else(|| {
            let what = format!(
                "`{}` is no verdict (none, confirmed, suspected|confirmed, <=blind-spot, ...)",
                text.get_ref()
            );
            self.wrong(text.span().start, what)
        })
    }
}

fn is_raw(line: &str) -> bool {
    let mut words = line.split_whitespace().skip(1);
    words.next() == Some("cloud") && words.next() == Some("raw")
}

/// One line of the story.
fn event(
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
fn record(
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
fn put_in(world: &World, value: &mut toml::Value) -> Result<(), Fault> {
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
fn finish(world: &World, reel: &mut Reel) -> Result<(), Fault> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(text: &str) -> String {
        let raw = |_: &str, _: &[u8]| Err("no".to_owned());
        read(Path::new("x.toml"), text, &raw)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn errors_say_where_and_what() {
        let head = "name = 'x'\ntitle = 't'\n[hosts.laptop]\n[credentials]\nk = 'aws-access-key'\n";
        let story = |lines: &str| {
            format!("{head}[story]\nevents = '''\n{lines}\n'''\n[expect.verdicts]\nk = 'none'\n")
        };
        for (text, line, what) in [
            (
                story("+0 laptop start a\n+1 laptop read k by=b expected path=p"),
                9,
                "known: a",
            ),
            (story("+0 desktop start a"), 8, "known: laptop"),
            (story("+0 laptop dance"), 8, "`dance` is no endpoint event"),
            (
                story("+0 laptop start a colour=red"),
                8,
                "not understood: colour=red",
            ),
            (story("soon laptop start a"), 8, "`soon` is no time"),
            (
                story("+0 laptop start a\n+0 laptop start a"),
                9,
                "is there already",
            ),
            (
                story("+0 laptop start a\n+1 laptop read k by=a path=p"),
                9,
                "either",
            ),
            (
                story("+0 cloud use r k s3:List from=nowhere"),
                8,
                "`nowhere` is no address",
            ),
            (story("+0 cloud raw aws.cloudtrail {}"), 8, "refused: no"),
            (
                story("").replace("k = 'none'", "j = 'none'"),
                11,
                "known: k",
            ),
            (
                story("").replace("k = 'none'", "k = 'stolen'"),
                11,
                "no verdict",
            ),
            (
                story("").replace("[hosts.laptop]", "[hosts.laptop]\ncolour = 1"),
                4,
                "colour",
            ),
        ] {
            let said = fails(&text);
            assert!(
                said.starts_with(&format!("x.toml:{line}: ")),
                "{said}\n{text}"
            );
            assert!(said.contains(what), "{said} should contain {what}");
        }
    }
}
