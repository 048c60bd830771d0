//! What tracked processes have to do with others: sockets in and out, names, other processes, and
//! what could blind the sensor.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use jiff::Timestamp;
use keytrail_model::credential::CredentialId;
use keytrail_model::fact::{
    Accepted, ConnectionNamed, Exposure, ExposureSource, Fact, Listening, NameSource, RequestEdge,
    TamperKind, Tampering,
};
use keytrail_model::ids::{ConnectionId, ProcessKey};

use super::{Pipeline, QUIET, Timed, describe, process_key};
use crate::kernel::event::{ConnEvent, DnsEvent, Head, ProcKey, ProcessAccessEvent};
use crate::redact::redact_text;
use crate::sockets::Meaning;
use crate::tree::proc::ProcEntry;

/// Most units whose credentials are remembered; the oldest is forgotten for a newer one.
const MAX_UNITS: usize = 4_096;
/// Most credentials remembered of one unit.
const MAX_HELD: usize = 256;
/// Most request edges remembered, so that each is told once in a while only.
const MAX_EDGES: usize = 4_096;

/// Which credentials a unit has come to hold: what somebody gets who looks into its memory.
#[derive(Debug, Default)]
pub(super) struct Held {
    units: BTreeMap<ProcessKey, BTreeSet<CredentialId>>,
    order: VecDeque<ProcessKey>,
}

impl Held {
    pub(super) fn add(&mut self, unit: ProcessKey, credential: &CredentialId) {
        if !self.units.contains_key(&unit) {
            self.order.push_back(unit);
            while self.order.len() > MAX_UNITS {
                if let Some(oldest) = self.order.pop_front() {
                    self.units.remove(&oldest);
                }
            }
        }
        let held = self.units.entry(unit).or_default();
        if held.len() < MAX_HELD {
            held.insert(credential.clone());
        }
    }

    pub(super) fn all(&self) -> Vec<(ProcessKey, Vec<CredentialId>)> {
        let held = self.units.iter();
        held.map(|(unit, set)| (*unit, set.iter().cloned().collect()))
            .collect()
    }

    fn of(&self, unit: ProcessKey) -> Vec<CredentialId> {
        let held = self.units.get(&unit);
        held.map(|set| set.iter().cloned().collect())
            .unwrap_or_default()
    }
}

/// Edges told lately.
#[derive(Debug, Default)]
pub(super) struct Edges(BTreeMap<(ProcessKey, String), Timestamp>);

impl Edges {
    /// True when this edge is worth telling again.
    pub(super) fn fresh(&mut self, unit: ProcessKey, through: &str, time: Timestamp) -> bool {
        let key = (unit, through.to_owned());
        if let Some(last) = self.0.get(&key)
            && time.duration_since(*last) < QUIET
        {
            return false;
        }
        if self.0.len() >= MAX_EDGES {
            self.0.retain(|_, last| time.duration_since(*last) < QUIET);
            if self.0.len() >= MAX_EDGES {
                // Forgetting costs repeats, not edges.
                self.0.clear();
            }
        }
        self.0.insert(key, time);
        true
    }
}

/// The address of a unix socket as text: an abstract name with `@` for its NUL.
fn unix_text(path: &[u8]) -> String {
    match path.split_first() {
        Some((0, name)) => format!("@{}", String::from_utf8_lossy(name)),
        _ => {
            let path = path.strip_suffix(&[0]).unwrap_or(path);
            String::from_utf8_lossy(path).into_owned()
        }
    }
}

impl Pipeline {
    pub(super) fn listening(&mut self, head: &Head, local: SocketAddr, out: &mut Vec<Timed>) {
        let process = process_key(head.process);
        let Some(actor) = self.identity.actor_for(process) else {
            self.counters.of_nobody += 1;
            return;
        };
        let listening = Listening {
            process,
            actor,
            local,
        };
        let time = self.wall(head.ts_boot_ns);
        out.push((time, Fact::Listening(Box::new(listening))));
    }

    pub(super) fn accepted(&mut self, conn: &ConnEvent, out: &mut Vec<Timed>) {
        let process = process_key(conn.head.process);
        let Some((unit, _)) = self.identity.unit_of(process) else {
            self.counters.of_nobody += 1;
            return;
        };
        let accepted = Accepted {
            id: ConnectionId(conn.cookie),
            process,
            unit,
            local: conn.local,
            remote: conn.remote,
            // What a caller shows is inside the protocol, and often encrypted.
            authenticated: None,
        };
        out.push((self.wall(conn.head.ts_boot_ns), Fact::Accepted(accepted)));
    }

    /// The name that led a unit to an address, and what the service there hands out.
    pub(super) fn reached(
        &mut self,
        head: &Head,
        id: ConnectionId,
        remote: SocketAddr,
        out: &mut Vec<Timed>,
    ) {
        let process = process_key(head.process);
        let Some((unit, _)) = self.identity.unit_of(process) else {
            return;
        };
        let time = self.wall(head.ts_boot_ns);
        if let Some(name) = self.names.of(unit, remote.ip()) {
            let named = ConnectionNamed {
                id,
                name: name.to_owned(),
                source: NameSource::Dns,
                alpn: Vec::new(),
            };
            out.push((time, Fact::ConnectionNamed(named)));
        }
        let exe = self.exe_of(process);
        if let Some(Meaning::Store {
            credential,
            unexpected,
        }) = self.sockets.address(remote, &exe)
        {
            let source = ExposureSource::Metadata { address: remote };
            self.obtained(process, credential, source, unexpected, time, out);
        }
    }

    pub(super) fn unix_peer(&mut self, head: &Head, path: &[u8], out: &mut Vec<Timed>) {
        let process = process_key(head.process);
        let Some((unit, _)) = self.identity.unit_of(process) else {
            self.counters.of_nobody += 1;
            return;
        };
        let path = unix_text(path);
        let time = self.wall(head.ts_boot_ns);
        match self.sockets.unix(&path, &self.exe_of(process)) {
            None => {}
            Some(Meaning::Store {
                credential,
                unexpected,
            }) => {
                let path = redact_text(&path);
                let source = ExposureSource::Socket { path };
                self.obtained(process, credential, source, unexpected, time, out);
            }
            Some(Meaning::Daemon(daemon)) => {
                let through = redact_text(&path);
                if self.edges.fresh(unit, &through, time) {
                    let edge = RequestEdge {
                        process,
                        unit,
                        daemon,
                        through,
                    };
                    out.push((time, Fact::RequestEdge(edge)));
                }
            }
        }
    }

    pub(super) fn dns(&mut self, event: &DnsEvent, out: &mut Vec<Timed>) {
        let process = process_key(event.head.process);
        let Some((unit, _)) = self.identity.unit_of(process) else {
            self.counters.of_nobody += 1;
            return;
        };
        let skip = if event.tcp { 2 } else { 0 };
        let message = event.data.get(skip..).unwrap_or_default();
        let time = self.wall(event.head.ts_boot_ns);
        let sums = self.names.push(unit, process, time, message);
        out.extend(sums.into_iter().map(|sum| (time, Fact::NameLookups(sum))));
    }

    /// What has been added up since the last call.
    pub fn sums(&mut self, now: Timestamp) -> Vec<Timed> {
        let sums = self.names.take();
        sums.into_iter()
            .map(|sum| (now, Fact::NameLookups(sum)))
            .collect()
    }

    pub(super) fn tampering(
        &mut self,
        head: &Head,
        what: TamperKind,
        detail: &str,
        out: &mut Vec<Timed>,
    ) {
        let process = process_key(head.process);
        let Some((unit, _)) = self.identity.unit_of(process) else {
            self.counters.of_nobody += 1;
            return;
        };
        tracing::warn!(pid = process.pid, "{detail}");
        let tampering = Tampering {
            what,
            detail: detail.to_owned(),
            process: Some(process),
            unit: Some(unit),
        };
        out.push((self.wall(head.ts_boot_ns), Fact::Tampering(tampering)));
    }

    /// Whoever looks into another process gets what that process holds.
    pub(super) fn process_access(&mut self, event: &ProcessAccessEvent, out: &mut Vec<Timed>) {
        let key = process_key(event.head.process);
        let time = self.wall(event.head.ts_boot_ns);
        let Some(victim) = whole_key(event.victim) else {
            return;
        };
        let theirs = self.identity.unit_of(victim);
        if theirs.is_some() && theirs == self.identity.unit_of(key) {
            return;
        }
        let held = match theirs {
            Some((unit, _)) => self.held.of(unit),
            None => self.found_in(victim, time, out),
        };
        if held.is_empty() {
            return;
        }
        if !self.identity.is_tracked(key) {
            self.adopt(&event.head, time, out);
        }
        let exe = self.exe_of(victim);
        for credential in held {
            let source = ExposureSource::Process {
                victim,
                exe: exe.clone(),
                via: event.via.name().to_owned(),
            };
            self.obtained(key, credential, source, true, time, out);
        }
    }

    /// What a process holds that was nobody until somebody looked into it. If it holds something, it
    /// is tracked from now on.
    fn found_in(
        &mut self,
        victim: ProcessKey,
        time: Timestamp,
        out: &mut Vec<Timed>,
    ) -> Vec<CredentialId> {
        let Some(entry) = ProcEntry::open(victim) else {
            return Vec::new();
        };
        let started = self.wall(victim.start_ns);
        let info = describe(Some(&entry), victim, started, true);
        let Some(placed) = self.identity.adopt(&info) else {
            return Vec::new();
        };
        let exposures = self.identity.environment_exposures(&info);
        if exposures.is_empty() {
            self.identity.on_exit(victim);
            return Vec::new();
        }
        self.track(victim);
        self.placed(&info, placed, time, out);
        let found = exposures.iter().map(|e| e.credential.clone()).collect();
        for exposure in exposures {
            self.exposure(exposure, time, out);
        }
        found
    }

    fn obtained(
        &mut self,
        process: ProcessKey,
        credential: CredentialId,
        source: ExposureSource,
        unexpected_reader: bool,
        time: Timestamp,
        out: &mut Vec<Timed>,
    ) {
        let Some(actor) = self.identity.actor_for(process) else {
            return;
        };
        let exposure = Exposure {
            credential,
            source,
            process,
            actor,
            unexpected_reader,
            destinations: Vec::new(),
        };
        self.exposure(exposure, time, out);
    }

    fn exe_of(&self, process: ProcessKey) -> String {
        let summary = self.identity.summary(process);
        summary.map(|s| s.exe.clone()).unwrap_or_default()
    }
}

/// The process that the kernel side means. Where it knows an id only, that may be a thread's.
fn whole_key(key: ProcKey) -> Option<ProcessKey> {
    if key.start_ns != 0 {
        return Some(process_key(key));
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", key.tgid)).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    let tgid = line.trim().parse().ok()?;
    ProcEntry::open_pid(tgid).map(|entry| entry.key())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_unix_sockets_as_text() {
        for (path, want) in [
            (&b"/run/docker.sock\0"[..], "/run/docker.sock"),
            (b"/run/docker.sock", "/run/docker.sock"),
            (b"\0/tmp/dbus-x", "@/tmp/dbus-x"),
            (b"", ""),
        ] {
            assert_eq!(unix_text(path), want);
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut held, mut edges) = (Held::default(), Edges::default());
        let id = CredentialId::aws_access_key("AKIAIOSFODNN7EXAMPLE").unwrap();
        let unit = |pid| ProcessKey { pid, start_ns: 1 };
        let now = Timestamp::UNIX_EPOCH;
        for pid in 0..u32::try_from(MAX_UNITS).unwrap() + 5 {
            held.add(unit(pid), &id);
            assert!(edges.fresh(unit(pid), "x", now));
        }
        assert_eq!((held.units.len(), held.order.len()), (MAX_UNITS, MAX_UNITS));
        assert!(held.of(unit(0)).is_empty());
        assert_eq!(held.of(unit(4_000)), [id]);
        assert!(edges.0.len() <= MAX_EDGES);
        assert!(!edges.fresh(unit(4_100), "x", now), "told a moment ago");
    }

    #[test]
    fn a_thread_stands_for_its_process() {
        let own = std::process::id();
        let tid = std::thread::spawn(nix::unistd::gettid).join().unwrap();
        // The thread is gone; the first thread of this process is not.
        assert_ne!(tid.as_raw().cast_unsigned(), own);
        let key = ProcKey {
            tgid: own,
            start_ns: 0,
        };
        assert_eq!(whole_key(key).unwrap().pid, own);
    }
}
