//! Which files and directories the kernel reports: the catalogue's paths for every home and
//! project seen, kept in step with what is really there.
//!
//! The kernel decides by (device, inode). A file that an editor replaces gets another inode, so its
//! directory is watched too, and the list is looked at anew at every hit in a watched directory, and
//! every few seconds if anything that it rests on has changed ([`Trace`]).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::agents::drift::Where;
use crate::credentials::{WatchCatalogue, WatchTarget};
use crate::files::{FileId, FsView, Trace};
use crate::kernel::event;
use crate::kernel::watch::{Watch, WatchError};
use crate::paths::Vars;

/// Most places (homes, projects) looked after; further ones are refused and counted.
const MAX_PLACES: usize = 256;

/// Where to look for the catalogue's files.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// The machine itself.
    System,
    /// A home, with the variables that move files.
    Home(Vars),
    /// The working directory of an agent's session.
    Project(PathBuf),
}

/// The list, and what of it the kernel knows.
pub struct WatchList {
    watch: Watch,
    catalogue: WatchCatalogue,
    places: Vec<(Place, FsView)>,
    targets: Vec<(WatchTarget, FsView)>,
    inodes: BTreeMap<FileId, usize>,
    dirs: BTreeMap<FileId, Vec<usize>>,
    refused: u64,
    errors: u64,
    trace: Trace,
}

/// The kernel side's own name of a file.
fn kernel_id(id: FileId) -> Option<event::FileId> {
    u32::try_from(id.dev)
        .ok()
        .map(|dev| event::FileId { dev, ino: id.ino })
}

/// The agent's name of a file that the kernel reports.
#[must_use]
pub fn file_id(id: event::FileId) -> FileId {
    FileId {
        dev: u64::from(id.dev),
        ino: id.ino,
    }
}

impl WatchList {
    /// An empty list.
    #[must_use]
    pub fn new(watch: Watch, catalogue: WatchCatalogue) -> Self {
        Self {
            watch,
            catalogue,
            places: vec![(Place::System, FsView::host())],
            targets: Vec::new(),
            inodes: BTreeMap::new(),
            dirs: BTreeMap::new(),
            refused: 0,
            errors: 0,
            trace: Trace::default(),
        }
    }

    /// Looks after a home from now on.
    pub fn add_home(&mut self, vars: Vars, view: FsView) {
        self.add(Place::Home(vars), view);
    }

    /// Looks after a session's working directory from now on.
    pub fn add_project(&mut self, dir: PathBuf, view: FsView) {
        self.add(Place::Project(dir), view);
    }

    fn add(&mut self, place: Place, view: FsView) {
        let known = self
            .places
            .iter()
            .any(|(known, seen)| *known == place && seen.is_host() == view.is_host());
        if known {
            return;
        }
        if self.places.len() >= MAX_PLACES {
            self.refused += 1;
            return;
        }
        self.places.push((place, view));
        self.refresh();
    }

    /// The homes and projects that are looked after.
    pub fn places(&self) -> impl Iterator<Item = (Where<'_>, &FsView)> {
        self.places.iter().filter_map(|(place, view)| match place {
            Place::System => None,
            Place::Home(vars) => Some((Where::Home(vars), view)),
            Place::Project(dir) => Some((Where::Project(dir), view)),
        })
    }

    /// Looks at every place anew if something there has changed since the last look.
    pub fn keep_up(&mut self) {
        if self.trace.changed() {
            self.refresh();
        }
    }

    /// Looks at every place anew and tells the kernel what changed.
    pub fn refresh(&mut self) {
        let mut targets = Vec::new();
        self.trace.begin();
        for (place, view) in &self.places {
            let traced = view.traced(&self.trace);
            let found = match place {
                Place::System => self.catalogue.system_targets(&traced),
                Place::Home(vars) => self.catalogue.home_targets(&traced, vars),
                Place::Project(dir) => self.catalogue.project_targets(&traced, dir),
            };
            targets.extend(found.into_iter().map(|target| (target, view.clone())));
        }
        self.trace.end();
        let mut inodes = BTreeMap::new();
        let mut dirs: BTreeMap<FileId, Vec<usize>> = BTreeMap::new();
        for (at, (target, _)) in targets.iter().enumerate() {
            match (target.id, target.is_dir) {
                (Some(id), true) => dirs.entry(id).or_default().push(at),
                // Only who writes there matters, and only in a tracked tree: that is what a watched
                // directory reports. Everybody reads them.
                (Some(_), false) if target.form.format.is_request() => {}
                (Some(id), false) => {
                    inodes.entry(id).or_insert(at);
                }
                (None, _) => {}
            }
            if let Some((_, id)) = &target.parent {
                dirs.entry(*id).or_default().push(at);
            }
        }
        self.tell_kernel(&inodes, &dirs);
        self.targets = targets;
        self.inodes = inodes;
        self.dirs = dirs;
    }

    fn tell_kernel(
        &mut self,
        inodes: &BTreeMap<FileId, usize>,
        dirs: &BTreeMap<FileId, Vec<usize>>,
    ) {
        let (old, new): (BTreeSet<_>, BTreeSet<_>) = (
            self.inodes.keys().copied().collect(),
            inodes.keys().copied().collect(),
        );
        for id in new.difference(&old).copied().filter_map(kernel_id) {
            self.errors += failed(self.watch.add_inode(id));
        }
        for id in old.difference(&new).copied().filter_map(kernel_id) {
            self.watch.remove_inode(id);
        }
        let (old, new): (BTreeSet<_>, BTreeSet<_>) = (
            self.dirs.keys().copied().collect(),
            dirs.keys().copied().collect(),
        );
        for id in new.difference(&old).copied().filter_map(kernel_id) {
            self.errors += failed(self.watch.add_dir(id));
        }
        for id in old.difference(&new).copied().filter_map(kernel_id) {
            self.watch.remove_dir(id);
        }
    }

    /// The target that a reported file is, with its present identity. A file in a watched
    /// directory counts when its name is a watched one.
    pub fn target(
        &mut self,
        file: FileId,
        dir: Option<FileId>,
        name: &[u8],
    ) -> Option<(WatchTarget, FsView)> {
        if let Some(at) = self.inodes.get(&file) {
            return self.targets.get(*at).cloned();
        }
        let name = std::str::from_utf8(name).ok()?;
        let candidates = self.dirs.get(&dir?)?.clone();
        let found = candidates.into_iter().find_map(|at| {
            let (target, view) = self.targets.get(at)?;
            let mut target = target.clone();
            if target.is_dir && target.id == dir {
                target.path.push(name);
                target.real = target.real.map(|real| real.join(name));
            } else if target.path.file_name().is_none_or(|known| known != name) {
                return None;
            } else {
                target.real = target.parent.as_ref().map(|(dir, _)| dir.join(name));
            }
            target.id = Some(file);
            Some((target, view.clone()))
        });
        if found
            .as_ref()
            .is_some_and(|(target, _)| !target.form.format.is_request())
        {
            // It is new or has replaced another: from now on its inode is known, to all.
            self.refresh();
        }
        found
    }

    /// Files and directories that the kernel watches.
    #[must_use]
    pub fn len(&self) -> (usize, usize) {
        (self.inodes.len(), self.dirs.len())
    }

    /// Places refused because there were too many, and entries that the kernel refused.
    #[must_use]
    pub fn refused(&self) -> (u64, u64) {
        (self.refused, self.errors)
    }
}

fn failed(result: Result<(), WatchError>) -> u64 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            tracing::warn!(%error, "a credential file is not watched");
            1
        }
    }
}
