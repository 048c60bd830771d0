//! From kernel events to facts.
//!
//! One [`Pipeline`] lives in one task and sees events in the kernel's order. It asks `identity`
//! who a process is, keeps the kernel's lists in step (`watchlist`), and takes processes that turn
//! out to be nobody back out of the kernel's tracking.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use keytrail_model::credential::CredentialId;
use keytrail_model::fact::{
    ConnectionClosed, ConnectionNamed, ConnectionOpened, Exposure, ExposureSource, Fact,
    NameSource, ProcessExited, ProcessStarted, TamperKind, Transport,
};
use keytrail_model::ids::{ConnectionId, ProcessKey};
use keytrail_model::process::UnitKind;

use crate::agents::drift::Drift;
use crate::clock::BootClock;
use crate::hello::Hellos;
use crate::identity::{Identity, Placed};
use crate::kernel::KernelEvent;
use crate::kernel::event::{ConnEvent, ExecEvent, FileEvent, Head, ProcKey};
use crate::kernel::watch::Watch;
use crate::names::Names;
use crate::sockets::Sockets;
use crate::tree::proc::ProcEntry;
use crate::tree::{ExecInfo, RawArgv, SecretEnv};
use crate::watchlist::{self, WatchList};

/// `AF_PACKET`.
const AF_PACKET: u32 = 17;
/// A unit that reads the same credential again within this time is not reported again.
const QUIET: SignedDuration = SignedDuration::from_mins(10);
/// Most (unit, credential) pairs remembered for that.
const MAX_RECENT: usize = 8_192;

/// What is not told twice in a row: unit, credential, from a file, by an unexpected reader.
type Seen = (ProcessKey, CredentialId, bool, bool);

/// A fact and when it happened.
pub type Timed = (Timestamp, Fact);

/// What the pipeline could not do, since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PipelineCounters {
    /// Facts made.
    pub facts: u64,
    /// Watched files that could not be read (gone, replaced, not a regular file).
    pub unreadable_files: u64,
    /// Texts like GitHub tokens with a wrong checksum.
    pub bad_checksums: u64,
    /// Connection attempts that failed: nothing was sent.
    pub failed_connections: u64,
    /// Events of processes that had been found to be nobody.
    pub of_nobody: u64,
    /// Connections whose server name could not be read.
    pub unreadable_hellos: u64,
    /// Messages to or from resolvers that could not be read.
    pub unreadable_names: u64,
}

/// See the module's documentation.
pub struct Pipeline {
    identity: Identity,
    watch: Watch,
    files: WatchList,
    hellos: Hellos,
    clock: BootClock,
    recent: HashMap<Seen, Timestamp>,
    sockets: Sockets,
    names: Names,
    held: Held,
    edges: Edges,
    drift: Drift,
    counters: PipelineCounters,
    changes: u64,
    taking_over: bool,
    /// Whom the predecessor's kernel side tracked and who is nobody; known until taking over ends.
    nobody: HashSet<ProcessKey>,
}

fn process_key(key: ProcKey) -> ProcessKey {
    ProcessKey {
        pid: key.tgid,
        start_ns: key.start_ns,
    }
}

impl Pipeline {
    /// With this knowledge and these kernel lists.
    #[must_use]
    pub fn new(identity: Identity, watch: Watch, clock: BootClock) -> Self {
        let files = WatchList::new(watch.clone(), identity.knowledge().watch.clone());
        Self {
            identity,
            watch,
            files,
            hellos: Hellos::default(),
            clock,
            recent: HashMap::new(),
            sockets: Sockets::builtin().unwrap_or_else(|error| {
                // A test reads the same text.
                tracing::error!(%error, "no socket is known");
                Sockets::none()
            }),
            names: Names::default(),
            held: Held::default(),
            edges: Edges::default(),
            drift: Drift::default(),
            counters: PipelineCounters::default(),
            changes: 0,
            taking_over: false,
            nobody: HashSet::new(),
        }
    }

    /// Who is who.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What is watched.
    pub fn files(&mut self) -> &mut WatchList {
        &mut self.files
    }

    /// What could not be done.
    #[must_use]
    pub fn counters(&self) -> PipelineCounters {
        PipelineCounters {
            unreadable_hellos: self.hellos.given_up(),
            unreadable_names: self.names.unreadable(),
            ..self.counters
        }
    }

    /// The clock in use.
    #[must_use]
    pub fn clock(&self) -> BootClock {
        self.clock
    }

    /// Takes a new measurement of the clock.
    pub fn set_clock(&mut self, clock: BootClock) {
        self.clock = clock;
    }

    /// Wall time of a kernel time.
    #[must_use]
    pub fn wall(&self, boot_ns: u64) -> Timestamp {
        self.clock.wall(boot_ns)
    }

    /// Takes an event in and appends the facts that follow to `out`.
    pub fn handle(&mut self, event: KernelEvent, out: &mut Vec<Timed>) {
        let before = out.len();
        if self.taking_over {
            self.meet(&event, out);
        }
        match event {
            KernelEvent::Fork { head, child, .. } => self.fork(&head, child),
            KernelEvent::Exec(exec) => self.exec(*exec, out),
            KernelEvent::Exit { head, status } => self.exit(&head, status, out),
            KernelEvent::File(file) => self.file(&file, out),
            KernelEvent::ConnOpen(conn) | KernelEvent::ConnFound(conn) => self.opened(&conn, out),
            KernelEvent::ConnFailed(_) => self.counters.failed_connections += 1,
            KernelEvent::ConnHello(hello) => {
                let id = ConnectionId(hello.cookie);
                let Some(read) = self.hellos.push(id, hello.offset, &hello.data) else {
                    return;
                };
                // An encrypted hello shows the provider's front only: no name to rely on.
                let Some(name) = read.server_name.filter(|_| !read.encrypted) else {
                    return;
                };
                let (source, alpn) = (NameSource::TlsServerName, read.alpn);
                let named = ConnectionNamed {
                    id,
                    name,
                    source,
                    alpn,
                };
                out.push((
                    self.wall(hello.head.ts_boot_ns),
                    Fact::ConnectionNamed(named),
                ));
            }
            KernelEvent::ConnClose { conn, bytes, .. } => {
                let id = ConnectionId(conn.cookie);
                self.hellos.forget(id);
                let closed = ConnectionClosed {
                    id,
                    bytes_sent: bytes.sent,
                    bytes_received: bytes.received,
                };
                out.push((
                    self.wall(conn.head.ts_boot_ns),
                    Fact::ConnectionClosed(closed),
                ));
            }
            KernelEvent::Datagram {
                head,
                cookie,
                remote,
                raw,
                ..
            } => {
                let transport = if raw { Transport::Raw } else { Transport::Udp };
                self.datagram(&head, cookie, remote, transport, out);
            }
            KernelEvent::Listening { head, local } => self.listening(&head, local, out),
            KernelEvent::Accepted(conn) => self.accepted(&conn, out),
            KernelEvent::UnixPeer { head, path } => self.unix_peer(&head, &path, out),
            KernelEvent::ProcessAccess(access) => self.process_access(&access, out),
            KernelEvent::Dns(message) => self.dns(&message, out),
            KernelEvent::BpfLoad { head } => {
                let what = TamperKind::BpfLoaded;
                self.tampering(&head, what, "a tracked process loaded a BPF program", out);
            }
            KernelEvent::OpaqueSocket { head, family, .. } => {
                let detail = match family {
                    AF_PACKET => "a tracked process made a packet socket: its traffic is not seen",
                    _ => "a tracked process made a vsock socket: its traffic is not seen",
                };
                self.tampering(&head, TamperKind::OpaqueSocket, detail, out);
            }
        }
        self.counters.facts += (out.len() - before) as u64;
    }

    fn fork(&mut self, head: &Head, child: ProcKey) {
        self.changes += 1;
        let started = self.wall(child.start_ns);
        if !self
            .identity
            .on_fork(process_key(head.process), process_key(child), started)
        {
            // Its parent has been found to be nobody, or there is no more room.
            self.counters.of_nobody += 1;
            self.watch.untrack(child);
        }
    }

    fn exec(&mut self, exec: ExecEvent, out: &mut Vec<Timed>) {
        let key = process_key(exec.head.process);
        let time = self.wall(exec.head.ts_boot_ns);
        let tracked = exec.args.is_some();
        if !tracked && !self.may_be_agent(&exec) {
            return;
        }
        let info = self.describe(exec);
        let placed = match self.identity.on_exec(&info) {
            Some(placed) => placed,
            // Nobody by itself; but whoever holds a credential must have its connections seen.
            None if self.identity.holds_credential(&info) => match self.identity.adopt(&info) {
                Some(placed) => placed,
                None => return,
            },
            None => {
                if self.taking_over {
                    self.nobody.insert(key);
                }
                if tracked {
                    self.watch.untrack(ProcKey {
                        tgid: key.pid,
                        start_ns: key.start_ns,
                    });
                }
                return;
            }
        };
        if !tracked {
            self.track(key);
        }
        self.placed(&info, placed, time, out);
        for exposure in self.identity.environment_exposures(&info) {
            self.exposure(exposure, time, out);
        }
    }

    /// A program that the kernel's list does not know (installed since): worth a look in `/proc`?
    fn may_be_agent(&self, exec: &ExecEvent) -> bool {
        let name = String::from_utf8_lossy(&exec.filename);
        let base = name.rsplit('/').next().unwrap_or(&name);
        let knowledge = self.identity.knowledge();
        knowledge.executables.is_client(base)
            || crate::agents::launch::is_interpreter(base)
            || name.contains("/node_modules/")
            || knowledge.agents.rows().iter().any(|row| {
                row.commands.iter().any(|command| command == base)
                    || row
                        .exe
                        .iter()
                        .any(|glob| crate::paths::glob_matches(glob, &name))
            })
    }

    fn track(&mut self, key: ProcessKey) {
        let process = ProcKey {
            tgid: key.pid,
            start_ns: key.start_ns,
        };
        if let Err(error) = self.watch.track(process) {
            tracing::warn!(%error, pid = key.pid, "a process cannot be tracked");
        }
    }

    /// Everything about an exec, from the kernel's record and, while it lasts, `/proc`.
    fn describe(&self, exec: ExecEvent) -> ExecInfo {
        let key = process_key(exec.head.process);
        let entry = ProcEntry::open(key);
        let parent = process_key(exec.parent);
        let filename = String::from_utf8_lossy(&exec.filename).into_owned();
        // What the kernel carried whole need not be read again.
        let whole = exec
            .args
            .as_ref()
            .is_some_and(|args| !args.incomplete && !args.env_truncated);
        let mut info = describe(entry.as_ref(), key, self.wall(key.start_ns), !whole);
        info.parent = (parent.pid != 0).then_some(parent);
        info.uid = exec.head.uid;
        info.exe_id = Some(watchlist::file_id(exec.exe));
        if info.exe.as_os_str().is_empty() {
            info.exe = PathBuf::from(filename);
        }
        // The kernel's copy is from the exec itself; a process can overwrite the one in `/proc`.
        if let Some(args) = exec.args {
            if !args.argv.0.is_empty() {
                info.argv = RawArgv::from_block(&args.argv.0);
            }
            // Cut or with a hole: what `/proc` still has is better, if it has anything.
            if whole || info.env.is_empty() {
                info.env = SecretEnv::new(args.env.0.to_vec());
            }
        }
        info
    }

    /// Watches the home of a new unit, and the project of an agent.
    fn look_after(&mut self, info: &ExecInfo) {
        self.files
            .add_home(self.identity.places(info), info.view.clone());
        let kind = self.identity.unit_of(info.key).map(|(_, kind)| kind);
        if kind == Some(UnitKind::Agent)
            && let Some(cwd) = &info.cwd
        {
            self.files.add_project(cwd.clone(), info.view.clone());
        }
    }

    fn placed(&mut self, info: &ExecInfo, placed: Placed, time: Timestamp, out: &mut Vec<Timed>) {
        self.changes += 1;
        if placed.new_unit {
            self.look_after(info);
            if let Some(actor) = self.identity.actor_for(info.key) {
                tracing::info!(pid = info.key.pid, unit = ?placed.kind, who = %actor.label(), "tracking");
            }
        }
        let started = ProcessStarted {
            process: placed.process,
            parent: placed.parent,
            unit: placed.unit,
        };
        out.push((time, Fact::ProcessStarted(started)));
    }

    /// Takes on agents, and what they have started, that ran before the sensor did. Returns how
    /// many processes that is.
    pub fn seed(&mut self, in_scope: impl Fn(u32) -> bool, out: &mut Vec<Timed>) -> usize {
        let found = self.identity.seed(self.clock.wall(0), in_scope);
        let now = crate::clock::now();
        for info in &found {
            self.track(info.key);
            self.look_after(info);
            out.extend(
                self.identity
                    .summary(info.key)
                    .cloned()
                    .zip(self.identity.unit_of(info.key))
                    .map(|(process, (unit, _))| {
                        let parent = info.parent;
                        (
                            now,
                            Fact::ProcessStarted(ProcessStarted {
                                process,
                                parent,
                                unit,
                            }),
                        )
                    }),
            );
            for exposure in self.identity.environment_exposures(info) {
                self.exposure(exposure, now, out);
            }
        }
        found.len()
    }

    fn exit(&mut self, head: &Head, status: i32, out: &mut Vec<Timed>) {
        let process = process_key(head.process);
        self.changes += 1;
        if self.identity.is_tracked(process) {
            let exited = ProcessExited { process, status };
            out.push((self.wall(head.ts_boot_ns), Fact::ProcessExited(exited)));
        }
        self.identity.on_exit(process);
    }

    fn file(&mut self, event: &FileEvent, out: &mut Vec<Timed>) {
        let key = process_key(event.head.process);
        let time = self.wall(event.head.ts_boot_ns);
        let id = watchlist::file_id(event.file);
        let dir = event.dir.map(watchlist::file_id);
        let Some((target, view)) = self.files.target(id, dir, &event.name) else {
            return;
        };
        if event.write_only || target.form.format.is_request() {
            if !event.writes {
                return;
            }
            self.written(&target, &event.head, time, out);
            return;
        }
        let path = &target.path;
        let tracked = self.identity.is_tracked(key);
        if !tracked && is_owner(&target, key) {
            self.watch.untrack(event.head.process);
            return;
        }
        let read = self
            .identity
            .read_target(&view, &target, id, time.as_nanosecond());
        match read {
            // Whoever read a file with nothing in it holds nothing.
            Ok(read) if read.is_empty() && !tracked => self.watch.untrack(event.head.process),
            Ok(read) => {
                if !tracked {
                    self.adopt(&event.head, time, out);
                }
                let reading = self.identity.file_exposures(key, &target, id, read);
                self.counters.bad_checksums += u64::from(reading.bad_checksums);
                if reading.incomplete {
                    tracing::warn!(path = %path.display(), "too long to be read to its end");
                }
                for exposure in reading.exposures {
                    self.exposure(exposure, time, out);
                }
            }
            Err(error) => {
                // What was in it is not known: its reader may hold it.
                if !tracked {
                    self.adopt(&event.head, time, out);
                }
                self.counters.unreadable_files += 1;
                tracing::warn!(path = %path.display(), %error, "a watched file was touched but cannot be read");
            }
        }
    }

    /// Takes on a process that touched a watched file and was nobody until then.
    fn adopt(&mut self, head: &Head, time: Timestamp, out: &mut Vec<Timed>) {
        let key = process_key(head.process);
        let entry = ProcEntry::open(key);
        let mut info = describe(entry.as_ref(), key, self.wall(key.start_ns), true);
        if entry.is_none() {
            info.exe = PathBuf::from("(exited)");
            info.uid = head.uid;
        }
        if let Some(placed) = self.identity.adopt(&info) {
            self.placed(&info, placed, time, out);
        }
    }

    fn exposure(&mut self, exposure: Exposure, time: Timestamp, out: &mut Vec<Timed>) {
        let from_file = matches!(exposure.source, ExposureSource::File { .. });
        let unit = exposure.actor.unit;
        self.held.add(unit, &exposure.credential);
        let seen = (
            unit,
            exposure.credential.clone(),
            from_file,
            exposure.unexpected_reader,
        );
        if let Some(last) = self.recent.get(&seen)
            && time.duration_since(*last) < QUIET
        {
            return;
        }
        if self.recent.len() >= MAX_RECENT {
            self.recent
                .retain(|_, last| time.duration_since(*last) < QUIET);
            if self.recent.len() >= MAX_RECENT {
                // Forgetting costs repeats, not exposures.
                self.recent.clear();
            }
        }
        self.recent.insert(seen, time);
        self.changes += 1;
        tracing::info!(
            credential = %exposure.credential,
            who = %exposure.actor.label(),
            unexpected = exposure.unexpected_reader,
            "credential exposed"
        );
        out.push((time, Fact::Exposure(Box::new(exposure))));
    }

    fn opened(&mut self, conn: &ConnEvent, out: &mut Vec<Timed>) {
        let id = ConnectionId(conn.cookie);
        let fact = self.connection(&conn.head, id, Transport::Tcp, conn.local, conn.remote);
        out.extend(fact.map(|fact| (self.wall(conn.head.ts_boot_ns), fact)));
        self.reached(&conn.head, id, conn.remote, out);
    }

    fn datagram(
        &mut self,
        head: &Head,
        cookie: u64,
        remote: SocketAddr,
        transport: Transport,
        out: &mut Vec<Timed>,
    ) {
        let unknown = match remote.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let id = datagram_id(cookie, remote);
        let local = SocketAddr::new(unknown, 0);
        let fact = self.connection(head, id, transport, local, remote);
        out.extend(fact.map(|fact| (self.wall(head.ts_boot_ns), fact)));
        self.reached(head, id, remote, out);
    }

    fn connection(
        &mut self,
        head: &Head,
        id: ConnectionId,
        transport: Transport,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Option<Fact> {
        let process = process_key(head.process);
        let Some((unit, _)) = self.identity.unit_of(process) else {
            self.counters.of_nobody += 1;
            return None;
        };
        let exe = self.identity.summary(process).map(|summary| {
            summary
                .exe
                .rsplit('/')
                .next()
                .unwrap_or(&summary.exe)
                .to_owned()
        });
        Some(Fact::ConnectionOpened(ConnectionOpened {
            id,
            process,
            unit,
            exe: exe.unwrap_or_default(),
            transport,
            local,
            remote,
        }))
    }
}

mod configs;
mod describe;
mod surroundings;
mod takeover;

pub use takeover::Memory;

use configs::is_owner;
use describe::datagram_id;
pub(crate) use describe::describe;
use surroundings::{Edges, Held};
