//! Is this process an agent, and which version of it?

use std::path::Path;

use keytrail_model::process::Confidence;

use super::catalogue::{AgentRow, Catalogue};
use super::launch::{self, Launch, Target, basename};
use super::package::{self, NpmManifest};
use crate::files::FsView;
use crate::paths::glob_matches;

/// A process recognised as a product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recognised {
    /// The catalogue row's id.
    pub product: String,
    /// Version, when the package or the path says it.
    pub version: Option<String>,
    /// In words.
    pub method: String,
    /// How sure.
    pub confidence: Confidence,
}

/// What there is to go by.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The file tree as the process sees it.
    pub view: &'a FsView,
    /// Its executable.
    pub exe: &'a Path,
    /// Its command line, taken apart.
    pub launch: &'a Launch,
    /// Its working directory.
    pub cwd: Option<&'a Path>,
}

/// Recognises a product by its executable or script: never by its environment, which any process
/// may set and every child inherits.
#[must_use]
pub fn recognise(catalogue: &Catalogue, candidate: Candidate<'_>) -> Option<Recognised> {
    match &candidate.launch.target {
        Target::Script(script) => by_script(catalogue, candidate, script),
        Target::Program(_) | Target::Module(_) | Target::Inline | Target::Package(_) => {
            by_executable(catalogue, candidate)
        }
    }
    // A bundled runtime may itself be the product (`cursor-agent/versions/X/node index.js`).
    .or_else(|| by_executable(catalogue, candidate))
}

fn by_executable(catalogue: &Catalogue, candidate: Candidate<'_>) -> Option<Recognised> {
    let path = candidate.exe.to_str()?;
    let in_package = candidate
        .exe
        .components()
        .any(|c| c.as_os_str() == "node_modules");
    let manifest = in_package
        .then(|| package::nearest_npm(candidate.view, candidate.exe))
        .flatten();
    catalogue.rows().iter().find_map(|row| {
        let by_path = row.exe.iter().any(|glob| glob_matches(glob, path));
        let by_package = manifest.as_ref().is_some_and(|(_, m)| {
            row.npm.contains(&m.name) && row.bin.iter().any(|b| b == basename(path))
        });
        if !by_path && !by_package {
            return None;
        }
        // The package's own manifest agrees with the path: more than a path that anyone can make.
        let named = manifest.as_ref().filter(|(_, m)| {
            row.npm
                .iter()
                .any(|name| m.name == *name || m.name.starts_with(&format!("{name}-")))
        });
        Some(match named {
            Some((_, m)) => from_manifest(row, m, "executable inside"),
            None => Recognised {
                product: row.id.clone(),
                version: version_in(path),
                method: format!("executable {}", shown(path)),
                confidence: Confidence::Medium,
            },
        })
    })
}

fn by_script(catalogue: &Catalogue, candidate: Candidate<'_>, script: &str) -> Option<Recognised> {
    let written = candidate.cwd.unwrap_or(Path::new("/")).join(script);
    let real = candidate
        .view
        .realpath(&written)
        .unwrap_or_else(|_| written.clone());
    let manifest = package::nearest_npm(candidate.view, &real);
    let npm = manifest.as_ref().and_then(|(dir, m)| {
        let row = catalogue
            .rows()
            .iter()
            .find(|row| row.npm.contains(&m.name))?;
        let inside = real.strip_prefix(dir).ok()?;
        let known = row
            .bin
            .iter()
            .any(|b| inside.file_name().is_some_and(|n| n == b.as_str()));
        (m.is_command(inside) || known).then(|| from_manifest(row, m, "script of"))
    });
    npm.or_else(|| by_script_path(catalogue, candidate, &written, &real))
}

fn by_script_path(
    catalogue: &Catalogue,
    candidate: Candidate<'_>,
    written: &Path,
    real: &Path,
) -> Option<Recognised> {
    let fits = |row: &&AgentRow| {
        row.script.iter().any(|glob| {
            [real, written]
                .iter()
                .any(|p| glob_matches(glob, &p.to_string_lossy()))
        })
    };
    let row = catalogue.rows().iter().find(fits).or_else(|| {
        catalogue
            .rows()
            .iter()
            .find(|row| !row.pypi.is_empty() && row.commands.iter().any(|c| written.ends_with(c)))
    })?;
    let identified = package::identify(
        candidate.view,
        candidate.launch,
        candidate.exe,
        candidate.cwd,
    );
    let package = identified.package.filter(|p| {
        (p.ecosystem == "pypi" && row.pypi.contains(&p.name)) || row.npm.contains(&p.name)
    });
    match package {
        Some(package) => Some(Recognised {
            product: row.id.clone(),
            method: format!("script of {}", package.name),
            version: package.version,
            confidence: Confidence::High,
        }),
        // Recognised by path alone; a Python product must show its distribution.
        None if fits(&row) => Some(Recognised {
            product: row.id.clone(),
            version: None,
            method: format!("script {}", shown(&real.to_string_lossy())),
            confidence: Confidence::Medium,
        }),
        None => None,
    }
}

fn from_manifest(row: &AgentRow, manifest: &NpmManifest, how: &str) -> Recognised {
    // Platform packages carry their platform in the version: `0.169.0-linux-x64`.
    let version = manifest
        .version
        .as_deref()
        .map(|v| v.split("-linux").next().unwrap_or(v).to_owned());
    Recognised {
        product: row.id.clone(),
        version,
        method: format!("{how} {}", manifest.name),
        confidence: Confidence::High,
    }
}

/// A path component in the form of a version (`.../versions/2.1.197`, `.../2026.10.1/node`).
fn version_in(path: &str) -> Option<String> {
    let is_version = |part: &&str| {
        part.split('.').count() >= 2
            && part.len() <= 64
            && part.starts_with(|c: char| c.is_ascii_digit())
            && part
                .split('.')
                .take(2)
                .all(|n| n.bytes().all(|b| b.is_ascii_digit() || b == b'-'))
    };
    path.split('/').rev().find(is_version).map(str::to_owned)
}

fn shown(path: &str) -> String {
    path.chars().take(200).collect()
}

/// Takes a command line apart for [`Candidate`]; an empty one stands for its executable.
#[must_use]
pub fn launch_of(argv: &[String], exe: &Path) -> Launch {
    launch::unwrap(argv).unwrap_or_else(|| Launch {
        target: Target::Program(exe.to_string_lossy().into_owned()),
        words: Vec::new(),
        launcher: false,
        interpreter: None,
        shell: false,
    })
}
