//! Sources: where cloud-side uses come from.
//!
//! Here is delivery; records are understood by [`keytrail_sources`].

pub mod cloudtrail;
