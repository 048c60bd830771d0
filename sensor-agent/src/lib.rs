//! The endpoint agent.

pub mod assemble;
