//! The endpoint agent: from kernel events to facts, and out.
//!
//! Flow: `kernel` (load, prove, decode) -> `pipeline` -> `tree`, `agents`, `credentials` (who, what)
//! -> facts -> `uplink` (outbox on disk, stream).

pub mod clock;
pub mod hello;
pub mod kernel;
