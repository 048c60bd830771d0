//! AWS CloudTrail from a folder of log files.
//!
//! Cutting a file into records and making uses of them is [`keytrail_sources`]'s.
//!
//! - `file` reads one file, wholly or not at all;
//! - `watch` finds files;
//! - `dead_letter` keeps a note of each refused record, without its content.

mod dead_letter;
mod file;
mod status;
mod watch;

pub use dead_letter::DeadLetters;
pub use file::{FileError, FileReport, Intake};
pub use keytrail_sources::Rejection;
pub use keytrail_sources::framing::{Cut, FramingError, MAX_RECORD_BYTES, Records};
pub use status::{PendingFile, SourceStatus, StatusCell};
pub use watch::{Options, WatchError, watch};

/// The source's name, the prefix of its record ids.
pub const SOURCE: &str = "aws.cloudtrail";
