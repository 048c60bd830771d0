//! Where in which file.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// First bytes of a file that tell it from another with its inode.
const HEAD: u64 = 256;
/// Files looked at beside a rotated one.
const BESIDE: usize = 1000;

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

    /// The file meant, under another name in the same folder.
    pub(super) fn find_beside(&self, path: &Path) -> Option<File> {
        let entries = std::fs::read_dir(path.parent()?).ok()?;
        entries
            .flatten()
            .take(BESIDE)
            .filter(|entry| {
                entry
                    .metadata()
                    .is_ok_and(|m| m.is_file() && m.ino() == self.file.inode)
            })
            .filter_map(|entry| File::open(entry.path()).ok())
            .find(|file| self.fits(file).unwrap_or(false))
    }
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
