//! Cuts a stream of bytes into records.
//!
//! JSON in every wrapping that is delivered: `{"Records":[...]}` and its like, a bare array, one
//! object a line, objects one after another, a single object. The cutter looks at brackets and
//! strings only; whether a record is sound JSON is decided record by record, so that one damaged
//! record does not cost its neighbours. Salesforce's event log files are CSV, and CyberArk writes
//! lines; both are told from JSON by their first byte.
//!
//! Memory: one record, at most [`MAX_RECORD_BYTES`].

mod csv;
mod json;

use std::borrow::Cow;
use std::io::{BufRead, ErrorKind};

use thiserror::Error;

/// Largest record taken. CloudTrail's own limit is 256 KiB (1 MiB for some data events).
pub const MAX_RECORD_BYTES: usize = 2 << 20;
/// Names of the member that holds the records, where nothing else is said; case does not matter.
///
/// `Records` CloudTrail, `records` Azure and SOQL, `Events` LookupEvents, `logEvents` CloudWatch
/// Logs, `value` Microsoft Graph, `items` Kubernetes' `EventList`, `entries` Cloud Logging.
const WRAPPERS: [&str; 6] = [
    "records",
    "events",
    "logEvents",
    "value",
    "items",
    "entries",
];

/// Why a file cannot be cut.
#[derive(Debug, Error)]
pub enum FramingError {
    /// It ends inside a record or a wrapper.
    #[error("ends in the middle, after {records} whole records and {bytes} bytes")]
    Truncated {
        /// Whole records before the end.
        records: u64,
        /// Bytes read (decompressed).
        bytes: u64,
    },
    /// It is no sequence of records.
    #[error("byte {at} is {found}, expected {expected}")]
    Malformed {
        /// Which byte (decompressed), from 0.
        at: u64,
        /// What is there.
        found: String,
        /// What should be.
        expected: &'static str,
    },
    /// Reading failed (I/O, or damaged compression).
    #[error("{0}")]
    Read(#[from] std::io::Error),
}

/// One record, cut out.
#[derive(Debug, PartialEq, Eq)]
pub enum Cut<'a> {
    /// Its bytes: one JSON object, not yet known to be sound, or one line of text.
    Record(&'a [u8]),
    /// An array member or a line that is no object, a CSV row with too many or too few fields.
    NotObject,
    /// Larger than the limit; skipped.
    TooLarge,
}

/// What a source's files look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Shape {
    /// JSON.
    #[default]
    Json,
    /// JSON, or CSV with a header line (RFC 4180), when it does not begin with a bracket. Each row
    /// becomes a JSON object by the header's names.
    JsonOrCsv,
    /// JSON, or lines of text, when it does not begin with a bracket.
    JsonOrLines,
}

/// How to cut a source's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framing {
    /// What they look like.
    pub shape: Shape,
    /// Names of the member that holds the records.
    pub wrappers: Cow<'static, [Cow<'static, str>]>,
}

impl Default for Framing {
    fn default() -> Self {
        Self {
            shape: Shape::Json,
            wrappers: WRAPPERS.iter().map(|name| Cow::Borrowed(*name)).collect(),
        }
    }
}

impl Framing {
    /// Like the default, in another shape.
    #[must_use]
    pub fn shaped(shape: Shape) -> Self {
        Self {
            shape,
            ..Self::default()
        }
    }

    /// Wrapped in a member of one of these names only.
    #[must_use]
    pub fn wrapped_in(names: impl IntoIterator<Item = String>) -> Self {
        Self {
            wrappers: names.into_iter().map(Cow::Owned).collect(),
            ..Self::default()
        }
    }
}

/// What is being cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The first byte has not been seen.
    Undecided,
    Json,
    Csv,
    Lines,
}

/// The cutter.
#[derive(Debug)]
pub struct Records<R> {
    source: Source<R>,
    framing: Framing,
    mode: Mode,
    json: json::State,
    csv: csv::State,
    /// The record being cut.
    buffer: Vec<u8>,
}

/// The bytes, and how far they were read.
#[derive(Debug)]
struct Source<R> {
    input: R,
    at: u64,
    records: u64,
}

impl<R: BufRead> Records<R> {
    /// Cuts JSON in its usual wrappings.
    pub fn new(input: R) -> Self {
        Self::framed(input, Framing::default())
    }

    /// Cuts `input` as `framing` says (see [`Parser::framing`](crate::Parser::framing)).
    pub fn framed(input: R, framing: Framing) -> Self {
        Self {
            source: Source {
                input,
                at: 0,
                records: 0,
            },
            framing,
            mode: Mode::Undecided,
            json: json::State::default(),
            csv: csv::State::default(),
            buffer: Vec::new(),
        }
    }

    /// The next record; `None` at the file's proper end.
    ///
    /// # Errors
    /// When the file ends early, is no sequence of records, or cannot be read.
    pub fn next_record(&mut self) -> Result<Option<Cut<'_>>, FramingError> {
        if self.mode == Mode::Undecided {
            self.mode = self.decide()?;
        }
        match self.mode {
            Mode::Undecided => Ok(None),
            Mode::Json => self.next_json(),
            Mode::Csv => self.next_row(),
            Mode::Lines => self.next_line(),
        }
    }

    /// How many bytes were read, decompressed.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.source.at
    }

    /// Looks at the first byte that is no space.
    fn decide(&mut self) -> Result<Mode, FramingError> {
        loop {
            match self.source.peek()? {
                // also a byte-order mark, as some tools write it
                Some(b' ' | b'\t' | b'\r' | b'\n' | 0xef | 0xbb | 0xbf) => self.source.consume(1),
                None => return Ok(Mode::Undecided),
                Some(b'{' | b'[') => return Ok(Mode::Json),
                Some(_) => {
                    return Ok(match self.framing.shape {
                        Shape::Json => Mode::Json,
                        Shape::JsonOrCsv => Mode::Csv,
                        Shape::JsonOrLines => Mode::Lines,
                    });
                }
            }
        }
    }

    /// The next line that is not blank.
    fn next_line(&mut self) -> Result<Option<Cut<'_>>, FramingError> {
        loop {
            self.buffer.clear();
            let mut whole = true;
            let mut read = 0_usize;
            loop {
                let chunk = self.source.fill()?;
                let end = chunk.iter().position(|b| *b == b'\n');
                let taken = end.map_or(chunk.len(), |end| end + 1);
                let line = chunk.get(..end.unwrap_or(taken)).unwrap_or_default();
                whole &= keep(&mut self.buffer, line);
                self.source.consume(taken);
                read += taken;
                if end.is_some() || taken == 0 {
                    break;
                }
            }
            if read == 0 {
                return Ok(None);
            }
            self.buffer.truncate(self.buffer.trim_ascii_end().len());
            if self.buffer.is_empty() && whole {
                continue;
            }
            self.source.records += 1;
            return Ok(Some(if whole {
                Cut::Record(&self.buffer)
            } else {
                Cut::TooLarge
            }));
        }
    }
}

/// Puts bytes into the record's buffer; false when it cannot hold them.
fn keep(buffer: &mut Vec<u8>, bytes: &[u8]) -> bool {
    let room = MAX_RECORD_BYTES.saturating_sub(buffer.len());
    let fits = bytes.len() <= room;
    buffer.extend_from_slice(bytes.get(..bytes.len().min(room)).unwrap_or_default());
    fits
}

impl<R: BufRead> Source<R> {
    /// What is there to be read; empty at the end.
    fn fill(&mut self) -> Result<&[u8], FramingError> {
        // Asked twice, because a loop that returns what it borrowed is refused by the compiler.
        loop {
            match self.input.fill_buf() {
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The decompressor's word for "the file ends in the middle".
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    return Err(self.truncated());
                }
                Err(error) => return Err(FramingError::Read(error)),
            }
        }
        Ok(self.input.fill_buf()?)
    }

    fn consume(&mut self, bytes: usize) {
        self.input.consume(bytes);
        self.at = self
            .at
            .saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    fn peek(&mut self) -> Result<Option<u8>, FramingError> {
        Ok(self.fill()?.first().copied())
    }

    fn truncated(&self) -> FramingError {
        FramingError::Truncated {
            records: self.records,
            bytes: self.at,
        }
    }

    /// The byte that comes next is wrong.
    fn malformed(&self, found: u8, expected: &'static str) -> FramingError {
        FramingError::Malformed {
            at: self.at,
            found: format!("{:?}", char::from(found)),
            expected,
        }
    }
}

#[cfg(test)]
mod tests;
