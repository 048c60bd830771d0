//! One file, made small.

use std::collections::HashMap;
use std::net::IpAddr;

use jiff::Timestamp;

use crate::error::Problem;
use crate::ranges::{Ranges, Row};
use crate::span::Span;

/// Most ranges of one file.
pub(crate) const MAX_ROWS: u64 = 8_000_000;

/// What a file's ranges are to the organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Other people's networks: systems, countries, providers' ranges.
    World,
    /// The organisation's own egress.
    Pool,
}

/// What a file says of one range.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry<'a> {
    pub(crate) asn: Option<u32>,
    pub(crate) organisation: Option<&'a str>,
    pub(crate) country: Option<[u8; 2]>,
    /// Name of the provider's range or of the pool.
    pub(crate) label: Option<&'a str>,
    /// See [`Row::generic`].
    pub(crate) generic: bool,
}

/// The same, with texts by number; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Value {
    asn: u32,
    organisation: u32,
    label: u32,
    country: [u8; 2],
}

/// Texts, each once.
#[derive(Clone, Debug, Default)]
struct Texts {
    all: String,
    /// End of each; text 1 is the first.
    ends: Vec<u32>,
}

impl Texts {
    fn get(&self, number: u32) -> Option<&str> {
        let index = (number as usize).checked_sub(1)?;
        let from = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)? as usize,
            None => 0,
        };
        self.all.get(from..*self.ends.get(index)? as usize)
    }
}

/// A file that is being read.
#[derive(Debug)]
pub(crate) struct Draft {
    v4: Vec<Row<u32>>,
    v6: Vec<Row<u128>>,
    values: Vec<Value>,
    known: HashMap<Value, u32>,
    texts: Texts,
    text_numbers: HashMap<String, u32>,
    /// The day of the data, where the file tells it.
    pub(crate) dated: Option<Timestamp>,
}

impl Draft {
    pub(crate) fn new() -> Self {
        Self {
            v4: Vec::new(),
            v6: Vec::new(),
            values: Vec::new(),
            known: HashMap::new(),
            texts: Texts::default(),
            text_numbers: HashMap::new(),
            dated: None,
        }
    }

    fn rows(&self) -> u64 {
        (self.v4.len() + self.v6.len()) as u64
    }

    fn text(&mut self, text: Option<&str>) -> u32 {
        let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else {
            return 0;
        };
        if let Some(number) = self.text_numbers.get(text) {
            return *number;
        }
        self.texts.all.push_str(text);
        let end = u32::try_from(self.texts.all.len()).unwrap_or(u32::MAX);
        self.texts.ends.push(end);
        let number = u32::try_from(self.texts.ends.len()).unwrap_or(0);
        self.text_numbers.insert(text.to_owned(), number);
        number
    }

    /// Takes a range in. An entry that says nothing is as good as none.
    pub(crate) fn add(&mut self, span: Span, entry: Entry<'_>) -> Result<(), Problem> {
        if self.rows() >= MAX_ROWS {
            return Err(Problem::TooMuch(MAX_ROWS, "ranges"));
        }
        let value = Value {
            asn: entry.asn.unwrap_or(0),
            organisation: self.text(entry.organisation),
            label: self.text(entry.label),
            country: entry.country.unwrap_or_default(),
        };
        if value.asn == 0 && value.organisation == 0 && value.label == 0 && value.country == [0; 2]
        {
            return Ok(());
        }
        let next = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        let number = *self.known.entry(value).or_insert(next);
        if number == next {
            self.values.push(value);
        }
        let generic = entry.generic;
        match span {
            Span::V4(first, last) => self.v4.push(Row {
                first,
                last,
                value: number,
                generic,
            }),
            Span::V6(first, last) => self.v6.push(Row {
                first,
                last,
                value: number,
                generic,
            }),
        }
        Ok(())
    }

    pub(crate) fn finish(self, role: Role, format: &'static str) -> Result<Database, Problem> {
        let rows = self.rows();
        if rows == 0 {
            return Err(Problem::Empty);
        }
        let Self {
            v4,
            v6,
            mut values,
            mut texts,
            dated,
            ..
        } = self;
        values.shrink_to_fit();
        texts.all.shrink_to_fit();
        texts.ends.shrink_to_fit();
        Ok(Database {
            role,
            format,
            dated,
            rows,
            v4: Ranges::build(v4),
            v6: Ranges::build(v6),
            values,
            texts,
        })
    }
}

/// What a database says of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found<'a> {
    pub(crate) asn: Option<u32>,
    pub(crate) organisation: Option<&'a str>,
    pub(crate) country: Option<[u8; 2]>,
    pub(crate) label: Option<&'a str>,
    /// Size of the range: for IPv4 and IPv6 the number of bits that are free in it.
    pub(crate) bits: u8,
}

/// One file's ranges and what it says of them, in memory.
#[derive(Clone, Debug)]
pub struct Database {
    role: Role,
    format: &'static str,
    dated: Option<Timestamp>,
    rows: u64,
    v4: Ranges<u32>,
    v6: Ranges<u128>,
    values: Vec<Value>,
    texts: Texts,
}

impl Database {
    pub(crate) fn find(&self, address: IpAddr) -> Option<Found<'_>> {
        let (value, bits) = match address {
            IpAddr::V4(v4) => self.v4.find(v4.to_bits())?,
            IpAddr::V6(v6) => self.v6.find(v6.to_bits())?,
        };
        let value = self.values.get(value as usize)?;
        Some(Found {
            asn: (value.asn != 0).then_some(value.asn),
            organisation: self.texts.get(value.organisation),
            country: (value.country != [0; 2]).then_some(value.country),
            label: self.texts.get(value.label),
            bits,
        })
    }

    /// What its ranges are.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// In words, of which format the file is.
    #[must_use]
    pub fn format(&self) -> &'static str {
        self.format
    }

    /// When its data was made, where the file itself tells it.
    #[must_use]
    pub fn dated(&self) -> Option<Timestamp> {
        self.dated
    }

    /// Ranges in the file.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Memory taken, bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.v4.bytes()
            + self.v6.bytes()
            + self.values.capacity() * size_of::<Value>()
            + self.texts.all.capacity()
            + self.texts.ends.capacity() * 4
    }
}
