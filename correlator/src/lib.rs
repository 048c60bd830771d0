//! The correlator: takes in endpoint facts and cloud-side uses, joins them, keeps and serves alerts.

pub mod ingest;
