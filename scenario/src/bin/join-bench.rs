//! The join's speed and size: `join-bench CREDENTIALS HOSTS ROUNDS CORES`, run by
//! `cargo xtask bench join`; one JSON object on standard output.
//!
//! Every host holds its share of the credentials. One round is, for each host: a read of one of
//! its credentials (in every fourth round by a new command), a connection to the provider, a use,
//! the connection's end, a watermark. One use in a thousand comes from a stranger. The second half
//! of the rounds is measured, when the state is as large as it gets.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use keytrail_join::{Input, Join, Settings};
use keytrail_model::consumption::{Caller, Consumption};
use keytrail_model::coverage::{Coverage, CoverageArea, CoverageRow, CoverageState};
use keytrail_model::credential::CredentialId;
use keytrail_model::fact::{
    ConnectionClosed, ConnectionNamed, ConnectionOpened, Exposure, ExposureSource, Fact, HostEvent,
    NameSource, Transport, Watermark,
};
use keytrail_model::ids::{BootId, ConnectionId, EventRef, HostId, ProcessKey, RecordId};
use keytrail_model::process::{Actor, AgentIdentity, Confidence, ProcessSummary, UnitKind, User};
use serde_json::json;
use uuid::Uuid;

/// 2026-01-01T00:00:00Z
const START: Timestamp = Timestamp::constant(1_767_225_600, 0);
/// A host does something this often.
const PACE: SignedDuration = SignedDuration::from_mins(10);
const STRANGERS: u64 = 1_000;
const NAME: &str = "s3.us-east-1.amazonaws.com";

/// The size of one run.
#[derive(Clone, Copy)]
struct Size {
    credentials: u64,
    hosts: u64,
    rounds: u64,
    cores: u64,
}

/// What one thread measured.
#[derive(Default)]
struct Measured {
    /// Time in the join for the inputs of the measured rounds, and how many they were.
    busy: Duration,
    inputs: u64,
    /// Each measured input's time, nanoseconds.
    each: Vec<u32>,
    /// The same for uses alone: from the record to the verdict.
    uses: Vec<u32>,
    tick: Duration,
}

fn main() -> ExitCode {
    let numbers: Option<Vec<u64>> = std::env::args().skip(1).map(|a| a.parse().ok()).collect();
    let size = match numbers.as_deref() {
        Some(&[credentials, hosts, rounds, cores]) if hosts > 0 && cores > 0 => Size {
            credentials,
            hosts,
            rounds,
            cores,
        },
        _ => {
            complain("usage: join-bench CREDENTIALS HOSTS ROUNDS CORES");
            return ExitCode::FAILURE;
        }
    };
    let empty = resident();
    let (parts, memory) = if size.cores == 1 {
        let mut part = Part::new(size, 0);
        part.load();
        let loaded = resident();
        let connections = size.hosts.min(50_000) * 4;
        part.open_idle(connections);
        let with_idle = resident();
        part.close_idle(connections);
        let measured = part.run();
        let after = resident();
        drop(part);
        let per = |bytes: u64, count: u64| bytes / count.max(1);
        let memory = json!({
            "bytes_per_credential": per(loaded.saturating_sub(empty), size.credentials),
            "bytes_per_connection": per(with_idle.saturating_sub(loaded), connections),
            "resident_bytes": after,
        });
        (vec![measured], memory)
    } else {
        let (measured, after) = on_many_cores(size);
        (measured, json!({ "resident_bytes": after }))
    };
    let report = report(size, parts, memory);
    let text = format!("{report}\n");
    match std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn complain(text: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{text}\n").as_bytes());
}

fn on_many_cores(size: Size) -> (Vec<Measured>, u64) {
    // All load first, so that they are measured side by side.
    let barrier = std::sync::Barrier::new(usize::try_from(size.cores).unwrap_or(1));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..size.cores)
            .map(|number| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let mut part = Part::new(size, number);
                    part.load();
                    barrier.wait();
                    let measured = part.run();
                    // The state of all is there when it is measured.
                    barrier.wait();
                    let after = resident();
                    barrier.wait();
                    (measured, after)
                })
            })
            .collect();
        let ended = threads.into_iter().filter_map(|t| t.join().ok());
        let (measured, after): (Vec<_>, Vec<u64>) = ended.unzip();
        (measured, after.into_iter().max().unwrap_or(0))
    })
}

fn report(size: Size, parts: Vec<Measured>, memory: serde_json::Value) -> serde_json::Value {
    // The slowest part says how fast the whole is; an input that several parts need counts once.
    let busy = parts.iter().map(|p| p.busy).max().unwrap_or_default();
    let inputs = parts.first().map_or(0, |p| p.inputs);
    let tick = parts.iter().map(|p| p.tick).max().unwrap_or_default();
    let mut each: Vec<u32> = Vec::new();
    let mut uses: Vec<u32> = Vec::new();
    for part in parts {
        each.extend(part.each);
        uses.extend(part.uses);
    }
    each.sort_unstable();
    uses.sort_unstable();
    let at = |sorted: &[u32], thousandth: usize| {
        let at = sorted.len().saturating_sub(1) * thousandth / 1_000;
        sorted.get(at).copied().unwrap_or(0)
    };
    json!({
        "credentials": size.credentials,
        "hosts": size.hosts,
        "cores": size.cores,
        "inputs": inputs,
        "inputs_per_second": number(inputs) / busy.as_secs_f64().max(1e-9),
        "mean_ns": busy.as_secs_f64() * 1e9 / number(inputs).max(1.0),
        "p50_ns": at(&each, 500),
        "p99_ns": at(&each, 990),
        "use_p50_ns": at(&uses, 500),
        "use_p99_ns": at(&uses, 990),
        "hourly_tick_ms": tick.as_secs_f64() * 1e3,
        "memory": memory,
    })
}

fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Resident memory of this process, bytes (`/proc/self/statm`, second field, pages of 4 KiB).
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|field| field.parse().ok());
    pages.unwrap_or(0_u64) * 4_096
}

/// One partition: the join of the credentials whose number leaves `number` when divided by the
/// count of partitions. A host's facts go to every partition that has a credential of it.
struct Part {
    size: Size,
    number: u64,
    join: Join,
    effects: Vec<keytrail_join::Effect>,
    seqs: Vec<u64>,
    measured: Measured,
    measuring: bool,
}

impl Part {
    fn new(size: Size, number: u64) -> Self {
        let hosts = usize::try_from(size.hosts).unwrap_or(usize::MAX);
        Self {
            size,
            number,
            join: Join::new(Settings::default()),
            effects: Vec::new(),
            seqs: vec![0; hosts],
            measured: Measured::default(),
            measuring: false,
        }
    }

    fn has(&self, credential: u64) -> bool {
        credential % self.size.cores == self.number
    }

    fn apply(&mut self, input: &Input) {
        let since = Instant::now();
        self.join.apply(input, &mut self.effects);
        let took = since.elapsed();
        self.effects.clear();
        if self.measuring {
            self.measured.busy += took;
            let ns = u32::try_from(took.as_nanos()).unwrap_or(u32::MAX);
            self.measured.each.push(ns);
            if matches!(input, Input::Use(_)) {
                self.measured.uses.push(ns);
            }
        }
    }

    fn fact(&mut self, host: u64, time: Timestamp, fact: Fact) {
        let at = usize::try_from(host).unwrap_or(usize::MAX);
        let Some(seq) = self.seqs.get_mut(at) else {
            return;
        };
        *seq += 1;
        let id = EventRef {
            host: host_id(host),
            boot: boot(host),
            seq: *seq,
        };
        self.apply(&Input::Host(HostEvent { id, time, fact }));
    }

    /// Every host says what it covers and holds its share of the credentials.
    fn load(&mut self) {
        for host in 0..self.size.hosts {
            self.fact(host, START, Fact::Coverage(coverage()));
        }
        for credential in 0..self.size.credentials {
            if self.has(credential) {
                let host = credential % self.size.hosts;
                let fact = exposure(credential, credential + 1, START);
                self.fact(host, START, fact);
            }
        }
    }

    fn open_idle(&mut self, count: u64) {
        for idle in 0..count {
            let id = 1_000_000_000 + idle;
            self.open(idle % self.size.hosts, id, 1, START);
        }
    }

    fn close_idle(&mut self, count: u64) {
        for idle in 0..count {
            let id = ConnectionId(1_000_000_000 + idle);
            self.fact(idle % self.size.hosts, START, closed(id));
        }
    }

    fn open(&mut self, host: u64, id: u64, unit: u64, time: Timestamp) {
        let id = ConnectionId(id);
        let unit = process(unit);
        let opened = ConnectionOpened {
            id,
            process: unit,
            unit,
            exe: "aws".to_owned(),
            transport: Transport::Tcp,
            local: SocketAddr::from((Ipv4Addr::new(192, 168, 1, 23), 40_000)),
            remote: SocketAddr::from((Ipv4Addr::new(198, 18, 0, 1), 443)),
        };
        self.fact(host, time, Fact::ConnectionOpened(opened));
        let named = ConnectionNamed {
            id,
            name: NAME.to_owned(),
            source: NameSource::TlsServerName,
            alpn: Vec::new(),
        };
        self.fact(host, time, Fact::ConnectionNamed(named));
    }

    /// Plays the rounds. The state stays, so that it can be measured.
    fn run(&mut self) -> Measured {
        let per_host = (self.size.credentials / self.size.hosts).max(1);
        for round in 0..self.size.rounds {
            self.measuring = round >= self.size.rounds / 2;
            for host in 0..self.size.hosts {
                self.round(round, host, per_host);
            }
        }
        let now = moment(self.size.rounds + 6, 0, self.size.hosts);
        let since = Instant::now();
        self.join
            .apply(&Input::Tick { time: now }, &mut self.effects);
        self.measured.tick = since.elapsed();
        std::mem::take(&mut self.measured)
    }

    /// One host's round: two to seven inputs.
    fn round(&mut self, round: u64, host: u64, per_host: u64) {
        let time = moment(round, host, self.size.hosts);
        // Spread over the host's credentials, differently for every host.
        let turn = (round + host / 7) % per_host;
        let credential = host + turn * self.size.hosts;
        let mine = credential < self.size.credentials && self.has(credential);
        let unit = 10_000_000 + round * self.size.hosts + host;
        let holder = if round.is_multiple_of(4) {
            unit
        } else {
            credential + 1
        };
        if round.is_multiple_of(4) {
            self.count();
            if mine {
                self.fact(host, time, exposure(credential, unit, time));
            }
        }
        let id = round * self.size.hosts + host + 1;
        self.open(host, id, holder, time);
        self.count();
        self.count();
        self.count();
        if mine {
            let use_number = round * self.size.hosts + host;
            self.apply(&Input::Use(usage(credential, host, use_number, time)));
        }
        self.fact(host, later(time, 1), closed(ConnectionId(id)));
        self.count();
        self.apply(&Input::Watermark(Watermark {
            host: host_id(host),
            boot: boot(host),
            time: later(time, 2),
            clock_offset_ms: 0,
            clock_error_ms: 5,
            seen_from: Some(outside(host)),
            seen_network: None,
        }));
        self.count();
    }

    /// One input of the whole system, whether this partition needs it or not.
    fn count(&mut self) {
        if self.measuring {
            self.measured.inputs += 1;
        }
    }
}

fn moment(round: u64, host: u64, hosts: u64) -> Timestamp {
    let pace = u64::try_from(PACE.as_millis()).unwrap_or(600_000);
    let milliseconds = round * pace + host * pace / hosts.max(1) + 60_000;
    later_ms(START, milliseconds)
}

fn later(time: Timestamp, seconds: u64) -> Timestamp {
    later_ms(time, seconds * 1_000)
}

fn later_ms(time: Timestamp, milliseconds: u64) -> Timestamp {
    let by = SignedDuration::from_millis(i64::try_from(milliseconds).unwrap_or(i64::MAX));
    time.checked_add(by).unwrap_or(time)
}

fn host_id(host: u64) -> HostId {
    HostId(format!("host-{host:06}"))
}

fn boot(host: u64) -> BootId {
    BootId(Uuid::from_u128(u128::from(host)))
}

fn outside(host: u64) -> IpAddr {
    let [.., a, b, c] = host.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(100, a.wrapping_add(130), b, c))
}

fn process(number: u64) -> ProcessKey {
    ProcessKey {
        pid: u32::try_from(number % 4_000_000).unwrap_or(0),
        start_ns: number * 1_000,
    }
}

fn key(credential: u64) -> Option<CredentialId> {
    CredentialId::aws_access_key(&format!("AKIA{credential:016}")).ok()
}

fn closed(id: ConnectionId) -> Fact {
    Fact::ConnectionClosed(ConnectionClosed {
        id,
        bytes_sent: 900,
        bytes_received: 900,
    })
}

fn usage(credential: u64, host: u64, number: u64, time: Timestamp) -> Consumption {
    let stranger = number % STRANGERS == STRANGERS - 1;
    let address = if stranger {
        IpAddr::V4(Ipv4Addr::new(198, 51, 100, 66))
    } else {
        outside(host)
    };
    let id = RecordId(format!("bench:{number}"));
    let credential = key(credential).unwrap_or_else(|| CredentialId::github_token(b"none"));
    Consumption {
        caller: Caller::Address { address },
        service: "s3.amazonaws.com".to_owned(),
        region: Some("us-east-1".to_owned()),
        action: "GetObject".to_owned(),
        server_name: Some(NAME.to_owned()),
        user_agent: Some("aws-cli/2.17.0".to_owned()),
        ..Consumption::new(id, credential, time)
    }
}

fn exposure(credential: u64, unit: u64, time: Timestamp) -> Fact {
    let process = process(unit);
    let root = ProcessKey {
        pid: 7,
        start_ns: 7,
    };
    let summary = |key, exe: &str| ProcessSummary {
        key,
        exe: exe.to_owned(),
        argv: vec![exe.to_owned(), "s3".to_owned(), "ls".to_owned()],
        started: time,
    };
    Fact::Exposure(Box::new(Exposure {
        credential: key(credential).unwrap_or_else(|| CredentialId::github_token(b"none")),
        source: ExposureSource::File {
            path: "/home/user/.aws/credentials".to_owned(),
            dev: 1,
            ino: credential,
            entry: Some("default".to_owned()),
            version_known: true,
        },
        process,
        actor: Actor {
            unit: process,
            unit_kind: UnitKind::ShellTool,
            agent: Some(AgentIdentity {
                product: "claude-code".to_owned(),
                name: "Claude Code".to_owned(),
                version: Some("2.1.330".to_owned()),
                root,
                method: "executable inside @anthropic-ai/claude-code".to_owned(),
                confidence: Confidence::High,
            }),
            mcp_server: None,
            user: Some(User {
                uid: 1000,
                name: Some("user".to_owned()),
                login_uid: Some(1000),
                ..User::default()
            }),
            lineage: vec![
                summary(process, "/usr/local/bin/aws"),
                summary(root, "/home/user/.local/bin/claude"),
            ],
        },
        unexpected_reader: false,
        destinations: Vec::new(),
    }))
}

fn coverage() -> Coverage {
    Coverage {
        kernel: "6.12.57".to_owned(),
        plan: "A".to_owned(),
        scope: None,
        agent_version: "0.1.0".to_owned(),
        rows: vec![CoverageRow {
            area: CoverageArea::Network,
            what: "TCP connections".to_owned(),
            state: CoverageState::Live {
                hook: "inet_sock_set_state".to_owned(),
            },
        }],
    }
}
