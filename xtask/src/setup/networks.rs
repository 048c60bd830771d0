//! A free table of networks, from packages of the npm registry.
//!
//! Systems: `@ip-location-db/asn`, CC BY 4.0 (RouteViews, DB-IP, NRO). Countries:
//! `@ip-location-db/geo-whois-asn-country`, CC0. The version of both ends in the hour of the data. Their
//! publisher says that newer data no longer comes this way and that some of it is wrong, so this is a
//! beginning: docs/networks.md names what to replace it by.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cmd;
use crate::ui::Ui;
use crate::workspace::Workspace;

/// Where `cargo xtask up` has its correlator look for networks.
const FOLDER: &str = ".keytrail/correlator/networks";

/// A package, the files taken out of it, and who must be named for them.
struct Package {
    name: &'static str,
    files: [&'static str; 2],
    licence: &'static str,
    attribution: &'static str,
}

const PACKAGES: [Package; 2] = [
    Package {
        name: "@ip-location-db/asn",
        files: ["asn-ipv4.csv", "asn-ipv6.csv"],
        licence: "CC-BY-4.0",
        attribution: "Systems: RouteViews (routeviews.org), IP to ASN Lite by DB-IP (https://db-ip.com), NRO (nro.net), CC BY 4.0, merged by ip-location-db",
    },
    Package {
        name: "@ip-location-db/geo-whois-asn-country",
        files: [
            "geo-whois-asn-country-ipv4.csv",
            "geo-whois-asn-country-ipv6.csv",
        ],
        licence: "CC0-1.0",
        attribution: "Countries: ip-location-db, CC0, with data of NRO (nro.net), CC BY 4.0",
    },
];

/// Installs the table, or a newer one over it.
///
/// # Errors
/// When npm cannot fetch the packages, or a file cannot be written.
pub(super) fn install(ws: &Workspace, ui: &Ui, into: Option<&Path>) -> Result<()> {
    let folder = ws.root.join(into.unwrap_or(Path::new(FOLDER)));
    let temporary = ws.cache.join("networks");
    fs::create_dir_all(&temporary).with_context(|| temporary.display().to_string())?;
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let step = ui.step("fetching a table of networks (30 MB)");
    let mut npm = Command::new("npm");
    npm.args([
        "install",
        "--no-save",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--prefix",
    ]);
    npm.arg(&temporary);
    npm.args(PACKAGES.map(|package| format!("{}@latest", package.name)));
    cmd::quiet(ws, &step, "networks", &mut npm).context(
        "cannot fetch the table of networks: check the network, or put files of your own there (docs/networks.md)",
    )?;
    let mut sources = String::from("# Written by `cargo xtask setup --for networks`.\n");
    for package in &PACKAGES {
        let from = temporary.join("node_modules").join(package.name);
        let dated = dated(&from.join("package.json"))?;
        for file in package.files {
            replace(&from.join(file), &folder.join(file))?;
            sources.push_str(&format!(
                "\n[[file]]\nname = {file:?}\ndated = {dated:?}\nlicence = {:?}\nattribution = {:?}\n",
                package.licence, package.attribution
            ));
        }
    }
    fs::write(folder.join("sources.toml"), sources).context("cannot write sources.toml")?;
    fs::remove_dir_all(&temporary).with_context(|| temporary.display().to_string())?;
    step.done();
    ui.say(format!(
        "networks of addresses are in {}",
        ws.shown(&folder)
    ));
    for package in &PACKAGES {
        ui.say(format!("  {} ({})", package.attribution, package.licence));
    }
    Ok(())
}

/// Puts a file where another may be in use, whole or not at all.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let part: PathBuf = to.with_extension("part");
    fs::copy(from, &part).with_context(|| from.display().to_string())?;
    fs::rename(&part, to).with_context(|| to.display().to_string())
}

/// The day in a version such as `2.3.2026061719`.
fn dated(package: &Path) -> Result<String> {
    let text = fs::read_to_string(package).with_context(|| package.display().to_string())?;
    let package: serde_json::Value = serde_json::from_str(&text)?;
    let version = package
        .get("version")
        .and_then(|v| v.as_str())
        .unwrap_or_default();
    match day_of(version) {
        Some(day) => Ok(day),
        None => bail!("the version {version:?} does not end in a date; the package has changed"),
    }
}

fn day_of(version: &str) -> Option<String> {
    let stamp = version.rsplit('.').next()?;
    if stamp.len() < 8 || !stamp.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (year, month, day) = (stamp.get(..4)?, stamp.get(4..6)?, stamp.get(6..8)?);
    Some(format!("{year}-{month}-{day}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_day_is_in_the_version() {
        for (version, day) in [
            ("2.3.2026061719", Some("2026-06-17")),
            ("2.3.4", None),
            ("", None),
        ] {
            assert_eq!(day_of(version).as_deref(), day, "{version}");
        }
    }
}
