//! Why a file is refused.

use std::io;

use thiserror::Error;

/// Why a file is refused. The caller says which file.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It cannot be read, or not be decompressed.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// A line of it is wrong.
    #[error("line {line}: {problem}")]
    Line {
        /// Which, from 1.
        line: u64,
        /// What is wrong.
        problem: Problem,
    },
    /// All of it is.
    #[error("{0}")]
    Whole(Problem),
}

/// What is wrong, and how to mend it. Text of the file is escaped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// Not an address.
    #[error(
        "{0:?} is no address, CIDR block or range; write 192.0.2.0/24, 192.0.2.1-192.0.2.9 or 2001:db8::/32"
    )]
    NoRange(String),
    /// A range that ends before it begins, or of two families.
    #[error("the range {0:?} does not end behind its beginning; swap the two or mend them")]
    Reversed(String),
    /// Not the number of a system.
    #[error(
        "{0:?} is no number of an autonomous system; write 64500 or AS64500, or leave it empty"
    )]
    NoNumber(String),
    /// Fewer columns than before.
    #[error("it has {found} columns where {wanted} are needed; is the file cut off?")]
    Columns {
        /// How many it has.
        found: usize,
        /// How many are needed.
        wanted: usize,
    },
    /// A heading without anything known.
    #[error(
        "no column is known; give the file a heading such as `start,end,asn,organisation,country` or `network,country_code`"
    )]
    Heading,
    /// A quote that does not end.
    #[error("a quoted field does not end on its line; double the quotes inside it")]
    Quote,
    /// Too long a line.
    #[error("it is longer than {0} bytes; this is no list of ranges")]
    LongLine(usize),
    /// Not text.
    #[error("it is not UTF-8; save the file as UTF-8")]
    NotText,
    /// Not JSON.
    #[error("not valid JSON: {0}; fetch the file again")]
    Json(String),
    /// A damaged database.
    #[error("not a readable MaxMind database: {0}; fetch the file again")]
    Mmdb(String),
    /// Binary, but no database.
    #[error(
        "neither text nor a MaxMind database; unpack archives first (gzip and zstd are read as they are)"
    )]
    Binary,
    /// Nothing in it.
    #[error("it holds no range of addresses; is this the right file?")]
    Empty,
    /// Too large.
    #[error(
        "it holds more than {0} {1}; take a smaller edition (systems and countries are enough)"
    )]
    TooMuch(u64, &'static str),
}

impl Problem {
    pub(crate) fn at(self, line: u64) -> ReadError {
        ReadError::Line {
            line,
            problem: self,
        }
    }
}

impl From<Problem> for ReadError {
    fn from(problem: Problem) -> Self {
        Self::Whole(problem)
    }
}

/// Text of a file as an error shows it.
pub(crate) fn excerpt(text: &str) -> String {
    text.chars().take(60).collect()
}
