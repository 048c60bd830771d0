//! Questions to the lineage graph.

use std::fmt::Write as _;

use anyhow::Result;
use clap::Subcommand;
use keytrail_graph::query::{Hop, Origin, Walk};
use keytrail_model::text::shown;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Client;
use super::client::Api;
use super::commands::escaped;
use super::render::time;
use super::style::{Style, print};

/// Writing to a String cannot fail.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {{ let _ = writeln!($out, $($arg)*); }};
}

#[derive(Debug, Subcommand)]
pub(super) enum GraphCommand {
    /// What a credential (or any other node) reaches, and along which path
    Reach(Question),
    /// Who depends on a node
    Dependents(Question),
    /// How a credential came to where it is
    Origin(Question),
}

#[derive(Debug, clap::Args)]
pub(super) struct Question {
    /// A credential (`aws-access-key:AKIA...`) or `<kind>:<name>` (`device:laptop-7`)
    node: String,
    #[command(flatten)]
    client: Client,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: GraphCommand) -> Result<()> {
    match command {
        GraphCommand::Reach(question) => ask(&question, "reach", |w: &Walk, s| {
            walk(w, s, "reaches nothing that was seen")
        }),
        GraphCommand::Dependents(question) => ask(&question, "dependents", |w: &Walk, s| {
            walk(w, s, "nothing depends on it")
        }),
        GraphCommand::Origin(question) => ask(&question, "origin", origin),
    }
}

fn ask<T: DeserializeOwned + Serialize>(
    question: &Question,
    what: &str,
    render: impl FnOnce(&T, Style) -> String,
) -> Result<()> {
    let path = format!("/v1/graph/{what}/{}", escaped(&question.node));
    let answer: T = Api::new(&question.client)?.get(&path)?;
    if question.json {
        let mut text = serde_json::to_string_pretty(&answer)?;
        text.push('\n');
        return Ok(print(&text)?);
    }
    Ok(print(&render(&answer, Style::detect()))?)
}

fn walk(walk: &Walk, style: Style, nothing: &str) -> String {
    let mut out = String::new();
    put!(out, "{}", style.head(node(&walk.of)));
    if walk.found.is_empty() {
        put!(out, "  {nothing}");
    }
    for found in &walk.found {
        put!(out, "\n{}  {}", style.head(found.kind), node(&found.node));
        chain(&mut out, &found.path, style);
    }
    cut(&mut out, walk.truncated);
    out
}

fn origin(origin: &Origin, style: Style) -> String {
    let mut out = String::new();
    put!(out, "{}", style.head(node(&origin.of)));
    for hops in &origin.chains {
        if let Some(first) = hops.first() {
            put!(out, "\n{}", style.head(node(&first.from)));
        }
        chain(&mut out, hops, style);
    }
    if origin.chains.is_empty() {
        put!(out, "  nothing was seen to lead to it");
    }
    cut(&mut out, origin.truncated);
    out
}

fn cut(out: &mut String, truncated: bool) {
    if truncated {
        put!(
            out,
            "\n(there is more than is shown; ask about a nearer node)"
        );
    }
}

fn chain(out: &mut String, hops: &[Hop], style: Style) {
    for hop in hops {
        let record = hop.evidence.last().map_or("", |e| e.record.as_str());
        put!(
            out,
            "    {} {} {}",
            node(&hop.from),
            hop.kind,
            node(&hop.to)
        );
        put!(
            out,
            "      {}",
            style.faint(format!(
                "{} to {}, {} records, latest {}",
                time(hop.first),
                time(hop.last),
                hop.count,
                shown(record, 120)
            ))
        );
    }
}

fn node(node: &impl ToString) -> String {
    shown(&node.to_string(), 200).to_string()
}
