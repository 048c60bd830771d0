//! The graph as a whole: order does not matter, bounds hold, questions are answered.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: it fails by panicking"
)]

use jiff::{SignedDuration, Timestamp};
use keytrail_graph::{
    Edge, EdgeKey, EdgeKind, Graph, Limits, NodeId, Observation, Staged, observe,
};
use keytrail_model::consumption::{Caller, Consumption};
use keytrail_model::fact::{Exposure, ExposureSource, Fact, HostEvent};
use keytrail_model::ids::{BootId, EventRef, HostId, ProcessKey, RecordId};
use keytrail_model::process::{
    Actor, AgentIdentity, Confidence, McpServer, Package, ProcessSummary, UnitKind, User,
};
use proptest::prelude::*;
use uuid::Uuid;

const KEY: &str = "aws-access-key:AKIAIOSFODNN7EXAMPLE";
const CHILD: &str = "aws-access-key:ASIAIOSFODNN7EXAMPLE";

fn at(second: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
}

fn node(text: &str) -> NodeId {
    text.parse().unwrap()
}

/// An MCP server of an agent of `user` on `host` reads [`KEY`].
fn exposure(host: &str, seq: u64) -> HostEvent {
    let key = |pid| ProcessKey { pid, start_ns: 1 };
    let process = |pid, exe: &str| ProcessSummary {
        key: key(pid),
        exe: exe.to_owned(),
        argv: Vec::new(),
        started: at(0),
    };
    HostEvent {
        id: EventRef {
            host: HostId(host.to_owned()),
            boot: BootId(Uuid::from_u128(7)),
            seq,
        },
        time: at(i64::try_from(seq).unwrap()),
        fact: Fact::Exposure(Box::new(Exposure {
            credential: KEY.parse().unwrap(),
            source: ExposureSource::File {
                path: "/home/ana/.aws/credentials".to_owned(),
                dev: 1,
                ino: 2,
                entry: Some("[default]".to_owned()),
                version_known: true,
            },
            process: key(3),
            actor: Actor {
                unit: key(3),
                unit_kind: UnitKind::McpServer,
                agent: Some(AgentIdentity {
                    product: "codex-cli".to_owned(),
                    name: "Codex CLI".to_owned(),
                    version: None,
                    root: key(2),
                    method: "test".to_owned(),
                    confidence: Confidence::High,
                }),
                mcp_server: Some(McpServer {
                    name: Some("files".to_owned()),
                    config: None,
                    scope: None,
                    package: Some(Package {
                        ecosystem: "npm".to_owned(),
                        name: "mcp-server-filesytem".to_owned(),
                        version: Some("1.0.3".to_owned()),
                    }),
                }),
                user: Some(User {
                    uid: 1000,
                    name: Some("ana".to_owned()),
                    login_uid: Some(1000),
                    ..User::default()
                }),
                lineage: vec![process(3, "/usr/bin/node"), process(2, "/usr/bin/codex")],
            },
            unexpected_reader: true,
            destinations: Vec::new(),
        })),
    }
}

fn usage(record: &str, credential: &str, second: i64) -> Consumption {
    Consumption {
        service: "s3.amazonaws.com".to_owned(),
        action: "GetObject".to_owned(),
        resources: vec!["arn:aws:s3:::customers/list.csv".to_owned()],
        caller: Caller::Address {
            address: [203, 0, 113, 66].into(),
        },
        principal: Some("arn:aws:sts::123456789012:assumed-role/deploy/i-0abc".to_owned()),
        ..Consumption::new(
            RecordId(record.to_owned()),
            credential.parse().unwrap(),
            at(second),
        )
    }
}

fn story() -> Vec<Observation> {
    let mut all = observe::fact(&exposure("laptop", 10));
    all.extend(observe::fact(&exposure("laptop", 11)));
    all.extend(observe::usage(&Consumption {
        minted: Some(CHILD.parse().unwrap()),
        ..usage("aws:1", KEY, 20)
    }));
    all.extend(observe::usage(&usage("aws:2", CHILD, 30)));
    all
}

fn build(observations: &[Observation], limits: Limits) -> Graph {
    let mut graph = Graph::new(limits);
    for chunk in observations.chunks(3) {
        let mut staged = Staged::default();
        for one in chunk {
            graph.stage(&mut staged, one);
        }
        graph.install(staged);
    }
    graph
}

fn contents(graph: &Graph) -> Vec<(EdgeKey, Edge)> {
    let edges = graph.edges();
    edges.into_iter().map(|(k, e)| (k, e.clone())).collect()
}

#[test]
fn the_chain_runs_from_the_human_to_the_resource() {
    let graph = build(&story(), Limits::default());
    let origin = graph.origin(&node(KEY)).unwrap();
    let chain = origin
        .chains
        .iter()
        .find(|chain| chain[0].from == node("account:laptop/ana"))
        .unwrap();
    let shown: Vec<String> = chain
        .iter()
        .map(|hop| format!("{} {} {}", hop.from, hop.kind, hop.to))
        .collect();
    let session = "agent-session:laptop/codex-cli/00000000-0000-0000-0000-000000000007/2@1";
    assert_eq!(
        shown,
        [
            format!("account:laptop/ana runs {session}"),
            format!("{session} started mcp-server:laptop/files"),
            format!("mcp-server:laptop/files holds {KEY}"),
        ]
    );
    let held = chain.last().unwrap();
    assert_eq!((held.first, held.last, held.count), (at(10), at(11), 2));
    assert_eq!(held.evidence.len(), 2);
    let starts: Vec<String> = origin
        .chains
        .iter()
        .map(|c| c[0].from.to_string())
        .collect();
    for cause in ["package:npm/mcp-server-filesytem@1.0.3", "device:laptop"] {
        assert!(starts.iter().any(|s| s == cause), "{cause}: {starts:?}");
    }
    let reached = graph.reached(&node(KEY)).unwrap();
    let resource = node("resource:arn:aws:s3:::customers/list.csv");
    assert!(reached.found.iter().any(|f| f.node == resource));
    // From the package on, through its server: what a bad release can touch.
    let package = node("package:npm/mcp-server-filesytem@1.0.3");
    let reached = graph.reached(&package).unwrap();
    let path = &reached
        .found
        .iter()
        .find(|f| f.node == resource)
        .unwrap()
        .path;
    assert_eq!(path.len(), 3);
}

#[test]
fn dependents_of_a_child_do_not_include_its_parent() {
    let graph = build(&story(), Limits::default());
    for (of, expected, not) in [
        (KEY, "mcp-server:laptop/files", ""),
        (KEY, "device:laptop", ""),
        (KEY, "workload:aws/deploy/i-0abc", ""),
        (KEY, CHILD, ""),
        (CHILD, "address:203.0.113.66", KEY),
        ("service:s3.amazonaws.com", KEY, ""),
        (
            "resource:arn:aws:s3:::customers/list.csv",
            "account:laptop/ana",
            "",
        ),
        (
            "location:laptop//home/ana/.aws/credentials",
            "device:laptop",
            KEY,
        ),
    ] {
        let walk = graph.dependents(&node(of)).unwrap();
        let names: Vec<String> = walk.found.iter().map(|f| f.node.to_string()).collect();
        assert!(names.iter().any(|n| n == expected), "{of}: {names:?}");
        assert!(!names.iter().any(|n| n == not), "{of}: {names:?}");
        assert_eq!(walk.totals.values().sum::<u64>(), names.len() as u64);
    }
    assert!(graph.dependents(&node("device:elsewhere")).is_none());
}

#[test]
fn bounds_hold_and_are_counted() {
    let uses = |n: i64| -> Vec<Observation> {
        (0..n)
            .map(|i| Observation {
                from: node(KEY),
                kind: EdgeKind::Accessed,
                to: node(&format!("resource:r{i:04}")),
                time: at(i),
                record: format!("r{i}"),
            })
            .collect()
    };
    let graph = build(
        &uses(50),
        Limits {
            edges: 100,
            fan: 10,
        },
    );
    // Three are staged at once, so that many may exceed the fan until the next round.
    assert!(graph.counts().edges <= 13, "{:?}", graph.counts());
    assert!(graph.counts().displaced >= 37);
    assert!(graph.contains(&node("resource:r0049")), "the latest stays");
    let graph = build(
        &uses(50),
        Limits {
            edges: 20,
            fan: 100,
        },
    );
    assert_eq!((graph.counts().edges, graph.counts().dropped), (20, 30));
    let mut graph = build(&uses(50), Limits::default());
    let expired = graph.stage_expired(at(40));
    assert_eq!(expired.removed().count(), 40);
    graph.install(expired);
    assert_eq!((graph.counts().edges, graph.counts().nodes), (10, 11));
    assert!(!graph.contains(&node("resource:r0001")));
}

#[test]
fn a_cycle_ends() {
    let edge = |from: &str, to: &str| Observation {
        from: node(from),
        kind: EdgeKind::Minted,
        to: node(to),
        time: at(1),
        record: "r".to_owned(),
    };
    let graph = build(&[edge(KEY, CHILD), edge(CHILD, KEY)], Limits::default());
    assert_eq!(graph.reached(&node(KEY)).unwrap().found.len(), 1);
    assert_eq!(graph.dependents(&node(KEY)).unwrap().found.len(), 1);
    assert_eq!(graph.origin(&node(KEY)).unwrap().chains.len(), 1);
}

proptest! {
    /// GR-1: arrival order changes nothing, nor does a record that comes twice.
    #[test]
    fn any_order_gives_the_same_graph(
        records in proptest::collection::btree_map(
            (0u8..3, 0u8..4), proptest::collection::btree_set(0u16..500, 1..6), 1..12),
        seed in any::<u64>(),
    ) {
        let mut all = Vec::new();
        for ((credential, resource), times) in &records {
            for time in times {
                all.push(Observation {
                    from: node(&format!("aws-access-key:AKIAIOSFODNN7EXAMPL{credential}")),
                    kind: EdgeKind::Accessed,
                    to: node(&format!("resource:{resource}")),
                    time: at(i64::from(*time)),
                    record: format!("{credential}/{resource}/{time}"),
                });
            }
        }
        let expected = contents(&build(&all, Limits::default()));
        let mut other = all.clone();
        other.extend(all.iter().take(4).cloned());
        let mut state = seed;
        for i in (1..other.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            other.swap(i, usize::try_from(state >> 33).unwrap() % (i + 1));
        }
        prop_assert_eq!(contents(&build(&other, Limits::default())), expected);
    }
}
