//! Which configured MCP server a process is.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::catalogue::{AgentRow, ConfigFormat};
use super::config::{self, Listed};
use super::launch::{self, Target, basename};
use crate::files::FsView;
use crate::paths::{Vars, glob_files};

/// Parsed files kept.
const MAX_CACHED: usize = 128;
/// Files of one catalogue row.
const MAX_FILES: usize = 32;
/// Directories above the working directory that are looked into.
const MAX_ABOVE: usize = 12;

/// What an agent's session says about where its servers are listed.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// Its home, and the variables that move its configuration.
    pub vars: Vars,
    /// Its working directory.
    pub cwd: Option<PathBuf>,
    /// The file tree as it sees it.
    pub view: FsView,
    /// Files named on its command line.
    pub config_files: Vec<PathBuf>,
    /// Servers given on its command line.
    pub inline: Vec<Listed>,
}

/// A server with the place that lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    /// The server.
    pub listed: Listed,
    /// The file, or `(command line)`.
    pub config: String,
    /// `user`, `project`, `managed`, `plugin` or `argv`.
    pub scope: String,
}

#[derive(Debug)]
struct Cached {
    stamp: (u64, u64, i64, i64, u64),
    servers: Arc<Vec<Listed>>,
}

/// Reads configurations when a server starts, and keeps them until they change.
#[derive(Debug, Default)]
pub struct ConfigReader {
    /// By file and by where in it the servers are: two products may read one file differently.
    cache: HashMap<(PathBuf, String), Cached>,
    unreadable: u64,
}

impl ConfigReader {
    /// Configurations that were there but could not be read or parsed.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// Every stdio server that `row`'s configurations list for this session, as of now; those of
    /// the command line first, then in the order of the catalogue row.
    pub fn configured(&mut self, row: &AgentRow, session: &Session) -> Vec<Configured> {
        let mut all: Vec<Configured> = session
            .inline
            .iter()
            .map(|listed| Configured {
                listed: listed.clone(),
                config: "(command line)".to_owned(),
                scope: "argv".to_owned(),
            })
            .collect();
        for path in &session.config_files {
            self.add(path, ConfigFormat::Json, &[], "argv", session, &mut all);
        }
        for config in &row.config {
            for path in paths_of(config, session) {
                self.add(
                    &path,
                    config.format,
                    &config.at,
                    &config.scope,
                    session,
                    &mut all,
                );
            }
        }
        all
    }

    fn add(
        &mut self,
        path: &Path,
        format: ConfigFormat,
        at: &[Vec<String>],
        scope: &str,
        session: &Session,
        all: &mut Vec<Configured>,
    ) {
        for listed in self.read(&session.view, path, format, at).iter() {
            let elsewhere = listed
                .project
                .as_ref()
                .is_some_and(|dir| !session.cwd.as_ref().is_some_and(|cwd| cwd.starts_with(dir)));
            if !elsewhere {
                let scope = if listed.project.is_some() {
                    "project"
                } else {
                    scope
                };
                all.push(Configured {
                    listed: listed.clone(),
                    config: path.to_string_lossy().into_owned(),
                    scope: scope.to_owned(),
                });
            }
        }
    }

    fn read(
        &mut self,
        view: &FsView,
        path: &Path,
        format: ConfigFormat,
        at: &[Vec<String>],
    ) -> Arc<Vec<Listed>> {
        let Ok(meta) = view.metadata(path) else {
            return Arc::default();
        };
        let stamp = (
            meta.dev(),
            meta.ino(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.len(),
        );
        let key = (path.to_owned(), format!("{at:?}"));
        if let Some(cached) = self.cache.get(&key).filter(|c| c.stamp == stamp) {
            return Arc::clone(&cached.servers);
        }
        let servers = match view.read(path, config::MAX_CONFIG) {
            Ok(bytes) => config::servers(format, &bytes, at).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "an agent's configuration cannot be read: its MCP servers are shown without their names");
                self.unreadable += 1;
                Vec::new()
            }),
            Err(_) => {
                self.unreadable += 1;
                Vec::new()
            }
        };
        let servers = Arc::new(servers);
        if self.cache.len() >= MAX_CACHED {
            self.cache.clear();
        }
        self.cache.insert(
            key,
            Cached {
                stamp,
                servers: Arc::clone(&servers),
            },
        );
        servers
    }
}

fn paths_of(config: &super::catalogue::ConfigRow, session: &Session) -> Vec<PathBuf> {
    if !config.project {
        let pattern = session.vars.expand(&config.path);
        return pattern
            .map(|p| files(&session.view, &p))
            .unwrap_or_default();
    }
    let above = session
        .cwd
        .iter()
        .flat_map(|cwd| cwd.ancestors().take(MAX_ABOVE));
    above
        .flat_map(|dir| files(&session.view, &dir.join(&config.path).to_string_lossy()))
        .collect()
}

fn files(view: &FsView, pattern: &str) -> Vec<PathBuf> {
    if pattern.contains(['*', '{', '?']) {
        return glob_files(view, pattern, MAX_FILES);
    }
    vec![PathBuf::from(pattern)]
}

/// Takes the servers and configuration files out of an agent's own command line.
pub fn from_argv(row: &AgentRow, argv: &[String], session: &mut Session) {
    let is_flag = |flags: &[String], word: &str| flags.iter().any(|f| f == word);
    for (at, word) in argv.iter().enumerate().skip(1) {
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => (flag, Some(value)),
            _ => (word.as_str(), argv.get(at + 1).map(String::as_str)),
        };
        let Some(value) = value else { continue };
        if is_flag(&row.config_flags, flag) {
            if value.trim_start().starts_with('{') {
                let parsed = config::servers(ConfigFormat::Json, value.as_bytes(), &[]);
                session.inline.extend(parsed.unwrap_or_default());
            } else {
                let cwd = session.cwd.clone().unwrap_or_default();
                let path = value.strip_prefix('@').unwrap_or(value);
                session.config_files.push(cwd.join(path));
            }
        }
    }
    session.inline.extend(overrides(row, argv));
    session.inline.truncate(64);
    session.config_files.truncate(16);
}

/// `-c mcp_servers.NAME.command="x"`: TOML assignments, put together into one document.
fn overrides(row: &AgentRow, argv: &[String]) -> Vec<Listed> {
    if row.override_flags.is_empty() {
        return Vec::new();
    }
    let mut document = String::new();
    for pair in argv.windows(2) {
        let [flag, value] = pair else { continue };
        if row.override_flags.contains(flag) && value.starts_with("mcp_servers.") {
            let line = match value.split_once('=') {
                // A value that is no TOML is taken as text, as Codex does.
                Some((key, text))
                    if toml::from_str::<toml::Table>(&format!("x={text}")).is_err() =>
                {
                    format!("{key}={text:?}")
                }
                _ => value.clone(),
            };
            document.push_str(&line);
            document.push('\n');
        }
    }
    let at = [vec!["mcp_servers".to_owned()]];
    config::servers(ConfigFormat::Toml, document.as_bytes(), &at).unwrap_or_default()
}

/// The configured server that this command line is, if any.
#[must_use]
pub fn find<'a>(
    configured: &'a [Configured],
    argv: &[String],
    exe: &Path,
    session: &Session,
) -> Option<&'a Configured> {
    let started = launch::unwrap(argv)?;
    configured
        .iter()
        .find(|c| same_words(&c.listed.command, argv, &started.words, exe, session))
        .or_else(|| {
            configured
                .iter()
                .find(|c| same_target(&c.listed.command, &started, session))
        })
}

/// The arguments are the same, and before them stands the same command.
fn same_words(
    listed: &[String],
    argv: &[String],
    unwrapped: &[String],
    exe: &Path,
    session: &Session,
) -> bool {
    let Some((command, args)) = listed.split_first() else {
        return false;
    };
    [argv, unwrapped].iter().any(|words| {
        let Some(split) = words.len().checked_sub(args.len()).filter(|s| *s > 0) else {
            return false;
        };
        let (head, tail) = words.split_at(split);
        tail.iter()
            .zip(args)
            .all(|(word, arg)| same_text(arg, word, session))
            && head
                .last()
                .is_some_and(|word| same_command(command, word, head.len(), exe, session))
    })
}

fn same_command(listed: &str, word: &str, head: usize, exe: &Path, session: &Session) -> bool {
    let listed = session
        .vars
        .expand(listed)
        .unwrap_or_else(|| listed.to_owned());
    if basename(&listed) == basename(word) {
        // Two absolute paths must lead to the same file; a bare name is looked up in PATH.
        let both = listed.starts_with('/') && word.starts_with('/');
        let same = || real(&listed, session).is_some_and(|path| Some(path) == real(word, session));
        return !both || listed == word || same();
    }
    // `python` in the configuration, `python3.11` in the kernel's record.
    head == 1 && listed.contains('/') && real(&listed, session).is_some_and(|path| path == exe)
}

fn real(path: &str, session: &Session) -> Option<PathBuf> {
    session.view.realpath(Path::new(path)).ok()
}

/// Equal after filling in what is known; a variable that is not known stands for any text.
fn same_text(listed: &str, word: &str, session: &Session) -> bool {
    if listed == word || session.vars.expand(listed).is_some_and(|full| full == word) {
        return true;
    }
    let Some((before, rest)) = listed.split_once("${") else {
        return false;
    };
    let Some((name, after)) = rest.split_once('}') else {
        return false;
    };
    let known = session.vars.expand(&format!("${{{name}}}"));
    match known {
        Some(_) => false,
        None => {
            !after.contains("${")
                && word.len() >= before.len() + after.len()
                && word.starts_with(before)
                && word.ends_with(after)
        }
    }
}

/// Both start the same package, script or module with the same arguments at the end: finds a
/// server whose launcher rewrote its command line.
fn same_target(listed: &[String], started: &launch::Launch, session: &Session) -> bool {
    let expanded: Vec<String> = listed
        .iter()
        .map(|w| session.vars.expand(w).unwrap_or_else(|| w.clone()))
        .collect();
    let Some(wanted) = launch::unwrap(&expanded) else {
        return false;
    };
    let same = match (&wanted.target, &started.target) {
        (Target::Package(a), Target::Package(b)) => a.ecosystem == b.ecosystem && a.name == b.name,
        (Target::Script(a), Target::Script(b)) => {
            let cwd = session.cwd.as_deref().unwrap_or(Path::new("/"));
            let of = |p: &str| session.view.realpath(&cwd.join(p)).ok();
            of(a).is_some_and(|a| Some(a) == of(b))
        }
        (Target::Module(a), Target::Module(b)) => !a.is_empty() && a == b,
        _ => false,
    };
    let last = |words: &[String]| words.last().cloned().unwrap_or_default();
    same && last(&wanted.words) == last(&started.words)
}

#[cfg(test)]
mod tests;
