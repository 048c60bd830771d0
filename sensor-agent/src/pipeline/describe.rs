//! What `/proc` adds to the kernel's records, and names of what has none.

use std::net::SocketAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use keytrail_model::ids::{ConnectionId, ProcessKey};

use crate::files::FileId;
use crate::tree::proc::ProcEntry;
use crate::tree::{ExecInfo, FdKind};

/// A datagram socket talks to many: each peer is a connection of its own. The top bit keeps these
/// apart from socket cookies, which count up from 1.
pub(super) fn datagram_id(cookie: u64, remote: SocketAddr) -> ConnectionId {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    (cookie, remote).hash(&mut hasher);
    ConnectionId(hasher.finish() | 1 << 63)
}

/// What `/proc` says about a process; defaults where it is gone. `texts`: arguments and
/// environment too.
pub(crate) fn describe(
    entry: Option<&ProcEntry>,
    key: ProcessKey,
    started: Timestamp,
    texts: bool,
) -> ExecInfo {
    let (exe, exe_id): (PathBuf, Option<FileId>) =
        entry.and_then(ProcEntry::exe).unwrap_or_default();
    ExecInfo {
        key,
        parent: None,
        sid: entry.map(ProcEntry::sid),
        pgid: entry.map(ProcEntry::pgid),
        exe,
        exe_id,
        argv: entry.map(ProcEntry::argv).unwrap_or_default(),
        env: entry
            .filter(|_| texts)
            .map(ProcEntry::env)
            .unwrap_or_default(),
        cwd: entry.and_then(ProcEntry::cwd),
        stdin: entry.map_or(FdKind::Unknown, |entry| entry.fd(0)),
        stdout: entry.map_or(FdKind::Unknown, |entry| entry.fd(1)),
        uid: entry.and_then(ProcEntry::uid).unwrap_or(u32::MAX),
        login_uid: entry.and_then(ProcEntry::login_uid),
        cgroup: entry.and_then(ProcEntry::cgroup),
        view: entry.map(ProcEntry::view).unwrap_or_default(),
        started,
    }
}
