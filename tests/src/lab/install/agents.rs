//! What the tests of real agents need beside the lab: Gemini CLI and opencode (npm), Claude Code on
//! demand (it is as large as all the rest), an MCP server that `npx` finds as a user's own npm left
//! it, and `uv` with the wheels of another one, so that `uvx` needs no network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{
    Package, copy_files, finish, fresh, is_current, locked, npm_ci, run, sources, stamp_of,
};

/// The MCP server of the Python side, as a user names it to `uvx`.
pub const CLOCK: (&str, &str) = ("mcp-server-time", "2026.10.19");
/// `uv`, from PyPI.
const UV: &str = "uv==0.13.9";
/// Nothing younger is taken, so that what a server depends on stays the same.
const NOT_AFTER: &str = "2026-11-20T00:00:00Z";
/// The folder that npx makes for `@modelcontextprotocol/server-filesystem@2026.8.31`: the first 16
/// hexadecimal digits of the SHA-512 of what was asked for.
pub const NPX_FOLDER: &str = "68b53d3fd47bf8db";

/// What is installed.
#[derive(Debug, Clone)]
pub struct Agents {
    /// `node_modules` with Gemini CLI and opencode.
    pub npm: PathBuf,
    /// The `claude` program, where it was asked for.
    pub claude: Option<PathBuf>,
    /// The folder of `uv` and `uvx`.
    pub uv_bin: PathBuf,
    /// uv's cache, with the clock's wheels.
    pub uv_cache: PathBuf,
    /// npx's folder of the file server.
    pub npx: PathBuf,
    /// The file server as the registry has it.
    pub files: Package,
}

/// Installs what is missing; `claude` too where it is asked for.
///
/// # Errors
/// When npm or pip fail, or on another processor than the pinned programs are for.
pub fn install(progress: &dyn Fn(&str), claude: bool) -> Result<()> {
    let (cache, _lock) = locked()?;
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the pinned agents are programs for x86-64"
    );
    part(
        &cache,
        "agents",
        "Gemini CLI and opencode (npm, 270 MB)",
        progress,
    )?;
    if claude {
        part(&cache, "claude", "Claude Code (npm, 390 MB)", progress)?;
    }
    servers(&cache, progress)
}

/// What is installed now.
///
/// # Errors
/// When a part was never installed or is out of date.
pub(super) fn installed(cache: &Path) -> Result<Agents> {
    for part in ["agents", "servers"] {
        ensure!(
            is_current(cache, part, &stamp(part)?),
            "the lab's {part} part in {} is absent or out of date: run `cargo xtask setup --for test`",
            cache.display()
        );
    }
    let claude = cache.join("claude/node_modules/@anthropic-ai/claude-code-linux-x64/claude");
    let servers = cache.join("servers");
    let npx = servers.join("npx");
    let manifest: serde_json::Value = serde_json::from_slice(
        &fs::read(npx.join("node_modules/@modelcontextprotocol/server-filesystem/package.json"))
            .context("the file server's manifest")?,
    )?;
    let text = |key: &str| {
        manifest
            .get(key)
            .and_then(|v| v.as_str())
            .unwrap_or_default()
    };
    Ok(Agents {
        npm: cache.join("agents/node_modules"),
        claude: is_current(cache, "claude", &stamp("claude")?).then_some(claude),
        uv_bin: servers.join("uv/bin"),
        uv_cache: servers.join("uv-cache"),
        files: Package {
            name: text("name").to_owned(),
            version: text("version").to_owned(),
            tarball: servers.join("files.tgz"),
        },
        npx,
    })
}

/// What a part is made from.
fn stamp(part: &str) -> Result<String> {
    let lock = |part: &str| sources().join("lab").join(part).join("package-lock.json");
    if part == "servers" {
        let digest = stamp_of(&[lock("npx")])?;
        return Ok(format!("{digest} {UV} {CLOCK:?} {NOT_AFTER}"));
    }
    stamp_of(&[lock(part)])
}

/// A part that is a folder of npm packages.
fn part(cache: &Path, part: &str, what: &str, progress: &dyn Fn(&str)) -> Result<()> {
    let stamp = stamp(part)?;
    if is_current(cache, part, &stamp) {
        return Ok(());
    }
    let dir = fresh(cache, part)?;
    progress(&format!("installing {what}"));
    let from = sources().join("lab").join(part);
    copy_files(&from, &dir, &["package.json", "package-lock.json"])?;
    npm_ci(&dir, &["--omit=optional"])?;
    finish(cache, part, &stamp)
}

fn servers(cache: &Path, progress: &dyn Fn(&str)) -> Result<()> {
    let stamp = stamp("servers")?;
    if is_current(cache, "servers", &stamp) {
        return Ok(());
    }
    let dir = fresh(cache, "servers")?;
    progress("installing two MCP servers, as npx and uvx keep them (npm and PyPI, 150 MB)");
    let npx = dir.join("npx");
    fs::create_dir_all(&npx)?;
    let from = sources().join("lab/npx");
    copy_files(&from, &npx, &["package.json", "package-lock.json"])?;
    npm_ci(&npx, &[])?;
    let packed = dir.join("packed");
    fs::create_dir_all(&packed)?;
    run(
        Command::new("npm")
            .args(["pack", "--silent", "--ignore-scripts", "--pack-destination"])
            .arg(&packed)
            .arg(npx.join("node_modules/@modelcontextprotocol/server-filesystem")),
        "npm pack",
    )?;
    let tarball = fs::read_dir(&packed)?.flatten().next();
    let tarball = tarball.context("npm pack made nothing")?;
    fs::rename(tarball.path(), dir.join("files.tgz"))?;
    let uv = dir.join("uv");
    run(
        Command::new("python3").args(["-m", "venv"]).arg(&uv),
        "python3 -m venv (Debian: apt-get install python3-venv)",
    )?;
    run(
        Command::new(uv.join("bin/pip")).args([
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
            UV,
        ]),
        "pip install uv",
    )?;
    let (name, version) = CLOCK;
    run(
        // The interpreter that the lab's user has, for which uv keeps what it unpacked.
        Command::new(uv.join("bin/uvx"))
            .arg(format!("{name}@{version}"))
            .arg("--help")
            .env("UV_CACHE_DIR", dir.join("uv-cache"))
            .env("UV_EXCLUDE_NEWER", NOT_AFTER)
            .env("UV_PYTHON", cache.join("python/bin/python3")),
        "uvx",
    )?;
    finish(cache, "servers", &stamp)
}
