//! Objects of a bucket, found by listing it: S3, Azure Blob storage, Google Cloud Storage (Cargo
//! features `aws`, `azure`, `gcs`; all of them through `object_store`).
//!
//! - `place` says which bucket and which prefixes;
//! - `open` connects, with the provider's own chain of credentials;
//! - `object` takes one object in, from where it was left;
//! - `window` remembers which objects were read, and how far;
//! - `worker` goes from sweep to sweep.
//!
//! A *sweep* lists what changed since the mark and reads what is new of it. The mark is the newest
//! change that was seen, less the [`OVERLAP`]; objects that changed behind it are remembered one by
//! one, older ones are neither listed for their own sake nor remembered. An object's position is
//! committed with the uses before it, so a crash repeats at most what the record ids recognise.
//!
//! Objects may grow. Azure's resource logs are append blobs of one record a line, rewritten
//! wrappers (`{"records":[...]}`) in older settings: the first are read on from the last whole
//! line, of the second only the records that were not there before are taken.
//!
//! [`OVERLAP`]: place::OVERLAP

#[cfg(feature = "bucket")]
mod object;
#[cfg(feature = "bucket")]
mod open;
pub mod place;
#[cfg(feature = "bucket")]
mod window;
#[cfg(feature = "bucket")]
mod worker;

#[cfg(feature = "aws")]
pub(super) use open::profile::{AwsKeys, KeysError};
pub use place::BucketConfig;
#[cfg(feature = "bucket")]
pub(super) use worker::run;
