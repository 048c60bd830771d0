//! Credential files are parsed in a process that can do nothing else.
//!
//! The files are written by whoever can write to a home directory, and the parsers are many. The
//! agent opens a file, makes sure that it is the one that was accessed, has the kernel copy it into
//! a file in memory (the agent itself never maps the content) and passes that one to a child of its
//! own that has no privileges, no network, no file system and little memory; back comes a list of
//! identifiers. A child that does not answer in time, dies or says what cannot be is replaced; the
//! file is then parsed in the agent itself, which is counted.
//!
//! # Protocol
//!
//! One `AF_UNIX` stream socket, the child's standard input. Each message is a length (4 bytes,
//! big-endian, at most [`MAX_MESSAGE`]) and that many bytes of JSON. The agent speaks first: one
//! `Setup`, then a `Request` at a time with the copy's descriptor beside its first byte
//! (`SCM_RIGHTS`). The child answers the setup with [`Layers`] and each request with an
//! [`Identified`].

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Seek as _, Write as _};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use caps::CapSet;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, chdir, chroot, geteuid, setgid, setgroups, setuid};
use rustix::fs::{MemfdFlags, memfd_create, sendfile};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use super::file::MAX_FILE;
use super::{Form, Hasher, Identified, MAX_FOUND, Recogniser, TokenCatalogue};

/// Name of the hidden command that is the child.
pub const COMMAND: &str = "parse-helper";
/// Longest message.
pub const MAX_MESSAGE: usize = 1 << 20;
/// How long the child may take for one file.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// How long it may take to start.
const START_PATIENCE: Duration = Duration::from_secs(3);
/// Starts that fail in a row before no more are tried.
const MAX_FAILED_STARTS: u64 = 5;

/// What the child needs to know.
#[derive(Serialize, Deserialize)]
struct Setup {
    /// Texts of the token catalogues, with their origins.
    tokens: Vec<(String, String)>,
    key: Zeroizing<Vec<u8>>,
    shared: bool,
}

#[derive(Serialize, Deserialize)]
struct Request {
    form: Form,
    path: PathBuf,
}

/// What holds the child: one field for each layer that is in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent layers, not states"
)]
pub struct Layers {
    /// It runs as nobody, without capabilities.
    pub unprivileged: bool,
    /// It is in a network namespace of its own, without interfaces.
    pub no_network: bool,
    /// Its root is an empty directory (which everybody may enter: nobody must).
    pub no_files: bool,
    /// It can gain no privileges by exec, and may not write files, fork or dump core.
    pub limited: bool,
}

impl Layers {
    /// What is missing, for people.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        [
            (self.unprivileged, "an account without privileges"),
            (self.no_network, "a network namespace of its own"),
            (self.no_files, "an empty root"),
            (self.limited, "resource limits"),
        ]
        .into_iter()
        .filter(|(there, _)| !there)
        .map(|(_, what)| what)
        .collect()
    }
}

/// Why the child did not do its work.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// It cannot be started or spoken with.
    #[error("the parsing process: {0}")]
    Io(#[from] io::Error),
    /// It did not answer in time.
    #[error("the parsing process did not answer in time")]
    Time,
    /// It said something that cannot be.
    #[error("the parsing process answered with what is no answer")]
    Answer,
    /// It has failed to start too often.
    #[error("the parsing process cannot be started; credential files are parsed in the agent")]
    GivenUp,
}

struct Running {
    child: Child,
    socket: UnixStream,
    layers: Layers,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has nothing to finish. The socket's end ends it if it still listens, the signal if not.
        let _already_closed = self.socket.shutdown(Shutdown::Both);
        let _already_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// What the sandbox did, since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SandboxCounters {
    /// Files that the child parsed.
    pub parsed: u64,
    /// Files that the agent had to parse itself.
    pub in_process: u64,
    /// Files that took too long: nobody parses them, what is in them stays unidentified.
    pub timed_out: u64,
    /// Children that had to be replaced.
    pub restarts: u64,
}

/// The child, started when it is first needed.
pub struct Sandbox {
    program: PathBuf,
    root: PathBuf,
    setup: Setup,
    running: Mutex<Option<Running>>,
    failed_starts: AtomicU64,
    parsed: AtomicU64,
    in_process: AtomicU64,
    timed_out: AtomicU64,
    restarts: AtomicU64,
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sandbox({:?})", self.counters())
    }
}

impl Sandbox {
    /// A sandbox whose child is `program` (the agent's own executable) and sees `root`, an empty
    /// directory. `tokens`: the texts of all token catalogues, the built-in one excepted.
    #[must_use]
    pub fn new(
        program: PathBuf,
        root: PathBuf,
        tokens: Vec<(String, String)>,
        hasher: &Hasher,
    ) -> Self {
        Self {
            program,
            root,
            setup: Setup {
                tokens,
                key: Zeroizing::new(hasher.key().to_vec()),
                shared: hasher.is_shared(),
            },
            running: Mutex::new(None),
            failed_starts: AtomicU64::new(0),
            parsed: AtomicU64::new(0),
            in_process: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
        }
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> SandboxCounters {
        SandboxCounters {
            parsed: self.parsed.load(Ordering::Relaxed),
            in_process: self.in_process.load(Ordering::Relaxed),
            timed_out: self.timed_out.load(Ordering::Relaxed),
            restarts: self.restarts.load(Ordering::Relaxed),
        }
    }

    /// Starts the child and says what holds it.
    ///
    /// # Errors
    /// [`SandboxError`] when it cannot be started.
    pub fn probe(&self) -> Result<Layers, SandboxError> {
        let mut running = self.lock();
        if running.is_none() {
            *running = Some(self.start()?);
        }
        running
            .as_ref()
            .map(|r| r.layers)
            .ok_or(SandboxError::Answer)
    }

    /// The child's process, when one runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.lock().as_ref().map(|running| running.child.id())
    }

    /// Has the child parse an open file. `None`: it could not; the caller parses, which is counted.
    /// A file that takes too long is parsed by nobody: it would hold the agent up just as long.
    #[must_use]
    pub fn identify(&self, form: &Form, path: &Path, file: &File) -> Option<Identified> {
        match self.ask(form, path, file) {
            Ok(found) => {
                self.parsed.fetch_add(1, Ordering::Relaxed);
                Some(found)
            }
            Err(SandboxError::Time) => {
                tracing::warn!(path = %path.display(), "a credential file takes too long to parse: what is in it stays unidentified");
                self.timed_out.fetch_add(1, Ordering::Relaxed);
                Some(Identified {
                    dropped: 1,
                    ..Identified::default()
                })
            }
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "a credential file is parsed in the agent itself");
                self.in_process.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    fn ask(&self, form: &Form, path: &Path, file: &File) -> Result<Identified, SandboxError> {
        let mut running = self.lock();
        if running.is_none() {
            *running = Some(self.start()?);
        }
        let Some(child) = running.as_mut() else {
            return Err(SandboxError::Answer);
        };
        let request = Request {
            form: form.clone(),
            path: path.to_owned(),
        };
        let copy = copy_of(file)?;
        let answered = send(&mut child.socket, &request, Some(copy.as_fd()))
            .and_then(|()| receive::<Identified>(&mut child.socket).map(|(answer, _)| answer))
            .map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => SandboxError::Time,
                _ => SandboxError::Io(error),
            })
            .and_then(|answer| {
                // What comes back is as trusted as what went in.
                let bounded = answer.found.len() <= MAX_FOUND
                    && answer.found.iter().all(|f| {
                        f.destinations.len() <= 16
                            && f.destinations.iter().all(|d| d.len() <= 253)
                            && f.entry.as_ref().is_none_or(|e| e.len() <= 1024)
                    });
                if bounded {
                    Ok(answer)
                } else {
                    Err(SandboxError::Answer)
                }
            });
        if answered.is_err() {
            // A late answer must not be taken for the next one's.
            *running = None;
            self.restarts.fetch_add(1, Ordering::Relaxed);
        }
        answered
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.running
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn start(&self) -> Result<Running, SandboxError> {
        if self.failed_starts.load(Ordering::Relaxed) >= MAX_FAILED_STARTS {
            return Err(SandboxError::GivenUp);
        }
        let started = self.spawn();
        match &started {
            Ok(_) => self.failed_starts.store(0, Ordering::Relaxed),
            Err(_) => {
                self.failed_starts.fetch_add(1, Ordering::Relaxed);
            }
        }
        started
    }

    fn spawn(&self) -> Result<Running, SandboxError> {
        let (mut socket, theirs) = UnixStream::pair()?;
        socket.set_read_timeout(Some(START_PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let child = Command::new(&self.program)
            .arg(COMMAND)
            .arg(&self.root)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut running = Running {
            child,
            socket: socket.try_clone()?,
            layers: Layers::default(),
        };
        send(&mut socket, &self.setup, None)?;
        running.layers = receive::<Layers>(&mut socket)?.0;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(running)
    }
}

/// The file's content in a file of its own in memory, made by the kernel: a snapshot that nobody
/// else can change, and whose reading touches no watched file.
fn copy_of(file: &File) -> io::Result<OwnedFd> {
    let copy = memfd_create("keytrail-parse", MemfdFlags::CLOEXEC)?;
    let mut at = 0;
    while at < MAX_FILE {
        let wanted = usize::try_from(MAX_FILE - at).unwrap_or(0);
        if sendfile(&copy, file, Some(&mut at), wanted)? == 0 {
            break;
        }
    }
    Ok(copy)
}

fn send(
    socket: &mut UnixStream,
    message: &impl Serialize,
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let body = Zeroizing::new(serde_json::to_vec(message)?);
    let len = u32::try_from(body.len()).map_err(|_too_long| io::ErrorKind::InvalidInput)?;
    if body.len() > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let head = len.to_be_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // Four bytes into a drained stream go whole or not at all.
    let sent = sendmsg(
        &*socket,
        &[IoSlice::new(&head)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    if sent != head.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    socket.write_all(&body)
}

fn receive<T: DeserializeOwned>(socket: &mut UnixStream) -> io::Result<(T, Option<OwnedFd>)> {
    let mut head = [0_u8; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(
        &*socket,
        &mut [IoSliceMut::new(&mut head)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut fd = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message {
            fd = fds.next();
        }
    }
    if got.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    socket.read_exact(head.get_mut(got.bytes..).unwrap_or_default())?;
    let len = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    if len > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = Zeroizing::new(vec![0; len]);
    socket.read_exact(&mut body)?;
    Ok((serde_json::from_slice(&body)?, fd))
}

/// The child: gives up what it can, then answers until the agent is gone.
///
/// # Errors
/// When the agent speaks otherwise than agreed; its end is no error.
pub fn child(root: &Path) -> io::Result<()> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    let mut socket = UnixStream::from(stdin);
    let (setup, _): (Setup, _) = receive(&mut socket)?;
    let mut tokens = TokenCatalogue::builtin().map_err(io::Error::other)?;
    for (origin, text) in &setup.tokens {
        tokens.add(origin, text).map_err(io::Error::other)?;
    }
    let know = Recogniser::new(tokens, Hasher::new(&setup.key, setup.shared));
    drop(setup);
    send(&mut socket, &confine(root), None)?;
    loop {
        let (request, fd) = match receive::<Request>(&mut socket) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut file = File::from(fd.ok_or(io::ErrorKind::InvalidData)?);
        // The copying left the offset at its end.
        file.rewind()?;
        let bytes = super::file::read_bounded(&file, MAX_FILE)?;
        let answer = know.identify_file(&request.form, &request.path, &bytes);
        send(&mut socket, &answer, None)?;
    }
}

/// Gives up privileges, network and files, as far as this process may.
///
/// The agent itself may no longer make namespaces or change its root by the time that it starts a
/// child (`privileges`), but it may change its account. So the child first becomes nobody; a user
/// namespace then gives it the right to the rest, inside which it is given up in turn.
fn confine(root: &Path) -> Layers {
    const NOBODY: u32 = 65_534;
    let inside = chdir(root);
    let unprivileged = !geteuid().is_root()
        || setgroups(&[])
            .and_then(|()| setgid(Gid::from_raw(NOBODY)))
            .and_then(|()| setuid(Uid::from_raw(NOBODY)))
            .is_ok();
    let own = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC;
    let no_network = unshare(own).is_ok();
    let no_files = inside
        .and_then(|()| chroot("."))
        .and_then(|()| chdir("/"))
        .is_ok();
    let unprivileged = unprivileged
        && [
            CapSet::Ambient,
            CapSet::Inheritable,
            CapSet::Effective,
            CapSet::Permitted,
        ]
        .into_iter()
        .all(|set| caps::clear(None, set).is_ok());
    let exactly = |limit: u64| Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    let limited = nix::sys::prctl::set_no_new_privs().is_ok()
        && nix::sys::prctl::set_dumpable(false).is_ok()
        && [
            (Resource::Core, 0),
            (Resource::Fsize, 0),
            (Resource::Nproc, 0),
            (Resource::Nofile, 16),
            (Resource::As, 512 << 20),
        ]
        .into_iter()
        .all(|(resource, limit)| setrlimit(resource, exactly(limit)).is_ok());
    Layers {
        unprivileged,
        no_network,
        no_files,
        limited,
    }
}
