//! Owners: imports and questions; what is shown beside an alert.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use keytrail_graph::people::{Candidate, PersonView};
use keytrail_model::text::shown;

use super::Client;
use super::client::Api;
use super::commands::escaped;
use super::graph;
use super::render::confidence;
use super::style::{Style, print};
use crate::owners::Context;

/// Writing to a String cannot fail.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {{ let _ = writeln!($out, $($arg)*); }};
}

#[derive(Debug, Subcommand)]
pub(super) enum OwnersCommand {
    /// Take a file of people, devices or ownership, in place of the one of the same name
    Import(ImportArgs),
    /// Who answers for a credential, a device or another node
    Of {
        /// A credential (`aws-access-key:AKIA...`) or `<kind>:<name>` (`device:laptop-7`)
        node: String,
        #[command(flatten)]
        client: Client,
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    /// The file, as it was exported
    file: PathBuf,
    /// scim, okta, entra, google, identity-center, devices, accounts, tags or codeowners
    #[arg(long)]
    kind: String,
    /// The repository of a CODEOWNERS file
    #[arg(long)]
    about: Option<String>,
    /// The name that a later import replaces it under [default: the file's name]
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    client: Client,
}

pub(super) fn run(command: OwnersCommand) -> Result<()> {
    match command {
        OwnersCommand::Import(args) => {
            let about = args.about.as_deref();
            graph::import(
                "owners",
                &args.client,
                &args.file,
                &args.kind,
                about,
                args.name,
            )
        }
        OwnersCommand::Of { node, client, json } => {
            let path = format!("/v1/owners/of/{}", escaped(&node));
            let context: Context = Api::new(&client)?.get(&path)?;
            if json {
                let mut text = serde_json::to_string_pretty(&context)?;
                text.push('\n');
                return Ok(print(&text)?);
            }
            Ok(print(&render_context(&context, Style::detect()))?)
        }
    }
}

/// Owners and blast radius, below an alert or on their own.
pub(super) fn render_context(context: &Context, style: Style) -> String {
    let mut out = String::new();
    let ownership = &context.ownership;
    put!(out, "\n{}", style.head("Owners"));
    put!(out, "  {}", shown(&ownership.summary, 300));
    for (side, candidates) in [
        ("endpoint", &ownership.endpoint),
        ("credential", &ownership.credential),
    ] {
        for candidate in candidates {
            put!(out, "  {side:<11}{}", one(candidate));
        }
    }
    if let Some(radius) = &context.blast_radius {
        put!(
            out,
            "\n{}",
            style.head(format!("Blast radius {} of 100", radius.score))
        );
        for factor in &radius.factors {
            put!(
                out,
                "  {:>3}  {} ({} %): {}",
                factor.value,
                factor.name,
                factor.weight,
                shown(&factor.why, 300)
            );
        }
    }
    out
}

fn one(candidate: &Candidate) -> String {
    let mut line = person(&candidate.person);
    if !candidate.in_directory {
        line.push_str(", in no directory");
    }
    let _ = write!(
        line,
        " ({}, {})",
        shown(&candidate.method, 200),
        confidence(candidate.confidence)
    );
    if let Some(manager) = &candidate.manager {
        let _ = write!(line, "; manager {}", person(manager));
    }
    line
}

fn person(person: &PersonView) -> String {
    let mut line = shown(&person.name, 100).to_string();
    if let Some(email) = person.email.as_ref().filter(|email| **email != person.name) {
        let _ = write!(line, " <{}>", shown(email, 100));
    }
    if let Some(role) = &person.role {
        let _ = write!(line, ", {}", shown(role, 100));
    }
    if !person.active {
        line.push_str(", inactive");
    }
    line
}
