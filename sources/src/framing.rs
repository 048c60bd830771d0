//! Cuts a stream of bytes into records.
//!
//! Framings: `{"Records":[...]}` (CloudTrail's own), `{"Events":[...]}` (LookupEvents), a bare
//! array, one object a line, objects one after another, a single object. The cutter looks at
//! brackets and strings only; whether a record is sound JSON is decided record by record, so that
//! one damaged record does not cost its neighbours.
//!
//! Memory: one record, at most [`MAX_RECORD_BYTES`].

use std::io::{BufRead, ErrorKind};

use thiserror::Error;

/// Largest record taken. CloudTrail's own limit is 256 KiB (1 MiB for some data events).
pub const MAX_RECORD_BYTES: usize = 2 << 20;
/// Bytes of a member's name that are kept while looking for a wrapper.
const MAX_KEY_BYTES: usize = 64;
/// Brackets that a record may nest; deeper text is an attack on the parser, not a log.
const MAX_DEPTH: usize = 512;
/// Names of the member that holds the records.
const WRAPPERS: [&[u8]; 2] = [b"records", b"events"];

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
    /// It is no sequence of JSON objects.
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
    /// Its bytes: balanced brackets, not yet known to be JSON.
    Record(&'a [u8]),
    /// An array member that is no object.
    NotObject,
    /// Larger than the limit; skipped.
    TooLarge,
}

/// Where the cutter is, outside records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Between values at top level.
    Top,
    /// In an array of records, which is or is not a wrapper's member.
    Array { wrapped: bool },
    /// After the records inside their wrapper.
    WrapperTail,
}

/// How an object ended.
enum Object {
    Whole,
    TooLarge,
    /// It is a wrapper, and its array of records has just been opened.
    Wrapper,
}

/// The cutter.
#[derive(Debug)]
pub struct Records<R> {
    input: R,
    place: Place,
    buffer: Vec<u8>,
    at: u64,
    records: u64,
}

impl<R: BufRead> Records<R> {
    /// Cuts `input`.
    pub fn new(input: R) -> Self {
        Self {
            input,
            place: Place::Top,
            buffer: Vec::new(),
            at: 0,
            records: 0,
        }
    }

    /// The next record; `None` at the file's proper end.
    ///
    /// # Errors
    /// When the file ends early, is no sequence of objects, or cannot be read.
    pub fn next_record(&mut self) -> Result<Option<Cut<'_>>, FramingError> {
        loop {
            let Some(byte) = self.byte()? else {
                return match self.place {
                    Place::Top => Ok(None),
                    Place::Array { .. } | Place::WrapperTail => Err(self.truncated()),
                };
            };
            match (self.place, byte) {
                (_, b' ' | b'\t' | b'\r' | b'\n' | b',') => {}
                // A byte-order mark, as some tools write it.
                (Place::Top, 0xef | 0xbb | 0xbf) if self.at <= 3 => {}
                (Place::Top, b'[') => self.place = Place::Array { wrapped: false },
                (Place::Array { wrapped: false }, b']') | (Place::WrapperTail, b'}') => {
                    self.place = Place::Top;
                }
                (Place::Array { wrapped: true }, b']') => self.place = Place::WrapperTail,
                (Place::WrapperTail, _) => self.skip_in_wrapper(byte)?,
                (Place::Top | Place::Array { .. }, b'{') => {
                    match self.object(self.place == Place::Top)? {
                        Object::Wrapper => self.place = Place::Array { wrapped: true },
                        Object::Whole => {
                            self.records += 1;
                            return Ok(Some(Cut::Record(&self.buffer)));
                        }
                        Object::TooLarge => {
                            self.records += 1;
                            return Ok(Some(Cut::TooLarge));
                        }
                    }
                }
                (Place::Array { .. }, _) => {
                    self.skip_member(byte)?;
                    self.records += 1;
                    return Ok(Some(Cut::NotObject));
                }
                (Place::Top, other) => {
                    return Err(self.malformed(other, "a JSON object or array of records"));
                }
            }
        }
    }

    /// Reads an object whose `{` has been read, into the buffer.
    fn object(&mut self, may_wrap: bool) -> Result<Object, FramingError> {
        self.buffer.clear();
        self.buffer.push(b'{');
        let mut open: Vec<u8> = vec![b'}'];
        let mut too_large = false;
        // The last string at depth 1, and whether a colon followed it: a member's name.
        let mut key: Vec<u8> = Vec::new();
        let mut after_key = false;
        while !open.is_empty() {
            let byte = self.need()?;
            too_large |= !self.keep(byte);
            match byte {
                b'"' => {
                    let is_key = may_wrap && open.len() == 1;
                    key.clear();
                    too_large |= !self.string(is_key.then_some(&mut key))?;
                    after_key = false;
                }
                b':' => after_key = open.len() == 1,
                b'[' if may_wrap && after_key && open.len() == 1 && is_wrapper(&key) => {
                    return Ok(Object::Wrapper);
                }
                b'{' => open.push(b'}'),
                b'[' => open.push(b']'),
                b'}' | b']' => {
                    if open.pop() != Some(byte) {
                        return Err(self.malformed(byte, "the other closing bracket"));
                    }
                }
                b' ' | b'\t' | b'\r' | b'\n' => {}
                _ => after_key = false,
            }
            if open.len() > MAX_DEPTH {
                return Err(self.malformed(byte, "at most 512 nested brackets"));
            }
        }
        Ok(if too_large {
            Object::TooLarge
        } else {
            Object::Whole
        })
    }

    /// Puts a byte into the buffer; false when the buffer is full.
    fn keep(&mut self, byte: u8) -> bool {
        let fits = self.buffer.len() < MAX_RECORD_BYTES;
        if fits {
            self.buffer.push(byte);
        }
        fits
    }

    /// Reads a string whose opening quote has been read; false when the buffer could not hold it.
    fn string(&mut self, mut key: Option<&mut Vec<u8>>) -> Result<bool, FramingError> {
        let mut escaped = false;
        let mut fits = true;
        loop {
            let byte = self.need()?;
            fits &= self.keep(byte);
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => return Ok(fits),
                other => {
                    if let Some(key) = key.as_mut().filter(|key| key.len() < MAX_KEY_BYTES) {
                        key.push(other);
                    }
                }
            }
        }
    }

    /// Skips an array member that is no object: a nested array, a string, a number, a word.
    fn skip_member(&mut self, first: u8) -> Result<(), FramingError> {
        match first {
            b'"' => self.skip_string(),
            b'[' => self.skip_nested(),
            b'}' | b':' => Err(self.malformed(first, "a record")),
            _ => loop {
                match self.peek()? {
                    None => return Err(self.truncated()),
                    Some(b',' | b']' | b' ' | b'\n' | b'\r' | b'\t') => return Ok(()),
                    Some(b'"' | b'{' | b'[' | b':' | b'}') => {
                        return Err(self.malformed(first, "a record"));
                    }
                    Some(_) => {
                        self.byte()?;
                    }
                }
            },
        }
    }

    fn skip_string(&mut self) -> Result<(), FramingError> {
        self.buffer.clear();
        self.string(None)?;
        self.buffer.clear();
        Ok(())
    }

    fn skip_nested(&mut self) -> Result<(), FramingError> {
        let mut depth = 1_u64;
        while depth > 0 {
            match self.need()? {
                b'"' => self.skip_string()?,
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth -= 1,
                _ => {}
            }
        }
        Ok(())
    }

    /// Members of a wrapper after its records: strings and nested values are skipped whole.
    fn skip_in_wrapper(&mut self, byte: u8) -> Result<(), FramingError> {
        match byte {
            b'"' => self.skip_string(),
            b'[' | b'{' => self.skip_nested(),
            b']' => Err(self.malformed(byte, "the wrapper's end")),
            _ => Ok(()),
        }
    }

    fn peek(&mut self) -> Result<Option<u8>, FramingError> {
        loop {
            match self.input.fill_buf() {
                Ok(bytes) => return Ok(bytes.first().copied()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The decompressor's word for "the file ends in the middle".
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    return Err(self.truncated());
                }
                Err(error) => return Err(FramingError::Read(error)),
            }
        }
    }

    fn byte(&mut self) -> Result<Option<u8>, FramingError> {
        let byte = self.peek()?;
        if byte.is_some() {
            self.input.consume(1);
            self.at += 1;
        }
        Ok(byte)
    }

    fn need(&mut self) -> Result<u8, FramingError> {
        self.byte()?.ok_or_else(|| self.truncated())
    }

    fn truncated(&self) -> FramingError {
        FramingError::Truncated {
            records: self.records,
            bytes: self.at,
        }
    }

    fn malformed(&self, found: u8, expected: &'static str) -> FramingError {
        FramingError::Malformed {
            at: self.at.saturating_sub(1),
            found: format!("{:?}", char::from(found)),
            expected,
        }
    }
}

fn is_wrapper(key: &[u8]) -> bool {
    WRAPPERS.iter().any(|name| key.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a file is cut into, then how it ended.
    fn cut(text: &[u8]) -> String {
        let mut records = Records::new(text);
        let mut out = Vec::new();
        loop {
            match records.next_record() {
                Ok(Some(Cut::Record(bytes))) => {
                    out.push(String::from_utf8_lossy(bytes).into_owned());
                }
                Ok(Some(Cut::NotObject)) => out.push("not-object".to_owned()),
                Ok(Some(Cut::TooLarge)) => out.push("too-large".to_owned()),
                Ok(None) => break,
                Err(FramingError::Truncated { .. }) => {
                    out.push("TRUNCATED".to_owned());
                    break;
                }
                Err(error) => {
                    out.push(format!("ERROR {error}"));
                    break;
                }
            }
        }
        out.join(" | ")
    }

    #[test]
    fn every_framing_is_cut() {
        for (text, expected) in [
            ("", ""),
            ("\n \n", ""),
            (r#"{"Records":[]}"#, ""),
            (
                r#"{"Records":[{"a":1},{"b":"}"}]}"#,
                r#"{"a":1} | {"b":"}"}"#,
            ),
            (
                r#"{"records" : [ {"a":[1,{"c":2}]} ] , "x":[1] }"#,
                r#"{"a":[1,{"c":2}]}"#,
            ),
            (r#"{"NextToken":"t","Events":[{"a":1}]}"#, r#"{"a":1}"#),
            (r#"[{"a":1},{"b":2}]"#, r#"{"a":1} | {"b":2}"#),
            ("{\"a\":1}\n{\"b\":2}\n", r#"{"a":1} | {"b":2}"#),
            ("{\"a\":1}{\"b\":2}", r#"{"a":1} | {"b":2}"#),
            ("\u{feff}{\"a\":1}", r#"{"a":1}"#),
            // Not a wrapper: the name is deeper, or holds no array, or is a value.
            (
                r#"{"x":{"Records":[{"a":1}]}}"#,
                r#"{"x":{"Records":[{"a":1}]}}"#,
            ),
            (r#"{"Records":"none"}"#, r#"{"Records":"none"}"#),
            (r#"{"x":"Records","y":[1]}"#, r#"{"x":"Records","y":[1]}"#),
            // Two files written one after another (gzip members).
            (
                r#"{"Records":[{"a":1}]}{"Records":[{"b":2}]}"#,
                r#"{"a":1} | {"b":2}"#,
            ),
            (
                r#"{"Records":[1,"x",null,[1,[2]],{"a":1}]}"#,
                r#"not-object | not-object | not-object | not-object | {"a":1}"#,
            ),
            // Damage inside one record is for the record's parser.
            (r#"{"Records":[{"a":},{"b":2}]}"#, r#"{"a":} | {"b":2}"#),
            (r#"{"Records":[{"a":1},{"b""#, r#"{"a":1} | TRUNCATED"#),
            (r#"{"Records":[{"a":1}"#, r#"{"a":1} | TRUNCATED"#),
            (r#"{"Records":[{"a":1}]"#, r#"{"a":1} | TRUNCATED"#),
            ("{\"a\":1}\n{\"b\":", r#"{"a":1} | TRUNCATED"#),
            (r#"{"a":"\""#, "TRUNCATED"),
            (
                "hello",
                "ERROR byte 0 is 'h', expected a JSON object or array of records",
            ),
            (
                r#"{"a":[1}"#,
                "ERROR byte 7 is '}', expected the other closing bracket",
            ),
        ] {
            assert_eq!(cut(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_huge_record_is_skipped_and_its_neighbours_are_kept() {
        let huge = "x".repeat(MAX_RECORD_BYTES);
        let text = format!(r#"{{"Records":[{{"a":1}},{{"h":"{huge}"}},{{"b":2}}]}}"#);
        assert_eq!(cut(text.as_bytes()), r#"{"a":1} | too-large | {"b":2}"#);
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = r#"{"a":"#.repeat(5000);
        assert!(cut(deep.as_bytes()).contains("nested"));
    }

    proptest! {
        #[test]
        fn any_bytes_end_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            cut(&bytes);
        }

        #[test]
        fn any_bracket_soup_ends_without_panic(text in "[\\[\\]{}\",:a1\\\\ \n]{0,200}") {
            cut(text.as_bytes());
        }

        /// A whole file gives its records; every proper prefix of it says that it is truncated.
        #[test]
        fn a_prefix_is_never_whole(
            values in proptest::collection::vec("[a-z\"\\\\{}\\[\\]]{0,8}", 1..6),
            cut_at in any::<prop::sample::Index>(),
        ) {
            let records: Vec<String> = values
                .iter()
                .map(|v| serde_json::json!({"k": v, "n": [v, {"m": 1}]}).to_string())
                .collect();
            let whole = format!("{{\"Records\":[{}]}}", records.join(","));
            prop_assert_eq!(cut(whole.as_bytes()), records.join(" | "));
            let end = 1 + cut_at.index(whole.len() - 1);
            let prefix = cut(&whole.as_bytes()[..end]);
            prop_assert!(prefix.ends_with("TRUNCATED"), "{}", prefix);
        }
    }
}
