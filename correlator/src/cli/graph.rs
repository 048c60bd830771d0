//! Questions to the lineage graph.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
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
use crate::api::{DependentsView, Imported, ReachView};

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
    /// Take a file of permissions, in place of the one of the same name
    Import(ImportArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    /// The file, as the provider's command wrote it
    file: PathBuf,
    /// aws-iam, aws-access-keys, aws-last-accessed, github, gcp-iam, kubernetes or vault
    #[arg(long)]
    kind: String,
    /// What the file itself does not say: a resource, an identity, a login, a policy's name
    #[arg(long)]
    about: Option<String>,
    /// The name that a later import replaces it under [default: the file's name]
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    client: Client,
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
        GraphCommand::Reach(question) => ask(&question, "reach", reach),
        GraphCommand::Dependents(question) => ask(&question, "dependents", dependents),
        GraphCommand::Import(args) => {
            let about = args.about.as_deref();
            import(
                "graph",
                &args.client,
                &args.file,
                &args.kind,
                about,
                args.name,
            )
        }
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

/// Sends a file to be imported; `what` is `graph` or `owners`.
pub(super) fn import(
    what: &str,
    client: &Client,
    file: &Path,
    kind: &str,
    about: Option<&str>,
    name: Option<String>,
) -> Result<()> {
    let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
    let name = name
        .or_else(|| Some(file.file_name()?.to_str()?.to_owned()))
        .context("the file's name is not UTF-8: give --name")?;
    let mut path = format!(
        "/v1/{what}/imports/{}?kind={}",
        escaped(&name),
        escaped(kind)
    );
    if let Some(about) = about {
        path.push_str(&format!("&about={}", escaped(about)));
    }
    let taken: Imported = Api::new(client)?
        .put(&path, &bytes)
        .with_context(|| format!("{}: nothing was imported", file.display()))?;
    let mut out = String::new();
    put!(
        out,
        "{}: {} entries taken",
        shown(&taken.name, 200),
        taken.taken
    );
    for note in &taken.notes {
        put!(out, "  note: {}", shown(note, 400));
    }
    Ok(print(&out)?)
}

fn reach(view: &ReachView, style: Style) -> String {
    let mut out = walk(&view.observed, style, "reaches nothing that was seen");
    let permitted = &view.permitted;
    put!(out, "\n{}", style.head("Allowed by imported permissions"));
    for identity in &permitted.identities {
        put!(out, "  acts as {}", shown(identity, 200));
    }
    for step in &permitted.becomes {
        put!(
            out,
            "  {} can become {} ({}: {}){}",
            shown(&step.from, 200),
            shown(&step.to, 200),
            step.how,
            shown(&step.source, 300),
            conditions(&step.conditions)
        );
    }
    for privilege in &permitted.privileges {
        put!(
            out,
            "  {:>3}  {}  {} on {}{}",
            privilege.weight,
            privilege.class.as_str(),
            privilege.action,
            shown(&privilege.resources.join(", "), 200),
            conditions(&privilege.conditions)
        );
        let by = format!("{} as {}", privilege.source, privilege.identity);
        put!(out, "       {}", style.faint(shown(&by, 300)));
        for except in &privilege.except {
            put!(
                out,
                "       {}",
                style.faint(format!("but {}", shown(except, 200)))
            );
        }
    }
    if !permitted.never_used.is_empty() {
        let all = permitted.never_used.join(", ");
        put!(out, "  allowed and never used: {}", shown(&all, 400));
    }
    for note in &permitted.notes {
        put!(out, "  note: {}", shown(note, 400));
    }
    cut(&mut out, permitted.truncated);
    out
}

fn conditions(conditions: &[String]) -> String {
    if conditions.is_empty() {
        return String::new();
    }
    format!(", if {}", shown(&conditions.join(" and "), 200))
}

fn dependents(view: &DependentsView, style: Style) -> String {
    let mut out = walk(&view.observed, style, "nothing was seen to depend on it");
    for granted in &view.permitted {
        put!(
            out,
            "  {} may {} ({})",
            shown(&granted.identity, 200),
            shown(&granted.actions.join(", "), 200),
            shown(&granted.source, 300)
        );
    }
    out
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
