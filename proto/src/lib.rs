//! The wire contract between sensor and correlator.
//!
//! The contract itself, with its rules of order, duplicates, reconnects and acknowledgement, is in
//! `proto/keytrail/v1/*.proto`. [`wire`] is what those files generate (a test fails when it is
//! stale); [`convert`] is the only bridge to the domain types of `keytrail-model`: every field is
//! named on both sides, so a new one does not compile until it is carried across. [`block`] packs
//! facts into what a batch carries.
//!
//! Architecture invariant (PR-1): only this crate, the agent's `uplink` and the correlator's
//! `ingest` see wire types.
//!
//! Architecture invariant (PR-2): no message names a host or carries a secret.

pub mod block;
pub mod convert;
pub mod fuzz;

/// Version of the contract that this crate speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// Largest gRPC message that either side takes in, bytes. Above the largest block with room for
/// incompressible content.
pub const MAX_MESSAGE_BYTES: usize = 6 * 1024 * 1024;

/// Generated messages, clients and servers.
#[expect(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated; documented in the .proto files"
)]
pub mod wire {
    include!("gen/keytrail.v1.rs");
}

impl std::fmt::Debug for wire::EnrolRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            join_token: _,
            csr_pem: _,
            hostname,
            machine_digest: _,
        } = self;
        f.debug_struct("EnrolRequest")
            .field("hostname", hostname)
            .finish_non_exhaustive()
    }
}
