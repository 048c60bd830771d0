//! Reading a watched file so that what is read is what was accessed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::fcntl::OFlag;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::files::{FileId, FsView};

/// Most of a file that is looked at.
pub const MAX_FILE: u64 = 1 << 20;

/// Why a watched file could not be read. No variant means that the access did not happen: it only
/// means that the credential's identity is not known.
#[derive(Debug, Error)]
pub enum ReadError {
    /// Opening or reading failed.
    #[error("{path}: {source}; the credential in it stays unidentified")]
    Io {
        /// Which file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The path now leads to another file than the one accessed.
    #[error("{path}: another file is there now (it was replaced after the access)")]
    Replaced {
        /// Which path.
        path: String,
    },
    /// A directory, device, FIFO or socket.
    #[error("{path}: not a regular file")]
    NotRegular {
        /// Which path.
        path: String,
    },
}

/// What was read. Overwritten when dropped.
pub struct WatchedContent {
    bytes: Zeroizing<Vec<u8>>,
    /// Modification time in nanoseconds since 1970, the same before and after reading.
    pub modified_ns: i128,
    /// The file is longer than [`MAX_FILE`]: only its beginning was read.
    pub truncated: bool,
    /// False when the file changed while it was read.
    pub stable: bool,
}

impl std::fmt::Debug for WatchedContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WatchedContent({} bytes)", self.bytes.len())
    }
}

impl WatchedContent {
    /// The content.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// True when the file is as it was at `access_ns` (nanoseconds since 1970): it did not change
    /// while it was read, and not since the access. File times have a tick's granularity (4 ms at
    /// HZ=250), so a change in the same tick counts as a change.
    #[must_use]
    pub fn version_known(&self, access_ns: i128) -> bool {
        const TICK_NS: i128 = 10_000_000;
        self.stable && self.modified_ns.saturating_add(TICK_NS) <= access_ns
    }
}

/// A watched file, open: the one with the identity that was accessed.
#[derive(Debug)]
pub struct OpenWatched {
    /// The file itself.
    pub file: File,
    before: std::fs::Metadata,
    path: String,
}

impl OpenWatched {
    /// Reads it into this process.
    ///
    /// # Errors
    /// [`ReadError::Io`].
    pub fn read(mut self) -> Result<WatchedContent, ReadError> {
        let fail = |path: &str, source| ReadError::Io {
            path: path.to_owned(),
            source,
        };
        // Whoever read before through the same descriptor has moved its offset.
        self.file
            .rewind()
            .map_err(|source| fail(&self.path, source))?;
        let most = self.before.len().min(MAX_FILE);
        let bytes = read_bounded(&self.file, most).map_err(|source| fail(&self.path, source))?;
        self.content(bytes)
    }

    /// What can be said of the version when something else has read it.
    ///
    /// # Errors
    /// [`ReadError::Io`].
    pub fn unread(self) -> Result<WatchedContent, ReadError> {
        self.content(Zeroizing::default())
    }

    fn content(self, bytes: Zeroizing<Vec<u8>>) -> Result<WatchedContent, ReadError> {
        let before = self.before;
        let after = self.file.metadata().map_err(|source| ReadError::Io {
            path: self.path,
            source,
        })?;
        Ok(WatchedContent {
            bytes,
            modified_ns: modified_ns(&after),
            truncated: before.len() > MAX_FILE,
            stable: modified_ns(&before) == modified_ns(&after)
                && before.len() == after.len()
                && (before.ctime(), before.ctime_nsec()) == (after.ctime(), after.ctime_nsec()),
        })
    }
}

/// Reads at most `most` bytes from where the file stands.
///
/// # Errors
/// Whatever reading gives.
pub(super) fn read_bounded(file: &File, most: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let len = file.metadata().map_or(0, |meta| meta.len()).min(most);
    let size = usize::try_from(len).unwrap_or(0);
    // One allocation, so that no copy of the content is left behind by growing.
    let mut bytes = Zeroizing::new(Vec::with_capacity(size.saturating_add(1)));
    file.take(len).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens the watched file, if it is still the one with `expected` identity.
///
/// Opened without following a final link, without blocking (a FIFO cannot hold the agent up) and,
/// where allowed, without touching its access time.
///
/// # Errors
/// See [`ReadError`].
pub fn open_watched(
    view: &FsView,
    path: &Path,
    expected: FileId,
) -> Result<OpenWatched, ReadError> {
    let shown = || path.to_string_lossy().into_owned();
    let fail = |source| ReadError::Io {
        path: shown(),
        source,
    };
    let file = open(view, path).map_err(fail)?;
    let before = file.metadata().map_err(fail)?;
    if !before.is_file() {
        return Err(ReadError::NotRegular { path: shown() });
    }
    if FileId::from_metadata(&before) != expected {
        return Err(ReadError::Replaced { path: shown() });
    }
    Ok(OpenWatched {
        file,
        before,
        path: shown(),
    })
}

/// Opens and reads: see [`open_watched`].
///
/// # Errors
/// See [`ReadError`].
pub fn read_watched(
    view: &FsView,
    path: &Path,
    expected: FileId,
) -> Result<WatchedContent, ReadError> {
    open_watched(view, path, expected)?.read()
}

/// Makes sure that the path leads to the file with `expected` identity, for files that are known
/// by their name alone. True when it has not changed since `access_ns`.
///
/// # Errors
/// See [`ReadError`].
pub fn check_watched(
    view: &FsView,
    path: &Path,
    expected: FileId,
    access_ns: i128,
) -> Result<bool, ReadError> {
    let shown = || path.to_string_lossy().into_owned();
    let meta = view.metadata(path).map_err(|source| ReadError::Io {
        path: shown(),
        source,
    })?;
    if !meta.is_file() {
        return Err(ReadError::NotRegular { path: shown() });
    }
    if FileId::from_metadata(&meta) != expected {
        return Err(ReadError::Replaced { path: shown() });
    }
    Ok(modified_ns(&meta) <= access_ns)
}

fn modified_ns(meta: &std::fs::Metadata) -> i128 {
    i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec())
}

fn open(view: &FsView, path: &Path) -> io::Result<File> {
    let base = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    if !view.is_host() {
        return view.open_raw(path, base);
    }
    let with = |flags: OFlag| {
        OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits())
            .open(path)
    };
    match with(base | OFlag::O_NOATIME) {
        // O_NOATIME is only for the owner and CAP_FOWNER.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => with(base),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    fn id(path: &Path) -> FileId {
        FileId::from_metadata(&std::fs::symlink_metadata(path).unwrap())
    }

    fn now_ns() -> i128 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        i128::try_from(now.as_nanos()).unwrap()
    }

    #[test]
    fn only_the_file_that_was_accessed_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        std::fs::write(&path, "first").unwrap();
        let first = id(&path);
        let host = FsView::host();
        let read = read_watched(&host, &path, first).unwrap();
        assert_eq!(read.bytes(), b"first");
        assert!(read.version_known(now_ns() + 1_000_000_000));
        assert!(
            !read.version_known(read.modified_ns - 1),
            "changed after the access"
        );
        assert_eq!(format!("{read:?}"), "WatchedContent(5 bytes)");

        let other = dir.path().join("new");
        std::fs::write(&other, "second").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(matches!(
            read_watched(&host, &path, first),
            Err(ReadError::Replaced { .. })
        ));
    }

    #[test]
    fn links_fifos_and_directories_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let host = FsView::host();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let found = read_watched(&host, &fifo, id(&fifo));
        assert!(matches!(found, Err(ReadError::NotRegular { .. })));
        assert!(read_watched(&host, dir.path(), id(dir.path())).is_err());
        let target = dir.path().join("target");
        std::fs::write(&target, "x").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(matches!(
            read_watched(&host, &link, id(&target)),
            Err(ReadError::Io { .. })
        ));
    }

    #[test]
    fn a_large_file_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large");
        std::fs::write(&path, vec![b'x'; 2 << 20]).unwrap();
        let read = read_watched(&FsView::host(), &path, id(&path)).unwrap();
        assert!(read.truncated);
        assert_eq!(read.bytes().len() as u64, MAX_FILE);
    }
}
