//! What a line about a host says, as the facts that its sensor would send.

use std::net::SocketAddr;

use jiff::Timestamp;
use keytrail_model::coverage::{Coverage, CoverageArea, CoverageRow, CoverageState};
use keytrail_model::fact::{
    Accepted, ConfigChanged, ConnectionClosed, ConnectionNamed, ConnectionOpened, Exposure,
    ExposureSource, Fact, Gap, GapKind, Listening, NameLookups, NameSource, ProcessExited,
    ProcessStarted, RequestEdge, TamperKind, Tampering, Transport,
};
use keytrail_model::ids::{ConnectionId, ProcessKey};
use keytrail_model::process::{McpServer, Package, ProcessSummary, UnitKind, User};

use crate::error::Fault;
use crate::moment::{later, moment, span};
use crate::words::{Words, parse};
use crate::world::{HostWorld, Process, World, address_of, agent, inode_of, socket};

/// A fact and its true time.
pub(crate) type Timed = (Timestamp, Fact);

/// The facts of one line; `verb` has been taken from `words`.
pub(crate) fn facts(
    world: &mut World,
    host: &str,
    time: Timestamp,
    verb: &str,
    words: &mut Words,
) -> Result<Vec<Timed>, Fault> {
    let start = world.start;
    let fact = match verb {
        "read" | "env" | "socket" | "metadata" | "memory" => {
            let name = words.next("the credential's name")?;
            let credential = world.credential(&name)?.clone();
            let host = world.host(host)?;
            let by = words.need("by=")?;
            Fact::Exposure(Box::new(Exposure {
                credential,
                source: exposure_source(host, verb, words)?,
                process: host.process(&by)?.summary.key,
                actor: host.actor(&by)?,
                unexpected_reader: words.either("unexpected", "expected")?,
                destinations: words.list("to"),
            }))
        }
        _ => return host_facts(world.host(host)?, start, time, verb, words),
    };
    Ok(vec![(time, fact)])
}

fn host_facts(
    host: &mut HostWorld,
    start: Timestamp,
    time: Timestamp,
    verb: &str,
    words: &mut Words,
) -> Result<Vec<Timed>, Fault> {
    let fact = match verb {
        "start" => started(host, time, words)?,
        "exit" => {
            let process = host.process(&words.next("the process's name")?)?;
            Fact::ProcessExited(ProcessExited {
                process: process.summary.key,
                status: words.parse("status", "wait status")?.unwrap_or(0),
            })
        }
        "connect" => return connected(host, time, words),
        "close" => {
            let id = host.connection(&words.next("the connection's name")?)?;
            closed(id, words)?
        }
        "dns" => lookups(host, time, words)?,
        "listen" => {
            let by = words.need("by=")?;
            Fact::Listening(Box::new(Listening {
                process: host.process(&by)?.summary.key,
                actor: host.actor(&by)?,
                local: parse(&words.need("on=")?, "address:port")?,
            }))
        }
        "accept" => return accepted(host, time, words),
        "config" => config(host, words)?,
        "request" => {
            let (process, unit) = doer(host, &words.need("by=")?)?;
            Fact::RequestEdge(RequestEdge {
                process,
                unit,
                daemon: words.need("daemon=")?,
                through: words.need("through=")?,
            })
        }
        "gap" => Fact::Gap(Gap {
            // The host stamps them by its own clock.
            from: later(moment(&words.need("from=")?, start)?, host.offset)?,
            to: later(moment(&words.need("to=")?, start)?, host.offset)?,
            what: gap_kind(&words.need("what=")?)?,
            count: words.parse("count", "number")?,
            reason: words
                .get("reason")
                .unwrap_or_else(|| "ring full".to_owned()),
        }),
        "coverage" => coverage(words)?,
        "tamper" => {
            let by = words.get("by").map(|by| doer(host, &by)).transpose()?;
            Fact::Tampering(Tampering {
                what: tamper_kind(&words.need("what=")?)?,
                detail: words.get("detail").unwrap_or_default(),
                process: by.map(|(process, _)| process),
                unit: by.map(|(_, unit)| unit),
            })
        }
        other => {
            return Err(Fault::Form {
                found: other.to_owned(),
                wanted: "endpoint event (start, exit, read, env, socket, metadata, memory, connect, \
                         close, dns, listen, accept, config, request, gap, coverage, tamper, \
                         watermark, offline, network, boot)",
            });
        }
    };
    Ok(vec![(time, fact)])
}

fn doer(host: &HostWorld, name: &str) -> Result<(ProcessKey, ProcessKey), Fault> {
    let process = host.process(name)?;
    Ok((process.summary.key, process.unit))
}

fn exposure_source(
    host: &HostWorld,
    verb: &str,
    words: &mut Words,
) -> Result<ExposureSource, Fault> {
    Ok(match verb {
        "read" => {
            let path = words.need("path=")?;
            ExposureSource::File {
                dev: 1,
                ino: inode_of(&path),
                path,
                entry: words.get("entry"),
                version_known: !words.flag("version-unknown"),
            }
        }
        "env" => ExposureSource::Environment {
            variable: words.need("variable=")?,
        },
        "socket" => ExposureSource::Socket {
            path: words.need("path=")?,
        },
        "metadata" => ExposureSource::Metadata {
            address: socket(&words.need("address=")?, 80)?,
        },
        _ => {
            let victim = host.process(&words.need("victim=")?)?;
            ExposureSource::Process {
                victim: victim.summary.key,
                exe: victim.summary.exe.clone(),
                via: words.get("via").unwrap_or_else(|| "mem".to_owned()),
            }
        }
    })
}

/// `start NAME [parent=] [agent=] [mcp=] [tool] [unit] ...`
fn started(host: &mut HostWorld, time: Timestamp, words: &mut Words) -> Result<Fact, Fault> {
    let name = words.next("the process's name")?;
    if host.processes.contains_key(&name) {
        return Err(Fault::Taken {
            kind: "process",
            name,
        });
    }
    let number = host.number();
    let key = ProcessKey {
        pid: 1_000 + number,
        start_ns: u64::from(number) * 1_000_000,
    };
    let parent_name = words.get("parent");
    let parent = parent_name
        .as_ref()
        .map(|parent| host.process(parent).cloned())
        .transpose()?;
    let exe = words
        .get("exe")
        .unwrap_or_else(|| format!("/usr/bin/{name}"));
    let argv = words.get("argv").unwrap_or_else(|| exe.clone());
    let summary = ProcessSummary {
        key,
        exe,
        argv: argv.split(' ').map(str::to_owned).collect(),
        started: later(time, host.offset)?,
    };
    let mut process = Process {
        summary: summary.clone(),
        unit: parent.as_ref().map_or(key, |parent| parent.unit),
        unit_kind: parent.as_ref().map_or(UnitKind::Other, |p| p.unit_kind),
        agent: parent.as_ref().and_then(|parent| parent.agent.clone()),
        mcp_server: parent.as_ref().and_then(|parent| parent.mcp_server.clone()),
        user: parent
            .as_ref()
            .map_or_else(|| host.user(), |p| p.user.clone()),
        parent: parent_name,
    };
    unit_of(&mut process, words)?;
    user_of(&mut process.user, words)?;
    let fact = Fact::ProcessStarted(ProcessStarted {
        process: summary,
        parent: parent.map(|parent| parent.summary.key),
        unit: process.unit,
    });
    host.processes.insert(name, process);
    Ok(fact)
}

/// Which unit a new process begins, if any.
fn unit_of(process: &mut Process, words: &mut Words) -> Result<(), Fault> {
    let key = process.summary.key;
    if let Some(product) = words.get("agent") {
        process.agent = Some(agent(
            &product,
            words.get("agent-name"),
            words.get("version"),
            key,
        ));
        process.mcp_server = None;
        (process.unit, process.unit_kind) = (key, UnitKind::Agent);
    } else if let Some(server) = words.get("mcp") {
        process.mcp_server = Some(McpServer {
            name: (server != "?").then_some(server),
            config: words.get("config"),
            scope: words.get("scope"),
            package: words
                .get("package")
                .map(|text| package(&text))
                .transpose()?,
        });
        (process.unit, process.unit_kind) = (key, UnitKind::McpServer);
    } else if words.flag("tool") {
        process.mcp_server = None;
        (process.unit, process.unit_kind) = (key, UnitKind::ShellTool);
    } else if words.flag("unit") {
        process.mcp_server = None;
        (process.unit, process.unit_kind) = (key, UnitKind::Other);
    }
    Ok(())
}

fn user_of(user: &mut User, words: &mut Words) -> Result<(), Fault> {
    if let Some(name) = words.get("user") {
        user.name = Some(name);
    }
    if let Some(uid) = words.parse("uid", "user id")? {
        user.uid = uid;
    }
    if let Some(login) = words.parse("login-uid", "user id")? {
        user.login_uid = Some(login);
    }
    Ok(())
}

/// `npm:@scope/name@1.2.3`
fn package(text: &str) -> Result<Package, Fault> {
    let fault = || Fault::Form {
        found: text.to_owned(),
        wanted: "package such as npm:@scope/name@1.2.3",
    };
    let (ecosystem, rest) = text.split_once(':').ok_or_else(fault)?;
    // A scope begins with `@` too.
    let at = rest
        .char_indices()
        .skip(1)
        .filter(|(_, c)| *c == '@')
        .last();
    let (name, version) = match at {
        Some((at, _)) => (
            rest.get(..at).unwrap_or(rest),
            rest.get(at + 1..).map(str::to_owned),
        ),
        None => (rest, None),
    };
    if ecosystem.is_empty() || name.is_empty() {
        return Err(fault());
    }
    Ok(Package {
        ecosystem: ecosystem.to_owned(),
        name: name.to_owned(),
        version,
    })
}

/// `connect NAME by= (to=NAME | address=) [port=] [udp] [local=] [named-by=dns] [for=] [sent=]`
fn connected(
    host: &mut HostWorld,
    time: Timestamp,
    words: &mut Words,
) -> Result<Vec<Timed>, Fault> {
    let (process, unit) = doer(host, &words.need("by=")?)?;
    let exe = host
        .processes
        .values()
        .find(|p| p.summary.key == process)
        .map(Process::exe_name)
        .unwrap_or_default();
    let (id, number) = new_connection(host, words)?;
    let peer = words.get("to");
    let port = words.parse("port", "port")?.unwrap_or(443);
    let remote = match (words.get("address"), &peer) {
        (Some(address), _) => socket(&address, port)?,
        (None, Some(name)) => SocketAddr::new(address_of(name), port),
        (None, None) => return Err(Fault::Missing("to= or address=")),
    };
    let local = match words.get("local") {
        Some(local) => parse(&local, "IP address")?,
        None => host.address(),
    };
    let opened = ConnectionOpened {
        id,
        process,
        unit,
        exe,
        transport: if words.flag("udp") {
            Transport::Udp
        } else {
            Transport::Tcp
        },
        local: SocketAddr::new(local, u16::try_from(number % 20_000).unwrap_or(0) + 40_000),
        remote,
    };
    let mut facts = vec![(time, Fact::ConnectionOpened(opened))];
    if let Some(name) = peer {
        let source = match words.get("named-by").as_deref() {
            None | Some("tls") => NameSource::TlsServerName,
            Some("dns") => NameSource::Dns,
            Some(other) => {
                return Err(Fault::Form {
                    found: other.to_owned(),
                    wanted: "source of a name (tls, dns)",
                });
            }
        };
        let alpn = words.list("alpn");
        let named = ConnectionNamed {
            id,
            name: name.to_ascii_lowercase(),
            source,
            alpn,
        };
        facts.push((time, Fact::ConnectionNamed(named)));
    }
    end_of(id, time, words, &mut facts)?;
    Ok(facts)
}

fn new_connection(host: &mut HostWorld, words: &mut Words) -> Result<(ConnectionId, u32), Fault> {
    let name = words.next("the connection's name")?;
    if host.connections.contains_key(&name) {
        return Err(Fault::Taken {
            kind: "connection",
            name,
        });
    }
    let number = host.number();
    let id = ConnectionId(u64::from(number));
    host.connections.insert(name, id);
    Ok((id, number))
}

fn end_of(
    id: ConnectionId,
    time: Timestamp,
    words: &mut Words,
    facts: &mut Vec<Timed>,
) -> Result<(), Fault> {
    if let Some(lasts) = words.get("for") {
        facts.push((later(time, span(&lasts)?)?, closed(id, words)?));
    }
    Ok(())
}

fn closed(id: ConnectionId, words: &mut Words) -> Result<Fact, Fault> {
    Ok(Fact::ConnectionClosed(ConnectionClosed {
        id,
        bytes_sent: words.parse("sent", "number of bytes")?.unwrap_or(900),
        bytes_received: words.parse("received", "number of bytes")?.unwrap_or(900),
    }))
}

fn accepted(host: &mut HostWorld, time: Timestamp, words: &mut Words) -> Result<Vec<Timed>, Fault> {
    let (process, unit) = doer(host, &words.need("by=")?)?;
    let (id, _) = new_connection(host, words)?;
    let authenticated = match words.get("authenticated").as_deref() {
        None => None,
        Some("yes") => Some(true),
        Some("no") => Some(false),
        Some(other) => {
            return Err(Fault::Form {
                found: other.to_owned(),
                wanted: "answer (yes, no; leave it away when it cannot be seen)",
            });
        }
    };
    let fact = Fact::Accepted(Accepted {
        id,
        process,
        unit,
        local: parse(&words.need("on=")?, "address:port")?,
        remote: socket(&words.need("from=")?, 50_000)?,
        authenticated,
    });
    let mut facts = vec![(time, fact)];
    end_of(id, time, words, &mut facts)?;
    Ok(facts)
}

fn lookups(host: &HostWorld, time: Timestamp, words: &mut Words) -> Result<Fact, Fault> {
    let (process, unit) = doer(host, &words.need("by=")?)?;
    let over = words.get("over").map(|text| span(&text)).transpose()?;
    let since = later(time, -over.unwrap_or_default())?;
    Ok(Fact::NameLookups(NameLookups {
        process,
        unit,
        domain: words.need("domain=")?,
        since: later(since, host.offset)?,
        questions: words.parse("questions", "number")?.unwrap_or(1),
        names: words.parse("names", "number")?.unwrap_or(1),
        bytes: words.parse("bytes", "number of bytes")?.unwrap_or(20),
    }))
}

fn config(host: &HostWorld, words: &mut Words) -> Result<Fact, Fault> {
    let by = words.get("by");
    Ok(Fact::ConfigChanged(Box::new(ConfigChanged {
        path: words.need("path=")?,
        product: words.need("product=")?,
        actor: by.map(|by| host.actor(&by)).transpose()?,
        change: words.need("change=")?,
        entry: words.need("entry=")?,
        by_agent: words.flag("by-agent"),
    })))
}

fn coverage(words: &mut Words) -> Result<Fact, Fault> {
    let missing = words.get("missing");
    let blinds = words.flag("blind");
    Ok(Fact::Coverage(full_coverage(missing, blinds)))
}

/// Coverage with every hook live, or with one missing.
pub(crate) fn full_coverage(missing: Option<String>, blinds_verdicts: bool) -> Coverage {
    let live = |what: &str, area| CoverageRow {
        area,
        what: what.to_owned(),
        state: CoverageState::Live {
            hook: "lsm".to_owned(),
        },
    };
    let mut rows = vec![
        live("fork, exec, exit", CoverageArea::Process),
        live("open and read by any path", CoverageArea::Access),
        live("TCP connections", CoverageArea::Network),
    ];
    if blinds_verdicts || missing.is_some() {
        rows.push(CoverageRow {
            area: CoverageArea::Network,
            what: missing.unwrap_or_else(|| "TCP connections".to_owned()),
            state: CoverageState::Missing {
                reason: "no such hook on this kernel".to_owned(),
                blinds_verdicts,
            },
        });
    }
    Coverage {
        kernel: "6.12.57".to_owned(),
        plan: "A".to_owned(),
        scope: None,
        agent_version: "0.1.0".to_owned(),
        rows,
    }
}

fn gap_kind(text: &str) -> Result<GapKind, Fault> {
    Ok(match text {
        "access" => GapKind::Access,
        "network" => GapKind::Network,
        "process" => GapKind::Process,
        "all" => GapKind::All,
        other => {
            return Err(Fault::Form {
                found: other.to_owned(),
                wanted: "kind of gap (access, network, process, all)",
            });
        }
    })
}

fn tamper_kind(text: &str) -> Result<TamperKind, Fault> {
    Ok(match text {
        "program-silent" => TamperKind::ProgramSilent,
        "pin-removed" => TamperKind::PinRemoved,
        "agent-stopped" => TamperKind::AgentStopped,
        "clock-moved" => TamperKind::ClockMoved,
        "bpf-loaded" => TamperKind::BpfLoaded,
        other => {
            return Err(Fault::Form {
                found: other.to_owned(),
                wanted: "kind of tampering (program-silent, pin-removed, agent-stopped, \
                         clock-moved, bpf-loaded)",
            });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_with_and_without_scope_and_version() {
        for (text, name, version) in [
            ("npm:@a/b@1.0.3", "@a/b", Some("1.0.3")),
            ("npm:@a/b", "@a/b", None),
            ("pypi:litellm@1.82.8", "litellm", Some("1.82.8")),
        ] {
            let package = package(text).unwrap();
            assert_eq!(
                (package.name.as_str(), package.version.as_deref()),
                (name, version)
            );
        }
        assert!(package("litellm").is_err());
    }
}
