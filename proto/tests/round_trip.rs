//! Model -> wire -> bytes -> wire -> model is the identity, for every kind of fact; hostile wire
//! values are refused by field, never by panic.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::type_complexity,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "helpers of tests"
)]

use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};

use jiff::Timestamp;
use keytrail_model::coverage::{Coverage, CoverageArea, CoverageRow, CoverageState};
use keytrail_model::credential::CredentialId;
use keytrail_model::fact::{
    Accepted, ConfigChanged, ConnectionClosed, ConnectionNamed, ConnectionOpened, Exposure,
    ExposureSource, Fact, Gap, GapKind, Listening, NameLookups, NameSource, ProcessExited,
    ProcessStarted, RequestEdge, TamperKind, Tampering, Transport,
};
use keytrail_model::ids::{ConnectionId, ProcessKey};
use keytrail_model::process::{
    Actor, AgentIdentity, Confidence, Container, McpServer, Package, Person, ProcessSummary,
    UnitKind, User,
};
use keytrail_proto::block::{decode_fact, encode_fact};
use keytrail_proto::convert;
use keytrail_proto::wire;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

fn text() -> impl Strategy<Value = String> {
    ".{0,12}"
}

fn time() -> impl Strategy<Value = Timestamp> {
    (
        Timestamp::MIN.as_second() + 1..Timestamp::MAX.as_second(),
        0..1_000_000_000_i32,
    )
        .prop_map(|(seconds, nanos)| Timestamp::new(seconds, nanos).unwrap())
}

fn key() -> impl Strategy<Value = ProcessKey> {
    any::<(u32, u64)>().prop_map(|(pid, start_ns)| ProcessKey { pid, start_ns })
}

fn process() -> impl Strategy<Value = ProcessSummary> {
    (key(), text(), vec(text(), 0..3), time()).prop_map(|(key, exe, argv, started)| {
        ProcessSummary {
            key,
            exe,
            argv,
            started,
        }
    })
}

fn address() -> impl Strategy<Value = SocketAddr> {
    any::<(IpAddr, u16, u32, u32)>().prop_map(|(ip, port, flow, scope)| match ip {
        IpAddr::V4(ip) => SocketAddrV4::new(ip, port).into(),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, port, flow, scope).into(),
    })
}

fn credential() -> impl Strategy<Value = CredentialId> {
    prop_oneof![
        "[A-Z0-9]{16,32}".prop_map(|id| CredentialId::aws_access_key(&id).unwrap()),
        vec(any::<u8>(), 0..40).prop_map(|token| CredentialId::github_token(&token)),
    ]
}

fn confidence() -> impl Strategy<Value = Confidence> {
    prop_oneof![
        Just(Confidence::Low),
        Just(Confidence::Medium),
        Just(Confidence::High)
    ]
}

fn agent() -> impl Strategy<Value = AgentIdentity> {
    (text(), text(), of(text()), key(), text(), confidence()).prop_map(
        |(product, name, version, root, method, confidence)| AgentIdentity {
            product,
            name,
            version,
            root,
            method,
            confidence,
        },
    )
}

fn mcp_server() -> impl Strategy<Value = McpServer> {
    let package = (text(), text(), of(text())).prop_map(|(ecosystem, name, version)| Package {
        ecosystem,
        name,
        version,
    });
    (of(text()), of(text()), of(text()), of(package)).prop_map(|(name, config, scope, package)| {
        McpServer {
            name,
            config,
            scope,
            package,
        }
    })
}

fn actor() -> impl Strategy<Value = Actor> {
    let kind = prop_oneof![
        Just(UnitKind::McpServer),
        Just(UnitKind::ShellTool),
        Just(UnitKind::Agent),
        Just(UnitKind::Other)
    ];
    let person = (any::<u32>(), of(text()), of(text()), text(), confidence()).prop_map(
        |(uid, name, session, method, confidence)| Person {
            uid,
            name,
            session,
            method,
            confidence,
        },
    );
    let container = (text(), of(text()), of(text())).prop_map(|(id, runtime, pod)| Container {
        id,
        runtime,
        pod,
    });
    let user = (
        any::<u32>(),
        of(text()),
        of(any::<u32>()),
        of(person),
        of(container),
    )
        .prop_map(|(uid, name, login_uid, person, container)| User {
            uid,
            name,
            login_uid,
            person,
            container,
        })
        // Strategies are values: unboxed, the whole fact's would not fit a test's stack.
        .boxed();
    (
        key(),
        kind,
        of(agent()),
        of(mcp_server()),
        of(user),
        vec(process(), 0..4),
    )
        .prop_map(
            |(unit, unit_kind, agent, mcp_server, user, lineage)| Actor {
                unit,
                unit_kind,
                agent,
                mcp_server,
                user,
                lineage,
            },
        )
}

fn exposure() -> impl Strategy<Value = Fact> {
    let source = prop_oneof![
        (
            text(),
            any::<u64>(),
            any::<u64>(),
            of(text()),
            any::<bool>()
        )
            .prop_map(
                |(path, dev, ino, entry, version_known)| ExposureSource::File {
                    path,
                    dev,
                    ino,
                    entry,
                    version_known
                }
            ),
        text().prop_map(|variable| ExposureSource::Environment { variable }),
        text().prop_map(|path| ExposureSource::Socket { path }),
        address().prop_map(|address| ExposureSource::Metadata { address }),
        (key(), text(), text()).prop_map(|(victim, exe, via)| ExposureSource::Process {
            victim,
            exe,
            via
        }),
    ];
    let names = vec(text(), 0..3);
    (credential(), source, key(), actor(), any::<bool>(), names).prop_map(
        |(credential, source, process, actor, unexpected_reader, destinations)| {
            Fact::Exposure(Box::new(Exposure {
                credential,
                source,
                process,
                actor,
                unexpected_reader,
                destinations,
            }))
        },
    )
}

fn connection() -> impl Strategy<Value = Fact> {
    let transport = prop_oneof![
        Just(Transport::Tcp),
        Just(Transport::Udp),
        Just(Transport::Raw)
    ];
    let source = prop_oneof![Just(NameSource::TlsServerName), Just(NameSource::Dns)];
    prop_oneof![
        (
            any::<u64>(),
            key(),
            key(),
            text(),
            transport,
            address(),
            address()
        )
            .prop_map(|(id, process, unit, exe, transport, local, remote)| {
                Fact::ConnectionOpened(ConnectionOpened {
                    id: ConnectionId(id),
                    process,
                    unit,
                    exe,
                    transport,
                    local,
                    remote,
                })
            }),
        (any::<u64>(), text(), source, vec(text(), 0..3)).prop_map(|(id, name, source, alpn)| {
            Fact::ConnectionNamed(ConnectionNamed {
                id: ConnectionId(id),
                name,
                source,
                alpn,
            })
        }),
        any::<(u64, u64, u64)>().prop_map(|(id, bytes_sent, bytes_received)| {
            Fact::ConnectionClosed(ConnectionClosed {
                id: ConnectionId(id),
                bytes_sent,
                bytes_received,
            })
        }),
    ]
}

fn coverage() -> impl Strategy<Value = Fact> {
    let area = prop_oneof![
        Just(CoverageArea::Process),
        Just(CoverageArea::Access),
        Just(CoverageArea::Network)
    ];
    let state = prop_oneof![
        text().prop_map(|hook| CoverageState::Live { hook }),
        (text(), any::<bool>()).prop_map(|(reason, blinds_verdicts)| CoverageState::Missing {
            reason,
            blinds_verdicts
        }),
    ];
    let row =
        (area, text(), state).prop_map(|(area, what, state)| CoverageRow { area, what, state });
    (text(), text(), of(text()), text(), vec(row, 0..4)).prop_map(
        |(kernel, plan, scope, agent_version, rows)| {
            Fact::Coverage(Coverage {
                kernel,
                plan,
                scope,
                agent_version,
                rows,
            })
        },
    )
}

fn gap() -> impl Strategy<Value = Fact> {
    let what = prop_oneof![
        Just(GapKind::Access),
        Just(GapKind::Network),
        Just(GapKind::Process),
        Just(GapKind::All)
    ];
    (time(), time(), what, of(any::<u64>()), text()).prop_map(|(from, to, what, count, reason)| {
        Fact::Gap(Gap {
            from,
            to,
            what,
            count,
            reason,
        })
    })
}

fn surroundings() -> impl Strategy<Value = Fact> {
    let tamper = prop_oneof![
        Just(TamperKind::ProgramSilent),
        Just(TamperKind::PinRemoved),
        Just(TamperKind::AgentStopped),
        Just(TamperKind::ClockMoved),
        Just(TamperKind::BpfLoaded),
        Just(TamperKind::OpaqueSocket)
    ];
    prop_oneof![
        (key(), actor(), address()).prop_map(|(process, actor, local)| {
            Fact::Listening(Box::new(Listening {
                process,
                actor,
                local,
            }))
        }),
        (
            any::<u64>(),
            key(),
            key(),
            address(),
            address(),
            of(any::<bool>())
        )
            .prop_map(|(id, process, unit, local, remote, authenticated)| {
                Fact::Accepted(Accepted {
                    id: ConnectionId(id),
                    process,
                    unit,
                    local,
                    remote,
                    authenticated,
                })
            }),
        (key(), key(), text(), text()).prop_map(|(process, unit, daemon, through)| {
            Fact::RequestEdge(RequestEdge {
                process,
                unit,
                daemon,
                through,
            })
        }),
        (key(), key(), text(), time(), any::<(u64, u64, u64)>()).prop_map(
            |(process, unit, domain, since, (questions, names, bytes))| {
                Fact::NameLookups(NameLookups {
                    process,
                    unit,
                    domain,
                    since,
                    questions,
                    names,
                    bytes,
                })
            }
        ),
        (text(), text(), of(actor()), text(), text(), any::<bool>()).prop_map(
            |(path, product, actor, change, entry, by_agent)| {
                Fact::ConfigChanged(Box::new(ConfigChanged {
                    path,
                    product,
                    actor,
                    change,
                    entry,
                    by_agent,
                }))
            }
        ),
        (tamper, text(), of(key()), of(key())).prop_map(|(what, detail, process, unit)| {
            Fact::Tampering(Tampering {
                what,
                detail,
                process,
                unit,
            })
        }),
    ]
}

fn fact() -> impl Strategy<Value = Fact> {
    prop_oneof![
        exposure(),
        connection(),
        (process(), of(key()), key()).prop_map(|(process, parent, unit)| {
            Fact::ProcessStarted(ProcessStarted {
                process,
                parent,
                unit,
            })
        }),
        (key(), any::<i32>())
            .prop_map(|(process, status)| Fact::ProcessExited(ProcessExited { process, status })),
        gap(),
        coverage(),
        surroundings(),
    ]
}

proptest! {
    #[test]
    fn facts_survive_the_wire(time in time(), fact in fact()) {
        let bytes = encode_fact(time, fact.clone());
        prop_assert_eq!(decode_fact(&bytes).unwrap(), (time, fact));
    }

    #[test]
    fn any_bytes_are_refused_or_read_without_panic(bytes in vec(any::<u8>(), 0..200)) {
        drop(decode_fact(&bytes));
    }

    /// One byte wrong anywhere in a real fact.
    #[test]
    fn a_damaged_fact_is_refused_or_read_without_panic(
        time in time(), fact in fact(), at in any::<prop::sample::Index>(), byte in any::<u8>()
    ) {
        let mut bytes = encode_fact(time, fact);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        drop(decode_fact(&bytes));
    }
}

fn exposed(credential: &str) -> wire::Exposure {
    let key = wire::ProcessKey {
        pid: 1,
        start_ns: 1,
    };
    wire::Exposure {
        credential: credential.to_owned(),
        source: Some(wire::exposure::Source::Environment(
            wire::EnvironmentSource {
                variable: "X".to_owned(),
            },
        )),
        process: Some(key),
        actor: Some(wire::Actor {
            unit: Some(key),
            unit_kind: 1,
            ..wire::Actor::default()
        }),
        unexpected_reader: false,
        destinations: Vec::new(),
    }
}

#[test]
fn what_is_refused_is_named() {
    use wire::event::Fact as WireFact;
    let good = "aws-access-key:AKIAIOSFODNN7EXAMPLE";
    let with = |change: fn(&mut wire::Exposure)| {
        let mut exposure = exposed(good);
        change(&mut exposure);
        Some(WireFact::Exposure(exposure))
    };
    let many = |count| {
        vec![
            wire::ProcessSummary {
                key: Some(wire::ProcessKey::default()),
                started: Some(wire::Time::default()),
                ..wire::ProcessSummary::default()
            };
            count
        ]
    };
    let mut long = exposed(good);
    if let Some(actor) = &mut long.actor {
        actor.lineage = many(65);
    }
    for (fact, field) in [
        (None, "fact"),
        (with(|e| e.source = None), "exposure.source"),
        (with(|e| e.process = None), "exposure.process"),
        (with(|e| e.actor = None), "exposure.actor"),
        (
            with(|e| e.actor.as_mut().unwrap().unit_kind = 0),
            "exposure.actor.unit_kind",
        ),
        (
            with(|e| e.credential = "secret".to_owned()),
            "exposure.credential",
        ),
        (Some(WireFact::Exposure(long)), "exposure.actor.lineage"),
    ] {
        let event = wire::Event {
            time: Some(wire::Time::default()),
            fact,
        };
        let error = convert::event(event).unwrap_err();
        assert_eq!(error.field(), field, "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    let nanos = wire::Event {
        time: Some(wire::Time {
            seconds: 0,
            nanos: 1_000_000_000,
        }),
        fact: None,
    };
    assert_eq!(convert::event(nanos).unwrap_err().field(), "time.nanos");
}
