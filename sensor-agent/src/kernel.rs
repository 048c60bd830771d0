//! The kernel side of the agent: loading the BPF programs, telling them what to watch, and reading
//! what they report.
//!
//! ```text
//! btf      offsets of this kernel          preflight  can it work here at all?
//! hooks    which program serves what       load       load, attach, prove by canary
//! watch    what to watch                   rings      read, decode, order, watermark
//! decode   bytes -> events (the trust boundary)       execs  argv and environment put together
//! stats    what was seen and lost          check      the table for people
//! memory   what loading leaves behind goes back to the system
//! pins     what outlives the agent         handover   from one version's programs to the next's
//! ```
#![allow(
    clippy::similar_names,
    clippy::many_single_char_names,
    clippy::struct_excessive_bools,
    clippy::struct_field_names,
    reason = "names and shapes follow the kernel's own: tgid and tid, ring and ringed flags"
)]
#![allow(
    clippy::map_err_ignore,
    clippy::assigning_clones,
    clippy::unnecessary_wraps,
    clippy::filter_next,
    clippy::let_underscore_must_use,
    reason = "each dropped error is replaced by one that says more; cases share one signature"
)]

mod attach;
pub mod bench;
pub mod btf;
mod canary;
pub mod decode;
pub mod event;
pub mod execs;
mod handover;
pub mod hooks;
pub mod load;
pub mod memory;
pub mod pins;
pub mod preflight;
mod ring;
pub mod rings;
pub mod selftest;
pub mod stats;
pub mod watch;

pub use canary::Canary;
pub use event::KernelEvent;
pub use load::{Sensor, SensorConfig};
pub use preflight::LoadError;
pub use rings::{Drained, Positions};
pub use watch::Watch;
