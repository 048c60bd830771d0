//! What Keytrail talks about: processes, agents, credentials, connections, cloud-side uses, verdicts.
//!
//! Architecture invariant: this crate does no I/O and reads no clock. Everything here can be
//! recorded, replayed and compared. No type here can hold a secret: a credential is known by an
//! identifier that its provider prints in its own logs, or by a keyed hash.

pub mod affinity;
pub mod alert;
pub mod consumption;
pub mod coverage;
pub mod credential;
pub mod fact;
pub mod ids;
pub mod process;
pub mod text;
