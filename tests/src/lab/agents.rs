//! Real agents on the laptop, one row each: how it is started, where it lists MCP servers, and what
//! a sensor must call it. Sources of the rows: each was run so and watched.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::child::Launch;
use super::install::Tools;
use super::install::agents::{Agents, CLOCK, NPX_FOLDER};
use super::internet::Builder;
use super::stand_in::Role;
use super::stand_in::model::{Model, Turn};
use super::{ANTHROPIC, GOOGLE, Lab, MODEL, MODEL_ADDR, bait, codex};

/// One agent.
#[derive(Debug)]
pub struct Agent {
    /// Its id in the sensor's catalogue.
    pub id: &'static str,
    /// Its version, as its package says.
    pub version: &'static str,
    /// Its program.
    program: fn(&Tools) -> Option<PathBuf>,
    /// Its arguments; the prompt is part of them.
    args: &'static [&'static str],
    /// What its user has in the environment for it.
    env: &'static [(&'static str, &'static str)],
    /// The form of its configuration.
    shape: Shape,
    /// Where it lists the file server and the clock: the file's end and the scope.
    pub listed: [(&'static str, &'static str); 2],
}

#[derive(Debug, Clone, Copy)]
enum Shape {
    Codex,
    Gemini,
    Opencode,
    Claude,
}

const PROMPT: &str = "Look at the project, and say who we are at AWS.";

/// Codex CLI.
pub const CODEX: Agent = Agent {
    id: "codex-cli",
    version: "0.169.0",
    program: |tools| Some(tools.npm_bin.join("codex")),
    args: &["exec", "--skip-git-repo-check", PROMPT],
    env: &[("OPENAI_API_KEY", "lab")],
    shape: Shape::Codex,
    listed: [
        (".codex/config.toml", "user"),
        (".codex/config.toml", "user"),
    ],
};

/// Gemini CLI.
pub const GEMINI: Agent = Agent {
    id: "gemini-cli",
    version: "0.61.0",
    program: |tools| Some(tools.agents.as_ref()?.npm.join(".bin/gemini")),
    args: &["--yolo", "-p", PROMPT],
    env: &[("GEMINI_API_KEY", "lab")],
    shape: Shape::Gemini,
    listed: [
        (".gemini/settings.json", "user"),
        ("work/.gemini/settings.json", "project"),
    ],
};

/// opencode.
pub const OPENCODE: Agent = Agent {
    id: "opencode",
    version: "1.18.33",
    program: |tools| {
        Some(
            tools
                .agents
                .as_ref()?
                .npm
                .join("opencode-linux-x64/bin/opencode"),
        )
    },
    args: &["run", PROMPT],
    env: &[],
    shape: Shape::Opencode,
    listed: [
        (".config/opencode/opencode.json", "user"),
        ("work/opencode.json", "project"),
    ],
};

/// Claude Code.
pub const CLAUDE: Agent = Agent {
    id: "claude-code",
    version: "2.1.331",
    program: |tools| tools.agents.as_ref()?.claude.clone(),
    args: &["-p", PROMPT, "--allowedTools", "Bash,mcp__files,mcp__clock"],
    env: &[("ANTHROPIC_API_KEY", "lab")],
    shape: Shape::Claude,
    listed: [(".claude.json", "user"), ("work/.mcp.json", "project")],
};

/// An MCP server as an agent's configuration lists it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its name there.
    pub name: String,
    /// The command.
    pub command: String,
    /// The command's arguments.
    pub args: Vec<String>,
    /// Variables that the agent sets for it.
    pub env: BTreeMap<String, String>,
    /// Variables of its own that the agent hands on (Codex alone asks which).
    pub passed: &'static [&'static str],
}

/// What a session with an agent needs to be judged.
#[derive(Debug)]
pub struct Session {
    /// Secrets in the home beside those of the lab's user.
    pub secrets: Vec<(&'static str, String)>,
    /// The packages behind the file server and the clock.
    pub packages: [String; 2],
}

/// What the model has an agent do: call a tool of each server, then run a command.
#[must_use]
pub fn script(work: &Path) -> Vec<Turn> {
    let tool = |server: &str, tool: &str, arguments: Value| Turn::Mcp {
        server: server.to_owned(),
        tool: tool.to_owned(),
        arguments,
    };
    vec![
        tool("files", "list_directory", json!({"path": work})),
        tool("clock", "get_current_time", json!({"timezone": "UTC"})),
        Turn::Shell("aws sts get-caller-identity".to_owned()),
    ]
}

impl Agent {
    /// Why this agent cannot be played here; `None` when it can.
    #[must_use]
    pub fn missing(&self, tools: &Tools) -> Option<String> {
        if tools.agents.is_none() {
            return Some("the agents are not installed (cargo xtask setup --for test)".to_owned());
        }
        (self.program)(tools).is_none().then(|| {
            format!(
                "{} is not installed (demo --install-only --with claude)",
                self.id
            )
        })
    }
}

impl Lab {
    /// Starts an agent with two MCP servers, one through `npx`, one through `uvx`, each with a token
    /// of its own; the model plays `script` behind it.
    ///
    /// # Errors
    /// When it is not installed, or the model or the agent cannot be started.
    pub fn start_real_agent(&mut self, agent: &Agent, script: Vec<Turn>) -> Result<Session> {
        let tools = self.tools.clone();
        let agents = tools.agents.as_ref().context("the agents are absent")?;
        let program = (agent.program)(&tools).context("the agent is not installed")?;
        self.start_model(script)?;
        let home = self.home();
        codex::furnish_user(&home, &tools, &self.bait, &self.ca)?;
        let secrets = furnish_developer(&home)?;
        let caches = link_caches(&home, agents);
        caches.context("handing the caches of npx and uv to the home")?;
        let servers = servers(&home, agents, &secrets, &self.ca);
        agent.configure(&home, &servers)?;
        let mut env = codex::environment(&home, &tools, &self.bait, &self.ca, &self.bundle);
        env.retain(|(name, _)| name != "OPENAI_API_KEY" && name != "GITHUB_TOKEN");
        let pair = |(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
        env.extend(agent.env.iter().map(pair));
        for (name, value) in &mut env {
            if name == "PATH" {
                value.push(":");
                value.push(&agents.uv_bin);
            }
        }
        let launch = Launch {
            demo: &self.demo,
            place: &self.laptop,
            mounts: Some(&self.mounts),
            cwd: &home.join("work"),
            env,
        };
        let args: Vec<OsString> = agent.args.iter().map(OsString::from).collect();
        self.agent = Some(launch.start(agent.id, &program, &args, "")?);
        let (clock, version) = CLOCK;
        Ok(Session {
            secrets,
            packages: [agents.files.to_string(), format!("{clock}@{version}")],
        })
    }

    /// Puts a model that plays `script` behind every agent's API.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_model(&mut self, script: Vec<Turn>) -> Result<()> {
        let build = Builder {
            demo: &self.demo,
            dir: self.dir.path(),
            internet: &self.internet,
            authority: &self.authority,
        };
        self.model = None;
        let names = [MODEL, ANTHROPIC, GOOGLE];
        let role = Role::Model(Model { script });
        self.model = Some(build.stand_in("model", &[MODEL_ADDR], &names, role)?);
        Ok(())
    }
}

/// What developers have lying about, and agents read when they start: a project's `.env`, npm's
/// and git's credentials.
fn furnish_developer(home: &Path) -> Result<Vec<(&'static str, String)>> {
    let token = bait::github_token;
    let secrets = vec![
        ("the file server's token", token()?),
        ("the clock's token", token()?),
        ("the project's token", token()?),
        ("npm's token", format!("npm_{}", bait::letters(36)?)),
        ("git's token", token()?),
    ];
    let secret = |name: &str| {
        secrets
            .iter()
            .find(|(n, _)| *n == name)
            .map_or("", |s| &s.1)
    };
    let write = |path: &str, text: String| fs::write(home.join(path), text);
    write(
        "work/.env",
        format!("GITHUB_TOKEN={}\n", secret("the project's token")),
    )?;
    let npmrc = fs::read_to_string(home.join(".npmrc"))?;
    write(
        ".npmrc",
        format!(
            "{npmrc}//{}/:_authToken={}\n",
            super::REGISTRY,
            secret("npm's token")
        ),
    )?;
    write(
        ".netrc",
        format!(
            "machine github.com login dana password {}\n",
            secret("git's token")
        ),
    )?;
    write(
        ".gitconfig",
        "[user]\n\tname = Dana\n\temail = dana@corp.example\n".to_owned(),
    )?;
    let git = Command::new("git")
        .args(["init", "--quiet"])
        .arg(home.join("work"))
        .status();
    // Without git the agents take the folder as one that is not under version control.
    drop(git);
    Ok(secrets)
}

/// npx's and uv's caches as a user's earlier runs left them.
fn link_caches(home: &Path, agents: &Agents) -> Result<()> {
    let npx = home.join(".npm/_npx");
    fs::create_dir_all(&npx)?;
    let copied = Command::new("cp")
        .arg("-r")
        .arg(&agents.npx)
        .arg(npx.join(NPX_FOLDER))
        .status()?;
    ensure!(copied.success(), "cp -r {}: {copied}", agents.npx.display());
    fs::create_dir_all(home.join(".cache"))?;
    symlink(&agents.uv_cache, home.join(".cache/uv"))?;
    Ok(())
}

/// The file server through `npx`, the clock through `uvx`.
fn servers(home: &Path, agents: &Agents, secrets: &[(&str, String)], ca: &Path) -> [Listed; 2] {
    let env = |token: &str, more: &[(&str, String)]| {
        let token = secrets.iter().find(|(name, _)| *name == token);
        let token = token.map(|(_, token)| token.clone()).unwrap_or_default();
        let mut env = BTreeMap::from([("GITHUB_TOKEN".to_owned(), token)]);
        env.extend(more.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
        env
    };
    let (clock, version) = CLOCK;
    let work = home.join("work").display().to_string();
    [
        Listed {
            name: "files".to_owned(),
            command: "npx".to_owned(),
            args: vec!["-y".to_owned(), agents.files.to_string(), work],
            env: env(
                "the file server's token",
                &[("NODE_EXTRA_CA_CERTS", ca.display().to_string())],
            ),
            passed: &[],
        },
        Listed {
            name: "clock".to_owned(),
            command: "uvx".to_owned(),
            args: vec![format!("{clock}@{version}")],
            env: env("the clock's token", &[("UV_OFFLINE", "1".to_owned())]),
            passed: &[],
        },
    ]
}

impl Agent {
    /// Writes the agent's configuration.
    fn configure(&self, home: &Path, servers: &[Listed; 2]) -> Result<()> {
        let work = home.join("work");
        let write = |path: PathBuf, text: String| -> Result<()> {
            if let Some(dir) = path.parent() {
                fs::create_dir_all(dir)?;
            }
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
        };
        let [files, clock] = servers;
        match self.shape {
            Shape::Codex => write(home.join(".codex/config.toml"), codex::config(servers)?),
            Shape::Gemini => {
                let user = json!({
                    "security": {"auth": {"selectedType": "gemini-api-key"},
                        "folderTrust": {"enabled": false}},
                    "general": {"disableAutoUpdate": true, "enableAutoUpdate": false},
                    "privacy": {"usageStatisticsEnabled": false},
                    "mcpServers": mcp_servers(&[files]),
                });
                write(home.join(".gemini/settings.json"), user.to_string())?;
                let project = json!({"mcpServers": mcp_servers(&[clock])});
                write(work.join(".gemini/settings.json"), project.to_string())
            }
            Shape::Opencode => {
                let provider = json!({"npm": "@ai-sdk/openai-compatible", "name": "lab",
                    "options": {"baseURL": format!("https://{MODEL}/v1"), "apiKey": "lab"},
                    "models": {"lab": {"name": "lab"}}});
                let listed = |one: &Listed| {
                    let command = [std::slice::from_ref(&one.command), &one.args].concat();
                    json!({one.name.clone(): {"type": "local", "command": command,
                        "environment": one.env, "enabled": true}})
                };
                let user = json!({"model": "lab/lab", "provider": {"lab": provider},
                    "autoupdate": false, "mcp": listed(files)});
                write(
                    home.join(".config/opencode/opencode.json"),
                    user.to_string(),
                )?;
                write(
                    work.join("opencode.json"),
                    json!({"mcp": listed(clock)}).to_string(),
                )
            }
            Shape::Claude => {
                let user = json!({"hasCompletedOnboarding": true,
                    "mcpServers": mcp_servers(&[files])});
                write(home.join(".claude.json"), user.to_string())?;
                let settings = json!({"enableAllProjectMcpServers": true});
                write(home.join(".claude/settings.json"), settings.to_string())?;
                let project = json!({"mcpServers": mcp_servers(&[clock])});
                write(work.join(".mcp.json"), project.to_string())
            }
        }
    }
}

/// The form that most agents read: `{"name": {"command", "args", "env"}}`.
fn mcp_servers(servers: &[&Listed]) -> Value {
    let one = |s: &&Listed| {
        let value = json!({"command": s.command, "args": s.args, "env": s.env});
        (s.name.clone(), value)
    };
    Value::Object(servers.iter().map(one).collect())
}

/// Codex's form of one server; JSON's texts and lists of texts are valid TOML.
///
/// # Errors
/// Never in practice: texts can always be written.
pub(super) fn toml_table(server: &Listed) -> Result<String> {
    let mut text = format!(
        "\n[mcp_servers.{}]\ncommand = {}\nargs = {}\nrequired = true\nstartup_timeout_sec = 90\n",
        server.name,
        serde_json::to_string(&server.command)?,
        serde_json::to_string(&server.args)?
    );
    let passed = serde_json::to_string(&server.passed)?;
    writeln!(text, "env_vars = {passed}")?;
    if !server.env.is_empty() {
        writeln!(text, "[mcp_servers.{}.env]", server.name)?;
    }
    for (name, value) in &server.env {
        writeln!(text, "{name} = {}", serde_json::to_string(value)?)?;
    }
    Ok(text)
}
