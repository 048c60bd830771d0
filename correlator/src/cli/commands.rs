//! Commands that ask the API.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use keytrail_join::Lineage;
use keytrail_model::alert::Alert;
use sha2::{Digest as _, Sha256};

use super::client::Api;
use super::style::{Style, print};
use super::{
    AlertCommand, Client, CredentialCommand, SensorCommand, SourceCommand, lists, owners,
    render_alert,
};
use crate::api::{AlertList, AlertView, CredentialList, SensorList, Status};

/// Pause before a broken stream is opened again.
const RECONNECT: Duration = Duration::from_secs(2);

pub(super) fn alert(command: AlertCommand) -> Result<()> {
    match command {
        AlertCommand::List {
            client,
            verdict,
            credential,
            limit,
            sort,
        } => {
            let mut path = format!("/v1/alerts?limit={limit}&sort={}", escaped(&sort));
            for (name, value) in [("verdict", verdict), ("credential", credential)] {
                if let Some(value) = value {
                    path.push_str(&format!("&{name}={}", escaped(&value)));
                }
            }
            let list: AlertList = Api::new(&client)?.get(&path)?;
            Ok(print(&lists::alerts(&list, Style::detect()))?)
        }
        AlertCommand::Show { id, client, json } => {
            let alert = find(&Api::new(&client)?, &id)?;
            if json {
                let mut text = serde_json::to_string_pretty(&alert)?;
                text.push('\n');
                return Ok(print(&text)?);
            }
            let style = Style::detect();
            let mut text = render_alert(&alert.alert, style);
            text.push_str(&owners::render_context(&alert.context, style));
            Ok(print(&text)?)
        }
        AlertCommand::Follow { client, all } => follow(&Api::new(&client)?, all),
    }
}

fn find(api: &Api, id: &str) -> Result<AlertView> {
    if id != "latest" {
        return api.get(&format!("/v1/alerts/{}", escaped(id)));
    }
    let list: AlertList = api.get("/v1/alerts?limit=1")?;
    match list.alerts.first() {
        Some(latest) => api.get(&format!("/v1/alerts/{}", latest.id)),
        None => bail!("there are no alerts"),
    }
}

/// Follows the stream; opens it again where it broke, since a correlator restarts now and then.
fn follow(api: &Api, all: bool) -> Result<()> {
    let style = Style::detect();
    let mut last = all.then_some(0);
    let mut seen = false;
    loop {
        let streamed = api.stream(last, |data| {
            let alert: Alert =
                serde_json::from_str(data).context("an alert of another version?")?;
            Ok(print(&format!("{}\n", render_alert(&alert, style)))?)
        });
        match streamed {
            Ok(now) => {
                last = now;
                seen = true;
            }
            // The first call must work; later ones wait for the correlator to come back.
            Err(error) if !seen => return Err(error),
            Err(_) => {}
        }
        std::thread::sleep(RECONNECT);
    }
}

pub(super) fn credential(command: CredentialCommand) -> Result<()> {
    match command {
        CredentialCommand::List(client) => {
            let list: CredentialList = Api::new(&client)?.get("/v1/credentials")?;
            Ok(print(&lists::credentials(&list))?)
        }
        CredentialCommand::Show { id, client } => {
            let path = format!("/v1/credentials/{}", escaped(&id));
            let lineage: Lineage = Api::new(&client)?.get(&path)?;
            Ok(print(&lists::lineage(&lineage, Style::detect()))?)
        }
    }
}

pub(super) fn sensor(command: &SensorCommand) -> Result<()> {
    let SensorCommand::List(client) = command;
    let list: SensorList = Api::new(client)?.get("/v1/sensors")?;
    Ok(print(&lists::sensors(&list, Style::detect()))?)
}

pub(super) fn source(command: &SourceCommand) -> Result<()> {
    match command {
        SourceCommand::List(client) => {
            let status: Status = Api::new(client)?.get("/v1/status")?;
            Ok(print(&lists::sources(&status.sources, Style::detect()))?)
        }
        SourceCommand::Token => {
            let token = crate::api::token::fresh();
            let hash = crate::hex::encode(&Sha256::digest(token.as_bytes()));
            Ok(print(&format!(
                "give the sender this token; it is shown once and kept nowhere:\n  {token}\n\
                 and write its hash into the source's settings:\n  token_sha256 = \"{hash}\"\n"
            ))?)
        }
    }
}

pub(super) fn status(client: &Client) -> Result<()> {
    let status: Status = Api::new(client)?.get("/v1/status")?;
    Ok(print(&lists::status(&status, Style::detect()))?)
}

/// Percent-encodes everything but unreserved characters (RFC 3986).
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
