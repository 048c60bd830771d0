//! The correlator: takes in endpoint facts and cloud-side uses, joins them, keeps and serves alerts.
//!
//! Sensors speak to [`ingest`], cloud logs come through [`sources`]; both end in the one queue of
//! the [`runner`], whose thread records every input in the [`store`], applies it to the join and
//! commits both together. The [`api`] and the [`cli`] only read.
//!
//! Architecture invariants:
//! - the system clock is read in [`clock`] (and in `ingest`, for TLS and clock offsets) only;
//! - only [`sources`] knows a vendor's field names, only [`ingest`] knows the wire;
//! - every queue is bounded, and everything dropped or refused is in [`counters`].

pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod counters;
pub mod fuzz;
pub mod graph;
mod hex;
pub mod ingest;
pub mod networks;
pub mod owners;
pub mod partition;
pub mod replay;
pub mod runner;
pub mod serve;
pub mod sources;
pub mod store;
