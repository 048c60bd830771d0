//! Recognising AI agents and their MCP servers by what the kernel says about processes.
//!
//! Lineage first: a process belongs to the agent that forked it, whatever its environment claims.
//! Products are data (`catalogue/agents.toml`): a new one is a row, and users add their own rows.

pub mod catalogue;
pub mod config;
pub mod drift;
pub mod executables;
pub mod launch;
pub mod package;
pub mod recognise;
pub mod servers;

pub use catalogue::{Catalogue, CatalogueError};
pub use executables::{Executable, ExecutableClass};
