//! From a scenario file to the inputs of the join, each with the moment of its arrival.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use keytrail_join::{Input, Settings};
use keytrail_model::consumption::Consumption;
use keytrail_model::credential::CredentialId;
use keytrail_model::ids::HostId;
use toml::Spanned;

use crate::error::{Fault, ScenarioError};
use crate::file::{Document, Expected, Pattern};
use crate::moment::{later, span};
use crate::stage::{Reel, Repeat, event, finish, is_raw, put_in, record};
use crate::vary::Variation;
use crate::world::{HostWorld, World, credential};

/// Takes a provider's record apart: the source's name (`aws.cloudtrail`) and the record's bytes.
/// Several uses or none may come of one record; an error says why it is refused.
pub(crate) type RawParser<'a> = dyn Fn(&str, &[u8]) -> Result<Vec<Consumption>, String> + 'a;

/// When every story begins that does not say otherwise.
const START: Timestamp = Timestamp::constant(1_767_225_600, 0);
/// How long after its time a cloud record arrives, where the file does not say: AWS delivers
/// CloudTrail files "within an average of about 5 minutes" (CloudTrail User Guide).
const CLOUD_DELAY: SignedDuration = SignedDuration::from_mins(5);

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
    pub(crate) other_tenant: Option<OtherTenant>,
}

/// The same story at another tenant.
#[derive(Clone, Debug)]
pub(crate) struct OtherTenant {
    pub(crate) steps: Vec<Step>,
    pub(crate) names: BTreeMap<CredentialId, String>,
    /// With the other tenant's identifiers in them.
    pub(crate) settings: Settings,
}

/// Loads every `*.toml` file of a folder (not of its subfolders), or one file.
///
/// # Errors
/// With file and line, at the first thing that is wrong.
pub fn load_all(path: &Path) -> Result<Vec<Scenario>, ScenarioError> {
    files(path)?.iter().map(|file| load(file)).collect()
}

/// The `*.toml` files of a folder (not of its subfolders) in order, or the one file.
///
/// # Errors
/// When the folder cannot be read, or has none.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, ScenarioError> {
    let read = |source| ScenarioError::Read {
        path: path.to_owned(),
        source,
    };
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
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
    Ok(files)
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
        Some(OtherTenant {
            steps,
            names: by_id(&world),
            settings: place.settings(&document, &world)?,
        })
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
