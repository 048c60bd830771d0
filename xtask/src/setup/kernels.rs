//! Guest kernels out of Debian's packages: downloaded and unpacked, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::apt;
use crate::cmd;
use crate::ui::{Step, Ui};
use crate::workspace::{Workspace, which};

/// A kernel series that guests run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Series {
    /// Debian 12's own
    #[value(name = "6.1")]
    Six1,
    /// Debian 13's, in Debian 12's security archive too
    #[value(name = "6.12")]
    Six12,
}

/// An unpacked guest kernel.
pub(crate) struct Kernel {
    /// The bootable image.
    pub(crate) image: PathBuf,
    /// The version of the package that it came from.
    pub(crate) version: String,
    /// `overlay.ko`, which Debian builds as a module; absent when it could not be unpacked.
    pub(crate) overlay: Option<PathBuf>,
}

/// A package and its version, as the archive offers it.
struct Offer {
    package: String,
    version: String,
}

impl Series {
    pub(crate) const ALL: [Self; 2] = [Self::Six1, Self::Six12];

    /// `6.1` or `6.12`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Six1 => "6.1",
            Self::Six12 => "6.12",
        }
    }
}

/// The newest kernel of `series` that was fetched, else the newest that the archive has.
///
/// # Errors
/// When there is none in the cache and apt is absent, or offers none, or fails.
pub(super) fn fetch(ws: &Workspace, ui: &Ui, series: Series) -> Result<Kernel> {
    let dir = ws.cache.join("kernels").join(series.name());
    if let Some(kernel) = cached(&dir) {
        return Ok(kernel);
    }
    let name = series.name();
    if which("apt-get").is_none() || which("dpkg-deb").is_none() {
        bail!(
            "no kernel {name} for the guest: there is no apt-get and dpkg-deb here. Put a bootable image with BTF at {} and its version in a file `version` beside it",
            dir.join("vmlinuz").display()
        );
    }
    let step = ui.step(format!("fetching a {name} kernel for the guest (30 MB)"));
    if offers(series).is_empty() || !apt::has_lists() {
        apt::update(ws, &step)?;
    }
    let best = offers(series).into_iter().max_by_key(|o| numbers(&o.version)).with_context(|| {
        format!("apt offers no linux-image-{name}*-cloud-amd64: Debian 12 with its security archive has it")
    })?;
    unpack(ws, &step, &dir, &best).with_context(|| format!("fetching {}", best.package))?;
    step.done();
    cached(&dir).with_context(|| format!("{} did not hold a kernel", best.package))
}

fn cached(dir: &Path) -> Option<Kernel> {
    let image = dir.join("vmlinuz");
    let version = fs::read_to_string(dir.join("version")).ok()?;
    let overlay = dir.join("overlay.ko");
    // empty: the package was looked through, and had none that can be unpacked here
    let unpacked = fs::metadata(&overlay).ok()?.len() > 0;
    image.exists().then(|| Kernel {
        image,
        version: version.trim().to_owned(),
        overlay: unpacked.then_some(overlay),
    })
}

/// Signed and unsigned packages of a series, with the version that apt would take.
fn offers(series: Series) -> Vec<Offer> {
    let pattern = format!(
        r"^linux-image-{}\.[^ ]*-cloud-amd64(-unsigned)?$",
        series.name().replace('.', r"\.")
    );
    let found = cmd::output(Command::new("apt-cache").args(["search", "--names-only", &pattern]));
    let names: Vec<String> = found
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    if names.is_empty() {
        return Vec::new();
    }
    let listed = cmd::output(Command::new("apt-cache").arg("madison").args(names));
    listed
        .unwrap_or_default()
        .lines()
        .filter_map(offer)
        .collect()
}

/// Reads a line of `apt-cache madison`: `package | version | source`.
fn offer(line: &str) -> Option<Offer> {
    let mut columns = line.split('|').map(str::trim);
    let (package, version) = (columns.next()?, columns.next()?);
    line.contains("Packages").then(|| Offer {
        package: package.into(),
        version: version.into(),
    })
}

/// The numbers in a Debian version, which order kernel versions of one series as dpkg does.
fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

fn unpack(ws: &Workspace, step: &Step, dir: &Path, offer: &Offer) -> Result<()> {
    let work = dir.join("work");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let mut apt = apt::apt_get(&["-o", "APT::Sandbox::User=root", "download"]);
    apt.arg(format!("{}={}", offer.package, offer.version))
        .current_dir(&work);
    cmd::quiet(ws, step, "apt-download", &mut apt)?;
    let deb = only(&work, |file| file.extension().is_some_and(|e| e == "deb"))
        .context("apt downloaded no package")?;
    let mut dpkg = Command::new("dpkg-deb");
    cmd::quiet(
        ws,
        step,
        "dpkg-deb",
        dpkg.arg("-x").arg(&deb).arg(work.join("x")),
    )?;
    let image = only(&work.join("x/boot"), |file| {
        file.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
    })
    .context("the package has no /boot/vmlinuz-*")?;
    fs::rename(image, dir.join("vmlinuz"))?;
    fs::write(dir.join("overlay.ko"), overlay(&work.join("x/lib/modules")))?;
    // the version is written last: without it the kernel is fetched again
    fs::write(dir.join("version"), &offer.version)?;
    fs::remove_dir_all(&work).context("removing the unpacked package")
}

/// The overlay file system's module out of a package's `lib/modules`; empty when there is none, or it
/// is compressed and there is no `xz`: the guest then skips what needs it.
fn overlay(modules: &Path) -> Vec<u8> {
    let Some(version) = only(modules, Path::is_dir) else {
        return Vec::new();
    };
    let plain = version.join("kernel/fs/overlayfs/overlay.ko");
    let packed = plain.with_extension("ko.xz");
    if packed.exists() && which("xz").is_some() {
        let mut xz = Command::new("xz");
        if cmd::output(xz.arg("--decompress").arg("--keep").arg(&packed)).is_none() {
            return Vec::new();
        }
    }
    fs::read(plain).unwrap_or_default()
}

fn only(dir: &Path, wanted: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    fs::read_dir(dir)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find(|file| wanted(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_by_number() {
        let order = ["6.1.9-1", "6.1.176-1", "6.1.192-1", "6.1.192-2"];
        assert!(order.is_sorted_by_key(|v| numbers(v)));
        assert!(numbers("6.12.99-1~deb12u1") < numbers("6.12.117-1~deb12u1"));
    }

    #[test]
    fn madison_lines_are_read() {
        let line = " linux-image-6.1.0-55-cloud-amd64 |  6.1.192-1 | http://x bookworm/main amd64 Packages";
        let read = offer(line).unwrap();
        assert_eq!(
            (read.package.as_str(), read.version.as_str()),
            ("linux-image-6.1.0-55-cloud-amd64", "6.1.192-1")
        );
        assert!(offer("linux-signed | 6.1 | http://x Sources").is_none());
        assert!(offer("").is_none());
    }
}
