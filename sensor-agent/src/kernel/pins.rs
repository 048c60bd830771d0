//! What outlives the agent: programs, links and maps pinned in a BPF file system, so that the kernel
//! goes on recording while no agent runs and the next one takes over without losing or repeating
//! anything.
//!
//! ```text
//! <pins>/<scope>/            one folder for each part of the machine that is watched; locked by its agent
//!     v<ABI>-<fingerprint>/  one set; the fingerprint is of everything that shapes programs and maps
//!         maps/<NAME>
//!         links/<PROGRAM>    the links keep the programs
//!     draft-*                a set that was not finished: removed (names there can have no dots)
//! ```
//!
//! A set with the same fingerprint is adopted as it is. One of another fingerprint but the same ABI
//! is read to its end and then removed (`load`); one of another ABI cannot be read, so it is removed.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    maps::{Map, MapData, MapError},
    programs::links::{FdLink, PinnedLink},
};
use nix::fcntl::{Flock, FlockArg};

use super::preflight::LoadError;

/// `BPF_FS_MAGIC`, from `include/uapi/linux/magic.h`.
const BPF_FS_MAGIC: libc::__fsword_t = 0xcafe_4a11;
/// What the name of a set begins with until it is whole.
const DRAFT: &str = "draft-";
/// The maps of a set, which is whole only with all of them.
pub(super) const MAPS: [&str; 17] = [
    "RING_ACCESS",
    "RING_NET",
    "RING_DNS",
    "RING_PROC",
    "RING_BULK",
    "TRACKED",
    "EXE_WATCH",
    "WATCHED_INODES",
    "WATCHED_DIRS",
    "WATCH_FILTER",
    "SEEN",
    "PEERS",
    "CONN",
    "LISTENERS",
    "RESOLVING",
    "LOSS",
    "SELF",
];

/// Where the maps come from.
pub(super) enum Source {
    /// An object that was just loaded.
    Loaded(Ebpf),
    /// A pinned set.
    Pinned(PathBuf),
}

impl Source {
    /// A map by its name.
    pub(super) fn take(&mut self, name: &str) -> Result<Map, MapError> {
        match self {
            Self::Loaded(bpf) => bpf.take_map(name).ok_or_else(|| MapError::InvalidName {
                name: format!("{name} (it is missing from the object)"),
            }),
            Self::Pinned(set) => Map::from_map_data(MapData::from_pin(map_path(set, name))?),
        }
    }
}

fn map_path(set: &Path, name: &str) -> PathBuf {
    set.join("maps").join(name)
}

fn failed(what: &str, path: &Path) -> impl FnOnce(io::Error) -> LoadError {
    let what = format!("cannot {what} {}", path.display());
    move |source| LoadError::Io { what, source }
}

/// The folder of one part of the machine, held by one agent.
#[derive(Debug)]
pub(super) struct Pins {
    dir: PathBuf,
    _lock: Option<Flock<File>>,
}

impl Pins {
    /// Opens the folder below `root`, made when need be, for the part of the machine that is called
    /// `scope`.
    ///
    /// # Errors
    /// When `root` is not in a BPF file system, or another agent holds the folder.
    pub(super) fn open(root: &Path, scope: &str) -> Result<Self, LoadError> {
        let dir = root.join(scope);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(failed("make", &dir))?;
        if !is_bpffs(&dir) {
            // Only what was just made, and only when there is nothing in it.
            drop(fs::remove_dir(&dir));
            return Err(LoadError::NoBpffs {
                path: root.display().to_string(),
            });
        }
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))
            .map_err(failed("protect", &dir))?;
        let lock = File::open(&dir).map_err(failed("open", &dir))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, _)| {
            LoadError::PinsInUse {
                path: dir.display().to_string(),
            }
        })?;
        let pins = Self {
            dir,
            _lock: Some(lock),
        };
        for set in pins.sets()? {
            let name = set.file_name().map(|name| name.to_string_lossy());
            if name.is_some_and(|name| name.starts_with(DRAFT)) {
                remove_set(&set)?;
            }
        }
        Ok(pins)
    }

    /// The set with this name, if there is a whole one.
    pub(super) fn find(&self, name: &str) -> Option<PathBuf> {
        let set = self.dir.join(name);
        MAPS.iter()
            .all(|map| map_path(&set, map).exists())
            .then_some(set)
    }

    /// Every other set.
    pub(super) fn others(&self, name: &str) -> Result<Vec<PathBuf>, LoadError> {
        let mut sets = self.sets()?;
        sets.retain(|set| set.file_name().is_none_or(|known| known != name));
        Ok(sets)
    }

    fn sets(&self) -> Result<Vec<PathBuf>, LoadError> {
        let entries = fs::read_dir(&self.dir).map_err(failed("read", &self.dir))?;
        let mut sets: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
        sets.sort();
        Ok(sets)
    }

    /// Begins a set; it counts once [`Draft::finish`] gave it its name.
    pub(super) fn draft(&self, name: &str) -> Result<Draft, LoadError> {
        let set = self.dir.join(format!("{DRAFT}{name}"));
        remove_set(&set)?;
        for dir in [set.join("maps"), set.join("links")] {
            fs::create_dir_all(&dir).map_err(failed("make", &dir))?;
        }
        Ok(Draft {
            set,
            name: self.dir.join(name),
        })
    }

    /// Removes everything, the folder included.
    pub(super) fn clear(self) -> Result<(), LoadError> {
        for set in self.sets()? {
            remove_set(&set)?;
        }
        fs::remove_dir(&self.dir).map_err(failed("remove", &self.dir))
    }
}

/// A set that is being pinned.
pub(super) struct Draft {
    set: PathBuf,
    name: PathBuf,
}

impl Draft {
    /// Where it is until it has its name.
    pub(super) fn set(&self) -> &Path {
        &self.set
    }

    pub(super) fn maps(&self, bpf: &Ebpf) -> Result<(), LoadError> {
        for name in MAPS {
            let map = bpf.map(name).and_then(data_of);
            let map = map.ok_or_else(|| {
                LoadError::Object(format!("the map {name} is missing from the object"))
            })?;
            let path = map_path(&self.set, name);
            map.pin(&path)
                .map_err(|e| LoadError::Object(format!("cannot pin {}: {e}", path.display())))?;
        }
        Ok(())
    }

    pub(super) fn link(&self, program: &str, link: FdLink) -> Result<PinnedLink, LoadError> {
        let path = self.set.join("links").join(program);
        link.pin(&path)
            .map_err(|e| LoadError::Object(format!("cannot pin {}: {e}", path.display())))
    }

    /// The set is whole: gives it its name.
    pub(super) fn finish(self) -> Result<PathBuf, LoadError> {
        remove_set(&self.name)?;
        fs::rename(&self.set, &self.name).map_err(failed("rename", &self.set))?;
        Ok(self.name.clone())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After `finish` there is nothing under this name any more.
        drop(remove_set(&self.set));
    }
}

/// The map itself, of the kinds that we have.
fn data_of(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}

/// The links of a set, by program.
pub(super) fn links(set: &Path) -> Vec<(String, PinnedLink)> {
    let entries = fs::read_dir(set.join("links")).into_iter().flatten();
    let mut links: Vec<(String, PinnedLink)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let link = PinnedLink::from_pin(entry.path()).ok()?;
            Some((entry.file_name().to_string_lossy().into_owned(), link))
        })
        .collect();
    links.sort_by(|a, b| a.0.cmp(&b.0));
    links
}

/// What of a set is gone from the file system.
pub(super) fn missing(set: &Path, programs: &[String]) -> Vec<String> {
    let maps = MAPS.iter().map(|name| map_path(set, name));
    let links = programs.iter().map(|name| set.join("links").join(name));
    maps.chain(links)
        .filter(|path| !path.exists())
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect()
}

/// Removes a set: what nobody has open is then detached and freed by the kernel.
pub(super) fn remove_set(set: &Path) -> Result<(), LoadError> {
    match fs::remove_dir_all(set) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("remove", set)(error)),
    }
}

/// Removes whatever was pinned below `root`, for every part of the machine. Returns how many sets
/// that was.
///
/// # Errors
/// When an agent is running, or something cannot be removed.
pub fn unpin(root: &Path) -> Result<usize, LoadError> {
    let Ok(scopes) = fs::read_dir(root) else {
        return Ok(0);
    };
    let mut removed = 0;
    for scope in scopes.filter_map(Result::ok) {
        let name = scope.file_name().to_string_lossy().into_owned();
        if name != "all" && !name.starts_with("cgroup-") {
            // Somebody else's, in a folder that is not ours alone.
            continue;
        }
        let pins = Pins::open(root, &name)?;
        removed += pins.sets()?.len();
        pins.clear()?;
    }
    // The folder itself may be somebody else's too.
    drop(fs::remove_dir(root));
    Ok(removed)
}

fn is_bpffs(dir: &Path) -> bool {
    let kind = nix::sys::statfs::statfs(dir).map(|stat| stat.filesystem_type());
    kind == Ok(nix::sys::statfs::FsType(BPF_FS_MAGIC))
}
