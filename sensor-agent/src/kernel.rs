//! The kernel side of the agent: loading the BPF programs, telling them what to watch, and reading
//! what they report.
//!
//! ```text
//! btf      offsets of this kernel          preflight  can it work here at all?
//! hooks    which program serves what       load       load, attach, prove by canary
//! watch    what to watch                   rings      read, decode, order, watermark
//! decode   bytes -> events (the trust boundary)       execs  argv and environment put together
//! stats    what was seen and lost          check      the table for people
//! ```

pub mod bench;
pub mod btf;
mod canary;
pub mod decode;
pub mod event;
pub mod execs;
pub mod hooks;
pub mod load;
pub mod preflight;
pub mod rings;
pub mod selftest;
pub mod stats;
pub mod watch;

pub use event::KernelEvent;
pub use load::{Sensor, SensorConfig};
pub use preflight::LoadError;
pub use rings::Drained;
pub use watch::Watch;
