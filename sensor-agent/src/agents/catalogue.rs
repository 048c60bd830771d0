//! The catalogue of agents: what their processes look like and where they list MCP servers.

use serde::Deserialize;
use thiserror::Error;

use crate::paths::{alternatives, variables_of};

/// A catalogue that cannot be used.
#[derive(Debug, Error)]
pub enum CatalogueError {
    /// Not the expected form.
    #[error("agent catalogue {origin}: {source}; see catalogue/agents.toml for the form")]
    Form {
        /// File name or `(built in)`.
        origin: String,
        /// What and where.
        source: Box<toml::de::Error>,
    },
    /// A row that recognises nothing, or that has an id used before.
    #[error("agent catalogue {origin}: row `{id}` {problem}")]
    Row {
        /// File name or `(built in)`.
        origin: String,
        /// The row.
        id: String,
        /// What is wrong with it and how to mend it.
        problem: &'static str,
    },
}

/// One product.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentRow {
    /// Stable id, e.g. `codex-cli`.
    pub id: String,
    /// The name people use.
    pub name: String,
    /// Where the facts of this row come from.
    pub source: String,
    /// Globs of its executable's path; `{a,b}` stands for either.
    #[serde(default)]
    pub exe: Vec<String>,
    /// Names of npm packages whose executables (`bin`) are the product.
    #[serde(default)]
    pub npm: Vec<String>,
    /// Names of Python distributions whose scripts are the product.
    #[serde(default)]
    pub pypi: Vec<String>,
    /// Globs of the script that an interpreter runs.
    #[serde(default)]
    pub script: Vec<String>,
    /// File names of the product among the executables of its npm package.
    #[serde(default)]
    pub bin: Vec<String>,
    /// Variables that it sets for its children: corroboration, never recognition.
    #[serde(default)]
    pub markers: Vec<String>,
    /// Names under which it is found in `PATH`.
    #[serde(default)]
    pub commands: Vec<String>,
    /// Other places where its executables lie (templates with globs).
    #[serde(default)]
    pub find: Vec<String>,
    /// Its shell tool runs commands as direct children, in its own session.
    #[serde(default)]
    pub shell_in_process: bool,
    /// Arguments that name an MCP configuration file or hold one.
    #[serde(default)]
    pub config_flags: Vec<String>,
    /// Arguments of the form `key.path=value` that override the configuration.
    #[serde(default)]
    pub override_flags: Vec<String>,
    /// Where it lists MCP servers.
    #[serde(default)]
    pub config: Vec<ConfigRow>,
    /// What else decides what it starts or trusts.
    #[serde(default)]
    pub drift: Vec<DriftRow>,
}

impl AgentRow {
    /// True when the environment has one of the product's markers. `text` gives a variable's value.
    #[must_use]
    pub fn is_marked(&self, text: impl Fn(&str) -> Option<String>) -> bool {
        self.markers
            .iter()
            .any(|marker| match marker.split_once('=') {
                Some((name, wanted)) => {
                    text(name).is_some_and(|value| match wanted.strip_suffix('*') {
                        Some(start) => value.starts_with(start),
                        None => value == wanted,
                    })
                }
                None => text(marker).is_some(),
            })
    }
}

/// How a configuration file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigFormat {
    /// JSON, JSON with comments, JSON5.
    Json,
    /// TOML.
    Toml,
    /// YAML.
    Yaml,
}

/// One place of one product's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigRow {
    /// Template with globs; relative to the project when `project` is set.
    pub path: String,
    /// How it is written.
    pub format: ConfigFormat,
    /// `user`, `project`, `managed` or `plugin`.
    pub scope: String,
    /// Looked for in the session's working directory and the directories above it.
    #[serde(default)]
    pub project: bool,
    /// Where the servers are: one key path each, `*` for any key, `.` for a key path relative to
    /// a project (the key is an absolute directory). All known shapes when empty.
    #[serde(default)]
    pub at: Vec<Vec<String>>,
}

/// A file of one product with hooks (commands that it runs by itself) or marks of trust.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriftRow {
    /// Template with globs; relative to the project when `project` is set.
    pub path: String,
    /// How it is written.
    pub format: ConfigFormat,
    /// Looked for in the session's working directory.
    #[serde(default)]
    pub project: bool,
    /// Key paths of hooks, as in [`ConfigRow::at`].
    #[serde(default)]
    pub hooks: Vec<Vec<String>>,
    /// Key paths of what says whom or what the agent trusts.
    #[serde(default)]
    pub trust: Vec<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    #[serde(default)]
    agent: Vec<AgentRow>,
}

/// All rows.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    rows: Vec<AgentRow>,
}

impl Catalogue {
    /// The rows that come with the sensor.
    ///
    /// # Errors
    /// Never in a released build (a test reads the same text).
    pub fn builtin() -> Result<Self, CatalogueError> {
        let mut catalogue = Self::default();
        catalogue.add("(built in)", include_str!("../../catalogue/agents.toml"))?;
        Ok(catalogue)
    }

    /// Adds rows from text (a user's own catalogue file); `origin` names it in errors. A row
    /// whose id is known already replaces that one.
    ///
    /// # Errors
    /// [`CatalogueError`] with the line or row at fault; nothing is added then.
    pub fn add(&mut self, origin: &str, text: &str) -> Result<(), CatalogueError> {
        let rows: Rows = toml::from_str(text).map_err(|source| CatalogueError::Form {
            origin: origin.to_owned(),
            source: Box::new(source),
        })?;
        for row in &rows.agent {
            check(origin, row)?;
        }
        for mut row in rows.agent {
            for globs in [&mut row.exe, &mut row.script] {
                *globs = globs.iter().flat_map(|glob| alternatives(glob)).collect();
            }
            self.rows.retain(|known| known.id != row.id);
            self.rows.push(row);
        }
        Ok(())
    }

    /// Every row.
    #[must_use]
    pub fn rows(&self) -> &[AgentRow] {
        &self.rows
    }

    /// The row with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&AgentRow> {
        self.rows.iter().find(|row| row.id == id)
    }

    /// Variables that move configuration files: kept of an agent's environment, and no others.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().flat_map(|row| {
            let configs = row.config.iter().map(|config| &config.path);
            let drift = row.drift.iter().map(|drift| &drift.path);
            configs.chain(drift).flat_map(|path| variables_of(path))
        })
    }
}

fn check(origin: &str, row: &AgentRow) -> Result<(), CatalogueError> {
    let recognises = [&row.exe, &row.npm, &row.pypi, &row.script]
        .iter()
        .any(|l| !l.is_empty());
    let problem = if row.id.is_empty() || row.name.is_empty() {
        "needs an id and a name"
    } else if !recognises {
        "recognises nothing: give it exe, npm, pypi or script"
    } else if row
        .exe
        .iter()
        .chain(&row.script)
        .any(|g| g == "**" || g == "*" || g == "**/*")
    {
        "matches every process: name the executable"
    } else {
        return Ok(());
    };
    Err(CatalogueError::Row {
        origin: origin.to_owned(),
        id: row.id.clone(),
        problem,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_rows_are_sound() {
        let catalogue = Catalogue::builtin().unwrap();
        for id in ["claude-code", "codex-cli", "gemini-cli"] {
            assert!(catalogue.get(id).is_some(), "{id}");
        }
        assert!(catalogue.rows().iter().all(|row| !row.source.is_empty()));
        assert!(catalogue.variables().any(|v| v == "CLAUDE_CONFIG_DIR"));
    }

    #[test]
    fn a_users_row_is_added_or_replaces_and_a_bad_one_is_named() {
        let mut catalogue = Catalogue::builtin().unwrap();
        let count = catalogue.rows().len();
        let own = "[[agent]]\nid='own'\nname='Own'\nsource='us'\nexe=['/opt/own/host']\n";
        catalogue.add("own.toml", own).unwrap();
        catalogue.add("own.toml", own).unwrap();
        assert_eq!(catalogue.rows().len(), count + 1);
        for (text, says) in [
            (
                "[[agent]]\nid='x'\nname='X'\nsource=''\n",
                "row `x` recognises nothing",
            ),
            (
                "[[agent]]\nid='x'\nname='X'\nsource=''\nexe=['**']\n",
                "matches every process",
            ),
            ("[[agent]]\nid='x'\nnmae='X'\n", "own.toml"),
        ] {
            let error = catalogue.add("own.toml", text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
