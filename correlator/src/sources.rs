//! Sources: where cloud-side uses come from.
//!
//! Here is delivery: [`folder`], [`tail`], [`socket`], [`syslog`], [`push`], [`poll`]. All of them
//! end in [`intake`], which has the records understood by [`keytrail_sources`] and commits the
//! uses together with how far their stream is read. [`config`] is what users write.
//!
//! Architecture invariants:
//! - DL-1: a record that cannot be used never stops its neighbours; it is counted and noted.
//! - DL-2: positions are committed in the transaction of the uses before them: a crash at any
//!   moment repeats at most what the record ids recognise, and loses nothing that the sender or
//!   the medium still has.

pub mod bucket;
pub mod config;
pub mod dead_letter;
pub mod folder;
mod frames;
pub(crate) mod fuzz;
pub mod import;
mod input;
pub mod intake;
pub mod kafka;
mod pause;
pub mod poll;
pub mod push;
#[cfg(feature = "aws")]
mod s3;
pub mod socket;
pub mod start;
pub mod status;
mod stream;
pub mod syslog;
pub mod tail;
pub mod tally;
pub mod tls;
mod udp;

pub use input::plain;
pub use intake::Intake;
pub use start::{StartError, Started, start};
pub use status::SourceStatus;
