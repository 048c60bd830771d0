//! Fetches the real programs of the lab once, into a cache that later runs use without a network:
//! the `aws` command and moto (PyPI), Codex CLI and an honest MCP server (npm), and the thief's
//! package, packed with its dependencies so that the lab's own registry can serve it.
//!
//! Every part has a stamp that holds what it was made from; a part is made again only when that
//! changed. Two installers at once wait for each other.

pub mod agents;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

/// Overrides where the lab keeps what it installed.
pub const CACHE_VAR: &str = "KEYTRAIL_LAB_CACHE";

/// What the installed lab consists of.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The folder that holds everything below.
    pub cache: PathBuf,
    /// `bin` of the Python environment: `aws`, `moto_server`.
    pub python_bin: PathBuf,
    /// `node_modules/.bin`: `codex`, `mcp-server-filesystem`.
    pub npm_bin: PathBuf,
    /// The folder of the `node` program.
    pub node_bin: PathBuf,
    /// The thief's package, as `npm pack` made it.
    pub thief: Package,
    /// Other agents and MCP servers, where they are installed.
    pub agents: Option<agents::Agents>,
}

/// A packed npm package.
#[derive(Debug, Clone)]
pub struct Package {
    /// The name in its `package.json`.
    pub name: String,
    /// The version in its `package.json`.
    pub version: String,
    /// The tarball.
    pub tarball: PathBuf,
}

impl std::fmt::Display for Package {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

/// The folder of this crate's sources, where the pins and the thief's package are.
fn sources() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Where the lab is installed: `$KEYTRAIL_LAB_CACHE`, else `target/keytrail/lab` of the checkout.
#[must_use]
pub fn cache_dir() -> PathBuf {
    match std::env::var_os(CACHE_VAR) {
        Some(dir) => PathBuf::from(dir),
        None => sources().join("../target/keytrail/lab"),
    }
}

/// Installs what is missing and says each step through `progress`. Needs the network only then.
///
/// # Errors
/// When a program that the lab is made with is absent, or pip or npm fail; the text says which and
/// what they printed last.
pub fn install(progress: &dyn Fn(&str)) -> Result<Tools> {
    let (cache, _lock) = locked()?;
    for program in ["python3", "node", "npm"] {
        which(program)?;
    }
    python(&cache, progress)?;
    npm(&cache, progress)?;
    thief(&cache, progress)?;
    tools(cache)
}

/// The cache's folder, held against other installers for as long as the file is open.
fn locked() -> Result<(PathBuf, File)> {
    let cache = cache_dir();
    fs::create_dir_all(&cache).with_context(|| format!("creating {}", cache.display()))?;
    let cache = cache.canonicalize()?;
    let lock = File::create(cache.join(".lock"))?;
    lock.lock()
        .context("waiting for another installer of the lab")?;
    Ok((cache, lock))
}

/// The lab as it is installed now.
///
/// # Errors
/// When a part was never installed or is out of date.
pub fn installed() -> Result<Tools> {
    let cache = cache_dir();
    let cache = cache
        .canonicalize()
        .with_context(|| format!("the lab is not installed in {}", cache.display()))?;
    for (part, inputs) in [
        ("python", vec![sources().join("lab/requirements.txt")]),
        ("npm", vec![sources().join("lab/npm/package-lock.json")]),
        ("thief", thief_inputs()),
    ] {
        ensure!(
            is_current(&cache, part, &stamp_of(&inputs)?),
            "the lab's {part} part in {} is absent or out of date: run `cargo xtask setup --for demo`",
            cache.display()
        );
    }
    tools(cache)
}

fn tools(cache: PathBuf) -> Result<Tools> {
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(cache.join("thief/package.json"))?)?;
    let text = |key: &str| {
        manifest
            .get(key)
            .and_then(|v| v.as_str())
            .unwrap_or_default()
            .to_owned()
    };
    let (name, version) = (text("name"), text("version"));
    let tarball = cache.join("thief").join(format!("{name}-{version}.tgz"));
    let node = which("node")?;
    Ok(Tools {
        python_bin: cache.join("python/bin"),
        npm_bin: cache.join("npm/node_modules/.bin"),
        node_bin: node.parent().context("node has no folder")?.to_owned(),
        thief: Package {
            name,
            version,
            tarball,
        },
        agents: agents::installed(&cache).ok(),
        cache,
    })
}

fn python(cache: &Path, progress: &dyn Fn(&str)) -> Result<()> {
    let pins = sources().join("lab/requirements.txt");
    let stamp = stamp_of(std::slice::from_ref(&pins))?;
    if is_current(cache, "python", &stamp) {
        return Ok(());
    }
    let dir = fresh(cache, "python")?;
    progress("installing the aws command and moto from PyPI (about half a minute, 300 MB)");
    run(
        Command::new("python3").args(["-m", "venv"]).arg(&dir),
        "python3 -m venv (Debian: apt-get install python3-venv)",
    )?;
    run(
        Command::new(dir.join("bin/pip"))
            .args([
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--no-input",
                "-r",
            ])
            .arg(&pins),
        "pip install",
    )?;
    finish(cache, "python", &stamp)
}

fn npm(cache: &Path, progress: &dyn Fn(&str)) -> Result<()> {
    let from = sources().join("lab/npm");
    let stamp = stamp_of(&[from.join("package-lock.json")])?;
    if is_current(cache, "npm", &stamp) {
        return Ok(());
    }
    let dir = fresh(cache, "npm")?;
    progress("installing Codex CLI and an MCP server from npm (about half a minute, 440 MB)");
    copy_files(&from, &dir, &["package.json", "package-lock.json"])?;
    npm_ci(&dir, &[])?;
    finish(cache, "npm", &stamp)
}

fn thief_inputs() -> Vec<PathBuf> {
    let from = sources().join("packages/mcp-server-filesytem");
    ["package.json", "package-lock.json", "index.js"]
        .iter()
        .map(|f| from.join(f))
        .collect()
}

fn thief(cache: &Path, progress: &dyn Fn(&str)) -> Result<()> {
    let stamp = stamp_of(&thief_inputs())?;
    if is_current(cache, "thief", &stamp) {
        return Ok(());
    }
    let dir = fresh(cache, "thief")?;
    progress("packing the look-alike package (mcp-server-filesytem)");
    let from = sources().join("packages/mcp-server-filesytem");
    copy_files(
        &from,
        &dir,
        &["package.json", "package-lock.json", "index.js"],
    )?;
    npm_ci(&dir, &[])?;
    run(
        Command::new("npm")
            .args(["pack", "--silent"])
            .current_dir(&dir),
        "npm pack",
    )?;
    fs::remove_dir_all(dir.join("node_modules"))?;
    finish(cache, "thief", &stamp)
}

fn npm_ci(dir: &Path, more: &[&str]) -> Result<()> {
    run(
        Command::new("npm")
            .args([
                "ci",
                "--no-audit",
                "--no-fund",
                "--ignore-scripts",
                "--loglevel=error",
            ])
            .args(more)
            .current_dir(dir),
        "npm ci",
    )
}

/// Runs an installer; its output is shown only when it fails.
fn run(command: &mut Command, what: &str) -> Result<()> {
    let out = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {what}"))?;
    if out.status.success() {
        return Ok(());
    }
    let said = [out.stdout, out.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let tail: Vec<&str> = said.lines().rev().take(15).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    bail!("{what} failed ({}):\n{}", out.status, tail.join("\n"))
}

/// The file that a program's name stands for in `PATH`, with links and version managers' shims
/// resolved by asking node itself.
fn which(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|d| d.join(program))
        .find(|p| p.is_file());
    let found = found.with_context(|| {
        format!("{program} is not in PATH: run `cargo xtask setup --for demo` (Debian: apt-get install nodejs npm python3 python3-venv iproute2)")
    })?;
    if program != "node" {
        return Ok(found);
    }
    let out = Command::new(&found)
        .args(["-p", "process.execPath"])
        .output()?;
    Ok(PathBuf::from(String::from_utf8_lossy(&out.stdout).trim()))
}

fn stamp_of(inputs: &[PathBuf]) -> Result<String> {
    let mut hash = Sha256::new();
    for input in inputs {
        let bytes = fs::read(input).with_context(|| format!("reading {}", input.display()))?;
        hash.update(bytes.len().to_le_bytes());
        hash.update(bytes);
    }
    Ok(format!("{:x}", hash.finalize()))
}

fn is_current(cache: &Path, part: &str, stamp: &str) -> bool {
    fs::read_to_string(cache.join(part).join(".stamp")).is_ok_and(|s| s == stamp)
}

fn fresh(cache: &Path, part: &str) -> Result<PathBuf> {
    let dir = cache.join(part);
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// The stamp is written last, so that an installation that was cut short is made again.
fn finish(cache: &Path, part: &str, stamp: &str) -> Result<()> {
    fs::write(cache.join(part).join(".stamp"), stamp).context("writing the stamp")
}

fn copy_files(from: &Path, to: &Path, names: &[&str]) -> Result<()> {
    for name in names {
        fs::copy(from.join(name), to.join(name))
            .with_context(|| format!("copying {}", from.join(name).display()))?;
    }
    Ok(())
}
