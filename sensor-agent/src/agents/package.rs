//! Which published package a running program belongs to, from the manifests beside it.
//!
//! The path is resolved first (`node_modules/.bin/x` is a link), then the nearest manifest that
//! has a name counts: `package.json` for npm, `*.dist-info` for Python.

use std::path::{Path, PathBuf};

use keytrail_model::process::Package;
use serde::Deserialize;

use super::launch::{Launch, Target, basename};
use crate::files::FsView;

const MAX_MANIFEST: u64 = 1 << 20;
const MAX_LEVELS: usize = 16;
const MAX_DISTS: usize = 1024;

/// The part of `package.json` that says what it is.
#[derive(Clone, Debug, Deserialize)]
pub struct NpmManifest {
    /// Package name.
    #[serde(default)]
    pub name: String,
    /// Version.
    #[serde(default)]
    pub version: Option<String>,
    /// Its commands: one path, or a map of them.
    #[serde(default)]
    pub bin: serde_json::Value,
    #[serde(default)]
    dependencies: std::collections::BTreeMap<String, serde_json::Value>,
}

impl NpmManifest {
    /// The package it describes.
    #[must_use]
    pub fn package(&self) -> Package {
        let cap = |text: &str| text.chars().take(214).collect::<String>();
        Package {
            ecosystem: "npm".to_owned(),
            name: cap(&self.name),
            version: self.version.as_deref().map(cap),
        }
    }

    /// True when `path` (relative to the manifest) is one of its commands.
    #[must_use]
    pub fn is_command(&self, path: &Path) -> bool {
        let same = |value: &serde_json::Value| {
            value
                .as_str()
                .is_some_and(|p| Path::new(p.trim_start_matches("./")) == path)
        };
        match &self.bin {
            serde_json::Value::Object(map) => map.values().any(same),
            other => same(other),
        }
    }

    /// True when it builds on the MCP SDK: then it is most likely a server.
    #[must_use]
    pub fn uses_mcp(&self) -> bool {
        self.dependencies
            .keys()
            .any(|d| d == "@modelcontextprotocol/sdk" || d == "fastmcp")
    }
}

/// The nearest named `package.json` at or above the directory of `file` (already resolved).
#[must_use]
pub fn nearest_npm(view: &FsView, file: &Path) -> Option<(PathBuf, NpmManifest)> {
    file.ancestors().skip(1).take(MAX_LEVELS).find_map(|dir| {
        let bytes = view.read(&dir.join("package.json"), MAX_MANIFEST).ok()?;
        let manifest: NpmManifest = serde_json::from_slice(&bytes).ok()?;
        (!manifest.name.is_empty()).then(|| (dir.to_owned(), manifest))
    })
}

/// What a process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identified {
    /// Its package.
    pub package: Option<Package>,
    /// The script file, resolved.
    pub script: Option<PathBuf>,
    /// The package builds on the MCP SDK, or names itself after MCP.
    pub mcp: bool,
}

/// Identifies what `launch` runs for a process with this executable and working directory.
#[must_use]
pub fn identify(view: &FsView, launch: &Launch, exe: &Path, cwd: Option<&Path>) -> Identified {
    let resolve = |text: &str| {
        let path = cwd.unwrap_or(Path::new("/")).join(text);
        view.realpath(&path).ok()
    };
    let named = match &launch.target {
        Target::Package(package) => Identified {
            package: Some(package.clone()),
            ..Identified::default()
        },
        Target::Script(script) => match resolve(script) {
            Some(path) if is_python(launch) => python_script(view, launch, exe, script, path, cwd),
            Some(path) => npm_file(view, path),
            None => Identified::default(),
        },
        Target::Module(module) => Identified {
            package: sites(view, launch, exe, cwd)
                .iter()
                .find_map(|site| dist_of_module(view, site, module)),
            ..Identified::default()
        },
        Target::Inline => Identified::default(),
        Target::Program(_) if exe.components().any(|c| c.as_os_str() == "node_modules") => {
            npm_file(view, exe.to_owned())
        }
        Target::Program(_) => Identified::default(),
    };
    let by_name = named.package.as_ref().is_some_and(|p| names_mcp(&p.name))
        || named
            .script
            .as_deref()
            .and_then(Path::to_str)
            .is_some_and(|s| names_mcp(basename(s)));
    Identified {
        mcp: named.mcp || by_name,
        ..named
    }
}

/// `mcp` as a word of a name.
#[must_use]
pub fn names_mcp(name: &str) -> bool {
    name.to_ascii_lowercase()
        .split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| word == "mcp" || word == "modelcontextprotocol" || word == "fastmcp")
}

fn is_python(launch: &Launch) -> bool {
    launch
        .interpreter
        .as_deref()
        .map(basename)
        .is_some_and(|name| name.starts_with("python") || name.starts_with("pypy"))
}

fn npm_file(view: &FsView, path: PathBuf) -> Identified {
    let manifest = nearest_npm(view, &path);
    Identified {
        package: manifest.as_ref().map(|(_, m)| m.package()),
        mcp: manifest.is_some_and(|(_, m)| m.uses_mcp()),
        script: Some(path),
    }
}

/// A console script: the distribution whose `entry_points.txt` or `RECORD` lists it.
fn python_script(
    view: &FsView,
    launch: &Launch,
    exe: &Path,
    written: &str,
    path: PathBuf,
    cwd: Option<&Path>,
) -> Identified {
    let name = basename(written);
    let mut places = sites(view, launch, exe, cwd);
    // The script's own environment comes first: `<env>/bin/script`, `<env>/lib/python*/...`.
    let written = cwd.unwrap_or(Path::new("/")).join(written);
    for start in [&path, &written] {
        if let Some(prefix) = start.parent().and_then(Path::parent) {
            places.splice(0..0, site_packages(view, prefix));
        }
    }
    let package = places
        .iter()
        .find_map(|site| dist_of_script(view, site, name));
    Identified {
        package,
        script: Some(path),
        mcp: false,
    }
}

/// The directories in which this interpreter keeps its packages.
fn sites(view: &FsView, launch: &Launch, exe: &Path, cwd: Option<&Path>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // argv[0] names the virtual environment; the executable is what its link leads to.
    let words = launch.interpreter.as_deref().filter(|i| i.contains('/'));
    let written = words.map(|i| cwd.unwrap_or(Path::new("/")).join(i));
    for interpreter in written.iter().map(PathBuf::as_path).chain([exe]) {
        if let Some(prefix) = interpreter.parent().and_then(Path::parent) {
            found.extend(site_packages(view, prefix));
        }
    }
    found.push(PathBuf::from("/usr/lib/python3/dist-packages"));
    found.dedup();
    found
}

fn site_packages(view: &FsView, prefix: &Path) -> Vec<PathBuf> {
    let lib = prefix.join("lib");
    let names = view.list(&lib, 1024);
    let pythons = names
        .iter()
        .filter(|n| n.to_string_lossy().starts_with("python"));
    pythons
        .flat_map(|n| ["site-packages", "dist-packages"].map(|s| lib.join(n).join(s)))
        .filter(|dir| view.metadata(dir).is_ok_and(|m| m.is_dir()))
        .take(8)
        .collect()
}

fn dists(view: &FsView, site: &Path) -> impl Iterator<Item = (PathBuf, Package)> {
    let names = view.list(site, 8 * MAX_DISTS);
    let site = site.to_owned();
    names
        .into_iter()
        .take(8 * MAX_DISTS)
        .filter_map(move |name| {
            let name = name.to_string_lossy();
            let (dist, version) = name.strip_suffix(".dist-info")?.split_once('-')?;
            let package = Package {
                ecosystem: "pypi".to_owned(),
                // PEP 503 normalises to dashes; the directory has underscores.
                name: dist.replace('_', "-").to_ascii_lowercase(),
                version: Some(version.to_owned()),
            };
            Some((site.join(&*name), package))
        })
}

fn dist_of_script(view: &FsView, site: &Path, script: &str) -> Option<Package> {
    // Most scripts are named after their distribution: look there before reading them all.
    let mut all: Vec<(PathBuf, Package)> = dists(view, site).take(MAX_DISTS).collect();
    all.sort_by_key(|(_, package)| !script.contains(package.name.as_str()));
    all.into_iter()
        .find(|(dir, _)| {
            let lists = |file: &str, test: &dyn Fn(&str) -> bool| {
                let text = view.read(&dir.join(file), MAX_MANIFEST).unwrap_or_default();
                String::from_utf8_lossy(&text).lines().any(test)
            };
            lists("entry_points.txt", &|line| {
                line.split_once('=')
                    .is_some_and(|(name, _)| name.trim() == script)
            }) || lists("RECORD", &|line| {
                let file = line.split(',').next().unwrap_or_default();
                file.starts_with("../")
                    && file
                        .strip_suffix(script)
                        .is_some_and(|d| d.ends_with("/bin/"))
            })
        })
        .map(|(_, package)| package)
}

fn dist_of_module(view: &FsView, site: &Path, module: &str) -> Option<Package> {
    let top = module.split('.').next().filter(|m| !m.is_empty())?;
    let normal = top.replace('_', "-").to_ascii_lowercase();
    let all: Vec<(PathBuf, Package)> = dists(view, site).take(MAX_DISTS).collect();
    if let Some((_, package)) = all.iter().find(|(_, p)| p.name == normal) {
        return Some(package.clone());
    }
    let starts = [format!("{top}/"), format!("{top}.py,")];
    all.into_iter()
        .find(|(dir, _)| {
            let record = view
                .read(&dir.join("RECORD"), MAX_MANIFEST)
                .unwrap_or_default();
            let text = String::from_utf8_lossy(&record);
            text.lines()
                .any(|line| starts.iter().any(|start| line.starts_with(start)))
        })
        .map(|(_, package)| package)
}

#[cfg(test)]
mod tests;
