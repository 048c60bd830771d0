//! `correlator baseline`: what is usual for agents, as a policy file to be edited.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use keytrail_join::baseline::policy::{Pin, Policy};
use keytrail_model::text::shown;

use super::Client;
use super::client::Api;
use super::commands::escaped;
use super::style::print;
use crate::partition::Baselines;

#[derive(Debug, Subcommand)]
pub(super) enum BaselineCommand {
    /// What each agent usually does with a credential, how warm that is, how much of it is new
    Show {
        /// Only of this credential
        #[arg(long)]
        credential: Option<String>,
        #[command(flatten)]
        client: Client,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a policy file: what is allowed now, and what warm baselines have learned
    Export {
        /// Only what was learned of this credential
        #[arg(long)]
        credential: Option<String>,
        /// Only what is allowed now, nothing learned
        #[arg(long)]
        allowed: bool,
        #[command(flatten)]
        client: Client,
    },
    /// Allow agents what a policy file says, in place of what was imported before
    Import {
        /// The file, as `export` writes it (TOML), or JSON
        file: PathBuf,
        #[command(flatten)]
        client: Client,
    },
}

pub(super) fn baseline(command: BaselineCommand) -> Result<()> {
    match command {
        BaselineCommand::Show {
            credential,
            client,
            json,
        } => {
            let all = get(&client, credential)?;
            if json {
                return Ok(print(&format!(
                    "{}\n",
                    serde_json::to_string_pretty(&all)?
                ))?);
            }
            Ok(print(&render(&all))?)
        }
        BaselineCommand::Export {
            credential,
            allowed,
            client,
        } => {
            let all = get(&client, credential)?;
            Ok(print(&policy_file(all, allowed)?)?)
        }
        BaselineCommand::Import { file, client } => {
            let body = std::fs::read(&file).with_context(|| file.display().to_string())?;
            if body.is_empty() {
                bail!(
                    "{}: empty; to allow nothing any more, import `pins = []`",
                    file.display()
                );
            }
            let taken: Policy = Api::new(&client)?
                .put("/v1/baseline", &body)
                .with_context(|| file.display().to_string())?;
            Ok(print(&format!(
                "{} entries are in force from now on\n",
                taken.pins.len()
            ))?)
        }
    }
}

fn get(client: &Client, credential: Option<String>) -> Result<Baselines> {
    let query = credential.map(|id| format!("?credential={}", escaped(&id)));
    Api::new(client)?.get(&format!("/v1/baseline{}", query.unwrap_or_default()))
}

/// What is allowed, then what was learned and is not there yet, so that import and export meet.
fn policy_file(all: Baselines, only_allowed: bool) -> Result<String> {
    let mut pins: Vec<Pin> = all.policy.pins;
    if !only_allowed {
        let same = |a: &Pin, b: &Pin| {
            let bare = |pin: &Pin| Pin {
                comment: String::new(),
                ..pin.clone()
            };
            bare(a) == bare(b)
        };
        for pin in all.learned.pins {
            if !pins.iter().any(|known| same(known, &pin)) {
                pins.push(pin);
            }
        }
    }
    let head = "# What agents are allowed to do. Edit it, then: correlator baseline import FILE\n\
                # `*` stands for any run of characters; an absent pattern fits anything.\n\n";
    let body = if pins.is_empty() {
        "pins = []\n".to_owned()
    } else {
        toml::to_string_pretty(&Policy { pins })?
    };
    Ok(format!("{head}{body}"))
}

fn render(all: &Baselines) -> String {
    let mut text = format!(
        "{} entries allowed by import, {} by the settings\n",
        all.policy.pins.len(),
        all.configured.pins.len()
    );
    for one in &all.credentials {
        text.push_str(&format!("\n{}\n", shown(&one.credential.to_string(), 200)));
        for agent in &one.agents {
            let state = if agent.warm { "warm" } else { "warming up" };
            text.push_str(&format!(
                "  {}: {state}, {} uses over {} h, {} % of it new lately\n",
                shown(&agent.agent.to_string(), 160),
                agent.learned,
                agent.hours,
                agent.recent_percent
            ));
            for (name, list) in [
                ("actions", &agent.actions),
                ("regions", &agent.regions),
                ("resources", &agent.resources),
                ("networks", &agent.networks),
            ] {
                if !list.is_empty() {
                    let list = list.join(", ");
                    text.push_str(&format!("    {name}: {}\n", shown(&list, 400)));
                }
            }
        }
    }
    text
}
