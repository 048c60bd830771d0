//! Telling the kernel side what to watch. Cheap to clone; all clones speak to the same maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::Metadata,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aya::maps::{Array, HashMap, MapData, MapError};
use keytrail_abi::maps::{FILTER_WORDS, FileKey, Tracked, filter_bit};
use zerocopy::{FromBytes, IntoBytes};

use super::{
    event::{FileId, ProcKey},
    pins::Source,
};

type Key = [u8; size_of::<FileKey>()];
type RawTracked = [u8; size_of::<Tracked>()];

/// Why a change could not be made.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The map has no room left.
    #[error("{map} is full: {source}")]
    Map {
        /// Which.
        map: &'static str,
        /// What the kernel said.
        source: MapError,
    },
    /// A file could not be looked at.
    #[error("cannot look at {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What executing a program makes of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExeClass {
    /// An agent.
    Agent,
    /// An interpreter that may run one (node, python): tracked provisionally.
    Interpreter,
    /// A program that uses credentials (an `aws` CLI): tracked provisionally.
    CredentialClient,
}

impl ExeClass {
    fn flags(self) -> u32 {
        match self {
            Self::Agent => keytrail_abi::maps::TRACK_AGENT,
            Self::Interpreter => keytrail_abi::maps::TRACK_INTERPRETER,
            Self::CredentialClient => keytrail_abi::maps::TRACK_CLIENT,
        }
    }
}

impl FileId {
    /// The key of a file from `stat`, whose device is encoded differently from the kernel's own.
    /// On file systems with several devices behind one mount (btrfs, overlayfs) the two can differ.
    #[must_use]
    pub fn of(meta: &Metadata) -> Self {
        let (major, minor) = (libc::major(meta.dev()), libc::minor(meta.dev()));
        Self {
            dev: (major << 20) | minor,
            ino: meta.ino(),
        }
    }

    /// The key of the file behind `path`, links followed.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn at(path: &Path) -> Result<Self, WatchError> {
        std::fs::metadata(path)
            .map(|meta| Self::of(&meta))
            .map_err(|source| WatchError::File {
                path: path.display().to_string(),
                source,
            })
    }

    fn key(self) -> FileKey {
        FileKey {
            ino: self.ino,
            dev: self.dev,
            pad: 0,
        }
    }

    fn raw(self) -> Key {
        zerocopy::transmute!(self.key())
    }
}

struct Maps {
    tracked: HashMap<MapData, u32, RawTracked>,
    exe: HashMap<MapData, Key, u32>,
    inodes: HashMap<MapData, Key, u32>,
    dirs: HashMap<MapData, Key, u32>,
    filter: Array<MapData, u64>,
    /// How many watched files and directories set each bit of the filter.
    bits: BTreeMap<u64, u32>,
    /// Watched by a predecessor, and not asked for by this agent yet: files, directories.
    inherited: [BTreeSet<Key>; 2],
}

/// The watch lists in the kernel.
#[derive(Clone)]
pub struct Watch(Arc<Mutex<Maps>>);

impl Watch {
    pub(super) fn take(source: &mut Source) -> Result<Self, MapError> {
        let mut maps = Maps {
            tracked: source.take("TRACKED")?.try_into()?,
            exe: source.take("EXE_WATCH")?.try_into()?,
            inodes: source.take("WATCHED_INODES")?.try_into()?,
            dirs: source.take("WATCHED_DIRS")?.try_into()?,
            filter: source.take("WATCH_FILTER")?.try_into()?,
            bits: BTreeMap::new(),
            inherited: Default::default(),
        };
        maps.inherit()?;
        Ok(Self(Arc::new(Mutex::new(maps))))
    }

    /// Stops watching what a predecessor watched and this agent has not asked for. To be called when
    /// it has asked for everything, and has handled what its predecessor left.
    pub fn drop_inherited(&self) {
        let mut maps = self.maps();
        let [inodes, dirs] = std::mem::take(&mut maps.inherited);
        for key in inodes {
            if maps.inodes.remove(&key).is_ok() {
                maps.clear_bit(key);
            }
        }
        for key in dirs {
            if maps.dirs.remove(&key).is_ok() {
                maps.clear_bit(key);
            }
        }
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        // A panic elsewhere leaves the maps as consistent as the kernel keeps them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, executing `file` starts tracking the process in the kernel, without a race.
    ///
    /// # Errors
    /// When the map is full.
    pub fn add_exe(&self, file: FileId, class: ExeClass) -> Result<(), WatchError> {
        self.maps()
            .exe
            .insert(file.raw(), class.flags(), 0)
            .map_err(|source| WatchError::Map {
                map: "EXE_WATCH",
                source,
            })
    }

    /// Forgets an executable. Processes that run it stay tracked.
    pub fn remove_exe(&self, file: FileId) {
        // Not there: nothing to do.
        drop(self.maps().exe.remove(&file.raw()));
    }

    /// Watches a file: whoever in scope touches it is reported, and tracked from then on.
    ///
    /// # Errors
    /// When the map is full.
    pub fn add_inode(&self, file: FileId) -> Result<(), WatchError> {
        let mut maps = self.maps();
        let [inherited, _] = &mut maps.inherited;
        inherited.remove(&file.raw());
        if maps.inodes.get(&file.raw(), 0).is_ok() {
            return Ok(());
        }
        maps.inodes
            .insert(file.raw(), 1, 0)
            .map_err(|source| WatchError::Map {
                map: "WATCHED_INODES",
                source,
            })?;
        maps.set_bit(file.raw())
    }

    /// Watches a directory: tracked processes that touch a file in it are reported, also when the
    /// file is new.
    ///
    /// # Errors
    /// When the map is full.
    pub fn add_dir(&self, dir: FileId) -> Result<(), WatchError> {
        let mut maps = self.maps();
        let [_, inherited] = &mut maps.inherited;
        inherited.remove(&dir.raw());
        if maps.dirs.get(&dir.raw(), 0).is_ok() {
            return Ok(());
        }
        maps.dirs
            .insert(dir.raw(), 1, 0)
            .map_err(|source| WatchError::Map {
                map: "WATCHED_DIRS",
                source,
            })?;
        maps.set_bit(dir.raw())
    }

    /// Stops watching a file.
    pub fn remove_inode(&self, file: FileId) {
        let mut maps = self.maps();
        if maps.inodes.remove(&file.raw()).is_ok() {
            maps.clear_bit(file.raw());
        }
    }

    /// Stops watching a directory.
    pub fn remove_dir(&self, dir: FileId) {
        let mut maps = self.maps();
        if maps.dirs.remove(&dir.raw()).is_ok() {
            maps.clear_bit(dir.raw());
        }
    }

    /// Tracks a running process and, from now on, its children. Its present children are the
    /// caller's to add.
    ///
    /// # Errors
    /// When the map is full.
    pub fn track(&self, process: ProcKey) -> Result<(), WatchError> {
        let value = Tracked {
            start_ns: process.start_ns,
            root_start_ns: process.start_ns,
            root_tgid: process.tgid,
            flags: keytrail_abi::maps::TRACK_USER,
        };
        let raw: RawTracked = zerocopy::transmute!(value);
        self.maps()
            .tracked
            .insert(process.tgid, raw, 0)
            .map_err(|source| WatchError::Map {
                map: "TRACKED",
                source,
            })
    }

    /// Stops tracking a process, if it still is the one meant. Its children stay tracked.
    pub fn untrack(&self, process: ProcKey) {
        let mut maps = self.maps();
        if maps
            .tracked(process.tgid)
            .is_some_and(|t| t.start_ns == process.start_ns)
        {
            drop(maps.tracked.remove(&process.tgid));
        }
    }

    /// Every tracked process with its `TRACK_*` flags.
    #[must_use]
    pub fn tracked(&self) -> Vec<(ProcKey, u32)> {
        let maps = self.maps();
        let tgids: Vec<u32> = maps.tracked.keys().filter_map(Result::ok).collect();
        tgids
            .into_iter()
            .filter_map(|tgid| {
                let t = maps.tracked(tgid)?;
                Some((
                    ProcKey {
                        tgid,
                        start_ns: t.start_ns,
                    },
                    t.flags,
                ))
            })
            .collect()
    }
}

impl Maps {
    fn tracked(&self, tgid: u32) -> Option<Tracked> {
        Tracked::read_from_bytes(self.tracked.get(&tgid, 0).ok()?.as_bytes()).ok()
    }

    /// Takes over what the maps of a predecessor hold; those of a fresh object are empty.
    fn inherit(&mut self) -> Result<(), MapError> {
        let (inodes, dirs) = (self.inodes.keys(), self.dirs.keys());
        let inherited = [
            inodes.filter_map(Result::ok).collect(),
            dirs.filter_map(Result::ok).collect(),
        ];
        for key in inherited.iter().flat_map(|keys: &BTreeSet<Key>| keys) {
            *self.bits.entry(bit_of(*key)).or_default() += 1;
        }
        self.inherited = inherited;
        let words: BTreeSet<u64> = self.bits.keys().map(|bit| bit / 64).collect();
        words.into_iter().try_for_each(|word| self.write_word(word))
    }

    fn set_bit(&mut self, key: Key) -> Result<(), WatchError> {
        let bit = bit_of(key);
        *self.bits.entry(bit).or_default() += 1;
        self.write_word(bit / 64).map_err(|source| WatchError::Map {
            map: "WATCH_FILTER",
            source,
        })
    }

    fn clear_bit(&mut self, key: Key) {
        let bit = bit_of(key);
        if let Some(count) = self.bits.get_mut(&bit) {
            *count -= 1;
            if *count == 0 {
                self.bits.remove(&bit);
                // A bit that stays set costs one look-up too many and nothing else.
                drop(self.write_word(bit / 64));
            }
        }
    }

    fn write_word(&mut self, index: u64) -> Result<(), MapError> {
        let word = self
            .bits
            .range(index * 64..index * 64 + 64)
            .fold(0, |w, (b, _)| w | 1 << (b % 64));
        let index = u32::try_from(index).unwrap_or(FILTER_WORDS);
        self.filter.set(index, word, 0)
    }
}

/// The bit of the filter for a key of the maps.
fn bit_of(key: Key) -> u64 {
    let key: FileKey = zerocopy::transmute!(key);
    filter_bit(&key)
}
