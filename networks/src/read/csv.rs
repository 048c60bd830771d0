//! CSV and TSV: a range or a CIDR block, then a system, its organisation, a country, or a name.
//!
//! Shapes: ip-location-db (`start,end,asn,organisation` and `start,end,country`, addresses or
//! numbers), iptoasn (`start end asn country organisation`, tabs), GeoLite2-ASN-Blocks and IPinfo (with
//! a heading), geofeeds (RFC 8805: `prefix,country,region,city,postal code`).

use super::{ReadError, country, system};
use crate::database::{Draft, Entry, Role};
use crate::error::Problem;
use crate::span::{Span, address};

/// Most columns.
const MAX_COLUMNS: usize = 64;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    First,
    Last,
    Block,
    System,
    Organisation,
    Country,
    Label,
    Other,
}

/// A file's columns.
#[derive(Debug)]
pub(super) struct Table {
    separator: char,
    columns: Vec<Column>,
    heading: bool,
    role: Role,
    name: String,
    fields: Vec<String>,
}

/// Cuts a line into fields; RFC 4180's quotes.
fn cut(line: &str, separator: char, fields: &mut Vec<String>) -> Result<(), Problem> {
    let mut used = 0;
    let mut chars = line.chars().peekable();
    loop {
        if used == fields.len() {
            if used >= MAX_COLUMNS {
                return Err(Problem::TooMuch(MAX_COLUMNS as u64, "columns"));
            }
            fields.push(String::new());
        }
        let Some(field) = fields.get_mut(used) else {
            return Ok(());
        };
        field.clear();
        used += 1;
        if chars.next_if_eq(&'"').is_some() {
            loop {
                match chars.next() {
                    Some('"') if chars.next_if_eq(&'"').is_some() => field.push('"'),
                    Some('"') => break,
                    Some(c) => field.push(c),
                    None => return Err(Problem::Quote),
                }
            }
        }
        let mut more = false;
        for c in chars.by_ref() {
            if c == separator {
                more = true;
                break;
            }
            field.push(c);
        }
        if !more {
            fields.truncate(used);
            return Ok(());
        }
    }
}

/// The column that a heading names.
fn named(heading: &str) -> Column {
    match heading
        .trim()
        .to_ascii_lowercase()
        .replace([' ', '-'], "_")
        .as_str()
    {
        "start" | "start_ip" | "ip_range_start" | "range_start" | "first" | "ip_from"
        | "start_address" => Column::First,
        "end" | "end_ip" | "ip_range_end" | "range_end" | "last" | "ip_to" | "end_address" => {
            Column::Last
        }
        "network" | "cidr" | "prefix" | "ip_prefix" | "range" | "ip_range" | "subnet" | "block" => {
            Column::Block
        }
        "asn" | "as" | "as_number" | "autonomous_system_number" => Column::System,
        "as_name"
        | "organisation"
        | "organization"
        | "org"
        | "as_organization"
        | "as_org"
        | "autonomous_system_organization"
        | "as_description"
        | "isp" => Column::Organisation,
        "country_code" | "country" | "country_iso_code" | "iso_code" => Column::Country,
        "provider" | "service" | "label" | "pool" | "name" => Column::Label,
        _ => Column::Other,
    }
}

/// What the columns of a file without a heading hold, by its first line.
fn guessed(fields: &[String]) -> Option<Vec<Column>> {
    let at = |index: usize| fields.get(index).map(String::as_str).unwrap_or_default();
    let mut columns = if address(at(0)).is_ok() && address(at(1)).is_ok() {
        vec![Column::First, Column::Last]
    } else if Span::parse(at(0)).is_ok() {
        vec![Column::Block]
    } else {
        return None;
    };
    for field in fields.iter().skip(columns.len()) {
        let field = field.trim();
        let has = |column| columns.contains(&column);
        let number = matches!(system(field), Ok(Some(_))) || field == "0";
        // A number behind the country is a geofeed's postal code.
        columns.push(if number && !has(Column::System) && !has(Column::Country) {
            Column::System
        } else if field.len() == 2
            && field.bytes().all(|b| b.is_ascii_alphabetic())
            && !has(Column::Country)
        {
            Column::Country
        } else if has(Column::System) && !has(Column::Organisation) && !number {
            Column::Organisation
        } else if !has(Column::System)
            && !has(Column::Country)
            && !has(Column::Label)
            && !field.is_empty()
        {
            Column::Label
        } else {
            Column::Other
        });
    }
    Some(columns)
}

impl Table {
    /// Finds the columns by the first line, which may be a heading.
    pub(super) fn new(
        separator: char,
        (role, name): (Role, &str),
        number: u64,
        first: &str,
    ) -> Result<Self, ReadError> {
        let mut fields = Vec::new();
        cut(first, separator, &mut fields).map_err(|problem| problem.at(number))?;
        let mut table = Self {
            separator,
            columns: Vec::new(),
            heading: false,
            role,
            name: name.to_owned(),
            fields,
        };
        table.columns = match guessed(&table.fields) {
            Some(columns) => columns,
            None => {
                table.heading = true;
                table.headed()
            }
        };
        let has = |column| table.columns.contains(&column);
        let ranged = has(Column::Block) || (has(Column::First) && has(Column::Last));
        let says = has(Column::System)
            || has(Column::Organisation)
            || has(Column::Country)
            || has(Column::Label)
            || role == Role::Pool
            || !table.heading;
        if ranged && says {
            Ok(table)
        } else {
            Err(Problem::Heading.at(number))
        }
    }

    /// Columns by their names; of several of one meaning the one with the fuller name counts.
    fn headed(&self) -> Vec<Column> {
        let mut columns: Vec<Column> = self.fields.iter().map(|field| named(field)).collect();
        let at = |name: &str| {
            self.fields
                .iter()
                .position(|f| f.trim().eq_ignore_ascii_case(name))
        };
        if let (Some(code), Some(country)) = (at("country_code"), at("country"))
            && code != country
            && let Some(column) = columns.get_mut(country)
        {
            *column = Column::Other;
        }
        let unnamed = !columns.contains(&Column::Organisation) && columns.contains(&Column::System);
        if unnamed
            && let Some(name) = at("name")
            && let Some(column) = columns.get_mut(name)
        {
            *column = Column::Organisation;
        }
        columns
    }

    pub(super) fn has_heading(&self) -> bool {
        self.heading
    }

    /// Takes one line in.
    pub(super) fn line(
        &mut self,
        number: u64,
        line: &str,
        draft: &mut Draft,
    ) -> Result<(), ReadError> {
        self.row(line, draft).map_err(|problem| problem.at(number))
    }

    fn row(&mut self, line: &str, draft: &mut Draft) -> Result<(), Problem> {
        cut(line, self.separator, &mut self.fields)?;
        let field = |column: Column| {
            let index = self.columns.iter().position(|known| *known == column)?;
            self.fields.get(index).map(String::as_str)
        };
        let wanted = self
            .columns
            .iter()
            .position(|c| matches!(c, Column::Last | Column::Block));
        let wanted = wanted.map_or(1, |index| index + 1);
        if self.fields.len() < wanted {
            let found = self.fields.len();
            return Err(Problem::Columns { found, wanted });
        }
        let span = match field(Column::Block) {
            Some(block) => Span::parse(block)?,
            None => {
                let first = address(field(Column::First).unwrap_or_default())?;
                Span::between(first, address(field(Column::Last).unwrap_or_default())?)?
            }
        };
        let nonempty = |text: &&str| !text.trim().is_empty();
        let asn = field(Column::System).map_or(Ok(None), system)?;
        let organisation = field(Column::Organisation).filter(nonempty);
        let country = field(Column::Country).and_then(country);
        let mut label = field(Column::Label).filter(nonempty);
        if label.is_none() && (self.role == Role::Pool || self.says_nothing()) {
            label = Some(&self.name);
        }
        let entry = Entry {
            asn,
            organisation,
            country,
            label,
            generic: false,
        };
        draft.add(span, entry)
    }

    /// Ranges alone: the file's name says what they are.
    fn says_nothing(&self) -> bool {
        !self.columns.iter().any(|column| {
            matches!(
                column,
                Column::System | Column::Organisation | Column::Country
            )
        })
    }
}
