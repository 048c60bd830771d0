//! Namespaces without names: each is held open by a file descriptor of the runner and by the
//! processes in it, so it vanishes with them, however the run ends. Nothing is pinned to a path.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

/// A namespace that the runner holds open.
#[derive(Debug)]
pub struct Space {
    file: File,
}

impl Space {
    /// A path by which a child of the runner can open this namespace.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.file.as_raw_fd()
        ))
    }

    /// A new network namespace with its loopback up.
    ///
    /// # Errors
    /// Without the right to make namespaces, or without `ip`.
    pub fn network() -> Result<Self> {
        let file = on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace (needs root)")?;
            let file = File::open("/proc/thread-self/ns/net")?;
            ip(&["link", "set", "lo", "up"])?;
            Ok(file)
        })?;
        Ok(Self { file })
    }

    /// A new mount namespace in which each `(file, over)` pair is bind-mounted; changes stay inside.
    ///
    /// # Errors
    /// Without the right to mount.
    pub fn mounts(binds: &[(PathBuf, PathBuf)]) -> Result<Self> {
        let binds = binds.to_vec();
        let file = on_own_thread(move || {
            unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace (needs root)")?;
            let none: Option<&Path> = None;
            mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none)
                .context("making the mounts private")?;
            for (file, over) in &binds {
                mount(Some(file), over, none, MsFlags::MS_BIND, none).with_context(|| {
                    format!("mounting {} over {}", file.display(), over.display())
                })?;
            }
            Ok(File::open("/proc/thread-self/ns/mnt")?)
        })?;
        Ok(Self { file })
    }

    /// Runs `work` on a thread of its own inside this network namespace.
    ///
    /// # Errors
    /// Those of `work`, or when the namespace cannot be entered.
    pub fn inside<T, F>(&self, work: F) -> Result<T>
    where
        F: FnOnce() -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let file = self.file.try_clone()?;
        on_own_thread(move || {
            setns(&file, CloneFlags::CLONE_NEWNET).context("entering a network namespace")?;
            work()
        })
    }
}

/// Joins two network namespaces by a virtual cable. `near` gets `near_addr`, `far` gets `far_addr`
/// (both with a prefix length), and `near` sends everything else to `far`.
///
/// # Errors
/// When `ip` refuses; the text holds what it said.
pub fn cable(
    near: &Space,
    near_addr: &str,
    far: &Space,
    far_if: &str,
    far_addr: &str,
) -> Result<()> {
    let peer_ns = far.path().display().to_string();
    let (addr, gateway) = (
        near_addr.to_owned(),
        far_addr.split('/').next().unwrap_or("").to_owned(),
    );
    let name = far_if.to_owned();
    near.inside(move || {
        ip(&[
            "link", "add", "eth0", "type", "veth", "peer", "name", &name, "netns", &peer_ns,
        ])?;
        ip(&["addr", "add", &addr, "dev", "eth0"])?;
        ip(&["link", "set", "eth0", "up"])
    })?;
    let (name, addr) = (far_if.to_owned(), far_addr.to_owned());
    far.inside(move || {
        ip(&["addr", "add", &addr, "dev", &name])?;
        ip(&["link", "set", &name, "up"])
    })?;
    near.inside(move || ip(&["route", "add", "default", "via", &gateway]))
}

/// Adds an address to a namespace's loopback.
///
/// # Errors
/// When `ip` refuses.
pub fn own_address(space: &Space, addr: &str) -> Result<()> {
    let addr = format!("{addr}/32");
    space.inside(move || ip(&["addr", "add", &addr, "dev", "lo"]))
}

fn ip(args: &[&str]) -> Result<()> {
    let out = Command::new("ip")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .context("starting `ip` (Debian: apt-get install iproute2)")?;
    if !out.status.success() {
        bail!(
            "ip {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(())
}

/// Namespaces belong to a thread: the work gets one that ends with it, so the runner's own stay as
/// they are.
fn on_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    std::thread::spawn(work)
        .join()
        .map_err(|_panic| anyhow!("a namespace thread panicked"))?
}
