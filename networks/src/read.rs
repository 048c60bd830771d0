//! From a file's bytes to a [`Database`]: which format it is shows in its first bytes.

mod csv;
mod json;
mod list;
mod mmdb;

use std::io::{BufRead, Read as _};

use crate::database::{Database, Draft, Role};
use crate::error::{Problem, ReadError};

/// Longest line of a text file.
const MAX_LINE: usize = 64 << 10;
/// Largest JSON file.
const MAX_JSON: u64 = 64 << 20;
/// Largest MaxMind database: the largest city editions have some 100 MiB.
const MAX_MMDB: u64 = 512 << 20;

/// Reads a file, decompressed already. `name` is what its ranges are called where the file does not
/// name them: the provider, or the pool.
///
/// # Errors
/// When it cannot be read, is of no known format, or anything in it is wrong: nothing of it is kept.
pub fn read(mut input: impl BufRead, role: Role, name: &str) -> Result<Database, ReadError> {
    let start = input.fill_buf()?;
    let begin = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let first = begin.iter().find(|byte| !byte.is_ascii_whitespace());
    let binary = begin.iter().take(512).any(|byte| *byte == 0);
    let mut draft = Draft::new();
    let format = match first {
        None => return Err(Problem::Empty.into()),
        Some(_) if binary => {
            let bytes = whole(input, MAX_MMDB)?;
            mmdb::read(&bytes, (role, name), &mut draft)?
        }
        Some(b'{' | b'[') => {
            let bytes = whole(input, MAX_JSON)?;
            json::read(&bytes, (role, name), &mut draft)?
        }
        Some(_) => text(input, role, name, &mut draft)?,
    };
    Ok(draft.finish(role, format)?)
}

fn whole(input: impl BufRead, limit: u64) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    input.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(Problem::TooMuch(limit, "bytes").into());
    }
    Ok(bytes)
}

/// Lines of a text file, numbered from 1; without comments and empty ones.
struct Lines<R> {
    input: R,
    number: u64,
    buffer: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    fn new(input: R) -> Self {
        Self {
            input,
            number: 0,
            buffer: Vec::new(),
        }
    }

    /// The next line that says something.
    fn next(&mut self) -> Result<Option<(u64, &str)>, ReadError> {
        loop {
            self.buffer.clear();
            let mut limited = (&mut self.input).take(MAX_LINE as u64 + 1);
            if limited.read_until(b'\n', &mut self.buffer)? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if self.buffer.len() > MAX_LINE {
                return Err(Problem::LongLine(MAX_LINE).at(self.number));
            }
            let bytes = self.buffer.trim_ascii();
            let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            if !bytes.is_empty() && !bytes.starts_with(b"#") {
                break;
            }
        }
        let bytes = self.buffer.trim_ascii();
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let text = std::str::from_utf8(bytes).map_err(|_| Problem::NotText.at(self.number))?;
        Ok(Some((self.number, text)))
    }
}

/// CSV, TSV or a list: its first line tells.
fn text(
    input: impl BufRead,
    role: Role,
    name: &str,
    draft: &mut Draft,
) -> Result<&'static str, ReadError> {
    let mut lines = Lines::new(input);
    let Some((number, first)) = lines.next()? else {
        return Err(Problem::Empty.into());
    };
    let separator = [',', '\t', ';']
        .into_iter()
        .find(|separator| first.contains(*separator));
    let Some(separator) = separator else {
        list::line(number, first, name, draft)?;
        while let Some((number, line)) = lines.next()? {
            list::line(number, line, name, draft)?;
        }
        return Ok("list of CIDR blocks");
    };
    let mut table = csv::Table::new(separator, (role, name), number, first)?;
    if !table.has_heading() {
        table.line(number, first, draft)?;
    }
    while let Some((number, line)) = lines.next()? {
        table.line(number, line, draft)?;
    }
    Ok("CSV")
}

/// Two letters that stand for a country (ISO 3166); `ZZ` and `XX` stand for none.
fn country(text: &str) -> Option<[u8; 2]> {
    let [a, b] = *text.trim().as_bytes() else {
        return None;
    };
    let code = [a.to_ascii_uppercase(), b.to_ascii_uppercase()];
    (code.iter().all(u8::is_ascii_uppercase) && &code != b"ZZ" && &code != b"XX").then_some(code)
}

/// A number of an autonomous system, with or without `AS`; empty and 0 stand for none.
fn system(text: &str) -> Result<Option<u32>, Problem> {
    let text = text.trim();
    if text.is_empty() || text == "-" {
        return Ok(None);
    }
    let prefix = text
        .get(..2)
        .filter(|prefix| prefix.eq_ignore_ascii_case("as"));
    let digits = prefix.map_or(text, |prefix| text.get(prefix.len()..).unwrap_or_default());
    let number: u32 = digits
        .parse()
        .map_err(|_| Problem::NoNumber(crate::error::excerpt(text)))?;
    Ok((number != 0).then_some(number))
}
