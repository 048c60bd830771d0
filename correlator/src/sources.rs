//! Sources: where cloud-side uses come from.
//!
//! Architecture invariant (SO-1): only this module knows a vendor's field names; what leaves it is
//! a [`keytrail_model::consumption::Consumption`].

pub mod cloudtrail;
