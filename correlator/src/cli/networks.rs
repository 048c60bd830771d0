//! `networks`: whose network an address belongs to, and the files that say so.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Subcommand;
use keytrail_model::text::shown;
use keytrail_networks::Role;

use super::Client;
use super::client::Api;
use super::render::time;
use super::style::{Style, print};
use crate::api::NetworkOf;
use crate::networks::{NetworksView, check_file};

/// Writing to a String cannot fail.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {{ let _ = writeln!($out, $($arg)*); }};
}

#[derive(Debug, Subcommand)]
pub(super) enum NetworksCommand {
    /// The files in use, how old their data is, and what is wrong with them
    Status(Client),
    /// Whose network addresses belong to
    Of {
        /// IPv4 or IPv6 addresses
        #[arg(required = true)]
        addresses: Vec<IpAddr>,
        #[command(flatten)]
        client: Client,
    },
    /// Read files as the correlator would, without one running, and say what is wrong with them
    Check {
        /// They are the organisation's own egress pools
        #[arg(long)]
        pools: bool,
        /// Addresses to look up in them
        #[arg(long = "of")]
        addresses: Vec<IpAddr>,
        /// The files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

pub(super) fn run(command: &NetworksCommand) -> Result<()> {
    match command {
        NetworksCommand::Status(client) => {
            let view: NetworksView = Api::new(client)?.get("/v1/networks")?;
            Ok(print(&files(&view, Style::detect()))?)
        }
        NetworksCommand::Of { addresses, client } => {
            let api = Api::new(client)?;
            let mut out = String::new();
            let mut attributions = Vec::new();
            for address in addresses {
                let found: NetworkOf = api.get(&format!("/v1/networks/{address}"))?;
                let words = found
                    .network
                    .map_or("not known".to_owned(), |n| n.to_string());
                put!(out, "{address}, {words}");
                attributions = found.attributions;
            }
            credit(&mut out, &attributions, Style::detect());
            Ok(print(&out)?)
        }
        NetworksCommand::Check {
            pools,
            addresses,
            files,
        } => check(*pools, addresses, files),
    }
}

fn check(pools: bool, addresses: &[IpAddr], files: &[PathBuf]) -> Result<()> {
    let role = if pools { Role::Pool } else { Role::World };
    let mut out = String::new();
    let mut databases = Vec::new();
    let mut wrong = 0;
    for file in files {
        match check_file(file, role) {
            Ok(database) => {
                let dated = database
                    .dated()
                    .map_or_else(String::new, |day| format!(", of {}", time(day)));
                put!(
                    out,
                    "{}: {}, {} ranges, {} bytes in memory{dated}",
                    file.display(),
                    database.format(),
                    database.rows(),
                    database.bytes()
                );
                databases.push(std::sync::Arc::new(database));
            }
            Err(error) => {
                wrong += 1;
                put!(out, "{}: {}", file.display(), shown(&error, 400));
            }
        }
    }
    let table = keytrail_networks::Table::new(databases);
    for address in addresses {
        let words = table
            .network(*address)
            .map_or("not known".to_owned(), |n| n.to_string());
        put!(out, "{address}, {words}");
    }
    print(&out)?;
    if wrong > 0 {
        bail!("{wrong} of {} files are refused", files.len());
    }
    Ok(())
}

fn credit(out: &mut String, attributions: &[String], style: Style) {
    for text in attributions {
        put!(out, "{}", style.faint(shown(text, 300)));
    }
}

/// Files, each with its age.
pub(super) fn files(view: &NetworksView, style: Style) -> String {
    let mut out = String::new();
    if let Some(problem) = &view.problem {
        put!(out, "{}", style.warn(shown(problem, 400)));
    }
    if view.files.is_empty() {
        put!(
            out,
            "no file of networks is in use: addresses have no system, country or provider \
             (docs/networks.md)"
        );
        return out;
    }
    for file in &view.files {
        let what = file.format.as_deref().unwrap_or("not read");
        let pools = if file.pools { ", own egress pools" } else { "" };
        put!(
            out,
            "{}  {}{pools}, {} ranges",
            style.head(shown(&file.path, 300)),
            shown(what, 60),
            file.ranges
        );
        if let Some(dated) = file.dated {
            let age = format!(
                "data of {}, {} days old",
                time(dated),
                file.age_days.unwrap_or(0)
            );
            if file.old {
                put!(
                    out,
                    "  {}",
                    style.warn(format!("OLD: {age}; get a newer file"))
                );
            } else {
                put!(out, "  {age}");
            }
        }
        if let Some(problem) = &file.problem {
            let kept = if file.format.is_some() {
                "what was read before is in use"
            } else {
                "nothing of it is in use"
            };
            put!(
                out,
                "  {} {}; {kept}",
                style.alarm("REFUSED"),
                shown(problem, 400)
            );
        }
    }
    put!(out, "{} bytes in memory", view.bytes);
    credit(&mut out, &view.attributions(), style);
    out
}
