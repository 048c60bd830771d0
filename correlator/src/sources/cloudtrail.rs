//! AWS CloudTrail from a folder of log files.
//!
//! - `framing` cuts a file into records, whatever wraps them, in bounded memory;
//! - `record` makes a use of a record, or says why not;
//! - `file` reads one file, wholly or not at all;
//! - `watch` finds files;
//! - `dead_letter` keeps a note of each refused record, without its content.
//!
//! Field names: AWS CloudTrail User Guide, "CloudTrail record contents".

mod dead_letter;
mod file;
mod framing;
mod record;
mod status;
mod watch;

pub use dead_letter::DeadLetters;
pub use file::{FileError, FileReport, Intake};
pub use framing::{Cut, FramingError, MAX_RECORD_BYTES, Records};
pub use record::{Parsed, Rejection, parse_record};
pub use status::{PendingFile, SourceStatus, StatusCell};
pub use watch::{Options, WatchError, watch};

/// The source's name, the prefix of its record ids.
pub const SOURCE: &str = "aws.cloudtrail";
