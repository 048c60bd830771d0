//! A crash-safe bounded queue of byte records.
//!
//! A sensor appends what it saw, an uplink reads it in order, an acknowledgement frees it. The
//! queue survives kills and power loss; when it is full the oldest records make room and leave a
//! note of what was lost.
//!
//! # Format
//! One SQLite file (WAL, `synchronous=FULL`, see below), two tables:
//! - `epoch`: one row per boot of the host: its 16-byte id, the next number, the highest
//!   acknowledged number, whether the far end has confirmed where its numbers start (`anchored`);
//! - `block`: one row per block: `(epoch, first_seq)`, how many numbers it covers, the zstd frame,
//!   its CRC-32, the smallest and largest stamp (an opaque time) of its records, and a mark (an
//!   opaque promise that held before the block was appended). A row without a frame stands for
//!   numbers that were lost, and says why.
//!
//! A frame holds the records in order, each as `0x0a, length as LEB128, bytes`: what protobuf calls
//! a repeated field 1, so that a block can go on the wire as it is.
//!
//! # Limits
//! | what | limit |
//! |---|---|
//! | one record | [`MAX_RECORD_BYTES`] |
//! | one block before compression | [`MAX_BLOCK_BYTES`] or [`MAX_BLOCK_RECORDS`], whichever first |
//! | all blocks | [`Limits::max_bytes`] of compressed frames; the file adds a few percent |
//! | file | does not shrink below what it once needed until the queue is empty |
//!
//! # Invariants
//! - **SP-1** What `append` has returned is on disk: a kill or a power loss does not take it away.
//! - **SP-2** In an epoch, the rows cover the numbers from the first that is not acknowledged (or
//!   earlier) to the last that was given, without a hole and without overlap. Numbers start at 1.
//! - **SP-3** Frames never exceed `max_bytes` in sum.
//! - **SP-4** Every number that was given is acknowledged, readable or reported as lost; losses are
//!   counted.
//! - **SP-5** Epochs are read in the order in which they began.
//! - **SP-6** A damaged block is reported as lost and stops nothing else; a damaged file is put
//!   aside under another name and a new one begun.
//! - **SP-7** A number is never used twice for different records, even if the file was lost: a new
//!   file's epoch is not anchored, and [`Spool::anchor`] moves its numbers behind what the far end
//!   already has.
//!
//! # Why `synchronous=FULL`
//! With `NORMAL` a WAL commit survives a kill but not a power loss. A laptop's battery dies, and the
//! agent would then reuse numbers (SP-7) and have promised facts that are gone. `FULL` costs one
//! `fdatasync` per append; callers append in groups, so the cost is per group, not per record.

mod db;
mod frame;
pub mod fuzz;
mod queue;
mod rows;

use std::ops::RangeInclusive;
use std::path::PathBuf;

use thiserror::Error;

pub use db::note;
pub use frame::{BlockError, records};
pub use queue::Spool;

/// Largest record, bytes.
pub const MAX_RECORD_BYTES: usize = 1024 * 1024;
/// A block is closed once it holds so many bytes before compression; one more record may still fit.
pub const MAX_BLOCK_BYTES: usize = 1024 * 1024;
/// A block is closed once it holds so many records.
pub const MAX_BLOCK_RECORDS: usize = 8192;

/// Bounds of one spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of compressed blocks. At least [`Limits::SMALLEST`].
    pub max_bytes: u64,
}

impl Limits {
    /// Below this a single block might not fit.
    pub const SMALLEST: u64 = 4 * 1024 * 1024;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 512 * 1024 * 1024,
        }
    }
}

/// A stretch of numbers, named like a boot by 16 bytes.
pub type EpochId = [u8; 16];

/// One record to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Content; at most [`MAX_RECORD_BYTES`].
    pub bytes: Vec<u8>,
    /// A time of the caller's choice, to say later over which time something was lost.
    pub stamp: i64,
}

/// What lies at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Records.
    Block(Block),
    /// Numbers whose records are gone.
    Lost(Lost),
}

impl Item {
    /// The numbers that it covers.
    #[must_use]
    pub fn seqs(&self) -> RangeInclusive<u64> {
        let (first, count) = match self {
            Self::Block(block) => (block.first_seq, u64::from(block.count)),
            Self::Lost(lost) => (lost.first_seq, lost.count),
        };
        first..=first.saturating_add(count).saturating_sub(1)
    }
}

/// A stored block, as it goes on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Number of its first record.
    pub first_seq: u64,
    /// How many records.
    pub count: u32,
    /// Length before compression.
    pub raw_bytes: u32,
    /// One zstd frame.
    pub zstd: Vec<u8>,
    /// The latest mark that held before this block was appended.
    pub mark: Option<i64>,
}

/// A stretch of numbers whose records are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// First lost number.
    pub first_seq: u64,
    /// How many.
    pub count: u64,
    /// Smallest stamp of the lost records.
    pub min_stamp: i64,
    /// Largest.
    pub max_stamp: i64,
    /// Why.
    pub cause: LossCause,
}

/// Why records are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossCause {
    /// The spool was full.
    Overflow,
    /// The block was damaged on disk.
    Damaged,
    /// The far end refuses this record.
    Refused,
}

impl LossCause {
    /// In words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Overflow => "the spool was full",
            Self::Damaged => "the spool was damaged on disk",
            Self::Refused => "the correlator refused the record",
        }
    }
}

/// An epoch that still has something to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// Its place in the order.
    pub no: i64,
    /// Its id.
    pub id: EpochId,
    /// Highest acknowledged number.
    pub acked: u64,
    /// The number that the next record gets.
    pub next_seq: u64,
    /// True for the epoch that is being appended to.
    pub current: bool,
}

/// Counts since the file was opened, and its state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of frames stored now.
    pub bytes: u64,
    /// Records appended.
    pub appended: u64,
    /// Records that made room for newer ones.
    pub overflowed: u64,
    /// Records lost to damage.
    pub damaged: u64,
    /// Records that the far end refused.
    pub refused: u64,
}

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// The file was unusable; it now has this name, and a new one was begun.
    pub quarantined: Option<PathBuf>,
    /// Why it was unusable.
    pub damage: Option<String>,
}

/// What went wrong.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// SQLite.
    #[error("spool {}: {source}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The file could not be put aside.
    #[error("the spool {} is damaged and cannot be put aside: {source}", path.display())]
    Quarantine {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A block could not be made or read.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The caller's limits.
    #[error("a spool needs at least {smallest} bytes, not {given}", smallest = Limits::SMALLEST)]
    Limits {
        /// What was asked for.
        given: u64,
    },
    /// The far end acknowledges or names what was never given.
    #[error("number {seq} was never given in this epoch (next is {next_seq})")]
    Beyond {
        /// The number.
        seq: u64,
        /// The next number to give.
        next_seq: u64,
    },
    /// An epoch that is not there.
    #[error("epoch {0} is not in the spool")]
    NoEpoch(i64),
    /// A number or a size in the file that cannot be right.
    #[error("the spool holds an impossible {0}")]
    Impossible(&'static str),
}

impl SpoolError {
    /// True when the file itself is damaged: put it aside with [`Spool::recover`].
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Sqlite { source, .. } => db::is_damage(source),
            Self::Impossible(_) => true,
            Self::Quarantine { .. }
            | Self::Block(_)
            | Self::Limits { .. }
            | Self::Beyond { .. }
            | Self::NoEpoch(_) => false,
        }
    }
}
