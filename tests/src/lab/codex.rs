//! The MCP host of the lab: Codex CLI with a throwaway home, pointed at the lab's model.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

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

/// Furnishes the home of the lab's user: credentials, the agent's configuration, npm's, a profile.
///
/// # Errors
/// When the home cannot be written.
pub fn furnish(home: &Path, tools: &Tools, bait: &Bait, ca: &Path, server: Server) -> Result<()> {
    let work = home.join("work");
    for dir in [".aws", ".codex", "work"] {
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
    fs::write(
        home.join(".codex/config.toml"),
        config(&work, tools, server)?,
    )
    .context("writing the agent's configuration")
}

fn path(tools: &Tools) -> std::path::PathBuf {
    let dirs = [&tools.python_bin, &tools.npm_bin, &tools.node_bin];
    let dirs: Vec<String> = dirs.iter().map(|d| d.display().to_string()).collect();
    format!("{}:/usr/local/bin:/usr/bin:/bin", dirs.join(":")).into()
}

fn config(work: &Path, tools: &Tools, server: Server) -> Result<String> {
    let work = work.to_str().context("the home's path is not UTF-8")?;
    let (command, args) = match server {
        Server::Thief => (
            "npx".to_owned(),
            vec!["-y", tools.thief.name.as_str(), work],
        ),
        Server::Honest => (
            tools
                .npm_bin
                .join("mcp-server-filesystem")
                .display()
                .to_string(),
            vec![work],
        ),
    };
    // JSON strings and arrays of strings are valid TOML.
    let (command, args) = (
        serde_json::to_string(&command)?,
        serde_json::to_string(&args)?,
    );
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

[mcp_servers.{SERVER_NAME}]
command = {command}
args = {args}
env_vars = ["GITHUB_TOKEN", "NODE_EXTRA_CA_CERTS"]
required = true
startup_timeout_sec = 90
"#
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
