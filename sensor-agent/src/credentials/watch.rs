//! Which files the kernel is asked to watch.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use thiserror::Error;

use super::formats::{FileFormat, Form};
use super::structured::Field;
use crate::agents::Catalogue;
use crate::agents::catalogue::ConfigFormat;
use crate::files::{FileId, FsView};
use crate::paths::{Vars, alternatives, glob_files, glob_matches, variables_of};

/// Most files of one catalogue row in one place.
const MAX_PER_ROW: usize = 64;

/// A catalogue that cannot be used.
#[derive(Debug, Error)]
#[error("watch list {origin}: {source}; see catalogue/watch.toml for the form")]
pub struct WatchError {
    origin: String,
    source: toml::de::Error,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    path: String,
    #[serde(default)]
    format: FileFormat,
    #[serde(default)]
    fields: Arc<[Field]>,
    #[serde(default)]
    store: Option<String>,
    #[serde(default)]
    owners: Arc<[String]>,
    #[serde(default)]
    dir: bool,
    #[serde(default)]
    project: bool,
    #[serde(rename = "source")]
    _source: String,
}

impl Row {
    /// In no home and moved by no variable: the same for every account.
    fn is_system(&self) -> bool {
        !self.project && self.path.starts_with('/')
    }

    fn form(&self) -> Form {
        Form {
            format: self.format,
            fields: Arc::clone(&self.fields),
            store: self.store.clone(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    #[serde(default)]
    file: Vec<Row>,
}

/// Where credentials lie: the rows of `catalogue/watch.toml`, and the user's own.
#[derive(Clone, Debug)]
pub struct WatchCatalogue {
    rows: Vec<Row>,
}

/// One file or directory to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchTarget {
    /// The path as the catalogue gives it; for people, and to find a replaced file again.
    pub path: PathBuf,
    /// The path with links resolved: what to open. `None` while nothing is there.
    pub real: Option<PathBuf>,
    /// What the kernel compares. `None` while nothing is there.
    pub id: Option<FileId>,
    /// The nearest existing directory above: where the file would appear, or be replaced.
    pub parent: Option<(PathBuf, FileId)>,
    /// The target is a directory: every file in it counts.
    pub is_dir: bool,
    /// How to read it.
    pub form: Form,
    /// Names of the programs whose own store it is: their accesses are its normal working.
    pub owners: Arc<[String]>,
}

impl WatchTarget {
    /// True when this executable is the store's own program, in a place where not everybody may
    /// put one. A renamed thief passes here: it is the price for not following every browser.
    #[must_use]
    pub fn is_owner(&self, exe: &Path) -> bool {
        let name = exe
            .file_name()
            .map(|n| n.to_string_lossy())
            .unwrap_or_default();
        super::readers::installed(exe) && self.owners.iter().any(|owner| glob_matches(owner, &name))
    }
}

impl WatchCatalogue {
    /// The rows that come with the sensor.
    ///
    /// # Errors
    /// Never in a released build (a test reads the same text).
    pub fn builtin() -> Result<Self, WatchError> {
        Self::parse("(built in)", include_str!("../../catalogue/watch.toml"))
    }

    /// Reads rows from text; `origin` names it in errors.
    ///
    /// # Errors
    /// [`WatchError`] with the line at fault.
    pub fn parse(origin: &str, text: &str) -> Result<Self, WatchError> {
        let rows: Rows = toml::from_str(text).map_err(|source| WatchError {
            origin: origin.to_owned(),
            source,
        })?;
        Ok(Self { rows: rows.file })
    }

    /// Adds the configurations of agents and MCP hosts: they hold the secrets that servers are
    /// given, and whoever writes them decides what is started.
    pub fn add_configs(&mut self, agents: &Catalogue) {
        let places = agents.rows().iter().flat_map(|row| {
            let configs = row.config.iter().map(|c| (&c.path, c.project, c.format));
            configs.chain(row.drift.iter().map(|d| (&d.path, d.project, d.format)))
        });
        for (path, project, format) in places {
            let known = self
                .rows
                .iter()
                .any(|known| known.path == *path && known.project == project);
            if known {
                continue;
            }
            self.rows.push(Row {
                path: path.clone(),
                format: match format {
                    ConfigFormat::Json => FileFormat::McpJson,
                    ConfigFormat::Toml => FileFormat::McpToml,
                    ConfigFormat::Yaml => FileFormat::McpYaml,
                },
                fields: Arc::default(),
                store: None,
                owners: Arc::default(),
                dir: false,
                project,
                _source: String::new(),
            });
        }
    }

    /// How each row is read, in order: for tests and fuzzing.
    pub fn forms(&self) -> impl Iterator<Item = Form> {
        self.rows.iter().map(Row::form)
    }

    /// How the row with this path is read: for tests of the catalogue.
    #[cfg(test)]
    pub(crate) fn form_of(&self, path: &str) -> Option<Form> {
        self.rows.iter().find(|row| row.path == path).map(Row::form)
    }

    /// Adds the rows of another catalogue (the user's own).
    pub fn extend(&mut self, other: Self) {
        self.rows.extend(other.rows);
    }

    /// Variables that move watched files; the sensor keeps these of a tracked process's
    /// environment, and no others.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().flat_map(|row| variables_of(&row.path))
    }

    /// What to watch for one home (and the variables of a process that runs there).
    #[must_use]
    pub fn home_targets(&self, view: &FsView, vars: &Vars) -> Vec<WatchTarget> {
        let rows = self
            .rows
            .iter()
            .filter(|row| !row.project && !row.is_system());
        rows.filter_map(|row| Some((row, vars.expand(&row.path)?)))
            .flat_map(|(row, path)| targets(view, row, &path))
            .collect()
    }

    /// What to watch that belongs to the machine.
    #[must_use]
    pub fn system_targets(&self, view: &FsView) -> Vec<WatchTarget> {
        let rows = self.rows.iter().filter(|row| row.is_system());
        rows.flat_map(|row| targets(view, row, &row.path)).collect()
    }

    /// What to watch in the working directory of an agent's session.
    #[must_use]
    pub fn project_targets(&self, view: &FsView, cwd: &Path) -> Vec<WatchTarget> {
        let rows = self.rows.iter().filter(|row| row.project);
        rows.flat_map(|row| {
            let path = cwd.join(&row.path);
            targets(view, row, &path.to_string_lossy())
        })
        .collect()
    }
}

fn targets(view: &FsView, row: &Row, path: &str) -> Vec<WatchTarget> {
    alternatives(path)
        .into_iter()
        .flat_map(|path| {
            if path.contains(['*', '?']) {
                let found = glob_files(view, &path, MAX_PER_ROW);
                return found.iter().map(|p| target(view, row, p)).collect();
            }
            vec![target(view, row, Path::new(&path))]
        })
        .collect()
}

fn target(view: &FsView, row: &Row, path: &Path) -> WatchTarget {
    // A row for a file must not turn into a watch on a directory (`.env/` is often a Python
    // environment), nor the other way round.
    let meta = view
        .metadata(path)
        .ok()
        .filter(|m| if row.dir { m.is_dir() } else { m.is_file() });
    WatchTarget {
        path: path.to_owned(),
        real: meta.as_ref().and_then(|_| view.realpath(path).ok()),
        id: meta.as_ref().map(FileId::from_metadata),
        parent: nearest_dir(view, path),
        is_dir: row.dir,
        form: row.form(),
        owners: Arc::clone(&row.owners),
    }
}

fn nearest_dir(view: &FsView, path: &Path) -> Option<(PathBuf, FileId)> {
    path.ancestors().skip(1).find_map(|dir| {
        let meta = view.metadata(dir).ok().filter(std::fs::Metadata::is_dir)?;
        Some((dir.to_owned(), FileId::from_metadata(&meta)))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_home_is_covered_whether_or_not_its_files_exist() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap();
        std::fs::create_dir_all(home.join(".aws/sso/cache")).unwrap();
        std::fs::create_dir_all(home.join("dotfiles")).unwrap();
        std::fs::write(home.join("dotfiles/aws"), "[default]").unwrap();
        std::os::unix::fs::symlink(home.join("dotfiles/aws"), home.join(".aws/credentials"))
            .unwrap();
        let vars = Vars::home(home.to_string_lossy());
        let targets = WatchCatalogue::builtin()
            .unwrap()
            .home_targets(&FsView::host(), &vars);
        let by = |end: &str| targets.iter().find(|t| t.path.ends_with(end)).unwrap();

        let linked = by(".aws/credentials");
        assert_eq!(
            linked.real.as_deref(),
            Some(home.join("dotfiles/aws").as_path())
        );
        let meta = std::fs::metadata(home.join("dotfiles/aws")).unwrap();
        assert_eq!(linked.id.unwrap().ino, meta.ino());

        let absent = by(".config/gh/hosts.yml");
        assert_eq!((absent.id, absent.real.as_ref()), (None, None));
        assert_eq!(absent.parent.as_ref().unwrap().0, home);
        assert!(by(".aws/sso/cache").is_dir && by(".aws/sso/cache").id.is_some());
    }

    #[test]
    fn variables_move_files_and_projects_have_their_own() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".env", ".env.local", "env"] {
            std::fs::write(dir.path().join(name), "A=b").unwrap();
        }
        let catalogue = WatchCatalogue::builtin().unwrap();
        let mut vars = Vars::home("/nonexistent");
        vars.set("AWS_SHARED_CREDENTIALS_FILE", "/etc/hostname");
        let targets = catalogue.home_targets(&FsView::host(), &vars);
        assert!(
            targets
                .iter()
                .any(|t| t.path == Path::new("/etc/hostname") && t.id.is_some())
        );
        assert!(
            catalogue
                .variables()
                .any(|v| v == "AWS_SHARED_CREDENTIALS_FILE")
        );

        let project = catalogue.project_targets(&FsView::host(), dir.path());
        let there: Vec<_> = project
            .iter()
            .filter(|t| t.id.is_some())
            .map(|t| &t.path)
            .collect();
        assert_eq!(
            there,
            [&dir.path().join(".env"), &dir.path().join(".env.local")]
        );
    }
}
