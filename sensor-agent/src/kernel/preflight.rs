//! Can the sensor work here at all? Each reason why not is one clear line.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::btf::BtfError;

/// Why the sensor cannot run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No BTF, or none that this sensor understands.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// Rights are missing.
    #[error("the sensor lacks {missing}: run it as root, or give its binary these capabilities")]
    Rights {
        /// Names of capabilities.
        missing: String,
    },
    /// Inside a container: process ids from the kernel would name other processes.
    #[error(
        "the sensor runs in a pid namespace of its own ({found}), as in a container; process ids \
         from the kernel would mean other processes here. Run it on the host, or with the host's \
         pid namespace (docker run --pid=host)"
    )]
    PidNamespace {
        /// The namespace.
        found: String,
    },
    /// No cgroup v2.
    #[error(
        "no cgroup v2 file system is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup/unified"
    )]
    NoCgroup2,
    /// The scope is not a cgroup v2 directory.
    #[error("the scope {path} is not a directory of the cgroup v2 file system at {mount}")]
    Scope {
        /// What was given.
        path: String,
        /// Where cgroup v2 is mounted.
        mount: String,
    },
    /// An old kernel.
    #[error(
        "kernel {found} is too old: the sensor needs 5.17 or later, and is tested on 6.1 and up"
    )]
    KernelTooOld {
        /// `uname -r`.
        found: String,
    },
    /// Lockdown forbids reading kernel memory.
    #[error(
        "kernel lockdown is in confidentiality mode, which forbids BPF to read kernel memory; boot \
         with lockdown=integrity or none"
    )]
    Lockdown,
    /// The embedded object is not loadable.
    #[error("the kernel refused the BPF maps: {0}")]
    Object(String),
    /// Something that the sensor cannot do without was refused.
    #[error("the kernel refused {program}, without which nothing can be tracked: {reason}")]
    Program {
        /// Name of the program.
        program: String,
        /// What the kernel said.
        reason: String,
    },
    /// Pins need a BPF file system.
    #[error(
        "{path} is not in a BPF file system, so nothing can be kept there while no agent runs; \
         mount one (mount -t bpf bpf /sys/fs/bpf), or leave pin_dir out"
    )]
    NoBpffs {
        /// What was given.
        path: String,
    },
    /// Another agent holds the pins.
    #[error("{path} is in use by a running sensor; stop it first")]
    PinsInUse {
        /// The folder.
        path: String,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The inode of the initial pid namespace, fixed in `include/linux/proc_ns.h`.
const INIT_PID_NS: &str = "pid:[4026531836]";
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Checks everything that can be known without loading.
///
/// # Errors
/// The first reason found.
pub fn check() -> Result<(), LoadError> {
    let release = kernel_release();
    let mut parts = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|p| p.parse::<u32>().ok());
    if let (Some(Some(major)), Some(Some(minor))) = (parts.next(), parts.next())
        && (major, minor) < (5, 17)
    {
        return Err(LoadError::KernelTooOld { found: release });
    }
    if let Ok(found) = fs::read_link("/proc/self/ns/pid")
        && found != Path::new(INIT_PID_NS)
    {
        return Err(LoadError::PidNamespace {
            found: found.display().to_string(),
        });
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    check_rights(&status)?;
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    if lockdown.contains("[confidentiality]") {
        return Err(LoadError::Lockdown);
    }
    Ok(())
}

fn check_rights(status: &str) -> Result<(), LoadError> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let has = |cap: u32| effective & (1 << cap) != 0;
    let missing: Vec<&str> = [
        (CAP_BPF, "CAP_BPF"),
        (CAP_PERFMON, "CAP_PERFMON"),
        (CAP_NET_ADMIN, "CAP_NET_ADMIN"),
    ]
    .into_iter()
    .filter(|(cap, _)| !has(*cap) && !has(CAP_SYS_ADMIN))
    .map(|(_, name)| name)
    .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(LoadError::Rights {
            missing: missing.join(", "),
        })
    }
}

/// `uname -r`.
#[must_use]
pub fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Where cgroup v2 is mounted.
///
/// # Errors
/// [`LoadError::NoCgroup2`].
pub fn cgroup2_mount() -> Result<PathBuf, LoadError> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .find_map(|line| {
            let mut fields = line.split(' ');
            let (_, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(path))
        })
        .ok_or(LoadError::NoCgroup2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_missing_rights() {
        assert!(check_rights("CapEff:\t000001ffffffffff\n").is_ok());
        // CAP_SYS_ADMIN alone stands for all three, as in the kernel.
        assert!(check_rights("CapEff:\t0000000000200000\n").is_ok());
        let error = check_rights("CapEff:\t0000000000001000\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("CAP_BPF, CAP_PERFMON:"), "{error}");
    }
}
