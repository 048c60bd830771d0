//! CSV with a header line (RFC 4180): each row becomes a JSON object by the header's names.

use std::io::BufRead;

use super::{Cut, FramingError, MAX_RECORD_BYTES, Records, keep};

/// Columns that a file may have.
const MAX_COLUMNS: usize = 512;

/// What is known between two rows.
#[derive(Debug, Default)]
pub(super) struct State {
    header: Vec<String>,
}

/// One row as it was read.
enum Row {
    Fields(Vec<String>),
    TooLarge,
    End,
}

impl<R: BufRead> Records<R> {
    /// The next row as an object.
    pub(super) fn next_row(&mut self) -> Result<Option<Cut<'_>>, FramingError> {
        loop {
            let fields = match self.row()? {
                Row::End => return Ok(None),
                Row::TooLarge => {
                    self.source.records += 1;
                    return Ok(Some(Cut::TooLarge));
                }
                Row::Fields(fields) => fields,
            };
            if fields.iter().all(String::is_empty) {
                continue;
            }
            if self.csv.header.is_empty() {
                if fields.len() < 2 || fields.len() > MAX_COLUMNS {
                    return Err(FramingError::Malformed {
                        at: 0,
                        found: format!("a line of {} columns", fields.len()),
                        expected: "a CSV header, or JSON",
                    });
                }
                self.csv.header = fields;
                continue;
            }
            // Files written one after another repeat their header.
            if fields == self.csv.header {
                continue;
            }
            self.source.records += 1;
            if fields.len() != self.csv.header.len() {
                return Ok(Some(Cut::NotObject));
            }
            self.buffer.clear();
            let row = Named(&self.csv.header, &fields);
            return match serde_json::to_writer(&mut self.buffer, &row) {
                Ok(()) => Ok(Some(Cut::Record(&self.buffer))),
                Err(_) => Ok(Some(Cut::NotObject)),
            };
        }
    }

    /// Reads one row.
    fn row(&mut self) -> Result<Row, FramingError> {
        let mut fields: Vec<String> = Vec::new();
        let (mut read, mut whole, mut quoted, mut after_quote) = (false, true, false, false);
        let mut size = 0_usize;
        self.buffer.clear();
        loop {
            if size > MAX_RECORD_BYTES {
                whole = false;
                fields.clear();
                self.buffer.clear();
            }
            let Some(byte) = self.source.peek()? else {
                if quoted {
                    return Err(self.source.truncated());
                }
                if !read {
                    return Ok(Row::End);
                }
                break;
            };
            self.source.consume(1);
            read = true;
            size += 1;
            match byte {
                // A quote inside quotes ends the field, unless another follows.
                b'"' if quoted => {
                    quoted = false;
                    after_quote = true;
                }
                b'"' => {
                    if after_quote {
                        whole &= keep(&mut self.buffer, b"\"");
                    }
                    quoted = true;
                    after_quote = false;
                }
                b',' if !quoted => {
                    after_quote = false;
                    if fields.len() < MAX_COLUMNS {
                        fields.push(take(&mut self.buffer));
                    }
                }
                b'\n' if !quoted => break,
                b'\r' if !quoted => {}
                other => {
                    after_quote = false;
                    whole &= keep(&mut self.buffer, &[other]);
                }
            }
        }
        fields.push(take(&mut self.buffer));
        Ok(if whole {
            Row::Fields(fields)
        } else {
            Row::TooLarge
        })
    }
}

fn take(buffer: &mut Vec<u8>) -> String {
    let text = String::from_utf8_lossy(buffer).into_owned();
    buffer.clear();
    text
}

/// A row with its names, to be written as an object.
struct Named<'a>(&'a [String], &'a [String]);

impl serde::Serialize for Named<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().zip(self.1))
    }
}
