//! What is around a credential: where it came from, what it reaches, who depends on it, who answers
//! for it.
//!
//! [`Graph`] is built from the same facts and uses as the join, one edge for each relation that was
//! seen, with its first and last time, its count and the ids of records that show it
//! ([`observe`]). What was never seen but is *allowed* comes from exported policies
//! ([`permission`]). [`query`] answers over both; [`blast`] ranks; [`people`] names the humans.
//!
//! Architecture invariants:
//! - GR-1: no I/O, no clock. The same observations give the same graph in any order
//!   (`tests/graph.rs` permutes them).
//! - GR-2: every collection is bounded; what found no room is counted ([`Counts`]).
//! - GR-3: an edge says what was observed; it is never invented from a permission, nor the reverse.
//! - GR-4: of an imported file only actions, resources, names and ids are kept: no condition's
//!   value, no other text that may be a secret.

pub mod blast;
mod edge;
pub mod fuzz;
mod graph;
mod node;
pub mod observe;
pub mod people;
pub mod permission;
pub mod query;

pub use edge::{Edge, EdgeKey, EdgeKind, Evidence, MAX_EVIDENCE};
pub use graph::{Counts, Graph, Limits, Staged};
pub use node::{NodeId, NodeIdError, NodeKind};
pub use observe::Observation;
