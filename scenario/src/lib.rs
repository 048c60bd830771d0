//! The proof: labelled incidents and made-up days of life, and what the join makes of them.
//!
//! - `file` and `script` turn a scenario file (`tests/scenarios/README.md` describes it) into the
//!   inputs of the join, each with the moment at which it arrives;
//! - `vary` makes the same story happen otherwise: a sensor offline, events lost, records late;
//! - `check` runs them through the join and compares; `report` says how well that went;
//! - `simulate` makes days of life of many endpoints, with thefts in them.
//!
//! Architecture invariant: this crate drives [`keytrail_join::Join`] and nothing else. It reads no
//! clock; the files are its only input and its output is a function of them.

pub mod check;
mod cloud;
mod endpoint;
mod entities;
mod error;
mod file;
mod moment;
mod random;
mod raw;
pub mod report;
mod script;
pub mod simulate;
mod stage;
mod vary;
mod words;
mod world;

/// JSON Schema (2020-12) of a scenario file, which is TOML: for editors, and for who writes one by a
/// program.
pub const SCHEMA: &str = include_str!("../../tests/scenarios/schema.json");

pub use error::ScenarioError;
pub use file::{Evidence, Expected, Pattern};
pub use script::{Scenario, Step, files, load, load_all};
pub use vary::Variation;
