//! Real agents on the laptop: what the sensor calls them, their MCP servers and their commands; and
//! that nothing which they do by themselves is taken for a theft.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test program fails by panicking, its helpers too"
)]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use keytrail_model::process::{Actor, Confidence, UnitKind};
use keytrail_tests::canary::Canary;
use keytrail_tests::lab::agents::{self, Agent, Session};
use keytrail_tests::scenario::{Checks, Watched, let_watermarks_pass};
use serde_json::Value;

#[test]
fn codex_is_known() {
    known("codex_is_known", &agents::CODEX);
}

#[test]
fn gemini_is_known() {
    known("gemini_is_known", &agents::GEMINI);
}

#[test]
fn opencode_is_known() {
    known("opencode_is_known", &agents::OPENCODE);
}

#[test]
fn claude_code_is_known() {
    known("claude_code_is_known", &agents::CLAUDE);
}

/// Plays a session with the agent and looks at everybody who was seen with a credential.
fn known(name: &str, agent: &Agent) {
    let missing = |tools: &_| agent.missing(tools);
    common::on_stage(name, missing, |story, checks, watched| {
        let turns = agents::script(&watched.lab.home().join("work"));
        let session = watched.lab.start_real_agent(agent, turns).unwrap();
        let ended = watched.lab.finish_agent(Duration::from_mins(6));
        if ended.is_err() {
            story.quote(&watched.lab.agent_transcript());
        }
        ended.unwrap();
        let played = played(watched);
        // Every fact of the session is there then, and whatever alert comes of them.
        let_watermarks_pass(&watched.correlator).unwrap();
        let seen = actors(watched);
        for actor in &seen {
            story.say(&shown(actor));
        }
        for said in ["README.md", "UTC", "user/dana"] {
            checks.that(
                played.iter().any(|result| result.contains(said)),
                &format!("the tools really answered: {said}"),
            );
        }
        check_agent(checks, agent, &seen);
        check_servers(checks, agent, &session, &seen);
        check_shell(checks, &seen);
        let alerts = watched.correlator.alerts().unwrap();
        for alert in &alerts {
            story.quote(&format!("{} {}", alert.verdict, alert.title));
        }
        checks.that(alerts.is_empty(), "no alert of any kind");
        let own = session
            .secrets
            .iter()
            .map(|(name, value)| (*name, value.as_str()));
        let secrets: Vec<(&str, &str)> = own.chain(watched.lab.bait.secrets()).collect();
        let (leaks, files) = Canary::new(&secrets)
            .search_dir(&watched.written())
            .unwrap();
        checks.that(
            leaks.is_empty() && files > 0,
            &format!("no secret in {files} files: {leaks:?}"),
        );
    });
}

/// The results that the agent brought to the model.
fn played(watched: &Watched) -> Vec<String> {
    let exchanges = watched.lab.exchanges().unwrap();
    exchanges.into_iter().filter_map(|e| e.result).collect()
}

/// Everybody who was seen with any credential.
fn actors(watched: &Watched) -> Vec<Actor> {
    let listed: Value = watched.correlator.get("/v1/credentials").unwrap();
    let mut actors = Vec::new();
    for credential in listed["credentials"].as_array().unwrap() {
        let id = credential["id"].as_str().unwrap();
        let path = format!("/v1/credentials/{}", encoded(id));
        let lineage: Value = watched.correlator.get(&path).unwrap();
        for holder in lineage["holders"].as_array().unwrap() {
            let of: Vec<Actor> = serde_json::from_value(holder["actors"].clone()).unwrap();
            actors.extend(of);
        }
    }
    actors
}

/// A credential's id as a segment of a path.
fn encoded(id: &str) -> String {
    let one = |b: u8| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b':' => {
            char::from(b).to_string()
        }
        _ => format!("%{b:02X}"),
    };
    id.bytes().map(one).collect()
}

fn shown(actor: &Actor) -> String {
    let of = actor.agent.as_ref().map_or("nobody".to_owned(), |a| {
        format!("{}@{}", a.product, a.version.as_deref().unwrap_or("?"))
    });
    let tree: Vec<&str> = actor
        .lineage
        .iter()
        .map(|p| p.exe.rsplit('/').next().unwrap_or_default())
        .collect();
    let server = actor.mcp_server.as_ref().map(|server| {
        let package = server.package.as_ref().map(ToString::to_string);
        format!(
            " {:?} {:?} {:?} {package:?}",
            server.name, server.config, server.scope
        )
    });
    let server = server.unwrap_or_default();
    format!(
        "{:?} of {of}{server}: {}",
        actor.unit_kind,
        tree.join(" < ")
    )
}

fn check_agent(checks: &mut Checks<'_>, agent: &Agent, seen: &[Actor]) {
    let named: BTreeSet<String> = seen
        .iter()
        .map(|actor| match &actor.agent {
            Some(of) => format!(
                "{}@{} ({:?})",
                of.product,
                of.version.as_deref().unwrap_or("?"),
                of.confidence
            ),
            None => format!("nobody: {}", shown(actor)),
        })
        .collect();
    let wanted = format!("{}@{} ({:?})", agent.id, agent.version, Confidence::High);
    checks.that(
        named == BTreeSet::from([wanted.clone()]),
        &format!("everybody belongs to {wanted}: {named:?}"),
    );
}

fn check_servers(checks: &mut Checks<'_>, agent: &Agent, session: &Session, seen: &[Actor]) {
    for (at, name) in ["files", "clock"].into_iter().enumerate() {
        let (config, scope) = agent.listed[at];
        let package = &session.packages[at];
        let servers = seen.iter().filter_map(|a| a.mcp_server.as_ref());
        let of: Vec<_> = servers
            .filter(|s| s.name.as_deref() == Some(name))
            .collect();
        let fits = |s: &&&keytrail_model::process::McpServer| {
            let ends = s.config.as_ref().is_some_and(|c| c.ends_with(config));
            let known = s.package.as_ref().map(ToString::to_string);
            ends && s.scope.as_deref() == Some(scope) && known.as_ref() == Some(package)
        };
        checks.that(
            of.iter().any(|s| fits(&s)),
            &format!("\"{name}\" is {package}, listed in {config} ({scope}): {of:?}"),
        );
    }
    let strange: Vec<String> = seen
        .iter()
        .filter(|a| a.unit_kind == UnitKind::McpServer)
        .filter(|a| {
            let name = a.mcp_server.as_ref().and_then(|s| s.name.as_deref());
            !matches!(name, Some("files" | "clock"))
        })
        .map(shown)
        .collect();
    checks.that(strange.is_empty(), &format!("no other server: {strange:?}"));
}

fn check_shell(checks: &mut Checks<'_>, seen: &[Actor]) {
    let is_aws = |actor: &Actor| {
        let own = actor.lineage.first();
        own.is_some_and(|p| {
            p.argv
                .iter()
                .any(|arg| arg.ends_with("/aws") || arg == "aws")
        })
    };
    let aws: Vec<String> = seen.iter().filter(|a| is_aws(a)).map(shown).collect();
    let shell = seen
        .iter()
        .filter(|a| is_aws(a))
        .all(|a| a.unit_kind == UnitKind::ShellTool && a.mcp_server.is_none());
    checks.that(
        shell && !aws.is_empty(),
        &format!("the aws command is a shell tool's: {aws:?}"),
    );
}
