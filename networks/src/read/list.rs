//! Lists of CIDR blocks: `192.0.2.0/24 what it is  # comment`.

use super::ReadError;
use crate::database::{Draft, Entry};
use crate::span::Span;

/// Takes one line in; what stands behind the range is its name, else `name` is.
pub(super) fn line(
    number: u64,
    line: &str,
    name: &str,
    draft: &mut Draft,
) -> Result<(), ReadError> {
    let line = line.split(" #").next().unwrap_or(line).trim();
    let (range, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    // `a - b`
    let (range, rest) = match rest.strip_prefix('-') {
        Some(last) => {
            let last = last.trim_start();
            let (last, rest) = last.split_once(char::is_whitespace).unwrap_or((last, ""));
            (format!("{range}-{last}"), rest.trim())
        }
        None => (range.to_owned(), rest),
    };
    let span = Span::parse(&range).map_err(|problem| problem.at(number))?;
    let label = if rest.is_empty() { name } else { rest };
    let entry = Entry {
        label: Some(label),
        ..Entry::default()
    };
    draft.add(span, entry).map_err(|problem| problem.at(number))
}
