//! Bodies of the fuzz targets (`fuzz/fuzz_targets/correlator_*.rs`), and of the short run in
//! `tests/smoke.rs`: what strangers can send to the correlator's own sockets.

pub use crate::api::scim::fuzz::{filter as scim_filter, patch as scim_patch};
pub use crate::sources::fuzz::syslog;
