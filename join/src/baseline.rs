//! What is usual for an agent, learned from explained uses only.

pub mod policy;
pub mod profile;
