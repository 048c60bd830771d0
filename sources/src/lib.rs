//! Every provider's log records become uses of credentials.
//!
//! A [`Parser`] of one [`SourceKind`] takes one record's bytes and gives the
//! [`Consumption`](keytrail_model::consumption::Consumption)s in it, or says why it holds none
//! ([`Skip`]), or why it is refused ([`Rejection`]). [`framing`] cuts what was delivered into records.
//!
//! Architecture invariants:
//! - SO-1: only this crate knows a vendor's field names.
//! - SO-2: no I/O and no clock: the same bytes always give the same uses.
//! - SO-3: nothing of a request or a response is kept but the names of resources and the ids of
//!   credentials; what looks like a secret is struck out wherever it stands ([`text`]).
//! - SO-4: liberal in case and framing, strict in meaning: an unknown field or version is no error,
//!   but no odd text passes for an address, a service or a credential.

mod aws;
mod azure;
mod bedrock;
mod cyberark;
mod doc;
mod envelope;
pub mod framing;
pub mod fuzz;
mod gcp;
mod github;
mod gitlab;
mod kind;
mod kubernetes;
mod make;
mod mapping;
mod okta;
mod outcome;
mod parser;
mod salesforce;
mod secret;
pub mod text;
mod vault;
mod workday;

pub use kind::SourceKind;
pub use mapping::{Mapping, MappingError};
pub use outcome::{Parsed, Rejection, Skip};
pub use parser::{Options, Parser};
