//! Reading small files that others control: bounded, never blocking, inside the right root.
//!
//! A package manifest or an agent's configuration belongs to the user, who may have put a FIFO, a
//! device, a 4 GiB file or a link out of a container in its place. Everything here opens without
//! blocking, accepts regular files only and reads no more than it was told to.

mod trace;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

pub use trace::Trace;

/// A file's identity as the kernel prints it: `s_dev` (not glibc's `st_dev` encoding) and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// `super_block.s_dev`: major in bits 20.., minor in bits 0..20 (`include/linux/kdev_t.h`).
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

impl FileId {
    /// From what `stat(2)` says.
    #[must_use]
    pub fn from_metadata(meta: &std::fs::Metadata) -> Self {
        Self {
            dev: kernel_dev(meta.dev()),
            ino: meta.ino(),
        }
    }
}

/// Turns glibc's `st_dev` (`gnu_dev_makedev`: minor split around a 12-bit major) into the kernel's
/// own `dev_t`, which is what a BPF program reads from `s_dev`.
#[must_use]
pub fn kernel_dev(st_dev: u64) -> u64 {
    let major = ((st_dev >> 8) & 0xfff) | ((st_dev >> 32) & 0xffff_f000);
    let minor = (st_dev & 0xff) | ((st_dev >> 12) & 0xffff_ff00);
    (major << 20) | (minor & 0xf_ffff)
}

/// The file tree as one process sees it.
#[derive(Clone, Debug, Default)]
pub struct FsView {
    root: Option<Arc<OwnedFd>>,
    trace: Option<Trace>,
}

impl FsView {
    /// The sensor's own view.
    #[must_use]
    pub fn host() -> Self {
        Self::default()
    }

    /// The view of a process in another mount namespace or root: `root` is an open `/proc/PID/root`.
    /// Links inside it stay inside it.
    #[must_use]
    pub fn rooted(root: OwnedFd) -> Self {
        Self {
            root: Some(Arc::new(root)),
            trace: None,
        }
    }

    /// The same view, which notes in `trace` what its answers rest on.
    #[must_use]
    pub fn traced(&self, trace: &Trace) -> Self {
        Self {
            root: self.root.clone(),
            trace: Some(trace.clone()),
        }
    }

    fn untraced(&self) -> Self {
        Self {
            root: self.root.clone(),
            trace: None,
        }
    }

    /// Tells views of different roots apart.
    fn root_id(&self) -> usize {
        self.root
            .as_ref()
            .map_or(0, |root| Arc::as_ptr(root).addr())
    }

    /// Opens without reading or following what a trace already knows to be missing.
    fn open_path(&self, path: &Path) -> io::Result<(File, std::fs::Metadata)> {
        let open = || {
            let file = self.open(path, OFlag::O_PATH)?;
            let meta = file.metadata()?;
            Ok((file, meta))
        };
        let Some(trace) = &self.trace else {
            return open();
        };
        let id = self.root_id();
        if trace.knows_absent(id, path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let opened = open();
        match &opened {
            Ok((_, meta)) => trace.found(id, &self.untraced(), path, meta),
            Err(_) => trace.missed(id, &self.untraced(), path),
        }
        opened
    }

    /// True for the sensor's own view: only there are paths comparable between processes.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.root.is_none()
    }

    fn open(&self, path: &Path, flags: OFlag) -> io::Result<File> {
        let mut flags = flags | OFlag::O_CLOEXEC;
        // openat2 refuses what has no meaning beside O_PATH.
        if !flags.contains(OFlag::O_PATH) {
            flags |= OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        }
        match &self.root {
            None => std::fs::OpenOptions::new()
                .read(true)
                .custom_flags(flags.bits())
                .open(path),
            Some(root) => {
                let how = OpenHow::new()
                    .flags(flags)
                    .resolve(ResolveFlag::RESOLVE_IN_ROOT);
                Ok(File::from(openat2(root.as_ref(), path, how)?))
            }
        }
    }

    /// Opens for reading with exactly these extra flags (`O_RDONLY` is implied).
    pub(crate) fn open_raw(&self, path: &Path, flags: OFlag) -> io::Result<File> {
        self.open(path, OFlag::O_RDONLY | flags)
    }

    /// Reads a regular file of at most `cap` bytes.
    ///
    /// # Errors
    /// Whatever opening or reading gives; [`io::ErrorKind::InvalidInput`] when it is no regular
    /// file, [`io::ErrorKind::FileTooLarge`] when it is larger than `cap`.
    pub fn read(&self, path: &Path, cap: u64) -> io::Result<Vec<u8>> {
        let mut file = self.open(path, OFlag::O_RDONLY)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if meta.len() > cap {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
        file.by_ref().take(cap).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Metadata of what the path leads to.
    ///
    /// # Errors
    /// Whatever opening (`O_PATH`) gives.
    pub fn metadata(&self, path: &Path) -> io::Result<std::fs::Metadata> {
        Ok(self.open_path(path)?.1)
    }

    /// The same as [`Self::metadata`] by one system call where that is possible.
    fn look(&self, path: &Path) -> io::Result<std::fs::Metadata> {
        if self.is_host() {
            std::fs::metadata(path)
        } else {
            self.metadata(path)
        }
    }

    /// True when the path leads to a regular file.
    #[must_use]
    pub fn is_file(&self, path: &Path) -> bool {
        self.metadata(path).is_ok_and(|m| m.is_file())
    }

    /// The path with every link resolved, as seen inside this view.
    ///
    /// # Errors
    /// Whatever opening or reading the link gives.
    pub fn realpath(&self, path: &Path) -> io::Result<PathBuf> {
        // realpath(3) asks for every component of the path; this is called for thousands of paths
        // that mostly do not exist, every few seconds.
        let (file, _) = self.open_path(path)?;
        std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
    }

    /// Names in a directory, at most `max` of them, sorted; empty when it cannot be read.
    #[must_use]
    pub fn list(&self, dir: &Path, max: usize) -> Vec<OsString> {
        if self.trace.is_some() && self.open_path(dir).is_err() {
            return Vec::new();
        }
        let mut names: Vec<OsString> = if self.is_host() {
            std::fs::read_dir(dir)
                .map(|entries| entries.take(max).flatten().map(|e| e.file_name()).collect())
                .unwrap_or_default()
        } else {
            self.list_rooted(dir, max).unwrap_or_default()
        };
        names.sort();
        names
    }

    fn list_rooted(&self, dir: &Path, max: usize) -> io::Result<Vec<OsString>> {
        let file = self.open(dir, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        // `/proc/self/fd/N` leads to the very directory that was opened.
        let opened = std::fs::read_dir(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        let names = opened
            .take(max)
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_those_of_the_kernel() {
        for (major, minor) in [(0u32, 24u32), (8, 1), (254, 0), (259, 300), (4000, 70_000)] {
            let st_dev = nix::sys::stat::makedev(u64::from(major), u64::from(minor));
            assert_eq!(
                kernel_dev(st_dev),
                (u64::from(major) << 20) | u64::from(minor)
            );
        }
    }

    #[test]
    fn another_root_shows_the_same_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "text").unwrap();
        let root = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_PATH.bits())
            .open(dir.path())
            .unwrap();
        let view = FsView::rooted(root.into());
        assert!(!view.is_host());
        assert_eq!(view.metadata(Path::new("/file")).unwrap().len(), 4);
        assert!(
            view.is_file(Path::new("/../file")),
            "links and .. stay inside"
        );
        assert_eq!(view.read(Path::new("/file"), 10).unwrap(), b"text");
        assert!(view.realpath(Path::new("/file")).unwrap().ends_with("file"));
        assert_eq!(view.list(Path::new("/"), 10), ["file"]);
    }

    #[test]
    fn a_fifo_a_directory_and_a_large_file_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let large = dir.path().join("large");
        std::fs::write(&large, [0; 100]).unwrap();
        let host = FsView::host();
        assert!(host.read(&fifo, 10).is_err());
        assert!(host.read(dir.path(), 10).is_err());
        assert_eq!(
            host.read(&large, 99).unwrap_err().kind(),
            io::ErrorKind::FileTooLarge
        );
        assert_eq!(host.read(&large, 100).unwrap().len(), 100);
    }

    #[test]
    fn links_in_a_rooted_view_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/inside"), "in").unwrap();
        std::os::unix::fs::symlink("/etc/inside", dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("out")).unwrap();
        let root = File::open(dir.path()).unwrap();
        let view = FsView::rooted(root.into());
        assert_eq!(view.read(Path::new("/link"), 10).unwrap(), b"in");
        assert!(view.read(Path::new("/out"), 1 << 20).is_err());
        assert_eq!(view.list(Path::new("/etc"), 10), ["inside"]);
    }
}
