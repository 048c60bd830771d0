//! Which executables of this machine the kernel is asked to report at exec.
//!
//! The kernel compares (device, inode). A script is never one of them: what the kernel executes
//! for it is the interpreter, which is in the list.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use super::catalogue::Catalogue;
use crate::files::{FileId, FsView};
use crate::paths::{Vars, glob_files, glob_matches};

/// Most executables reported: what the kernel's map holds.
const MAX_EXECUTABLES: usize = 4096;
/// Files of one glob.
const MAX_PER_GLOB: usize = 256;

/// Why an executable is watched. In order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExecutableClass {
    /// The product itself: everything it starts is tracked.
    Agent,
    /// A program that uses credentials.
    CredentialClient,
    /// A runtime: tracked when what it runs turns out to be an agent.
    Interpreter,
}

/// One executable file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executable {
    /// Resolved path.
    pub path: PathBuf,
    /// What the kernel compares.
    pub id: FileId,
    /// Why.
    pub class: ExecutableClass,
}

/// A list that cannot be used.
#[derive(Debug, Error)]
#[error("list of executables: {0}; see catalogue/executables.toml for the form")]
pub struct ExecutablesError(#[from] toml::de::Error);

/// The names and places of `catalogue/executables.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutableNames {
    interpreters: Vec<String>,
    clients: Vec<String>,
    places: Vec<String>,
}

impl ExecutableNames {
    /// The list that comes with the sensor.
    ///
    /// # Errors
    /// Never in a released build (a test reads the same text).
    pub fn builtin() -> Result<Self, ExecutablesError> {
        Ok(toml::from_str(include_str!(
            "../../catalogue/executables.toml"
        ))?)
    }

    /// True when a program of this name uses credentials.
    #[must_use]
    pub fn is_client(&self, name: &str) -> bool {
        self.clients.iter().any(|known| known == name)
    }

    /// Looks for agents, interpreters and credential clients in `path` (the value of `PATH`), in
    /// the known places, and in `homes`. Sorted by path; native (ELF) executables only. `view` is the
    /// host's, traced or not.
    #[must_use]
    pub fn find(
        &self,
        view: &FsView,
        catalogue: &Catalogue,
        path: &str,
        homes: &[PathBuf],
    ) -> Vec<Executable> {
        let mut found = Finder {
            view: view.clone(),
            by_id: BTreeMap::new(),
        };
        let homes: Vec<Vars> = homes
            .iter()
            .map(|h| Vars::home(h.to_string_lossy()))
            .collect();
        for row in catalogue.rows() {
            for template in &row.find {
                for place in expand_all(template, &homes) {
                    found.add_all(
                        &glob_files(view, &place, MAX_PER_GLOB),
                        ExecutableClass::Agent,
                    );
                }
            }
        }
        let commands: Vec<&str> = catalogue
            .rows()
            .iter()
            .flat_map(|row| &row.commands)
            .map(String::as_str)
            .collect();
        for dir in self.directories(view, path, &homes) {
            self.search(view, &dir, &commands, catalogue, &mut found);
        }
        let mut all: Vec<Executable> = found.by_id.into_values().collect();
        all.sort_by(|a, b| (a.class, &a.path).cmp(&(b.class, &b.path)));
        all.truncate(MAX_EXECUTABLES);
        all
    }

    fn directories(&self, view: &FsView, path: &str, homes: &[Vars]) -> Vec<PathBuf> {
        let mut dirs: Vec<PathBuf> = path
            .split(':')
            .filter(|d| d.starts_with('/'))
            .map(PathBuf::from)
            .collect();
        for place in &self.places {
            for pattern in expand_all(place, homes) {
                dirs.extend(glob_files(view, &pattern, MAX_PER_GLOB));
            }
        }
        dirs.sort();
        dirs.dedup();
        dirs
    }

    fn search(
        &self,
        view: &FsView,
        dir: &Path,
        commands: &[&str],
        catalogue: &Catalogue,
        found: &mut Finder,
    ) {
        for command in commands {
            let file = dir.join(command);
            // A command of that name is the product only where the catalogue knows its real path;
            // `agent`, `q` or `crush` may be anything else.
            let Ok(real) = view.realpath(&file) else {
                continue;
            };
            let text = real.to_string_lossy().into_owned();
            let known = catalogue
                .rows()
                .iter()
                .any(|row| row.exe.iter().any(|glob| glob_matches(glob, &text)));
            if known {
                found.add(&real, ExecutableClass::Agent);
            }
        }
        for client in &self.clients {
            found.add(&dir.join(client), ExecutableClass::CredentialClient);
        }
        for interpreter in &self.interpreters {
            if interpreter.contains('*') {
                let pattern = dir.join(interpreter);
                let files = glob_files(view, &pattern.to_string_lossy(), MAX_PER_GLOB);
                found.add_all(&files, ExecutableClass::Interpreter);
            } else {
                found.add(&dir.join(interpreter), ExecutableClass::Interpreter);
            }
        }
    }
}

fn expand_all(template: &str, homes: &[Vars]) -> Vec<String> {
    if !template.contains('~') && !template.contains("${") {
        return vec![template.to_owned()];
    }
    homes
        .iter()
        .filter_map(|home| home.expand(template))
        .collect()
}

struct Finder {
    view: FsView,
    by_id: BTreeMap<FileId, Executable>,
}

impl Finder {
    fn add_all(&mut self, files: &[PathBuf], class: ExecutableClass) {
        files.iter().for_each(|file| self.add(file, class));
    }

    fn add(&mut self, file: &Path, class: ExecutableClass) {
        let Ok(path) = self.view.realpath(file) else {
            return;
        };
        if !is_elf(&path) {
            return;
        }
        let Ok(meta) = self.view.metadata(&path) else {
            return;
        };
        let id = FileId::from_metadata(&meta);
        let known = self
            .by_id
            .entry(id)
            .or_insert_with(|| Executable { path, id, class });
        known.class = known.class.min(class);
    }
}

fn is_elf(path: &Path) -> bool {
    use std::io::Read as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut magic = [0; 4];
    let nonblock = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nonblock)
        .open(path);
    opened.is_ok_and(|mut file| {
        file.metadata().is_ok_and(|m| m.is_file()) && file.read_exact(&mut magic).is_ok()
    }) && magic == *b"\x7fELF"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_executables_are_found_and_classed() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap();
        let bin = home.join("pathdir");
        let versions = home.join(".local/share/claude/versions");
        for dir in [&bin, &versions, &home.join(".local/bin")] {
            std::fs::create_dir_all(dir).unwrap();
        }
        for file in [
            "pathdir/node",
            "pathdir/gh",
            ".local/share/claude/versions/2.1.3",
        ] {
            std::fs::write(home.join(file), format!("\x7fELF{file}")).unwrap();
        }
        std::fs::write(bin.join("aws"), "#!/usr/bin/python3\n").unwrap();
        // Not the agent: only a command of the same name.
        std::fs::write(bin.join("q"), "\x7fELFq").unwrap();
        std::os::unix::fs::symlink(versions.join("2.1.3"), home.join(".local/bin/claude")).unwrap();

        let names = ExecutableNames::builtin().unwrap();
        let catalogue = Catalogue::builtin().unwrap();
        let all = names.find(
            &FsView::host(),
            &catalogue,
            &bin.to_string_lossy(),
            std::slice::from_ref(&home),
        );
        let own: Vec<(String, ExecutableClass)> = all
            .iter()
            .filter_map(|e| {
                Some((
                    e.path.strip_prefix(&home).ok()?.display().to_string(),
                    e.class,
                ))
            })
            .collect();
        assert_eq!(
            own,
            [
                (
                    ".local/share/claude/versions/2.1.3".to_owned(),
                    ExecutableClass::Agent
                ),
                ("pathdir/gh".to_owned(), ExecutableClass::CredentialClient),
                ("pathdir/node".to_owned(), ExecutableClass::Interpreter),
            ]
        );
    }
}
