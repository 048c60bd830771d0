//! The endpoint agent: from kernel events to facts, and out.
//!
//! Flow: `kernel` (load, prove, decode) -> `pipeline` -> `identity` (who) and `credentials` (what)
//! -> facts -> `uplink` (outbox on disk, stream). `run` is the life cycle.

pub mod agents;
pub mod carry;
pub mod check;
pub mod clock;
pub mod config;
pub mod credentials;
pub mod files;
pub mod fuzz;
pub mod health;
pub mod hello;
pub mod identity;
pub mod kernel;
pub mod names;
pub mod paths;
pub mod people;
pub mod pipeline;
pub mod privileges;
pub mod redact;
pub mod run;
pub mod seed;
pub mod sockets;
pub mod tree;
pub mod uplink;
pub mod vigil;
pub mod watchlist;
