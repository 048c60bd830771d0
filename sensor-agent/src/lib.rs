//! The endpoint agent: from kernel events to facts, and out.
//!
//! Flow: `kernel` (load, prove, decode) -> `pipeline` -> `tree`, `agents`, `credentials` (who, what)
//! -> facts -> `uplink` (outbox on disk, stream).

pub mod agents;
pub mod clock;
pub mod credentials;
pub mod files;
pub mod hello;
pub mod identity;
pub mod kernel;
pub mod paths;
pub mod people;
pub mod redact;
pub mod tree;
pub mod uplink;
