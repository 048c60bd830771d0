//! Files in a folder: written once, read wholly or not at all.
//!
//! - `file` reads one file;
//! - `watch` finds files.

mod file;
mod watch;

pub use file::FileError;
pub use watch::{Options, WatchError, watch};
