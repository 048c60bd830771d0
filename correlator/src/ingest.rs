//! Ingest: what sensors send, authenticated, checked, de-duplicated and made durable before it is
//! acknowledged.
//!
//! Architecture invariant (IN-1): the wire carries no host. A fact's host is the one that the
//! peer's certificate names, so a sensor can speak only for itself.
//!
//! Architecture invariant (IN-2): an acknowledgement follows [`sink::IngestSink::submit`], never
//! precedes it.

pub mod sink;
