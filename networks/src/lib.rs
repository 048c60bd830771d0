//! Whose network an address belongs to.
//!
//! A [`Database`] is one file made small: sorted, disjoint ranges of IPv4 and IPv6 with what the file
//! says of them. A [`Table`] asks several of them. Files may be
//!
//! - MaxMind databases (`.mmdb`) of systems, countries or cities, and others of that format (IPinfo,
//!   DB-IP, ip-location-db);
//! - CSV or TSV with a range or a CIDR block at the front (ip-location-db, iptoasn, IPinfo, GeoLite2's
//!   blocks of systems, geofeeds of RFC 8805);
//! - the ranges that providers publish as JSON (AWS, Google, Azure, GitHub, Cloudflare, Fastly,
//!   Oracle, Atlassian, and any other that lists CIDR blocks);
//! - lists of CIDR blocks, one a line.
//!
//! Which one a file is shows in its first bytes, not in its name. A file is taken whole or refused
//! whole, with the line and what is wrong with it.
//!
//! Architecture invariant: like `sources` this crate has no I/O of its own and no clock: bytes come
//! in through a reader.

pub mod database;
pub mod error;
mod ranges;
mod read;
mod span;
pub mod table;

pub use database::{Database, Role};
pub use error::{Problem, ReadError};
pub use read::read;
pub use table::Table;
