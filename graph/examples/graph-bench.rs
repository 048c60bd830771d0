//! Measures the graph at a million edges: how long questions take, how much memory it has.
//!
//! `cargo xtask bench graph`, or
//! `cargo run --release -p keytrail-graph --example graph-bench -- [edges]`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a measurement: it fails by panicking and prints its report"
)]

use std::hint::black_box;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use keytrail_graph::blast::identities;
use keytrail_graph::permission::{ImportKind, Permissions, import};
use keytrail_graph::{EdgeKind, Graph, Limits, NodeId, Observation, Staged};
use keytrail_model::credential::CredentialId;

const QUESTIONS: usize = 300;
const ROLES: usize = 2_000;

/// A generator that needs no crate: the same world on every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

fn key(nr: usize) -> CredentialId {
    format!("aws-access-key:AKIA{nr:016}").parse().unwrap()
}

fn node(text: String) -> NodeId {
    text.parse().unwrap()
}

/// Ten thousand laptops, fifty thousand credentials, a few services that everybody uses.
fn world(edges: usize) -> Graph {
    let mut dice = Dice(7);
    let mut graph = Graph::new(Limits::default());
    let (hosts, keys) = (edges / 100, edges / 20);
    let mut staged = Staged::default();
    let mut seen = 0_usize;
    while graph.counts().edges < edges as u64 {
        for _ in 0..10_000 {
            seen += 1;
            let (host, credential) = (
                dice.below(hosts),
                NodeId::credential(&key(dice.below(keys))),
            );
            let session = node(format!(
                "agent-session:h{host}/codex-cli/b/{}@1",
                dice.below(20)
            ));
            let (from, kind, to) = match dice.below(8) {
                0 => (node(format!("device:h{host}")), EdgeKind::Hosts, session),
                1 => (node(format!("account:h{host}/u")), EdgeKind::Runs, session),
                2 => (
                    session,
                    EdgeKind::Started,
                    node(format!("mcp-server:h{host}/s{}", dice.below(4))),
                ),
                3 => (
                    node(format!("mcp-server:h{host}/s{}", dice.below(4))),
                    EdgeKind::Holds,
                    credential,
                ),
                4 => (
                    credential,
                    EdgeKind::Used,
                    node(format!("service:s{}.amazonaws.com", dice.below(20))),
                ),
                5 => (
                    credential,
                    EdgeKind::Minted,
                    NodeId::credential(&key(keys + dice.below(keys))),
                ),
                6 => (
                    node(format!("address:10.{}.0.1", dice.below(60_000))),
                    EdgeKind::Presented,
                    credential,
                ),
                _ => (
                    credential,
                    EdgeKind::Accessed,
                    node(format!("resource:arn:aws:s3:::b{}", dice.below(edges / 10))),
                ),
            };
            let observation = Observation {
                from,
                kind,
                to,
                time: Timestamp::UNIX_EPOCH
                    + SignedDuration::from_secs(i64::try_from(seen).unwrap()),
                record: format!("aws.cloudtrail:{seen}"),
            };
            graph.stage(&mut staged, &observation);
        }
        graph.install(std::mem::take(&mut staged));
    }
    graph
}

/// An account of many roles, each of which the next may assume for a few steps.
fn account() -> Permissions {
    let policy = |name: &str, statements: &str| {
        format!(r#"{{"PolicyName":"{name}","PolicyDocument":{{"Statement":[{statements}]}}}}"#)
    };
    let roles: Vec<String> = (0..ROLES)
        .map(|nr| {
            let statements = format!(
                r#"{{"Effect":"Allow","Action":["s3:*","kms:Decrypt"],"Resource":"arn:aws:s3:::b{nr}*"}},
                   {{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"arn:aws:iam::000000000001:role/r{}"}},
                   {{"Effect":"Deny","Action":"s3:Delete*","Resource":"*"}}"#,
                if nr % 5 == 4 { nr } else { nr + 1 },
            );
            format!(
                r#"{{"RoleName":"r{nr}","Arn":"arn:aws:iam::000000000001:role/r{nr}",
                "AssumeRolePolicyDocument":{{"Statement":[{{"Effect":"Allow","Action":"sts:AssumeRole",
                "Principal":{{"AWS":"arn:aws:iam::000000000001:root"}}}}]}},"RolePolicyList":[{}]}}"#,
                policy("p", &statements)
            )
        })
        .collect();
    let file = format!(r#"{{"RoleDetailList":[{}]}}"#, roles.join(","));
    Permissions::of([import(ImportKind::AwsIam, None, file.as_bytes()).unwrap()])
}

fn memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

fn measure(what: &str, mut question: impl FnMut(usize) -> usize) {
    let mut times = Vec::with_capacity(QUESTIONS);
    let mut found = 0;
    for nr in 0..QUESTIONS {
        let start = Instant::now();
        found += black_box(question(nr));
        times.push(start.elapsed());
    }
    times.sort();
    let ms = |share: usize| times[(QUESTIONS - 1) * share / 100].as_secs_f64() * 1e3;
    println!(
        "| {what} | {:.3} | {:.3} | {:.3} | {} |",
        ms(50),
        ms(99),
        ms(100),
        found / QUESTIONS
    );
}

fn main() {
    let edges: usize = std::env::args()
        .nth(1)
        .map_or(1_000_000, |n| n.parse().unwrap());
    let start = Instant::now();
    let graph = world(edges);
    let counts = graph.counts();
    println!(
        "{} edges, {} nodes; built in {:.1} s; {} MiB resident; {QUESTIONS} questions each, one \
         thread, optimised: {}\n",
        counts.edges,
        counts.nodes,
        start.elapsed().as_secs_f64(),
        memory_mib(),
        !cfg!(debug_assertions),
    );
    println!("| question | p50 ms | p99 ms | max ms | found, mean |\n|---|---|---|---|---|");
    let keys = edges / 20;
    let pick = |nr: usize| NodeId::credential(&key(nr * 97 % keys));
    let size = |walk: Option<keytrail_graph::query::Walk>| walk.map_or(0, |w| w.found.len());
    measure("reach of a credential", |nr| size(graph.reached(&pick(nr))));
    measure("dependents of a credential", |nr| {
        size(graph.dependents(&pick(nr)))
    });
    measure("origin of a credential", |nr| {
        graph.origin(&pick(nr)).map_or(0, |o| o.chains.len())
    });
    measure("reach of a device", |nr| {
        size(graph.reached(&node(format!("device:h{nr}"))))
    });
    measure("dependents of a service that everybody uses", |nr| {
        size(graph.dependents(&node(format!("service:s{}.amazonaws.com", nr % 20))))
    });
    let permissions = account();
    measure(
        &format!("permitted reach, an account of {ROLES} roles"),
        |nr| {
            let mut all = identities(&graph, &permissions, &key(nr));
            all.extend(permissions.named(&format!("arn:aws:iam::000000000001:role/r{nr}")));
            permissions.reach(&all).privileges.len()
        },
    );
    measure(&format!("who may act on a resource, {ROLES} roles"), |nr| {
        permissions.who_can(&format!("arn:aws:s3:::b{nr}/x")).len()
    });
}
