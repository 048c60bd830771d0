//! A simulated sensor: sends facts a moment after they happen, or long after, or not at all.

use std::net::{IpAddr, SocketAddr};

use jiff::{SignedDuration, Timestamp};
use keytrail_join::Input;
use keytrail_model::credential::CredentialId;
use keytrail_model::fact::{
    ConnectionClosed, ConnectionNamed, ConnectionOpened, Exposure, ExposureSource, Fact, Gap,
    GapKind, HostEvent, NameSource, Transport, Watermark,
};
use keytrail_model::ids::{BootId, ConnectionId, EventRef, HostId, ProcessKey};
use keytrail_model::process::{
    Actor, AgentIdentity, Confidence, McpServer, Package, ProcessSummary, UnitKind, User,
};
use uuid::Uuid;

use super::{Air, after};
use crate::endpoint::full_coverage;
use crate::random::Random;
use crate::world::{address_of, agent};

/// Pause between two watermarks of an idle host, ms.
const HEARTBEAT: u64 = 600_000;

/// Who does something, for the sensor.
#[derive(Clone, Debug)]
pub(super) struct Doer {
    pub(super) unit: ProcessKey,
    pub(super) exe: String,
    pub(super) kind: UnitKind,
    pub(super) package: Option<Package>,
}

/// One host's sensor.
#[derive(Debug)]
pub(super) struct Sensor {
    pub(super) host: HostId,
    boot: BootId,
    user: String,
    seq: u64,
    next: u32,
    /// The host's clock minus the true time, ms; measured over the stream.
    offset_ms: i64,
    /// Its stream is down until then: facts wait in the spool.
    pub(super) away_until: Option<Timestamp>,
    /// It sees nothing in this time.
    dead: Option<(Timestamp, Timestamp)>,
    /// From where its stream comes.
    pub(super) seen_from: Option<IpAddr>,
    covered: bool,
    next_heartbeat: Timestamp,
}

impl Sensor {
    pub(super) fn new(host: String, user: String, offset_ms: i64, start: Timestamp) -> Self {
        let boot = BootId(Uuid::new_v5(&Uuid::NAMESPACE_OID, host.as_bytes()));
        Self {
            host: HostId(host),
            boot,
            user,
            seq: 0,
            next: 0,
            offset_ms,
            away_until: None,
            dead: None,
            seen_from: None,
            covered: false,
            next_heartbeat: start,
        }
    }

    /// Things that go wrong in an hour, and the hour's heartbeats.
    pub(super) fn hour(&mut self, random: &mut Random, now: Timestamp, air: &mut Air) {
        if !self.covered {
            self.covered = true;
            self.watermark(now, air);
            self.fact(now, Fact::Coverage(full_coverage(None, false)), air);
        }
        if random.below(300) == 0 {
            let milliseconds = 3_600_000 * (1 + random.draw(7));
            self.away(after(now, milliseconds));
        }
        if random.below(5_000) == 0 {
            let from = after(now, random.draw(1_800_000));
            let to = after(from, 300_000 + random.draw(3_000_000));
            self.die(from, to, air);
        }
        if random.below(1_000) == 0 {
            let from = after(now, random.draw(3_000_000));
            let to = after(from, 2_000 + random.draw(30_000));
            let gap = Fact::Gap(Gap {
                from: self.stamped(from),
                to: self.stamped(to),
                what: GapKind::Network,
                count: Some(100 + random.draw(1_000)),
                reason: "ring full".to_owned(),
            });
            self.fact(to, gap, air);
        }
        self.heartbeats(now, air);
    }

    /// Its stream is down until then.
    pub(super) fn away(&mut self, until: Timestamp) {
        self.away_until = self.away_until.max(Some(until));
    }

    pub(super) fn heartbeats(&mut self, now: Timestamp, air: &mut Air) {
        let until = after(now, 3_600_000);
        self.next_heartbeat = self.next_heartbeat.max(now);
        while self.next_heartbeat < until {
            let time = self.next_heartbeat;
            self.next_heartbeat = after(time, HEARTBEAT);
            if !self.is_dead(time) {
                self.watermark(time, air);
            }
        }
    }

    /// The sensor is down; what happens is not seen, and it says so afterwards.
    fn die(&mut self, from: Timestamp, to: Timestamp, air: &mut Air) {
        let gap = Fact::Gap(Gap {
            from: self.stamped(from),
            to: self.stamped(to),
            what: GapKind::All,
            count: None,
            reason: "the agent was not running".to_owned(),
        });
        self.fact(to, gap, air);
        self.dead = Some((from, to));
    }

    fn is_dead(&self, time: Timestamp) -> bool {
        self.dead
            .is_some_and(|(from, to)| time >= from && time < to)
    }

    fn stamped(&self, time: Timestamp) -> Timestamp {
        time.checked_add(SignedDuration::from_millis(self.offset_ms))
            .unwrap_or(time)
    }

    fn arrival(&self, time: Timestamp) -> Timestamp {
        let soon = after(time, 700);
        self.away_until
            .filter(|back| *back > time)
            .map_or(soon, |back| after(back, 700))
    }

    fn watermark(&mut self, time: Timestamp, air: &mut Air) {
        let watermark = Watermark {
            host: self.host.clone(),
            boot: self.boot,
            time: self.stamped(time),
            clock_offset_ms: self.offset_ms,
            clock_error_ms: 8,
            seen_from: self.seen_from,
            seen_network: None,
        };
        // After the facts of the same moment.
        air.send(
            after(self.arrival(time), 1_500),
            Input::Watermark(watermark),
        );
    }

    pub(super) fn fact(&mut self, time: Timestamp, fact: Fact, air: &mut Air) {
        if self.is_dead(time) && !matches!(fact, Fact::Gap(_)) {
            return;
        }
        self.seq += 1;
        let id = EventRef {
            host: self.host.clone(),
            boot: self.boot,
            seq: self.seq,
        };
        let event = HostEvent {
            id,
            time: self.stamped(time),
            fact,
        };
        air.send(self.arrival(time), Input::Host(event));
    }

    fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// A new unit of work.
    pub(super) fn doer(&mut self, kind: UnitKind, exe: &str) -> Doer {
        let number = self.number();
        Doer {
            unit: ProcessKey {
                pid: 1_000 + number % 4_000_000,
                start_ns: u64::from(number) * 1_000_000,
            },
            exe: exe.to_owned(),
            kind,
            package: None,
        }
    }

    pub(super) fn expose(
        &mut self,
        time: Timestamp,
        credential: &CredentialId,
        doer: &Doer,
        source: ExposureSource,
        unexpected_reader: bool,
        air: &mut Air,
    ) {
        let root = ProcessKey {
            pid: 7,
            start_ns: 7,
        };
        let who: AgentIdentity = agent("claude-code", None, Some("2.1.330".to_owned()), root);
        let summary = |key, exe: &str| ProcessSummary {
            key,
            exe: exe.to_owned(),
            argv: vec![exe.to_owned()],
            started: time,
        };
        let exposure = Exposure {
            credential: credential.clone(),
            source,
            process: doer.unit,
            actor: Actor {
                unit: doer.unit,
                unit_kind: doer.kind,
                agent: (doer.kind != UnitKind::Other).then_some(AgentIdentity {
                    confidence: Confidence::High,
                    ..who
                }),
                mcp_server: (doer.kind == UnitKind::McpServer).then(|| McpServer {
                    name: Some("tools".to_owned()),
                    config: Some("/home/user/.claude.json".to_owned()),
                    scope: Some("user".to_owned()),
                    package: doer.package.clone(),
                }),
                user: Some(User {
                    uid: 1000,
                    name: Some(self.user.clone()),
                    login_uid: Some(1000),
                    ..User::default()
                }),
                lineage: vec![
                    summary(doer.unit, &doer.exe),
                    summary(root, "/home/user/.local/bin/claude"),
                ],
            },
            unexpected_reader,
            destinations: Vec::new(),
        };
        self.fact(time, Fact::Exposure(Box::new(exposure)), air);
    }

    /// A connection to `name` that lasts so many milliseconds.
    pub(super) fn connect(
        &mut self,
        time: Timestamp,
        doer: &Doer,
        (local, name): (IpAddr, &str),
        lasts_ms: u64,
        sent: u64,
        air: &mut Air,
    ) {
        let id = ConnectionId(u64::from(self.number()));
        let exe = doer.exe.rsplit('/').next().unwrap_or(&doer.exe).to_owned();
        let opened = ConnectionOpened {
            id,
            process: doer.unit,
            unit: doer.unit,
            exe,
            transport: Transport::Tcp,
            local: SocketAddr::new(local, 40_000),
            remote: SocketAddr::new(address_of(name), 443),
        };
        self.fact(time, Fact::ConnectionOpened(opened), air);
        let named = ConnectionNamed {
            id,
            name: name.to_owned(),
            source: NameSource::TlsServerName,
            alpn: Vec::new(),
        };
        self.fact(after(time, 40), Fact::ConnectionNamed(named), air);
        let closed = ConnectionClosed {
            id,
            bytes_sent: sent,
            bytes_received: 4_000,
        };
        self.fact(after(time, lasts_ms), Fact::ConnectionClosed(closed), air);
    }
}

/// A file that a credential was found in.
pub(super) fn file(path: &str) -> ExposureSource {
    ExposureSource::File {
        path: path.to_owned(),
        dev: 1,
        ino: crate::world::inode_of(path),
        entry: Some("default".to_owned()),
        version_known: true,
    }
}

/// An environment variable that a credential was found in.
pub(super) fn variable(name: &str) -> ExposureSource {
    ExposureSource::Environment {
        variable: name.to_owned(),
    }
}
