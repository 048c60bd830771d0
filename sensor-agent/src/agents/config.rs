//! Reading the MCP servers out of an agent's configuration, in any of the shapes that exist.
//!
//! Only names and command lines are taken; values of `env` and `headers` are secrets and are
//! skipped (their names are kept: a server that is *given* a variable is meant to have it).

use std::path::Path;

use serde_json::{Map, Value};
use thiserror::Error;

use super::catalogue::ConfigFormat;

/// Largest configuration that is read; `~/.claude.json` reaches several MiB.
pub const MAX_CONFIG: u64 = 20 << 20;
/// JSON5 is parsed by a slower parser: for large files only strict JSON is tried.
const MAX_JSON5: usize = 1 << 20;
const MAX_DEPTH: usize = 96;
const MAX_SERVERS: usize = 512;

/// One stdio server as a configuration lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Command and arguments, as written.
    pub command: Vec<String>,
    /// Names of the variables it is given.
    pub env: Vec<String>,
    /// Listed under a project of this directory only.
    pub project: Option<String>,
}

/// Why a configuration could not be read.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// Brackets nested deeper than any configuration.
    #[error("nested more than {MAX_DEPTH} levels deep")]
    Depth,
    /// Not text.
    #[error("not UTF-8 text")]
    Text,
    /// Not the format.
    #[error("{0}")]
    Form(String),
}

/// The stdio servers of one configuration text.
///
/// `at` are the key paths of the catalogue row; when empty, every known shape is tried.
///
/// # Errors
/// [`ConfigError`] when the text is not in this format.
pub fn servers(
    format: ConfigFormat,
    bytes: &[u8],
    at: &[Vec<String>],
) -> Result<Vec<Listed>, ConfigError> {
    let root = parse(format, bytes)?;
    let mut found = Vec::new();
    if at.is_empty() {
        for path in KNOWN_SHAPES {
            let path: Vec<String> = path.iter().map(|p| (*p).to_owned()).collect();
            walk(&root, &path, None, &mut found);
        }
    }
    for path in at {
        walk(&root, path, None, &mut found);
    }
    Ok(found)
}

/// Shapes seen in agents' configurations.
const KNOWN_SHAPES: [&[&str]; 8] = [
    &["mcpServers"],
    &["servers"],
    &["mcp", "servers"],
    &["mcp"],
    &["context_servers"],
    &["mcp_servers"],
    &["extensions"],
    &[],
];

/// Parses any of the formats into one value.
///
/// # Errors
/// [`ConfigError`] when the text is not in this format.
pub fn parse(format: ConfigFormat, bytes: &[u8]) -> Result<Value, ConfigError> {
    let text = std::str::from_utf8(bytes).map_err(|_utf8| ConfigError::Text)?;
    let text = text.trim_start_matches('\u{feff}');
    if depth(text) > MAX_DEPTH {
        return Err(ConfigError::Depth);
    }
    let fail = |error: &dyn std::fmt::Display| {
        // A parser's message may quote the text, and the text may hold secrets: keep the place.
        let place: String = error
            .to_string()
            .chars()
            .filter(|c| !c.is_control())
            .collect();
        let place = place
            .rfind("line ")
            .and_then(|at| place.get(at..))
            .unwrap_or("")
            .to_owned();
        ConfigError::Form(format!("not valid {format:?} {place}"))
    };
    match format {
        ConfigFormat::Json => match serde_json::from_str(text) {
            Ok(value) => Ok(value),
            Err(_) if text.len() <= MAX_JSON5 => json5::from_str(text).map_err(|e| fail(&e)),
            Err(error) => Err(fail(&error)),
        },
        ConfigFormat::Toml => toml::from_str(text).map_err(|e| fail(&e)),
        ConfigFormat::Yaml => serde_norway::from_str(text).map_err(|e| fail(&e)),
    }
}

/// An upper bound of how deep brackets nest: the JSON5 parser recurses.
fn depth(text: &str) -> usize {
    let (mut now, mut most) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'{' | b'[' => {
                now += 1;
                most = most.max(now);
            }
            b'}' | b']' => now = now.saturating_sub(1),
            _ => {}
        }
    }
    most
}

fn walk(value: &Value, path: &[String], project: Option<&str>, found: &mut Vec<Listed>) {
    let Some((key, rest)) = path.split_first() else {
        collect(value, project, found);
        return;
    };
    let Some(map) = value.as_object() else { return };
    match key.as_str() {
        "*" => map
            .values()
            .for_each(|inner| walk(inner, rest, project, found)),
        "." => {
            for (dir, inner) in map.iter().filter(|(dir, _)| Path::new(dir).is_absolute()) {
                walk(inner, rest, Some(dir), found);
            }
        }
        key => {
            if let Some(inner) = map.get(key) {
                walk(inner, rest, project, found);
            }
        }
    }
}

/// A map of name to server, or a list of servers with names.
fn collect(value: &Value, project: Option<&str>, found: &mut Vec<Listed>) {
    let mut add = |name: &str, server: &Value| {
        if found.len() < MAX_SERVERS
            && let Some(listed) = server.as_object().and_then(|s| listed(name, s, project))
            && !found.contains(&listed)
        {
            found.push(listed);
        }
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(name, server)| add(name, server)),
        Value::Array(list) => {
            for server in list {
                if let Some(name) = server.get("name").and_then(Value::as_str) {
                    // Continue's older shape keeps the command line under `transport`.
                    add(name, server.get("transport").unwrap_or(server));
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn listed(name: &str, server: &Map<String, Value>, project: Option<&str>) -> Option<Listed> {
    let command = server.get("command").or_else(|| server.get("cmd"))?;
    let strings = |value: &Value| -> Vec<String> {
        let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let args = |from: &Map<String, Value>| from.get("args").map(strings).unwrap_or_default();
    let words = match command {
        // `"command": "npx -y pkg"` without args: some clients split it.
        Value::String(one) if server.get("args").is_none() && one.contains(' ') => {
            super::launch::split_command(one)
        }
        Value::String(one) => std::iter::once(one.clone()).chain(args(server)).collect(),
        Value::Array(_) => strings(command).into_iter().chain(args(server)).collect(),
        // Zed's older shape: {"command": {"path": ..., "args": [...]}}.
        Value::Object(inner) => {
            let path = inner.get("path")?.as_str()?.to_owned();
            std::iter::once(path).chain(args(inner)).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => return None,
    };
    if words.first().is_none_or(String::is_empty) {
        return None;
    }
    let env = ["env", "environment", "envs"]
        .iter()
        .find_map(|key| server.get(*key)?.as_object());
    let extra = ["env_vars", "env_keys"]
        .iter()
        .filter_map(|key| server.get(*key))
        .flat_map(strings);
    Some(Listed {
        name: name.chars().take(128).collect(),
        command: words,
        env: env
            .into_iter()
            .flat_map(|e| e.keys().cloned())
            .chain(extra)
            .collect(),
        project: project.map(str::to_owned),
    })
}

#[cfg(test)]
mod tests;
