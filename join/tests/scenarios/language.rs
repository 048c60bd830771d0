//! The small language of `cases/*.txt`: one input a line, so that a new case is a file.
//!
//! Times are seconds after 2026-01-01T00:00:00Z. Words after `#` are comments.
//!
//! ```text
//! 0  laptop coverage                          every hook live (or: coverage blind)
//! 1  laptop read KEY by 100 mcp               unit 100, an MCP server, reads KEY from a file
//! 1  laptop env  KEY by 100 mcp               ... has it in its environment
//!                                             kinds: mcp, tool, other: unexpected readers;
//!                                             cli, agent: expected ones
//! 2  laptop open 7 by 100 10.0.0.5 > 203.0.113.9 collector.example     name, or - for none
//! 3  laptop close 7 512
//! 4  laptop gap 1 4 network                   saw nothing between 1 and 4
//! 9  laptop mark [seen 198.51.100.7] [offset 1500]      watermark
//! 5  use r1 KEY sts GetCallerIdentity from 198.51.100.66 at sts.us-east-1.amazonaws.com
//!                                             from: an address, or svc for a service; at: or -
//! 9  tick
//! set expected example.com                    a setting
//! expect KEY confirmed                        a verdict, or none
//! expect r1 explained                         a use's state
//! ```

#![allow(
    clippy::must_use_candidate,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "test code: it fails by panicking and has no public interface"
)]

use std::net::SocketAddr;

use jiff::{SignedDuration, Timestamp};
use keytrail_join::{Input, Settings};
use keytrail_model::consumption::{Caller, Consumption};
use keytrail_model::coverage::{Coverage, CoverageArea, CoverageRow, CoverageState};
use keytrail_model::credential::CredentialId;
use keytrail_model::fact::{
    ConnectionClosed, ConnectionNamed, ConnectionOpened, Exposure, ExposureSource, Fact, Gap,
    GapKind, HostEvent, NameSource, Transport, Watermark,
};
use keytrail_model::ids::{BootId, ConnectionId, EventRef, HostId, ProcessKey, RecordId};
use keytrail_model::process::{
    Actor, AgentIdentity, Confidence, McpServer, Package, ProcessSummary, UnitKind, User,
};

/// A scenario, taken apart.
#[derive(Debug, Default)]
pub struct Scenario {
    pub settings: Settings,
    pub inputs: Vec<Input>,
    /// Subject (a key or a record) and what is expected of it.
    pub expected: Vec<(String, String)>,
}

pub fn key(name: &str) -> CredentialId {
    let mut id = format!("AKIA{name}");
    while id.len() < 20 {
        id.push('A');
    }
    CredentialId::aws_access_key(&id).unwrap()
}

pub fn record(name: &str) -> RecordId {
    RecordId(format!("aws.cloudtrail:{name}"))
}

pub fn at(seconds: f64) -> Timestamp {
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    start + SignedDuration::from_millis((seconds * 1000.0).round() as i64)
}

pub fn parse(text: &str) -> Scenario {
    let mut scenario = Scenario::default();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        if !words.is_empty() {
            parse_line(&mut scenario, &words)
                .unwrap_or_else(|| panic!("line {}: cannot read `{line}`", number + 1));
        }
    }
    scenario
}

fn parse_line(scenario: &mut Scenario, words: &[&str]) -> Option<()> {
    match *words {
        ["expect", subject, state] => {
            scenario
                .expected
                .push((subject.to_owned(), state.to_owned()));
        }
        ["set", "expected", name] => {
            scenario
                .settings
                .expected_destinations
                .push(name.to_owned());
        }
        ["set", "egress", net] => scenario.settings.declared_egress.push(net.parse().ok()?),
        [time, "tick"] => scenario.inputs.push(Input::Tick {
            time: at(time.parse().ok()?),
        }),
        [time, "use", ref rest @ ..] => {
            let usage = parse_use(at(time.parse().ok()?), rest)?;
            scenario.inputs.push(Input::Use(usage));
        }
        [time, host, "mark", ref rest @ ..] => {
            let option = |name: &str| {
                let place = rest.iter().position(|word| *word == name)?;
                rest.get(place + 1).copied()
            };
            scenario.inputs.push(Input::Watermark(Watermark {
                host: HostId(host.to_owned()),
                boot: boot(),
                time: at(time.parse().ok()?),
                clock_offset_ms: option("offset").map_or(Some(0), |o| o.parse().ok())?,
                clock_error_ms: 5,
                seen_from: option("seen").and_then(|address| address.parse().ok()),
            }));
        }
        [time, host, ref rest @ ..] => {
            let time = at(time.parse().ok()?);
            for fact in parse_fact(time, rest)? {
                let seq = scenario.inputs.len() as u64 + 1;
                let id = EventRef {
                    host: HostId(host.to_owned()),
                    boot: boot(),
                    seq,
                };
                scenario
                    .inputs
                    .push(Input::Host(HostEvent { id, time, fact }));
            }
        }
        _ => return None,
    }
    Some(())
}

fn boot() -> BootId {
    BootId(uuid::Uuid::from_u128(7))
}

fn parse_use(time: Timestamp, words: &[&str]) -> Option<Consumption> {
    let [id, name, service, action, "from", from, "at", server] = *words else {
        return None;
    };
    Some(Consumption {
        granularity_ms: 1_000,
        caller: match from {
            "svc" => Caller::Service {
                service: "cloudformation.amazonaws.com".to_owned(),
            },
            address => Caller::Address {
                address: address.parse().ok()?,
            },
        },
        service: format!("{service}.amazonaws.com"),
        region: Some("us-east-1".to_owned()),
        action: action.to_owned(),
        server_name: (server != "-").then(|| server.to_owned()),
        ..Consumption::new(record(id), key(name), time)
    })
}

fn parse_fact(time: Timestamp, words: &[&str]) -> Option<Vec<Fact>> {
    Some(match *words {
        ["coverage"] => vec![coverage(true)],
        ["coverage", "blind"] => vec![coverage(false)],
        ["read", name, "by", pid, kind] => {
            let source = ExposureSource::File {
                path: "/home/ana/.aws/credentials".to_owned(),
                dev: 1,
                ino: 2,
                entry: Some("default".to_owned()),
                version_known: true,
            };
            vec![exposure(time, name, pid.parse().ok()?, kind, source)?]
        }
        ["env", name, "by", pid, kind] => {
            let source = ExposureSource::Environment {
                variable: "AWS_ACCESS_KEY_ID".to_owned(),
            };
            vec![exposure(time, name, pid.parse().ok()?, kind, source)?]
        }
        ["open", id, "by", pid, local, ">", remote, name] => {
            let id = ConnectionId(id.parse().ok()?);
            let process = process(pid.parse().ok()?);
            let opened = ConnectionOpened {
                id,
                process,
                unit: process,
                exe: "node".to_owned(),
                transport: Transport::Tcp,
                local: SocketAddr::new(local.parse().ok()?, 40_000),
                remote: SocketAddr::new(remote.parse().ok()?, 443),
            };
            let mut facts = vec![Fact::ConnectionOpened(opened)];
            if name != "-" {
                facts.push(Fact::ConnectionNamed(ConnectionNamed {
                    id,
                    name: name.to_owned(),
                    source: NameSource::TlsServerName,
                    alpn: Vec::new(),
                }));
            }
            facts
        }
        ["close", id, sent] => vec![Fact::ConnectionClosed(ConnectionClosed {
            id: ConnectionId(id.parse().ok()?),
            bytes_sent: sent.parse().ok()?,
            bytes_received: 100,
        })],
        ["gap", from, to, what] => vec![Fact::Gap(Gap {
            from: at(from.parse().ok()?),
            to: at(to.parse().ok()?),
            what: match what {
                "network" => GapKind::Network,
                "access" => GapKind::Access,
                "all" => GapKind::All,
                _ => return None,
            },
            count: None,
            reason: "ring full".to_owned(),
        })],
        _ => return None,
    })
}

fn coverage(complete: bool) -> Fact {
    let state = if complete {
        CoverageState::Live {
            hook: "inet_sock_set_state".to_owned(),
        }
    } else {
        CoverageState::Missing {
            reason: "no such hook".to_owned(),
            blinds_verdicts: true,
        }
    };
    Fact::Coverage(Coverage {
        kernel: "6.18".to_owned(),
        plan: "B".to_owned(),
        scope: None,
        agent_version: "0.1.0".to_owned(),
        rows: vec![CoverageRow {
            area: CoverageArea::Network,
            what: "TCP connections".to_owned(),
            state,
        }],
    })
}

fn process(pid: u32) -> ProcessKey {
    ProcessKey {
        pid,
        start_ns: u64::from(pid) * 1_000,
    }
}

fn exposure(
    time: Timestamp,
    name: &str,
    pid: u32,
    kind: &str,
    source: ExposureSource,
) -> Option<Fact> {
    let (unit_kind, unexpected_reader) = match kind {
        "mcp" => (UnitKind::McpServer, true),
        "tool" => (UnitKind::ShellTool, true),
        "other" => (UnitKind::Other, true),
        "cli" => (UnitKind::ShellTool, false),
        "agent" => (UnitKind::Agent, false),
        _ => return None,
    };
    let agent = AgentIdentity {
        product: "codex-cli".to_owned(),
        name: "Codex CLI".to_owned(),
        version: Some("0.169.0".to_owned()),
        root: process(1),
        method: "executable inside @openai/codex".to_owned(),
        confidence: Confidence::High,
    };
    let server = McpServer {
        name: Some("files".to_owned()),
        config: Some("/home/ana/.codex/config.toml".to_owned()),
        scope: Some("user".to_owned()),
        package: Some(Package {
            ecosystem: "npm".to_owned(),
            name: "mcp-server-filesytem".to_owned(),
            version: Some("1.0.3".to_owned()),
        }),
    };
    Some(Fact::Exposure(Box::new(Exposure {
        credential: key(name),
        source,
        process: process(pid),
        actor: Actor {
            unit: process(pid),
            unit_kind,
            agent: (kind != "other").then_some(agent),
            mcp_server: (unit_kind == UnitKind::McpServer).then_some(server),
            user: Some(User {
                uid: 1000,
                name: Some("ana".to_owned()),
                login_uid: None,
            }),
            lineage: vec![ProcessSummary {
                key: process(pid),
                exe: "/usr/bin/node".to_owned(),
                argv: vec!["node".to_owned()],
                started: time,
            }],
        },
        unexpected_reader,
        destinations: Vec::new(),
    })))
}
