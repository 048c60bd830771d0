//! Where in which file.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// First bytes of a file that tell it from another with its inode.
const HEAD: u64 = 256;
/// First bytes that must be known to tell a copy.
const LEAST_HEAD: u64 = 64;
/// Rotated files looked at.
const BESIDE: usize = 500;

/// One file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(file: &File) -> std::io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

/// Everything before it is committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// Which file.
    pub(super) file: FileId,
    /// How many bytes of it.
    pub(super) offset: u64,
    /// Length of the head that is hashed: at most `offset`.
    head: u64,
    /// SHA-256 of the head.
    hash: String,
}

impl Position {
    /// The start of a file.
    pub(super) fn start(file: FileId) -> Self {
        Self {
            file,
            offset: 0,
            head: 0,
            hash: String::new(),
        }
    }

    /// From its text in the store; `None` when another version wrote it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Whether `file` is the one meant, with what had been read still at its beginning.
    pub(super) fn fits(&self, file: &File) -> std::io::Result<bool> {
        let metadata = file.metadata()?;
        Ok(FileId::of(file)? == self.file
            && metadata.len() >= self.offset
            && (self.head == 0 || hash_head(file, self.head)?.as_deref() == Some(&self.hash)))
    }

    /// Moves on to `offset` in `file`.
    pub(super) fn advance(&mut self, file: &File, offset: u64) -> std::io::Result<()> {
        self.offset = offset;
        let head = offset.min(HEAD);
        if head > self.head
            && let Some(hash) = hash_head(file, head)?
        {
            self.head = head;
            self.hash = hash;
        }
        Ok(())
    }

    /// The file meant, where a rotation has put it: under another name in the same folder, or as a
    /// copy there (copy and truncate), with the position in it.
    pub(super) fn find_beside(&self, path: &Path) -> Option<(File, Self)> {
        let mut copy = None;
        for (_, file) in rotated(path) {
            if self.fits(&file).unwrap_or(false) {
                return Some((file, self.clone()));
            }
            let Ok(id) = FileId::of(&file) else { continue };
            let there = Self {
                file: id,
                ..self.clone()
            };
            // A short head tells too little.
            if self.head >= LEAST_HEAD && there.fits(&file).unwrap_or(false) {
                copy = Some((file, there));
            }
        }
        copy
    }
}

/// The file that was written after `finished` and rotated away, too, when there is one: the oldest
/// that is not older. Times of change are coarse, so files among `done` are left out by identity.
pub(super) fn rotated_after(path: &Path, finished: &File, done: &[FileId]) -> Option<File> {
    let changed = finished.metadata().ok()?.modified().ok()?;
    rotated(path)
        .into_iter()
        .filter(|(modified, file)| {
            *modified >= changed && FileId::of(file).is_ok_and(|id| !done.contains(&id))
        })
        .min_by_key(|(modified, _)| *modified)
        .map(|(_, file)| file)
}

/// Rotated files of `path`, by their names (`audit.log.1`, `audit.log-20261124`), with the time of
/// their last change. Compressed ones cannot be read on from a position.
fn rotated(path: &Path) -> Vec<(SystemTime, File)> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Vec::new();
    };
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let is_rotated = |other: &std::ffi::OsStr| {
        other
            .as_encoded_bytes()
            .strip_prefix(name.as_encoded_bytes())
            .is_some_and(|rest| {
                rest.len() > 1
                    && rest
                        .iter()
                        .all(|b| b.is_ascii_digit() || b".-_T:".contains(b))
            })
    };
    entries
        .flatten()
        .filter(|entry| is_rotated(&entry.file_name()))
        .take(BESIDE)
        .filter_map(|entry| {
            let metadata = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
            Some((metadata.modified().ok()?, File::open(entry.path()).ok()?))
        })
        .collect()
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A struct of numbers and a string always has a JSON form.
        f.write_str(&serde_json::to_string(self).unwrap_or_default())
    }
}

/// The hash of a file's first bytes; `None` when it has fewer.
fn hash_head(file: &File, length: u64) -> std::io::Result<Option<String>> {
    let mut head = vec![0_u8; usize::try_from(length.min(HEAD)).unwrap_or_default()];
    match file.read_exact_at(&mut head, 0) {
        Ok(()) => Ok(Some(crate::hex::encode(&Sha256::digest(&head)))),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}
