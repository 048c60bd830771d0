//! The small language of `cases/*.txt`: one input a line, so that a new case is a file.
//!
//! Times are seconds after 2026-01-01T00:00:00Z. Words after `#` are comments.
//!
//! ```text
//! 0  laptop coverage                          every hook live (or: coverage blind)
//! 1  laptop read KEY by 100 mcp               unit 100, an MCP server, reads KEY from a file
//! 1  laptop env  KEY by 100 mcp               ... has it in its environment
//! 1  laptop mem  KEY by 100 mcp               ... takes it out of another process's memory
//!                                             kinds: mcp, tool, other, install (a package's
//!                                             script), unlisted (an MCP server in no
//!                                             configuration): unexpected readers;
//!                                             cli, agent, server: expected ones
//! 2  laptop open 7 by 100 10.0.0.5 > 203.0.113.9 collector.example     name, or - for none
//! 3  laptop close 7 512
//! 4  laptop gap 1 4 network                   saw nothing between 1 and 4
//! 4  laptop lookups by 100 evil.example 6 420 six names under a domain, 420 bytes of names
//! 4  laptop listen by 100 mcp 0.0.0.0:8080
//! 4  laptop accept 9 by 100 203.0.113.5 no    authenticated: yes, no or - (cannot be seen)
//! 4  laptop ask docker by 100 /run/docker.sock
//! 4  laptop config mcp-server-added evil by 100 mcp   (or: by -, not seen who; by agent)
//! 4  laptop tamper bpf-loaded by 100          (or: agent-stopped, program-silent; by -)
//! 9  laptop mark [seen 198.51.100.7] [offset 1500]      watermark
//! 5  use r1 KEY sts GetCallerIdentity from 198.51.100.66 at sts.us-east-1.amazonaws.com
//!                                             from: an address, - or svc for a service; at: or -
//!        then, in any number: mints=KEY descends=KEY,KEY class=secret-read region=eu-west-1
//!        on=RESOURCE revokes=KEY asn=64500 country=DE pool=NAME client=NAME as=PRINCIPAL weak
//!        failed
//! 10+60*20 use ...                            twenty times, every 60 seconds; `%` in the record's
//!                                             name, and in on=, becomes the number
//! 9  tick
//! 9  policy {"pins":[...]}                     people allow something
//! set expected example.com                    a setting; or a whole line of JSON: set {...}
//! expect KEY confirmed                        a verdict, or none
//! expect KEY has honeytoken-use               a reason's code
//! expect r1 explained                         a use's state
//! ```
//!
//! A KEY is a name (an AWS key of that name; `S...` a session key, `gh-...` a GitHub token) or a
//! whole credential id.

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
use keytrail_model::consumption::{Caller, Consumption, JoinStrength, Network, Outcome};
use keytrail_model::coverage::{Coverage, CoverageArea, CoverageRow, CoverageState};
use keytrail_model::credential::CredentialId;
use keytrail_model::fact::{
    Accepted, ConfigChanged, ConnectionClosed, ConnectionNamed, ConnectionOpened, Exposure,
    ExposureSource, Fact, Gap, GapKind, HostEvent, Listening, NameLookups, NameSource, RequestEdge,
    Tampering, Transport, Watermark,
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
    /// Subject and the code of a reason that its alert gives.
    pub reasons: Vec<(String, String)>,
}

pub fn key(name: &str) -> CredentialId {
    if name.contains(':') {
        return name.parse().unwrap();
    }
    if name.starts_with("gh-") {
        return CredentialId::github_token(name.as_bytes());
    }
    let prefix = if name.starts_with('S') {
        "ASIA"
    } else {
        "AKIA"
    };
    let mut id = format!("{prefix}{name}");
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
        if let Some(json) = line.strip_prefix("set {") {
            let settings = serde_json::from_str(&format!("{{{json}"));
            scenario.settings =
                settings.unwrap_or_else(|e| panic!("line {}: settings: {e}", number + 1));
            continue;
        }
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        let read = match words.first().and_then(|word| repeated(word)) {
            Some(times) => times.enumerate().try_for_each(|(n, time)| {
                let words: Vec<String> = words
                    .iter()
                    .map(|word| word.replace('%', &n.to_string()))
                    .collect();
                let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
                words[0] = &time;
                parse_line(&mut scenario, &words)
            }),
            None if words.is_empty() => Some(()),
            None => parse_line(&mut scenario, &words),
        };
        read.unwrap_or_else(|| panic!("line {}: cannot read `{line}`", number + 1));
    }
    scenario
}

/// `10+60*20`: the twenty times 10, 70, 130 ...
fn repeated(word: &str) -> Option<impl Iterator<Item = String>> {
    let (first, rest) = word.split_once('+')?;
    let (step, count) = rest.split_once('*')?;
    let (first, step): (f64, f64) = (first.parse().ok()?, step.parse().ok()?);
    let count: u32 = count.parse().ok()?;
    Some((0..count).map(move |n| (first + step * f64::from(n)).to_string()))
}

fn parse_line(scenario: &mut Scenario, words: &[&str]) -> Option<()> {
    match *words {
        ["expect", subject, state] => {
            scenario
                .expected
                .push((subject.to_owned(), state.to_owned()));
        }
        ["expect", subject, "has", code] => {
            scenario.reasons.push((subject.to_owned(), code.to_owned()));
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
        [time, "policy", ref json @ ..] => scenario.inputs.push(Input::Policy {
            time: at(time.parse().ok()?),
            policy: serde_json::from_str(&json.join(" ")).ok()?,
        }),
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
                seen_network: None,
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
    let [
        id,
        name,
        service,
        action,
        "from",
        from,
        "at",
        server,
        ref options @ ..,
    ] = *words
    else {
        return None;
    };
    let mut usage = Consumption {
        granularity_ms: 1_000,
        caller: match from {
            "svc" => Caller::Service {
                service: "cloudformation.amazonaws.com".to_owned(),
            },
            "-" => Caller::Unknown,
            address => Caller::Address {
                address: address.parse().ok()?,
            },
        },
        service: match service {
            "github" => "api.github.com".to_owned(),
            service => format!("{service}.amazonaws.com"),
        },
        endpoints: match service {
            "github" => vec!["api.github.com".to_owned()],
            _ => Vec::new(),
        },
        region: Some("us-east-1".to_owned()),
        action: action.to_owned(),
        server_name: (server != "-").then(|| server.to_owned()),
        ..Consumption::new(record(id), key(name), time)
    };
    for option in options {
        apply_option(&mut usage, option)?;
    }
    Some(usage)
}

fn apply_option(usage: &mut Consumption, option: &str) -> Option<()> {
    let network = |usage: &Consumption| usage.network.clone().unwrap_or_default();
    match option.split_once('=').unwrap_or((option, "")) {
        ("mints", child) => usage.minted = Some(key(child)),
        ("descends", all) => usage.descends = all.split(',').map(key).collect(),
        ("class", class) => {
            usage.class = serde_json::from_value(serde_json::Value::from(class)).ok()?;
        }
        ("region", region) => usage.region = Some(region.to_owned()),
        ("on", resource) => usage.resources.push(resource.to_owned()),
        ("revokes", other) => usage.revoked = Some(key(other)),
        ("restores", other) => usage.restored = Some(key(other)),
        ("asn", number) => {
            usage.network = Some(Network {
                asn: Some(number.parse().ok()?),
                ..network(usage)
            });
        }
        ("country", code) => {
            usage.network = Some(Network {
                country: Some(code.to_owned()),
                ..network(usage)
            });
        }
        ("pool", name) => {
            usage.network = Some(Network {
                pool: Some(name.to_owned()),
                ..network(usage)
            });
        }
        ("client", agent) => usage.user_agent = Some(agent.to_owned()),
        ("as", principal) => usage.principal = Some(principal.to_owned()),
        ("weak", _) => usage.strength = JoinStrength::PrincipalAddressTime,
        ("failed", _) => usage.outcome = Outcome::Failure("AccessDenied".to_owned()),
        _ => return None,
    }
    Some(())
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
        ["mem", name, "by", pid, kind] => {
            let source = ExposureSource::Process {
                victim: process(55),
                exe: "/opt/runner/bin/Runner.Worker".to_owned(),
                via: "mem".to_owned(),
            };
            vec![exposure(time, name, pid.parse().ok()?, kind, source)?]
        }
        ["lookups", "by", pid, domain, names, bytes] => {
            let names = names.parse().ok()?;
            vec![Fact::NameLookups(NameLookups {
                process: process(pid.parse().ok()?),
                unit: process(pid.parse().ok()?),
                domain: domain.to_owned(),
                since: time,
                questions: names,
                names,
                bytes: bytes.parse().ok()?,
            })]
        }
        ["listen", "by", pid, kind, local] => {
            let pid = pid.parse().ok()?;
            vec![Fact::Listening(Box::new(Listening {
                process: process(pid),
                actor: actor(time, pid, kind)?.0,
                local: local.parse().ok()?,
            }))]
        }
        ["accept", id, "by", pid, remote, authenticated] => vec![Fact::Accepted(Accepted {
            id: ConnectionId(id.parse().ok()?),
            process: process(pid.parse().ok()?),
            unit: process(pid.parse().ok()?),
            local: "10.0.0.5:8080".parse().ok()?,
            remote: SocketAddr::new(remote.parse().ok()?, 50_000),
            authenticated: match authenticated {
                "yes" => Some(true),
                "no" => Some(false),
                _ => None,
            },
        })],
        ["ask", daemon, "by", pid, through] => vec![Fact::RequestEdge(RequestEdge {
            process: process(pid.parse().ok()?),
            unit: process(pid.parse().ok()?),
            daemon: daemon.to_owned(),
            through: through.to_owned(),
        })],
        ["config", change, entry, "by", ref who @ ..] => {
            vec![Fact::ConfigChanged(Box::new(ConfigChanged {
                path: "/home/ana/.claude.json".to_owned(),
                product: "claude-code".to_owned(),
                actor: match *who {
                    [pid, kind] => Some(actor(time, pid.parse().ok()?, kind)?.0),
                    _ => None,
                },
                change: change.to_owned(),
                entry: entry.to_owned(),
                by_agent: *who == ["agent"],
            }))]
        }
        ["tamper", what, "by", pid] => vec![Fact::Tampering(Tampering {
            what: serde_json::from_value(serde_json::Value::from(what)).ok()?,
            detail: "made up".to_owned(),
            process: pid.parse().ok().map(process),
            unit: pid.parse().ok().map(process),
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
    let (actor, unexpected_reader) = actor(time, pid, kind)?;
    Some(Fact::Exposure(Box::new(Exposure {
        credential: key(name),
        source,
        process: process(pid),
        actor,
        unexpected_reader,
        destinations: Vec::new(),
    })))
}

/// Who a process is, and whether it is an unexpected reader.
fn actor(time: Timestamp, pid: u32, kind: &str) -> Option<(Actor, bool)> {
    let (unit_kind, unexpected) = match kind {
        "mcp" | "unlisted" => (UnitKind::McpServer, true),
        "server" => (UnitKind::McpServer, false),
        "tool" => (UnitKind::ShellTool, true),
        "other" | "install" => (UnitKind::Other, true),
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
    let listed = kind != "unlisted";
    let package = match kind {
        "server" => "awslabs.core-mcp-server",
        _ => "mcp-server-filesytem",
    };
    let server = McpServer {
        name: listed.then(|| if kind == "server" { "aws" } else { "files" }.to_owned()),
        config: listed.then(|| "/home/ana/.codex/config.toml".to_owned()),
        scope: listed.then(|| "user".to_owned()),
        package: Some(Package {
            ecosystem: "npm".to_owned(),
            name: package.to_owned(),
            version: Some("1.0.3".to_owned()),
        }),
    };
    let summary = |pid: u32, exe: &str, argv: &[&str]| ProcessSummary {
        key: process(pid),
        exe: exe.to_owned(),
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        started: time,
    };
    let program = if kind == "cli" { "aws" } else { "node" };
    let mut lineage = vec![summary(pid, &format!("/usr/bin/{program}"), &[program])];
    if kind == "install" {
        lineage.push(summary(
            2,
            "/usr/bin/node",
            &["node", "/usr/bin/npm", "install"],
        ));
    }
    let actor = Actor {
        unit: process(pid),
        unit_kind,
        agent: (unit_kind != UnitKind::Other).then_some(agent),
        mcp_server: (unit_kind == UnitKind::McpServer).then_some(server),
        user: Some(User {
            uid: 1000,
            name: Some("ana".to_owned()),
            login_uid: None,
            ..User::default()
        }),
        lineage,
    };
    Some((actor, unexpected))
}
