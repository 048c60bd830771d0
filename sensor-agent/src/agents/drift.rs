//! What changes in the files that decide what agents start and trust.
//!
//! Worms add MCP servers and hooks to the configurations of every agent they find. The files are
//! compared entry by entry with what they were: a new entry written by something other than the
//! agent is the first sign, before anything is started. Only digests of entries are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use keytrail_model::fact::ConfigChanged;
use keytrail_model::process::{Actor, UnitKind};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::catalogue::{Catalogue, ConfigFormat};
use super::config;
use crate::files::{FsView, Trace};
use crate::paths::{Vars, alternatives, glob_files};
use crate::redact::redact_text;

/// Most files followed.
const MAX_FILES: usize = 1_024;
/// Most files of one row in one place.
const MAX_PER_ROW: usize = 32;
/// Most entries of one file.
const MAX_ENTRIES: usize = 2_048;
/// Most changes told of one file at a time.
const MAX_CHANGES: usize = 64;
/// Most writers remembered.
const MAX_WRITERS: usize = 256;

/// Where to look: a home with its variables, or a project's directory.
#[derive(Clone, Copy, Debug)]
pub enum Where<'a> {
    /// A home.
    Home(&'a Vars),
    /// The working directory of an agent's session.
    Project(&'a Path),
}

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    Server,
    Hook,
    Trust,
}

/// Digests of the entries of one file.
type Snapshot = BTreeMap<(About, String), [u8; 32]>;
/// (device, inode, size, modified, changed).
type Stamp = (u64, u64, u64, i64, i64);

#[derive(Debug, Default)]
struct Followed {
    stamp: Option<Stamp>,
    entries: Snapshot,
}

/// How the entries of one file are found.
#[derive(Clone, Debug)]
struct Reading {
    format: ConfigFormat,
    at: Vec<(About, Vec<String>)>,
    products: BTreeSet<String>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Drift {
    followed: BTreeMap<PathBuf, Followed>,
    /// Places that have been looked at: what is new there since is a change.
    known: BTreeSet<String>,
    writers: BTreeMap<PathBuf, Actor>,
    /// How many places there were at the last look.
    places: usize,
    unreadable: u64,
    refused: u64,
    trace: Trace,
}

impl Drift {
    /// A process opened this configuration for writing; what changes in it next is its doing.
    pub fn wrote(&mut self, path: &Path, actor: Actor) {
        if self.writers.len() >= MAX_WRITERS && !self.writers.contains_key(path) {
            self.refused += 1;
            return;
        }
        self.writers.insert(path.to_owned(), actor);
    }

    /// True when somebody opened a configuration for writing since the last look.
    #[must_use]
    pub fn has_writers(&self) -> bool {
        !self.writers.is_empty()
    }

    /// How many places there were at the last look.
    #[must_use]
    pub fn places(&self) -> usize {
        self.places
    }

    /// Configurations that could not be read or parsed, and files and writers beyond the limits.
    #[must_use]
    pub fn counters(&self) -> (u64, u64) {
        (self.unreadable, self.refused)
    }

    /// Compares every configuration with what it was at the last look, if anything that this rests
    /// on has changed. The first look at a place only takes notes.
    pub fn look<'p>(
        &mut self,
        agents: &Catalogue,
        places: impl Iterator<Item = (Where<'p>, &'p FsView)>,
    ) -> Vec<ConfigChanged> {
        let mut changes = Vec::new();
        let places: Vec<_> = places.collect();
        if places.len() == self.places && self.writers.is_empty() && !self.trace.changed() {
            return changes;
        }
        self.trace.begin();
        self.places = places.len();
        for (place, view) in places {
            let view = &view.traced(&self.trace);
            let name = match place {
                Where::Home(vars) => format!("home {vars:?} {}", view.is_host()),
                Where::Project(dir) => format!("project {} {}", dir.display(), view.is_host()),
            };
            let first = self.known.insert(name);
            for (path, reading) in readings(agents, place, view) {
                self.file(&path, &reading, view, first, &mut changes);
            }
        }
        self.trace.end();
        changes
    }

    fn file(
        &mut self,
        path: &Path,
        reading: &Reading,
        view: &FsView,
        first: bool,
        changes: &mut Vec<ConfigChanged>,
    ) {
        let known = self.followed.contains_key(path);
        if !known && self.followed.len() >= MAX_FILES {
            self.refused += 1;
            return;
        }
        let stamp = stamp(view, path);
        let writer = self.writers.get(path).cloned();
        let followed = self.followed.entry(path.to_owned()).or_default();
        if known && followed.stamp == stamp {
            return;
        }
        let entries = match stamp {
            None => Snapshot::new(),
            Some(_) => match read(view, path, reading) {
                Some(entries) => entries,
                None => {
                    // Half written, most likely: the next look compares with what was before.
                    self.unreadable += 1;
                    followed.stamp = stamp;
                    return;
                }
            },
        };
        followed.stamp = stamp;
        let before = std::mem::replace(&mut followed.entries, entries);
        if first && !known {
            self.writers.remove(path);
            return;
        }
        let mut told = 0;
        for (what, entry) in compare(&before, &followed.entries) {
            told += 1;
            if told > MAX_CHANGES {
                self.refused += 1;
                continue;
            }
            let by_agent = writer.as_ref().is_some_and(|actor| {
                actor.unit_kind == UnitKind::Agent
                    && actor
                        .agent
                        .as_ref()
                        .is_some_and(|agent| reading.products.contains(&agent.product))
            });
            changes.push(ConfigChanged {
                path: redact_text(&path.to_string_lossy()),
                product: reading.products.first().cloned().unwrap_or_default(),
                actor: writer.clone(),
                change: what.to_owned(),
                entry: redact_text(&entry.chars().take(200).collect::<String>()),
                by_agent,
            });
        }
        self.writers.remove(path);
    }
}

fn stamp(view: &FsView, path: &Path) -> Option<Stamp> {
    let meta = view
        .metadata(path)
        .ok()
        .filter(std::fs::Metadata::is_file)?;
    let modified = meta
        .mtime()
        .wrapping_mul(1_000_000_000)
        .wrapping_add(meta.mtime_nsec());
    let changed = meta
        .ctime()
        .wrapping_mul(1_000_000_000)
        .wrapping_add(meta.ctime_nsec());
    Some((meta.dev(), meta.ino(), meta.len(), modified, changed))
}

/// The files of one place, each with everything that any product reads in it.
fn readings(agents: &Catalogue, place: Where<'_>, view: &FsView) -> BTreeMap<PathBuf, Reading> {
    let mut all: BTreeMap<PathBuf, Reading> = BTreeMap::new();
    let mut add =
        |template: &str, project: bool, format, at: Vec<(About, Vec<String>)>, product: &str| {
            let pattern = match place {
                Where::Home(vars) if !project => vars.expand(template),
                Where::Project(dir) if project => {
                    Some(dir.join(template).to_string_lossy().into_owned())
                }
                Where::Home(_) | Where::Project(_) => None,
            };
            for path in pattern.iter().flat_map(|p| paths(view, p)) {
                let reading = all.entry(path).or_insert_with(|| Reading {
                    format,
                    at: Vec::new(),
                    products: BTreeSet::new(),
                });
                reading.products.insert(product.to_owned());
                for row in &at {
                    if !reading.at.contains(row) {
                        reading.at.push(row.clone());
                    }
                }
            }
        };
    for row in agents.rows() {
        for config in &row.config {
            let at = config
                .at
                .iter()
                .map(|path| (About::Server, path.clone()))
                .collect();
            add(&config.path, config.project, config.format, at, &row.id);
        }
        for drift in &row.drift {
            let hooks = drift.hooks.iter().map(|path| (About::Hook, path.clone()));
            let trust = drift.trust.iter().map(|path| (About::Trust, path.clone()));
            add(
                &drift.path,
                drift.project,
                drift.format,
                hooks.chain(trust).collect(),
                &row.id,
            );
        }
    }
    all
}

fn paths(view: &FsView, pattern: &str) -> Vec<PathBuf> {
    let plain = |path: &String| !path.contains(['*', '?']);
    let (plain, globs): (Vec<String>, Vec<String>) =
        alternatives(pattern).into_iter().partition(plain);
    let found = globs
        .iter()
        .flat_map(|glob| glob_files(view, glob, MAX_PER_ROW));
    plain.into_iter().map(PathBuf::from).chain(found).collect()
}

fn read(view: &FsView, path: &Path, reading: &Reading) -> Option<Snapshot> {
    let bytes = view.read(path, config::MAX_CONFIG).ok()?;
    if bytes.trim_ascii().is_empty() {
        return Some(Snapshot::new());
    }
    let root = config::parse(reading.format, &bytes).ok()?;
    let mut entries = Snapshot::new();
    for (about, at) in &reading.at {
        collect(&root, at, *about, &mut Vec::new(), &mut entries);
    }
    Some(entries)
}

/// Follows a key path; `*` and `.` stand for any key, which becomes part of the entry's name.
fn collect(
    value: &Value,
    at: &[String],
    about: About,
    name: &mut Vec<String>,
    entries: &mut Snapshot,
) {
    let Some((key, rest)) = at.split_first() else {
        found(value, about, name, entries);
        return;
    };
    let Some(map) = value.as_object() else { return };
    if key == "*" || key == "." {
        for (key, inner) in map {
            name.push(key.clone());
            collect(inner, rest, about, name, entries);
            name.pop();
        }
    } else if let Some(inner) = map.get(key) {
        // A single mark of trust is named by its own key.
        let own = about == About::Trust;
        if own {
            name.push(key.clone());
        }
        collect(inner, rest, about, name, entries);
        if own {
            name.pop();
        }
    }
}

fn found(value: &Value, about: About, name: &[String], entries: &mut Snapshot) {
    let mut add = |own: Option<&str>, value: &Value| {
        let full: Vec<&str> = name.iter().map(String::as_str).chain(own).collect();
        if entries.len() < MAX_ENTRIES {
            let digest = Sha256::digest(value.to_string().as_bytes()).into();
            entries.insert((about, full.join(": ")), digest);
        }
    };
    match value {
        // A flat file of servers has other keys too: an entry is what can be started or reached.
        Value::Object(map) => {
            for (key, inner) in map {
                let server = [
                    "command",
                    "cmd",
                    "url",
                    "serverUrl",
                    "httpUrl",
                    "uri",
                    "type",
                ]
                .iter()
                .any(|field| inner.get(*field).is_some());
                if about != About::Server || server {
                    add(Some(key), inner);
                }
            }
        }
        Value::Array(list) => {
            for inner in list {
                let named = ["name", "label", "id", "command"]
                    .iter()
                    .find_map(|key| inner.get(*key)?.as_str());
                match named.or(inner.as_str()) {
                    Some(own) => add(Some(own), inner),
                    None => add(None, inner),
                }
            }
        }
        Value::Null => {}
        Value::Bool(_) | Value::Number(_) | Value::String(_) => add(None, value),
    }
}

fn compare(before: &Snapshot, now: &Snapshot) -> Vec<(&'static str, String)> {
    let added = now.iter().filter(|(key, _)| !before.contains_key(*key));
    let changed = now
        .iter()
        .filter(|(key, digest)| before.get(*key).is_some_and(|old| old != *digest));
    let removed = before.keys().filter(|key| !now.contains_key(*key));
    let of = |about: About, server, hook| match about {
        About::Server => server,
        About::Hook => hook,
        About::Trust => "trust-changed",
    };
    added
        .map(|((about, name), _)| (of(*about, "mcp-server-added", "hook-added"), name.clone()))
        .chain(changed.map(|((about, name), _)| {
            (
                of(*about, "mcp-server-changed", "hook-changed"),
                name.clone(),
            )
        }))
        .chain(removed.map(|(about, name)| {
            (
                of(*about, "mcp-server-removed", "hook-changed"),
                name.clone(),
            )
        }))
        .collect()
}

#[cfg(test)]
mod tests;
