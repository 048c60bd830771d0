//! What the agent keeps of root's rights once the kernel side is loaded.
//!
//! Loading needs `CAP_BPF`, `CAP_PERFMON` and `CAP_NET_ADMIN`. Afterwards rings and maps are used
//! through open descriptors, which needs no right at all. What stays, stays because the agent reads
//! what belongs to others (credential files of every user, `/proc` of every process) and has a child
//! that may do less than itself.

use caps::{CapSet, Capability, CapsHashSet};
use thiserror::Error;

/// The rights that stay:
/// - `CAP_DAC_READ_SEARCH`: reads files of every user, writes none;
/// - `CAP_SYS_PTRACE`: `/proc/PID/{root,fd,environ}` of processes of every user. It would also let a
///   taken-over agent attach to them: the systemd unit's system call filter forbids `ptrace`.
/// - `CAP_SETUID` and `CAP_SETGID`: the process that parses credential files is started, and when
///   need be replaced, as nobody. They open no file that the first one does not.
/// - `CAP_KILL`: to end that process when it hangs; it is another account's by then.
pub const KEPT: [Capability; 5] = [
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_KILL,
];

/// Why rights could not be given up.
#[derive(Debug, Error)]
pub enum PrivilegeError {
    /// The kernel refused.
    #[error("cannot give up {what}: {why}")]
    Refused {
        /// Which set.
        what: &'static str,
        /// What the system said.
        why: String,
    },
}

/// Gives up everything but [`KEPT`], for this thread and all that it starts later, for good. Rights
/// belong to threads: call it before there is a second one.
///
/// # Errors
/// When the kernel refuses a step; what was given up before stays given up.
pub fn keep_reading_only() -> Result<(), PrivilegeError> {
    let refused = |what| {
        move |why: caps::errors::CapsError| PrivilegeError::Refused {
            what,
            why: why.to_string(),
        }
    };
    let held = caps::read(None, CapSet::Permitted).map_err(refused("any right"))?;
    let kept: CapsHashSet = KEPT.into_iter().filter(|cap| held.contains(cap)).collect();
    // Dropping from the bounding set needs CAP_SETPCAP, so it comes first.
    if held.contains(&Capability::CAP_SETPCAP) {
        let bound = caps::read(None, CapSet::Bounding).map_err(refused("the bounding set"))?;
        for cap in bound.into_iter().filter(|cap| !kept.contains(cap)) {
            caps::drop(None, CapSet::Bounding, cap).map_err(refused("the bounding set"))?;
        }
    }
    caps::clear(None, CapSet::Ambient).map_err(refused("the ambient set"))?;
    caps::clear(None, CapSet::Inheritable).map_err(refused("the inheritable set"))?;
    caps::set(None, CapSet::Effective, &kept).map_err(refused("the effective set"))?;
    caps::set(None, CapSet::Permitted, &kept).map_err(refused("the permitted set"))?;
    nix::sys::prctl::set_no_new_privs().map_err(|error| PrivilegeError::Refused {
        what: "the right to gain new ones",
        why: error.to_string(),
    })
}
