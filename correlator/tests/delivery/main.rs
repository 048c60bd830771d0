//! How records arrive: every way in, with senders that misbehave, rotations, crashes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::must_use_candidate,
    unreachable_pub,
    missing_docs,
    dead_code,
    reason = "test code: it fails by panicking and has no public interface"
)]

#[cfg(all(feature = "aws", feature = "azure", feature = "gcs"))]
mod bucket;
#[path = "../common/mod.rs"]
mod common;
mod import;
#[cfg(feature = "kafka")]
mod kafka;
mod kill;
mod oidc;
mod openbao;
mod parts;
mod poll;
mod push;
#[cfg(feature = "aws")]
mod s3;
mod streams;
mod tail;
mod vendors;

use common::{minutes_ago, record};
use correlator::sources::config::{SourceConfig, Via};

/// A CloudTrail record on one line.
pub fn line(id: &str) -> String {
    format!("{}\n", record(id, minutes_ago(10)))
}

/// A source of CloudTrail records.
pub fn source(name: &str, via: Via) -> SourceConfig {
    SourceConfig::of(name, "aws.cloudtrail", via)
}
