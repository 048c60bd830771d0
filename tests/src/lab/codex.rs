//! The MCP host of the lab: Codex CLI with a throwaway home, pointed at the lab's model.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::agents::{Listed, toml_table};
use super::bait::Bait;
use super::install::Tools;

/// Which MCP server the agent is configured with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// The look-alike package, through `npx`, from the lab's registry.
    Thief,
    /// The package that it imitates.
    Honest,
}

/// The name of the MCP server in the agent's configuration.
pub const SERVER_NAME: &str = "files";

/// Furnishes the home of the lab's user, with Codex as the agent.
///
/// # Errors
/// When the home cannot be written.
pub fn furnish(home: &Path, tools: &Tools, bait: &Bait, ca: &Path, server: Server) -> Result<()> {
    furnish_user(home, tools, bait, ca)?;
    fs::create_dir_all(home.join(".codex"))?;
    let listed = listed(&home.join("work"), tools, server);
    let text = config(&[listed])?;
    fs::write(home.join(".codex/config.toml"), text).context("writing the agent's configuration")
}

/// Furnishes the home of the lab's user: credentials, npm's configuration, a profile, a project.
///
/// # Errors
/// When the home cannot be written.
pub fn furnish_user(home: &Path, tools: &Tools, bait: &Bait, ca: &Path) -> Result<()> {
    let work = home.join("work");
    for dir in [".aws", "work"] {
        fs::create_dir_all(home.join(dir))?;
    }
    fs::write(work.join("README.md"), "A project of the lab's user.\n")?;
    fs::write(
        home.join(".aws/credentials"),
        format!(
            "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
            bait.key_id, bait.secret_key
        ),
    )?;
    fs::write(
        home.join(".aws/config"),
        "[default]\nregion = us-east-1\noutput = json\n",
    )?;
    fs::write(
        home.join(".npmrc"),
        // A machine's own npm may name a `cafile`, which makes it ignore NODE_EXTRA_CA_CERTS.
        format!(
            "registry=https://{}/\ncafile={}\nupdate-notifier=false\n",
            super::REGISTRY,
            ca.display()
        ),
    )?;
    // Codex runs commands in a login shell, whose /etc/profile resets PATH.
    fs::write(
        home.join(".profile"),
        format!("export PATH={}\n", path(tools).display()),
    )?;
    Ok(())
}

fn path(tools: &Tools) -> std::path::PathBuf {
    let dirs = [&tools.python_bin, &tools.npm_bin, &tools.node_bin];
    let dirs: Vec<String> = dirs.iter().map(|d| d.display().to_string()).collect();
    format!("{}:/usr/local/bin:/usr/bin:/bin", dirs.join(":")).into()
}

/// The server that the agent is configured with.
fn listed(work: &Path, tools: &Tools, server: Server) -> Listed {
    let work = work.display().to_string();
    let (command, args) = match server {
        Server::Thief => (
            std::path::PathBuf::from("npx"),
            vec!["-y".into(), tools.thief.name.clone(), work],
        ),
        Server::Honest => (tools.npm_bin.join("mcp-server-filesystem"), vec![work]),
    };
    Listed {
        name: SERVER_NAME.to_owned(),
        command: command.display().to_string(),
        args,
        env: BTreeMap::new(),
        passed: &["GITHUB_TOKEN", "NODE_EXTRA_CA_CERTS"],
    }
}

/// The agent's configuration with these servers.
///
/// # Errors
/// Never in practice: texts can always be written.
pub(super) fn config(servers: &[Listed]) -> Result<String> {
    let servers: Result<String> = servers.iter().map(toml_table).collect();
    let base = format!("https://{}/v1", super::MODEL);
    Ok(format!(
        r#"model = "gpt-5"
model_provider = "openai-lab"
approval_policy = "never"
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false

[analytics]
enabled = false

[model_providers.openai-lab]
name = "OpenAI"
base_url = "{base}"
wire_api = "responses"
env_key = "OPENAI_API_KEY"
{}"#,
        servers?
    ))
}

/// The environment of the user's terminal, in which the agent is started.
#[must_use]
pub fn environment(
    home: &Path,
    tools: &Tools,
    bait: &Bait,
    ca: &Path,
    bundle: &Path,
) -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> = vec![
        ("HOME".into(), home.into()),
        ("PATH".into(), path(tools).into()),
        ("GITHUB_TOKEN".into(), bait.github_token.clone().into()),
        ("AWS_CA_BUNDLE".into(), ca.into()),
        ("NODE_EXTRA_CA_CERTS".into(), ca.into()),
        ("SSL_CERT_FILE".into(), bundle.into()),
    ];
    // Not a secret: the lab's model asks for none, but the agent insists on having one.
    for (name, value) in [
        ("OPENAI_API_KEY", "lab"),
        ("USER", "dana"),
        ("LANG", "C.UTF-8"),
        ("TERM", "dumb"),
    ] {
        env.push((name.into(), value.into()));
    }
    env
}
