//! JSON: brackets and strings.

use std::io::BufRead;

use super::{Cut, FramingError, Records, Source, keep};

/// Bytes of a member's name that are kept while looking for a wrapper.
const MAX_KEY_BYTES: usize = 64;
/// Brackets that a record may nest; deeper text is an attack on the parser, not a log.
const MAX_DEPTH: usize = 512;

/// Where the cutter is, outside records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Between values at top level.
    #[default]
    Top,
    /// In an array of records, which is or is not a wrapper's member.
    Array { wrapped: bool },
    /// After the records inside their wrapper.
    WrapperTail,
}

/// What is known between two records.
#[derive(Debug, Default)]
pub(super) struct State {
    place: Place,
    scan: Scan,
    /// How the last record began, up to its first colon, when it was a line of its own: the next
    /// line that begins so is taken whole, without looking at its brackets.
    line: Vec<u8>,
}

/// How an object ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    /// It is a wrapper, and its array of records has just been opened.
    Wrapper,
    /// The line ends, or another object begins, where none can: the record is damaged.
    Broken,
    /// A closing bracket of the other kind.
    Mismatch(u8),
    TooDeep(u8),
}

/// Where the cutter is inside a record.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a question of its own about the next byte"
)]
struct Scan {
    /// The closing brackets that are owed.
    open: Vec<u8>,
    /// Inside a string.
    string: bool,
    escaped: bool,
    /// The object can be a wrapper, and ends with its line when it is damaged.
    top: bool,
    /// The last string at depth 1, and whether a colon followed it: a member's name.
    key: Vec<u8>,
    after_key: bool,
    /// The last byte that was no space, and whether a line ended after it.
    last: u8,
    line_ended: bool,
}

impl Scan {
    fn begin(&mut self, top: bool) {
        self.open.clear();
        self.key.clear();
        self.string = false;
        self.escaped = false;
        self.top = top;
        self.after_key = false;
        self.last = 0;
        self.line_ended = false;
    }

    /// Reads on; gives how many bytes belong to the object, and how it ended if it did.
    fn advance(&mut self, chunk: &[u8], wrappers: &dyn Fn(&[u8]) -> bool) -> (usize, Option<End>) {
        let mut rest = chunk;
        let done = |rest: &[u8]| chunk.len() - rest.len();
        loop {
            if self.string {
                match self.in_string(&mut rest) {
                    Some(end) => return (done(rest), Some(end)),
                    None if rest.is_empty() => return (chunk.len(), None),
                    None => {}
                }
            }
            let Some((&byte, after)) = rest.split_first() else {
                return (chunk.len(), None);
            };
            match byte {
                b'"' => {
                    self.string = true;
                    if self.top && self.open.len() == 1 {
                        self.key.clear();
                    }
                    self.after_key = false;
                }
                b':' => self.after_key = self.open.len() == 1,
                b'{' | b'[' => {
                    if byte == b'{' && self.top && self.line_ended && !self.expects_value() {
                        return (done(rest), Some(End::Broken));
                    }
                    if byte == b'['
                        && self.top
                        && self.after_key
                        && self.open.len() == 1
                        && wrappers(&self.key)
                    {
                        return (done(after), Some(End::Wrapper));
                    }
                    self.open.push(if byte == b'{' { b'}' } else { b']' });
                    if self.open.len() > MAX_DEPTH {
                        return (done(rest), Some(End::TooDeep(byte)));
                    }
                    self.after_key = false;
                }
                b'}' | b']' => {
                    if self.open.pop() != Some(byte) {
                        return (done(rest), Some(End::Mismatch(byte)));
                    }
                    if self.open.is_empty() {
                        return (done(after), Some(End::Whole));
                    }
                    self.after_key = false;
                }
                b' ' | b'\t' | b'\r' => {}
                b'\n' => self.line_ended = true,
                _ => self.after_key = false,
            }
            if !byte.is_ascii_whitespace() {
                self.last = byte;
                self.line_ended = false;
            }
            rest = after;
        }
    }

    /// Reads to the string's end. A bare line end in a string is no JSON.
    fn in_string(&mut self, rest: &mut &[u8]) -> Option<End> {
        let naming = self.top && self.open.len() == 1;
        while let Some((&byte, after)) = rest.split_first() {
            if self.escaped {
                self.escaped = false;
            } else {
                match byte {
                    b'\\' => self.escaped = true,
                    b'"' => {
                        self.string = false;
                        *rest = after;
                        return None;
                    }
                    b'\n' if self.top => return Some(End::Broken),
                    other if naming && self.key.len() < MAX_KEY_BYTES => self.key.push(other),
                    _ if !naming => {
                        // The bulk of a record: run to the next byte that means something.
                        let plain = after
                            .iter()
                            .position(|b| matches!(b, b'"' | b'\\' | b'\n'))
                            .unwrap_or(after.len());
                        *rest = after.get(plain..).unwrap_or_default();
                        continue;
                    }
                    _ => {}
                }
            }
            *rest = after;
        }
        None
    }

    /// True where an object may begin.
    fn expects_value(&self) -> bool {
        matches!(self.last, b',' | b'[' | b':' | 0)
    }
}

impl<R: BufRead> Records<R> {
    pub(super) fn next_json(&mut self) -> Result<Option<Cut<'_>>, FramingError> {
        loop {
            let Some(byte) = self.source.peek()? else {
                return match self.json.place {
                    Place::Top => Ok(None),
                    Place::Array { .. } | Place::WrapperTail => Err(self.source.truncated()),
                };
            };
            match (self.json.place, byte) {
                (_, b' ' | b'\t' | b'\r' | b'\n' | b',') => self.source.consume(1),
                (Place::Top, b'[') => self.go(Place::Array { wrapped: false }),
                (Place::Array { wrapped: false }, b']') | (Place::WrapperTail, b'}') => {
                    self.go(Place::Top);
                }
                (Place::Array { wrapped: true }, b']') => self.go(Place::WrapperTail),
                (Place::WrapperTail, _) => self.skip_in_wrapper(byte)?,
                (Place::Top, b'{') if self.whole_line()? => {
                    self.source.records += 1;
                    return Ok(Some(Cut::Record(&self.buffer)));
                }
                (Place::Top | Place::Array { .. }, b'{') => {
                    let (end, fits) = self.object()?;
                    self.remember_line(end)?;
                    match end {
                        End::Wrapper => self.json.place = Place::Array { wrapped: true },
                        End::Whole | End::Broken => {
                            self.source.records += 1;
                            return Ok(Some(if fits {
                                Cut::Record(&self.buffer)
                            } else {
                                Cut::TooLarge
                            }));
                        }
                        End::Mismatch(byte) | End::TooDeep(byte) => {
                            return self.damaged(byte, end);
                        }
                    }
                }
                (Place::Array { .. }, _) => {
                    self.source.skip_member(byte)?;
                    self.source.records += 1;
                    return Ok(Some(Cut::NotObject));
                }
                (Place::Top, other) if self.source.records == 0 => {
                    return Err(self
                        .source
                        .malformed(other, "a JSON object or array of records"));
                }
                (Place::Top, _) => {
                    self.source.skip_line()?;
                    self.source.records += 1;
                    return Ok(Some(Cut::NotObject));
                }
            }
        }
    }

    /// Takes a line that looks like the one before, when it lies in the reader's buffer whole.
    fn whole_line(&mut self) -> Result<bool, FramingError> {
        if self.json.line.is_empty() {
            return Ok(false);
        }
        let chunk = self.source.fill()?;
        if !chunk.starts_with(&self.json.line) {
            return Ok(false);
        }
        let Some(end) = memchr::memchr(b'\n', chunk) else {
            return Ok(false);
        };
        let line = chunk.get(..end).unwrap_or_default().trim_ascii_end();
        // Two objects on a line are cut by their brackets.
        let one = line.last() == Some(&b'}') && memchr::memmem::find(line, b"}{").is_none();
        if !one || line.len() > super::MAX_RECORD_BYTES {
            return Ok(false);
        }
        self.buffer.clear();
        self.buffer.extend_from_slice(line);
        self.source.consume(end + 1);
        Ok(true)
    }

    /// After a record at top level: did it stand on a line of its own?
    fn remember_line(&mut self, end: End) -> Result<(), FramingError> {
        self.json.line.clear();
        if self.json.place != Place::Top || end != End::Whole {
            return Ok(());
        }
        let ends_line = matches!(self.source.peek()?, Some(b'\n' | b'\r'));
        let colon = self
            .buffer
            .iter()
            .take(MAX_KEY_BYTES)
            .position(|b| *b == b':');
        let one_line = memchr::memchr(b'\n', &self.buffer).is_none();
        if let Some(colon) = colon.filter(|_| ends_line && one_line) {
            let start = self.buffer.get(..=colon).unwrap_or_default();
            self.json.line.extend_from_slice(start);
        }
        Ok(())
    }

    fn go(&mut self, place: Place) {
        self.source.consume(1);
        self.json.place = place;
    }

    /// A record with the wrong bracket: between sound lines only its line is lost, elsewhere there
    /// is no telling where the next record begins.
    fn damaged(&mut self, byte: u8, end: End) -> Result<Option<Cut<'_>>, FramingError> {
        if self.json.place == Place::Top && self.source.records > 0 && end != End::TooDeep(byte) {
            self.source.skip_line()?;
            self.source.records += 1;
            return Ok(Some(Cut::Record(&self.buffer)));
        }
        let expected = match end {
            End::TooDeep(_) => "at most 512 nested brackets",
            _ => "the other closing bracket",
        };
        Err(self.source.malformed(byte, expected))
    }

    /// Reads an object, whose `{` comes next, into the buffer; whether the buffer held it.
    fn object(&mut self) -> Result<(End, bool), FramingError> {
        self.buffer.clear();
        self.json.scan.begin(self.json.place == Place::Top);
        let names = &self.framing.wrappers;
        let is_wrapper = |key: &[u8]| {
            names
                .iter()
                .any(|name| key.eq_ignore_ascii_case(name.as_bytes()))
        };
        let mut fits = true;
        loop {
            let chunk = self.source.fill()?;
            if chunk.is_empty() {
                return Err(self.source.truncated());
            }
            let (taken, end) = self.json.scan.advance(chunk, &is_wrapper);
            fits &= keep(&mut self.buffer, chunk.get(..taken).unwrap_or_default());
            self.source.consume(taken);
            if let Some(end) = end {
                return Ok((end, fits));
            }
        }
    }

    /// Members of a wrapper after its records: strings and nested values are skipped whole.
    fn skip_in_wrapper(&mut self, byte: u8) -> Result<(), FramingError> {
        match byte {
            b'"' => self.source.skip_string(),
            b'[' | b'{' => self.source.skip_nested(),
            b']' => Err(self.source.malformed(byte, "the wrapper's end")),
            _ => {
                self.source.consume(1);
                Ok(())
            }
        }
    }
}

impl<R: BufRead> Source<R> {
    /// The next byte, read.
    fn need(&mut self) -> Result<u8, FramingError> {
        let byte = self.peek()?.ok_or_else(|| self.truncated())?;
        self.consume(1);
        Ok(byte)
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
                    Some(_) => self.consume(1),
                }
            },
        }
    }

    /// Skips a string whose quote comes next.
    fn skip_string(&mut self) -> Result<(), FramingError> {
        self.need()?;
        let mut escaped = false;
        loop {
            match self.need()? {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => return Ok(()),
                _ => {}
            }
        }
    }

    /// Skips a value whose bracket comes next.
    fn skip_nested(&mut self) -> Result<(), FramingError> {
        self.need()?;
        let mut depth = 1_u64;
        while depth > 0 {
            match self.peek()?.ok_or_else(|| self.truncated())? {
                b'"' => self.skip_string()?,
                byte => {
                    self.consume(1);
                    match byte {
                        b'[' | b'{' => depth += 1,
                        b']' | b'}' => depth -= 1,
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// Skips the rest of the line.
    fn skip_line(&mut self) -> Result<(), FramingError> {
        loop {
            let chunk = self.fill()?;
            let end = chunk.iter().position(|b| *b == b'\n');
            let taken = end.map_or(chunk.len(), |end| end + 1);
            self.consume(taken);
            if end.is_some() || taken == 0 {
                return Ok(());
            }
        }
    }
}
