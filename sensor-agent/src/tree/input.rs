//! What the process tree takes in: one exec, as the kernel and `/proc` describe it.

use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use keytrail_model::ids::ProcessKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::files::{FileId, FsView};

/// An environment block: `NAME=value` strings, each ended by a NUL. Overwritten when dropped, and
/// never printed: it holds secrets.
#[derive(Clone, Default)]
pub struct SecretEnv(Zeroizing<Vec<u8>>);

impl SecretEnv {
    /// Takes the block as the kernel copied it (`mm->env_start .. env_end`, possibly cut).
    #[must_use]
    pub fn new(block: Vec<u8>) -> Self {
        Self(Zeroizing::new(block))
    }

    /// Name and value of each variable; strings without `=` are skipped.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.split(|b| *b == 0).filter_map(|pair| {
            let at = pair.iter().position(|b| *b == b'=')?;
            Some((pair.get(..at)?, pair.get(at + 1..)?))
        })
    }

    /// The value of one variable, when it is text. For variables that name places, not secrets.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        let (_, value) = self.iter().find(|(n, _)| *n == name.as_bytes())?;
        std::str::from_utf8(value).ok().map(str::to_owned)
    }

    /// True when nothing was captured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for SecretEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretEnv({} bytes)", self.0.len())
    }
}

/// Arguments as they were passed: may hold secrets, so they are overwritten when dropped and
/// never printed. What leaves the host goes through [`crate::redact`].
#[derive(Clone, Default)]
pub struct RawArgv(Zeroizing<Vec<String>>);

impl RawArgv {
    /// From separate arguments.
    #[must_use]
    pub fn new(args: Vec<String>) -> Self {
        Self(Zeroizing::new(args))
    }

    /// From the kernel's block: arguments, each ended by a NUL (`mm->arg_start .. arg_end`).
    #[must_use]
    pub fn from_block(block: &[u8]) -> Self {
        let block = block.strip_suffix(&[0]).unwrap_or(block);
        if block.is_empty() {
            return Self::default();
        }
        Self::new(
            block
                .split(|b| *b == 0)
                .map(|a| String::from_utf8_lossy(a).into_owned())
                .collect(),
        )
    }

    /// The arguments.
    #[must_use]
    pub fn args(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Debug for RawArgv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawArgv({} arguments)", self.0.len())
    }
}

/// What a standard descriptor is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum FdKind {
    /// Not read in time (the process was gone), or closed.
    #[default]
    Unknown,
    /// `/dev/null`.
    Null,
    /// A terminal.
    Terminal,
    /// A pipe, by inode.
    Pipe(u64),
    /// A socket, by inode.
    Socket(u64),
    /// Anything else.
    Other,
}

impl FdKind {
    /// From a `/proc/PID/fd` link's text.
    #[must_use]
    pub fn from_link(link: &str) -> Self {
        let inode = |kind: &str| link.strip_prefix(kind)?.strip_suffix(']')?.parse().ok();
        if link == "/dev/null" {
            Self::Null
        } else if link.starts_with("/dev/pts/") || link.starts_with("/dev/tty") {
            Self::Terminal
        } else if let Some(ino) = inode("pipe:[") {
            Self::Pipe(ino)
        } else if let Some(ino) = inode("socket:[") {
            Self::Socket(ino)
        } else {
            Self::Other
        }
    }

    /// A pipe or socket: what a parent that wants to talk to its child gives it.
    #[must_use]
    pub fn channel(self) -> Option<u64> {
        match self {
            Self::Pipe(ino) | Self::Socket(ino) => Some(ino),
            Self::Unknown | Self::Null | Self::Terminal | Self::Other => None,
        }
    }
}

/// One exec of one process.
#[derive(Clone, Debug)]
pub struct ExecInfo {
    /// Which process.
    pub key: ProcessKey,
    /// Its parent at fork time, when the record says it.
    pub parent: Option<ProcessKey>,
    /// Session id (pid of the session's leader), when known.
    pub sid: Option<u32>,
    /// Process group.
    pub pgid: Option<u32>,
    /// Executable, as the kernel resolved it (the interpreter for a `#!` script).
    pub exe: PathBuf,
    /// The executable's identity, when known.
    pub exe_id: Option<FileId>,
    /// Arguments.
    pub argv: RawArgv,
    /// Environment.
    pub env: SecretEnv,
    /// Working directory.
    pub cwd: Option<PathBuf>,
    /// Descriptor 0.
    pub stdin: FdKind,
    /// Descriptor 1.
    pub stdout: FdKind,
    /// Real uid.
    pub uid: u32,
    /// Audit login uid, when set.
    pub login_uid: Option<u32>,
    /// Its path in the unified control group hierarchy.
    pub cgroup: Option<String>,
    /// The file tree as this process sees it.
    pub view: FsView,
    /// When the process started (not: when it called exec).
    pub started: Timestamp,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn debug_shows_no_value() {
        let env = SecretEnv::new(b"TOKEN=s3cr3t\0A=b\0".to_vec());
        assert_eq!(format!("{env:?}"), "SecretEnv(17 bytes)");
        assert_eq!(env.text("A").as_deref(), Some("b"));
        let argv = RawArgv::from_block(b"x\0--password\0s3cr3t\0");
        assert_eq!(format!("{argv:?}"), "RawArgv(3 arguments)");
        assert_eq!(argv.args(), ["x", "--password", "s3cr3t"]);
    }

    #[test]
    fn empty_arguments_are_kept() {
        assert_eq!(RawArgv::from_block(b"a\0\0b\0").args(), ["a", "", "b"]);
        assert!(RawArgv::from_block(b"").args().is_empty());
    }

    #[test]
    fn descriptors_are_told_apart() {
        for (link, kind) in [
            ("/dev/null", FdKind::Null),
            ("/dev/pts/3", FdKind::Terminal),
            ("pipe:[812]", FdKind::Pipe(812)),
            ("socket:[9]", FdKind::Socket(9)),
            ("/tmp/x", FdKind::Other),
            ("pipe:[x]", FdKind::Other),
        ] {
            assert_eq!(FdKind::from_link(link), kind, "{link}");
        }
    }

    proptest! {
        #[test]
        fn any_block_is_taken_apart(block in proptest::collection::vec(any::<u8>(), 0..200)) {
            let env = SecretEnv::new(block.clone());
            prop_assert!(env.iter().all(|(name, _)| !name.contains(&b'=')));
            let argv = RawArgv::from_block(&block);
            prop_assert!(argv.args().len() <= block.len());
        }
    }
}
